"""The tables of a state file, and the triggers that make a wrong state impossible whoever writes.

Only the schema: rows are read and written by `tasks`, `executions`, `workers`, `journal`, `logs`. The transition tables are
filled from `scitq.states`. Times are integer milliseconds since 1970. Each migration takes one schema version to the next;
none is ever edited after a release.
"""

from __future__ import annotations

import apsw

from scitq.events import EventKind
from scitq.states import (
    BAD,
    JOB_MOVES,
    LIVE,
    TASK_MOVES,
    UNPLACED,
    WORKER_MOVES,
    JobState,
    Outcome,
    Probe,
    Stage,
    TaskState,
    WorkerState,
)
from scitq.store import schema6
from scitq.store.migrate import Schema

APPLICATION_ID = 0x53435451  # "SCTQ"


def _codes(states: frozenset[TaskState]) -> str:
    return ",".join(str(int(state)) for state in sorted(states))


_LIVE = _codes(LIVE)
_BAD = _codes(BAD)
_UNPLACED = _codes(UNPLACED)
_S = TaskState

_TABLES = f"""
create table meta(k text primary key, v any) strict, without rowid;

-- Who drives this file. `epoch` is the fence: it grows at each change of driver.
create table lead(
  one integer primary key check(one = 1), epoch integer not null, pid integer, host text, machine text, boot text,
  started integer, program text, seen integer, stop_wanted integer not null default 0) strict;
insert into lead(one, epoch) values (1, 0);

create table task_move(src integer not null, dst integer not null, primary key(src, dst)) strict, without rowid;
create table worker_move(src integer not null, dst integer not null, primary key(src, dst)) strict, without rowid;
create table job_move(src integer not null, dst integer not null, primary key(src, dst)) strict, without rowid;

create table batch(
  id integer primary key, name text not null unique check(name <> ''), halt integer not null default 0,
  settings text not null default '{{}}' check(json_valid(settings))) strict;

-- Kinds of requests, one row however many tasks ask the same; 0 stands for none. `note`: why no worker can ever meet it.
create table need(
  id integer primary key check(id > 0), cpus real not null, memory integer not null, gpus integer not null,
  python text not null, note text, unique(cpus, memory, gpus, python)) strict;

-- The circumstances of submission that hold on this machine only (folder, PATH): one row however many tasks share them.
create table context(id integer primary key, data text not null unique check(json_valid(data))) strict;

create table worker(
  id integer primary key autoincrement, name text not null unique check(name <> ''), kind text not null, state integer not null,
  batch integer references batch(id), concurrency integer not null check(concurrency >= 0), prefetch integer check(prefetch >= 0),
  facts text not null default '{{}}' check(json_valid(facts)), stats text check(json_valid(stats)),
  declared text not null default '{{}}' check(json_valid(declared)), note text,
  journal text, acked integer not null default 0, created integer not null, seen integer) strict;

create table task(
  id integer primary key autoincrement,
  state integer not null,
  batch integer not null references batch(id),
  priority integer not null default 0,
  unmet integer not null default 0 check(unmet >= 0),
  tries integer not null default 0 check(tries >= 0),
  created integer not null,
  changed integer not null,
  context integer references context(id),
  execution integer,
  not_before integer,
  hold integer not null default 0,
  need integer not null default 0,
  name text,
  reason text,
  spec text not null check(json_valid(spec)),
  check((state in ({_LIVE})) = (execution is not null)),
  check(state not in ({int(_S.PENDING)},{_LIVE}) or unmet = 0)) strict;
create index task_ready on task(batch, need, priority desc, id) where state = {int(_S.PENDING)} and not_before is null;
create index task_later on task(not_before) where not_before is not null;
create index task_name on task(name) where name is not null;
-- For lists. Pending tasks are found through task_ready, live ones through their executions: that spares each task two moves.
create index task_place on task(batch, state, id) where state not in ({_codes(LIVE | {_S.PENDING})});

-- A prerequisite is always older than its dependent, so there are no cycles.
create table requirement(
  parent integer not null references task(id), child integer not null references task(id),
  primary key(parent, child), check(parent < child)) strict, without rowid;
create index requirement_child on requirement(child);

create table execution(
  id integer primary key autoincrement,
  task integer not null references task(id), worker integer references worker(id), attempt integer not null,
  assigned integer not null, started integer, ended integer,
  outcome integer, stage integer, exit_code integer, signal integer, why text, detail text,
  run_s real, cpu_s real, peak_memory integer, read_bytes integer, written_bytes integer,
  wanted integer not null default 0, slots integer not null default 1, memory integer not null default 0, gpus text,
  log_due integer not null default 0, collect_due integer not null default 0,
  spec text, check((ended is null) = (outcome is null))) strict;
-- At most one execution of a task is live.
create unique index execution_live on execution(task) where ended is null;
create index execution_worker on execution(worker) where ended is null;
create index execution_task on execution(task);
create index execution_wanted on execution(worker) where ended is null and wanted <> 0;
create index execution_due on execution(worker) where ended is null and log_due = 1;

-- Edits of tasks that a worker holds: made once it has given the task back, dropped when it has launched it already.
create table edit(
  task integer primary key references task(id), execution integer not null,
  data text not null check(json_valid(data))) strict;

-- Output of ended executions. id = 2 * execution + (0 stdout, 1 stderr); content null: the bytes are in the side folder.
create table log(id integer primary key, size integer not null, cut integer not null default 0, content blob) strict;

-- Who wants to see output while it is written: the driver fetches it until `until`.
create table follow(task integer primary key, until integer not null) strict;

create table counter(batch integer not null, state integer not null, n integer not null check(n >= 0),
  primary key(batch, state)) strict, without rowid;

create table journal(
  id integer primary key, at integer not null, kind integer not null,
  task integer, execution integer, worker integer, src integer, dst integer, data text check(json_valid(data))) strict;
"""

