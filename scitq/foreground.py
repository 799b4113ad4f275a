"""One task in the foreground, here: its data in folders of one's own, its command on this terminal. The state file is only read.

<name>/ input/ resource/ output/ temp/      as in version 1; what is in them stays for the next time
        command.sh                          the script, if it is one
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from scitq.data import resolved
from scitq.entering import alone
from scitq.errors import BadInput
from scitq.fetch.transfer import get
from scitq.fetch.uri import parse
from scitq.ordering import Orders
from scitq.remote.agent import engines, images
from scitq.remote.agent.container import split
from scitq.remote.agent.sandbox import SCRIPT
from scitq.remote.agent.stagein import led_to
from scitq.store import listing, query
from scitq.task import Spec, TaskId, TaskRow

if TYPE_CHECKING:
    from scitq.engine import Engine

PLACES = {"INPUT": "input", "OUTPUT": "output", "RESOURCE": "resource", "TEMP": "temp"}


def folder_of(row: TaskRow) -> str:
    """What its folder is called: after the task, as far as a folder may be."""
    name = re.sub(r"[^\w.,=@+-]+", "_", row.name or "").lstrip(".")[:100]
    return name or f"task-{row.id}"


def run(
    engine: Engine, task: TaskId, place: Path, say: Callable[[str], None], *, fetches: bool = True, with_resource: bool = True,
    container_engine: str | None = None,
) -> int:  # fmt: skip
    """Run a task in a folder below `place`; gives its exit code.

    Raises:
        BadInput: there is no container engine for it, or what another task leaves is not there yet.
        FetchError: its data cannot be had.
    """
    row = listing.get(engine._reader(), task)
    spec = row.raised.applied(row.spec)
    home = place / folder_of(row)
    for name in PLACES.values():
        (home / name).mkdir(parents=True, exist_ok=True)
    if fetches:
        _fetch(engine, spec, home, say, with_resource=with_resource)
    if spec.shell is not None:
        assert isinstance(spec.command, str)
        (home / SCRIPT).write_text(spec.command, encoding="utf-8", errors="surrogateescape")
    say(f"{spec.line()}\n  in {home}, with {_cpus()} CPUs" + (f", in {spec.container}" if spec.container else ""))
    if spec.container is not None:
        return _contained(spec, task, home, container_engine)
    return _native(engine, spec, task, home)


def _fetch(engine: Engine, spec: Spec, home: Path, say: Callable[[str], None], *, with_resource: bool) -> None:
    db = engine._reader()
    for what, texts in (("input", spec.input), ("resource", spec.resource if with_resource else ())):
        for text in texts:
            there = resolved(db, parse(text), f"{engine.side}/outputs")
            if there is None:
                say(f"  {text}: that task left nothing")
                continue
            say(f"  {what}: {there.shown}")
            get(there, f"{home / what}/")


def _cpus() -> int:
    from scitq.remote.agent import machine

    return machine.cpus()


def _own(spec: Spec, task: TaskId) -> dict[str, str]:
    found = {**spec.env, "CPU": str(_cpus()), "SCITQ_TASK": str(task)}
    if spec.memory is not None:
        found["MEMORY"] = str(spec.memory)
    return found


def _native(engine: Engine, spec: Spec, task: TaskId, home: Path) -> int:
    row = query.row(
        engine._reader(), "select data from context join task on context.id = task.context where task.id = ?", (task,)
    )
    context = Orders(f"{engine.side}/outputs").circumstances(row[0]) if row else {}
    places = {name: str(home / folder) for name, folder in PLACES.items()}
    env = {**os.environ, **context.get("base", {}), **_own(spec, task), **places}
    cwd = context.get("cwd")
    words = [spec.shell, str(home / SCRIPT)] if spec.shell is not None else spec.argv()
    try:
        return alone(lambda: subprocess.call(words, env=env, cwd=cwd if cwd and os.path.isdir(cwd) else home))
    except OSError as error:
        raise BadInput(f"{words[0]}: cannot be started: {error.strerror}.") from error


def _contained(spec: Spec, task: TaskId, home: Path, wanted: str | None) -> int:
    assert spec.container is not None
    found, why = images.choose(wanted or os.environ.get(images.SETTING))
    if found is None:
        raise BadInput(why.replace("This worker", "This machine"))
    name = found["engine"]
    is_path = spec.container.startswith("/")
    image = spec.container if is_path or name not in engines.BIN else f"docker://{spec.container}"
    env = {**_own(spec, task), **engines.PLACES}
    order = engines.Order(
        f"scitq-debug-{task}-{os.getpid()}", f"debug:{task}", image, [spec.shell] if spec.shell is not None else spec.argv(),
        spec.shell is not None, list(spec.container_options), {key: str(home / folder) for key, folder in PLACES.items()},
        str(home / SCRIPT), sorted({path for key in ("input", "resource") for path in led_to(str(home / key))}), env,
        spec.memory, spec.cpus,
    )  # fmt: skip
    if name in engines.BIN:
        words, full = engines.execute(name, order, dict(os.environ))
        return alone(lambda: subprocess.call(words, env=full))
    variables, lines = split(env)
    file = os.memfd_create("env", 0)
    try:
        os.write(file, lines)
        words = engines.create(name, order, f"/dev/fd/{file}", sorted(variables))
        words[words.index("never")] = "missing"
        more = ["--rm", "--interactive", *(["--tty"] if os.isatty(0) and os.isatty(1) else [])]
        words = [name, "run", *more, *words[2:]]
        return alone(lambda: subprocess.call(words, env={**os.environ, **variables}, pass_fds=[file]))
    finally:
        os.close(file)
