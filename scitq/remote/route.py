"""How a worker's agent is reached: started where it does not run, and any number of byte streams to it.

Everything above knows routes only, whether the agent is a neighbour on this machine or behind a wire.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from scitq.remote import local
from scitq.remote.link import Stream


class Route(Protocol):
    """The way to one worker. Its methods block, and may be called from several threads."""

    def ensure(self) -> None:
        """See that the agent runs.

        Raises:
            WorkerError: it cannot be reached or started; the text says why, and what to do.
        """

    def stream(self) -> Stream:
        """A new stream to the agent.

        Raises:
            LinkBroken: nobody answers.
        """

    @property
    def how(self) -> str:
        """What streams are made of: `socket`, or what SSH lets through."""

    def rclone(self, here: str) -> str | None:
        """The rclone program for the agent, a copy of this machine's where it has none; None: none for that machine is here.

        Raises:
            WorkerError: it could not be brought there.
        """

    def remove(self) -> None:
        """End the agent there, with its tasks, and take away everything of it.

        Raises:
            WorkerError: that could not be done.
        """

    def close(self) -> None:
        """Let go of what all streams share."""


class LocalRoute:
    """To the agent that lives in a folder of this machine. It ends when it has had nothing to do for `linger_s` seconds."""

    def __init__(self, folder: Path, linger_s: float) -> None:
        self._folder, self._linger_s = folder, linger_s

    def ensure(self) -> None:
        """Start it unless it runs."""
        local.ensure(self._folder, linger=self._linger_s)

    def stream(self) -> Stream:
        """Connect to its socket."""
        return Stream.to_socket(self._folder)

    def rclone(self, here: str) -> str:
        """This machine's."""
        return here

    @property
    def how(self) -> str:
        """Always its socket."""
        return "socket"

    def remove(self) -> None:
        """End it, and delete its folder."""
        if self._folder.is_dir():
            local.stop(self._folder)
            shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Nothing is shared."""