_TRIGGERS = f"""
create trigger task_birth before insert on task
  when new.state not in ({int(_S.PENDING)},{int(_S.PAUSED)},{int(_S.DEBUG)}) or new.unmet <> 0 or new.tries <> 0
  begin select raise(abort, 'a task is born pending, paused or in debug'); end;
create trigger batch_born after insert on batch
  begin
    insert into counter(batch, state, n) select new.id, value, 0 from json_each('[{",".join(str(int(state)) for state in TaskState)}]');
  end;
create trigger task_born after insert on task
  begin update counter set n = n + 1 where batch = new.batch and state = new.state; end;
create trigger task_gone after delete on task
  begin update counter set n = n - 1 where batch = old.batch and state = old.state; end;
create trigger task_rebatched after update of batch on task when new.batch <> old.batch
  begin
    update counter set n = n + iif(batch = new.batch, 1, -1) where batch in (old.batch, new.batch) and state = old.state;
  end;
create trigger task_move_guard before update of state on task
  when new.state <> old.state and not exists(select 1 from task_move where src = old.state and dst = new.state)
  begin select raise(abort, 'illegal move of a task'); end;
create trigger task_ready_proof before update of state on task
  when new.state = {int(_S.PENDING)} and old.state = {int(_S.WAITING)} and exists(
    select 1 from requirement join task p on p.id = parent where child = new.id and p.state <> {int(_S.SUCCEEDED)})
  begin select raise(abort, 'a prerequisite has not succeeded'); end;
create trigger task_live_proof before update of execution on task
  when new.execution is not null and not exists(
    select 1 from execution where id = new.execution and task = new.id and ended is null)
  begin select raise(abort, 'a live task needs a live execution of its own'); end;
create trigger task_moved after update of state on task when new.state <> old.state
  begin
    update counter set n = n + iif(state = new.state, 1, -1) where batch = new.batch and state in (old.state, new.state);
    insert into journal(at, kind, task, execution, src, dst)
      values (new.changed, 0, new.id, coalesce(new.execution, old.execution), old.state, new.state);
  end;
create trigger task_release after update of state on task
  when new.state = {int(_S.SUCCEEDED)} and old.state <> {int(_S.SUCCEEDED)}
  begin
    update task set unmet = unmet - 1, changed = new.changed,
      state = iif(unmet = 1 and state = {int(_S.WAITING)}, {int(_S.PENDING)}, state)
      where id in (select child from requirement where parent = new.id) and state in ({_UNPLACED});
  end;
create trigger task_withdraw after update of state on task
  when old.state = {int(_S.SUCCEEDED)} and new.state <> {int(_S.SUCCEEDED)}
  begin
    update task set unmet = unmet + 1, changed = new.changed,
      state = iif(state = {int(_S.PENDING)}, {int(_S.WAITING)}, state)
      where id in (select child from requirement where parent = new.id) and state in ({_UNPLACED});
  end;
create trigger requirement_guard before insert on requirement
  when (select state from task where id = new.child) not in ({_UNPLACED})
  begin select raise(abort, 'the dependent has already been given to a worker'); end;
create trigger requirement_born after insert on requirement
  when (select state from task where id = new.parent) <> {int(_S.SUCCEEDED)}
  begin
    update task set unmet = unmet + 1, state = iif(state = {int(_S.PENDING)}, {int(_S.WAITING)}, state) where id = new.child;
  end;
create trigger requirement_gone after delete on requirement
  when (select state from task where id = old.parent) <> {int(_S.SUCCEEDED)}
  begin
    update task set unmet = unmet - 1, state = iif(unmet = 1 and state = {int(_S.WAITING)}, {int(_S.PENDING)}, state)
      where id = old.child and state in ({_UNPLACED});
  end;
create trigger requirement_frozen before update on requirement
  begin select raise(abort, 'requirements are replaced, not changed'); end;
create trigger execution_once before update of outcome, ended on execution when old.outcome is not null
  begin select raise(abort, 'an execution ends once'); end;
create trigger worker_move_guard before update of state on worker
  when new.state <> old.state and not exists(select 1 from worker_move where src = old.state and dst = new.state)
  begin select raise(abort, 'illegal move of a worker'); end;
create trigger worker_moved after update of state on worker when new.state <> old.state
  begin
    insert into journal(at, kind, worker, data)
      values (coalesce(new.seen, new.created), 6, new.id, json_object('from', old.state, 'to', new.state, 'note', new.note));
  end;
create trigger journal_frozen before update on journal
  begin select raise(abort, 'the journal is append-only'); end;
"""


