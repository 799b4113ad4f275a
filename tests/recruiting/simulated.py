"""Days of a make-believe cloud and of work for it, played against `staffing.decide` with a clock that only jumps.

Steps of workflows arrive; each has tasks of one length, some of which wait for those of the step before. Machines are rented as the
rule says, boot, work, fail, are evicted, and are let go as it says. What must always hold is checked at each decision, against
what this world knows to be true: `Broken` says what did not.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

from scitq.appraising import Left, draws, takes
from scitq.money import Account, Allowance, Life, Limit, Scope, commitment, nanos
from scitq.offers import Flavor, Offer, Rental, RentalState
from scitq.placement import Service, Terms
from scitq.ranking import Ranked, Ranking
from scitq.roster import BOOT_S, Demand, Deploy, Destroy, Drain, Idle, Move, Resume, Short, Staff, Work, World
from scitq.staffing import MOST_RENTED, decide
from scitq.states import WorkerState
from scitq.worker import Recruiter, WorkerId, WorkerRow

MINUTE, HOUR = 60_000, 3_600_000
START = 10**12
QUOTA = "cores"
PRESENT = (WorkerState.WANTED, WorkerState.DEPLOYING, WorkerState.PREPARING, WorkerState.READY)


class Broken(AssertionError):
    """Something that must always hold does not."""


@dataclass
class Step:
    """Tasks of one batch: `ready` ones could run, `blocked` ones wait for so many tasks of the step before (each for one, or all
    for all)."""

    batch: int
    workflow: int
    rule: Recruiter
    run_ms: int
    ready: int
    blocked: int = 0
    after: Step | None = None
    is_gathering: bool = False
    running: int = 0
    limit: float | None = None
    children: list[Step] = field(default_factory=list)
    ends: dict[int, int] = field(default_factory=dict)
    """When how many of those that run end."""
    there: dict[WorkerId, Machine] = field(default_factory=dict)
    holding: dict[WorkerId, int] = field(default_factory=dict)

    @property
    def left(self) -> int:
        return self.ready + self.blocked + self.running

    @property
    def each(self) -> int:
        return self.rule.tasks_per_worker or (self.rule.concurrency or 1) * self.rule.rounds


@dataclass
class Machine:
    """One rented worker: what the file would have of it, and what is true of it."""

    row: WorkerRow
    rental: Rental
    offer: Offer
    boot_ms: int
    runs: list[tuple[Step, int, int]] = field(default_factory=list)
    """What it runs: of which step, until when, how many."""
    idle_ms: int | None = None
    is_ours: bool = False
    staff: Staff | None = None

    held: int = 0


class Simulation:
    """A seed makes a cloud, and days of work."""

    def __init__(self, seed: int, *, days: int = 1) -> None:
        self.dice = Random(seed)
        crowd = self.dice.choice([5, 20, 60, 60, 60, 300])
        self.now = START
        self.end = START + days * 24 * HOUR
        self._count = itertools.count(1)
        self._events: list[tuple[int, int, Callable[[], object]]] = []
        self.steps: dict[int, Step] = {}
        self.machines: dict[WorkerId, Machine] = {}
        self.lives: list[Life] = []
        self.decisions = self.rented = self.evicted = self.failed = self.peak = 0
        self.workflows: dict[int, int] = {}
        self.used: dict[tuple[str, str, str], float] = {}
        self._workflow_of: dict[int, int] = {}
        self._limited: list[Step] = []
        self._make_cloud(crowd)
        for day in range(days):
            for _ in range(self.dice.randint(1, 3)):
                self.at(START + day * 24 * HOUR + self.dice.randrange(10 * HOUR), lambda: self._submit(crowd))
        self.due: int | None = None

    def at(self, when: int, what: Callable[[], object]) -> None:
        heapq.heappush(self._events, (when, next(self._count), what))

    # --- the cloud --------------------------------------------------------------------------------------------------------

    def _make_cloud(self, crowd: int) -> None:
        dice, self.offers = self.dice, []
        for size in (4, 8, 16):
            flavor = Flavor(
                "fake", f"m{size}", size, size * 4 * 10**9, families={"ondemand": (QUOTA,), "spot": (QUOTA,)}
            )
            for region in ("north", "south", "west"):
                billed, least = dice.choice([(1, 0), (1, 60), (60, 60), (3600, 0)])
                more: dict[str, Any] = {"billed_s": billed, "minimum_s": least, "eviction": dice.choice([0, 0, 3, 20])}
                more |= {
                    "price": size * dice.uniform(0.02, 0.06),
                    "available": dice.choice([None, None, dice.randrange(crowd)]),
                }
                self.offers.append(Offer(flavor, region, dice.choice(["ondemand", "spot"]), **more))
        self.quotas = {
            ("fake", region, QUOTA): dice.choice([None, crowd, 8 * crowd]) for region in ("north", "south", "west")
        }
        for hour in range(0, 48, 6):
            self.at(START + hour * HOUR, self._shuffle)

    def _shuffle(self) -> None:
        """Stock and prices change."""
        dice = self.dice
        self.offers = [
            replace(one, available=dice.choice([None, 0, dice.randrange(1, 40)]), price=(one.price or 0) * dice.uniform(0.8, 1.25))
            for one in self.offers
        ]  # fmt: skip

    def _ranking(self, demand: Demand, rule: Recruiter) -> Ranking:
        able = [one for one in self.offers if one.available != 0]
        able.sort(key=lambda one: ((one.price or 0) / min(rule.concurrency or one.flavor.cpu, one.flavor.cpu), one.key))
        return Ranking([Ranked(one, one.price, one.currency, one.flavor.cpu, one.eviction, BOOT_S) for one in able])

    def _rent(self, step: Step, offer: Offer, rank: int) -> None:
        number = WorkerId(next(self._count))
        row = WorkerRow(
            number, f"w{number}", "rented", WorkerState.WANTED, None, step.rule.concurrency or offer.flavor.cpu, None,
            {"cpus": offer.flavor.cpu, "memory": offer.flavor.ram}, None, None, 0, self.now, None, batch_id=step.batch,
            settings={"flavor": offer.flavor.name},
        )  # fmt: skip
        rental = Rental(
            number, f"c{number}", RentalState.RUNNING, "fake", offer.region, offer.flavor.name, offer.market, offer.price, offer.currency,
            offer.billed_s, offer.minimum_s, self.now, self.now, None, None, None, "i", step.batch, rank,
        )  # fmt: skip
        boot_ms = self.dice.choice([40, 110, 170]) * 1000  # not any number: what happens at once is looked at once
        machine = self.machines[number] = Machine(row, rental, offer, boot_ms)
        step.there[number] = machine
        self._use(offer, 1)
        self.rented += 1
        chance = self.dice.random()
        if chance < 0.04:
            self.failed += 1
            self.at(self.now + boot_ms, lambda: self._lose(number))
            return
        self.at(self.now + boot_ms, lambda: self._boot(number))
        if machine.offer.eviction and self.dice.random() < machine.offer.eviction / 20:
            self.at(self.now + self.dice.randrange(6 * HOUR), lambda: self._evict(number))

    def _boot(self, number: WorkerId) -> None:
        if (machine := self.machines.get(number)) is not None and machine.row.state in PRESENT:
            self._set(machine, state=WorkerState.READY)

    def _evict(self, number: WorkerId) -> None:
        if number in self.machines:
            self.evicted += 1
            self._lose(number)

    def _lose(self, number: WorkerId) -> None:
        """It is gone; what it ran is to be run again."""
        machine = self.machines.pop(number, None)
        if machine is None:
            return
        for step, when, count in machine.runs:
            step.running -= count
            step.ready += count
            step.ends[when] -= count
            step.holding.pop(number, None)
        self._pay(machine)

    def _pay(self, machine: Machine) -> None:
        rental = machine.rental
        self.steps[machine.row.batch_id or 0].there.pop(machine.row.id)
        self._use(machine.offer, -1)
        self.lives.append(
            Life(((0, rental.price or 0.0),), rental.currency, rental.accepted_ms, rental.billed_s, rental.minimum_s, self.now,
                 rental.batch or 0, rental.rank or 0)
        )  # fmt: skip

    def _set(self, machine: Machine, **changes: Any) -> None:
        machine.row = replace(machine.row, **changes)
        machine.staff = None

    # --- the work ---------------------------------------------------------------------------------------------------------

    def _submit(self, crowd: int) -> None:
        """A workflow of up to three steps."""
        dice, workflow = self.dice, next(self._count)
        if dice.random() < 0.8:
            self.workflows[workflow] = dice.randint(1, crowd)
        before: Step | None = None
        has_limit = crowd < 100 and dice.random() < 0.1
        count = dice.randrange(1, 4 * crowd)
        for _ in range(dice.randint(1, 3)):
            batch = next(self._count)
            rule = Recruiter(
                batch, 1, dice.choice([None, None, dice.randrange(1, 20)]), None, "fake", None, dice.choice([2, 4, 8, 16]), None,
                dice.choice([None, None, dice.randrange(1, count + 1)]) if before is None else None,
                dice.choice([None, crowd, dice.randrange(1, crowd)]), {"rounds": dice.choice([1, 1, 4])}, f"b{batch}",
            )  # fmt: skip
            if dice.random() < 0.2:
                rule = replace(rule, settings={**rule.settings, "patience": 60.0})
            is_gathering = before is not None and dice.random() < 0.3
            size = dice.randrange(1, 10) if is_gathering else count
            step = Step(
                batch, workflow, rule, dice.randrange(5 * MINUTE, 3 * HOUR), size if before is None else 0, size if before else 0, before,
                is_gathering, limit=dice.uniform(0, 40) if has_limit else None,
            )  # fmt: skip
            self.steps[batch] = before = step
            self._workflow_of[batch] = workflow
            if step.after is not None:
                step.after.children.append(step)
            if has_limit:
                self._limited.append(step)

    def _place(self) -> None:
        """Ready tasks go to those of their batch that have slots free."""
        for step in self.steps.values():
            for machine in step.there.values() if step.ready else ():
                row = machine.row
                count = min(step.ready, row.concurrency - machine.held)
                if count <= 0 or row.state is not WorkerState.READY:
                    continue
                step.ready -= count
                step.running += count
                step.holding[row.id] = step.holding.get(row.id, 0) + count
                machine.held += count
                machine.staff = None
                # Those that begin within some minutes of each other end together.
                end = -(-(self.now + step.run_ms) // (5 * MINUTE)) * 5 * MINUTE
                step.ends[end] = step.ends.get(end, 0) + count
                machine.runs.append((step, end, count))
                self.at(end, partial(self._finish, machine, (step, end, count)))

    def _finish(self, machine: Machine, run: tuple[Step, int, int]) -> None:
        if run not in machine.runs or machine.row.id not in self.machines:
            return
        step, end, count = run
        machine.runs.remove(run)
        machine.held -= count
        machine.staff = None
        step.holding[machine.row.id] -= count
        if not step.holding[machine.row.id]:
            del step.holding[machine.row.id]
        step.running -= count
        step.ends[end] -= count
        if not step.ends[end]:
            del step.ends[end]
        for other in step.children:
            free = (other.blocked if not step.left else 0) if other.is_gathering else min(other.blocked, count)
            other.blocked -= free
            other.ready += free

    # --- looking ----------------------------------------------------------------------------------------------------------

    def _soon(self, step: Step) -> tuple[tuple[float, int], ...]:
        """Which blocked tasks could run when: as things stand, exactly."""
        before = step.after
        if not step.blocked or before is None:
            return ()
        ends = before.ends.items()
        if step.is_gathering:
            if before.ready or before.blocked:
                return ()
            return (((max(before.ends, default=self.now) - self.now) / 1000, step.blocked),)
        return tuple(((when - self.now) / 1000, count) for when, count in ends)

    def _look(self) -> World:
        staff = []
        for machine in self.machines.values():
            if machine.staff is None:
                row = machine.row
                machine.staff = Staff(
                    row,
                    row.concurrency - machine.held,
                    None,
                    machine.held,
                    machine.rental,
                    machine.idle_ms,
                    BOOT_S,
                    machine.is_ours,
                )
            staff.append(machine.staff)
        demands = []
        for step in self.steps.values():
            if not step.ready and not step.blocked:
                continue
            service = Service(
                dict.fromkeys(step.there, Terms()), [step.rule.maximum_workers],
                frozenset(id for id, machine in step.there.items() if machine.row.state in PRESENT), dict(step.holding),
            )  # fmt: skip
            work = [Work(None, step.ready, self._soon(step))]
            demands.append(Demand(step.batch, [step.rule], service, work, f"b{step.batch}", step.workflow))
        left = {key: Left("vcpu", limit - self._used(key)) for key, limit in self.quotas.items() if limit is not None}
        pending = {step.batch: step.ready for step in self.steps.values() if step.ready}
        return World(
            self.now, demands, staff, pending, self._ranking, left, self._allowance(), self.workflows,
            self._workflow_of,
        )  # fmt: skip

    def _use(self, offer: Offer, sign: int) -> None:
        for key in draws(offer):
            self.used[key] = self.used.get(key, 0) + sign * takes(offer.flavor, "vcpu")

    def _used(self, key: tuple[str, str, str]) -> float:
        return self.used.get(key, 0)

    def _allowance(self) -> Allowance:
        accounts = []
        for step in self._limited:
            if step.limit is not None:
                running = [
                    Life(((0, machine.rental.price or 0.0),), "EUR", machine.rental.accepted_ms, machine.rental.billed_s,
                         machine.rental.minimum_s, batch=step.batch, rank=1)
                    for machine in self.machines.values() if machine.rental.batch == step.batch
                ]  # fmt: skip
                ended = sum(life.cost(self.now) or 0 for life in self.lives if life.batch == step.batch)
                scope, limit = Scope("recruiter", step.batch, 1), Limit(nanos(step.limit), "EUR")
                accounts.append(Account(scope, f"b{step.batch}", limit, {"EUR": ended}, None, tuple(running)))
        return Allowance(self.now, tuple(accounts))

    # --- playing ----------------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Until nothing is left to happen."""
        while self._events or self.due is not None:
            when = min(
                self._events[0][0] if self._events else self.end * 2, self.due if self.due is not None else self.end * 2
            )
            self.now = max(self.now, when)
            while self._events and self._events[0][0] <= self.now:
                heapq.heappop(self._events)[2]()
            self._place()
            for _ in range(9):
                if not self._decide():
                    break
            else:
                raise Broken(f"{self.now}: it cannot make up its mind")
            if self.now > self.end + 60 * 24 * HOUR:
                break
        self._check_the_end()

    def _decide(self) -> bool:
        """Ask the rule, and do what it says; whether that was anything."""
        world = self._look()
        found = decide(world)
        self.decisions += 1
        self.due = found.due_ms
        if found.due_ms is not None and found.due_ms <= self.now:
            raise Broken("it wants to be asked again at once, without end")
        acts = [action for action in found.actions if not isinstance(action, Short)]
        for action in acts:
            if isinstance(action, Destroy):
                self._check_destroy(self.machines[action.worker], world)
        for action in acts:
            self._do(action)
        if any(isinstance(action, Deploy) for action in acts):
            self._check_rented(acts, world)
        self.peak = max(self.peak, len(self.machines))
        if any(isinstance(action, Move | Resume) for action in acts):
            self._place()
        return any(not isinstance(action, Idle) for action in acts)

    def _do(self, action: Any) -> None:
        if isinstance(action, Deploy):
            self._rent(self.steps[action.batch], action.offer, action.recruiter.rank)
            return
        machine = self.machines[action.worker]
        if isinstance(action, Move):
            rule = self.steps[action.batch].rule
            self.steps[machine.row.batch_id or 0].there.pop(action.worker)
            self.steps[action.batch].there[action.worker] = machine
            self._set(machine, batch_id=action.batch, concurrency=max(machine.row.concurrency, rule.concurrency or 0))
        elif isinstance(action, Drain):
            self._set(machine, state=WorkerState.DRAINING)
            machine.is_ours = True
        elif isinstance(action, Resume):
            self._set(machine, state=WorkerState.READY)
            machine.is_ours = False
        elif isinstance(action, Idle):
            machine.idle_ms, machine.staff = action.since_ms, None
        elif isinstance(action, Destroy):
            del self.machines[action.worker]
            self._pay(machine)

    # --- what must hold ---------------------------------------------------------------------------------------------------

    def _check_rented(self, acts: list[Any], world: World) -> None:
        """Never above a limit, a quota, the stock, the money; never two machines for one need."""
        for key, limit in self.quotas.items():
            if limit is not None and self._used(key) > limit:
                raise Broken(f"quota {key}: {self._used(key)} of {limit}")
        bought: dict[Any, int] = {}
        for batch in {action.batch for action in acts if isinstance(action, Deploy)}:
            step = self.steps[batch]
            new = [action for action in acts if isinstance(action, Deploy) and action.batch == batch]
            own = [
                machine for machine in self.machines.values() if machine.rental.batch == batch == machine.row.batch_id
            ]
            most = step.rule.maximum_workers
            if len(own) > (self.workflows.get(step.workflow, MOST_RENTED) if most is None else most):
                raise Broken(f"{len(own)} rented for {step.rule}")
            for action in new:
                bought[action.offer.key] = bought.get(action.offer.key, 0) + 1
                if action.offer.available is not None and bought[action.offer.key] > action.offer.available:
                    raise Broken(f"more than there are of {action.offer}")
            before = [one for one in world.staff if one.row.batch_id == batch and one.row.state in PRESENT]
            needed = step.ready + step.running + sum(count for in_s, count in self._soon(step) if in_s <= BOOT_S)
            if (len(before) + len(new) - 1) * step.each >= needed:
                raise Broken(f"{len(new)} rented beside {len(before)} for {needed} tasks, {step.each} each")
            if step.limit is not None:
                ended = sum(life.cost(self.now) or 0 for life in self.lives if life.batch == batch)
                running = sum((commitment(action.offer) or 0) for action in new)
                if ended + running > nanos(step.limit):
                    raise Broken(f"{ended + running} is more than {step.limit}")
        for workflow, most in self.workflows.items():
            own = [
                machine for machine in self.machines.values()
                if self._workflow_of[machine.rental.batch or 0] == workflow == self._workflow_of[machine.row.batch_id or 0]
            ]  # fmt: skip
            if len(own) > most and any(
                isinstance(a, Deploy) and self.steps[a.batch].workflow == workflow for a in acts
            ):
                raise Broken(f"workflow {workflow}: {len(own)} of {most}")

    def _check_destroy(self, machine: Machine, world: World) -> None:
        """Nothing runs there, and nothing will that could not run elsewhere, before another machine could be there."""
        if machine.held:
            raise Broken(f"{machine.row.name} has {machine.held} tasks")
        step = self.steps[machine.row.batch_id or 0]
        if world.allowance.reached(machine.rental.batch or 0, 1) is not None:
            return
        soon = step.ready + sum(count for in_s, count in self._soon(step) if in_s <= BOOT_S)
        there = [
            other for other in step.there.values() if other is not machine and other.row.state in PRESENT
        ]  # fmt: skip
        room = sum(max(0, step.each - step.holding.get(other.row.id, 0)) for other in there)
        if soon > room:
            raise Broken(f"{machine.row.name} goes, and {soon} tasks of its batch need it: there is room for {room}")

    def _check_the_end(self) -> None:
        if self.machines:
            raise Broken(f"{len(self.machines)} machines are left: {next(iter(self.machines.values())).row}")
