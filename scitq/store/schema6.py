"""Schema 6: what is sold, what was rented, what it costs, how machines were lost. A part of `schema`, which has the rest."""

from __future__ import annotations

import apsw

from scitq.offers import RENTAL_MOVES, RENTED, RentalState
from scitq.states import Outcome

_OPEN = ",".join(str(int(state)) for state in sorted(RENTED))

# --- the catalogue: offers, quotas, what is not to be tried now ----------------------------------------------------------------
_CATALOGUE = """
-- Sizes of machines, each once however many regions sell it.
create table flavor(
  id integer primary key, provider text not null, name text not null, data text not null check(json_valid(data)),
  unique(provider, name, data)) strict;
create table offer(
  provider text not null, region text not null, flavor text not null, market text not null,
  spec integer not null references flavor(id), price real check(price >= 0), currency text not null,
  billed_s integer not null, minimum_s integer not null, eviction real not null, eviction_known integer not null,
  available integer, reason text not null default '', zones text not null default '', score real not null default 0,
  fetched integer not null, primary key(provider, region, flavor, market)) strict, without rowid;
create index offer_spec on offer(spec);
-- `own`: who set the limit, when not the provider (`learned` from a refusal).
create table quota(
  provider text not null, region text not null, family text not null, unit text not null, most real, used real,
  fetched integer not null, own text not null default '', primary key(provider, region, family, own)) strict, without rowid;
-- What is not tried again before `until`; '' stands for any.
create table hold(
  provider text not null, region text not null default '', flavor text not null default '', market text not null default '',
  until integer not null, reason text not null, code text not null default '',
  primary key(provider, region, flavor, market)) strict, without rowid;
-- When something of a provider (of one region; '' is all) was last read, and asked for; what was wrong then, and until when it is
-- not asked again.
create table catalogue(
  provider text not null, what text not null, region text not null default '', fetched integer, tried integer not null,
  again integer not null default 0, failures integer not null default 0, problem text,
  primary key(provider, what, region)) strict, without rowid;
"""

# --- machines ------------------------------------------------------------------------------------------------------------------
_RENTALS = f"""
create table rental_move(src integer not null, dst integer not null, primary key(src, dst)) strict, without rowid;
-- A machine that was asked of a provider: the row is written (and on the disk) before the provider is called, and stays.
create table rental(
  worker integer primary key references worker(id), code text not null unique check(code <> ''),
  state integer not null default {int(RentalState.INTENT)}, provider text not null, region text not null, flavor text not null,
  market text not null, price real, currency text not null, billed_s integer not null default 1, minimum_s integer not null default 0,
  wanted integer not null, accepted integer, running integer, ended integer, expires integer, cloud_id text,
  batch integer, rank integer, detail text not null default '',
  data text not null default '{{}}' check(json_valid(data)),
  check((state = {int(RentalState.GONE)}) = (ended is not null))) strict;
create index rental_open on rental(state) where state in ({_OPEN});
create index rental_batch on rental(batch) where batch is not null;
create trigger rental_birth before insert on rental when new.state <> {int(RentalState.INTENT)}
  begin select raise(abort, 'a rental is born as an intent'); end;
create trigger rental_move_guard before update of state on rental
  when new.state <> old.state and not exists(select 1 from rental_move where src = old.state and dst = new.state)
  begin select raise(abort, 'illegal move of a rental'); end;
create trigger rental_kept before delete on rental
  begin select raise(abort, 'a rental is never forgotten'); end;
-- A machine of this file's that a provider has, and that belongs to nobody here: deleted once it is old enough to be sure of that.
create table stray(
  provider text not null, region text not null, id text not null, name text not null, code text not null, seen integer not null,
  created integer, asked integer, gone integer, primary key(provider, region, id)) strict, without rowid;
"""

# --- money ---------------------------------------------------------------------------------------------------------------------
# Amounts are whole billionths of a unit of their currency: see `scitq.money`.


