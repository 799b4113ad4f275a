"""Tasks: looking at them, changing them, what they used."""

from __future__ import annotations

from scitq.shell.table.rows import SHELLS, Command, Option
from scitq.shell.table.words import (
    BY_ID,
    BY_NAME,
    CONTAINER,
    DATA,
    ENV,
    ID,
    IDS,
    KEEP_CACHE,
    LONG,
    NEEDS,
    NO_HEAD,
    PRIORITY,
    RETRY,
    RETRY_MORE,
    RUN_TIMEOUT,
    USE_CACHE,
    WHERE,
    YES,
)

_MANY = (IDS, BY_ID, BY_NAME, WHERE, YES)

TASKS: tuple[Command, ...] = (
    Command(
        "task list", "tasks:listed", "The newest tasks.",
        (
            Option(("-S", "--status"), "Only tasks in this state; repeatable, or by comma.", many=True, metavar="STATE", takes="state"),
            Option(("-b", "--batch"), "Only this batch.", metavar="BATCH", takes="batch"),
            Option(("-n", "--name"), "Only tasks of this name; * and ? match anything.", metavar="NAME", takes="task"),
            Option(("--failed",), "Only what failed, and how.", "flag"),
            WHERE,
            Option(("--limit",), "How many at most; 0: all.", "whole", metavar="N", default=50),
            LONG, NO_HEAD,
        ),
        reads=True,
        examples=(
            "scitq task list",
            "scitq task list --failed",
            "scitq task list -S failed,blocked -b align --long",
            "scitq task list --where \"batch = 'align' and state = 'failed'\"",
        ),
        schema="tasks", aliases=("ls",),
    ),
    Command(
        "task show", "tasks:show", "Everything about a task.", (ID, BY_ID, BY_NAME),
        reads=True,
        examples=(
            "scitq task show 3",
            "scitq task show 'align s02'",
        ),
        schema="task-show",
    ),
    Command(
        "task output", "tasks:output",
        """What a task wrote, to the byte: its stdout to stdout, its stderr to stderr.

        On a terminal, control sequences other than colours are shown rather than obeyed.""",
        (
            ID, BY_ID, BY_NAME,
            Option(("-f", "--follow"), "Go on as it writes, until it is over.", "flag"),
            Option(("-o", "--stdout"), "Only its stdout.", "flag"),
            Option(("-e", "--stderr"), "Only its stderr (to stdout).", "flag"),
            Option(("-x", "--execution"), "Of this execution; the latest if not given.", "whole", metavar="ID", takes="execution"),
        ),
        reads=True,
        examples=(
            "scitq task output 3",
            "scitq task output --stderr 3",
            "scitq task output -f 3",
        ),
        schema="task-output",
    ),
    Command(
        "task why", "tasks:why", "What tasks are waiting for, or how they ended.", (IDS, BY_ID, BY_NAME),
        reads=True, examples=("scitq task why 5 9",), schema="why",
    ),
    Command(
        "task stats", "stats:stats",
        """What tasks used beside what they asked for, by batch, and what to ask for.

        CPUs: how many were busy (95 of 100 tasks had no more). Memory: of the largest process of a task; one that runs several
        large ones at once needs more. The proposal comes after 3 successes: so many CPUs, and the largest memory with a fifth
        on top; or twice what was too little for a task.""",
        (Option(("-b", "--batch"), "Only this batch.", metavar="BATCH", takes="batch"), LONG, NO_HEAD), reads=True,
        examples=("scitq task stats -b align",), schema="stats",
    ),
    Command(
        "task relaunch", "editing:relaunch", "Queue ended tasks once more; what they blocked goes on.", _MANY,
        examples=(
            "scitq task relaunch 3 4",
            "scitq task relaunch --where \"batch = 'align' and state = 'failed'\" --yes",
        ),
        schema="deed",
    ),
    Command(
        "task cancel", "editing:cancel", "Stop tasks: queued ones at once, running ones with TERM, then KILL.", _MANY,
        examples=(
            "scitq task cancel 8",
            "scitq task cancel --where \"batch = 'trim'\" --yes",
        ),
        schema="deed",
    ),
    Command(
        "task pause", "editing:pause", "Keep tasks from being launched; those that run are stopped where they are.", _MANY,
        examples=("scitq task pause 8",), schema="deed",
    ),
    Command(
        "task resume", "editing:resume", "Let paused tasks go on, from where they were stopped.", _MANY,
        examples=("scitq task resume index",), schema="deed",
    ),
    Command(
        "task delete", "editing:delete", "Remove tasks with their history from the file. Asks first; what they delivered stays.",
        (*_MANY, KEEP_CACHE),
        examples=("scitq task delete 6 --yes",), schema="done", aliases=("rm",),
    ),
    Command(
        "task update", "editing:update", "Edit tasks that are not launched yet; what a worker holds ready is called back for it.",
        (
            IDS, BY_ID, BY_NAME, WHERE, YES,
            Option(("--replace",), "Put NEW in the place of OLD in commands, of many tasks too. Shows the difference.", "two",
                   metavar="OLD NEW"),
            Option(("-N", "--new-name"), "Its new name.", metavar="NAME"),
            Option(("-S", "--status"), "In scitq 1: pending, paused or cancelled.", metavar="STATE", hidden=True,
                   takes="words:pending,paused,cancelled"),
            Option(("-c", "--command"), "Its new command.", metavar="COMMAND"),
            Option(("--shell",), "The command is a script for sh; --shell=bash for another.", metavar="[=bash]",
                   takes=f"words:{','.join(SHELLS)}"),
            Option(("-b", "--batch"), "Its new batch.", takes="batch"),
            Option(("-R", "--requirements"), "What it requires from now on; '' for nothing.", many=True,
                   metavar="IDS", key="requires", takes="task"),
            RETRY, *RETRY_MORE, RUN_TIMEOUT, PRIORITY, *NEEDS, ENV,
            Option(("-j", "--input"), "Its new input, all of it; '' for nothing. Repeatable.", many=True, metavar="URI", takes="uri"),
            Option(("-r", "--resource"), "Its new resources, all of them; '' for nothing. Repeatable.", many=True,
                   metavar="URI", takes="uri"),
            Option(("-o", "--output"), "Where its output goes from now on; '' for the folder beside the file.",
                   metavar="URI", takes="uri"),
            *DATA[3:], *CONTAINER, *USE_CACHE,
        ),
        examples=(
            "scitq task update 8 --priority 10 --memory 8G",
            "scitq task update --where \"batch = 'trim'\" --retry 2 --yes",
            "scitq task update --where \"batch = 'trim'\" --replace 'head -n 1' 'head -n 4' --yes",
        ),
        schema="updated",
    ),
    Command(
        "task enter", "entering:enter",
        """A shell in what the newest try of a task left: its folder, environment and container, also through SSH.

        Its command is there as command.sh. When that was changed, you are asked whether it is to be adopted.""",
        (
            ID, BY_ID, BY_NAME,
            Option(("-c", "--command"), "Run this there instead of a shell; its exit code is ours.",
                   metavar="COMMAND", takes="command"),
        ),
        terminal=True, examples=("scitq task enter 3 --command env",), schema="exit-code",
    ),
    Command(
        "task adopt", "entering:adopt",
        """Make an edited script a task's command: the command.sh that scitq task enter left, or that of a file.

        Shows what changes, and asks. With --step the edit is carried over to all tasks of the batch that are not launched or
        have failed; those whose command differs just where it was edited stay as they are.""",
        (
            ID, BY_ID, BY_NAME,
            Option(("--step",), "For the whole step: its tasks that are not launched, or failed.", "flag"),
            Option(("--relaunch",), "Run again those that have ended.", "flag"),
            Option(("--script",), "The edited script; - is standard input.", metavar="FILE", takes="file"),
            YES,
        ),
        examples=("scitq task adopt 3 --script fixed.sh --relaunch --yes",), schema="adopted",
    ),
    Command(
        "task debug", "entering:debug",
        """Run a task in the foreground, here, with its data in a folder of its name; the file does not change.

        The folder has input, resource, output and temp. In its container if it has one, else with all CPUs of this machine. Without
        a task, one of those that are pending.""",
        (
            ID, BY_ID, BY_NAME,
            Option(("-b", "--batch"), "Without a task: one of this batch.", takes="batch"),
            Option(("-r", "--retry"), "Fetch nothing: what is in the folder is what it gets.", "flag"),
            Option(("--no-resource",), "Fetch no resources.", "flag"),
        ),
        terminal=True, examples=("scitq task debug 8",), schema="debugged",
    ),
)  # fmt: skip