def _words(column: str, words: dict[int, str]) -> str:
    """A SQL expression that turns a code into its word; codes and words are our own constants."""
    cases = " ".join(f"when {code} then '{word}'" for code, word in words.items())
    return f"case {column} {cases} end"


# The columns that the views for people have had from the first version on; later ones append.
_TASKS = f"""\
  task.id, task.name, batch.name as batch, {_words("task.state", {s: s.word for s in TaskState})} as state,
  task.priority, task.tries, task.unmet as unmet_requirements, task.spec ->> '$.command' as command, task.reason,
  task.created / 1000.0 as created, task.changed / 1000.0 as changed,
  -- of the latest execution
  (select {_words("outcome", {o: o.word for o in Outcome})} from execution where execution.task = task.id
    order by execution.id desc limit 1) as cause,
  (select exit_code from execution where execution.task = task.id order by execution.id desc limit 1) as exit_code,
  (select worker.name from execution join worker on worker.id = execution.worker where execution.task = task.id
    order by execution.id desc limit 1) as worker,
  (select run_s from execution where execution.task = task.id order by execution.id desc limit 1) as run_s,
  task.spec ->> '$.shell' as shell, task.spec ->> '$.tags' as tags, coalesce(task.spec ->> '$.retry', 0) as retry,
  task.spec ->> '$.run_timeout' as run_timeout, task.spec ->> '$.cpus' as cpus, task.spec ->> '$.memory' as memory,
  task.spec ->> '$.gpus' as gpus"""
_EXECUTIONS = f"""\
  execution.id, execution.task, task.name, execution.attempt, worker.name as worker,
  {_words("execution.outcome", {o: o.word for o in Outcome})} as outcome, execution.exit_code, execution.signal, execution.detail,
  execution.assigned / 1000.0 as assigned, execution.started / 1000.0 as started, execution.ended / 1000.0 as ended,
  execution.run_s, execution.cpu_s, execution.peak_memory, batch.name as batch,
  coalesce(execution.spec, task.spec) ->> '$.command' as command, execution.read_bytes, execution.written_bytes"""
