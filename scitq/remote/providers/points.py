"""The places at which a process may die while it deals with a provider: four for each call, in one list that tests go through.

    row      before what is about to be asked is written down
    call     before the provider is called
    answer   after the call
    stored   before what it answered is written down

A call of a provider that changes something, or on whose answer something is decided, is made inside of `crossing`. A guarded
provider (`guard`) refuses to be called otherwise, so that none can be added that the tests do not kill.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from scitq.remote.providers.base import Provider

PLACES = ("row", "call", "answer", "stored")
# Calls of the protocol that deploying, destroying and looking after machines make.
CALLS = ("image", "create", "get", "find", "instances", "delete", "sweep", "delete_leftover")
# Besides, every transaction about machines is one: before (`call`) and after it (`answer`).
WRITE = "write"
# Those that only tell what is sold, or whether the provider can be used: nothing hangs on them.
FREE = ("check", "regions", "offers", "quotas", "allow_from", "close", "name", "kind", "caps")
# For tests: `create/answer:2` kills this process the second time that it comes there, `*:17` at the seventeenth place, whichever.
KILL = "SCITQ_KILL_AT"
# For tests: a file to which every place is added that a process comes to.
TRACE = "SCITQ_KILL_TRACE"

_inside = threading.local()
_counts: dict[str, int] = {}


def reach(call: str, place: str) -> None:
    """This process is at one of the places."""
    assert (call in CALLS or call == WRITE) and place in PLACES, f"{call}/{place} is not in the list of points"
    if KILL in os.environ or TRACE in os.environ:
        _tested(f"{call}/{place}")


def _tested(here: str) -> None:
    if trace := os.environ.get(TRACE):
        with open(trace, "a", encoding="ascii") as file:
            file.write(f"{here}\n")
    at, _, number = os.environ.get(KILL, "").partition(":")
    if at in (here, "*"):
        _counts[at] = _counts.get(at, 0) + 1
        if _counts[at] == int(number or 1):
            os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def crossing(call: str) -> Iterator[None]:
    """Around the call itself."""
    reach(call, "call")
    before, _inside.call = getattr(_inside, "call", None), call
    try:
        yield
    finally:
        _inside.call = before
        reach(call, "answer")


class Guarded:
    """A provider whose calls must be made inside of their crossing."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._provider, name)
        if name in FREE:
            return found
        if name not in CALLS:
            raise AttributeError(f"{name} is no call of providers that is known to scitq.remote.providers.points.")
        return _checked(name, found)


def _checked(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*values: Any, **more: Any) -> Any:
        if getattr(_inside, "call", None) != name:
            raise AssertionError(
                f"{name} of a provider was called outside of its crossing (scitq.remote.providers.points)."
            )
        return call(*values, **more)

    return checked


def guard(provider: Provider) -> Any:
    """A provider that can be called inside of crossings only."""
    return Guarded(provider)
