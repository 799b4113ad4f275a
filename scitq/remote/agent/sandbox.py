"""Entering the kept folder of an ended execution: what it had is found again, and a shell started in it.

`agent.pyz sandbox` answers one question, a line of JSON on its standard input:

    open      {"open": execution, "command": text, …}: make ready; `_PLAN` has what else it says. The answer has the `folder`,
              where it will `start`, the `image` of its container if it had one, and `is_fresh` when it had left nothing
    script    {"script": execution}: what command.sh says now

`agent.pyz enter` is then the shell itself, or the one command that was asked for: it becomes that process. Nothing here takes
part in what the agent does; `entered` keeps the folder from being swept meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import Any

from scitq.remote.agent import engines, entered, machine, root
from scitq.remote.agent.containers import is_apart, name_of, staged
from scitq.remote.agent.orders import key_of
from scitq.remote.agent.slots import FOLDERS, INPUT, OUTPUT, RESOURCE, TEMP, WORK
from scitq.remote.agent.spawn import DEFAULT_PATH, own_base

ANSWER = b"scitq-answer "
"""What begins the line of an answer: before it may stand what a login says by itself."""
SCRIPT = "command.sh"
_PLAN = ("task", "env", "base", "cwd", "cpu", "concurrency", "memory", "cpus", "gpus", "options", "run")
"""Of a question, what `enter` needs: the words of an order, the worker's `concurrency`, the command to `run` instead of a shell."""
_FILE = "enter"

# Where the command ran, which is the image's own folder; in one that has none, the work folder.
_INSIDE = 'if [ "$PWD" = / ]; then cd /work; fi; export COMMAND=/work/command.sh; '
_SHELL = "if command -v bash >/dev/null 2>&1; then exec bash --norc --noprofile; else exec sh; fi"


class Gone(Exception):
    """It cannot be entered; the text says why."""


def main(folder: str) -> int:
    """Answer the question on standard input."""
    told = answer(folder, json.loads(sys.stdin.buffer.readline()))
    sys.stdout.buffer.write(ANSWER + json.dumps(told).encode("ascii") + b"\n")
    return 0


def answer(folder: str, question: dict[str, Any]) -> dict[str, Any]:
    """What is said to a question; not `ok`: it cannot be done, and why."""
    try:
        return {
            "ok": True,
            **(script(folder, question["script"]) if "script" in question else prepare(folder, question)),
        }
    except Gone as error:
        return {"ok": False, "error": str(error)}
    except OSError as error:
        return {"ok": False, "error": f"{error.filename or folder}: {error.strerror}"}


def script(folder: str, execution: Any) -> dict[str, Any]:
    """What command.sh of an execution says now; null when there is none."""
    try:
        with open(os.path.join(folder, "exec", key_of(execution), WORK, SCRIPT), "rb") as file:
            return {"script": file.read().decode("utf-8", "surrogateescape")}
    except OSError:
        return {"script": None}


def prepare(folder: str, question: dict[str, Any]) -> dict[str, Any]:
    """Make the folder of an execution ready to be entered: its command in it, as it was left by who was there before."""
    key = key_of(question["open"])
    home = os.path.join(folder, "exec", key)
    work = os.path.join(home, WORK)
    is_fresh = not os.path.isdir(work)
    if is_fresh:
        if os.path.isdir(home) or not question.get("may_make"):
            raise Gone("its folder is not kept any more")
        os.makedirs(work, mode=0o700, exist_ok=True)  # it had nothing and left nothing: an empty one is what it had
    image = _image(folder, key)
    if question.get("is_contained") and image is None:
        raise Gone("what its container was made of is not known any more")
    held = entered.hold(home)
    try:
        if not os.path.isdir(work):
            raise Gone("its folder is not kept any more")
        for name in FOLDERS:  # what it left in $OUTPUT has been brought home
            os.makedirs(os.path.join(home, name), mode=0o700, exist_ok=True)
        _put(os.path.join(work, SCRIPT), question["command"].encode("utf-8", "surrogateescape"), is_kept=True)
        plan = {name: question[name] for name in _PLAN if question.get(name) is not None}
        _put(os.path.join(home, _FILE), json.dumps(plan).encode("ascii"), is_kept=False)
    finally:
        os.close(held)
    start = _start(plan, work) if image is None else None
    return {"folder": home, "work": work, "start": start, "is_fresh": is_fresh, "image": image}


def _image(folder: str, key: str) -> dict[str, Any] | None:
    """What the container of an execution was made of; None when it had none. In the folder of what was staged for it as long as
    that is there, and then beside what it left."""
    if (found := staged(folder, key)) is not None:
        return found
    with (
        contextlib.suppress(OSError, ValueError),
        open(os.path.join(folder, "exec", key, "image"), encoding="ascii") as file,
    ):
        known: dict[str, Any] | None = json.load(file)
        return known
    return None


def _put(path: str, data: bytes, *, is_kept: bool) -> None:
    """Write a private file, whole or not at all. `is_kept`: what is there stays."""
    if is_kept and os.path.lexists(path):
        return
    fresh = f"{path}.{os.getpid()}.new"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(data)
    os.rename(fresh, path)


