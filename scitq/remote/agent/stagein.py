"""Bringing the data of one execution to this machine. Blocking work, done in threads; who comes when is `staging`.

    stage/<execution>/ input/ resource/   what the task will find, complete only when `ready` is there
                       part/<n>/ done/<n>/   one source each, on its way and arrived
                       ready                 made last

An agent may be killed at any instruction: the next one goes on with the sources that are not in `done`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from scitq.fetch.errors import BadURI, Cancelled, Collision, FetchError, of_os_error
from scitq.fetch.files import is_temporary, remove
from scitq.fetch.progress import Progress, Report
from scitq.fetch.retry import Cancel
from scitq.fetch.settings import Settings
from scitq.fetch.transfer import get
from scitq.fetch.uri import Address, parse
from scitq.remote.agent.collect import to_trash
from scitq.remote.agent.links import MANIFEST, bring_links, can_be_linked

if TYPE_CHECKING:
    from scitq.remote.agent.remotes import Remotes
    from scitq.remote.agent.staging import Job

Outcome = dict[str, Any]
READY: Outcome = {"ok": True}


class Site:
    """What the threads share."""

    def __init__(self, root: str, remotes: Remotes, woken: Callable[[str, Outcome | None], None]) -> None:
        self.root = root
        self.remotes = remotes
        self.woken = woken

    def stage(self, job: Job) -> Outcome:
        """Bring everything that it needs, or say why not."""
        cancel = Cancel()
        job.stop = cancel.set
        if job.is_dropped or job.told is not None:
            cancel.set()  # it was given up before it could be stopped
        try:
            return self._stage(job, self.remotes.settings(cancel))
        except Cancelled:
            return _failure("Cancelled", "it was given up")
        except FetchError as error:
            return _failure(type(error).__name__, str(error))
        except OSError as error:
            typed = of_os_error(error, str(error.filename or self.root), "get")
            return _failure(type(typed).__name__, str(typed))

    def _stage(self, job: Job, settings: Settings) -> Outcome:
        home = os.path.join(self.root, "stage", job.key)
        if os.path.exists(os.path.join(home, "ready")):
            return READY
        for name in ("input", "resource"):
            addresses = [_absolute(text) for text in job.ask.get(name) or []]
            if addresses:
                Sources(os.path.join(home, name), addresses, name == "resource", job, settings).bring()
        os.makedirs(home, mode=0o700, exist_ok=True)
        with open(os.path.join(home, "ready.new"), "w", encoding="ascii"):
            pass
        os.rename(os.path.join(home, "ready.new"), os.path.join(home, "ready"))
        return READY

    def is_coming(self, resource: str) -> bool:
        """Whether some thread is bringing that resource now."""
        return False

    def leave(self, job: Job) -> None:
        """It waits no more for the resource that another one brings."""

    def changed(self, key: str) -> list[str]:
        """What an execution that is over changed of what is not its own: a sentence each."""
        return []

    def remove(self, key: str) -> None:
        """Take away all that was staged for an execution that is over."""
        folder = os.path.join(self.root, "stage", key)
        if to_trash(self.root, folder):
            empty(self.root)


class Sources:
    """The sources of one folder of a task."""

    def __init__(self, folder: str, addresses: list[Address], may_replace: bool, job: Job, settings: Settings) -> None:
        self.folder, self.addresses, self.may_replace = folder, addresses, may_replace
        self.job, self.settings = job, settings
        self.owners: dict[str, Address] = {}
        """What each name came from, relative to the folder."""

    def bring(self) -> None:
        """Each by itself, then all of them joined in the folder. Two that would write the same file are refused."""
        _check_names(self.addresses)
        for number, address in enumerate(self.addresses):
            part, done = (f"{self.folder}.{kind}/{number}" for kind in ("part", "done"))
            if not os.path.isdir(done):
                self._one(address, part)
                os.makedirs(os.path.dirname(done), mode=0o700, exist_ok=True)
                os.rename(part, done)
            _join(done, "", address, self.owners, self.may_replace)
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        for number in range(len(self.addresses)):
            _move(f"{self.folder}.done/{number}", self.folder)
        for kind in ("part", "done"):
            with contextlib.suppress(FileNotFoundError):
                remove(f"{self.folder}.{kind}")

    def _one(self, address: Address, part: str) -> None:
        self.settings.cancel.check(address.shown, "get")
        if can_be_linked(address):
            remove(part)
            os.makedirs(part, mode=0o700)
            bring_links(address, part, self.settings)
            return
        os.makedirs(part, mode=0o700, exist_ok=True)
        sweep(part)
        get(address, f"{part}/", settings=replace(self.settings, report=report(self.job, str(address))))
        _drop_ours(part)


def report(job: Job, name: str) -> Report:
    """Who notes how far a transfer of a job is."""

    one: list[tuple[str, int | None]] = []

    def heard(progress: Progress) -> None:
        if progress.file:
            # A single file says its size; of several, only who moves them may know the sum.
            if not one or one[0][0] == progress.file:
                one[:] = [(progress.file, progress.total_bytes)]
            else:
                one[:] = [("", None)]
        else:
            total = progress.total_bytes if progress.total_bytes is not None or not one else one[0][1]
            job.sizes[name] = progress.done_bytes, total

    return heard


def sweep(folder: str) -> None:
    """What a killed agent left half unpacked is of no use; files half received are, and stay."""
    for name in os.listdir(folder):
        if is_temporary(name) and ".work" in name:
            remove(os.path.join(folder, name))


def _drop_ours(folder: str) -> None:
    """The record that we keep beside outputs is none of them."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name == MANIFEST or is_temporary(name):
                os.unlink(os.path.join(place, name))