_WORKERS = f"""\
  worker.id, worker.name, worker.kind, {_words("worker.state", {w: w.word for w in WorkerState})} as state,
  worker.concurrency, worker.prefetch, worker.note, worker.seen / 1000.0 as seen,
  -- when it was last asked
  worker.stats ->> '$.load' as load, worker.stats ->> '$.cpu' as cpu_use, worker.stats ->> '$.memory_free' as memory_free,
  worker.stats ->> '$.disk_free' as disk_free, (worker.stats ->> '$.at') / 1000.0 as measured"""
_VIEWS = f"""
create view tasks as select
{_TASKS}
  from task join batch on batch.id = task.batch;
create view executions as select
{_EXECUTIONS}
  from execution join task on task.id = execution.task join batch on batch.id = task.batch left join worker on worker.id = execution.worker;
create view workers as select
{_WORKERS}
  from worker;
"""


def _create(db: apsw.Connection) -> None:
    for _ in db.execute(_TABLES):
        pass
    for table, moves in (("task_move", TASK_MOVES), ("worker_move", WORKER_MOVES), ("job_move", JOB_MOVES)):
        rows = [(int(src), int(dst)) for src, targets in moves.items() for dst in sorted(targets)]
        db.executemany(f"insert into {table} values (?, ?)", rows)
    for _ in db.execute(_TRIGGERS + _VIEWS):
        pass


# --- schema 2: data -----------------------------------------------------------------------------------------------------------

_DATA = f"""
-- What an execution left, and where: files is a list of [relative name, bytes, MD5 or null].
create table manifest(
  execution integer primary key references execution(id), address text not null,
  files text not null default '[]' check(json_valid(files))) strict;
-- What its worker had to say of an execution, beside how it ended.
create table note(
  id integer primary key, execution integer not null references execution(id), at integer not null, text text not null) strict;
create index note_execution on note(execution);
-- What earlier tries of a task changed for the later ones: see task.Raised.
alter table task add column raised text check(json_valid(raised));
create index task_raised on task(id) where state = {int(_S.PENDING)} and raised ->> '$.avoid' is not null;
-- The cache. `key`: what a success is an answer to; '' when it is the answer to nothing; null until that was looked at.
-- `image`: the bits of the container that ran; `cached_from`: the execution whose result was taken (which may be gone by now).
alter table execution add column image text;
alter table execution add column cached_from integer;
alter table execution add column key text;
update execution set key = '' where outcome = {int(Outcome.SUCCEEDED)};
create index execution_key on execution(key) where key > '';
create index execution_cached on execution(cached_from) where cached_from is not null;
create index execution_unkeyed on execution(id) where key is null and outcome = {int(Outcome.SUCCEEDED)};
-- What a key was made of, where that takes more than the spec: digests of inputs and resources, whose files stand in `fingerprint`.
create table recipe(
  execution integer primary key references execution(id), digest text not null,
  parts text not null check(json_valid(parts))) strict;
create index recipe_digest on recipe(digest);
create table fingerprint(digest text primary key, files text not null check(json_valid(files))) strict, without rowid;
-- Results of tasks that were deleted, kept for the cache. `source` is the execution that there was.
create table kept(
  id integer primary key, key text not null, digest text not null, parts text not null check(json_valid(parts)),
  source integer not null, origin integer not null, label text not null, at integer not null, run_s real,
  address text, files text check(json_valid(files)), out blob, err blob, out_size integer not null, err_size integer not null) strict;
create index kept_key on kept(key);
-- Where a task stands with the cache: see states.Probe. Those that still wait for an answer are not placed.
alter table task add column probe integer not null default 0;
drop index task_ready;
create index task_ready on task(batch, need, priority desc, id)
  where state = {int(_S.PENDING)} and not_before is null and probe < {int(Probe.WANTED)};
create index task_probe on task(batch, state, id) where probe >= {int(Probe.WANTED)};
-- What the look into the cache found for a task. `twin`: the execution of an equal task that it waits for; `near`: the one that
-- is most like it; `tried`: executions of the same key whose results could not be taken; `note`: what there is to say.
create table probe(
  task integer primary key references task(id), at integer not null, key text, digest text, parts text check(json_valid(parts)),
  twin integer, near integer, tried text check(json_valid(tried)), note text) strict;
create index probe_key on probe(key);
create index probe_twin on probe(twin) where twin is not null;
drop trigger task_release;
create trigger task_release after update of state on task
  when new.state = {int(_S.SUCCEEDED)} and old.state <> {int(_S.SUCCEEDED)}
  begin
    update task set unmet = unmet - 1, changed = new.changed,
      probe = iif(unmet = 1 and probe > 0, {int(Probe.WANTED)}, probe),
      state = iif(unmet = 1 and state = {int(_S.WAITING)}, {int(_S.PENDING)}, state)
      where id in (select child from requirement where parent = new.id) and state in ({_UNPLACED});
  end;
-- Which file wrote an output: goes with the number of the task into what is left there.
insert into meta(k, v) values ('id', lower(hex(randomblob(8))));
drop view tasks;
drop view executions;
"""
_VIEWS_2 = f"""
create view tasks as select
{_TASKS},
  task.spec ->> '$.input' as input, task.spec ->> '$.resource' as resource, task.spec ->> '$.output' as output,
  coalesce(task.spec ->> '$.use_cache', 0) as use_cache,
  task.spec ->> '$.container' as container
  from task join batch on batch.id = task.batch;
create view executions as select
{_EXECUTIONS},
  {_words("execution.stage", {s: s.word for s in Stage})} as stage, manifest.address as delivered,
  json_array_length(manifest.files) as files,
  iif(manifest.files is null, null, (select coalesce(sum(value ->> 1), 0) from json_each(manifest.files))) as delivered_bytes,
  execution.image, execution.cached_from
  from execution join task on task.id = execution.task join batch on batch.id = task.batch
  left join worker on worker.id = execution.worker left join manifest on manifest.execution = execution.id;
"""


