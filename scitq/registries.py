"""What agents must know of registries of images: the user's login for those that their orders name, and nothing else.

Like `storages`: secrets are read when they are needed, in a thread because a credential helper may ask somebody, kept in memory
only, and said to the agent over its own connection. An agent lets an order wait until it was told of its registry.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from scitq.contact import Contact
from scitq.errors import RegistryError

log = logging.getLogger("scitq")

# When a login cannot be read, the next look comes after this long.
AGAIN_S = 15.0
# What helpers hand out may hold for hours only: after this long they are asked again.
FRESH_S = 600.0


def keys(image: str) -> dict[str, Any]:
    """The keys of an order that concern the registry of its image."""
    from scitq.container import take_apart
    from scitq.remote import logins

    registry = take_apart(image).registry
    try:
        is_told = logins.may_have(registry) or registry in logins.insecure()
    except RegistryError:
        is_told = True  # the thread that reads it says what is wrong
    return {"registry": registry, **({"login": True} if is_told else {})}


class Registries:
    """The registries that one driver's agents were told of. All methods are called by the driver's thread."""

    def __init__(
        self,
        *,
        later: Callable[[Callable[[], None]], None],
        say: Callable[[Contact, list[dict[str, Any]]], None],
        note: Callable[[set[int], str], None],
    ) -> None:
        self._later, self._say, self._note = later, say, note
        # Which executions wait for a registry's login since it could not be had.
        self._orders: dict[str, set[int]] = {}
        self._wanted: list[tuple[Contact, object, str]] = []
        self._is_busy = False

    def want(self, contact: Contact, commands: list[dict[str, Any]]) -> None:
        """See that the agent knows the logins, as they are now, for all that these orders pull."""
        registries = {command["registry"] for command in commands if command.get("login")}
        if not registries:
            return
        from scitq.remote import logins

        stamp, now = logins.stamp(), time.monotonic()
        told = {name for name, (known, at) in contact.registries.items() if known == stamp and now - at < FRESH_S}
        missing = sorted(registries - told)
        contact.registries.update(dict.fromkeys(missing, (stamp, now)))
        # Of this connection: when it is lost, the next one begins anew.
        self._wanted += [(contact, contact.commands, registry) for registry in missing]
        open_ones = {registry for _, _, registry in self._wanted}
        for command in commands:
            if command.get("login") and command["registry"] in open_ones:
                self._orders.setdefault(command["registry"], set()).add(command["order"])
        self._begin()

    def _begin(self) -> None:
        self._wanted = [one for one in self._wanted if one[0].commands is one[1] is not None]
        if self._wanted and not self._is_busy:
            self._is_busy = True
            registry = self._wanted[0][2]
            threading.Thread(target=self._read, args=(registry,), name="scitq-registries", daemon=True).start()

    def _read(self, registry: str) -> None:
        from scitq.remote import logins

        try:
            config = logins.for_agent(registry, logins.login_of(registry))
        except RegistryError as problem:
            text = f"the login for {registry} cannot be had, so it waits: {problem}"
            self._later(lambda: self._failed(registry, text))
            timer = threading.Timer(AGAIN_S, self._later, [self._again])
            timer.daemon = True
            timer.start()
        else:
            self._later(lambda: self._have(registry, {"config": config, "insecure": logins.insecure()}))

    def _failed(self, registry: str, text: str) -> None:
        log.warning("%s", text[0].upper() + text[1:])
        if waiting := self._orders.pop(registry, None):
            self._note(waiting, text)

    def _again(self) -> None:
        self._is_busy = False
        # The others first: one that cannot be had keeps nobody waiting for long.
        self._wanted = [*self._wanted[1:], *self._wanted[:1]]
        self._begin()

    def _have(self, registry: str, said: dict[str, Any]) -> None:
        self._is_busy = False
        for contact, stream, wanted in self._wanted:
            if wanted == registry and contact.commands is stream is not None:
                self._say(contact, [{"registries": said}])
        self._wanted = [one for one in self._wanted if one[2] != registry]
        self._orders.pop(registry, None)
        self._begin()
