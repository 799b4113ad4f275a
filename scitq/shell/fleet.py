"""`worker add`, `drain`, `pause`, `resume`, `restart`, `clean`, `lost`, `delete`, `shell`, and `job list`: workers as a fleet."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scitq.engine import Engine
from scitq.entering import alone
from scitq.errors import BadInput, WorkerFailed
from scitq.remote.login import way
from scitq.shell import facts
from scitq.shell.answers import Column, Rows, Seconds, Text, When, clean, duration, several
from scitq.shell.editing import Unconfirmed
from scitq.shell.show import Screen
from scitq.shell.trusting import passphrase
from scitq.shell.workers import settings_of, which
from scitq.states import JobState, WorkerState
from scitq.store import listing
from scitq.worker import LOCAL, RENTED_KIND, SSH, JobRow, WorkerRow

# --- adding ---------------------------------------------------------------------------------------------------------------------


def add(engine: Engine, args: SimpleNamespace) -> Text:
    """Make hosts workers, and show how that goes."""
    if args.name is not None and len(args.hosts) > 1:
        raise BadInput("--name is for one host; several are named as they are.")
    screen: Screen = args.screen
    given = {
        "concurrency": args.concurrency, "prefetch": _prefetch(args.prefetch), "batch": args.batch, "install": args.install,
        **settings_of(args),
    }  # fmt: skip
    if args.no_wait:
        with _without_driving(engine, args) as fresh:
            rows = [fresh.worker_add(host, name=args.name, **given) for host in args.hosts]
            notes = facts.nobody_drives(fresh)
            said = f"{', '.join(row.name for row in rows)}: to be prepared."
            return Text(said, [_told(row) for row in rows], notes)
    facts.hush()  # what there is to say is said here
    begun = time.monotonic()
    rows = [engine.worker_add(host, name=args.name, **given) for host in args.hosts]
    told, code = [], 0
    for row in rows:
        row = _prepared(engine, screen, row, begun, is_alone=len(rows) == 1)
        code = max(code, row.state is WorkerState.FAILED)
        told.append(_told(row))
    return Text("", told, [] if code else _hint(engine), code=code)


def _prepared(engine: Engine, screen: Screen, row: WorkerRow, begun: float, *, is_alone: bool) -> WorkerRow:
    """Watch a host being prepared; a key that nobody knows is asked about where there is somebody to ask."""
    while True:
        [job, *_] = [job for job in engine.jobs(row.name) if job.kind == "prepare"]
        job = _watch(engine, screen, job, row.name if not is_alone else None)
        row = engine.worker(int(row.id))
        if job.state is not JobState.FAILED:
            screen.say(f"{clean(row.name)}: {_what_it_is(row)}ready in {duration(time.monotonic() - begun)}")
            return row
        if not (
            (job.data.get("error") == "HostKeyUnknown" and _trusts(screen, row, job))
            or (job.data.get("locked") and _unlocks(screen, str(job.data["locked"])))
        ):
            screen.say(f"{clean(row.name)}: {clean(job.note or 'it failed')}")
            return row
        engine.worker_restart(row.name)


def _trusts(screen: Screen, row: WorkerRow, job: JobRow) -> bool:
    """Show the key of a host, and ask whether it is the right one."""
    screen.say(f"{clean(row.address or row.name)}: unknown host key\n  {clean(str(job.data.get('fingerprint', '')))}  "
               f"{clean(str(job.data.get('kind', '')).removeprefix('ssh-'))}")  # fmt: skip
    if not screen.ask("Accept it?"):
        return False
    from scitq.remote.hostkeys import HostKey, accept

    accept(str(job.data["name"]), [HostKey(str(job.data["kind"]), str(job.data["key"]))])
    return True


def _unlocks(screen: Screen, key: str) -> bool:
    """Ask for a key's passphrase where there is somebody who knows it; this process keeps it for its own connections."""
    from scitq.remote import sshlogin

    if key in _asked or screen.as_json:
        return False
    _asked.add(key)
    for _ in range(3):
        given = passphrase(f"Passphrase of {clean(key)}")
        if not given:
            return False
        if sshlogin.unlock(Path(key), given):
            return True
    return False


# Keys whose passphrases were asked for: once is enough.
_asked: set[str] = set()


def _watch(engine: Engine, screen: Screen, job: JobRow, name: str | None) -> JobRow:
    """Say what a job does as it does it, until it has ended."""
    shown = 0
    while True:
        seen = engine._changes.count
        job = engine.job(job.id)
        lines = job.log.splitlines()
        for line in lines[shown:]:
            screen.say(f"  {name + ': ' if name else ''}{clean(line)}")
        shown = max(shown, len(lines))
        if job.state not in (JobState.PENDING, JobState.RUNNING):
            return job
        if engine._driver_problem is not None:
            raise engine._driver_problem
        if job.note or job.step:
            screen.status_line(f"{job.kind}: {clean(job.step or '')} …")
        engine._changes.wait(seen, 1.0)


