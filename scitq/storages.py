"""What agents must know of storages: the sections of the rclone configuration that their orders name, and nothing else.

They are secrets: read when they are needed, in a thread because rclone takes a moment, kept in memory only, said to the agent
over its own connection. An agent lets an order wait until it knows all remotes of it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from scitq.contact import Contact
from scitq.errors import ScitqError

log = logging.getLogger("scitq")

# When the configuration cannot be read, the next look comes after this long.
AGAIN_S = 15.0


class Storages:
    """The sections that one driver's agents were given. All methods are called by the driver's thread."""

    def __init__(
        self, *, later: Callable[[Callable[[], None]], None], say: Callable[[Contact, list[dict[str, Any]]], None],
        tell: Callable[[Contact, set[str], str], None],
    ) -> None:  # fmt: skip
        """`tell` writes a sentence down for the executions of a worker that wait for these remotes."""
        self._later, self._say, self._tell = later, say, tell
        self._wanted: list[tuple[Contact, object, set[str]]] = []
        self._is_busy = False
        self._trouble = ""
        """Why the configuration could not be read lately."""

    def want(self, contact: Contact, names: set[str]) -> None:
        """See that the agent knows these remotes as they are now."""
        from scitq.fetch import configuration

        stamp = configuration.stamp()
        missing = {name for name in names if contact.remotes.get(name) != stamp}
        if not missing:
            return
        contact.remotes.update(dict.fromkeys(missing, stamp))
        # Of this connection: when it is lost, the next one begins anew.
        self._wanted.append((contact, contact.commands, missing))
        self._begin()

    def _begin(self) -> None:
        if not self._is_busy:
            self._is_busy = True
            names = {name for _, _, missing in self._wanted for name in missing}
            threading.Thread(target=self._read, args=(names,), name="scitq-storages", daemon=True).start()

    def _read(self, names: set[str]) -> None:
        from scitq.fetch import configuration, rclonerun
        from scitq.fetch.settings import Settings

        try:
            found = configuration.sections(names)
            program = rclonerun.program(Settings())
        except (ScitqError, OSError, ValueError) as problem:
            log.warning(
                "The rclone configuration cannot be read, so what needs %s waits: %s", ", ".join(sorted(names)), problem
            )
            trouble = str(problem)
            self._later(lambda: self._is_in_trouble(trouble))
            timer = threading.Timer(AGAIN_S, self._later, [self._again])
            timer.daemon = True
            timer.start()
        else:
            self._later(lambda: self._have(names, found, program))

    def _bring(
        self, contact: Contact, stream: object, names: set[str], config: dict[str, dict[str, str]], program: str
    ) -> None:
        """In a thread of its own: the program may have to travel to that worker first."""
        try:
            there = contact.route.rclone(program)
        except ScitqError as problem:
            text = f"rclone could not be brought to the worker, and that is tried again: {problem}"
            log.warning("worker %s: %s", contact.worker, text)
            self._later(lambda: self._tell(contact, names, text))
            timer = threading.Timer(AGAIN_S, self._later, [lambda: self._bring_again(contact, stream, names)])
            timer.daemon = True
            timer.start()
        else:
            said = {"remotes": {"config": config, "rclone": there}}
            self._later(lambda: self._say(contact, [said]) if contact.commands is stream else None)

    def _bring_again(self, contact: Contact, stream: object, names: set[str]) -> None:
        if contact.commands is stream:
            self._wanted.append((contact, stream, names))
            self._begin()

    def _is_in_trouble(self, trouble: str) -> None:
        self._trouble = trouble
        for contact, _, missing in self._wanted:
            self._tell(contact, missing, f"the rclone configuration cannot be read, and is tried again: {trouble}")

    def _again(self) -> None:
        self._is_busy = False
        self._wanted = [one for one in self._wanted if one[0].commands is one[1]]
        if self._wanted:
            self._begin()

    def _have(self, names: set[str], found: dict[str, dict[str, str]], program: str) -> None:
        from scitq.fetch import configuration

        self._is_busy = False
        left: list[tuple[Contact, object, set[str]]] = []
        for contact, stream, missing in self._wanted:
            if contact.commands is not stream or stream is None:
                continue
            if not missing <= names:
                left.append((contact, stream, missing))
                continue
            # One that is gone from the configuration is told of, too: what needs it fails, with the reason, and waits no more.
            if self._trouble:
                self._tell(contact, missing, "the rclone configuration can be read again.")
            config = {**{name: {} for name in missing}, **configuration.closure(missing, found)}
            bring = (contact, stream, missing, config, program)
            threading.Thread(target=self._bring, args=bring, name="scitq-storages", daemon=True).start()
        self._trouble = ""
        self._wanted = left
        if left:
            self._begin()
