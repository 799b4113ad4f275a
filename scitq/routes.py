"""Which way leads to which worker. What a way is like is `remote.route`; the heavy ones are loaded when they are needed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scitq.errors import HostUnreachable, NotSupported
from scitq.remote.link import Stream
from scitq.remote.route import LocalRoute, Route
from scitq.states import JobState
from scitq.store import jobs, manifests, rentals, workers
from scitq.store.connection import Store
from scitq.worker import LOCAL, RENTED_KIND, SSH, WorkerRow

# What hears of the steps of making a host a worker: the step, the seconds it took, what came of it.
Tell = Callable[[str, float, str], None]


def route_to(row: WorkerRow, store: Store, linger_s: float, tell: Tell) -> Route:
    """The way to a worker of this file."""
    if row.kind == LOCAL:
        return LocalRoute(store.side / "local", linger_s)
    root, key = f"{manifests.file_id(store.reader())}/{row.name}", workers.key(store.reader())

    def make() -> Route:
        if row.kind == SSH:
            return ssh_route(row, root, key, store.side, tell, lambda: _installs(row, store))
        if row.kind == RENTED_KIND:
            return _rented_route(row, root, key, store, tell, linger_s)
        raise NotSupported(f"worker {row.name} is of a kind that this version does not know: {row.kind!r}.")

    return Lazy(make)


class Lazy:
    """A way that is looked for when somebody goes it, in his thread: what it takes may be heavy, or not there."""

    def __init__(self, make: Callable[[], Route]) -> None:
        self._make = make
        self._gate = threading.Lock()
        self._made: Route | None = None

    def _route(self) -> Route:
        with self._gate:
            if self._made is None:
                self._made = self._make()
            return self._made

    @property
    def how(self) -> str:
        """What its streams are made of."""
        return self._route().how

    @property
    def link(self) -> dict[str, Any]:
        """What may be kept of it for the next time."""
        found: dict[str, Any] = getattr(self._route(), "link", {})
        return {"how": self.how, **found}

    def ensure(self) -> None:
        """See that the agent runs."""
        self._route().ensure()

    def stream(self) -> Stream:
        """A new stream to the agent."""
        return self._route().stream()

    def rclone(self, here: str) -> str | None:
        """The rclone program for the agent."""
        return self._route().rclone(here)

    def remove(self) -> None:
        """End the agent, and take away everything of it."""
        self._route().remove()

    def close(self) -> None:
        """Let go of what all streams share."""
        if self._made is not None:
            self._made.close()


def _installs(row: WorkerRow, store: Store) -> bool:
    """Whether it is being prepared with the wish that what its host lacks be installed; asked in any thread."""
    with contextlib.closing(store.connect_reader()) as db:
        known = [job for job in jobs.of_worker(db, row.id) if job.kind == "prepare"]
    is_open = any(job.state in (JobState.PENDING, JobState.RUNNING) for job in known)
    return is_open and any(job.data.get("install") for job in known)


def ssh_route(
    row: WorkerRow, root: str, key: str, side: Path, tell: Tell, installs: Callable[[], bool] = lambda: False
) -> Route:
    """To the agent in the folder `root` below the host's base folder; `key` is what its token is made from."""
    from scitq.remote.ssh import SshRoute

    file_id, _, worker = root.rpartition("/")
    settings = row.settings
    return SshRoute(
        row.address or row.name, file_id=file_id, worker=worker, key=key, folder=settings.get("folder"),
        python=settings.get("python"), root=row.link.get("root"), note=lambda step: tell(step.name, step.seconds, step.text),
        installs=installs, rclone=_rclone,
    )  # fmt: skip


def _rented_route(row: WorkerRow, root: str, key: str, store: Store, tell: Tell, linger_s: float) -> Route:
    """To the agent on a rented machine, as its provider says how it is reached; asked in any thread."""
    with contextlib.closing(store.connect_reader()) as db:
        rental, file_id = rentals.of(db, row.id), manifests.file_id(db)
    said = rental.data.get("reach") if rental is not None else None
    if rental is None or not said:
        raise HostUnreachable(f"worker {row.name}: its machine does not run yet.", host=row.name)
    if said["how"] == "folder":
        return LocalRoute(Path(said["folder"]), linger_s)
    from scitq.remote.ssh import SshRoute
    from scitq.remote.sshconfig import Place, look_up

    ssh, place = store.side / "ssh", None
    name = rentals.machine_name(file_id, rental.code)
    where = (f"{said['user']}@" if said["user"] else "") + said["host"]
    where += f":{said['port']}" if said["port"] not in (0, 22) else ""
    if not rental.data.get("lent"):
        # Nothing of the user's own configuration is asked: the key and what is known of the host are this file's, under a name
        # that no other machine will ever have, whereas addresses are used again.
        place = Place(
            where, said["host"], said["user"], said["port"], keys=(ssh / "id_ed25519",), uses_agent=False, only_keys=True,
            known_hosts=(ssh / "known_hosts",), key_name=name, jumps=(look_up(said["jump"]),) if said.get("jump") else (),
        )  # fmt: skip
    below, _, worker = root.rpartition("/")
    folder = said.get("folder") or row.settings.get("folder")
    return SshRoute(
        where, file_id=below, worker=worker, key=key, folder=folder, python=row.settings.get("python"),
        root=row.link.get("root"), note=lambda step: tell(step.name, step.seconds, step.text), rclone=_rclone, place=place,
    )  # fmt: skip


def _rclone() -> str | None:
    """This machine's rclone."""
    from scitq.fetch import programs
    from scitq.fetch.errors import ToolMissing

    try:
        return programs.find("rclone", "")
    except ToolMissing:
        return None
