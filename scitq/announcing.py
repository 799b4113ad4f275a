"""Ends of batches and workflows, told once: looked for by whoever drives, told in a thread of its own, written down afterwards.

An end is told at least once: a driver that dies between telling and writing it down leaves it to the next one, who tells it
again. What is over within `notifications.min_duration` is not told. How it is told is `hooks`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from scitq import config
from scitq.errors import Closed, ScitqError, StaleDriver
from scitq.store import ends, notices
from scitq.store.connection import Store
from scitq.store.ends import Bout, End
from scitq.store.lease import Lease

if TYPE_CHECKING:
    import apsw

log = logging.getLogger("scitq")

# While work goes on it is looked so often at most, and for no more than this share of the time, whether something has ended.
LOOK_S = 1.0
SHARE = 0.02
# A workflow whose script still runs may get more tasks: it is over when nothing has come for so long.
GROWS_S = 30.0
# That there is work is written down once it has lasted so long.
HOLD_MS = 5000.0
# A driver that is to leave waits so long at most for programs of the user's.
LEAVE_S = 8.0


class Announcing:
    """One driver's word on what has ended. All methods are called by its thread, or say otherwise."""

    def __init__(self, store: Store, lease: Lease, wake: Callable[[], None]) -> None:
        self._store, self._lease, self._wake = store, lease, wake
        self._look_after = 0.0
        self._is_due = True
        # Since when there has been work that is not written down yet, and how long that takes: most tasks are over before.
        self._open: dict[tuple[ends.What, int], int] = {}
        self._hold_ms = HOLD_MS
        # Since when a workflow whose script runs has had nothing to do.
        self._quiet: dict[int, float] = {}
        self._telling: threading.Thread | None = None
        self._leave_at = float("inf")

    def see_to(self, now: float) -> None:
        """Look whether something has begun or ended, unless that was done a moment ago."""
        self._is_due = True
        if now >= self._look_after:
            self._look(now)

    def wait_s(self, now: float) -> float | None:
        """After how long it wants to be asked again, though nothing happens."""
        waits = [self._look_after - now] if self._is_due else []
        if self._open:
            waits.append(max((min(self._open.values()) + self._hold_ms - _now_ms()) / 1000, self._look_after - now))
        waits += [since + GROWS_S - now for since in self._quiet.values()]
        return max(LOOK_S / 100, min(waits)) if waits else None

    def finish(self) -> None:
        """This driver is to leave: tell what has ended until now."""
        self._leave_at = time.monotonic() + LEAVE_S
        if self._join():
            self._look(time.monotonic())
            self._join()

    def _join(self) -> bool:
        """Wait for what is being told, not for ever; whether it was."""
        thread = self._telling
        if thread is not None:
            thread.join(max(0.0, self._leave_at + 1.0 - time.monotonic()))
        return thread is None or not thread.is_alive()

    def _look(self, now: float) -> None:
        found = ends.bouts(self._store.reader())
        took_s = time.monotonic() - now
        self._look_after, self._is_due = now + max(LOOK_S, took_s / SHARE), False
        at = _now_ms()
        opened = {(one.what, one.id): one for one in found if one.is_open}
        self._open = {key: self._open.get(key, at) for key in opened}
        runs = {one.id for one in found if one.what == "workflow" and one.is_run and not one.is_open}
        self._quiet = {id: self._quiet.get(id, now) for id in runs}
        if not found:
            return
        least_ms = 1000 * float(config.load().get("notifications.min_duration"))
        self._hold_ms = min(HOLD_MS, least_ms)
        begun = {key: since for key, since in self._open.items() if at - since >= self._hold_ms}
        over = [one for one in found if not one.is_open and not self._may_grow(one, now)]
        short = [one for one in over if one.began_ms is not None and at - one.began_ms < least_ms]
        if begun or short:
            self._store.write(lambda db: self._write_down(db, begun, short), quiet=True)
            self._open = {key: since for key, since in self._open.items() if key not in begun}
        left = [one for one in over if one not in short]
        if left and self._telling is None:
            self._telling = threading.Thread(target=self._tell, args=(left,), name="scitq-tell", daemon=True)
            self._telling.start()

    def _may_grow(self, bout: Bout, now: float) -> bool:
        return bout.what == "workflow" and bout.is_run and now - self._quiet[bout.id] < GROWS_S

    def _write_down(self, db: apsw.Connection, begun: Mapping[tuple[ends.What, int], int], short: list[Bout]) -> None:
        self._lease.check(db)
        for (what, id), since in begun.items():
            ends.begin(db, since, what, id)
        ends.forget(db, short)

    # --- in a thread ------------------------------------------------------------------------------------------------------

    def _tell(self, over: list[Bout]) -> None:
        try:
            for bout in over:
                if (end := ends.end_of(self._store.reader(), bout)) is not None:
                    problems = self._told(end)
                    self._store.write(lambda db, b=bout, e=end, p=problems: self._note(db, b, e, p))  # type: ignore[misc]
        except (Closed, StaleDriver):
            pass  # whoever drives next tells it
        except ScitqError as problem:
            log.warning("the end of a batch could not be told or written down: %s", problem)
        except Exception:
            log.exception("the end of a batch could not be told")
        finally:
            self._telling = None
            self._wake()

    def _told(self, end: End) -> dict[str, str | None]:
        """Tell an end in every way that the settings name; what went wrong, by the key of the setting."""
        from scitq import hooks  # only where something has ended

        settings, now = config.load(), _now_ms()
        title, text = hooks.sentence(end, now)
        problems: dict[str, str | None] = {}
        # A step's end is the workflow's own matter: a person is told of the whole.
        if end.what == "workflow" or end.workflow is None:
            hooks.terminal(settings.get("notifications.terminal"), title, text)
            if settings.get("notifications.desktop"):
                problems["notifications.desktop"] = hooks.desktop(title, text)
        key = f"hooks.{end.what}_end"
        if words := settings.get(key):
            told = hooks.facts(end, self._store.path, now)
            problems[key] = hooks.run(
                words, told, self._store.path.parent, settings.get("hooks.timeout"), lambda: self._leave_at
            )
        return problems

    def _note(self, db: apsw.Connection, bout: Bout, end: End, problems: Mapping[str, str | None]) -> None:
        self._lease.check(db)
        now = _now_ms()
        ends.told(db, now, bout)
        for key, problem in problems.items():
            if problem is None:
                notices.take_back(db, key)
                continue
            who = "it " if key.startswith("hooks.") else ""
            text = f"{key}, at the end of {end.what} {end.name}: {who}{problem}"
            actions = [("look at it", ("config", "show")), ("change it", ("config", "edit"))]
            notices.post(db, now, key, "hook", text, about={end.what: end.name, "setting": key}, actions=actions)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
