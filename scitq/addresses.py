"""The addresses of a submission, checked: what is said of `input`, `resource` and `output` becomes what the state file holds.

A plain path is made absolute, and must be there, unless the task requires another that may make it. What another task leaves is
written `task://12/sub|untar`, and means that this one is required. Remotes must be configured; nothing else is looked at.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from scitq.errors import BadInput, NotSupported, ScitqError
from scitq.fetch import configuration
from scitq.fetch.errors import BadURI, EscapesFolder, NotFound
from scitq.fetch.expand import expand
from scitq.fetch.settings import Settings
from scitq.fetch.transport import transport_of
from scitq.fetch.uri import PLAIN, URLS, Address, of_path, parse, refuse_runs
from scitq.finding import working_folder
from scitq.handle import Task
from scitq.outputs import TaskOutput
from scitq.path import URI

TASK = "task"
FIELDS = ("input", "resource", "output")
_GLOB = re.compile(r"[*?\[]")


class Checked(NamedTuple):
    """The fields of a spec that hold addresses, as far as they were given, and the tasks whose output they name."""

    fields: dict[str, Any]
    parents: list[int]


def check(given: Mapping[str, Any], *, requires_others: bool, path: Path) -> Checked:
    """Check what was given of `input`, `resource` and `output`; None means: not given. `path` is that of the state file.

    Raises:
        BadInput: it is no address, there is nothing, or one is named twice.
        FetchError: the rclone program is missing.
    """
    fields: dict[str, Any] = {}
    found = {
        what: list(_flat(what, given[what], path)) for what in ("input", "resource") if given.get(what) is not None
    }
    parents = [parent for each in found.values() for address in each if (parent := parent_of(address)) is not None]
    has_parents = requires_others or bool(parents)
    for what, addresses in found.items():
        fields[what] = [str(_source(what, address, has_parents)) for address in addresses]
        _once(what, fields[what])
    if given.get("output") is not None:
        fields["output"] = str(_target(given["output"]))
    return Checked(fields, parents)


def parent_of(address: Address) -> int | None:
    """The task whose output an address means."""
    if address.proto != TASK:
        return None
    if not re.match(r"[0-9]{1,18}(/|\Z)", address.path):
        raise BadInput(f"{address.shown}: the number of a task is wanted, as in task://12/sub.")
    return int(address.path.partition("/")[0])


def parents_of(texts: Iterable[str]) -> list[int]:
    """The tasks whose output these stored texts mean."""
    return [int(found[1]) for text in texts if (found := re.match(r"task://([0-9]+)", text))]


# What signs a URL, or is as good as a password: of Amazon, Google, Azure, GitLab, and as people call it.
_SIGNED = re.compile(
    r"(?i)[?&;](x-amz-signature|x-amz-security-token|x-goog-signature|signature|sig|(?:\w+_)?token|api_?key|passw(?:or)?d|secret)="
)


def _flat(what: str, value: Any, path: Path) -> Iterable[Address]:
    """Each address in what was given, one or many, however it is spelled. Path objects are literal, texts may have globs."""
    if isinstance(value, Task):
        value = value.output
    if isinstance(value, TaskOutput):
        if value.task._engine.path != path:
            raise BadInput(
                f"{what}: task {value.task.id} is in {value.task._engine.path.name}, not in this file. Give its address as "
                "text: str(task.output)"
            )
        yield value.reference
    elif isinstance(value, URI):
        yield value.address
    elif isinstance(value, Address):
        yield value
    elif isinstance(value, str):
        with _named(what):
            yield parse(value)
    elif isinstance(value, os.PathLike):
        with _named(what):
            yield _literal(of_path(value))
    elif isinstance(value, Iterable) and not isinstance(value, bytes | bytearray | Mapping):
        for one in value:
            yield from _flat(what, one, path)
    else:
        raise BadInput(f"{what} must be addresses: text, paths, URIs or outputs of tasks, not {type(value).__name__}.")


def _literal(address: Address) -> Address:
    """A path that means one file, also when it is made only later and has the characters of a pattern."""
    if not address.has_glob or os.path.lexists(address.path):
        return address
    return replace(address, path=_GLOB.sub(lambda found: f"[{found[0]}]", address.path))


def _source(what: str, address: Address, has_parents: bool) -> Address:
    with _named(what):
        refuse_runs(address, "parse")
    if address.proto == TASK:
        return address
    _no_password(what, address)
    if address.is_local:
        address = _absolute(what, address)
        if address.proto == PLAIN and not has_parents:
            _must_be_there(what, address)
    elif address.remote:
        with _named(what):
            configuration.check(address)
    return address


def _absolute(what: str, address: Address) -> Address:
    if address.path.startswith("/"):
        return address
    if address.proto != PLAIN:
        raise BadInput(
            f"{what}: {address.shown}: after file:// the path begins with a slash. For a path from here: {address.path}"
        )
    here = working_folder()
    return replace(address, path=here if address.path == "." else f"{here.rstrip('/')}/{address.path}")


def _must_be_there(what: str, address: Address) -> None:
    if os.path.exists(address.path):
        return
    if address.has_glob:
        with contextlib.suppress(NotFound):
            expand(address, transport_of(address), Settings())
            return
        raise BadInput(f"{what}: {address.path}: nothing matches. Nothing was queued.")
    hint = "it is a link to nothing" if os.path.islink(address.path) else "there is nothing of that name"
    raise BadInput(
        f"{what}: {address.path}: {hint}. Nothing was queued. (What another task will make may be named: with requires=.)"
    )


def _no_password(what: str, address: Address) -> None:
    """The state file is no place for one, and it is where addresses are kept."""
    if address.proto in URLS and re.match(r"[^/?#@]*:[^/?#@]*@", address.path):
        raise BadInput(
            f"{what}: {address.shown}: the password would stand in the state file. Put it in your rclone configuration (a remote "
            f"of type {'ftp' if address.proto == 'ftp' else 'http or webdav'}), and give that one's address. Nothing was queued."
        )
    if address.proto in URLS and (found := _SIGNED.search(address.path)):
        raise BadInput(
            f"{what}: {address.shown}: whoever reads {found[1]}= can do what it allows, and it would stand in the state file. Fetch "
            "it first (scitq fetch copy 'URL' FILE) and give the file, or name it by a storage of your rclone configuration. "
            "Nothing was queued."
        )


def _once(what: str, texts: list[str]) -> None:
    seen: set[str] = set()
    for text in texts:
        if text in seen:
            raise BadInput(f"{what}: {parse(text).shown} is named twice. Nothing was queued.")
        seen.add(text)


def _target(value: Any) -> Address:
    if isinstance(value, TaskOutput):
        raise BadInput("output: what a task leaves cannot be where another puts its own; give an address as text.")
    if isinstance(value, URI | Address):
        address = value.address if isinstance(value, URI) else value
    elif isinstance(value, str):
        with _named("output"):
            address = parse(value)
        if address.is_local and _GLOB.search(address.path) and not os.path.lexists(address.path):
            raise BadInput(f"output: {address.path}: an output is one folder, not a pattern. Literally: output=Path(…)")
    elif isinstance(value, os.PathLike):
        with _named("output"):
            address = of_path(value)
    else:
        raise BadInput(f"output must be an address: text, a path or a URI, not {type(value).__name__}.")
    shown = address.shown
    _no_password("output", address)
    if address.actions:
        raise BadInput(f"output: {shown}: actions belong to inputs and resources.")
    if address.proto == TASK or address.is_run or (address.proto in URLS and address.proto != "ftp"):
        raise NotSupported(f"output: {shown}: nothing can be put there ({address.proto}). Nothing was queued.")
    if address.is_local:
        address = _absolute("output", address)
        if address.proto == PLAIN and os.path.isfile(address.path):
            raise BadInput(f"output: {address.path}: a file is there; an output is a folder. Nothing was queued.")
    elif address.remote:
        with _named("output"):
            configuration.check(address)
    # With or without a slash at its end it is the same folder.
    address = replace(address, path=address.path.rstrip("/") or address.path[:1])
    if not address.name:
        raise BadInput(f"output: {shown}: a folder below that is wanted, not all there is.")
    return address


@contextlib.contextmanager
def _named(what: str) -> Any:
    """Errors say which argument, and that nothing happened."""
    try:
        yield
    except EscapesFolder as problem:
        raise BadURI(f"{what}: {problem} Nothing was queued.", **problem.parts) from None
    except BadInput as problem:
        raise type(problem)(f"{what}: {problem} Nothing was queued.", **problem.parts) from None
    except ScitqError as problem:
        raise type(problem)(f"{what}: {problem} Nothing was queued.", **problem.parts) from problem
