"""What recruiters may say, which workers serve a batch that has some, and how much of each.

Pure: takes rows, returns what is to be. A worker without a batch of its own is shared: it serves every batch of which a
recruiter's flavor suits it, and a recruiter's `concurrency` is a share of it. Which workers change from one batch to another,
and which are rented and let go, is `staffing`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from scitq import submission
from scitq.errors import BadInput
from scitq.money import limit_of
from scitq.offers import MARKETS, Offer
from scitq.placement import Service, Terms, admits
from scitq.protofilter import Machine, flavor_of, is_protofilter, machine_of, parse, suits, told, unmet
from scitq.states import WorkerState
from scitq.worker import LOCAL, Recruiter, WorkerId, WorkerRow

# The flavor of workers of which nothing else was said: this machine, and hosts that were added by hand.
OWN = LOCAL
# A worker counts while it is ready, or on its way: one that is gone, silent, or held back by the user serves nobody.
PRESENT = frozenset({WorkerState.WANTED, WorkerState.DEPLOYING, WorkerState.PREPARING, WorkerState.READY})
# The fields of a recruiter that may be given, beside its batch and rank.
COLUMNS = (
    "tasks_per_worker", "flavor", "provider", "region", "concurrency", "prefetch", "minimum_tasks", "maximum_workers",
)  # fmt: skip
# Those that are kept together (`settings`).
SETTINGS = ("rounds", "market", "max_price", "max_cost", "patience", "idle_timeout")
FIELDS = (*COLUMNS, *SETTINGS)


# --- rows -------------------------------------------------------------------------------------------------------------------------


def rank_of(value: Any) -> int:
    """The rank of a recruiter, checked."""
    rank = submission.whole("rank", value)
    if rank < 1:
        raise BadInput("rank must be 1 (tried first) or more, not 0.")
    return rank


def checked(given: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a recruiter, checked; None stays None.

    Raises:
        BadInput: there is no such field, or a value makes no sense.
    """
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in FIELDS:
            raise BadInput(f"a recruiter has no {name!r} (there are {', '.join(FIELDS)}).")
        if value is None:
            found[name] = None
        elif name == "flavor":
            found[name] = flavor_of(value)
        elif name in ("provider", "region"):
            found[name] = submission.name_of(name, value)
        elif name == "market":
            found[name] = _market(value)
        elif name == "max_cost":
            found[name] = str(limit_of(value))
        elif name in ("max_price", "patience", "idle_timeout"):
            found[name] = _amount(name, value)
        else:
            found[name] = submission.whole(name, value)
    for name in ("tasks_per_worker", "rounds"):
        if found.get(name) == 0:
            raise BadInput(f"{name} must be 1 or more, not 0.")
    return found


def _market(value: Any) -> str:
    if value not in (*MARKETS, "any"):
        raise BadInput(f"market must be {', '.join(MARKETS)} or any, not {value!r}.")
    return str(value)


def _amount(name: str, value: Any) -> float:
    """A number of seconds, or a price per hour."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e9:
        what = "a price per hour, such as 0.5" if name == "max_price" else "a number of seconds"
        raise BadInput(f"{name} must be {what}, not {value!r}.")
    return float(value)


# --- workers as machines ----------------------------------------------------------------------------------------------------------


def flavor(row: WorkerRow) -> str:
    """What a worker answers to as a flavor: what was said of it, or else that it is one's own."""
    return str(row.settings.get("flavor") or OWN)


