"""Files of this machine for workers that cannot see it: what their orders name is looked at, announced, and sent where missing.

One thread for each worker that is being sent something: it looks at paths (`fingerprints`), tells the agent what they hold, asks
which files it lacks, and sends those in pieces, several on their way at once, deflated where that pays. Nothing is remembered:
after a broken connection, or by the next driver, the same is asked again, and what has arrived is not sent again.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scitq import config
from scitq.contact import Contact
from scitq.errors import StaleDriver, WorkerError
from scitq.fetch.errors import Cancelled, FetchError
from scitq.fetch.settings import Settings
from scitq.fetch.uri import parse
from scitq.fingerprints import File, Fingerprints, Look, SourceChanged, kind_of, look
from scitq.remote.agent import publish
from scitq.remote.link import Stream
from scitq.sending import ANSWER_S, SAY_FROM_S, Line, Progress, amount, duration, good
from scitq.store.lease import Lease
from scitq.worker import WorkerId, WorkerRow

log = logging.getLogger("scitq")

# Paths are announced together that took no longer than this to look at.
GATHER_S = 0.5
# A broken stream is opened again after so long.
AGAIN_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
# How often a file that changes while it is sent is begun again.
TRIES = 5

Wants = dict[str, dict[str, Any]]
"""Parcels that orders name, with all that they say of them."""
Found = Look | FetchError | dict[str, Any]
"""What there is to be said of a parcel: what it holds; why it cannot be had; of the place of an output: the word itself."""


class Parcels:
    """What one driver sends. All methods are called by its thread.

    `later` runs a function on that thread; `note` writes a sentence down for executions; `is_live`, asked by any thread, says
    whether an execution has not ended.
    """

    def __init__(
        self, side: Path, lease: Lease, stop: threading.Event, *, later: Callable[[Callable[[], None]], None],
        note: Callable[[set[int], str], None], is_live: Callable[[int], bool],
    ) -> None:  # fmt: skip
        self.lease, self.stop, self.later, self.note, self.is_live = lease, stop, later, note, is_live
        self.sums = Fingerprints(side)
        self._senders: dict[WorkerId, Sender] = {}

    def want(self, contact: Contact, orders: list[dict[str, Any]], row: WorkerRow | None) -> None:
        """See that the agent gets what these orders name of this machine."""
        wants = {entry["parcel"]: entry for order in orders for entry in parcels_in(order)}
        if not wants:
            return
        sender = self._senders.get(contact.worker)
        if sender is None or sender.commands is not contact.commands or not sender.add(wants):
            own = None if row is None else row.settings.get("send_limit")
            limit = int(config.load().get("send_limit") if own is None else own)
            sender = self._senders[contact.worker] = Sender(self, contact, limit)
            sender.add(wants)
            sender.start()

    def unsent(self) -> set[int]:
        """Executions some of whose data are not all at their worker yet."""
        return {execution for sender in self._senders.values() for execution in sender.unsent()}

    def progress(self, worker: WorkerId) -> dict[str, Any]:
        """What is being sent to a worker now, for its statistics; empty when nothing is."""
        sender = self._senders.get(worker)
        return {} if sender is None or sender.progress is None else {"sending": sender.progress.told()}


class Sender(threading.Thread):
    """Sends to one worker over one connection of the driver's, as long as there is something to send."""

    def __init__(self, parcels: Parcels, contact: Contact, limit: int) -> None:
        super().__init__(name="scitq-parcels", daemon=True)
        self.commands = contact.commands
        self.progress: Progress | None = None
        self._parcels, self._contact, self._limit, self._worker = parcels, contact, limit, contact.name
        self._wants: Wants = {}
        self._served: Wants = {}
        """Those of them that it is busy with."""
        self._gate = threading.Lock()
        self._is_over = False
        self._said: set[str] = set()
        """Lists that the agent was told over this stream."""
        self._warned: set[str] = set()

    def add(self, wants: Wants) -> bool:
        """Send these as well; False when it has ended, or is about to."""
        with self._gate:
            if not self._is_over:
                self._wants.update(wants)
            return not self._is_over

    def unsent(self) -> set[int]:
        """Executions that it has not sent all of yet."""
        with self._gate:
            return {execution_of(name) for name in (*self._wants, *self._served)}

    def run(self) -> None:
        """Until there is nothing more to send, or the driver's connection is another one."""
        failures = 0
        while True:
            with self._gate:
                if not self._wants or self._has_ended():
                    self._is_over = True
                    return
                wants, self._wants = self._wants, {}
                self._served = wants
            try:
                self._said.clear()
                with contextlib.closing(self._contact.route.stream()) as stream:
                    for part in _gathered(wants, self._parcels.sums, self._has_ended):
                        self._serve(stream, part, wants)
                        failures = 0
                        with self._gate:
                            for name in part:
                                wants.pop(name, None)
                failures = 0
            except (Cancelled, StaleDriver):
                continue  # it ends
            except Exception as problem:
                wait_s = AGAIN_S[min(failures, len(AGAIN_S) - 1)]
                failures += 1
                if not isinstance(problem, WorkerError | OSError):
                    log.exception("sending data to worker %s failed; next try in %g s", self._worker, wait_s)
                elif not self._has_ended():
                    log.warning(
                        "worker %s: data on its way there was stopped: %s Next try in %g s.",
                        self._worker,
                        problem,
                        wait_s,
                    )
                with self._gate:
                    self._wants = {**wants, **self._wants}
                self._parcels.stop.wait(wait_s)
            finally:
                self.progress = None

    def _has_ended(self) -> bool:
        return self._parcels.stop.is_set() or self._contact.commands is not self.commands

    # One part of what is wanted.

    def _serve(self, stream: Stream, part: dict[str, Found], wants: Wants) -> None:
        for _ in range(TRIES):
            self._announce(stream, part)
            try:
                self._send_missing(stream, self._not_kept(stream, part, wants))
            except SourceChanged as changed:
                problem = changed
            else:
                return
            self._parcels.sums.forget(problem.uri)
            for name, found in part.items():
                if isinstance(found, Look) and any(file.path == problem.uri for file in found.files.values()):
                    part[name] = self._again(name, found)
        failed = {
            name: problem
            for name, found in part.items()
            if isinstance(found, Look) and any(file.path == problem.uri for file in found.files.values())
        }
        self._announce(stream, dict(failed))
        part = {name: found for name, found in part.items() if name not in failed}
        self._send_missing(stream, self._not_kept(stream, part, wants))

    def _not_kept(self, stream: Stream, part: dict[str, Found], wants: Wants) -> dict[str, Found]:
        """Without what the worker still has because another task left it there: that is read there, and not sent."""
        known: dict[str, bool] = {}

        def is_kept(entry: dict[str, Any], found: Found) -> bool:
            name = kept_name(entry, found) if "of" in entry and isinstance(found, Look) else None
            if name is None:
                return False
            target = f"/kept/{entry['of']}/{quote(name, safe='/', errors='surrogateescape')}?max=0"
            if target not in known:
                known[target] = stream.ask("GET", target, timeout_s=ANSWER_S).status == 200
            return known[target]

        return {name: found for name, found in part.items() if not is_kept(wants[name], found)}

    def _again(self, name: str, found: Look) -> Found:
        try:
            return look(found.uri, self._parcels.sums, self._has_ended)
        except Cancelled:
            raise
        except FetchError as error:
            return error

    def _announce(self, stream: Stream, part: dict[str, Found]) -> None:
        said: dict[str, Any] = {}
        lists: dict[str, Any] = {}
        left_out: dict[str, set[int]] = {}
        for name, found in part.items():
            if not isinstance(found, Look):
                said[name] = kind_of(found) if isinstance(found, FetchError) else found
                continue
            key = found.key
            said[name] = {"list": key, "base": found.base, "tail": found.tail}
            if key not in self._said:
                lists[key] = found.rows
            for text in found.left_out:
                left_out.setdefault(text, set()).add(execution_of(name))
        body = json.dumps({"parcels": said, "lists": lists}).encode("ascii") + b"\n"
        epoch = f"Scitq-Epoch: {self._parcels.lease.epoch}\r\n"
        answer = stream.ask("POST", "/commands", body, epoch, timeout_s=ANSWER_S)
        if answer.status == 409:
            raise StaleDriver(
                f"the agent of worker {self._worker} is driven by a newer driver."
            )  # the driver hears it, too
        good(answer)
        self._said |= lists.keys()
        for text, executions in left_out.items():
            self._note(executions, text)

    def _send_missing(self, stream: Stream, part: dict[str, Found]) -> None:
        files: dict[str, File] = {}
        users: dict[str, set[int]] = {}
        for name, found in part.items():
            if isinstance(found, Look):
                files.update(found.files)
                for sha in found.files:
                    users.setdefault(sha, set()).add(execution_of(name))
        if not files:
            return
        body = json.dumps({"want": sorted(files)}).encode("ascii")
        here = good(stream.ask("POST", "/blobs", body, timeout_s=ANSWER_S)).json()
        missing = {sha: int(here.get(sha, 0)) for sha in files if here.get(sha, 0) != -1}
        self._warn(files, missing, users)
        progress = self.progress = Progress(sum(max(0, files[sha].mark[0] - done) for sha, done in missing.items()))
        waiting = set().union(*(users[sha] for sha in missing)) if missing else set()
        line = Line(stream, progress, lambda: self._estimate(progress, waiting), self._has_ended)
        try:
            for sha, done in missing.items():
                line.file(sha, files[sha], done, partial(self._is_wanted, users[sha]))
            line.drain()
        except SourceChanged:
            line.abandon()
            raise
        finally:
            self.progress = None

    def _is_wanted(self, executions: set[int]) -> bool:
        return any(map(self._parcels.is_live, executions))

    # What people are told.

    def _note(self, executions: set[int], text: str) -> None:
        self._parcels.later(lambda: self._parcels.note(executions, text))

    def _estimate(self, progress: Progress, executions: set[int]) -> None:
        """Once: how long it will take, if that is long."""
        left_s = progress.left_s
        if left_s is not None and left_s >= SAY_FROM_S:
            self._note(
                executions,
                f"{amount(progress.total)} of this machine's data are on their way to {self._worker}, {amount(progress.rate)}/s: "
                f"about {duration(left_s)} more.",
            )  # fmt: skip

    def _warn(self, files: dict[str, File], missing: dict[str, int], users: dict[str, set[int]]) -> None:
        left = {sha: files[sha].mark[0] - done for sha, done in missing.items()}
        fresh = {sha for sha in left if sha not in self._warned}
        if sum(left.values()) <= self._limit or not fresh:
            return
        self._warned |= fresh
        largest = files[max(left, key=lambda sha: left[sha])].path
        text = (
            f"{amount(sum(left.values()))} go from this machine to {self._worker} ({largest} is the largest file), more than its "
            f"send_limit of {amount(self._limit)}. From a bucket each worker fetches for itself, and faster: copy it there with "
            f"scitq fetch copy, and give the tasks that address."
        )
        log.warning("%s", text)
        self._note(set().union(*(users[sha] for sha in fresh)), text)