def _what_it_is(row: WorkerRow) -> str:
    """`python 3.11 · 32 cores, 250 GB, 2 x A100 · docker · `."""
    known, parts = row.facts, []
    if known.get("python"):
        parts.append(f"python {'.'.join(str(known['python']).split('.')[:2])}")
    size = f"{row.cpus:g} cores, {row.memory / 1e9:.0f} GB"
    if row.gpus:
        models = {str(one.get("name")) for one in known.get("gpu_models") or ()}
        size += f", {len(row.gpus)} x {models.pop() if len(models) == 1 else 'GPU'}"
    parts.append(size)
    return "".join(f"{clean(part)} · " for part in parts)


def _hint(engine: Engine) -> list[str]:
    """This process leaves, and with it whoever drove."""
    return facts.nobody_drives(engine) if not engine.is_driving else []


def _prefetch(text: str | None) -> int | str | None:
    if text is None or text == "auto":
        return text
    if not text.isdecimal():
        raise BadInput(f"--prefetch takes a number or auto, not {text!r}.")
    return int(text)


def _told(row: WorkerRow) -> dict[str, Any]:
    return {
        "name": row.name, "kind": row.kind, "state": row.state.word, "address": row.address, "concurrency": row.concurrency,
        "settings": dict(row.settings), "link": row.link.get("how"), "note": row.note,
    }  # fmt: skip


# --- how much it does ---------------------------------------------------------------------------------------------------------


def drain(engine: Engine, args: SimpleNamespace) -> Text:
    """Give a worker nothing more."""
    row = engine.worker_drain(which(args))
    held = engine.loads().get(int(row.id), 0)
    rest = f" It finishes {several(held, 'task')} first." if held else ""
    return Text(f"{row.name} gets nothing more.{rest} To let it go on: scitq worker resume {row.name}", _told(row))


def pause(engine: Engine, args: SimpleNamespace) -> Text:
    """Launch nothing more on a worker."""
    row = engine.worker_pause(which(args))
    return Text(
        f"{row.name} launches nothing more; what runs goes on. To let it go on: scitq worker resume {row.name}",
        _told(row),
    )


def resume(engine: Engine, args: SimpleNamespace) -> Text:
    """Let a worker go on."""
    row = engine.worker_resume(which(args))
    return Text(
        f"{row.name} goes on.", _told(row), facts.nobody_drives(engine) if facts.queued(engine.counts()) else []
    )


# --- jobs -----------------------------------------------------------------------------------------------------------------------


def restart(engine: Engine, args: SimpleNamespace) -> Text:
    """Start a worker's agent anew."""
    return _do(engine, args, lambda here: here.worker_restart(which(args)), "was started anew")


def clean_up(engine: Engine, args: SimpleNamespace) -> Text:
    """Throw away what a worker keeps for later."""
    return _do(engine, args, lambda here: here.worker_clean(which(args)), "keeps nothing for later any more")


def delete(engine: Engine, args: SimpleNamespace) -> Text:
    """End a worker, and take away everything of ours there."""
    row = engine.worker(which(args))
    held = engine.held_by(row.name)
    what = f"{row.name} ({row.address or row.kind}) is stopped, and everything of {engine.path.name} there is deleted."
    if row.kind == RENTED_KIND:
        where = " ".join(str(row.settings.get(key) or "") for key in ("provider", "region", "flavor"))
        what = f"{row.name}: its machine ({clean(where)}) is deleted, with everything on it."
    if held and row.kind == RENTED_KIND and not args.force:
        what += f" It finishes {several(len(held), 'task')} first; with --force they go to other workers at once."
    elif held:
        what += f" It holds {several(len(held), 'task')}" + (
            ", which are stopped and go to other workers." if args.force else ": say --force, or drain it first."
        )
    if not _confirmed(args, what, f"Delete {row.name}?"):
        return Text("", {"done": False}, ["Nothing was done."], code=1)
    return _do(engine, args, lambda here: here.worker_delete(row.name, force=args.force), "is deleted")


@contextlib.contextmanager
def _without_driving(engine: Engine, args: SimpleNamespace) -> Iterator[Engine]:
    """The file, by a process that only writes down what is wanted; one that goes on afterwards keeps its engine."""
    if args.surroundings is not None:
        yield engine
        return
    engine.close()
    with Engine(engine.path, drive=False) as fresh:
        yield fresh


def _do(engine: Engine, args: SimpleNamespace, begin: Any, done: str) -> Text:
    """Have a job done, here if nobody else drives, and watch it."""
    if args.no_wait:
        with _without_driving(engine, args) as fresh:
            job = begin(fresh)
            return Text(f"Job {job.id}: {job.kind} {job.worker_name}.", _job(job), facts.nobody_drives(fresh))
    job = begin(engine)
    job = _watch(engine, args.screen, job, None)
    if job.state is not JobState.SUCCEEDED:
        raise WorkerFailed(f"{job.kind} {job.worker_name}: {job.note}")
    return Text(f"{job.worker_name} {done}{'; ' + job.note if job.note else ''}.", _job(job))