def accrued(worker: str, since: str, until: str) -> str:
    """What the time of a machine between two moments costs, not rounded. The arguments are expressions of SQL."""
    end = f"min(coalesce(tariff.until, {until}), {until})"
    return f"""(select coalesce(sum(tariff.price * max(0, {end} - max(tariff.since, {since}))), 0) / 0.0036
      from tariff where tariff.worker = {worker})"""


def billed(until: str) -> str:
    """When the time ends that is paid for a row of table `rental`, were it gone at a moment: in whole pieces, and a least one."""
    piece = "(1000 * max(1, billed_s))"
    pieces = f"max(1, ({until} - accepted + {piece} - 1) / {piece})"
    return f"(accepted + max(1000 * minimum_s, {piece} * {pieces}))"


def whole(until: str) -> str:
    """What the life of a row of table `rental` costs, were it gone at a moment; null: its price is not known."""
    return f"""case when accepted is null then 0 when not exists(select 1 from tariff where tariff.worker = rental.worker) then null
      else cast(round({accrued("rental.worker", "accepted", billed(until))}) as integer) end"""


def share(run: str, until: str) -> str:
    """What a row (`run`) of table `execution` costs that has run until a moment: its time, by its part of the machine."""
    ended = f"min({until}, coalesce({run}.started + cast(round(1000 * {run}.run_s) as integer), {until}), coalesce(rental.ended, {until}))"
    part = f"min(1.0, {run}.slots * 1.0 / max(1, worker.concurrency))"
    return f"""(select max(0, cast(round({part} * {accrued("rental.worker", f"max({run}.started, rental.accepted)", ended)}) as integer))
      from rental join worker on worker.id = rental.worker where rental.worker = {run}.worker and accepted is not null)"""


# What things cost, by scope: each arm a select of the columns of COST_COLUMNS, over the parts that `cost_parts` makes. The view
# has all of them; who wants one scope (see `store.costs`) asks for that arm alone, and none but `task` and `day` grows with
# anything but machines and batches.
COST_COLUMNS = "scope, id, name, currency, amount, idle, failed, run_ms, is_running"
NOW = "cast((julianday('now') - 2440587.5) * 86400000.0 as integer)"


def cost_parts(now: str) -> str:
    """The tables that the arms read, as they are at a moment: `machine`, `live` (executions), and `part` (who had what of a machine)."""
    return f"""with clock(ms) as materialized (select {now}),
  machine as materialized (select rental.worker, worker.name, rental.provider, rental.region, rental.flavor, rental.market, currency,
    coalesce(rental.batch, 0) as home, accepted, rental.ended, ended is null and accepted is not null as is_running,
    case when ended is null then {whole("ms")} else cost end as whole
    from clock cross join rental join worker on worker.id = rental.worker),
  claim as materialized (select execution.id, execution.worker, task.id as task, task.batch, {share("execution", "ms")} as amount,
    ms - execution.started as run_ms
    from clock cross join execution indexed by execution_worker join task on task.id = execution.task
    where execution.ended is null and execution.worker in (select tariff.worker from tariff) and execution.started is not null),
  -- Not more than the machine has cost and others have not had: the older ones first.
  live(worker, task, batch, amount, run_ms) as materialized (select worker, task, claim.batch, max(0, min(claim.amount, whole
    - (select coalesce(sum(spent.amount), 0) from spent where spent.worker = claim.worker)
    - coalesce(sum(claim.amount) over (partition by worker order by claim.id rows between unbounded preceding and 1 preceding), 0))), run_ms
    from claim join machine using (worker) where is_running),
  had(worker, batch, amount, idle, failed, run_ms) as materialized (
    select worker, batch, amount, idle, failed, run_ms from spent
    union all select worker, batch, amount, 0, 0, run_ms from live),
  part(worker, batch, amount, idle, failed, run_ms) as materialized (
    select worker, batch, amount + idle, idle, failed, run_ms from had
    -- What is left of those that run still.
    union all select worker, home, max(0, whole - used), max(0, whole - used), 0, 0 from (
      select worker, home, whole, (select coalesce(sum(amount), 0) from had where had.worker = machine.worker) as used
      from machine where is_running))"""


