"""The table of commands: name, arguments, help, and the function that does it. Light: nothing is imported for a row.

A function takes the open engine (None for a row without a file) and the arguments by name, and returns `Rows` or `Text` to
print, or an exit code when it wrote as it went. Printing lives in `show`; parsing in `cli`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

Kind = Literal["text", "whole", "number", "seconds", "flag", "pair"]
SHELLS = ("sh", "bash", "dash", "zsh", "ksh", "fish")


@dataclass(frozen=True)
class Option:
    """`--flag VALUE`. The last of `flags` names it in the function's arguments, unless `key` does."""

    flags: tuple[str, ...]
    help: str
    kind: Kind = "text"
    many: bool = False
    metavar: str | None = None
    default: Any = None
    key: str | None = None
    hidden: bool = False

    @property
    def name(self) -> str:
        """The function's name for it."""
        return self.key or self.flags[-1].lstrip("-").replace("-", "_")


@dataclass(frozen=True)
class Argument:
    """A word by its place. `many`: all that are left."""

    name: str
    many: bool = False
    required: bool = True
    metavar: str | None = None


@dataclass(frozen=True)
class Command:
    """One row. `file`: whether the state file is made when there is none, must be there, or is not opened at all."""

    path: str
    does: str
    help: str
    parameters: tuple[Option | Argument, ...] = ()
    file: Literal["made", "there", "none"] = "there"
    # Whether this process may become the driver: never, always, or when one of these arguments is given.
    drives: bool | tuple[str, ...] = False
    # The first word that is no option begins the user's command: options after it are the command's own.
    wraps: bool = False
    hidden: bool = False

    def function(self) -> Callable[..., Any]:
        """What does it, imported now."""
        module, name = self.does.split(":")
        found: Callable[..., Any] = getattr(import_module(f"scitq.shell.{module}"), name)
        return found


_COMMAND = Argument("command", many=True, metavar="COMMAND…")
_IDS = Argument("ids", many=True, required=False, metavar="ID|NAME…")
_ID = Argument("task", required=False, metavar="ID|NAME")
# The letters of scitq 1: a task by number or by name.
_BY_ID = Option(("-i", "--id"), "The task of this number.", many=True, metavar="ID", key="by_id", hidden=True)
_BY_NAME = Option(("-n", "--name"), "The task of this name.", many=True, metavar="NAME", key="by_name", hidden=True)

_NAME = Option(("-n", "--name"), "A name for the task.")
_BATCH = Option(("-b", "--batch"), "The batch it belongs to.")
_REQUIRES = Option(("-R", "--requirements"), "Tasks that must succeed first: numbers or names, by comma; repeatable.", many=True,
                   metavar="IDS", key="requires")  # fmt: skip
_RETRY = Option(("--retry",), "Further tries after a failure; or by cause: timed_out=2,exit:137=1,any=1 (exit, timed_out, out_of_memory, "
                "stage_in, collect, any).", metavar="N|CAUSE=N,…")  # fmt: skip
_RETRY_MORE = (
    Option(("--retry-memory",), "So many times the memory for the next try, after one that ran out of it; up to the largest worker's.",
           "number", metavar="FACTOR"),
    Option(("--retry-timeout",), "So many times the time, after one that took too long.", "number", metavar="FACTOR"),
)  # fmt: skip
_RUN_TIMEOUT = Option(("--run-timeout",), "Stop it when it has run this long.", "seconds", metavar="SECONDS")
_PRIORITY = Option(("--priority",), "Higher goes first; 0 if not given.", "whole", metavar="N")
_ENV = Option(("-e", "--env"), "A variable for its environment; NAME alone takes today's value. Repeatable.", "pair", many=True,
              metavar="NAME=VALUE")  # fmt: skip
_SHELL = Option(
    ("--shell",), "COMMAND is one quoted script for sh; --shell=bash (zsh, …) for another shell.", metavar="[=bash]"
)
_CPUS = Option(("--cpus",), "CPUs it needs while it runs; 0: nothing in particular.", "number", metavar="N")
_MEMORY = Option(("--memory",), "Memory it needs while it runs: 16G, 500M.", metavar="SIZE")
_GPUS = Option(("--gpus",), "GPUs it needs while it runs.", "whole", metavar="N")
_NEEDS = (_CPUS, _MEMORY, _GPUS)
_INPUT = Option(("-i", "--input"), "Data it reads, in $INPUT: a path, a URI, or task://12 for what task 12 leaves; repeatable.", many=True,
                metavar="URI")  # fmt: skip
