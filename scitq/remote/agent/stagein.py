"""Bringing the data of one execution to this machine. Blocking work, done in threads; who comes when is `staging`.

    stage/<execution>/ input/ resource/         what the task will find, complete only when `ready` is there
                       part/<n>/ done/<n>/   one source each, on its way and arrived
                       used                  the versions of resources that it has links to
                       linked                the files of plain paths that are resources, as they were
                       ready                 made last

An agent may be killed at any instruction: the next one goes on with the sources that are not in `done`.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Union

from scitq.fetch.errors import BadURI, FetchError, NoSpace, of_os_error
from scitq.fetch.files import is_temporary, remove
from scitq.fetch.progress import Progress, Report
from scitq.fetch.retry import Cancel
from scitq.fetch.settings import Settings
from scitq.fetch.transfer import get
from scitq.fetch.uri import Address, parse
from scitq.remote.agent import manifest, publish, root
from scitq.remote.agent.cache import Cache, Coming
from scitq.remote.agent.collect import empty_trash, to_trash
from scitq.remote.agent.containers import name_of, staged
from scitq.remote.agent.images import Images, remove_container
from scitq.remote.agent.joins import check_names, join, move
from scitq.remote.agent.links import bring_links, can_be_linked, changed_in_place, remember
from scitq.remote.agent.parcels import Gone, Parcels
from scitq.remote.agent.rooms import free_bytes, kept_bytes, make_room, reserve_bytes, trim, with_room

if TYPE_CHECKING:
    from scitq.remote.agent.kept import Kept
    from scitq.remote.agent.registries import Registries
    from scitq.remote.agent.remotes import Remotes
    from scitq.remote.agent.staging import Job

Outcome = dict[str, Any]
Entry = Union[str, "dict[str, Any]"]
"""An input or resource of an order: an address, or one with more to be known of it."""
_CHANGED = (
    "{shown}: was changed while this task had it, by this task or by another one that ran at the same time. What is sent to a "
    "worker is shared there and may not be changed: copy to $TEMP what has to be. It was dropped; who needs it next gets it anew."
)


class Site:
    """What the threads share."""

    def __init__(
        self, folder: str, remotes: Remotes, registries: Registries, parcels: Parcels, kept: Kept,
        woken: Callable[[str, Outcome | None], None], held: Callable[[], Collection[str] | None], wanted: Iterable[Entry],
    ) -> None:  # fmt: skip
        self.root = folder
        self.remotes = remotes
        self.parcels = parcels
        self.kept = kept
        self.images = Images(
            folder, registries, lambda name, failure: woken(name, _failed(failure) if failure else None)
        )
        self.held = held
        """Says which executions are not over; None when the keeper cannot be asked."""
        names = [str(address) for entry in wanted if (address := self._known(entry))]
        self.cache = Cache(
            folder, self.fetch, lambda name, failure: woken(name, _failed(failure) if failure else None), names
        )

    def _known(self, entry: Entry) -> Address | None:
        if isinstance(entry, str):
            return _read(entry)
        return self.parcels.address(entry) if "parcel" in entry else self.kept.address(entry)

    def stage(self, job: Job) -> Outcome:
        """Bring everything that it needs, or say why not."""
        cancel = Cancel()

        def stop() -> None:
            cancel.set()
            self.cache.leave(job.key)

        job.stop = stop
        if job.is_dropped or job.told is not None:
            cancel.set()  # it was given up before it could be stopped
        try:
            return self._stage(job, self.remotes.settings(cancel))
        except Coming as coming:
            return {"wait": coming.name}
        except (FetchError, OSError) as error:
            failed = _failed(error)
            return {**failed, "note": self.kept.in_words(self.parcels.at_home(failed["note"]))}
        except Gone as gone:
            note = f"{gone.name}: what had come of it to this worker was changed or deleted there; it is sent anew"
            return {"ok": False, "why": "stage_in", "error": "AgentFailed", "note": note}

    def _stage(self, job: Job, settings: Settings) -> Outcome:
        home = os.path.join(self.root, "stage", job.key)
        if os.path.exists(os.path.join(home, "ready")):
            return _ready(staged(self.root, job.key))
        if (found := _look_at_output(job.ask, settings)) is not None:
            return found
        os.makedirs(home, mode=0o700, exist_ok=True)
        image = self.images.present(job, settings) if job.ask.get("image") else None
        self._of(job, "resource", Resources, settings)
        self._of(job, "input", Sources, settings)
        if image is not None:
            image["mounts"] = sorted(
                {path for name in ("input", "resource") for path in led_to(os.path.join(home, name))}
            )
        with open(os.path.join(home, "ready.new"), "w", encoding="ascii") as file:
            json.dump(image, file)
        os.rename(os.path.join(home, "ready.new"), os.path.join(home, "ready"))
        return _ready(image)

    def _of(self, job: Job, name: str, kind: type[Sources], settings: Settings) -> None:
        entries: list[Entry] = job.ask.get(name) or []
        addresses = [_absolute(each) if isinstance(each, str) else self._place(each) for each in entries]
        if addresses:
            kind(self, os.path.join(self.root, "stage", job.key, name), addresses, job, settings).bring()

    def _place(self, entry: dict[str, Any]) -> Address:
        """Where it is on this machine, or can be had: an output that was kept here is not brought again."""
        if (kept := self.kept.address(entry)) is not None:
            return kept
        if "parcel" in entry:
            return self.parcels.place(entry)
        address = _absolute(entry["uri"])
        if address.is_local:  # of the submitting machine: a file of that name here would be another one
            raise Gone(entry["uri"])
        return address

    def fetch(self, address: Address, folder: str, settings: Settings, job: Job) -> None:
        """Into a folder, with room made for it."""
        told = replace(settings, report=report(job, str(address)))

        def action(roomy: Settings) -> None:
            _clear(address, folder)
            get(address, f"{folder}/", settings=roomy)

        with_room(self.root, self._give_way, self._could_give, action, told)
        _drop_ours(folder)

    def make_room(self, wanted_bytes: int) -> None:
        """For so many bytes that the driver sends; NoSpace when they cannot be had, and then nothing goes."""
        wanted = wanted_bytes + reserve_bytes(self.root)
        if free_bytes(self.root) >= wanted:
            return
        if free_bytes(self.root) + self._could_give() >= wanted:
            make_room(self.root, self._give_way, wanted)
        if free_bytes(self.root) < wanted:
            raise NoSpace(
                f"The disk of this worker has no room for {wanted_bytes} bytes more, and nothing that it keeps can give way: "
                "the rest is in use.", phase="get",
            )  # fmt: skip

    def clean(self) -> None:
        """Throw away all that nobody uses or waits for: resources, files that were sent, outputs, work folders of ended executions."""
        while self._give_way():
            empty_trash(self.root)
        empty_trash(self.root)

    def _give_way(self) -> bool:
        if self.cache.evict():  # these can be had again without the submitting machine
            return True
        held = self.held()
        return held is not None and (self.kept.evict(held) or self.parcels.evict(held) or trim(self.root, held))

    def _could_give(self) -> int:
        held = self.held()
        kept = 0
        if held is not None:
            kept = kept_bytes(self.root, held) + self.parcels.spare_bytes(held) + self.kept.spare_bytes(held)
        return self.cache.spare_bytes() + kept

    def is_coming(self, resource: str) -> bool:
        """Whether some thread is bringing that resource now."""
        return resource in self.cache.coming or resource in self.images.coming

    def leave(self, job: Job) -> None:
        """It waits no more for the resource that another one brings."""
        self.cache.leave(job.key)

    def changed(self, key: str) -> list[tuple[str, str]]:
        """What an execution that is over has changed of what is not its own: whom to tell, and a sentence."""
        said = []
        for identity in _used(self.root, key):
            found = self.cache.changed(identity)
            if found is None:
                continue
            version, rel = found
            self.cache.drop(version)
            users = [
                each for each in os.listdir(os.path.join(self.root, "stage")) if identity in _used(self.root, each)
            ]
            text = (
                f"{version.shown}: its file {rel} was changed while this task had it, by this task or by another one that ran "
                "at the same time. Resources are shared and may not be changed: copy to $TEMP what has to be. This one "
                "was dropped from the worker's cache; who needs it next gets it anew."
            )  # fmt: skip
            said += [(each, text) for each in users]
        for shown, path in changed_in_place(os.path.join(self.root, "stage", key, "linked")):
            if self.kept.is_ours(path):
                if not self.kept.mend(path):
                    text = f"{self.kept.in_words(path)}: was changed while this task had it, by this task or by another one."
                    said.append(
                        (
                            key,
                            f"{text} It is the output of one task and the input of others: copy to $TEMP what has to be.",
                        )
                    )
                continue
            if self.parcels.is_ours(path):
                if not self.parcels.mend(path):
                    said.append((key, self.parcels.at_home(_CHANGED.format(shown=shown))))
                continue
            text = (
                f"{shown}: {path} was changed while this task had it as a resource, by this task or by somebody else. It is linked, "
                "not copied, so the file itself is changed now. Copy to $TEMP what has to be changed."
            )
            said.append((key, text))
        return said

    def remove(self, key: str) -> None:
        """Take away all that was staged for an execution that is over; with its links, resources may go as well.

        Its container first, if it has one: the folder says that there may be one, also to the next agent. What one that did
        not end well was given stays in the folder it leaves, for who looks there (`sandbox`), until room is needed.
        """
        if (image := staged(self.root, key)) is not None:
            remove_container(image, name_of(root.identity(self.root), key))
        self.parcels.over(key)
        with contextlib.suppress(OSError):
            os.rename(os.path.join(self.root, "stage", key, "ready"), os.path.join(self.root, "exec", key, "image"))
        to_trash(self.root, os.path.join(self.root, "stage", key))
        empty_trash(self.root)


def _ready(image: Outcome | None) -> Outcome:
    return {"ok": True} if image is None else {"ok": True, "image": image}


def led_to(folder: str) -> Iterator[str]:
    """Where the links in a folder lead to: a container has to see that, too."""
    for top, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = os.path.join(top, name)
            if os.path.islink(path):
                yield os.path.realpath(path)


def _look_at_output(ask: dict[str, Any], settings: Settings) -> Outcome | None:
    """Before anything is brought or run: is all of it there already, and may it be put there at all?"""
    if ask.get("output") is None:
        return None
    if ask.get("skip") and (files := publish.find_complete(ask, settings)) is not None:
        return {"ok": True, "exists": True, "to": ask["output"], "files": files}
    if not ask.get("overwrite"):
        publish.check_target(ask, ask["id"], settings)
    return None


class Sources:
    """The sources of one folder of a task: its inputs, which are its own."""

    may_replace = False
    """Whether a later one takes the place of an earlier one of the same name."""

    def __init__(self, site: Site, folder: str, addresses: list[Address], job: Job, settings: Settings) -> None:
        self.site, self.folder, self.addresses = site, folder, addresses
        self.job, self.settings = job, settings
        self.owners: dict[str, Address] = {}
        """What each name came from, relative to the folder."""

    def bring(self) -> None:
        """Each by itself, then all of them joined in the folder. Two that would write the same file are refused."""
        if not self.may_replace:
            check_names(self.addresses)
        for number, address in enumerate(self.addresses):
            part, done = (f"{self.folder}.{kind}/{number}" for kind in ("part", "done"))
            if not os.path.isdir(done):
                self._one(address, part)
                os.makedirs(os.path.dirname(done), mode=0o700, exist_ok=True)
                os.rename(part, done)
            join(done, "", address, self.owners, self.may_replace)
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        for number in range(len(self.addresses)):
            move(f"{self.folder}.done/{number}", self.folder)
        for kind in ("part", "done"):
            with contextlib.suppress(FileNotFoundError):
                remove(f"{self.folder}.{kind}")

    def _one(self, address: Address, part: str) -> None:
        self.settings.cancel.check(address.shown, "get")
        if can_be_linked(address):
            remove(part)
            os.makedirs(part, mode=0o700)
            self._linked(address, bring_links(address, part, self.settings))
        else:
            self._bring(address, part)

    def _linked(self, address: Address, paths: list[str]) -> None:
        """These files of this machine are what it is given; inputs it may do with as it likes. Those that were sent here, or
        that another task left here, are shared, though: how they are now is written down, and compared when it is over."""
        if paths and (self.site.parcels.is_ours(paths[0]) or self.site.kept.is_ours(paths[0])):
            remember(address, paths, os.path.join(os.path.dirname(self.folder), "linked"))

    def _bring(self, address: Address, part: str) -> None:
        os.makedirs(part, mode=0o700, exist_ok=True)
        self.site.fetch(address, part, self.settings, self.job)


class Resources(Sources):
    """Its resources, which it shares with others; where two have a file of one name, the later one's is seen."""

    may_replace = True

    def _linked(self, address: Address, paths: list[str]) -> None:
        """Others use them, too: how they are now is written down, and compared when it is over."""
        remember(address, paths, os.path.join(os.path.dirname(self.folder), "linked"))

    def _bring(self, address: Address, part: str) -> None:
        remove(part)
        os.makedirs(part, mode=0o700)
        record = os.path.join(os.path.dirname(self.folder), "used")

        def used(identity: str) -> None:
            with open(record, "a", encoding="ascii") as file:
                file.write(f"{identity}\n")

        self.site.cache.link(address, part, self.job, self.settings, used)