def _gathered(wants: Wants, sums: Fingerprints, has_ended: Callable[[], bool]) -> Iterator[dict[str, Found]]:
    """What the addresses hold, in parts that are worth announcing: each address is looked at once."""
    names: dict[str, list[str]] = {}
    part: dict[str, Found] = {}
    since = time.monotonic()
    for name, entry in wants.items():
        if "uri" in entry:
            names.setdefault(str(parse(entry["uri"]).bare), []).append(name)
        else:
            part[name] = _checked(entry)
    for bare, users in names.items():
        found: Found
        try:
            found = look(bare, sums, has_ended)
        except Cancelled:
            raise
        except FetchError as error:
            found = error
        part.update(dict.fromkeys(users, found))
        if time.monotonic() - since > GATHER_S:
            yield part
            part, since = {}, time.monotonic()
    if part:
        yield part


def _checked(goes: dict[str, Any]) -> dict[str, Any]:
    """Whether an output may be put where it is to go, or is there already."""
    settings = Settings()
    try:
        if goes.get("skip") and (files := publish.find_complete(goes, settings)) is not None:
            return {"exists": "yes", "to": goes["output"], "files": files}
        if not goes.get("overwrite"):
            publish.check_target(goes, execution_of(goes["parcel"]), settings)
    except FetchError as error:
        return kind_of(error)
    return {"go": "yes"}


def parcels_in(order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The entries of an order that name something of this machine."""
    for kind in ("input", "resource"):
        for entry in order.get(kind, ()):
            if isinstance(entry, dict) and "parcel" in entry:
                yield entry
    if "check" in order:
        yield order["check"]


def kept_name(entry: dict[str, Any], found: Look) -> str | None:
    """What the first file of a look is called in the output that it is of; None when that cannot be said."""
    path, below = parse(entry["uri"]).path.rstrip("/"), entry["below"]
    top = path.removesuffix(f"/{below}") if below else path
    for name, _, sha, *_ in found.rows:
        file = f"{found.base}/{name}"
        if sha:
            return file[len(top) + 1 :] if file.startswith(f"{top}/") else None
    return None


def execution_of(parcel: str) -> int:
    """The execution that a parcel is for."""
    return int(parcel.partition(".")[0])
