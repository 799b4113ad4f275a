"""`scitq run` and `scitq launch`: a command from the command line becomes a task."""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import threading
import time
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import click

from scitq.container import check_options
from scitq.engine import Engine
from scitq.errors import BadInput, NoDriver, ScitqError
from scitq.handle import Task
from scitq.shell import facts
from scitq.shell.answers import Text
from scitq.shell.attention import Attention
from scitq.shell.show import Screen
from scitq.shell.table.former import SERVER
from scitq.states import TaskState
from scitq.store import listing
from scitq.submitter import DATA
from scitq.task import TaskRow, check_command

SECOND_CHANCE_S = 2.0
# Options that go to the engine as they are, under their own names.
SIMPLE_CONDITIONS = (
    "retry_delay",
    "retry_memory",
    "retry_timeout",
    "run_timeout",
    "priority",
    "cpus",
    "memory",
    "gpus",
)
CONTAINER = ("container", "container_options")
_SHELL_SIGNS = re.compile(r"[|<>;&`]|\$[({A-Za-z]")


def run(engine: Engine, args: SimpleNamespace) -> Text | int:
    """Queue a task, show what it writes as it writes it, and end as it ends."""
    screen: Screen = args.screen
    task = engine.submit(**submission(args, screen))
    code = accompany(engine, task, screen, stream=not screen.as_json)
    if not screen.as_json:
        return code
    data = {**facts.task_facts(task.row(), facts.latest(task)), "stdout": task.stdout(), "stderr": task.stderr()}
    return Text("", data, code=code)


def launch(engine: Engine, args: SimpleNamespace) -> Text | int:
    """Queue a task and say its number."""
    screen: Screen = args.screen
    if args.server:
        raise click.UsageError(SERVER)
    wanted = submission(args, screen)
    if args.test:
        return _rehearse(engine, wanted)
    task = engine.submit(**wanted)
    notes = [] if args.drive else facts.nobody_drives(engine)
    answer = Text(str(task.id), facts.task_facts(task.row(), None), notes)
    if not args.drive:
        return answer
    screen.answer(answer)
    return accompany(engine, task, screen, stream=False)


def _rehearse(engine: Engine, wanted: dict[str, Any]) -> Text:
    name, batch, priority, text, parents, _ = engine._submitter.prepare(dict(wanted))
    spec = listing.spec_of(text)
    command, shell = check_command(wanted["command"], wanted.get("shell", False))
    said = {"name": name, "batch": batch, "command": command, "shell": shell, "priority": priority, "requires": parents}
    said |= {key: wanted[key] for key in ("retry", *SIMPLE_CONDITIONS, "env") if key in wanted}
    said |= {key: value for key in (*DATA, *CONTAINER) if (value := getattr(spec, key)) not in ((), None)}
    lines = [f"{key:<12}{value}" for key, value in said.items() if value not in (None, [], {}, 0)]
    return Text("\n".join(lines), said, ["Nothing was queued."])


def submission(args: SimpleNamespace, screen: Screen) -> dict[str, Any]:
    """The arguments of `Engine.submit` that the options say."""
    command, shell = words(args.command, args.shell)
    if isinstance(command, str) and not shell and _SHELL_SIGNS.search(command):
        screen.say("No shell runs this: | > ; $ and the like are passed on as they are. With a shell: --shell")
    wanted: dict[str, Any] = {"command": command, "name": args.name, "batch": args.batch, **conditions(args)}
    if shell:
        wanted["shell"] = shell
    as_user(wanted, args.uid, args.gid)
    return wanted


def as_user(wanted: dict[str, Any], uid: str | None, gid: str | None) -> None:
    """Have it run as a user and group: by the container engine, or else by sudo, as in scitq 1."""
    if uid is None and gid is None:
        return
    if "container" in wanted:
        if uid is None:
            raise click.UsageError("with a container, -g needs -u: -u 1000 -g 1000")
        given = wanted.get("container_options", [])
        wanted["container_options"] = [*given, "--user", uid if gid is None else f"{uid}:{gid}"]
        return
    command, shell = check_command(wanted["command"], wanted.pop("shell", None))
    # A script becomes a word: who runs it as another user is sudo.
    named = (
        [shell, "-c", command] if shell is not None else shlex.split(command) if isinstance(command, str) else command
    )
    who = [
        f"{flag}#{number}" if number.isdecimal() else f"{flag}{number}"
        for flag, number in (("-u", uid), ("-g", gid))
        if number
    ]
    wanted["command"] = ["sudo", *who, "--", *named]


