"""The cache at work: for tasks that may use it, is there a result already; and of every success, what is it the answer to.

Called in threads of the driver's (see `caching`), never by its loop. All that is found goes into the state file in short
transactions, and whatever was not written when they are killed is found out anew. The rows are `store.cache`, looking at data is
`identities`, moving results is `reuse`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, Any

from scitq import identities, reuse
from scitq.addresses import parents_of
from scitq.digest import Fingerprint, Parts, Source, parts_of
from scitq.errors import ScitqError
from scitq.fetch.retry import Cancel, Policy
from scitq.fetch.settings import Settings
from scitq.fetch.tree import in_parallel
from scitq.fetch.uri import parse
from scitq.identities import Found, Looked
from scitq.store import cache
from scitq.store.cache import Answer, Asked, Ended, Entry
from scitq.store.manifests import owner_of, success_ended_ms
from scitq.task import Spec, TaskId

if TYPE_CHECKING:
    import apsw

    from scitq.caching import Caching

# So many tasks, or successes, are looked at in one go.
AT_ONCE = 500
# Tasks that are submitted one by one share a listing if they come within moments of one another.
GATHER_S = 0.1
GATHER_LIMIT_S = 1.0
# A storage that has not answered by then is called silent, and the tasks run.
PATIENCE_S = 60.0
# What was found after the fact of a folder that keeps no times: only so soon after the end it is what was there before.
SOON_S = 60.0


class Probing:
    """One lane's work: near, or far."""

    def __init__(self, caching: Caching, *, is_far: bool) -> None:
        self._caching, self._is_far_lane = caching, is_far
        self._store, self._lease = caching.store, caching.lease
        self._side = caching.store.side
        self._outputs = str(self._side / "outputs")

    def _settings(self) -> tuple[Settings, threading.Timer]:
        """For one look around, which ends when the driver does, or when it takes too long."""
        cancel = Cancel()
        timer = threading.Timer(PATIENCE_S, cancel.set)
        timer.daemon = True
        timer.start()
        settings = Settings(
            cancel=cancel, retry=Policy(attempts=3, first_wait_s=0.5), connect_timeout_s=10.0, stall_timeout_s=30.0,
            parallel=8, rclone_options=("--low-level-retries=1",),  # with more it takes 20 s to say that nobody is there
        )  # fmt: skip
        return settings, timer

    def _look(self, db: apsw.Connection, texts: Collection[str]) -> Looked:
        settings, timer = self._settings()
        try:
            with self._caching.cancel.waking(settings.cancel.set):
                return identities.look(db, texts, self._outputs, settings)
        finally:
            timer.cancel()

    def _write(self, action: Callable[[apsw.Connection], object], *, quiet: bool = False) -> None:
        def write(db: apsw.Connection) -> None:
            self._lease.check(db)
            action(db)

        self._store.write(write, quiet=quiet)

    def give_up(self) -> None:
        """Something is wrong with us: no task waits for that."""
        asked = self._chosen()
        note = "it was not looked up: the look failed (see the log)"

        def write(db: apsw.Connection) -> None:
            for each in asked:
                cache.missed(db, _now_ms(), each, Answer(note=note))

        self._write(write)

    # --- probing ----------------------------------------------------------------------------------------------------------

    def _chosen(self) -> list[Asked]:
        """The tasks of a lane."""
        found = cache.wanted(self._store.reader(), AT_ONCE)
        return [each for each in found if self._is_far(each) is self._is_far_lane]

    def _is_far(self, asked: Asked) -> bool:
        spec = asked.spec
        return asked.id in self._caching.known_far or asked.image is not None or _asks_far(spec)

    def probe(self) -> bool:
        """Answer tasks that wait for it; returns whether there may be more."""
        asked = self._gathered() if self._is_far_lane else self._chosen()
        if not asked:
            return False
        db = self._store.reader()
        texts = {_bare(text) for each in asked for text in (*each.spec.input, *each.spec.resource)}
        looked = self._look(db, texts)
        answers: list[tuple[Asked, Answer, list[Entry]]] = []
        images: dict[str, str] = {}
        for each in asked:
            try:
                parts = self._parts(each.spec, self._bits(each, images), looked)
            except ScitqError as problem:
                answers.append((each, Answer(note=f"it was not looked up: {_said(problem)}"), []))
                continue
            data = parts.data() if each.spec.input or each.spec.resource else None
            near = cache.nearest(db, each, parts.recipe, [*parts.input, *parts.resource])
            answers.append((each, Answer(parts.key, parts.recipe, data, near), cache.find(db, parts.key)))
        prints = {one.digest: one for one in looked.found.values() if isinstance(one, Fingerprint)}
        self._write(lambda db: cache.put_fingerprints(db, prints), quiet=True)
        self._answer(answers)
        return True

    def _bits(self, asked: Asked, images: dict[str, str]) -> str | None:
        """What the image of a task is known by now; each is asked for once.

        Raises:
            RegistryError: it cannot be found out.
        """
        if asked.image is None or "@" in asked.image:
            return asked.image
        if asked.image not in images:
            from scitq.remote.images import digest_of

            images[asked.image] = digest_of(asked.image)
        return images[asked.image]

    def _gathered(self) -> list[Asked]:
        """The tasks of the far lane, once no more are coming."""
        found, until = self._chosen(), time.monotonic() + GATHER_LIMIT_S
        while found and len(found) < AT_ONCE and time.monotonic() < until and not self._caching.stop.wait(GATHER_S):
            before, found = len(found), self._chosen()
            if len(found) <= before:
                break
        return found

    def _parts(self, spec: Spec, image: str | None, looked: Looked) -> Parts:
        """What the key of a task is made of, now.

        Raises:
            ScitqError: something that it reads cannot be told, or is not there.
        """
        return parts_of(
            spec, image, [_source(text, looked.found) for text in spec.input],
            [_source(text, looked.found) for text in spec.resource],
        )  # fmt: skip

    def _answer(self, answers: Sequence[tuple[Asked, Answer, list[Entry]]]) -> None:
        """Take what there is for these tasks; what there is nothing for may run."""
        if not self._is_far_lane:
            far = {each.id for each, _, entries in answers if any(not self._is_quick(each, entry) for entry in entries)}
            self._caching.known_far |= far
            answers = [one for one in answers if one[0].id not in far]
        elif any(entries for *_, entries in answers):
            self._caching.known_far -= {each.id for each, *_ in answers}
        places = {
            entry.manifest.address
            for *_, entries in answers
            for entry in entries[:1]
            if entry.manifest is not None and entry.manifest.files and not reuse.is_here(entry)
        }
        seen = self._look(self._store.reader(), places).found if places else {}
        slow = [one for one in answers if self._moves(one[0], one[2])]
        decided = [self._decide(*one, seen) for one in answers if one not in slow]
        if decided:
            self._write(lambda db: [decide(db) for decide in decided])
        in_parallel(slow, lambda one: self._write(self._decide(*one, seen)), Settings(cancel=self._caching.cancel))

    def _moves(self, asked: Asked, entries: Sequence[Entry]) -> bool:
        """Whether taking what was found may take long: more than a look, or a second name for its files."""
        in_side = asked.spec.output is None
        return bool(entries) and not any(
            reuse.is_in_place(entry, asked.spec) or (in_side and reuse.is_here(entry)) for entry in entries[:1]
        )

    def _is_quick(self, asked: Asked, entry: Entry) -> bool:
        """Whether taking a result asks no storage."""
        goes_here = asked.spec.output is None or parse(asked.spec.output).is_local
        return reuse.is_here(entry) and goes_here

    def _decide(
        self, asked: Asked, answer: Answer, entries: Sequence[Entry], seen: dict[str, Found]
    ) -> Callable[[apsw.Connection], object]:
        """What is to be written about one task."""
        dropped: list[tuple[Entry, str]] = []
        note = None
        for entry in entries:
            settings, timer = self._settings()
            try:
                place = None if entry.manifest is None else entry.manifest.address
                if place is not None and place not in seen and not reuse.is_here(entry):
                    seen |= self._look(self._store.reader(), [place]).found
                reuse.verify(entry, seen, settings)
                timer.cancel()
                with self._caching.cancel.waking(settings.cancel.set):
                    address = reuse.bring(entry, self._goal(asked), settings)
            except reuse.Altered as problem:
                dropped.append((entry, str(problem)))
                note = f"the result of {entry.task} was no good any more: {problem}"
                continue
            except (ScitqError, OSError) as problem:
                note = f"the result of {entry.task} could not be taken: {_said(problem)}"
                continue
            finally:
                timer.cancel()
            return lambda db, entry=entry, address=address: self._take(db, asked, answer, entry, address, dropped)  # type: ignore[misc]
        tried = [entry.execution for entry in entries]
        told = Answer(answer.key, answer.recipe, answer.data, answer.near, answer.note or note, tried)
        return lambda db: self._miss(db, asked, told, dropped)

    def _goal(self, asked: Asked) -> reuse.Goal:
        db = self._store.reader()
        return reuse.Goal(asked.id, asked.spec, self._side, owner_of(db, asked.id))

    def _take(
        self, db: apsw.Connection, asked: Asked, answer: Answer, entry: Entry, address: str | None,
        dropped: Sequence[tuple[Entry, str]],
    ) -> None:  # fmt: skip
        now = _now_ms()
        for old, reason in dropped:
            cache.drop(db, now, old, reason)
        cache.hit(db, now, asked, answer, entry, address, self._store.side)

    def _miss(self, db: apsw.Connection, asked: Asked, answer: Answer, dropped: Sequence[tuple[Entry, str]]) -> None:
        now = _now_ms()
        for old, reason in dropped:
            cache.drop(db, now, old, reason)
        cache.missed(db, now, asked, answer)

    # --- recording --------------------------------------------------------------------------------------------------------

    def record(self) -> bool:
        """Write down what some successes are the answer to; returns whether there may be more."""
        db = self._store.reader()
        ended = [each for each in cache.unkeyed(db, AT_ONCE) if _asks_far(each.spec) is self._is_far_lane]
        if not ended:
            return False
        looked = self._look(db, {_bare(text) for each in ended for text in (*each.spec.input, *each.spec.resource)})
        rows = [self._row(db, each, looked) for each in ended]
        prints = {one.digest: one for one in looked.found.values() if isinstance(one, Fingerprint)}

        def write(db: apsw.Connection) -> None:
            cache.put_fingerprints(db, prints)
            for row in rows:
                cache.record(db, *row)

        self._write(write, quiet=True)
        return True

    def _row(self, db: apsw.Connection, ended: Ended, looked: Looked) -> tuple[Any, ...]:
        """A success with its key, '' if it cannot be said what it is the answer to."""
        spec = ended.spec
        # It did not run: what it found there may be anybody's; or it is not known what it ran in.
        if ended.why == "exists" or (spec.container is not None and ended.image is None):
            return ended.execution, ""
        try:
            parts = self._parts(spec, ended.image, looked)
        except ScitqError:
            return ended.execution, ""
        if not (spec.input or spec.resource):
            return ended.execution, parts.key
        was_probed = ended.probe_key == parts.key and (ended.probed_ms or 0) <= ended.assigned_ms
        if not was_probed and not _is_of_before(db, ended, looked):
            return ended.execution, ""
        return ended.execution, parts.key, parts.recipe, parts.data()


def _is_of_before(db: apsw.Connection, ended: Ended, looked: Looked) -> bool:
    """Whether what was found now is what was there when the task began, though nobody looked then."""
    texts = {_bare(text) for text in (*ended.spec.input, *ended.spec.resource)}
    if any(looked.changed_s.get(text, 0.0) * 1000 > ended.assigned_ms for text in texts):
        return False
    is_late = _now_ms() > ended.ended_ms + SOON_S * 1000
    if is_late and texts & looked.undated:
        return False
    parents = (success_ended_ms(db, TaskId(parent)) for parent in parents_of(texts))
    return all(at is None or at <= ended.assigned_ms for at in parents)


def _asks_far(spec: Spec) -> bool:
    return any(map(identities.is_far, (*spec.input, *spec.resource)))


def _bare(text: str) -> str:
    return parse(text).text


def _source(text: str, found: dict[str, Found]) -> Source:
    address = parse(text)
    there = found[address.text]
    if not isinstance(there, Fingerprint):
        raise there
    return Source(address.bare.shown, "|".join(map(str, address.actions)), there.digest)


def _said(problem: Exception) -> str:
    return str(problem).removesuffix(".")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
