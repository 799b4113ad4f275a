"""The cache key of a task: what it is made of, and what differs between two.

Pure: specs and what was found of their data come in, digests go out. Looking at data is `identities`, finding results by their
keys is `store.cache`.

In the key: the command's words or the script's bytes with its shell, the container's bits and options, the declared variables,
and what every input and resource is, in order, with its actions. Not in it: name, batch, tags, priority, retries, limits of time,
what is asked of the worker, and where the output goes. Nor where data lies: two addresses that hold the same are the same.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from scitq.task import Spec

# Goes into every key: a later scitq that makes them otherwise takes another number.
VERSION = 1
# How the version of a file is told, the best first: by what it holds, by what its server calls it, by when it was changed.
MD5, ETAG, TIME, MADE = "md5", "etag", "time", "made"
_HOW = {MD5: "MD5", ETAG: "ETag", TIME: "size and time", MADE: "the task that made it"}


class File(NamedTuple):
    """One file of an input: its name there, its size, and what tells this version of it from others (`md5:…`, `time:…`)."""

    name: str
    size: int | None
    mark: str


class Fingerprint(NamedTuple):
    """What is at an address: its files, sorted by name."""

    files: tuple[File, ...]

    @property
    def digest(self) -> str:
        """Of all of it."""
        return hashed([list(file) for file in self.files])

    @property
    def how(self) -> str:
        """By what it is told whether it changed: `MD5`, `size and time`, or several."""
        kinds = {file.mark.partition(":")[0] for file in self.files}
        return ", ".join(word for kind, word in _HOW.items() if kind in kinds) or "nothing: there is no file"


def fingerprint(files: Iterable[File]) -> Fingerprint:
    """Of these files, in whatever order they come."""
    return Fingerprint(tuple(sorted(files, key=lambda file: file.name)))


class Source(NamedTuple):
    """One input or resource: where it was said to be, what is done with it, and the digest of its fingerprint."""

    address: str
    actions: str
    digest: str


class Parts(NamedTuple):
    """Everything that a key is made of."""

    command: str | list[str]
    shell: str | None
    image: str | None
    options: list[str]
    env: dict[str, str]
    input: list[Source]
    resource: list[Source]

    @property
    def recipe(self) -> str:
        """The digest of all but the data: equal for a task and its rerun with other inputs."""
        return hashed([VERSION, self.command, self.shell, self.image, self.options, sorted(self.env.items())])

    @property
    def key(self) -> str:
        """The key."""
        told = [[[source.actions, source.digest] for source in sources] for sources in (self.input, self.resource)]
        return hashed([self.recipe, *told])

    def data(self) -> list[list[list[str]]]:
        """What the spec does not say, to be stored: see `with_data`."""
        return [[list(source) for source in sources] for sources in (self.input, self.resource)]


def parts_of(spec: Spec, image: str | None, inputs: Sequence[Source] = (), resources: Sequence[Source] = ()) -> Parts:
    """The parts of a task's key. `image` is what its container is known by, None without one."""
    command = spec.command if spec.shell is not None else spec.argv()
    options = list(spec.container_options) if image is not None else []
    bits = None if image is None else bits_of(image)
    return Parts(command, spec.shell, bits, options, dict(spec.env), list(inputs), list(resources))


def with_data(spec: Spec, image: str | None, data: Any) -> Parts:
    """The parts as they were when `data` was stored."""
    inputs, resources = data or ([], [])
    return parts_of(spec, image, [Source(*one) for one in inputs], [Source(*one) for one in resources])


def bits_of(image: str) -> str:
    """What an image is known by: its digest where that is known (whatever its name), else its id or the text."""
    name, at, digest = image.rpartition("@")
    return digest if at and name and digest.startswith("sha256:") else image


def hashed(value: Any) -> str:
    """The digest of a value of lists and texts."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


# --- what differs ---------------------------------------------------------------------------------------------------------------


class Difference(NamedTuple):
    """One part in which two keys differ: which, and both sides in words. `at` is the place of an input or resource."""

    what: str
    old: str
    new: str
    at: int | None = None


def differences(old: Parts, new: Parts) -> list[Difference]:
    """Why two keys are not the same; empty when they are."""
    found = []
    if (old.command, old.shell) != (new.command, new.shell):
        found.append(Difference("command", _line(old), _line(new)))
    if old.image != new.image:
        found.append(Difference("container", old.image or "none", new.image or "none"))
    if old.options != new.options:
        found.append(Difference("container options", _words(old.options), _words(new.options)))
    if old.env != new.env:
        changed = sorted(key for key in {*old.env, *new.env} if old.env.get(key) != new.env.get(key))
        found += [Difference(f"env {key}", _value(old.env, key), _value(new.env, key)) for key in changed]
    found += _data_differences("input", old.input, new.input)
    found += _data_differences("resource", old.resource, new.resource)
    return found


def _data_differences(what: str, old: Sequence[Source], new: Sequence[Source]) -> list[Difference]:
    if [source[1:] for source in old] == [source[1:] for source in new]:
        return []
    if len(old) == len(new) and sorted(source[1:] for source in old) == sorted(source[1:] for source in new):
        return [Difference(f"order of {what}s", _addresses(old), _addresses(new))]
    if len(old) != len(new):
        return [Difference(f"{what}s", _addresses(old), _addresses(new))]
    found = []
    for place, (one, other) in enumerate(zip(old, new, strict=True)):
        if one.actions != other.actions:
            found.append(
                Difference(f"actions of {what} {other.address}", one.actions or "none", other.actions or "none")
            )
        elif one.digest != other.digest:
            found.append(Difference(f"{what} {other.address}", one.digest, other.digest, place))
    return found


def file_differences(old: Fingerprint, new: Fingerprint) -> list[Difference]:
    """What changed of one input, file by file."""
    before, after = ({file.name: file for file in side.files} for side in (old, new))
    names = sorted({*before, *after})
    return [
        Difference(name, _told(before.get(name)), _told(after.get(name)))
        for name in names
        if before.get(name) != after.get(name)
    ]


def _told(file: File | None) -> str:
    if file is None:
        return "not there"
    size = "unknown size" if file.size is None else f"{file.size:,} bytes"
    kind, _, value = file.mark.partition(":")
    if kind == TIME:
        return f"{size} of {_date(value)}"
    return f"{size}, {_HOW[kind]} {value}" if kind in (MD5, ETAG) else f"{size}, made by execution {value}"


def _date(value: str) -> str:
    """The time in a mark: a file's in nanoseconds with its number, a storage's as it was told."""
    nanoseconds = value.partition("-")[0].partition(" ")[0]
    if not nanoseconds.isdecimal() or len(nanoseconds) < 15:
        return value
    second = datetime.fromtimestamp(int(nanoseconds) // 1_000_000_000, UTC)
    return f"{second:%Y-%m-%d %H:%M:%S}.{int(nanoseconds) % 1_000_000_000:09d} UTC"


def _line(parts: Parts) -> str:
    text = parts.command if isinstance(parts.command, str) else _words(parts.command)
    return f"{text} ({parts.shell})" if parts.shell is not None else text


def _words(words: Sequence[str]) -> str:
    import shlex

    return shlex.join(words) or "none"


def _value(env: dict[str, str], key: str) -> str:
    return env.get(key, "not set")


def _addresses(sources: Sequence[Source]) -> str:
    return " ".join(source.address + (f"|{source.actions}" if source.actions else "") for source in sources) or "none"
