"""Commands that are more than a line: `shell_code`, scripts that ship by content, and `remote`, Python functions that do.

What ships is a file in the side folder, named by its content, and a resource of its tasks: so it reaches any worker, and a container.
A function travels as one archive that Python runs as it is, with what unpacks it.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import re
import shlex
import sys
import textwrap
import time
import types
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from scitq.calls import packed, unpacker
from scitq.errors import BadInput
from scitq.fetch.uri import of_path
from scitq.store.sweeping import CODE
from scitq.task import check_command

F = TypeVar("F", bound=Callable[..., Any])
# Scripts up to this length stand in the task itself, where they can be read and edited.
INLINE = 32_768
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
_SHEBANG = re.compile(r"#![ \t]*(\S[^\n]*)\n")
_MAIN = """\
import os, pickle, sys
if sys.version_info[:2] != {version}:
    sys.exit("packed by Python {python}, this is %d.%d: give a container or worker that has {python}" % sys.version_info[:2])
sys.path.insert(1, os.path.join(sys.path[0], "lib"))  # what unpacks must be what packed
import zipfile
with zipfile.ZipFile(sys.path[0]) as archive:
    paths, packed = pickle.loads(archive.read("paths")), archive.read("call")
sys.path += [path for path in paths if path not in sys.path]
function, arguments = pickle.loads(packed)
value = function(**arguments)
if value is not None:
    print(value)