def words(given: Sequence[str], shell: str | None) -> tuple[str | list[str], str | None]:
    """The command as `Engine.submit` takes it: one word with spaces is a line to split, several are taken as they are."""
    if shell is not None and len(given) != 1:
        raise click.UsageError(
            "with --shell, COMMAND is one quoted word, and options stand before it: --shell 'zcat *.gz | wc -l'"
        )
    if len(given) == 1 and (shell is not None or any(char.isspace() for char in given[0])):
        return given[0], shell
    return list(given), None


def conditions(args: SimpleNamespace) -> dict[str, Any]:
    """Retry, limits, priority, requests, environment and requirements, as far as they were given."""
    wanted: dict[str, Any] = {
        key: value for key in SIMPLE_CONDITIONS if (value := getattr(args, key, None)) is not None
    }
    if getattr(args, "retry", None) is not None:
        wanted["retry"] = retries(args.retry)
    wanted |= data(args)
    if args.env:
        wanted["env"] = environment(args.env)
    if getattr(args, "container", None) is not None:
        wanted["container"] = args.container or None
    if getattr(args, "container_options", ()):
        wanted["container_options"] = [word for text in args.container_options for word in check_options("-O", text)]
    if getattr(args, "requires", ()):
        wanted["requires"] = requirements(args.requires)
    return wanted


def retries(text: str) -> int | dict[str, Any]:
    """`3`, or `timed_out=2,exit:137=1,any=1`."""
    if text.strip().isdecimal():
        return int(text)
    found: dict[str, Any] = {}
    for part in text.split(","):
        what, _, count = part.strip().rpartition("=")
        cause, colon, code = what.partition(":")
        if (
            not what
            or not count.isdecimal()
            or (colon and cause != "exit")
            or (cause == "exit" and not colon and "exit" in found)
        ):
            raise BadInput(
                f"--retry {text}: {part.strip()!r} is not understood. It is a number, or as in timed_out=2,exit:137=1,any=1."
            )
        if not colon:
            found[cause] = int(count)
        elif isinstance(found.setdefault(cause, {}), dict):
            found[cause][code] = int(count)
        else:
            raise BadInput(
                f"--retry {text}: exit={found[cause]} is for all codes; name all of them, and any=N for the others."
            )
    return found


def data(args: SimpleNamespace) -> dict[str, Any]:
    """Input, resources, output and what goes with them, as far as they were given; '' for none."""
    wanted: dict[str, Any] = {}
    for key in ("input", "resource"):
        if getattr(args, key, ()):
            wanted[key] = [text for text in getattr(args, key) if text]
    if getattr(args, "output", None) is not None:
        wanted["output"] = args.output or None
    for key in ("overwrite", "skip_if_exists"):
        if getattr(args, key, False):
            wanted[key] = True
    if getattr(args, "no_keep_failed", False):
        wanted["keep_failed"] = False
    if getattr(args, "no_cache", False) or getattr(args, "use_cache", False):
        wanted["use_cache"] = not args.no_cache
    limits = (getattr(args, key, None) for key in ("stage_in_timeout", "download_timeout"))
    for limit in limits:
        if limit is not None:
            wanted["stage_in_timeout"] = limit
    return wanted


def environment(pairs: Sequence[str]) -> dict[str, str]:
    """`NAME=VALUE`, or `NAME` for the value that it has here."""
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            if name not in os.environ:
                raise BadInput(f"-e {name}: there is no such variable here. Give its value: -e {name}=VALUE")
            value = os.environ[name]
        found[name] = value
    return found