def listed(engine: Engine, args: SimpleNamespace) -> Rows:
    """The latest long operations."""
    rows = [_job(job) for job in engine.jobs(args.worker, args.limit)]
    columns = [Column("id"), Column("kind"), Column("worker"), Column("state"), Column("step", worth=30),
               Column("created", worth=20), Column("took", worth=10), Column("note", gives=True, worth=44, good=12)]  # fmt: skip
    return Rows(columns, rows, [] if rows else ["No job yet."], head=bool(rows) and not args.no_header)


def show(engine: Engine, args: SimpleNamespace) -> Text:
    """What a job did."""
    if not args.job.isdecimal():
        raise BadInput(f"a job has a number, not {args.job!r}. scitq job list shows them.")
    job = engine.job(int(args.job))
    if args.follow and job.state in (JobState.PENDING, JobState.RUNNING):
        job = _watch(engine, args.screen, job, None)
        said = f"{job.kind} {job.worker_name or ''}: {job.state.word}{': ' + job.note if job.note else ''}"
        return Text(
            clean(said), {**_job(job), "log": job.log, "data": dict(job.data)}, code=int(job.state is JobState.FAILED)
        )
    head = f"job {job.id}: {job.kind}{' ' + job.worker_name if job.worker_name else ''}, {job.state.word}"
    lines = [head + (f": {job.note}" if job.note else ""), *(f"  {line}" for line in job.log.splitlines())]
    return Text(
        "\n".join(clean(line) for line in lines), {**_job(job), "log": job.log, "data": dict(job.data)}, safe=True
    )


def _job(job: JobRow) -> dict[str, Any]:
    took = None if job.started_ms is None else ((job.ended_ms or facts.now_ms()) - job.started_ms) / 1000
    return {
        "id": int(job.id), "kind": job.kind, "worker": job.worker_name, "state": job.state.word, "step": job.step,
        "created": When(job.created_ms), "tries": job.tries, "took": None if took is None else Seconds(took), "note": job.note,
    }  # fmt: skip


# --- silence ----------------------------------------------------------------------------------------------------------------------


def lost(engine: Engine, args: SimpleNamespace) -> Text:
    """Declare a worker lost, after a look at what that frees."""
    row = engine.worker(which(args))
    held = engine.held_by(row.name)
    rows = listing.select(engine._reader(), ids=[execution.task for execution in held[:5]])
    names = ", ".join(task.label for task in rows) + (" …" if len(held) > 5 else "")
    what = f"{row.name} holds {several(len(held), 'task')}" + (f" ({clean(names)})" if held else "")
    what += ". What it may still do about them counts for nothing; they run elsewhere, from their beginning."
    if row.link and row.state is not WorkerState.UNREACHABLE:
        what += " It is not silent: it is told to stop them."
    if not _confirmed(args, what, f"Declare {row.name} lost?"):
        return Text("", {"done": False}, ["Nothing was done."], code=1)
    count = engine.worker_lost(row.name)
    return Text(f"{several(count, 'task')} of {row.name} can run elsewhere.", {"freed": count}, _hint(engine))


def shell(engine: Engine, args: SimpleNamespace) -> Text | int:
    """Log in to a worker's host, as you would by hand."""
    row = engine.worker(which(args))
    if row.kind == LOCAL:
        raise BadInput(f"{row.name} is this machine: you are there.")
    if row.kind != SSH or row.address is None:
        raise BadInput(f"{row.name} is not reached by SSH.")
    words = ssh_words(row)
    if args.screen.as_json:
        return Text("", {"argv": words})
    try:
        if args.surroundings is not None:  # this process goes on after it
            return alone(lambda: subprocess.call(words))
        engine.close()
        os.execvp(words[0], words)
    except FileNotFoundError:
        raise BadInput(f"there is no program {words[0]} here. Install OpenSSH's client.") from None


def ssh_words(row: WorkerRow) -> list[str]:
    """The command line that leads to a worker's host. Keys that scitq was told to accept are known to it."""
    host, options = way(str(row.address))
    root = row.link.get("root")
    there = ["-t", host, f'cd {_quoted(str(root))} 2>/dev/null; exec "$SHELL" -l'] if root else [host]
    ssh = shlex.split(os.environ.get("SCITQ_SSH", "")) or ["ssh"]
    return [*ssh, *options, *there]


def _quoted(path: str) -> str:
    return shlex.quote(path)


def _confirmed(args: SimpleNamespace, what: str, question: str) -> bool:
    screen: Screen = args.screen
    if not screen.as_json:
        screen.say(what)
    if args.yes:
        return True
    answer = screen.ask(question)
    if answer is None:
        raise Unconfirmed(f"{question} Nothing was done: there is no terminal to ask on. To do it: --yes")
    return answer
