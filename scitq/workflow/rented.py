"""What a workflow would rent, told before it does: by step, how many machines, and which one comes first as things are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from scitq.appraising import slots_of
from scitq.errors import ScitqError
from scitq.staffing import MOST_RENTED
from scitq.store import listing
from scitq.task import Need
from scitq.workflow.given import Recruiting

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.ranking import Ranked
    from scitq.workflow.plan import Plan


def told(engine: Engine, steps: Mapping[str, tuple[int, Recruiting]], plan: Plan, most: int | None) -> list[str]:
    """A line for each step that may rent, and has something to run."""
    found = []
    for step, (_, wanted) in steps.items():
        items = [item for item in plan.items if item.step == step and item.runs]
        if not wanted.is_rented or not items or wanted.concurrency == 0:
            continue
        needs: list[Need | None] = []
        for item in items[:1000]:
            spec = None if item.declared is None else item.declared.spec
            need = None if spec is None else listing.spec_of(spec).need
            if need not in needs:
                needs.append(need)
        first, why = _first(engine, wanted, needs)
        limit = min(one for one in (wanted.maximum_workers, most or MOST_RENTED) if one is not None)
        if first is None:
            found.append(
                f"{step}: up to {limit} machines ({wanted.provider}, {wanted.flavor or 'any flavor'}), if there are any: {why}"
            )
            continue
        each = wanted.tasks_each or slots_of(first.offer.flavor, None, needs) * (wanted.rounds or 1)
        count = min(limit, -(-len(items) // max(1, each)))
        offer = first.offer
        price = (
            "at a price that is not known"
            if offer.price is None
            else f"{offer.price:.4g} {offer.currency} an hour each"
        )
        machines = "1 machine" if count == 1 else f"up to {count} machines"
        found.append(
            f"{step}: {machines} such as {offer.flavor.name} in {offer.region} ({offer.flavor.provider}), {price}, less what other "
            "workers do"
        )
    if len(found) > 1:
        found.append(
            f"No more than {most or MOST_RENTED} rented machines at once for all steps together (max_workflow_workers)."
        )
    return found


def _first(engine: Engine, wanted: Recruiting, needs: list[Need | None]) -> tuple[Ranked | None, str]:
    """The offer that would be tried first, as it was last read."""
    try:
        ranking = engine.flavors(
            wanted.flavor, provider=wanted.provider, region=wanted.region, market=wanted.market, max_price=wanted.max_price,
            concurrency=wanted.concurrency, needs=needs,
        )  # fmt: skip
    except ScitqError as problem:
        return None, str(problem)
    if ranking.ranked:
        return ranking.ranked[0], ""
    if ranking.excluded:
        return None, f"none of {len(ranking.excluded)} offers meets it now (scitq flavor list --excluded)"
    return None, "nobody has been asked yet what is sold (scitq flavor refresh)"