def requirements(given: Sequence[str]) -> list[int | str]:
    """Numbers and names by comma; numbers also by space, as in scitq 1."""
    found: list[int | str] = []
    for one in given:
        for part in one.split(","):
            numbers = part.split()
            if all(number.isdecimal() for number in numbers):
                found += [int(number) for number in numbers]
            else:
                found.append(part.strip())
    return found


# --- staying with a task ------------------------------------------------------------------------------------------------------


class Follower:
    """A thread that passes on what a task writes until it is over."""

    def __init__(self, task: Task, screen: Screen, attention: Attention, *, stream: bool) -> None:
        self.is_over = False
        self.is_deaf = False
        self.problem: ScitqError | None = None
        self._task, self._screen, self._attention, self._stream = task, screen, attention, stream
        self._thread = threading.Thread(target=self._run, name="scitq-follow", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            if self._stream:
                for stream, piece in self._task.pieces():
                    self._screen.exact(1 + stream, piece)
            else:
                self._task.wait()
        except BrokenPipeError:
            self.is_deaf = True
        except ScitqError as problem:
            self.problem = problem
        finally:
            self.is_over = True
            self._attention.wake(urgently=True)


def accompany(engine: Engine, task: Task, screen: Screen, *, stream: bool) -> int:
    """Stay until the task is over; gives its exit code. Ctrl-C leaves it running, twice cancels it."""
    with Attention() as attention:
        follower = Follower(task, screen, attention, stream=stream)
        leave_at: float | None = None
        has_cancelled = False
        while not follower.is_over:
            attention.wait(0.5 if leave_at is None or has_cancelled else max(0.0, leave_at - time.monotonic()))
            if attention.is_asked_to_end or attention.interrupts > 2:
                return _leave(task, screen, engine, 143 if attention.is_asked_to_end else 130)
            if attention.interrupts and leave_at is None:
                leave_at = time.monotonic() + SECOND_CHANCE_S
                screen.say(f"\n{_goes_on(engine, task)} Ctrl-C again within {SECOND_CHANCE_S:.0f} s cancels it.")
            if attention.interrupts > 1 and not has_cancelled:
                has_cancelled = True
                screen.say(f"Cancelling task {task.id} …")
                task.cancel()
            if leave_at is not None and not has_cancelled and time.monotonic() >= leave_at:
                facts.hush()
                return 130
            _look_for_driver(engine, task)
    if follower.is_deaf:
        facts.hush()
        if not task.state.is_settled:
            screen.say(_goes_on(engine, task))
        return 141
    if follower.problem is not None:
        raise follower.problem
    row, last = task.row(), facts.latest(task)
    _epitaph(task, row, screen)
    return 130 if attention.interrupts else facts.exit_code(row, last)


def _leave(task: Task, screen: Screen, engine: Engine, code: int) -> int:
    facts.hush()
    screen.say(_goes_on(engine, task))
    return code


def _goes_on(engine: Engine, task: Task) -> str:
    label = task.row().label
    if task.state.is_live:
        see = facts.command_for(engine, f"task output -f {task.id}")
        return f"Task {label} goes on. To see it: {see} · to bring it home: {facts.command_for(engine, 'up')}."
    return f"Task {label} stays queued. To go on: {facts.command_for(engine, 'up')}."


def _look_for_driver(engine: Engine, task: Task) -> None:
    """Somebody may ask this process to stop driving (scitq down): then nothing more comes."""
    driver = engine._driver
    if driver is not None and driver.ended.is_set() and facts.driver_of(engine) is None and not task.state.is_settled:
        facts.hush()
        reason = engine._driver_problem
        raise NoDriver(f"{reason or 'scitq down stopped the driver.'} {_goes_on(engine, task)}")


def _epitaph(task: Task, row: TaskRow, screen: Screen) -> None:
    """Why it ended badly, where its own output may not say so. Into a pipe its stderr goes as it is, nothing added."""
    if row.state is TaskState.SUCCEEDED or screen.as_json:
        return
    last = facts.latest(task)
    by_itself = row.state is TaskState.FAILED and last is not None and last.exit_code and not last.detail
    if screen.errors_are_terminal or not by_itself:
        with contextlib.suppress(ScitqError):
            screen.error(task.why())
