"""What may stand next on a command line: commands, options, and values of every kind, from the table and from the file.

One source for the interactive shell, for the completion of bash, zsh and fish, and for notebooks. What it costs does not grow
with the number of tasks (`store.names`); what is far away is asked for in the background and never waited for (`listings`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING

from scitq.shell.table import COMMANDS, FETCH, SHELLS, Argument, Command, Option

if TYPE_CHECKING:
    import apsw

    from scitq.engine import Engine
    from scitq.shell.listings import Listings

# So many at most: more than anybody looks through.
MOST = 100
_COMMON = (
    Option(("-f", "--file"), "The state file.", metavar="FILE", takes="file"),
    Option(("--json",), "Print JSON.", "flag"),
    Option(("--no-pager",), "Print long answers without the pager of your settings.", "flag"),
    Option(("-v", "--verbose"), "Tell what goes on inside.", "flag"),
    Option(("-h", "--help"), "Say how it is used.", "flag"),
)


@dataclass(frozen=True)
class Candidate:
    """Something that may stand where the incomplete word is. `text` replaces that word whole; `shown` is what a menu has."""

    text: str
    help: str = ""
    kind: str = ""
    shown: str = ""

    @property
    def label(self) -> str:
        """What a menu shows."""
        return self.shown or self.text


@dataclass(frozen=True)
class Place:
    """Where the incomplete word stands: in which command, as which parameter's value, if any."""

    row: Command | None
    path: tuple[str, ...] = ()
    value: Option | Argument | None = None
    takes_options: bool = True
    used: frozenset[str] = frozenset()
    # The words of a command of ours that this one runs (watch).
    inner: tuple[str, ...] | None = None


def candidates(
    engine: Engine | None, words: Sequence[str], incomplete: str, *, listings: Listings | None = None
) -> list[Candidate]:
    """What may stand for `incomplete` after `words` (those after `scitq`), best first; nothing is ever waited for."""
    place = place_of(words)
    if place.inner is not None:
        return candidates(engine, place.inner, incomplete, listings=listings)
    source = Source(engine, listings, list(words))
    found: Iterator[Candidate]
    if place.row is None:
        found = iter([*_verbs(place.path, incomplete), *_options(place, incomplete)])
    elif incomplete.startswith("--") and "=" in incomplete and place.takes_options:
        flag, _, value = incomplete.partition("=")
        option = _known(place.row).get(flag)
        inner = source.of(option, place.row, value) if option is not None else iter(())
        found = (replace(one, text=f"{flag}={one.text}", shown=one.label) for one in inner)
    elif isinstance(place.value, Option):
        found = source.of(place.value, place.row, incomplete)
    else:
        of_argument = source.of(place.value, place.row, incomplete) if place.value is not None else iter(())
        # Options come when they are asked for by a dash, or when nothing else may stand here.
        if incomplete.startswith("-") and place.takes_options:
            found = _options(place, incomplete)
        else:
            found = iter(list(islice(of_argument, MOST)) or (() if incomplete else list(_options(place, ""))))
    return list(islice(found, MOST))


# --- where one is -------------------------------------------------------------------------------------------------------------


def place_of(words: Sequence[str]) -> Place:
    """What the word after these is."""
    tree, at = _tree(), 0
    path: list[str] = []
    while at < len(words):
        word = words[at]
        if word.startswith("-"):
            option = _flags(_COMMON).get(word.partition("=")[0])
            if option is not None and option.kind != "flag" and "=" not in word:
                if at + 1 == len(words):
                    return Place(None, tuple(path), option)
                at += 1
        else:
            path.append(word)
            found = tree.get(tuple(path))
            if isinstance(found, Command):
                return _within(found, list(words[at + 1 :]))
            if found is None:
                return Place(None, tuple(path), takes_options=False)
        at += 1
    return Place(None, tuple(path))


