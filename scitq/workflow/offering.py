"""What could be rented for the tasks of a plan: what is sold, and how long such tasks took before. Worked out by `estimates`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from scitq.staffing import MOST_RENTED
from scitq.store import costs
from scitq.store.workflows import batch_name
from scitq.workflow.estimates import Offered, lasting, offered
from scitq.workflow.given import Recruiting
from scitq.workflow.plan import Plan

if TYPE_CHECKING:
    from scitq.engine import Engine

# Providers are asked for what is too old, and waited for so long.
ASKING_S = 30.0
NOBODY = "nothing is rented for it: it has no provider"


def offers(engine: Engine, plan: Plan, steps: Mapping[str, tuple[int, Recruiting]], most: int | None) -> list[Offered]:
    """What could be rented, for each step of which something is to run. `most`: for all of them together."""
    wanted = [(row["step"], row["new"] + row["rerun"]) for row in plan.rows() if row["new"] + row["rerun"]]
    providers = {steps[step][1].provider for step, _ in wanted if step in steps and steps[step][1].is_rented}
    problems: list[str] = []
    if providers:
        one = next(iter(providers)) if len(providers) == 1 and "auto" not in providers else None
        problems = [
            f"{read.provider} cannot be asked: {read.problem}"
            for read in engine.flavor_refresh(one, timeout=ASKING_S, only_old=True) if read.problem
        ]  # fmt: skip
    found = []
    for step, tasks in wanted:
        recruiting = steps[step][1] if step in steps else Recruiting()
        known = lasting(costs.durations(engine._reader(), batch_name(plan.workflow, step)))
        if not recruiting.is_rented:
            found.append(Offered(step, tasks, known, why=NOBODY))
            continue
        needs = list(
            {item.declared.need: None for item in plan.items if item.step == step and item.runs and item.declared}
        )
        ranking = engine.flavors(
            recruiting.flavor, provider=recruiting.provider, region=recruiting.region, concurrency=recruiting.concurrency, needs=needs,
            market=recruiting.market, max_price=recruiting.max_price,
        )  # fmt: skip
        limits = [
            MOST_RENTED if most is None else most,
            *([] if recruiting.maximum_workers is None else [recruiting.maximum_workers]),
        ]
        why = "; ".join(problems)
        if not ranking.ranked and ranking.excluded:
            nearest = max(ranking.excluded, key=lambda each: each.far)
            why = f"no offer would do; the nearest, {nearest.offer.flavor.name}: {nearest.reason}"
        found.append(offered(step, tasks, known, ranking.ranked, most=min(limits), why=why))
    return found
