"""What an order may say, and the file that remembers accepted orders until they start.

Pure reading of one JSON object, and an append-only file. Queueing and running is `keeper`.

    order     id of the execution: a number or a short text; a repeated one is ignored
    task      what SCITQ_TASK says
    argv      the program and its arguments; or
    script    a text that is run as a file, by
    shell     true or absent (sh), "bash", "/path/to/it", …
    env       the user's variables, over
    base      the environment of the submitting context (PATH, HOME, LANG, …); absent: the agent's own
    cwd       absolute; absent: the slot's work folder
    timeout   seconds until it is ended
    grace     seconds between TERM and KILL (10)
    cap       bytes kept of each stream (1 GiB)
    cpu       what CPU says; absent: this machine's share of a slot
    deliver   absolute: where a non-empty output folder goes after success, a place of this task alone; or
    output    address or absolute path: where the outputs go after success, if it holds nobody else's files
    owner     who asks: the same text, the same task
    overwrite true: other files at `output` stay, same names are replaced
    failed    where the outputs of a failure go: like `output` if that is given, else like `deliver`; true: like `home`
    home      true, instead of `deliver` or `output`: what a success leaves is held here until the driver has fetched it;
              "always": also when it leaves nothing
    remotes   names of the rclone remotes that its addresses use
    limit     {"memory": bytes, "cpus": number}: what the system must not let it exceed, if it can

With any of these it is staged by the agent before it may start:

    input     addresses of what goes into $INPUT; a plain path is absolute, and of this machine; or
              {"uri", "parcel"}: a path of the driver's machine, see `parcels`; it waits until all of that is here;
              {"uri", "of", "below"}: what lies at `below` in the output of an execution of this worker, if that is still
              here (see `kept`); else the address, or the parcel if there is one; with "awaited": of one of `after`, which
              may leave nothing (the keeper adds `nothing`: which did)
    resource  addresses of what goes into $RESOURCE, by way of this machine's cache
    skip      true: it ends at once, well, if a complete output is at `output` already
    output    where the outputs go, when what is there now has to be looked at first (no `overwrite`)
    check     {"parcel"}: it waits until the driver has said whether its output, which goes to the driver's machine, may be put there
    stage_timeout   seconds for bringing all of it
    remotes   names of the rclone remotes that this needs; it waits until the driver has told about them
    image     the container image that it runs in; the agent makes it present first
    options   words for the container engine's command line
    registry  the registry of the image, and
    login     true: it waits until the driver has told the login of that registry
    after     executions of this worker: it is staged once all of them have ended well, see `conditions`
    engine    docker, podman, apptainer or singularity: the one to use; absent: the first that answers

Unknown keys are ignored. Texts may carry bytes that are no UTF-8 as surrogate escapes, never NUL.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scitq.remote.agent.cgroups import Box

CAP_BYTES = 1 << 30
GRACE_S = 10.0
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")


class BadOrder(Exception):
    """The order cannot be carried out as written; the text says why."""


def key_of(value: Any) -> str:
    """The text form of an execution id, which is also the name of its folder; ValueError for anything unsafe."""
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63:
        return str(value)
    if isinstance(value, str) and 0 < len(value) <= 100 and value[0] != "." and _SAFE.issuperset(value):
        return value
    raise ValueError("an execution id is a number or up to 100 letters, digits, dots, dashes and underscores")


def _encoded(text: Any, what: str) -> str:
    if not isinstance(text, str):
        raise BadOrder(f"{what} must be a text")
    if "\0" in text:
        raise BadOrder(f"{what} holds a NUL, which no program can be given")
    if text.isascii():
        return text
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise BadOrder(f"{what} holds a character that is neither text nor an escaped byte") from None
    return text


def _number(order: dict[str, Any], name: str, low: float) -> float | None:
    value = order.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < 1e15:
        raise BadOrder(f"{name} must be a number from {low:g}")
    return float(value)


# The last base environment that was checked: orders come in rows with the same one.
_checked: dict[str, str] = {}


def _base(order: dict[str, Any]) -> dict[str, str]:
    global _checked
    if order.get("base") != _checked:
        _checked = _variables(order, "base")
    return _checked


def _variables(order: dict[str, Any], name: str) -> dict[str, str]:
    value = order.get(name)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BadOrder(f"{name} must be an object of texts")
    for variable, text in value.items():
        _encoded(text, f"{name}: the value of {variable!r}")
        if not variable or "=" in _encoded(variable, f"a name in {name}"):
            raise BadOrder(f"{name}: {variable!r} cannot be the name of a variable")
    return value


HOME = ("output", "owner", "overwrite", "failed", "remotes", "home")
"""The keys that say where outputs go, beside `deliver`."""


def _home(raw: dict[str, Any]) -> dict[str, Any] | None:
    """Those of this order; None when there is none of `output`, `failed` and `home`."""
    if raw.get("output") is None and raw.get("failed") is None and raw.get("home") is None:
        return None
    found = {name: raw[name] for name in HOME if raw.get(name) is not None}
    for name in ("output", "owner", "failed"):
        if name in found and (name, found[name]) != ("failed", True) and not _encoded(found[name], name):
            raise BadOrder(f"{name} is empty")
    if found.get("home", True) not in (True, "always") or (
        "home" in found and ("output" in found or raw.get("deliver"))
    ):
        raise BadOrder("home is true or always, instead of output and deliver")
    if "output" not in found and not str(found.get("failed", "/")).startswith("/") and found["failed"] is not True:
        raise BadOrder("failed must be an absolute path")
    names = found.get("remotes", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadOrder("remotes must be a list of names")
    return found


def _check_entry(entry: Any, name: str) -> None:
    """An address, or an object with one."""
    if not isinstance(entry, dict) or name == "remotes":
        _encoded(entry, f"an item of {name}")
        return
    for key in ("uri", *(("parcel",) if "parcel" in entry or "of" not in entry else ())):
        if not _encoded(entry.get(key), f"{key} of an item of {name}"):
            raise BadOrder(f"{key} of an item of {name} is empty")
    below = _encoded(entry.get("below", ""), f"below of an item of {name}")
    if below.startswith("/") or ".." in below.split("/"):
        raise BadOrder(f"below of an item of {name} leads out of the output")


def _ids(value: Any, name: str) -> list[str]:
    """The keys of a list of executions."""
    try:
        return [key_of(each) for each in value]
    except (ValueError, TypeError) as error:
        raise BadOrder(f"{name}: {error}") from None


def _limits(value: Any) -> dict[str, float]:
    if not isinstance(value, dict):
        raise BadOrder("limit must be an object")
    found = {name: _number(value, name, low) for name, low in (("memory", 1), ("cpus", 0.001))}
    return {name: number for name, number in found.items() if number is not None}


class Order:
    """One accepted order, checked."""

    __slots__ = ("after", "argv", "base", "box", "cap", "cpu", "cwd", "deliver", "env", "gpus", "grace", "home",
                 "id", "image", "is_staged", "key", "limit", "memory", "of", "options", "raw", "script", "slots",
                 "task", "timeout")  # fmt: skip

    def __init__(self, raw: dict[str, Any]) -> None:
        self.raw = raw
        self.id = raw["order"]
        self.key = key_of(self.id)
        self.task = _encoded(str(raw.get("task", "")), "task")
        argv, script = raw.get("argv"), raw.get("script")
        self.script: str | None = None
        if script is not None:
            if argv is not None:
                raise BadOrder("an order has either argv or script")
            shell = raw.get("shell", True)
            shell = "sh" if shell is True or shell is None else shell
            if not _encoded(shell, "shell"):
                raise BadOrder("shell is empty")
            self.script = _encoded(script, "script")
            self.argv = [shell]
        else:
            if not isinstance(argv, list) or not argv:
                raise BadOrder("argv must be a list with at least the program's name")
            self.argv = [_encoded(word, "a word of argv") for word in argv]
            if not argv[0]:
                raise BadOrder("the program's name is empty")
        self.env = _variables(raw, "env")
        self.base = _base(raw)
        self.cwd = None if raw.get("cwd") is None else _encoded(raw["cwd"], "cwd")
        self.deliver = None if raw.get("deliver") is None else _encoded(raw["deliver"], "deliver")
        for name, path in (("cwd", self.cwd), ("deliver", self.deliver)):
            if path is not None and not path.startswith("/"):
                raise BadOrder(f"{name} must be an absolute path")
        self.home = _home(raw)
        self.after = _ids(raw.get("after") or [], "after")
        self.of: frozenset[str] = frozenset(self.after)
        """Executions whose output is to stay here until this one has it."""
        self.timeout = _number(raw, "timeout", 0)
        grace = _number(raw, "grace", 0)
        self.grace = GRACE_S if grace is None else grace
        cap = _number(raw, "cap", 0)
        self.cap = CAP_BYTES if cap is None else int(cap)
        cpu = _number(raw, "cpu", 0)
        self.cpu = None if cpu is None else max(1, int(cpu))
        self.slots = int(_number(raw, "slots", 1) or 1)
        memory = _number(raw, "memory", 1)
        self.memory = None if memory is None else int(memory)
        limit = raw.get("limit")
        self.limit = None if limit is None else _limits(limit)
        self.box: Box | None = None
        """The group that keeps it to its limit, once it is about to start."""
        gpus = raw.get("gpus", [])
        if not isinstance(gpus, list):
            raise BadOrder("gpus must be a list of ids")
        self.gpus = [_encoded(gpu, "the id of a GPU") for gpu in gpus]
        self.image: dict[str, Any] | None = None
        """What its container is made of, by which engine, once the agent has said so."""
        self.options: list[str] = []
        self.is_staged = (
            "input" in raw
            or "resource" in raw
            or "output" in raw
            or bool(raw.get("skip"))
            or raw.get("image") is not None
            or raw.get("check") is not None
        )
        """Whether the agent has something to do before it may start."""
        if self.is_staged:
            self._check_data(raw)

    def _check_data(self, raw: dict[str, Any]) -> None:
        for name in ("input", "resource", "remotes"):
            value = raw.get(name, [])
            if not isinstance(value, list):
                raise BadOrder(f"{name} must be a list of texts")
            for entry in value:
                _check_entry(entry, name)
        entries = [*raw.get("input", []), *raw.get("resource", [])]
        self.of |= frozenset(_ids([each["of"] for each in entries if isinstance(each, dict) and "of" in each], "of"))
        if raw.get("output") is not None:
            _encoded(raw["output"], "output")
        if raw.get("check") is not None and not (
            isinstance(raw["check"], dict) and _encoded(raw["check"].get("parcel"), "check")
        ):
            raise BadOrder("check needs a parcel")
        _number(raw, "stage_timeout", 0)
        if raw.get("image") is not None:
            for name in ("image", "registry", "engine"):
                if raw.get(name) is not None and (not _encoded(raw[name], name) or raw[name].startswith("-")):
                    raise BadOrder(f"{name} is not a name")
            options = raw.get("options", [])
            if not isinstance(options, list):
                raise BadOrder("options must be a list of words")
            self.options = [_encoded(word, "a word of options") for word in options]
        self.is_staged = bool(
            raw.get("input")
            or raw.get("image")
            or raw.get("resource")
            or raw.get("skip")
            or raw.get("check")
            or (raw.get("output") is not None and not raw.get("overwrite"))
        )


class OrderFile:
    """Accepted orders on disk: appended before anything else is done with them, dropped once started."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        self.size = os.fstat(self.file).st_size

    def read(self) -> list[bytes]:
        """All complete lines; a torn last one was never confirmed to anybody and is cut off."""
        whole = bytearray()
        while chunk := os.pread(self.file, 1 << 20, len(whole)):
            whole += chunk
        complete = whole.rfind(b"\n") + 1
        if complete != len(whole):
            os.ftruncate(self.file, complete)
        self.size = complete
        return bytes(whole[:complete]).splitlines()

    def append(self, lines: bytes) -> None:
        """All or nothing: a part written to a full disk is taken back before the error is passed on."""
        try:
            written = os.write(self.file, lines)
            if written != len(lines):
                raise OSError(28, "the disk is full")
        except OSError:
            os.ftruncate(self.file, self.size)
            raise
        self.size += len(lines)

    def clear(self) -> None:
        """Nothing in it is wanted any more."""
        os.ftruncate(self.file, 0)
        self.size = 0

    def rewrite(self, orders: list[Order]) -> None:
        """Keep only these."""
        fresh = self.path + ".new"
        text = "".join(json.dumps(order.raw) + "\n" for order in orders).encode("ascii")
        file = os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            if os.write(file, text) != len(text):
                raise OSError(28, "the disk is full")
            os.rename(fresh, self.path)
        except BaseException:
            os.close(file)
            raise
        os.close(self.file)
        self.file, self.size = file, len(text)
