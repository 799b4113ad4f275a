"""Simulated days: hundreds of machines, stock that changes, evictions, failures; see `simulated`."""

from __future__ import annotations

import os
from collections.abc import Callable
from random import Random

from tests.recruiting.simulated import Simulation

SEED = int(os.environ.get("SCITQ_SEED") or Random().randrange(2**32))
DAYS = int(os.environ.get("SCITQ_ROUNDS") or 20)


def test_simulated_days_keep_every_limit_and_end_without_machines(
    record_property: Callable[[str, object], None],
) -> None:
    rented = evicted = failed = peak = 0
    for number in range(DAYS):
        played = Simulation(SEED + number)
        try:
            played.play()
        except AssertionError as problem:
            problem.add_note(f"SCITQ_SEED={SEED + number} SCITQ_ROUNDS=1")
            raise
        rented, evicted, failed, peak = (
            rented + played.rented, evicted + played.evicted, failed + played.failed, max(peak, played.peak),
        )  # fmt: skip
    record_property("rounds", DAYS)
    print(
        f"{24 * DAYS} hours from SCITQ_SEED={SEED}: {rented} machines, {peak} at once, {evicted} evicted, {failed} failed"
    )