def _bring_data(db: apsw.Connection) -> None:
    for _ in db.execute(_DATA + _VIEWS_2):
        pass


# --- schema 3: workers elsewhere ---------------------------------------------------------------------------------------------

_OPEN_JOBS = f"{int(JobState.PENDING)},{int(JobState.RUNNING)}"
_FLEET = f"""
-- How a worker is reached: `address` is what the user calls its host; `settings` are the user's (lost_after, folder, nice, …),
-- `link` is what was found there (how, root, …). `silent_ms`: for how long, of the time in which a driver was awake, it has
-- not been told that its work is its own.
alter table worker add column address text;
alter table worker add column settings text not null default '{{}}' check(json_valid(settings));
alter table worker add column link text check(json_valid(link));
alter table worker add column silent_ms integer not null default 0 check(silent_ms >= 0);

-- What a worker elsewhere holds of an execution's output until it was brought here: files, folders, programs.
alter table execution add column held text check(json_valid(held));
create index execution_held on execution(worker) where ended is null and held is not null;

-- Long operations of ours. `step`: what it is at; `progress`: the share of it that is done; `log`: what it said so far;
-- `data`: what it was asked for, and what came of it.
create table job(
  id integer primary key autoincrement, kind text not null check(kind <> ''), worker integer references worker(id),
  state integer not null default {int(JobState.PENDING)}, step text, progress real check(progress between 0 and 1),
  created integer not null, started integer, ended integer, tries integer not null default 0 check(tries >= 0),
  note text, log text not null default '', data text not null default '{{}}' check(json_valid(data)),
  check((state in ({_OPEN_JOBS})) = (ended is null))) strict;
-- Of two equal wishes for a worker one is enough.
create unique index job_open on job(kind, coalesce(worker, 0)) where state in ({_OPEN_JOBS});
create index job_worker on job(worker);
create trigger job_birth before insert on job when new.state <> {int(JobState.PENDING)}
  begin select raise(abort, 'a job is born pending'); end;
create trigger job_move_guard before update of state on job
  when new.state <> old.state and not exists(select 1 from job_move where src = old.state and dst = new.state)
  begin select raise(abort, 'illegal move of a job'); end;
create trigger job_moved after update of state on job when new.state <> old.state
  begin
    insert into journal(at, kind, worker, data) values (
      coalesce(new.ended, new.started, new.created), {int(EventKind.JOB)}, new.worker,
      json_object('job', new.id, 'kind', new.kind, 'from', old.state, 'to', new.state, 'note', new.note));
  end;

-- What the driver of this file proves itself with to agents on other machines.
insert into meta(k, v) values ('key', lower(hex(randomblob(32))));
drop view workers;
"""
_VIEWS_3 = f"""
create view workers as select
{_WORKERS},
  worker.address, worker.link ->> '$.how' as link, worker.silent_ms / 1000.0 as silent
  from worker;
create view jobs as select
  job.id, job.kind, worker.name as worker, {_words("job.state", {j: j.word for j in JobState})} as state, job.step, job.progress,
  job.created / 1000.0 as created, job.started / 1000.0 as started, job.ended / 1000.0 as ended, job.tries, job.note
  from job left join worker on worker.id = job.worker;
"""