_RESOURCE = Option(("-r", "--resource"), "Data that tasks share, in $RESOURCE; repeatable.", many=True, metavar="URI")
_OUTPUT = Option(("-o", "--output"), "The folder where what it leaves in $OUTPUT goes.", metavar="URI")
_KEEP_CACHE = Option(("--keep-cache",), "Their results may still be taken.", "flag")
_CACHE = (
    Option(("--use-cache",), "Take the result of an equal task if there is one.", "flag"),
    Option(("--no-cache",), "Run it, whatever the batch's defaults say.", "flag"),
)
_DATA = (
    _INPUT, _RESOURCE, _OUTPUT,
    Option(("--overwrite",), "Put it there though there is something of others.", "flag"),
    Option(("--skip-if-exists",), "Succeed at once if the output is there, complete.", "flag"),
    Option(("--no-keep-failed",), "Drop what a failed try left.", "flag"),
    Option(("--stage-in-timeout",), "Limit for fetching its data.", "seconds", metavar="SECONDS"),
    Option(("--download-timeout",), "What --stage-in-timeout is, in scitq 1.", "seconds", metavar="SECONDS", hidden=True),
)  # fmt: skip
_CONTAINER = (
    Option(("-d", "--docker", "--container"), "The image of the container it runs in.", metavar="IMAGE"),
    Option(("-O", "--option", "--container-options"), "Options for the container engine, such as '--gpus all'; repeatable.", many=True,
           metavar="TEXT"),
)  # fmt: skip
_USER = (
    Option(("-u", "--uid"), "The user it runs as: in its container, or by sudo.", metavar="UID"),
    Option(("-g", "--gid"), "The group it runs as.", metavar="GID"),
)
_CONDITIONS = (
    _NAME,
    _BATCH,
    _RETRY,
    *_RETRY_MORE,
    _RUN_TIMEOUT,
    _PRIORITY,
    *_NEEDS,
    _ENV,
    _REQUIRES,
    _SHELL,
    *_CONTAINER,
    *_USER,
)
_WHERE = Option(("--where",), "All that meet a condition in SQL over the view tasks, such as \"batch='qc' and state='failed'\".",
                metavar="CONDITION")  # fmt: skip
_YES = Option(("-y", "--yes"), "Do it without asking.", "flag")
_MANY = (_IDS, _BY_ID, _BY_NAME, _WHERE, _YES)
_BATCHES = Argument("names", many=True, required=False, metavar="NAME…")
_ONE_BATCH = Argument("batch", required=False, metavar="NAME")
_BATCH_BY_NAME = Option(
    ("-n", "--name"), "The batch of this name.", many=True, metavar="NAME", key="by_name", hidden=True
)
_NO_HEAD = Option(("-H", "--no-header"), "No headings.", "flag")
_LONG = Option(("-L", "--long"), "More columns, nothing cut.", "flag")

LAUNCH = Command(
    "launch", "submitting:launch",
    """Queue COMMAND, print the task's number and return.

    One word with spaces is split as a shell would split it; several words are taken as they are. No shell runs either:
    for pipes and > use --shell.""",
    (
        _COMMAND, *_CONDITIONS, *_DATA, *_CACHE,
        Option(("-t", "--test"), "Say what would be queued; queue nothing.", "flag"),
        Option(("--drive",), "Drive the file until the task is over.", "flag"),
        Option(("-s", "--server"), "scitq 1 only.", hidden=True),
    ),
    file="made", drives=("drive",), wraps=True,
)  # fmt: skip