def _absolute(text: str) -> Address:
    address = parse(text)
    if address.is_local and not address.path.startswith("/"):
        raise BadURI(f"{text}: a path that a worker is given must be absolute.", uri=text, phase="parse")
    return address


def _check_names(addresses: list[Address]) -> None:
    """Before anything travels: files of the web say their names, and so do addresses that are given twice."""
    seen: dict[str, Address] = {}
    for address in addresses:
        names = [str(address)]
        if address.proto in ("http", "https") and not address.actions:
            names.append(address.name)
        for name in names:
            if name in seen:
                raise _collision(seen[name], address, address.name or str(address))
            seen[name] = address


def _collision(first: Address, second: Address, name: str) -> Collision:
    return Collision(
        f"{first.shown} and {second.shown} would both become {name}. Give one of them a folder of its own with |mv:.",
        uri=second.shown, phase="get",
    )  # fmt: skip


def _join(folder: str, below: str, address: Address, owners: dict[str, Address], may_replace: bool) -> None:
    """Note what is in a folder that arrived; Collision when an earlier one has it too. Folders are joined."""
    for entry in os.scandir(folder):
        name = below + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        mark = f"{name}/" if is_folder else name
        if not may_replace and (
            (not is_folder and (name in owners or f"{name}/" in owners)) or (is_folder and name in owners)
        ):
            raise _collision(owners.get(name) or owners[f"{name}/"], address, name)
        owners.setdefault(mark, address)
        if is_folder:
            _join(entry.path, f"{name}/", address, owners, may_replace)


def _move(source: str, folder: str) -> None:
    """Everything in `source` into `folder`; what is there already is replaced, but for folders, which are joined."""
    try:
        entries = list(os.scandir(source))
    except FileNotFoundError:
        return  # moved before, by an agent that was killed then
    for entry in entries:
        target = os.path.join(folder, entry.name)
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and os.path.isdir(target) and not os.path.islink(target):
            _move(entry.path, target)
            continue
        if os.path.lexists(target) and (is_folder or os.path.isdir(target)):
            remove(target)
        os.rename(entry.path, target)


def empty(root: str) -> None:
    """Delete what lies in the trash."""
    from scitq.remote.agent.collect import empty_trash

    empty_trash(root)


def _failure(error: str, note: str) -> Outcome:
    return {"ok": False, "why": "stage_in", "error": error, "note": note}
