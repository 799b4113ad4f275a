"""Executions in containers, as the keeper sees them: what is spawned for one, how it is told things, how it ended.

With docker and podman a process of ours stands for the container (`container`); with apptainer the engine's program is
the task's process, and everything is as without a container.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any

from scitq.remote.agent import engines
from scitq.remote.agent.orders import Order
from scitq.remote.agent.slots import Slot

AGAIN = 5
"""How often a process that was killed is replaced by one that goes on with its container."""
BLOCKED = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *range(signal.SIGRTMIN, signal.SIGRTMAX + 1)}
                    if hasattr(signal, "SIGRTMIN") else ())  # fmt: skip
"""What a process of ours must not hear before it listens."""
IMAGE = ("engine", "id", "digest")
"""Of what staging found out, what the driver hears."""
_PROGRAM = [sys.executable, "-I", "-S", "-X", "utf8", os.path.abspath(sys.argv[0]), "container"]


def is_apart(image: dict[str, Any] | None) -> bool:
    """Whether it runs under a service of the system, and not among our own processes."""
    return image is not None and image["engine"] not in engines.BIN


def told(image: dict[str, Any]) -> dict[str, Any]:
    """What the driver hears of an image."""
    return {name: image.get(name) for name in IMAGE}


def name_of(identity: str, key: str) -> str:
    """The container of an execution. The folder of the agent has an identity of its own: its numbers may be another's too."""
    return f"scitq-{identity}-{key}"


def _order(order: Order, slot: Slot, identity: str, env: dict[str, str], nice: int = 0) -> engines.Order:
    image, limit = order.image, order.limit or {}
    assert image is not None
    own = {**order.env, **engines.PLACES}
    own |= {
        name: env[name]
        for name in ("CPU", "MEMORY", "CUDA_VISIBLE_DEVICES", "SCITQ_TASK", "SCITQ_EXECUTION")
        if name in env
    }
    if image["engine"] == "docker" and os.getuid():
        own.setdefault("HOME", engines.PLACES["TEMP"])  # the image knows nothing of this user
    if is_apart(image) and order.gpus:
        own["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(len(order.gpus))))  # it sees no others, and counts anew
    return engines.Order(
        name_of(identity, order.key), f"{identity}:{order.key}", image.get("file") or image["id"], order.argv, order.script is not None,
        order.options, slot.environment, slot.command, image.get("mounts", ()), own, limit.get("memory"), limit.get("cpus"), order.gpus,
        order.cap, order.cwd, nice,
    )  # fmt: skip


def plan(order: Order, slot: Slot, identity: str, env: dict[str, str], nice: int) -> dict[str, Any]:
    """What the process that stands for the container is told. `nice`: how far it is to stand back."""
    from scitq.remote.agent.container import is_line

    wanted = _order(order, slot, identity, env, nice)
    image = order.image
    assert image is not None
    in_environment = [name for name, value in wanted.env.items() if not is_line(name, value)]
    create = engines.create(image["engine"], wanted, "/dev/fd/3", in_environment)
    return {
        **adoption(order.key, image, identity, order.cap), "adopt": False, "create": create, "env": dict(wanted.env),
        "nice": nice,
    }  # fmt: skip


def adoption(key: str, image: dict[str, Any], identity: str, cap: int) -> dict[str, Any]:
    """The same for one that is to go on with a container that is there already. The current folder is the root."""
    return {
        "engine": image["engine"], "socket": image.get("socket"), "name": name_of(identity, key), "cap": cap,
        "ended": f"{os.getcwd()}/stage/{key}/ended", "adopt": True, "memory": image.get("memory"),
        "polite": f"{os.getcwd()}/polite",
    }  # fmt: skip


def spawn(said: dict[str, Any], key: str, journal: str, slot: Slot, reset: tuple[int, ...]) -> int:
    """Start the process for a container, in the slot's work folder; its pid."""
    file = os.memfd_create("plan")
    try:
        os.write(file, json.dumps(said).encode("ascii"))
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW
        return os.posix_spawn(
            _PROGRAM[0], _PROGRAM, {**os.environ, "SCITQ_EXECUTION": key, "SCITQ_JOURNAL": journal},
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, slot.out_path, flags, 0o600),
                (os.POSIX_SPAWN_OPEN, 2, slot.err_path, flags, 0o600),
                (os.POSIX_SPAWN_DUP2, file, 3),
            ),
            setsid=True, setsigmask=BLOCKED, setsigdef=reset,
        )  # fmt: skip
    finally:
        os.close(file)


def execute(order: Order, slot: Slot, env: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Command line and environment of apptainer for an order; what is ours in `env` stays, our marks among it."""
    assert order.image is not None
    wanted = _order(order, slot, "", env)
    return engines.execute(
        order.image["engine"],
        wanted,
        {**os.environ, **{name: env[name] for name in ("SCITQ_TASK", "SCITQ_EXECUTION", "SCITQ_JOURNAL")}},
    )


def send(pid: int, number: int) -> None:
    """A signal for a container."""
    if 0 < number < signal.SIGRTMAX - signal.SIGRTMIN + 1:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGRTMIN + number)


def look_again(pid: int) -> None:
    """Tell the process that stands for a container that how polite it is to be may have changed. One that does not know this
    signal does not hear it."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGWINCH)


def ending(key: str) -> dict[str, Any] | None:
    """How a container ended, if its process has said so. The current folder is the root."""
    try:
        with open(f"stage/{key}/ended", encoding="ascii") as file:
            said: dict[str, Any] = json.load(file)
            return said
    except (OSError, ValueError):
        return None


def staged(root: str, key: str) -> dict[str, Any] | None:
    """The image of an execution that was staged here, if it is to run in a container."""
    try:
        with open(os.path.join(root, "stage", key, "ready"), encoding="ascii") as file:
            found: dict[str, Any] | None = json.loads(file.read() or "null")
            return found
    except (OSError, ValueError):
        return None
