"""Processes that rent and are killed: a life of one machine, as far as they come. Forked, since a start from nothing takes a second.

Reads a JSON object a line: `file`, `env`, and when to arm the kill (`phase`); answers with how that process ended.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Any

PATIENCE_S = 40.0


def live(order: dict[str, Any]) -> None:
    """Rent one machine unless that was done, wait until it runs, have it deleted, wait until it is gone."""
    from scitq.engine import Engine
    from scitq.offers import Offer, RentalState

    arm = order.get("kill")
    if arm and order["phase"] == "deploy":
        os.environ["SCITQ_KILL_AT"] = arm
    with Engine(Path(order["file"])) as engine:
        engine._drive()
        if not engine.rentals(every=True):
            engine.worker_rent([Offer.of(each) for each in order["offers"]])
        deadline = time.monotonic() + PATIENCE_S
        while True:
            [rental] = engine.rentals(every=True)
            jobs = {job.kind for job in engine.jobs(int(rental.worker))}
            if rental.state is RentalState.GONE and (not order.get("reap") or reaped(engine)):
                return
            if rental.state is RentalState.RUNNING and "destroy" not in jobs:
                if arm and order["phase"] == "destroy":
                    os.environ["SCITQ_KILL_AT"] = arm
                engine.worker_delete(engine.worker(int(rental.worker)).name, force=True)
            if time.monotonic() > deadline:
                raise AssertionError(f"stands still: {rental} {engine.jobs(int(rental.worker))} {engine.strays()}")
            time.sleep(0.002)


def reaped(engine: Any) -> bool:
    """Whether nothing is left at the providers."""
    found = engine.cloud_reap(timeout=PATIENCE_S).data.get("providers", {}).values()
    return all("problem" not in each and not (each["waiting"] or each["deleted"] or each["machines"]) for each in found)


def no_agents() -> None:
    """Machines are as good as unreachable: their agents are not what this is about."""
    import scitq.routes
    from scitq.errors import HostUnreachable

    def refuse(*_: object) -> Any:
        raise HostUnreachable("nobody is there", host="nowhere")

    vars(scitq.routes)["_rented_route"] = refuse


def main() -> None:
    """Until nothing more is asked."""
    import scitq.driver
    import scitq.engine
    import scitq.remote.providers.fake
    import scitq.remote.providers.userdata  # noqa: F401

    no_agents()
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.environ.update(order["env"])
                live(order)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