def machine(row: WorkerRow) -> Machine:
    """A worker as protofilters see it. What was rented is what its offer said (settings `offer`: see `Offer.plain`); what is one's
    own costs nothing, and nobody takes it away."""
    if row.settings.get("offer"):
        return machine_of(Offer.of(row.settings["offer"]), row.name)
    named = flavor(row)
    flavors = (named, LOCAL) if row.kind == LOCAL and named != LOCAL else (named,)
    memory = [int(model.get("memory") or 0) for model in row.facts.get("gpu_models") or ()]
    return Machine(
        flavors=flavors, names=(*flavors, row.name), cpu=row.cpus or None, ram=row.memory or None, disk=_disk(row.measured),
        gpu=len(row.gpus) if row.facts else None, gpumem=max(memory, default=None),
        models=tuple(str(model.get("name")) for model in row.facts.get("gpu_models") or ()),
        tags=frozenset("G" if row.gpus else ""), region=row.settings.get("region"),
        provider=row.settings.get("provider") or row.kind, arch=row.facts.get("machine"), market="ondemand", cost=0.0, eviction=0.0,
    )  # fmt: skip


@lru_cache(maxsize=1024)
def _disk(measured: str | None) -> int | None:
    """How large the disk of a worker's folder is, as it was last told."""
    found = json.loads(measured or "{}").get("disk")
    return None if found is None else int(found)


def misfit(recruiter: Recruiter, row: WorkerRow) -> str | None:
    """Why a worker is not of a recruiter's flavor, in words; None when it is."""
    one, asked = machine(row), recruiter.flavor
    if suits(asked, one) or asked is None:
        return None
    if not is_protofilter(asked):
        return f"{row.name} is of flavor {flavor(row)}"
    missing = unmet(parse(asked), one)[0]
    return f"{row.name} does not meet {missing} (it has {told(missing.item, one)})"


# --- serving ----------------------------------------------------------------------------------------------------------------------


def terms(row: WorkerRow, recruiter: Recruiter, ranks: tuple[int, ...]) -> Terms:
    """What a batch gets of a worker. Its recruiter's concurrency is a share of the worker's slots: where they cannot be divided
    evenly, what is left over is for other batches."""
    share, slots = recruiter.concurrency, row.concurrency
    if share == 0:
        return Terms(1, 0, 0, ranks)
    if share is None or share >= slots:
        return Terms(1, None, recruiter.prefetch, ranks)
    return Terms(slots // share, share if slots % share else None, recruiter.prefetch, ranks)


def services(
    recruiters: Iterable[Recruiter], known: Iterable[WorkerRow], held: Mapping[int, Mapping[WorkerId, int]]
) -> dict[int, Service]:
    """Who serves each batch that has recruiters, and how. `held`: by batch, how many executions of it each worker has."""
    rules: dict[int, list[Recruiter]] = {}
    for rule in sorted(recruiters, key=lambda rule: (rule.batch, rule.rank)):
        rules.setdefault(rule.batch, []).append(rule)
    if not rules:
        return {}
    machines = [(row, machine(row)) for row in known]
    found = {}
    for batch, ranked in rules.items():
        its_own = held.get(batch, {})
        terms_of: dict[WorkerId, Terms] = {}
        serving = set()
        for row, one in machines:
            if row.batch_id not in (None, batch):
                continue
            ranks = tuple(number for number, rule in enumerate(ranked) if suits(rule.flavor, one))
            if not ranks and row.batch_id is None:
                continue
            ranks = ranks or (0,)  # the user sent it, whatever it is
            terms_of[row.id] = terms(row, ranked[ranks[0]], ranks)
            if row.state in PRESENT and (row.batch_id == batch or its_own.get(row.id)):
                serving.add(row.id)
        found[batch] = Service(terms_of, [rule.maximum_workers for rule in ranked], frozenset(serving), its_own)
    return found


def admitted(service: Service, workers: Iterable[WorkerId]) -> dict[WorkerId, Terms]:
    """The terms with those of some workers that serve a batch already, or may begin to beside one another."""
    able = [worker for worker in workers if worker in service.terms and service.terms[worker].most != 0]
    found = {worker: service.terms[worker] for worker in able if worker in service.serving}
    present = [service.terms[worker].ranks for worker in service.serving if worker in service.terms]
    for worker in able:
        ranks = service.terms[worker].ranks
        if worker not in found and admits(service.limits, present, ranks):
            present.append(ranks)
            found[worker] = service.terms[worker]
    return found