"""


@dataclass(frozen=True)
class ShellCode:
    """A script, and the shell that runs it (None: what its first line says, else the step's shell, else sh)."""

    text: str
    shell: str | None = None


def shell_code(text: str, shell: str | bool | None = None) -> ShellCode:
    """A script of any length and with any quotes, as the command of a step. What all lines are indented by is taken off.

    It runs in `shell`; without one in what its first line says (`#!/usr/bin/env python3`), else in the step's shell, else in sh.

    Raises:
        BadInput: it is empty, or no text.
    """
    if not isinstance(text, str):
        raise BadInput(f"shell_code takes a script as text, not {type(text).__name__}.")
    script = textwrap.dedent(text).lstrip("\n")
    _, found = check_command(script, shell if shell else "sh")
    return ShellCode(script, found if shell else None)


@dataclass(frozen=True)
class Remote:
    """A Python function that is the command of a step; called by itself it is the function."""

    function: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def remote(function: F) -> F:
    """A decorator: the function may be the command of a step, whose `args=` are its arguments.

        @remote
        def count(label, limit=3): ...

        wf.step("count", count, args={"label": "a"}, input=…)

    It runs on the worker, in a Python of this minor version, and finds its data by `$INPUT`, `$OUTPUT` and the like; what it returns is
    printed. What it uses of the script travels with it; modules it imports must be there.
    """
    if not callable(function):
        raise BadInput(f"@remote goes before a function, not {type(function).__name__}.")
    found: Any = Remote(function)
    return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Shipped:
    """What such a command becomes: the command, its shell, a file to be a resource (name and content), and more arguments."""

    command: str | list[str]
    shell: str | None
    file: tuple[str, bytes] | None = None
    python: str | None = None
    digest: str | None = None


def shipped(command: Any, args: Mapping[str, Any] | None, shell: Any, *, in_container: bool) -> Shipped | None:
    """The form in which a command goes into the file; None for one that does so as it is.

    Raises:
        BadInput: a function that is not marked with `@remote`, or arguments for what takes none.
    """
    if isinstance(command, Remote):
        return _function(command.function, args or {}, in_container)
    if args is not None:
        raise BadInput("args= are the arguments of a @remote function; other commands take none.")
    if isinstance(command, ShellCode):
        return _script(command, shell)
    if callable(command):
        name = getattr(command, "__name__", type(command).__name__)
        raise BadInput(
            f"the command is the function {name!r}: write @remote before it, and give its arguments as args={{…}}."
        )
    return None


def _script(code: ShellCode, shell: Any) -> Shipped:
    first = _SHEBANG.match(code.text)
    program = code.shell or (None if first else shell if isinstance(shell, str) else "sh")
    if program is not None and len(code.text) <= INLINE:
        return Shipped(code.text, program)
    data = code.text.encode()
    name = f"{hashlib.sha256(data).hexdigest()[:32]}.code"
    words = shlex.join(shlex.split(first[1] if first and program is None else program or "sh"))
    return Shipped(f'exec {words} "$RESOURCE/{name}"', "sh", (name, data))


def _function(function: Callable[..., Any], args: Mapping[str, Any], in_container: bool) -> Shipped:
    for name in args:
        if not isinstance(name, str):
            raise BadInput(f"args: {name!r} is no name of an argument.")
    digest = _told(function, args)
    data = _archive(function, dict(args), in_container)
    name = f"{digest[:32]}.pyz"
    python = "python3" if in_container or not sys.executable else f"python{PYTHON}"
    command = f'exec {python} "$RESOURCE/{name}"'
    if not in_container:
        # On this machine the very Python that declares it; elsewhere one of its minor version.
        own = shlex.quote(sys.executable)
        command = f'test -x {own} && exec {own} "$RESOURCE/{name}"; {command}'
    return Shipped(command, "sh", (name, data), None if in_container else PYTHON, digest)


def _archive(function: Callable[..., Any], args: dict[str, Any], in_container: bool) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(name: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)

        put("__main__.py", _MAIN.format(version=tuple(sys.version_info[:2]), python=PYTHON).encode())
        put("paths", pickle.dumps([] if in_container else [path for path in sys.path if path]))
        put("call", packed((function, args)))
        for source in sorted(Path(unpacker()).glob("*.py")):
            put(f"lib/cloudpickle/{source.name}", source.read_bytes())
    return file.getvalue()


def _told(function: Callable[..., Any], args: Mapping[str, Any]) -> str:
    """What a call is known by: what the function does and uses, and its arguments; not where it stands in its script."""
    digest = hashlib.sha256(PYTHON.encode())
    seen: set[int] = set()

    def add(*parts: object) -> None:
        for part in parts:
            digest.update(part if isinstance(part, bytes) else repr(part).encode("utf-8", "surrogatepass"))
            digest.update(b"\0")

    def code_of(code: types.CodeType, space: Mapping[str, Any]) -> None:
        add(
            code.co_code,
            code.co_names,
            code.co_varnames,
            code.co_freevars,
            code.co_argcount,
            code.co_kwonlyargcount,
            code.co_flags,
        )
        for const in code.co_consts:
            if isinstance(const, types.CodeType):
                code_of(const, space)
            else:
                add(sorted(map(repr, const)) if isinstance(const, frozenset) else const)
        for name in code.co_names:
            if name in space:
                add(name)
                value_of(space[name])

    def value_of(value: Any) -> None:
        if id(value) in seen:
            return
        seen.add(id(value))
        value = value.function if isinstance(value, Remote) else value
        if isinstance(value, types.FunctionType) and (value.__module__ == "__main__" or value is function):
            code_of(value.__code__, value.__globals__)
            value_of(value.__defaults__)
            value_of(value.__kwdefaults__)
            for cell in value.__closure__ or ():
                value_of(cell.cell_contents)
        elif isinstance(value, types.ModuleType):
            add("module", value.__name__)
        elif callable(value):
            add("named", getattr(value, "__module__", ""), getattr(value, "__qualname__", type(value).__qualname__))
        elif isinstance(value, Mapping):
            for key in sorted(value, key=repr):
                add(key)
                value_of(value[key])
        elif isinstance(value, list | tuple):
            add(type(value).__name__, len(value))
            for one in value:
                value_of(one)
        elif isinstance(value, str | bytes | int | float | bool | type(None)):
            add(type(value).__name__, value)
        else:
            try:
                add(pickle.dumps(value, 5))
            except Exception:
                add(type(value).__qualname__)

    value_of(function)
    seen.clear()
    value_of(dict(args))
    return digest.hexdigest()


def keep(side: Path, name: str, data: bytes) -> str:
    """Write a file that ships, unless it is there; returns its address. It is young from now on, so that nobody sweeps it away
    before a task that needs it is queued (see `store.sweeping`)."""
    folder = side.joinpath(*CODE)
    target = folder / name
    try:
        kept_ns = target.stat().st_mtime_ns  # tasks that read it have not changed
        os.utime(target, ns=(time.time_ns(), kept_ns))
    except FileNotFoundError:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = folder / f".{name}.{os.getpid()}.new"
        fresh.write_bytes(data)
        fresh.chmod(0o600)
        fresh.rename(target)
    return str(of_path(target))