def _start(plan: dict[str, Any], work: str) -> str:
    """Where the command ran, if that is still there."""
    cwd = plan.get("cwd")
    return cwd if cwd is not None and os.path.isdir(cwd) else work


def enter(folder: str, execution: str) -> int:
    """Become a shell in the folder that was made ready, or the command that was asked for; returns only when that fails."""
    key = key_of(execution)
    home = os.path.join(folder, "exec", key)
    work = os.path.join(home, WORK)
    try:
        entered.hold(home)  # for as long as anything lives that is started here
        with open(os.path.join(home, _FILE), encoding="ascii") as file:
            plan = json.load(file)
        if not os.path.isdir(work):
            raise FileNotFoundError
    except (OSError, ValueError):
        print("the folder of that execution is not kept any more", file=sys.stderr)
        return 1
    image = _image(folder, key)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and they would be ignored in the shell
        signal.signal(number, signal.SIG_DFL)
    env = _environment(plan, home, key, is_contained=image is not None)
    try:
        words = _native(plan, work, env) if image is None else None
        if words is None:
            assert image is not None
            words, env = _contained(folder, key, plan, image, env)
        os.execvpe(words[0], words, env)
    except OSError as error:
        print(f"{error.filename or 'the shell'}: {error.strerror}", file=sys.stderr)
    return 126


def _environment(plan: dict[str, Any], home: str, key: str, *, is_contained: bool) -> dict[str, str]:
    """What the execution had, without the mark by which a keeper knows what it has started."""
    places = {name: os.path.join(home, place) for name, place in
              (("INPUT", INPUT), ("OUTPUT", OUTPUT), ("RESOURCE", RESOURCE), ("TEMP", TEMP))}  # fmt: skip
    if is_contained:
        env = {**plan.get("env", {}), **engines.PLACES}
    else:
        env = {**own_base(), **plan.get("base", {}), **plan.get("env", {}), **places}
        env["COMMAND"] = os.path.join(home, WORK, SCRIPT)
    slots = max(1, int(plan.get("concurrency") or 1))
    env["CPU"] = str(plan.get("cpu") or max(1, machine.cpus() // slots))
    if "memory" in plan:
        env["MEMORY"] = str(plan["memory"])
    if plan.get("gpus"):
        env["CUDA_VISIBLE_DEVICES"] = ",".join(plan["gpus"])
    env |= {"SCITQ_TASK": str(plan.get("task", "")), "SCITQ_EXECUTION": key}
    if "TERM" in os.environ:
        env["TERM"] = os.environ["TERM"]
    return env


def _native(plan: dict[str, Any], work: str, env: dict[str, str]) -> list[str]:
    os.chdir(_start(plan, work))
    if plan.get("run") is not None:
        return ["sh", "-c", plan["run"]]
    env["PS1"] = f"[scitq task {env['SCITQ_TASK']}] $PWD \\$ "
    folders = env.get("PATH", DEFAULT_PATH).split(":")
    # Without the user's own start-up files: the task had none of what they set.
    has_bash = any(os.access(os.path.join(each or ".", "bash"), os.X_OK) for each in folders)
    return ["bash", "--norc", "--noprofile"] if has_bash else ["sh", "-i"]


def _contained(
    folder: str, key: str, plan: dict[str, Any], image: dict[str, Any], env: dict[str, str]
) -> tuple[list[str], dict[str, str]]:
    """The same image, mounts and options; the work folder beside them."""
    from scitq.remote.agent.container import client, split

    home = os.path.join(folder, "exec", key)
    engine, identity, gpus = image["engine"], root.identity(folder), plan.get("gpus") or []
    if engine == "docker" and os.getuid():
        env.setdefault("HOME", engines.PLACES["TEMP"])
    if is_apart(image) and gpus:
        env["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, range(len(gpus))))
    run = plan.get("run")
    if run is None:
        env["PS1"] = f"[scitq task {env['SCITQ_TASK']}] $PWD \\$ "
    said = ["-c", _INSIDE + _SHELL] if run is None else ["-c", _INSIDE + 'exec /bin/sh -c "$1"', "sh", run]
    places = {"INPUT": INPUT, "OUTPUT": OUTPUT, "TEMP": TEMP, "RESOURCE": RESOURCE}
    order = engines.Order(
        f"{name_of(identity, key)}-entered-{os.getpid()}", f"{identity}:{key}:entered", image.get("file") or image["id"], [], False,
        plan.get("options") or [], {name: os.path.join(home, place) for name, place in places.items()}, "",
        image.get("mounts", ()), env, plan.get("memory"), plan.get("cpus"), gpus,
    )  # fmt: skip
    variables, lines = split(env)
    file = os.memfd_create("env", 0)  # stays open in the engine's program, which reads it
    os.write(file, lines)
    outside = {**client(), **variables}
    if image.get("socket"):
        outside["DOCKER_HOST"] = f"unix://{image['socket']}"
    return engines.enter(
        engine, order, said, os.path.join(home, WORK), env_file=f"/dev/fd/{file}", in_environment=sorted(variables),
        env=outside, has_terminal=run is None and os.isatty(0),
    )  # fmt: skip