def _bring_fleet(db: apsw.Connection) -> None:
    for _ in db.execute(_FLEET + _VIEWS_3):
        pass


# --- schema 4: workflows -----------------------------------------------------------------------------------------------------

_WORKFLOWS = """
-- What a script declared under one name. `settings`: the arguments of the workflow that were given; `script`: which program
-- declared it; `declared`: when it last put its tasks in the queue; `started`, `ended`: of its last run.
create table workflow(
  id integer primary key autoincrement, name text not null unique check(name <> ''), created integer not null,
  declared integer, started integer, ended integer,
  settings text not null default '{}' check(json_valid(settings)), script text) strict;
-- A step of a workflow is a batch: `step` is its name there, `position` its place among the steps.
alter table batch add column workflow integer references workflow(id) on delete set null;
alter table batch add column step text;
alter table batch add column position integer;
create index batch_workflow on batch(workflow) where workflow is not null;
-- The tasks that a workflow declared, found again by (batch, name). `digest`: of what was declared, which no edit in the queue
-- changes; `seen`: what was found at its inputs and resources then; `origin`: the task whose end declared it; `grown`: whether
-- it was declared while the workflow ran already. Without a name: one that another took the place of.
create table member(
  task integer primary key references task(id) on delete cascade,
  workflow integer not null references workflow(id) on delete cascade,
  batch integer not null references batch(id) on delete cascade,
  name text, digest text not null, position integer not null, seen text check(json_valid(seen)),
  origin integer references task(id) on delete set null, grown integer not null default 0, unique(batch, name)) strict;
create index member_workflow on member(workflow, position);
create index member_origin on member(origin) where origin is not null;
-- The rules that get workers for a batch, tried by rank.
create table recruiter(
  batch integer not null references batch(id) on delete cascade, rank integer not null check(rank > 0),
  tasks_per_worker integer check(tasks_per_worker > 0), flavor text, provider text, region text,
  concurrency integer check(concurrency >= 0), prefetch integer check(prefetch >= 0),
  minimum_tasks integer check(minimum_tasks >= 0), maximum_workers integer check(maximum_workers >= 0),
  settings text not null default '{}' check(json_valid(settings)), primary key(batch, rank)) strict, without rowid;
drop view tasks;
"""
_VIEWS_4 = f"""
create view tasks as select
{_TASKS},
  task.spec ->> '$.input' as input, task.spec ->> '$.resource' as resource, task.spec ->> '$.output' as output,
  coalesce(task.spec ->> '$.use_cache', 0) as use_cache,
  task.spec ->> '$.container' as container,
  (select name from workflow where workflow.id = batch.workflow) as workflow, batch.step
  from task join batch on batch.id = task.batch;
create view workflows as select
  workflow.id, workflow.name, workflow.created / 1000.0 as created, workflow.declared / 1000.0 as declared,
  workflow.started / 1000.0 as started, workflow.ended / 1000.0 as ended, workflow.script,
  (select count(*) from batch where batch.workflow = workflow.id) as steps,
  (select coalesce(sum(n), 0) from counter join batch on batch.id = counter.batch where batch.workflow = workflow.id) as tasks,
  (select coalesce(sum(n), 0) from counter join batch on batch.id = counter.batch
    where batch.workflow = workflow.id and state = {int(_S.SUCCEEDED)}) as succeeded,
  (select coalesce(sum(n), 0) from counter join batch on batch.id = counter.batch
    where batch.workflow = workflow.id and state in ({_BAD})) as failed,
  (select coalesce(sum(n), 0) from counter join batch on batch.id = counter.batch
    where batch.workflow = workflow.id and state in ({_LIVE})) as live
  from workflow;
"""


