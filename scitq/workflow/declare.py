"""What a script declares, collected in memory: cheap, checked, in the order of its calls. Nothing here writes to the file.

A task that is declared has no number yet. Until it has, a number beyond all others stands for it (`PROVISIONAL` and above), also
in the addresses that mean what it leaves; `queueing` puts the right ones in their place.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any

from scitq.errors import BadInput
from scitq.store.query import compact
from scitq.submitter import Prepared
from scitq.task import Need

PROVISIONAL = 10**17
_numbers = itertools.count(PROVISIONAL)
# How such a number looks in an address.
_REFERENCE = re.compile(r"task://([0-9]{1,18})(?=[/|]|\Z)")
# Fields of a spec that say how it is to be run, not what: a task that has succeeded is not run again for them.
CONDITIONS = frozenset({
    "retry", "retry_delay", "retry_memory", "retry_timeout", "run_timeout", "stage_in_timeout", "tags", "cpus", "memory", "gpus",
    "overwrite", "keep_failed", "skip_if_exists", "use_cache", "priority",
})  # fmt: skip
DATA = ("input", "resource")
# Texts up to this length are likely to be those of other tasks, too.
SHORT = 16
# The same where it begins a text in JSON.
_IN_JSON = re.compile(r'(?<!\\)"task://([0-9]{1,18})(?=[/|"])')


class Declared:
    """A task as one call of `Workflow.step` declared it."""

    __slots__ = (
        "batch", "digest", "id", "inputs", "name", "need", "number", "origin", "parents", "position", "priority", "sources", "spec", "step",
    )  # fmt: skip

    def __init__(self, step: str, name: str, item: Prepared, position: int, origin: int | None) -> None:
        self.number = next(_numbers)
        self.step = step
        self.name = name
        self.batch = item.batch
        self.priority = item.priority
        self.spec: str | None = item.spec
        self.need: Need | None = item.need
        self.parents: tuple[int, ...] = tuple(dict.fromkeys(item.requires))
        self.position = position
        self.origin = origin
        self.id: int | None = None
        self.digest = ""
        self.sources: tuple[str, ...] = ()
        self.inputs = 0  # so many of the sources are inputs, the others are resources

    @property
    def key(self) -> tuple[str, str]:
        """By what it is found again when the script runs once more."""
        return self.step, self.name


def references(texts: Iterable[str], number: Callable[[int], object]) -> list[str]:
    """Addresses with other numbers, or words, for the tasks that they name."""
    return [
        _REFERENCE.sub(lambda found: f"task://{number(int(found[1]))}", text) if text.startswith("task://") else text
        for text in texts
    ]


def resolved(spec: str, number: Callable[[int], object]) -> str:
    """A spec's text with other numbers for the tasks that its addresses name."""
    return _IN_JSON.sub(lambda found: f'"task://{number(int(found[1]))}', spec)


def is_reference(text: str) -> bool:
    """Whether an address means what a task leaves."""
    return text.startswith("task://")


def number_of_reference(text: str) -> int | None:
    """The number of the task that an address means."""
    found = _REFERENCE.match(text)
    return int(found[1]) if found else None


def settle(declared: Declared, identity: Callable[[int], str], side: str) -> None:
    """Give a declaration its digest, and list what it reads. `identity` is what a task is called in digests.

    A digest is a list of the fields that differ from their defaults, each with a hash: so it can be told which one changed.
    """
    assert declared.spec is not None
    fields: dict[str, Any] = json.loads(declared.spec)
    declared.sources = tuple(text for what in DATA for text in fields.get(what, ()))
    declared.inputs = len(fields.get("input", ()))
    for what in DATA:
        if what in fields:
            # Neither a task's number nor where the state file lies is part of what is asked.
            fields[what] = [
                text.replace(side, "side:", 1) if text.startswith(side) else text
                for text in references(fields[what], identity)
            ]
    if declared.parents:
        fields["requires"] = sorted({identity(parent) for parent in declared.parents})
    if declared.priority:
        fields["priority"] = declared.priority
    declared.digest = " ".join(f"{name}:{_hash(value)}" for name, value in sorted(fields.items()))


def _hash(value: Any) -> str:
    if type(value) is str:
        return _hash_text(value) if len(value) <= SHORT else _hash_text.__wrapped__(value)
    if type(value) is list and all(type(word) is str for word in value):
        return _hash_text.__wrapped__("\0".join(value) + "\0")
    return _hash_text(compact(value))


# Tasks of a step have most of what they say in common.
@functools.lru_cache(maxsize=256)
def _hash_text(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=9).hexdigest()


def differing(old: str, new: str) -> list[str]:
    """The fields in which two digests differ."""
    if old == new:
        return []
    before, after = (dict(part.split(":", 1) for part in text.split(" ") if ":" in part) for text in (old, new))
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def words_of_input(what: str, value: Any, exists: Callable[[str], bool]) -> Any:
    """An argument of version 1, where a text may name several addresses with spaces between; a file's own name is one."""
    if not isinstance(value, str) or not value.strip():
        if isinstance(value, str):
            raise BadInput(f"{what}: an address is empty. Leave {what}= out, or give None.")
        return value
    text = value.strip()
    if not any(char.isspace() for char in text) or exists(text.partition("|")[0]):
        return text
    return text.split()


def one_output(value: Any, is_many: Callable[[Any], bool]) -> Any:
    """An output is one folder.

    Raises:
        BadInput: several were given.
    """
    if is_many(value) or (isinstance(value, Sequence) and not isinstance(value, str)) or isinstance(value, set | dict):
        raise BadInput("output: a task has exactly one output folder: give one address, not a list of them.")
    return value