def _within(row: Command, words: list[str]) -> Place:
    """The place in a command, after these words of it."""
    known = _known(row)
    arguments = [one for one in row.parameters if isinstance(one, Argument)]
    used: set[str] = set()
    takes_options, taken, at = True, 0, 0
    while at < len(words):
        word = words[at]
        if takes_options and word == "--":
            takes_options = False
        elif takes_options and word.startswith("-") and len(word) > 1:
            option = known.get(word.partition("=")[0])
            if option is not None:
                used |= set() if option.many else set(option.flags)
                if option.kind != "flag" and option.metavar != "[=bash]" and "=" not in word:
                    if at + 1 == len(words):
                        return Place(row, value=option, used=frozenset(used))
                    at += 1
        else:
            taken += 1
            if row.wraps:
                if row.path in ("watch",):
                    return Place(row, inner=tuple(words[at:]))
                takes_options = False
        at += 1
    value: Argument | None = None
    if arguments:
        is_more = taken < len(arguments) or arguments[-1].many
        value = arguments[min(taken, len(arguments) - 1)] if is_more else None
    if row.path == "watch" and not row.wraps and taken:
        return Place(row, inner=tuple(word for word in words if word != "--"))
    return Place(row, value=value, takes_options=takes_options, used=frozenset(used))


_TREE: dict[tuple[str, ...], Command | str] = {}


def _tree() -> dict[tuple[str, ...], Command | str]:
    """Commands by the words that lead to them; a group is its name."""
    if not _TREE:
        for row in COMMANDS:
            *group, last = row.path.split()
            if group:
                _TREE.setdefault(tuple(group), group[0])
            for name in (last, *row.aliases):
                _TREE.setdefault((*group, name), row)
        for row in FETCH:
            *group, last = row.path.split()
            _TREE.setdefault(("fetch",), "fetch")
            _TREE.setdefault(("fetch", last), row)
    return _TREE


def is_known(words: Sequence[str]) -> bool | None:
    """Whether these words lead to a command; None: to a group of commands."""
    found = _tree().get(tuple(words))
    return None if isinstance(found, str) else found is not None


def _verbs(path: tuple[str, ...], incomplete: str) -> Iterator[Candidate]:
    seen = set()
    for words, found in _tree().items():
        if words[: len(path)] != path or len(words) != len(path) + 1 or not words[-1].startswith(incomplete):
            continue
        if isinstance(found, Command) and (found.hidden or (words[-1] != found.path.split()[-1] and not incomplete)):
            continue  # aliases come when one has begun to type them
        if words[-1] not in seen:
            seen.add(words[-1])
            said = found.help.splitlines()[0] if isinstance(found, Command) else _GROUPS.get(words[-1], "")
            yield Candidate(words[-1], said, "command")


_GROUPS = {
    "task": "One task or many.", "execution": "Attempts at tasks.", "worker": "Machines that run tasks.", "job": "Long operations.",
    "cloud": "Machines that are rented.",
    "batch": "Tasks under one name.",
    "provider": "Who rents machines.", "recruiter": "Which workers serve a batch.", "flavor": "What could be rented.",
    "cache": "Results that tasks may take.", "workflow": "What scripts declare.",
    "config": "What belongs to you, not to a file.", "fetch": "Data, moved and listed.",
}  # fmt: skip


def _known(row: Command) -> dict[str, Option]:
    return {**_flags(_COMMON), **_flags(one for one in row.parameters if isinstance(one, Option))}


def _flags(options: Iterable[Option]) -> dict[str, Option]:
    return {flag: one for one in options for flag in one.flags}


def _options(place: Place, incomplete: str) -> Iterator[Candidate]:
    if place.value is not None and isinstance(place.value, Option):
        return
    if not place.takes_options:
        return
    rows = place.row.parameters if place.row is not None else ()
    own = [one for one in rows if isinstance(one, Option) and not one.hidden]
    taken = {flag for one in own for flag in one.flags}
    for one in (*own, *_COMMON):
        if set(one.flags) & place.used:
            continue
        flags = [flag for flag in one.flags if flag.startswith(incomplete) and (one in own or flag not in taken)]
        if not incomplete and place.row is None:
            continue
        if flags:
            # The long one says more; a single letter comes when it is what was typed.
            best = incomplete if incomplete in flags else max(flags, key=len)
            yield Candidate(best, one.help.splitlines()[0], "option")


# --- values -------------------------------------------------------------------------------------------------------------------


