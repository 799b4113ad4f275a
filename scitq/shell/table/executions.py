"""The attempts at tasks, as scitq 1 names them."""

from __future__ import annotations

from scitq.shell.table.rows import Argument, Command, Option
from scitq.shell.table.words import BY_ID, BY_NAME, IDS, LONG, NO_HEAD

_OUTCOMES = "words:live,succeeded,failed,timed_out,out_of_memory,cancelled,evicted,lost,recalled"
# What is known of an execution, by the names that --json has for it.
FIELDS = (
    "id", "task", "name", "batch", "attempt", "worker", "outcome", "stage", "cause", "exit_code", "signal", "detail", "assigned",
    "started", "ended", "run_s", "cpu_s", "peak_memory", "read_bytes", "written_bytes", "image",
)  # fmt: skip

EXECUTIONS: tuple[Command, ...] = (
    Command(
        "execution list", "executions:listed", "The newest attempts at tasks, or at the tasks that are named.",
        (
            IDS, BY_ID, BY_NAME,
            Option(("-S", "--status"), "Only those that are live, or ended so; repeatable, or by comma.", many=True, metavar="OUTCOME",
                   takes=_OUTCOMES),
            Option(("-b", "--batch"), "Only of tasks of this batch.", metavar="BATCH", takes="batch"),
            Option(("-l", "--limit"), "How many at most; 0: all.", "whole", metavar="N", default=10),
            LONG, NO_HEAD,
        ),
        reads=True, aliases=("ls",), schema="executions",
        examples=(
            "scitq execution list",
            "scitq execution list 3 -S failed --long",
        ),
    ),
    Command(
        "execution output", "executions:output",
        """What an attempt wrote, to the byte: its stdout to stdout, its stderr to stderr.

        By its own number, or as one of a task's: -N 0 is the latest, -N -1 the one before. scitq task output is about the latest.""",
        (
            Argument("number", required=False, metavar="NUMBER", takes="execution", is_whole=True),
            BY_ID, BY_NAME,
            Option(("-x", "--execution"), "The execution of this number.", "whole", metavar="NUMBER", hidden=True, takes="execution"),
            Option(("-N", "--relative"), "With -i or -n: how far before the task's latest.", "whole", metavar="N"),
            Option(("-S", "--status"), "With -i or -n: counted among those that are live, or ended so.", many=True, metavar="OUTCOME",
                   takes=_OUTCOMES),
            Option(("-C", "--columns"), "First what is known of it, under these headings: id, outcome, exit_code, run_s, …; by comma.",
                   many=True, metavar="NAMES", takes=f"words:{','.join(FIELDS)}"),
            Option(("-H", "--no-header"), "With -C: no headings.", "flag"),
            Option(("-l", "--lines"), "Only the last so many lines of each.", "whole", metavar="N"),
            Option(("-o", "--stdout"), "Only its stdout.", "flag"),
            Option(("-e", "--stderr"), "Only its stderr (to stdout).", "flag"),
        ),
        reads=True, schema="task-output",
        examples=(
            "scitq execution output 3",
            "scitq execution output -i 3 -N 0 --stderr --lines 5",
            "scitq execution output -n 'align s02' -S failed -C id,attempt,exit_code,run_s",
        ),
    ),
)  # fmt: skip