_NEXT = "(1000 * strftime('%s', date(day, '+1 day'), 'utc'))"
_SUMS = "sum(part.amount), sum(part.idle), sum(part.failed), sum(part.run_ms), max(is_running)"
COSTS = {
    "all": f"select 'all', null, null, currency, {_SUMS} from part join machine using (worker) group by currency",
    "worker": """select 'worker', machine.worker, machine.name, currency, iif(whole is null, null, coalesce(sum(part.amount), 0)),
      sum(part.idle), sum(part.failed), sum(part.run_ms), is_running
      from machine left join part using (worker) group by machine.worker""",
    "provider": f"select 'provider', null, provider, currency, {_SUMS} from part join machine using (worker) group by provider, currency",
    "region": f"""select 'region', null, provider || ' ' || region, currency, {_SUMS} from part join machine using (worker)
      group by provider, region, currency""",
    "flavor": f"""select 'flavor', null, provider || ' ' || flavor, currency, {_SUMS} from part join machine using (worker)
      group by provider, flavor, currency""",
    "batch": f"""select 'batch', batch.id, batch.name, currency, {_SUMS} from part join machine using (worker)
      left join batch on batch.id = part.batch group by batch.id, currency""",
    "workflow": f"""select 'workflow', workflow.id, workflow.name, currency, {_SUMS} from part join machine using (worker)
      left join batch on batch.id = part.batch left join workflow on workflow.id = batch.workflow group by workflow.id, currency""",
    # What was not for any task that is there: idle time, and tasks that were deleted.
    "task": f"""select 'task', id, label, currency, sum(amount), sum(idle), sum(failed), sum(run_ms), max(live) from (
        select task.id, coalesce(task.name, cast(task.id as text)) as label, worker, cost as amount, 0 as idle,
          iif(outcome = {int(Outcome.SUCCEEDED)}, 0, cost) as failed,
          coalesce(cast(round(1000 * run_s) as integer), ended - started) as run_ms, 0 as live
        from execution join task on task.id = execution.task where cost is not null
        union all select live.task, coalesce(task.name, cast(task.id as text)), worker, amount, 0, 0, run_ms, 1
        from live join task on task.id = live.task
        union all select null, null, worker, gone, 0, 0, 0, 0 from spent where gone > 0
        union all select null, null, worker, idle, idle, 0, 0, is_running from part join machine using (worker) where idle > 0)
      join machine using (worker) group by id, currency""",
    # By the clock of whoever asks. What is billed beyond its end counts for a machine's last day.
    "day": f"""select 'day', null, day, currency,
        sum(iif({_NEXT} >= until, whole, round({accrued("piece.worker", "accepted", _NEXT)}))
          - iif(piece.since = accepted, 0, round({accrued("piece.worker", "accepted", "piece.since")}))),
        null, null, null, max(is_running and {_NEXT} >= until)
      from (with recursive piece(worker, currency, accepted, whole, is_running, day, since, until) as (
        select worker, currency, accepted, whole, is_running, date(accepted / 1000, 'unixepoch', 'localtime'), accepted,
          max(accepted, coalesce(ended, ms)) from machine, clock where whole is not null and accepted is not null
        union all select worker, currency, accepted, whole, is_running, date(day, '+1 day'), {_NEXT}, until
          from piece where {_NEXT} < until)
        select * from piece) as piece group by day, currency""",
}  # fmt: skip

_USED = "(select coalesce(sum(amount), 0) from spent where spent.worker = {0})"
_SETTLE = """update spent set idle = max(0, coalesce((select cost from rental where rental.worker = {0}.worker), 0) - {used})
      where worker = {0}.worker and batch = coalesce((select batch from rental where rental.worker = {0}.worker), 0)"""