@dataclass
class Source:
    """Where values come from."""

    engine: Engine | None
    listings: Listings | None
    words: list[str] = field(default_factory=list)

    def of(self, one: Option | Argument | None, row: Command, incomplete: str) -> Iterator[Candidate]:
        """The values that a parameter may have."""
        if one is None:
            return iter(())
        if one.name == "where" or (row.path == "sql" and isinstance(one, Argument)):
            from scitq.shell.sqlwords import sql_candidates

            return sql_candidates(self._db(), incomplete, is_condition=one.name == "where")
        if isinstance(one, Option) and one.metavar == "[=bash]":
            return _starting(SHELLS, incomplete, "shell")
        takes = one.takes or ""
        if takes.startswith("words:"):
            return _starting(takes.removeprefix("words:").split(","), incomplete, "word")
        does = getattr(self, f"_{takes}", None) if takes else None
        if does is None:
            return iter(())
        # Of several by comma, it is about the last one.
        before, comma, last = (
            incomplete.rpartition(",")
            if one.many and isinstance(one, Option) and takes != "uri"
            else ("", "", incomplete)
        )
        found: Iterator[Candidate] = does(last)
        return (
            (replace(each, text=f"{before}{comma}{each.text}", shown=each.label) for each in found) if comma else found
        )

    def _db(self) -> apsw.Connection | None:
        engine = self.engine
        return None if engine is None or engine._closed else engine._reader()

    def _task(self, text: str) -> Iterator[Candidate]:
        from scitq.saying import clean
        from scitq.store import names

        if (db := self._db()) is None:
            return
        if not text or text.isdecimal():
            for one in names.tasks_numbered(db, text, 50):
                said = f"{one.state.word}  {clean(one.name)}" if one.name else one.state.word
                yield Candidate(str(one.id), said, "task")
        for one in names.tasks_named(db, text, 50):
            if one.name and clean(one.name) == one.name:
                yield Candidate(one.name, f"{one.state.word}  {one.id}", "task")

    def _names(
        self, look: Callable[[apsw.Connection, str, int], list[str]], text: str, kind: str
    ) -> Iterator[Candidate]:
        from scitq.saying import clean

        if (db := self._db()) is not None:
            yield from (Candidate(name, "", kind) for name in look(db, text, MOST) if clean(name) == name)

    def _batch(self, text: str) -> Iterator[Candidate]:
        from scitq.store import names

        return self._names(names.batches, text, "batch")

    def _recruiter(self, text: str) -> Iterator[Candidate]:
        from scitq.store import names

        return self._names(names.recruited, text, "batch")

    def _worker(self, text: str) -> Iterator[Candidate]:
        from scitq.store import names

        return self._names(names.workers, text, "worker")

    def _workflow(self, text: str) -> Iterator[Candidate]:
        from scitq.store import names

        return self._names(names.workflows, text, "workflow")

    def _flavor(self, text: str) -> Iterator[Candidate]:
        from scitq.store import names

        if (db := self._db()) is not None:
            for name, said in names.flavors(db, text, MOST):
                yield Candidate(name, said, "flavor")
            yield from _starting(("auto:",) if text else ("local", "auto:"), text, "flavor")

    def _provider(self, text: str) -> Iterator[Candidate]:
        from scitq.remote import providers

        said = {name: str(one.get("kind", "")) for name, one in providers.configured().items()}
        return (Candidate(name, said[name], "provider") for name in sorted(said) if name.startswith(text))

    def _kind(self, text: str) -> Iterator[Candidate]:
        from scitq.remote import providers

        return _starting(providers.kinds(), text, "kind")

    def _region(self, text: str) -> Iterator[Candidate]:
        from scitq.store import names

        if (db := self._db()) is not None:
            for name, said in names.regions(db, text, MOST):
                yield Candidate(name, said, "region")

    def _image(self, text: str) -> Iterator[Candidate]:
        from scitq.store import names

        return self._names(names.images, text, "image")

    def _state(self, text: str) -> Iterator[Candidate]:
        from scitq.states import TaskState

        return _starting([state.word for state in TaskState], text, "state")

    def _job(self, text: str) -> Iterator[Candidate]:
        if self.engine is not None and not self.engine._closed:
            for job in self.engine.jobs(None, 50):
                if str(job.id).startswith(text):
                    yield Candidate(str(job.id), f"{job.kind} {job.worker_name or ''} {job.state.word}", "job")

    def _execution(self, text: str) -> Iterator[Candidate]:
        from scitq.store import names

        if (db := self._db()) is not None and (not text or text.isdecimal()):
            yield from (Candidate(str(id), "", "execution") for id in names.executions_numbered(db, text, 50))

    def _host(self, text: str) -> Iterator[Candidate]:
        return _starting(_ssh_aliases(), text, "host")

    def _topic(self, text: str) -> Iterator[Candidate]:
        from scitq.shell.helping import TOPICS

        at = self.words.index("help") if "help" in self.words else 0
        path = tuple(word for word in self.words[at + 1 :] if not word.startswith("-"))
        yield from _verbs(path, text)
        if not path:
            yield from (Candidate(name, said, "topic") for name, said in TOPICS.items() if name.startswith(text))

    def _file(self, text: str) -> Iterator[Candidate]:
        return files(text)

    def _folder(self, text: str) -> Iterator[Candidate]:
        return (one for one in files(text) if one.text.endswith("/"))

    def _command(self, text: str) -> Iterator[Candidate]:
        if "/" in text or text.startswith("~"):
            return files(text)
        return iter([*_programs(text), *files(text)])

    def _uri(self, text: str) -> Iterator[Candidate]:
        head, bar, action = text.rpartition("|")
        if bar and head and not head.endswith("|"):
            return (
                replace(one, text=f"{head}|{one.text}", shown=one.text) for one in _starting(_ACTIONS, action, "action")
            )
        if text.startswith("task://"):
            wanted = text.removeprefix("task://")
            return (
                replace(one, text=f"task://{one.text}", shown=one.text)
                for one in self._task(wanted)
                if one.text.isdecimal()
            )
        if "://" in text:
            folder, slash, rest = text.rpartition("/")
            return self._far(folder + slash, rest)
        return iter([*files(text), *self._far("", text), *_starting(("task://",), text, "uri")])

    def _far(self, folder: str, rest: str) -> Iterator[Candidate]:
        from scitq.fetch.uri import OURS

        if self.listings is None or folder.partition("://")[0].partition("@")[0] in {*OURS, "http", "https", "ftp"}:
            return
        for name in self.listings.of(folder) or []:
            if name.startswith(rest):
                yield Candidate(f"{folder}{name}", "", "uri", name)


