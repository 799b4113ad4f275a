"""Which workers change batches, which machines are rented, and which are let go: what follows from recruiters.

Pure: takes the work there is, the workers, what is sold, what is left of quotas and of money, and a time; returns what is to be
done, and when to look again. Reading all that, and writing down what is decided, is `hiring`. Who serves a batch as things are is
`recruiting`; which offer is better than another is `ranking`; how much may be spent is `money`.

A recruiter wants a worker for every so many tasks that run, could run, or will soon; workers that there are count first, whichever
recruiter got them, so nothing is wanted twice. What is left is got from workers that have something to spare, then from those that
were told to go and have not gone, then rented, one machine at a time, each of them counted before the next.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from scitq.appraising import draws, slots_of, takes
from scitq.backlog import Backlog, Kind, by_offer, by_worker, capacity_of
from scitq.idleness import end_of
from scitq.offers import Offer
from scitq.placement import admits, could_ever
from scitq.protofilter import suits
from scitq.ranking import Ranking
from scitq.recruiting import PRESENT, machine
from scitq.roster import (
    ASKING,
    BOOT_S,
    Action,
    Decision,
    Demand,
    Deploy,
    Destroy,
    Drain,
    Idle,
    Move,
    Resume,
    Short,
    Staff,
    World,
)
from scitq.shortage import both, shortage
from scitq.states import WorkerState
from scitq.worker import Recruiter, WorkerId

# A recruiter, or a workflow, of which nothing is said has so many rented machines at most at once.
MOST_RENTED = 10
# One that will be needed within its boot time and so much more is kept: until it is gone and another one there takes longer.
MARGIN_S = 60.0
# One that could not be made a worker, or has not been heard of (awake time), is let go after so long.
FAILED_MS = 600_000
LOST_MS = 900_000
# So many more offers are handed on with the best one, in case that it is refused.
OTHERS = 20


def decide(world: World) -> Decision:
    """What follows from recruiters now."""
    return _Pass(world).decide()


def recycle(demands: Iterable[Demand], staff: Iterable[Staff], pending: Mapping[int, int]) -> list[Move]:
    """Only which workers change to which batch: a part of `decide`, for the moment at which tasks are given to workers."""
    found = _Pass(World(0, list(demands), list(staff), pending))
    found.take_stock()
    found.recycle()
    return [action for action in found.actions if isinstance(action, Move)]


# --- deciding -------------------------------------------------------------------------------------------------------------------


class _Pass:
    """One look at the world. What is decided changes what the rest of it sees."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.actions: list[Action] = []
        self._due: list[int] = []
        keep_s = max((each.boot_s for each in world.staff if each.rental is not None), default=BOOT_S) + MARGIN_S
        self.batches = [Backlog(demand, keep_s) for demand in sorted(world.demands, key=lambda demand: demand.batch)]
        self.staff = {each.row.id: each for each in world.staff}
        self._silent = [each for each in world.staff if each.row.state is WorkerState.UNREACHABLE and not each.is_lost]
        self._going = [each for each in world.staff if each.row.state is WorkerState.DRAINING and each.is_ours]
        self._needed: set[WorkerId] = set()
        self._left, self._allowance = dict(world.left), world.allowance
        self._bought: dict[tuple[str, str, str, str], int] = {}
        self._spent: dict[tuple[int, int], str | None] = {}
        # How many machines each recruiter and each workflow has rented.
        self._by_rule: dict[tuple[int, int], int] = {}
        self._by_workflow: dict[int, int] = {}
        for each in world.staff:
            self._count(each, each.row.batch_id, 1)

    def _count(self, each: Staff, batch: int | None, sign: int) -> None:
        """A worker serves a batch (or none any more): as long as it is one of those for which it was rented, it counts there."""
        rental = each.rental
        if rental is None or not each.is_rented or rental.batch is None or batch is None:
            return
        if each.row.state is WorkerState.EVICTED:
            return  # its provider takes it back: another one may be rented before it has gone
        if batch == rental.batch:
            self._count_rented(rental.batch, rental.rank or 0, sign)
        elif (workflow := self.world.workflow_of.get(batch)) == self.world.workflow_of.get(rental.batch):
            self._count_workflow(workflow, sign)

    def _count_rented(self, batch: int, rank: int, sign: int = 1) -> None:
        self._by_rule[batch, rank] = self._by_rule.get((batch, rank), 0) + sign
        self._count_workflow(self.world.workflow_of.get(batch), sign)

    def _count_workflow(self, workflow: int | None, sign: int) -> None:
        if workflow is not None:
            self._by_workflow[workflow] = self._by_workflow.get(workflow, 0) + sign

    def decide(self) -> Decision:
        self.take_stock()
        self.recycle()
        for batch in self.batches:
            self._wait_for_silent(batch)
            self._resume(batch)
            self._rent(batch)
        self._let_go()
        if (due := self._allowance.due_ms()) is not None:
            self._due.append(due)
        return Decision(self.actions, min(self._due, default=None))

    # --- those that are there ---------------------------------------------------------------------------------------------

    def take_stock(self) -> None:
        """Count who serves each batch; those that work first, so that those that do not may be found superfluous."""
        for batch in self.batches:
            if not batch.left:
                continue
            service = batch.demand.service
            serving = [each for id in service.serving if (each := self.staff.get(id)) is not None and not each.is_lost]
            serving.sort(
                key=lambda each: (not each.held, each.rental is not None, each.idle_ms is not None, each.row.id)
            )
            for each in serving:
                self._serve(batch, each)

    def _serve(self, batch: Backlog, each: Staff) -> bool:
        """Count one for a batch of which it has some already; whether it is there for more."""
        service = batch.demand.service
        terms = service.terms.get(each.row.id)
        if terms is None or not batch.left:
            return False
        rule = batch.demand.recruiters[terms.ranks[0]]
        if not batch.serve(by_worker(rule, each), service.held.get(each.row.id, 0)):
            return False
        self._needed.add(each.row.id)
        return True

    def _wait_for_silent(self, batch: Backlog) -> None:
        """Those that were silent for a short while count for renting: what they have is theirs still."""
        for each in self._silent:
            if each.row.batch_id == batch.demand.batch or batch.demand.service.held.get(each.row.id):
                self._serve(batch, each)

    def recycle(self) -> None:
        """Workers whose batch has nothing pending go where they are wanted; those that will be soon are kept."""
        pending = self.world.pending
        free = [
            each for each in self.world.staff
            if each.row.state in PRESENT and not each.row.settings.get("keep_batch") and each.row.batch_id is not None
            and not pending.get(each.row.batch_id) and each.row.id not in self._needed
            and not (each.is_rented and self._is_spent(each))
        ]  # fmt: skip
        # The idlest first, those that are only on their way last: they are counted on, and change when they are there.
        free.sort(key=lambda each: (not _is_ready(each), -each.spare / max(1, each.row.concurrency), each.row.id))
        machines = {}
        for batch in self.batches:
            demand = batch.demand
            for number, rule in enumerate(demand.recruiters):
                if demand.ready < (rule.minimum_tasks or 0):
                    continue
                for each in list(free):
                    if not batch.left:
                        break
                    if each.row.batch_id == demand.batch or (each.spare <= 0 and _is_ready(each) and batch.ready):
                        continue  # what is full will be free when what it has ends, which may be what others wait for
                    if each.row.id not in machines:
                        machines[each.row.id] = machine(each.row)
                    if not suits(rule.flavor, machines[each.row.id]):
                        continue
                    if not admits(batch.limits, batch.present, (number,)):
                        break
                    before = batch.ready
                    if not batch.serve(by_worker(rule, each)):
                        continue
                    kind = machines[each.row.id]
                    batch.present.append(
                        tuple(n for n, other in enumerate(demand.recruiters) if suits(other.flavor, kind))
                    )
                    free.remove(each)
                    self._needed.add(each.row.id)
                    if batch.ready < before and _is_ready(each):
                        self._count(each, each.row.batch_id, -1)
                        self._count(each, demand.batch, 1)
                        self.actions.append(Move(each.row.id, demand.batch, rule.rank, rule))
        for each in free:
            if (
                _is_ready(each)
                and each.spare > 0
                and each.home is not None
                and each.home != each.row.batch_id
                and pending.get(each.home)
            ):
                self._needed.add(each.row.id)
                self._count(each, each.row.batch_id, -1)
                self._count(each, each.home, 1)
                self.actions.append(Move(each.row.id, each.home, None))

    def _resume(self, batch: Backlog) -> None:
        """What was told to go and has not gone comes back before anything is rented."""
        for each in self.world.staff:
            if (
                each.row.state is not WorkerState.DRAINING
                or not each.is_ours
                or each.row.batch_id != batch.demand.batch
            ):
                continue
            if not self._is_spent(each) and self._serve(batch, each):
                self.actions.append(Resume(each.row.id))

    # --- renting ----------------------------------------------------------------------------------------------------------

    def _rent(self, batch: Backlog) -> None:
        demand = batch.demand
        shorts = []
        for number, rule in enumerate(demand.recruiters):
            if not batch.wanted:
                return
            if rule.provider is None or rule.concurrency == 0:
                continue
            if demand.ready < (rule.minimum_tasks or 0) or demand.waited_s < rule.patience_s:
                if demand.ready:
                    shorts.append(self._waits(demand, rule, batch.wanted))
                continue
            if self._is_done_sooner(batch, rule):
                return
            if (short := self._rent_by(batch, number, rule)) is not None:
                shorts.append(short)
        if batch.wanted and shorts:
            self.actions.append(shorts[0] if len(shorts) == 1 else both(shorts, batch.wanted))

    def _waits(self, demand: Demand, rule: Recruiter, wanted: int) -> Short:
        if demand.ready < (rule.minimum_tasks or 0):
            why = f"its recruiter rents from {rule.minimum_tasks} tasks on, and there are {demand.ready}"
            return Short(demand.batch, rule.rank, wanted, why, kind="patience")
        left_s = rule.patience_s - demand.waited_s
        self._due.append(self.world.now_ms + int(1000 * left_s) + 1)
        why = f"its recruiter is patient: it rents in {max(1, round(left_s))} s, if no worker is free by then"
        return Short(demand.batch, rule.rank, wanted, why, kind="patience")

    def _is_done_sooner(self, batch: Backlog, rule: Recruiter) -> bool:
        """Whether those that are there will have done all of it before another one could begin."""
        demand = batch.demand
        if demand.mean_s is None or rule.tasks_per_worker is not None:
            return False
        service, todo, slots = demand.service, demand.ready, 0
        for id in service.serving:
            each = self.staff.get(id)
            if each is None or each.row.state is not WorkerState.READY or id not in service.terms or each.is_lost:
                continue
            own = demand.recruiters[service.terms[id].ranks[0]]
            counts = [by_worker(own, each, rounds=1)(kind.need) for kind in batch.kinds if kind.left]
            if not all(counts):
                return False  # some of it can never run there
            slots += min(counts, default=0)
            todo += service.held.get(id, 0)
        return slots > 0 and todo * demand.mean_s / slots <= BOOT_S

    def _rent_by(self, batch: Backlog, number: int, rule: Recruiter) -> Short | None:
        """Rent by one recruiter what is wanted still; returns why it could not get all of it."""
        demand = batch.demand
        most = rule.maximum_workers
        if most is None:
            most = self.world.workflows.get(demand.workflow or 0, MOST_RENTED)
        ranking: Ranking | None = None
        refused: dict[int, str] = {}
        for kind in batch.kinds:
            place = 0
            while kind.ready + kind.near:
                if (why := self._is_full(batch, number, rule, most)) is not None:
                    return Short(demand.batch, rule.rank, batch.wanted, why, "limit")
                if ranking is None:
                    ranking = self.world.offers(demand, rule)
                while place < len(ranking.ranked) and (
                    place in refused or self._refusal(ranking.ranked[place].offer, rule, kind, refused, place)
                ):
                    place += 1
                if place == len(ranking.ranked):
                    break
                offer = ranking.ranked[place].offer
                if not batch.serve(by_offer(rule, offer)):
                    refused[place] = "its recruiter leaves no slot of it"
                    continue
                self._take(batch, number, rule, offer)
                others = [one.offer for n, one in enumerate(ranking.ranked) if n != place and n not in refused]
                self.actions.append(Deploy(demand.batch, rule, offer, tuple(others[:OTHERS])))
        if ranking is None or not batch.wanted:
            return None
        short = Short(demand.batch, rule.rank, batch.wanted, shortage(rule, ranking, refused))
        return replace(short, kind="patience") if ASKING in ranking.notes else short

    def _is_full(self, batch: Backlog, number: int, rule: Recruiter, most: int) -> str | None:
        """Why a recruiter may not rent another one whatever is sold."""
        demand = batch.demand
        if demand.workflow is not None:
            allowed = self.world.workflows.get(demand.workflow, MOST_RENTED)
            if self._by_workflow.get(demand.workflow, 0) >= allowed:
                return f"its workflow may have {allowed} rented workers at once (max_workflow_workers)"
        if self._by_rule.get((demand.batch, rule.rank), 0) >= most:
            whose = "" if rule.maximum_workers is not None else ", as no other number was said"
            return (
                f"its recruiter rents {most} at most{whose}: scitq recruiter update {demand.name} --maximum-workers N"
            )
        if not admits(batch.limits, batch.present, (number,)):
            return f"its recruiter allows {rule.maximum_workers} workers at once"
        return None

    def _refusal(self, offer: Offer, rule: Recruiter, kind: Kind, refused: dict[int, str], place: int) -> bool:
        """Whether an offer does not do any more (noted for good: what is left only gets less), or not for these tasks."""
        why: str | None = None
        if offer.available is not None and self._bought.get(offer.key, 0) >= offer.available:
            why = "no more are available"
        elif rule.max_price is not None and (offer.price is None or offer.price > rule.max_price):
            why = "it is too dear"
        else:
            for key in draws(offer):
                if (left := self._left.get(key)) is not None and left.amount < takes(offer.flavor, left.unit):
                    why = f"the quota of {key[2]} in {offer.region} is used up"
        why = why or self._allowance.refusal(offer, rule.batch, rule.rank)
        if why is not None:
            refused[place] = why
            return True
        facts = self.world.found.get((offer.flavor.provider, offer.flavor.name))
        if facts is not None and kind.need is not None and not could_ever(kind.need, capacity_of(facts)):
            return True  # vendors round up
        return not slots_of(offer.flavor, rule.concurrency, (kind.need,))

    def _take(self, batch: Backlog, number: int, rule: Recruiter, offer: Offer) -> None:
        """Count a machine that is rented: for its recruiter, its workflow, quotas, stock and money."""
        batch.present.append((number,))
        self._count_rented(rule.batch, rule.rank)
        self._bought[offer.key] = self._bought.get(offer.key, 0) + 1
        for key in draws(offer):
            if (left := self._left.get(key)) is not None:
                self._left[key] = left._replace(amount=left.amount - takes(offer.flavor, left.unit))
        self._allowance = self._allowance.rented(offer, rule.batch, rule.rank)

    # --- letting go -------------------------------------------------------------------------------------------------------

    def _is_spent(self, each: Staff) -> str | None:
        """Why there is no more money for a rented worker, if that is so."""
        assert each.rental is not None
        key = (each.rental.batch or 0, each.rental.rank or 0)
        if key not in self._spent:
            self._spent[key] = self.world.allowance.reached(*key)
        return self._spent[key]

    def _let_go(self) -> None:
        for each in self.world.staff:
            if each.is_rented:
                self._look_at(each)

    def _look_at(self, each: Staff) -> None:
        """Decide about one rented worker."""
        row, state = each.row, each.row.state
        if state in (WorkerState.EVICTED, WorkerState.DELETING, WorkerState.GONE):
            return  # on their way out already
        if (spent := self._is_spent(each)) is not None:
            if not each.held:
                self.actions.append(Destroy(row.id, spent))
            elif state is not WorkerState.DRAINING:
                self.actions.append(Drain(row.id, spent))
        elif state is WorkerState.FAILED:
            self._after(each, (row.seen_ms or row.created_ms) + FAILED_MS, "it could not be made a worker")
        elif state is WorkerState.UNREACHABLE:
            if each.is_lost and row.silent_ms >= LOST_MS:
                self.actions.append(Destroy(row.id, "it has not been heard of for long, and others have its tasks"))
        elif state is WorkerState.PAUSED or each.held or row.id in self._needed:
            if each.idle_ms is not None:
                self.actions.append(Idle(row.id, None))
        elif state is WorkerState.DRAINING and each.is_ours:
            self.actions.append(Destroy(row.id, row.note or "it was told to go"))
        else:
            self._when_idle(each)

    def _when_idle(self, each: Staff) -> None:
        """Let one that nothing needs go once it has been so for long enough."""
        if each.idle_ms is None or each.idle_ms > self.world.now_ms:
            self.actions.append(Idle(each.row.id, self.world.now_ms))
            each_ms = self.world.now_ms
        else:
            each_ms = each.idle_ms
        self._after(each, end_of(each, each_ms, self.world.now_ms), "it has nothing to do")

    def _after(self, each: Staff, due_ms: int, why: str) -> None:
        if due_ms <= self.world.now_ms:
            self.actions.append(Destroy(each.row.id, why))
        else:
            self._due.append(due_ms)


def _is_ready(each: Staff) -> bool:
    return each.row.state is WorkerState.READY
