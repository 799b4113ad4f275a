"""Which driver this agent believes: the highest number (epoch) that ever drove it, and the copy of the state file it drives from.

Numbers alone tell drivers of one file apart. Two copies of a file count on by themselves, so a copy says who it is, and from
which copies it descends: it takes over from those as of which it knows, and from another only when it says that it has heard
of it. Everything here is written down before it is believed.
"""

from __future__ import annotations

import json
import os
from typing import Any

from scitq.remote.agent.http import BadRequest, Request


class Refused(Exception):
    """This driver is not believed; `facts` say who is."""

    def __init__(self, note: str, facts: dict[str, Any]) -> None:
        super().__init__(note)
        self.facts = facts


class Fence:
    """The driver of one root folder."""

    def __init__(self, folder: str) -> None:
        self.path = os.path.join(folder, "driver")
        self.epoch = 0
        self.copy: str | None = None
        self.place: str | None = None
        try:
            with open(self.path, encoding="utf-8") as file:
                self.epoch, self.copy, self.place = _checked(json.load(file))
        except (OSError, ValueError, KeyError, TypeError):
            self.epoch = _epoch_of_old(folder)

    def facts(self) -> dict[str, Any]:
        """Who drives, for answers."""
        return {"epoch": self.epoch, "copy": self.copy, "place": self.place}

    def enter(self, said: dict[str, Any]) -> None:
        """A driver comes (`POST /drive`): epoch, copy, place (in words, for people), knows (the copies that it descends
        from, each with the highest epoch of it that it knows).

        Raises:
            Refused: another copy has driven since, which it does not know; or its number is too low.
            ValueError: it makes no sense.
        """
        try:
            epoch, copy, place = _checked(said)
            knows = {str(name): int(number) for name, number in dict(said.get("knows") or {}).items()}
        except (KeyError, TypeError) as error:
            raise ValueError(f"/drive needs epoch, copy, place and knows: {error}") from None
        if copy is None:
            raise ValueError("/drive needs a copy")
        is_own = self.copy is None or self.copy == copy
        if not is_own and knows.get(self.copy or "", -1) < self.epoch:
            raise Refused(f"another copy of the state file ({self.place}) has taken this worker over", self.facts())
        if epoch < self.epoch or (epoch == self.epoch and not is_own):
            raise Refused(f"epoch {epoch} is over: the driver of epoch {self.epoch} was here", self.facts())
        if (epoch, copy, place) != (self.epoch, self.copy, self.place):
            self._write(epoch, copy, place)

    def check(self, request: Request) -> None:
        """Refuse (409) what a driver says whose time is over. Who gives no number is no driver."""
        text = request.headers.get("scitq-epoch")
        if text is None:
            return
        if not (text.isascii() and text.isdigit() and len(text) < 19):
            raise BadRequest(400, "Scitq-Epoch must be a number")
        epoch, copy = int(text), request.headers.get("scitq-copy")
        if copy is not None and self.copy is not None and copy != self.copy:
            raise Conflict(f"another copy of the state file ({self.place}) has taken this worker over", self.facts())
        if epoch < self.epoch:
            note = f"epoch {epoch} is over: the driver of epoch {self.epoch} has taken this worker over"
            raise Conflict(note, self.facts())
        if epoch > self.epoch:
            self._write(epoch, self.copy, self.place)

    def _write(self, epoch: int, copy: str | None, place: str | None) -> None:
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump({"epoch": epoch, "copy": copy, "place": place}, file)
        os.rename(self.path + ".new", self.path)
        self.epoch, self.copy, self.place = epoch, copy, place


class Conflict(BadRequest):
    """409, with who drives."""

    def __init__(self, note: str, facts: dict[str, Any]) -> None:
        super().__init__(409, note)
        self.facts = facts


def _checked(said: dict[str, Any]) -> tuple[int, str | None, str | None]:
    epoch, copy, place = said["epoch"], said["copy"], said["place"]
    if type(epoch) is not int or epoch < 0:
        raise ValueError("epoch must be a number")
    for text in (copy, place):
        if text is not None and (type(text) is not str or not 0 < len(text) < 5000):
            raise ValueError("copy and place must be texts")
    if copy is not None and not (copy.isascii() and copy.isalnum()):
        raise ValueError("copy must be letters and digits")
    return epoch, copy, place


def _epoch_of_old(folder: str) -> int:
    """As agents wrote it that knew of numbers only."""
    try:
        with open(os.path.join(folder, "epoch"), encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return 0