COMMANDS: tuple[Command, ...] = (
    Command(
        "run", "submitting:run",
        """Run COMMAND as a task: its output comes live, and its exit code is ours.

        One word with spaces is split as a shell would split it; several words are taken as they are. No shell runs either:
        for pipes and > use --shell. Ctrl-C leaves the task running; a second one within 2 s cancels it.""",
        (_COMMAND, *_CONDITIONS, *_DATA, *_CACHE), file="made", drives=True, wraps=True,
    ),
    LAUNCH,
    Command(
        "up", "driving:up",
        """Drive the file: start what is queued, bring results home, until Ctrl-C.

        Ctrl-C stops handing out tasks; what runs goes on. A second one within 2 s cancels everything queued and running.""",
        (
            Option(("--detach",), "Leave a driver behind and return.", "flag"),
            Option(("--until-done",), "End when nothing is queued or running.", "flag"),
            Option(("--take-over",), "Drive even though another machine said so lately, or a driver here stands still.", "flag"),
            Option(("--detached",), "This is what --detach left behind.", "flag", hidden=True),
        ),
        file="made", drives=True,
    ),
    Command(
        "down", "driving:down",
        """Ask whoever drives the file to stop. What runs goes on unless you say otherwise.""",
        (
            Option(("--wait",), "Start nothing more, wait for what runs, then stop.", "flag"),
            Option(("--cancel",), "Start nothing more, cancel what runs, then stop. What is queued stays queued.", "flag"),
        ),
        drives=("wait", "cancel"),
    ),
    Command("status", "looking:status", "Who drives, what runs, what needs you."),
    Command(
        "task list", "tasks:listed", "The newest tasks.",
        (
            Option(("-S", "--status"), "Only tasks in this state; repeatable, or by comma.", many=True, metavar="STATE"),
            Option(("-b", "--batch"), "Only this batch.", metavar="BATCH"),
            Option(("-n", "--name"), "Only tasks of this name; * and ? match anything.", metavar="NAME"),
            Option(("--failed",), "Only what failed, and how.", "flag"),
            _WHERE,
            Option(("--limit",), "How many at most; 0: all.", "whole", metavar="N", default=50),
            _LONG, _NO_HEAD,
        ),
    ),
    Command("task show", "tasks:show", "Everything about a task.", (_ID, _BY_ID, _BY_NAME)),
    Command(
        "task output", "tasks:output",
        """What a task wrote, to the byte: its stdout to stdout, its stderr to stderr.

        On a terminal, control sequences other than colours are shown rather than obeyed.""",
        (
            _ID, _BY_ID, _BY_NAME,
            Option(("-f", "--follow"), "Go on as it writes, until it is over.", "flag"),
            Option(("-o", "--stdout"), "Only its stdout.", "flag"),
            Option(("-e", "--stderr"), "Only its stderr (to stdout).", "flag"),
            Option(("-x", "--execution"), "Of this execution; the latest if not given.", "whole", metavar="ID"),
        ),
    ),
    Command("task why", "tasks:why", "What tasks are waiting for, or how they ended.", (_IDS, _BY_ID, _BY_NAME)),
    Command(
        "task stats", "stats:stats",
        """What tasks used beside what they asked for, by batch, and what to ask for.

        CPUs: how many were busy (95 of 100 tasks had no more). Memory: of the largest process of a task; one that runs several
        large ones at once needs more. The proposal comes after 3 successes: so many CPUs, and the largest memory with a fifth
        on top; or twice what was too little for a task.""",
        (Option(("-b", "--batch"), "Only this batch.", metavar="BATCH"), _LONG, _NO_HEAD),
    ),
    Command("task relaunch", "editing:relaunch", "Queue ended tasks once more; what they blocked goes on.", _MANY),
    Command("task cancel", "editing:cancel", "Stop tasks: queued ones at once, running ones with TERM, then KILL.", _MANY),
    Command("task pause", "editing:pause", "Keep tasks from being launched; those that run are stopped where they are.", _MANY),
    Command("task resume", "editing:resume", "Let paused tasks go on, from where they were stopped.", _MANY),
    Command(
        "task delete", "editing:delete", "Remove tasks with their history from the file. Asks first; what they delivered stays.",
        (*_MANY, _KEEP_CACHE),
    ),
    Command(
        "task update", "editing:update", "Edit tasks that are not launched yet; what a worker holds ready is called back for it.",
        (
            _ID, _BY_ID, _BY_NAME, _WHERE, _YES,
            Option(("-N", "--new-name"), "Its new name.", metavar="NAME"),
            Option(("-c", "--command"), "Its new command.", metavar="COMMAND"),
            Option(("--shell",), "The command is a script for sh; --shell=bash for another.", metavar="[=bash]"),
            Option(("-b", "--batch"), "Its new batch."),
            Option(("-R", "--requirements"), "What it requires from now on; '' for nothing.", many=True, metavar="IDS", key="requires"),
            _RETRY, *_RETRY_MORE, _RUN_TIMEOUT, _PRIORITY, *_NEEDS, _ENV,
            Option(("-j", "--input"), "Its new input, all of it; '' for nothing. Repeatable.", many=True, metavar="URI"),
            Option(("-r", "--resource"), "Its new resources, all of them; '' for nothing. Repeatable.", many=True, metavar="URI"),
            Option(("-o", "--output"), "Where its output goes from now on; '' for the folder beside the file.", metavar="URI"),
            *_DATA[3:], *_CONTAINER, *_CACHE,
        ),
    ),
    Command(
        "cache list", "caching:listed",
        """The results that tasks may take, the newest first: how old and how large, how often they were taken.""",
        (
            Option(("--older-than",), "Only those of so many days ago.", "number", metavar="DAYS"),
            Option(("--limit",), "How many at most; 0: all.", "whole", metavar="N", default=50),
            _LONG, _NO_HEAD,
        ),
    ),
    Command(
        "cache explain", "caching:explain", "What the key of a task is made of; of two tasks, what differs.",
        (Argument("task", metavar="ID|NAME"), Argument("other", required=False, metavar="ID|NAME")),
    ),
    Command(
        "cache forget", "caching:forget", "Take results no more. Asks first; their tasks and files stay.",
        (
            _IDS,
            Option(("--older-than",), "Those of so many days ago.", "number", metavar="DAYS"),
            Option(("--all",), "All of them.", "flag"),
            _YES,
        ),
    ),
    Command("worker list", "workers:listed", "The workers.", (_LONG, _NO_HEAD)),
    Command(
        "worker show", "workers:show", "Everything about a worker: what it is, how busy, and what it has done.",
        (
            Argument("worker", required=False, metavar="NAME"),
            Option(("-i", "--id"), "The worker of this number.", "whole", key="by_id", hidden=True),
            Option(("-n", "--name"), "The worker of this name.", key="by_name", hidden=True),
        ),
    ),
    Command(
        "worker update", "workers:update", "Change how much a worker runs at once, or what it has for tasks that ask.",
        (
            Argument("worker", required=False, metavar="NAME"),
            Option(("-i", "--id"), "The worker of this number.", "whole", key="by_id", hidden=True),
            Option(("-n", "--name"), "The worker of this name.", key="by_name", hidden=True),
            Option(("-C", "--concurrency"), "Tasks at once.", "whole", metavar="N"),
            Option(("-p", "--prefetch"), "Tasks held ready beyond those; auto: as short tasks need it.", metavar="N|auto"),
            Option(("--cpus",), "CPUs it has for tasks that ask; auto: as its agent finds.", metavar="N|auto"),
            Option(("--memory",), "Memory it has: 64G.", metavar="SIZE|auto"),
            Option(("--gpus",), "GPUs it has: how many, or their ids by comma.", metavar="N|IDS|auto"),
            Option(("--limits",), "Whether tasks that start from now on are held to the memory and CPUs they ask for.", metavar="on|off"),
            Option(("--container-engine",), "What runs containers: docker, podman, apptainer or singularity; auto: the first found.",
                   metavar="NAME|auto"),
            Option(("--output-cap",), "How much it keeps of each stream of a task; auto: 1 GiB.", metavar="SIZE|auto"),
        ),
    ),
    Command("batch list", "batches:listed", "The batches: how far they are, whether they go on, their defaults.", (_NO_HEAD,)),
    Command("batch pause", "batches:pause", "Launch nothing more of a batch; what runs goes on to its end.", (_BATCHES, _BATCH_BY_NAME)),
    Command("batch stop", "batches:pause", "What batch pause is, in scitq 1.", (_BATCHES, _BATCH_BY_NAME), hidden=True),
    Command(
        "batch suspend", "batches:suspend", "Launch nothing more of a batch, and stop what runs where it is.", (_BATCHES, _BATCH_BY_NAME),
    ),
    Command("batch go", "batches:go", "Let a batch go on.", (_BATCHES, _BATCH_BY_NAME)),
    Command(
        "batch cancel", "batches:cancel", "Cancel what is queued or running of a batch. Asks first.", (_ONE_BATCH, _BATCH_BY_NAME, _YES),
    ),
    Command(
        "batch delete", "batches:delete", "Delete a batch of which nothing runs: its tasks with their history, its defaults. Asks first.",
        (_ONE_BATCH, _BATCH_BY_NAME, _YES, _KEEP_CACHE),
    ),
    Command(
        "batch set", "batches:defaults",
        """Give a batch defaults: what its tasks get, from now on, where they say nothing themselves.

        Tasks that are in the file already keep what they have. -e replaces the variables of before.""",
        (
            _ONE_BATCH, _BATCH_BY_NAME, _RETRY, *_RETRY_MORE,
            Option(("--retry-delay",), "Wait before the first retry; twice as long before each further one.", "seconds", metavar="SECONDS"),
            _RUN_TIMEOUT, _PRIORITY, *_NEEDS, _ENV, _RESOURCE, *_DATA[3:], *_CONTAINER, *_CACHE,
            Option(("--clear",), "Take away the defaults it has.", "flag"),
        ),
        file="made",
    ),
    Command(
        "journal", "looking:journal", "What happened.",
        (
            Option(("-f", "--follow"), "Go on as things happen.", "flag"),
            Option(("-n", "--lines"), "How many at most.", "whole", metavar="N"),
            Option(("--since",), "After the entry of this number.", "whole", metavar="N"),
        ),
    ),
    Command(
        "sql", "sqlcommands:sql",
        """Ask the file with a SELECT, of the views tasks, executions and workers or any table.

        For example: scitq sql "select batch, state, count(*) from tasks group by 1, 2". It can only read.""",
        (
            Argument("query", metavar="SELECT"),
            Option(("--csv",), "Print CSV.", "flag"),
            Option(("--timeout",), "Stop it after this long; 30 s if not given.", "seconds", metavar="SECONDS"),
            _NO_HEAD,
        ),
    ),
    Command(
        "export", "sqlcommands:export", "Write the tasks to a new FILE: .csv, .json, or .sqlite for all there is.",
        (
            Argument("target", metavar="FILE"),
            Option(("--table",), "tasks, executions, workers or journal.", metavar="TABLE"),
        ),
    ),
    Command(
        "purge", "sqlcommands:purge",
        """Delete old ended tasks with their executions, logs and journal entries; without --yes, only say what would go.

        What tasks delivered is not touched, and neither is what something unfinished requires.""",
        (
            Option(("--older-than",), "Whose last change is so many days ago.", "number", metavar="DAYS"),
            Option(("--keep-failed",), "Not the failed ones.", "flag"),
            _KEEP_CACHE,
            Option(("-y", "--yes"), "Do it.", "flag"),
        ),
    ),
    Command(
        "check", "sqlcommands:check", "Is the state file sound? Exit code 1 if it is not.",
        (Option(("--repair",), "Put what can be read of a damaged file into the new file NEW.", metavar="NEW"),),
    ),
    Command(
        "config rclone", "config:rclone",
        """Show the remotes of your rclone configuration, without what may be secret.

        Addresses such as s3://bucket/x name them.""",
        (
            Option(("--show",), "Show them; so does no option at all.", "flag"),
            Option(("--check",), "List each, and say which cannot be. Exit code 1 if any.", "flag"),
            Option(("--install",), "Bring the remotes of FILE into your configuration. Asks first; the old file is kept.", metavar="FILE"),
            _YES,
        ),
        file="none",
    ),
    Command("backup", "looking:backup", "Copy the state file to FILE, whole, while work goes on.", (Argument("target", metavar="FILE"),)),
    Command(
        "demo", "demo:demo", "Real work on real E. coli reads, on this machine, in half a minute.",
        (
            Option(("--dir",), "Where demo.scitq and demo-results/ go; here if not given.", metavar="FOLDER"),
            Option(("--keep",), "Keep the results of an earlier demo; these go beside them.", "flag"),
        ),
        file="none",
    ),
)  # fmt: skip
