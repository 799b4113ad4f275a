"""The agent's side of staging: which executions are being staged, in which order, what the keeper is told of it.

All of it is decided in the agent's loop. The blocking work is `stagein`, in at most four threads, each for one
execution; who waits for a resource that another one is bringing takes none of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from scitq.remote.agent import collect, containers, root
from scitq.remote.agent.orders import key_of
from scitq.remote.agent.parcels import BadParcels, Parcels
from scitq.remote.agent.registries import Registries
from scitq.remote.agent.remotes import BadRemotes, Remotes

if TYPE_CHECKING:
    from scitq.remote.agent.agent import Agent
    from scitq.remote.agent.stagein import Site

AT_ONCE = 4
AGAIN_S = 5.0
END_S = 10.0
"""How long the agent waits at its end for transfers to notice that they were cancelled."""


class Job:
    """One execution that is to be staged."""

    def __init__(self, ask: dict[str, Any]) -> None:
        self.ask = ask
        self.id = ask["id"]
        self.key = key_of(ask["id"])
        self.at = time.monotonic()
        """When it was asked for: what was learnt of a source after that is good enough for it."""
        self.left_s: float | None = ask.get("stage_timeout")
        """How much of its time it has not used."""
        self.until: float | None = None
        """When its time is over; None while it waits for its turn."""
        self.is_active = False
        """Whether a thread works on it."""
        self.parked: str | None = None
        """The resource that it waits for, which another execution brings."""
        self.told: dict[str, Any] | None = None
        """What the keeper was told of its end."""
        self.is_dropped = False
        """Whether nobody wants it any more."""
        self.stop: Callable[[], None] = lambda: None
        """Ends what it transfers; safe to call at any time."""
        self.waits = 0
        """How often it has waited because a registry asked to."""
        self.say: Callable[[str], None] = lambda text: None
        """Tells its user something, from any thread."""
        self.sizes: dict[str, tuple[int, int | None]] = {}
        """Bytes that have come and are to come, by address."""

    def pause(self) -> None:
        """Its clock stands still."""
        if self.until is not None and self.left_s is not None:
            self.left_s = self.until - time.monotonic()
        self.until = None

    def go_on(self) -> None:
        """Its clock goes on."""
        if self.left_s is not None and self.until is None:
            self.until = time.monotonic() + self.left_s


class Staging:
    """All of them."""

    def __init__(self, agent: Agent) -> None:
        self.agent = agent
        self.root = agent.folder
        self.remotes = Remotes(agent.folder)
        self.registries = Registries(agent.folder)
        self.parcels = Parcels(agent.folder, lambda: agent.later(self._begin))
        self.jobs: dict[str, Job] = {}
        self.limited: dict[str, Job] = {}
        """Of these, the ones whose time is limited and not over: few, and looked at in each round."""
        self.ready: deque[Job] = deque()
        self.active = 0
        self.idle = threading.Condition()
        """Guards `active`, which is waited for at the end."""
        self.is_ending = False
        self.unremoved: list[str] = []
        """Executions that are over, with a container that its engine did not remove."""
        self.remove_at: float | None = None
        """When that is tried again."""
        self._site: Site | None = None
        self._loading = threading.Lock()
        self._chores = collect.Pool()

    # What the keeper says.

    def hello(self, asks: list[dict[str, Any]], staged: list[str]) -> None:
        """A keeper that is new to us, or new: what it wants is staged, whatever else is there is not wanted."""
        wanted = {key_of(ask["id"]) for ask in asks} | set(staged)
        self.over([key for key in self.jobs if key not in wanted])
        self.parcels.keep(wanted)
        left = [
            key for key in os.listdir(os.path.join(self.root, "stage")) if key not in wanted and key not in self.jobs
        ]
        for key in left:
            self._release(key)
        self.asked(asks)

    def asked(self, asks: list[dict[str, Any]]) -> None:
        """These are to be staged, in this order. Who was done before is said to be done again."""
        for ask in asks:
            job = self.jobs.get(key_of(ask["id"]))
            if job is None:
                job = self.jobs[key_of(ask["id"])] = Job(self._without_kept(ask))
                job.say = self._sayer(job)
                self.ready.append(job)
                if job.left_s is not None:
                    self.limited[job.key] = job
            elif job.told is not None:
                self._tell(job, job.told)
        self._begin()

    def _without_kept(self, ask: dict[str, Any]) -> dict[str, Any]:
        """An output that is here is not waited for as a parcel. It stays: the execution that wants it is not over.

        What left nothing (the keeper knows) is none. Anything else that was waited for and is not here is missed: see `stagein`.
        """
        asked = dict(ask)
        for kind in ("input", "resource"):
            entries = ask.get(kind) or []
            if any(isinstance(entry, dict) and "of" in entry for entry in entries):
                asked[kind] = [self._without_parcel(entry) for entry in entries if not _is_nothing(ask, entry)]
        return asked

    def _without_parcel(self, entry: Any) -> Any:
        if isinstance(entry, dict) and "of" in entry and self.agent.kept.entry(key_of(entry["of"])) is not None:
            return {name: value for name, value in entry.items() if name != "parcel"}
        return entry

    def _sayer(self, job: Job) -> Callable[[str], None]:
        def say(text: str) -> None:
            note = {"note": {"id": job.id, "text": text}}
            self.agent.later(lambda: self.agent.keeper.tell(note))

        return say

    def over(self, keys: list[str]) -> None:
        """These need what was staged no more: they ended, or will never start."""
        for key in keys:
            job = self.jobs.pop(key, None)
            self.limited.pop(key, None)
            if job is None:
                self._release(key)
                continue
            job.is_dropped = True
            job.stop()
            if not job.is_active:
                self._release(key)

    def take_remotes(self, said: Any) -> None:
        """The driver's word about storages; BadRemotes when it makes no sense."""
        try:
            self.remotes.take(said)
        except OSError as error:
            raise BadRemotes(f"remotes: cannot be stored: {error.strerror}") from None
        self._begin()
        self.agent.folders.go_on()

    def take_registries(self, said: Any) -> None:
        """The driver's word about registries; BadRemotes when it makes no sense."""
        try:
            self.registries.take(said)
        except OSError as error:
            raise BadRemotes(f"registries: cannot be stored: {error.strerror}") from None
        self._begin()

    def take_parcels(self, said: Any, lists: Any) -> None:
        """The driver's word about files of its machine; BadParcels when it makes no sense."""
        try:
            self.parcels.take(said, lists)
        except OSError as error:
            raise BadParcels(f"parcels: cannot be stored: {error.strerror}") from None
        self._begin()

    def cannot_come(self, sha: str, error: str, note: str) -> None:
        """There is no room for a file of the submitting machine: those that wait for it wait in vain."""
        for job in list(self.jobs.values()):
            if job.told is None and not job.is_active and self.parcels.wants(job.ask, sha):
                self._tell(job, {"ok": False, "why": "stage_in", "error": error, "note": note})
        self._begin()

    # The work.

    def _begin(self) -> None:
        """Begin as many as may be."""
        waiting = []
        while self.ready and self.active < AT_ONCE and not self.is_ending:
            job = self.ready.popleft()
            if job.is_dropped or job.told is not None:
                continue
            if (ending := self.parcels.ending(job.ask)) is not None:
                self._tell(job, ending)
                continue
            if not (
                self.parcels.has(job.ask)
                and self.remotes.has(job.ask.get("remotes") or [])
                and self.registries.has(job.ask)
            ):
                waiting.append(job)
                continue
            job.is_active, job.parked = True, None
            job.go_on()
            self.active += 1
            threading.Thread(target=self._work, args=(job,), daemon=True, name=f"stage-{job.key}").start()
        self.ready.extendleft(reversed(waiting))

    @property
    def site(self) -> Site:
        """What the threads share. Loaded by the first of them, and never by an agent that stages nothing."""
        with self._loading:
            if self._site is None:
                from scitq.remote.agent.stagein import Site

                wanted = [entry for job in list(self.jobs.values()) for entry in job.ask.get("resource") or []]
                self._site = Site(
                    self.root,
                    self.remotes,
                    self.registries,
                    self.parcels,
                    self.agent.kept,
                    self._woken,
                    self.held,
                    wanted,
                )
            return self._site

    def _work(self, job: Job) -> None:
        try:
            outcome = self.site.stage(job)
        except Exception:
            root.say(self.root, "agent", traceback.format_exc())
            note = "the agent failed; see its agent.log"
            outcome = {"ok": False, "why": "stage_in", "error": "AgentFailed", "note": note}
        with self.idle:
            self.active -= 1
            self.idle.notify_all()
        self.agent.later(lambda: self._worked(job, outcome))

    def _worked(self, job: Job, outcome: dict[str, Any]) -> None:
        """A thread has left a job: done, failed, or waiting for what another one brings."""
        job.is_active = False
        job.stop = lambda: None
        if "wait" in outcome and (job.is_dropped or job.told is not None):
            self.site.leave(job)
        if job.is_dropped:
            self._release(job.key)
        elif job.told is None:
            if "wait" not in outcome:
                self._tell(job, outcome)
            elif self.site.is_coming(outcome["wait"]):
                job.parked = outcome["wait"]
                job.stop = lambda: self.site.leave(job)
            else:
                self._again(job)
        self._begin()

    def _again(self, job: Job) -> None:
        """It was early enough to come before those who have not begun."""
        job.pause()
        job.parked = None
        job.stop = lambda: None
        self.ready.appendleft(job)

    def _woken(self, resource: str, failure: dict[str, Any] | None) -> None:
        """From a thread: a resource has come, or cannot be had."""
        self.agent.later(lambda: self._unpark(resource, failure))

    def _unpark(self, resource: str, failure: dict[str, Any] | None) -> None:
        for job in reversed(list(self.jobs.values())):  # the oldest ends up first in the row
            if job.parked == resource and job.told is None:
                if failure is None:
                    self._again(job)
                else:
                    job.parked = None
                    self._tell(job, failure)
        self._begin()

    def _tell(self, job: Job, outcome: dict[str, Any]) -> None:
        """Tell the keeper how it ended; a keeper that dies before it has written that down asks again."""
        job.told = outcome
        self.limited.pop(job.key, None)
        self.agent.keeper.tell({"staged": {"id": job.id, **outcome}})

    def held(self) -> set[str] | None:
        """From a thread: the executions that are not over, by the keeper's word."""
        told: list[set[str]] = []
        has_come = threading.Event()

        def answer(said: dict[str, Any]) -> None:
            told.append({*said["held"], *said.get("of", ())})
            has_come.set()

        self.agent.later(lambda: self.agent.keeper.ask({"held": 1}, answer))
        until = time.monotonic() + END_S
        while not has_come.wait(0.2):
            if self.agent.folders.is_closing or time.monotonic() > until:
                return None  # whoever would answer waits for us, or there is no keeper
        return told[0]

    # Time.

    def due(self) -> list[float]:
        """When somebody's time is over."""
        found = [job.until for job in self.limited.values() if job.until is not None]
        return found if self.remove_at is None else [*found, self.remove_at]

    def attend(self, now: float) -> None:
        """Give up those whose time is over; remove what could not be removed before."""
        if self.remove_at is not None and now >= self.remove_at:
            self.remove_at, keys, self.unremoved = None, self.unremoved, []
            for key in keys:
                self._remove(key)
        for job in list(self.limited.values()) if self.limited else ():
            if job.until is not None and now >= job.until:
                seconds = f"{job.ask['stage_timeout']:g}"
                note = f"not all of its data had come after the {seconds} s that it may take (stage_in_timeout)"
                self._tell(job, {"ok": False, "why": "stage_timeout", "error": "TimedOut", "note": note})
                job.stop()

    # What is over.

    def _release(self, key: str) -> None:
        """Look whether it left the resources as they were, then take away what was staged for it."""
        found: list[tuple[str, str]] = []

        def look() -> None:
            found.extend(self.site.changed(key))

        def looked() -> None:
            # Told until confirmed: the folder, which says what it used, goes only then.
            said = [{"note": {"id": _identity(each), "text": text}} for each, text in found]
            lines = b"".join(json.dumps(each).encode("ascii") + b"\n" for each in said)
            if lines:
                self.agent.keeper.hand(lines, remove)
            else:
                remove()

        def remove() -> None:
            self._remove(key)

        self._chores.do_then(self.agent, look, looked)

    def _remove(self, key: str) -> None:
        """Take it away; again later when the engine of its container does not answer now."""
        done: list[bool] = []

        def job() -> None:
            self.site.remove(key)
            done.append(True)

        def finished() -> None:
            if not done:
                self.unremoved.append(key)
                self.remove_at = time.monotonic() + AGAIN_S

        self._chores.do_then(self.agent, job, finished)

    def clean(self) -> None:
        """Throw away what is kept for later, soon."""
        self._chores.do_then(self.agent, lambda: self.site.clean(), lambda: None)

    def progress(self) -> dict[str, list[int | None]]:
        """For each that is being staged: bytes that have come, and in all as far as that is known."""
        found: dict[str, list[int | None]] = {}
        for key, job in self.jobs.items():
            if job.told is None:
                sizes = list({**self.parcels.progress(job.ask), **job.sizes}.values())
                totals = [total for _, total in sizes]
                known = None if None in totals or not totals else sum(total or 0 for total in totals)
                found[key] = [sum(done for done, _ in sizes), known]
        return found

    def end(self) -> None:
        """The agent ends: nothing of ours goes on, and no secret stays."""
        self.is_ending = True
        for job in self.jobs.values():
            job.is_dropped = True
            job.stop()
        with self.idle:
            self.idle.wait_for(lambda: not self.active, END_S)
        if self.agent.is_home():
            self._remove_containers()
        self.remotes.forget()
        self.registries.forget()

    def _remove_containers(self) -> None:
        """The keeper has ended, too: none of those that have ended themselves is left for nobody."""
        until = time.monotonic() + END_S
        for key in os.listdir(os.path.join(self.root, "stage")):
            if (image := containers.staged(self.root, key)) is not None and time.monotonic() < until:
                from scitq.remote.agent import images

                with contextlib.suppress(Exception):  # the next agent tries again
                    images.remove_container(image, containers.name_of(root.identity(self.root), key), is_over=False)


def _is_nothing(ask: dict[str, Any], entry: Any) -> bool:
    """Whether it is the whole output of an execution that left nothing."""
    if not isinstance(entry, dict) or not entry.get("awaited") or entry.get("below"):
        return False
    return key_of(entry["of"]) in ask.get("nothing", ()) and str(entry["uri"]).startswith("/")


def _identity(key: str) -> int | str:
    """The id that an execution was ordered under."""
    return int(key) if key.isdecimal() and str(int(key)) == key else key