def _bring_workflows(db: apsw.Connection) -> None:
    for _ in db.execute(_WORKFLOWS + _VIEWS_4):
        pass
    # What is queued may be kept for debugging.
    moves = [(int(src), int(dst)) for src, targets in TASK_MOVES.items() for dst in sorted(targets)]
    db.executemany("insert or ignore into task_move values (?, ?)", moves)


# --- schema 5: notices, ends of batches, trends of workers ---------------------------------------------------------------------

_NOTICES = f"""
-- What was seen or put aside of what needs a person, as it was then (`mark`): something else since makes it new again. Most
-- notices are found anew each time by looking; what only one who was there can know stands in `data` (its kind, text, actions).
create table notice(
  key text primary key check(key <> ''), at integer not null, mark text not null default '', seen integer, dismissed integer,
  data text check(json_valid(data))) strict, without rowid;
-- How busy the machines of workers were: a row every half minute at most, the newest ones only.
create table sample(
  worker integer not null references worker(id), at integer not null, load real, cpu real, memory_free integer,
  disk_free integer, net_in integer, net_out integer, primary key(worker, at)) strict, without rowid;
create trigger worker_gone after update of state on worker
  when new.state = {int(WorkerState.GONE)} and old.state <> {int(WorkerState.GONE)}
  begin delete from sample where worker = new.id; end;
-- `began`: since when there has been work whose end was not told yet; `told`: when an end was told last.
alter table batch add column began integer;
alter table batch add column told integer;
alter table workflow add column began integer;
alter table workflow add column told integer;
create view samples as select
  worker.name as worker, sample.at / 1000.0 as at, sample.load, sample.cpu as cpu_use, sample.memory_free, sample.disk_free,
  sample.net_in, sample.net_out
  from sample join worker on worker.id = sample.worker;
"""


def _bring_notices(db: apsw.Connection) -> None:
    for _ in db.execute(_NOTICES):
        pass


# --- schema 6: machines for rent, and money (the tables: see `schema6`) ---------------------------------------------------------

_VIEWS_6 = f"""
drop view executions;
create view executions as select
{_EXECUTIONS},
  {_words("execution.stage", {s: s.word for s in Stage})} as stage, manifest.address as delivered,
  json_array_length(manifest.files) as files,
  iif(manifest.files is null, null, (select coalesce(sum(value ->> 1), 0) from json_each(manifest.files))) as delivered_bytes,
  execution.image, execution.cached_from, execution.cost / 1e9 as cost,
  iif(execution.cost is null, null, (select currency from rental where rental.worker = execution.worker)) as currency
  from execution join task on task.id = execution.task join batch on batch.id = task.batch
  left join worker on worker.id = execution.worker left join manifest on manifest.execution = execution.id;
"""


def _bring_machines(db: apsw.Connection) -> None:
    schema6.create(db)
    for _ in db.execute(_VIEWS_6):
        pass


# An older scitq would take any worker for its own machine, and a newer kind of event for damage; and place tasks on workers
# that their step must not have, and forget machines that cost money.
SCHEMA = Schema(
    application_id=APPLICATION_ID,
    migrations=(_create, _bring_data, _bring_fleet, _bring_workflows, _bring_notices, _bring_machines),
    min_reader=3,
    min_writer=6,
)