def _settle(row: str) -> str:
    return _SETTLE.format(row, used=_USED.format(f"{row}.worker"))


_MONEY = f"""
-- The prices of a machine, per hour, each from when on it holds; without a row its price is not known.
create table tariff(
  worker integer not null references rental(worker), since integer not null, until integer, price real not null check(price >= 0),
  primary key(worker, since)) strict, without rowid;
-- What a machine cost, once it is gone; what an execution cost, once it has ended.
alter table rental add column cost integer check(cost >= 0);
alter table execution add column cost integer check(cost >= 0);
-- What the batches had of each machine (0: of none that there is): `amount` is the sum of their executions, `failed` of it is that
-- of those that did not succeed, `gone` of it that of executions that were deleted; `idle` is what is left of a machine that is
-- gone, and counts for the batch that rented it.
create table spent(
  worker integer not null, batch integer not null, amount integer not null default 0, failed integer not null default 0,
  gone integer not null default 0, idle integer not null default 0 check(idle >= 0), runs integer not null default 0,
  run_ms integer not null default 0, primary key(worker, batch), check(amount between failed and 9e18), check(gone between 0 and amount))
  strict, without rowid;
create index spent_batch on spent(batch);
-- How much may be spent. `scope`: file (id 0), workflow, batch; what a recruiter may spend stands in its settings. Without an
-- amount: as much as it does. `said`: what a script said last, so that what was changed by hand since stays.
create table cap(
  scope text not null check(scope in ('file', 'workflow', 'batch')), id integer not null default 0,
  amount integer check(amount >= 0), currency text not null default '', said text, primary key(scope, id)) strict, without rowid;

create trigger rental_priced after insert on rental when new.price is not null
  begin insert into tariff(worker, since, price) values (new.worker, 0, new.price); end;
-- Another offer was taken before any was accepted; or the price was found out.
create trigger rental_repriced after update of price on rental
  when new.price is not old.price and (new.accepted is null or old.price is null)
  begin
    delete from tariff where worker = new.worker;
    insert into tariff(worker, since, price) select new.worker, 0, new.price where new.price is not null;
  end;
create trigger rental_settled after update of ended on rental when new.ended is not null and old.ended is null
  begin
    update rental set cost = max({whole("rental.ended")}, {_USED.format("new.worker")}) where worker = new.worker;
    insert into spent(worker, batch) values (new.worker, coalesce(new.batch, 0)) on conflict do nothing;
    {_settle("new")};
    -- How long it ran is experience with its offer.
    insert into observed(provider, region, flavor, market, hour, machine_s)
      select new.provider, new.region, new.flavor, new.market, new.ended / 3600000, max(0, new.ended - new.running) / 1000.0
      where new.running is not null on conflict do update set machine_s = machine_s + excluded.machine_s;
  end;
create trigger rental_reopened after update of ended on rental when new.ended is null and old.ended is not null
  begin
    update rental set cost = null where worker = new.worker;
    update spent set idle = 0 where worker = new.worker;
  end;
-- The books of another batch are opened before anything is put there, and never closed.
create trigger execution_paid after update of ended on execution
  when new.ended is not null and old.ended is null and new.started is not null
    and exists(select 1 from tariff where tariff.worker = new.worker)
  begin
    insert into spent(worker, batch) select new.worker, batch from task where id = new.task on conflict do nothing;
    -- Not more than the machine has cost and others have not had: shares are rough where a machine was given more slots meanwhile.
    update execution set cost = max(0, min(coalesce({share("new", "new.ended")}, 0),
      coalesce((select cast({accrued("rental.worker", "accepted", "coalesce(ended, new.ended)")} as integer)
        from rental where rental.worker = new.worker and accepted is not null), 0) - {_USED.format("new.worker")})) where id = new.id;
    update spent set amount = amount + (select cost from execution where id = new.id), runs = runs + 1,
      failed = failed + iif(new.outcome = {int(Outcome.SUCCEEDED)}, 0, (select cost from execution where id = new.id)),
      run_ms = run_ms + coalesce(cast(round(1000 * new.run_s) as integer), new.ended - new.started)
      where worker = new.worker and batch = (select batch from task where id = new.task);
    {_settle("new")} and exists(select 1 from rental where rental.worker = new.worker and ended is not null);
  end;
create trigger execution_gone before delete on execution when old.cost is not null
  begin
    update spent set gone = gone + old.cost where worker = old.worker and batch = (select batch from task where id = old.task);
  end;
create trigger task_paid_elsewhere after update of batch on task
  when new.batch <> old.batch and exists(select 1 from execution where task = new.id and cost is not null)
  begin
    insert into spent(worker, batch) select distinct worker, new.batch from execution where task = new.id and cost is not null
      on conflict do nothing;
    update spent set (amount, failed, runs, run_ms) = (
      select spent.amount + iif(spent.batch = new.batch, 1, -1) * sum(cost),
        spent.failed + iif(spent.batch = new.batch, 1, -1) * sum(iif(outcome = {int(Outcome.SUCCEEDED)}, 0, cost)),
        spent.runs + iif(spent.batch = new.batch, 1, -1) * count(*),
        spent.run_ms + iif(spent.batch = new.batch, 1, -1) * sum(coalesce(cast(round(1000 * run_s) as integer), ended - started))
      from execution where task = new.id and cost is not null and execution.worker = spent.worker)
      where batch in (old.batch, new.batch) and worker in (select worker from execution where task = new.id and cost is not null);
  end;
create trigger batch_gone before delete on batch
  begin
    insert into spent(worker, batch) select worker, 0 from spent where batch = old.id on conflict do nothing;
    update spent set (amount, failed, gone, idle, runs, run_ms) = (
      select spent.amount + its.amount, spent.failed + its.failed, spent.gone + its.gone, spent.idle + its.idle,
        spent.runs + its.runs, spent.run_ms + its.run_ms
      from spent as its where its.worker = spent.worker and its.batch = old.id)
      where batch = 0 and worker in (select worker from spent where batch = old.id);
    delete from spent where batch = old.id;
    update rental set batch = null where batch = old.id;
    delete from cap where scope = 'batch' and id = old.id;
  end;
create trigger workflow_gone before delete on workflow
  begin delete from cap where scope = 'workflow' and id = old.id; end;
"""
_ARMS = " union all ".join(COSTS.values())
_VIEWS = f"""
create view costs as
  {cost_parts(NOW)}
  select scope, id, name, currency, amount / 1e9 as amount, idle / 1e9 as idle, failed / 1e9 as failed, run_ms / 1000.0 as run_s,
    iif(is_running, 'running', 'final') as state from (
    select null as scope, null as id, null as name, null as currency, null as amount, null as idle, null as failed, null as run_ms,
      null as is_running where false union all {_ARMS});
"""

# --- evictions and failures, by flavor, region and hour --------------------------------------------------------------------------
_OBSERVED = """
create table observed(
  provider text not null, region text not null, flavor text not null, market text not null, hour integer not null,
  machine_s real not null default 0, boots integer not null default 0, boot_s real not null default 0,
  evictions integer not null default 0, failures integer not null default 0,
  primary key(provider, region, flavor, market, hour)) strict, without rowid;
"""


def create(db: apsw.Connection) -> None:
    """Bring a file of schema 5 to schema 6."""
    for _ in db.execute(_CATALOGUE + _RENTALS + _MONEY + _OBSERVED + _VIEWS):
        pass
    rows = [(int(src), int(dst)) for src, targets in RENTAL_MOVES.items() for dst in sorted(targets)]
    db.executemany("insert into rental_move values (?, ?)", rows)
