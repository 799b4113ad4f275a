"""The state file itself: what is in it, copies of it, where it is driven."""

from __future__ import annotations

from scitq.shell.table.rows import Argument, Command, Option
from scitq.shell.table.words import KEEP_CACHE, NO_HEAD, YES

FILES: tuple[Command, ...] = (
    Command(
        "journal", "looking:journal", "What happened.",
        (
            Option(("-f", "--follow"), "Go on as things happen.", "flag"),
            Option(("-n", "--lines"), "How many at most.", "whole", metavar="N"),
            Option(("--since",), "After the entry of this number.", "whole", metavar="N"),
        ),
        reads=True,
        examples=(
            "scitq journal -n 5",
            "scitq journal --since 10",
        ),
        schema="journal",
    ),
    Command(
        "sql", "sqlcommands:sql",
        """Ask the file with a SELECT, of the views tasks, executions and workers or any table.

        For example: scitq sql "select batch, state, count(*) from tasks group by 1, 2". It can only read.""",
        (
            Argument("query", metavar="SELECT"),
            Option(("--csv",), "Print CSV.", "flag"),
            Option(("--timeout",), "Stop it after this long; 30 s if not given.", "seconds", metavar="SECONDS"),
            NO_HEAD,
        ),
        reads=True,
        examples=(
            'scitq sql "select batch, state, count(*) as tasks from tasks group by 1, 2"',
            'scitq sql --csv "select name, peak_memory from executions"',
        ),
        schema="rows",
    ),
    Command(
        "export", "sqlcommands:export", "Write the tasks to a new FILE: .csv, .json, or .sqlite for all there is.",
        (
            Argument("target", metavar="FILE", takes="file"),
            Option(("--table",), "tasks, executions, workers or journal.",
                   metavar="TABLE", takes="words:tasks,executions,workers,journal"),
        ),
        reads=True,
        examples=(
            "scitq export tasks.csv",
            "scitq export everything.sqlite",
        ),
        schema="exported",
    ),
    Command(
        "purge", "sqlcommands:purge",
        """Delete old ended tasks with their executions, logs and journal entries; without --yes, only say what would go.

        What tasks delivered is not touched, and neither is what something unfinished requires.""",
        (
            Option(("--older-than",), "Whose last change is so many days ago.", "number", metavar="DAYS"),
            Option(("--keep-failed",), "Not the failed ones.", "flag"),
            KEEP_CACHE,
            Option(("-y", "--yes"), "Do it.", "flag"),
        ),
        examples=(
            "scitq purge --older-than 30",
            "scitq purge --older-than 30 --keep-failed --yes",
        ),
        schema="purged",
    ),
    Command(
        "check", "sqlcommands:check", "Is the state file sound? Exit code 1 if it is not.",
        (Option(("--repair",), "Put what can be read of a damaged file into the new file NEW.", metavar="NEW", takes="file"),),
        reads=True,
        examples=(
            "scitq check",
            "scitq check --repair mended.scitq",
        ),
        schema="checked",
    ),
    Command(
        "backup", "looking:backup", "Copy the state file to FILE, whole, while work goes on.",
        (Argument("target", metavar="FILE", takes="file"),),
        reads=True, examples=("scitq backup monday.scitq",), schema="written",
    ),
    Command(
        "promote", "moving:promote",
        """Move the file to HOST, which is always on, and drive it there.

        It is copied with its logs and outputs, and with what your rclone configuration says of the storages it names. From then on
        it is only read here, and scitq's commands given here are passed on by ssh. scitq is brought along where HOST has none.
        Harmless to repeat: what was interrupted goes on. scitq demote undoes it.""",
        (
            Argument("host", metavar="HOST", takes="host"),
            Option(("--folder",), "Where to there; scitq/NAME in your home if not given.", metavar="FOLDER"),
            Option(("--python",), "The Python to use there, 3.11 or later.", metavar="PATH"),
            Option(("--force",), "Although tasks are held here, or name files of this machine.", "flag"),
        ),
        examples=("scitq promote nuc",), schema="promoted",
    ),
    Command(
        "demote", "moving:demote", "Bring the file back from the host that scitq promote took it to; or undo what that began.",
        (
            Option(("--force",), "Although the worker of that host holds tasks.", "flag"),
            Option(("--abandon",), "Drive what is here, as of when it left: for a host that is lost.", "flag"),
        ),
        examples=("scitq demote",), schema="note",
    ),
    Command(
        "host-side", "moving:host_side", "One step of promote or demote on the host.",
        (
            Argument("verb"), Argument("path"), Argument("words", many=True, required=False),
            Option(("--force",), "All the same.", "flag"),
        ),
        file="none", hidden=True,
    ),
    Command(
        "config rclone", "config:rclone",
        """Show the remotes of your rclone configuration, without what may be secret.

        Addresses such as s3://bucket/x name them.""",
        (
            Option(("--show",), "Show them; so does no option at all.", "flag"),
            Option(("--check",), "List each, and say which cannot be. Exit code 1 if any.", "flag"),
            Option(("--install",), "Bring the remotes of FILE into your configuration. Asks first; the old file is kept.", metavar="FILE",
                   takes="file"),
            YES,
        ),
        file="none",
        examples=(
            "scitq config rclone",
            "scitq config rclone --check",
            "scitq config rclone --install remotes.conf --yes",
        ),
        schema="rclone",
    ),
)  # fmt: skip