_ACTIONS = ("gunzip", "untar", "unzip", "mv:")


def _starting(words: Iterable[str], text: str, kind: str) -> Iterator[Candidate]:
    return (Candidate(word, "", kind) for word in words if word.startswith(text))


def files(text: str) -> Iterator[Candidate]:
    """Files and folders that begin so; a leading ~ stays as it was typed. Hidden ones come when their dot was typed."""
    from scitq.saying import clean

    folder, slash, rest = text.rpartition("/")
    if text == "~":
        yield Candidate("~/", "", "folder")
        return
    found: list[tuple[str, bool]] = []
    try:
        with os.scandir(os.path.expanduser(folder + slash) or ".") as entries:
            for entry in islice(entries, 20_000):
                if entry.name.startswith(rest) and (rest.startswith(".") or not entry.name.startswith(".")):
                    found.append((entry.name, entry.is_dir()))
    except OSError:
        return
    for name, is_folder in sorted(found):
        if clean(name) == name:
            yield Candidate(f"{folder}{slash}{name}{'/' if is_folder else ''}", "", "folder" if is_folder else "file",
                            f"{name}{'/' if is_folder else ''}")  # fmt: skip


def _programs(text: str) -> Iterator[Candidate]:
    if not text:
        return
    found = set()
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        try:
            found |= {name for name in os.listdir(folder or ".") if name.startswith(text)}
        except OSError:
            continue
    yield from (Candidate(name, "", "program") for name in sorted(found))


def _ssh_aliases() -> list[str]:
    """The hosts that the user's SSH configuration names."""
    found: list[str] = []
    try:
        with open(os.path.expanduser("~/.ssh/config"), encoding="utf-8", errors="replace") as file:
            for line in file:
                words = line.replace("=", " ", 1).split()
                if words and words[0].lower() == "host":
                    found += [word for word in words[1:] if not set(word) & set("*?!")]
    except OSError:
        return []
    return sorted(set(found))
