"""Hosts that are far away as far as an engine can tell: agents in folders of their own, reached by a route that can be cut."""

from __future__ import annotations

import contextlib
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scitq.errors import LinkBroken, WorkerFailed
from scitq.remote import local
from scitq.remote.link import Stream
from scitq.routes import Tell
from scitq.worker import WorkerRow


class Host:
    """A machine far away. `cut` breaks every connection and lets nobody in, until `mend`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_cut = False
        self.refusal: str | None = None
        self.program: str | None = None  # its rclone
        self.logins = 0
        self.gate = threading.Lock()
        self.streams: list[Stream] = []

    def cut(self) -> None:
        with self.gate:
            self.is_cut = True
            for stream in self.streams:
                with contextlib.suppress(OSError):  # closed long ago
                    stream._sock.shutdown(socket.SHUT_RDWR)
            self.streams.clear()

    def mend(self) -> None:
        self.is_cut = False

    def stop(self) -> None:
        if self.folder.is_dir():
            local.stop(self.folder)


class FarRoute:
    """The way to a host. `tell` hears of its steps."""

    how = "socket"

    def __init__(self, host: Host, tell: Tell) -> None:
        self._host, self._tell = host, tell

    def ensure(self) -> None:
        self._host.logins += 1
        with self._inside():
            if self._host.refusal is not None:
                raise WorkerFailed(self._host.refusal)
            self._tell("connect", 0.01, "connect")
            local.ensure(self._host.folder, linger=30)
            self._tell("agent", 0.01, "agent started")

    def stream(self) -> Stream:
        with self._inside():
            stream = Stream.to_socket(self._host.folder)
            self._host.streams.append(stream)
            return stream

    def rclone(self, here: str) -> str:
        return self._host.program or here

    def remove(self) -> None:
        with self._inside():
            if self._host.folder.is_dir():
                local.stop(self._host.folder)
                shutil.rmtree(self._host.folder, ignore_errors=True)

    @contextlib.contextmanager
    def _inside(self) -> Iterator[None]:
        """Nothing is half done on a host when it is cut off."""
        with self._host.gate:
            if self._host.is_cut:
                raise LinkBroken(f"{self._host.folder.name}: no route to host.")
            yield

    def close(self) -> None:
        pass


class World:
    """The hosts that an engine of this process can reach, by name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.hosts: dict[str, Host] = {}

    def host(self, name: str) -> Host:
        return self.hosts.setdefault(name, Host(self._folder / name))

    def route(self, row: WorkerRow, root: str, key: str, side: Path, tell: Tell, installs: Any = None) -> FarRoute:
        assert row.address is not None and root.endswith(f"/{row.name}") and len(key) == 64
        return FarRoute(self.host(row.address), tell)

    def end(self) -> None:
        for host in self.hosts.values():
            host.cut()  # whoever drives still would start them again
            host.stop()
