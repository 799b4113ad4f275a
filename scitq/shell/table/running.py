"""What runs tasks and drives the file: the commands that one meets first."""

from __future__ import annotations

from scitq.shell.table.rows import Command, Option
from scitq.shell.table.words import COMMAND, CONDITIONS, DATA, USE_CACHE

LAUNCH = Command(
    "launch", "submitting:launch",
    """Queue COMMAND, print the task's number and return.

    One word with spaces is split as a shell would split it; several words are taken as they are. No shell runs either:
    for pipes and > use --shell.""",
    (
        COMMAND, *CONDITIONS, *DATA, *USE_CACHE,
        Option(("-t", "--test"), "Say what would be queued; queue nothing.", "flag"),
        Option(("--drive",), "Drive the file until the task is over.", "flag"),
        Option(("-s", "--server"), "scitq 1 only.", hidden=True),
    ),
    file="made", drives=("drive",), wraps=True,
    examples=(
            "scitq launch -n count -- wc -l reads/s01.fastq",
            "scitq launch --shell -b sorted --retry 2 --memory 4G -i reads/s01.fastq 'sort $INPUT/* > $OUTPUT/sorted'",
            "scitq launch -t -d staphb/seqkit -- seqkit stats reads/s01.fastq",
        ),
    schema="launched",
)  # fmt: skip

RUNNING: tuple[Command, ...] = (
    Command(
        "run", "submitting:run",
        """Run COMMAND as a task: its output comes live, and its exit code is ours. Or run the workflows of a Python script.

        scitq run [--plan] [--offers] [--fresh] [--prune] SCRIPT.py … is scitq workflow run. A script as a task's command:
        scitq run -- ./SCRIPT.py

        One word with spaces is split as a shell would split it; several words are taken as they are. No shell runs either:
        for pipes and > use --shell. Ctrl-C leaves the task running; a second one within 2 s cancels it.""",
        (COMMAND, *CONDITIONS, *DATA, *USE_CACHE), file="made", drives=True, wraps=True, terminal=True,
        examples=(
            "scitq run -- wc -l reads/s01.fastq",
            "scitq run --shell 'sort reads/*.fastq | uniq -c | head -n 3'",
            "scitq run qc.py",
        ),
        schema="run",
    ),
    LAUNCH,
    Command(
        "up", "driving:up",
        """Drive the file: start what is queued, bring results home, until Ctrl-C.

        Ctrl-C stops handing out tasks; what runs goes on. A second one within 2 s cancels everything queued and running.

        --until-done ends with exit code 1 if tasks have failed, and with 3 if what is left is paused or suspended.""",
        (
            Option(("--detach",), "Leave a driver behind and return.", "flag"),
            Option(("--until-done",), "End when nothing is queued or running, or what is left waits for you: it is paused.", "flag"),
            Option(("--take-over",), "Drive even though another machine said so lately, or a driver here stands still.", "flag"),
            Option(("--detached",), "This is what --detach left behind.", "flag", hidden=True),
        ),
        file="made", drives=True,
        examples=(
            "scitq up --until-done",
            "scitq up --detach",
        ),
        schema="up",
    ),
    Command(
        "down", "driving:down",
        """Ask whoever drives the file to stop. What runs goes on unless you say otherwise.""",
        (
            Option(("--wait",), "Start nothing more, wait for what runs, then stop.", "flag"),
            Option(("--cancel",), "Start nothing more, cancel what runs, then stop. What is queued stays queued.", "flag"),
            Option(("--keep-working",), "Give workers elsewhere as much work as they can do until you are back, then stop.", "flag"),
            Option(("--hours",), "For how long they get work; 8 if not given.", "number", default=8.0, metavar="HOURS"),
            Option(("--send",), "How long files from here are sent ahead; 60 if not given.", "number", default=60.0, metavar="SECONDS"),
        ),
        drives=("wait", "cancel", "keep_working"),
        examples=(
            "scitq down",
            "scitq down --wait",
            "scitq down --keep-working --hours 12",
        ),
        schema="down",
    ),
    Command(
        "status", "looking:status", "Who drives, what runs, what needs you.",
        reads=True, examples=("scitq status",), schema="status",
    ),
    Command(
        "notices", "inbox:notices",
        """What needs you, and what could be done about it; also what status leaves out.

        A host's key to accept, a disk that is nearly full, a storage that does not let us in, equal failures, a worker that does
        not answer. What is put aside comes again when it changes.""",
        (
            Option(("--all",), "Also those that were put aside.", "flag"),
            Option(("--dismiss",), "Put the notice of this key aside until it changes; repeatable.", many=True, metavar="KEY"),
        ),
        reads=True, examples=("scitq notices", "scitq notices --all"), schema="notices",
    ),
    Command(
        "web", "web.server:web",
        """Show the file as a page in the browser: workers, batches, tasks, live output; until Ctrl-C.

        It listens on this machine only, on a free port, and prints a link that lets one browser in, once. The page adds, edits
        and watches; tasks are started by whoever drives.""",
        (
            Option(("--port",), "The port, rather than a free one.", "whole", metavar="N"),
            Option(("--socket",), "A Unix socket in a folder of yours alone, instead: for ssh -L PORT:PATH.", metavar="PATH", takes="file"),
            Option(("--no-open",), "Print the link only.", "flag"),
        ),
        reads=True, terminal=True, examples=("scitq web", "scitq web --no-open --port 8642"),
    ),
    Command(
        "shell", "interactive.start:shell",
        """Commands at a prompt: completion, history, pipes, Python. So does scitq alone, at a terminal.

        Elsewhere it reads commands line by line from its standard input, up to the first that fails, whose exit code is its own.""",
        (
            Option(("-c", "--command"), "Run this line instead.", metavar="LINE", key="line"),
            Option(("--keep-going",), "Do not stop at what fails.", "flag"),
        ),
        file="none", terminal=True,
        examples=("scitq shell -c 'status; task list | head -3'",),
    ),
    Command(
        "demo", "demo:demo", "Real work on real E. coli reads, on this machine, in half a minute.",
        (
            Option(("--dir",), "Where demo.scitq and demo-results/ go; here if not given.", metavar="FOLDER", takes="folder"),
            Option(("--keep",), "Keep the results of an earlier demo; these go beside them.", "flag"),
        ),
        file="none",
        examples=(
            "scitq demo",
            "scitq demo --keep",
        ),
        schema="demo",
    ),
)  # fmt: skip