def _used(root: str, key: str) -> list[str]:
    """The versions of resources that an execution has links to."""
    with contextlib.suppress(OSError), open(os.path.join(root, "stage", key, "used"), encoding="ascii") as file:
        return file.read().split()
    return []


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


def _clear(address: Address, folder: str) -> None:
    """Before it is brought, perhaps for the second time: files half received stay, and are gone on with.

    Of what actions made, nothing can be gone on with; all of it may be there, when a kill came just before it was noted.
    """
    if address.actions:
        for name in os.listdir(folder):
            remove(os.path.join(folder, name))


def _drop_ours(folder: str) -> None:
    """The record that we keep beside outputs is none of them."""
    for place, _, names in os.walk(folder):
        for name in names:
            if name == manifest.NAME or is_temporary(name):
                os.unlink(os.path.join(place, name))


def _read(text: str) -> Address | None:
    try:
        return parse(text)
    except FetchError:
        return None


def _absolute(text: str) -> Address:
    address = parse(text)
    if address.is_local and not address.path.startswith("/"):
        raise BadURI(f"{text}: a path that a worker is given must be absolute.", uri=text, phase="parse")
    return address


def _failed(error: FetchError | OSError) -> Outcome:
    typed = error if isinstance(error, FetchError) else of_os_error(error, str(error.filename or "its data"), "get")
    return {
        "ok": False,
        "why": "stage_in",
        "error": type(typed).__name__,
        "note": str(typed),
        **getattr(typed, "more", {}),
    }
