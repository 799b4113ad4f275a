"""How submissions get into the state file: checked, completed from their batch's defaults, written in as few transactions as may be.

`Engine.submit` and `Engine.submit_many` tell what can be submitted; which arguments make sense is `submission`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from scitq import submission
from scitq.errors import BadInput
from scitq.finding import working_folder
from scitq.handle import Task
from scitq.selection import TaskList
from scitq.store import batches, listing, tasks
from scitq.store.connection import Store
from scitq.store.query import quoted
from scitq.task import DEFAULT_BATCH, Need, Spec, TaskId, check_command

if TYPE_CHECKING:
    import apsw

BULK = 10_000
# The arguments that are addresses.
DATA = ("input", "resource", "output")
# What a task on this machine sees of the submitter's environment; the rest is given with env=.
CONTEXT_VARIABLES = (
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "VIRTUAL_ENV", "CONDA_PREFIX", "CONDA_DEFAULT_ENV",
    "LD_LIBRARY_PATH", "TMPDIR",
)  # fmt: skip
_RAW_VARIABLES = tuple(os.fsencode(name) for name in CONTEXT_VARIABLES)
# Arguments of a submission that are looked at each time; and those that mean the same each time, if they are of these kinds.
_ITS_OWN = frozenset({"command", "name", "requires"})
_LASTING = frozenset({"batch", *submission.BATCH_SETTINGS}) - {*DATA}
_CONSTANTS = frozenset({str, int, float})
# In the text of a spec: in a command of the same words its quotes would not stand alone.
_USES_CACHE = ',"use_cache":true'
Requirement = Task | int | str | Iterable["Requirement"]


class Prepared(NamedTuple):
    """A submission that has been checked."""

    name: str | None
    batch: str
    priority: int
    spec: str
    requires: list[int]
    need: Need | None


class Pattern(NamedTuple):
    """What submissions have in common that differ in nothing but their commands, checked once."""

    model: Prepared
    shell: str | None
    tail: str  # of the spec's text, behind the command

    def spec(self, command: Any) -> str:
        """The spec's text of one of them.

        Raises:
            BadInput: the command makes no sense.
        """
        words, _ = check_command(command, self.shell)
        text = quoted(words) if isinstance(words, str) else f"[{','.join(map(quoted, words))}]"
        return f'{{"command":{text}{self.tail}'


class _OtherDefaults(Exception):
    """A batch has other defaults (its argument) than those a submission was prepared with."""


class Submitter:
    """Checks and writes submissions for one engine; safe to use from any thread."""

    def __init__(self, store: Store, *, use_cache: bool = False) -> None:
        self._store = store
        self._use_cache = use_cache
        # The circumstances and the batches' defaults that were found last: the file has the word, and is asked in the transaction.
        self._context: tuple[tuple[Any, ...], int] | None = None
        self._defaults: dict[str, dict[str, Any]] = {}
        # What the last submission was beside its command, name and requirements, if that is nothing that could change by itself.
        self._pattern: tuple[list[Any], dict[str, Any], Pattern] | None = None

    def one(self, given: Mapping[str, Any], *, is_paused: bool = False) -> TaskId:
        """Queue one task, whose arguments are those of `Engine.submit`; or have it paused from the first."""
        for key in ("overwrite", "skip_if_exists"):
            if given.get(key) and given.get("output") is None:
                raise BadInput(f"{key}= is about an output: give output= too.")
        while True:
            defaults = self._defaults  # another thread may put others in their place
            try:
                item = self._prepare_alike(given, defaults) or self.prepare(dict(given), defaults)
            except BadInput:
                if not self._are_outdated():
                    raise
                continue  # with the defaults as they are now it may well make sense
            try:
                return self._add_one(item, defaults[item.batch], is_paused=is_paused)
            except _OtherDefaults as found:  # somebody has changed them since they were read
                self._defaults[item.batch] = found.args[0]

    def _are_outdated(self) -> bool:
        """Whether some batch's defaults have changed since they were read; they are forgotten then."""
        known, self._defaults = self._defaults, {}
        return any(batches.settings(self._store.reader(), batch) != defaults for batch, defaults in known.items())

    def many(self, items: Iterable[Any], common: Mapping[str, Any], begun: Callable[[], None]) -> list[range]:
        """Queue many, 10,000 a transaction; `begun` is called after each. Returns their numbers."""
        ranges: list[range] = []
        chunk: list[Prepared | str] = []
        check, model = self._checker(common)
        try:
            for item in items:
                chunk.append(check(item))
                if len(chunk) == BULK:
                    ranges.append(self._add(chunk, model))
                    chunk = []
                    begun()
        except BadInput as problem:
            count = sum(len(found) for found in ranges)
            raise type(problem)(
                f"item {count + len(chunk)} of submit_many: {problem} ({count} tasks before it were queued.)",
                queued=count,
            ) from problem
        if chunk:
            ranges.append(self._add(chunk, model))
        if ranges:
            begun()
        return ranges

    def _prepare_alike(self, given: Mapping[str, Any], defaults: dict[str, dict[str, Any]]) -> Prepared | None:
        """A submission that differs from the last one in its command, name and requirements only: those are all there is to
        check. None for one that does not, or not provably."""
        rest = [(key, value, type(value)) for key, value in given.items() if value is not None and key not in _ITS_OWN]
        if any(kind is not bool and (key not in _LASTING or kind not in _CONSTANTS) for key, _, kind in rest):
            return None
        known = self._pattern
        if known is None or known[0] != rest or defaults.get(known[2].model.batch) is not known[1]:
            common = {key: value for key, value in given.items() if key not in _ITS_OWN}
            pattern = self._pattern_of(common, defaults)
            self._pattern = known = (rest, defaults[pattern.model.batch], pattern)
        pattern = known[2]
        name, requires = given.get("name"), given.get("requires")
        return pattern.model._replace(
            name=None if name is None else submission.name_of("name", name),
            spec=pattern.spec(given["command"]),
            # The model's are those of a batch's resources that other tasks leave.
            requires=[*pattern.model.requires, *([] if requires is None or requires == () else self.ids_of(requires))],
        )

    def _pattern_of(self, common: Mapping[str, Any], settings: dict[str, dict[str, Any]]) -> Pattern:
        model = self.prepare({"command": "true", **common}, settings)
        spec = listing.spec_of(model.spec)
        return Pattern(model, spec.shell, listing.spec_text(spec, without_command=True))

    def _checker(self, common: Mapping[str, Any]) -> tuple[Callable[[Any], Prepared | str], Prepared]:
        """The check of one item of many, and the model of those that are a mere command: of them it gives the spec's text.
        What they have in common is checked once; they then cost little."""
        settings: dict[str, dict[str, Any]] = {}
        pattern = self._pattern_of(common, settings)

        def check(item: Any) -> Prepared | str:
            # An exact list or text is told from a mapping ten times as fast as by asking whether it is one.
            if type(item) is not list and type(item) is not str and isinstance(item, Mapping):
                return self.prepare({**common, **item}, settings)
            return pattern.spec(item)

        return check, pattern.model

    def prepare(
        self, given: dict[str, Any], known: dict[str, dict[str, Any]] | None = None, *, of_batch: bool = False
    ) -> Prepared:
        """Check one submission's arguments, before anything is written. `known` holds settings of batches once read.

        With `of_batch` they are defaults, which need not be complete.
        """
        has_options = bool(given.get("container_options")) and not of_batch
        has_factor = given.get("retry_memory") is not None and not of_batch
        batch = given.pop("batch", None)
        batch = DEFAULT_BATCH if batch is None else submission.name_of("batch", batch)
        known = {} if known is None else known
        for old, ours in submission.V1_NAMES.items():
            if (value := given.pop(old, None)) is not None:
                given[ours] = value
        if batch not in known:
            known[batch] = batches.settings(self._store.reader(), batch)
        for key, value in known[batch].items():
            if given.get(key) is None:
                given[key] = value
        if self._use_cache and given.get("use_cache") is None:
            given["use_cache"] = True
        if "command" not in given:
            raise BadInput("a task needs a command.")
        command, shell = check_command(given.pop("command"), given.pop("shell", False))
        name, requires, priority = (given.pop(key, None) for key in ("name", "requires", "priority"))
        parents = [] if requires is None else self.ids_of(requires)
        addresses = {key: value for key in DATA if (value := given.pop(key, None)) is not None}
        fields = submission.conditions(given)
        if "container" not in fields and not of_batch:
            if has_options:
                raise BadInput(submission.NO_CONTAINER)
            fields.pop("container_options", None)  # its batch's, for those that run in one
        if has_factor and "memory" not in fields:
            raise BadInput(submission.NO_MEMORY)
        if addresses:
            fields |= self.addresses(addresses, parents)
        spec = Spec(command=command, shell=shell, **fields)
        return Prepared(
            None if name is None else submission.name_of("name", name),
            batch,
            0 if priority is None else submission.priority_of(priority),
            listing.spec_text(spec),
            parents,
            spec.need,
        )

    def addresses(self, given: Mapping[str, Any], parents: list[int]) -> dict[str, Any]:
        """What is said of data, checked; the tasks whose output is named come to the `parents`."""
        from scitq import addresses

        found = addresses.check(given, requires_others=bool(parents), path=self._store.path)
        parents += found.parents
        return found.fields

    def _add_one(self, item: Prepared, defaults: dict[str, Any], *, is_paused: bool) -> TaskId:
        """Write one submission down; `defaults` are those of its batch that it was prepared with."""
        now = time.time_ns() // 1_000_000
        key, known = self._surroundings()

        def add(db: apsw.Connection) -> tuple[TaskId, int]:
            context = tasks.context_id(db, _context(key)) if known is None else known
            batch, settings = tasks.batch_for(db, item.batch)
            if settings != defaults:
                raise _OtherDefaults(settings)
            need = 0 if item.need is None else tasks.need_id(db, item.need)
            id = tasks.add(db, now, (item.name, batch, item.priority, item.spec, need), context, item.requires)
            if _USES_CACHE in item.spec:
                tasks.want_probes(db, range(id, id + 1))
            if is_paused:
                tasks.pause(db, now, id)
            return id, context

        id, context = self._store.write(add)
        self._context = (key, context)
        return id

    def _add(self, items: list[Prepared | str], model: Prepared) -> range:
        """Write submissions down; a text is the spec of one that is like the model otherwise."""
        now = time.time_ns() // 1_000_000
        key, known = self._surroundings()
        different = [item for item in items if not isinstance(item, str)]

        def add(db: apsw.Connection) -> tuple[range, int]:
            context = tasks.context_id(db, _context(key)) if known is None else known
            kinds = [*different, model] if len(different) < len(items) else different
            batches = {name: tasks.batch_id(db, name) for name in dict.fromkeys(kind.batch for kind in kinds)}
            needs = {need: tasks.need_id(db, need) for need in dict.fromkeys(kind.need for kind in kinds)}
            head = model.name, batches.get(model.batch), model.priority
            tail = (needs.get(model.need),)
            rows: list[Any] = [
                (*head, item, *tail)
                if isinstance(item, str)
                else (item.name, batches[item.batch], item.priority, item.spec, needs[item.need])
                for item in items
            ]
            requires = None
            if any(kind.requires for kind in kinds):
                requires = [model.requires if isinstance(item, str) else item.requires for item in items]
            ids = tasks.add_many(db, now, rows, context, requires)
            if any(_USES_CACHE in kind.spec for kind in kinds):
                tasks.want_probes(db, ids)
            return ids, context

        ids, context = self._store.write(add)
        self._context = (key, context)
        return ids

    def _surroundings(self) -> tuple[tuple[Any, ...], int | None]:
        """The circumstances of a submission now, and their number if they are those that were found last."""
        # os.environ decodes and encodes at each look; what it keeps (in CPython) is compared as it is: 1 µs instead of 16.
        raw = getattr(os.environ, "_data", None)
        values = (
            map(raw.get, _RAW_VARIABLES)
            if isinstance(raw, dict) and os.name == "posix"
            else map(os.environ.get, CONTEXT_VARIABLES)
        )
        key = (working_folder(), *values)
        known = self._context
        return key, known[1] if known is not None and known[0] == key else None

    def context(self, db: apsw.Connection) -> int:
        """The number of the circumstances of a submission made now, written in the caller's transaction."""
        return tasks.context_id(db, _context(self._surroundings()[0]))

    def ids_of(self, requires: Requirement) -> list[int]:
        if isinstance(requires, Task):
            if requires._engine.path != self._store.path:
                raise BadInput(
                    f"task {requires.id} is in {requires._engine.path.name}, not in {self._store.path.name}: it cannot be required here."
                )
            return [requires.id]
        if isinstance(requires, bool):
            raise BadInput("requires must be tasks, their numbers or their names.")
        if isinstance(requires, int):
            return [requires]
        if isinstance(requires, str):
            return [listing.find(self._store.reader(), requires)]
        if isinstance(requires, TaskList):
            return [id for ids in requires._ranges for id in ids]
        if isinstance(requires, Iterable):
            return [id for one in requires for id in self.ids_of(one)]
        raise BadInput(f"requires must be tasks, their numbers or their names, not {type(requires).__name__}.")


def _context(key: tuple[Any, ...]) -> dict[str, Any]:
    env = {
        name: os.fsdecode(value) for name, value in zip(CONTEXT_VARIABLES, key[1:], strict=True) if value is not None
    }
    return {"cwd": key[0], "env": env}
