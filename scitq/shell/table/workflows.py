"""Workflows that scripts declare: their rows."""

from __future__ import annotations

from scitq.shell.table.rows import Argument, Command, Option
from scitq.shell.table.words import NO_HEAD, YES

_WORKFLOW = Argument("name", metavar="NAME", takes="workflow")
_WORKFLOWS = Argument("names", many=True, metavar="NAME…", takes="workflow")
_SCRIPT = (
    Option(("--fresh",), "Run everything again, and forget what is declared no more.", "flag"),
    Option(("--prune",), "Delete tasks that the script declares no more.", "flag"),
    Option(("-y", "--yes"), "With --plan: run it without asking.", "flag"),
    Option(
        ("--offers",),
        "With the plan: what could be rented for it, how long that would take and what it would cost.",
        "flag",
    ),
)

WORKFLOWS: tuple[Command, ...] = (
    Command(
        "workflow list", "workflows:listed", "The workflows of the file, and how far they are.", (NO_HEAD,),
        reads=True, examples=("scitq workflow list",), schema="workflows", aliases=("ls",),
    ),
    Command(
        "workflow show", "workflows:show", "How a workflow stands, step by step.", (_WORKFLOW,),
        reads=True, examples=("scitq workflow show qc",), schema="workflow-show",
    ),
    Command(
        "workflow run", "workflows:run",
        """Run a Python script, and the workflows that it declares to their end; the words after it are its own.

        Run again, it goes on: what has succeeded and has not changed stays.""",
        (
            Argument("script", metavar="SCRIPT", takes="file"),
            Argument("words", many=True, required=False, metavar="WORDS…", takes="file"),
            Option(("--plan",), "Say what would run, and why, up to where the script waits for results; run nothing.", "flag"),
            *_SCRIPT,
        ),
        file="none", wraps=True, terminal=True,
        examples=(
            "scitq workflow run qc.py",
            "scitq workflow run --fresh qc.py s01 s02",
        ),
        schema="workflow-run",
    ),
    Command(
        "workflow plan", "workflows:plan", "What running a script would do, and why; nothing is run.",
        (Argument("script", metavar="SCRIPT", takes="file"),
        Argument("words", many=True, required=False, metavar="WORDS…", takes="file"), *_SCRIPT),
        file="none", wraps=True, examples=("scitq workflow plan qc.py", "scitq workflow plan --offers qc.py"), schema="plan",
    ),
    Command(
        "workflow watch", "watching:watch",
        """Watch a workflow on the whole terminal: its steps, their tasks, what each writes; ? there for the keys.

        Without NAME, the one that was run last. Where there is no terminal, a plain line for each change that matters.
        Leaving it (Q, Ctrl-C) stops nothing.""",
        (
            Argument("workflow", required=False, metavar="NAME", takes="workflow"),
            Option(("--refresh",), "Look again after so many seconds even if nothing changes.", "seconds", metavar="SECONDS"),
            Option(("--plain",), "Plain lines on a terminal, too.", "flag"),
        ),
        terminal=True, examples=("scitq workflow watch qc",), schema="watched",
    ),
    Command(
        "workflow pause", "workflows:pause", "Launch nothing more of workflows; what runs goes on.",
        (_WORKFLOWS, Option(("--suspend",), "Stop what runs where it is, too.", "flag")),
        examples=(
            "scitq workflow pause assembly",
            "scitq workflow pause --suspend assembly",
        ),
        schema="halted-workflows",
    ),
    Command(
        "workflow unpause", "workflows:unpause", "Let paused or suspended workflows go on.", (_WORKFLOWS,),
        examples=("scitq workflow unpause assembly",), schema="halted-workflows",
    ),
    Command(
        "workflow delete", "workflows:delete",
        """Delete a workflow: cancel what has not ended, and remove its tasks with their history. Asks first.

        What tasks left at addresses stays.""",
        (_WORKFLOW, YES), drives=True, examples=("scitq workflow delete assembly --yes",), schema="deleted-workflow",
        aliases=("rm",),
    ),
    Command(
        "debug", "entering:script",
        """Run a Python script, and debug the workflows that it declares: one task at a time, asking what is next.

        What is done stays done: run again, it goes on. x in the dialogue lets the rest run as usual.""",
        (
            Argument("script", metavar="SCRIPT", takes="file"),
            Argument("words", many=True, required=False, metavar="WORDS…", takes="file"),
            Option(("--fresh",), "Run everything again, and forget what is declared no more.", "flag"),
        ),
        file="none", wraps=True, terminal=True, examples=("scitq debug qc.py",), schema="workflow-run",
    ),
    Command(
        "report", "reporting:make",
        """Tell what WORKFLOW did: a page in WORKFLOW.html, if nothing else is asked for.

        The page needs no network: the graph, the timeline, asked against used, failures with what they wrote, commands, image
        digests, inputs with checksums where they are known, a paragraph for the methods section. --json has every task.""",
        (
            Argument("name", metavar="WORKFLOW", takes="workflow"),
            Option(("--html",), "Write the page to FILE; - for stdout.", metavar="FILE", takes="file"),
            Option(("--crate",), "Write a research object (Workflow Run RO-Crate) to the new folder DIR; data stays where it is.",
                   metavar="DIR", takes="folder"),
            Option(("--checksums",), "Compute the SHA-256 of inputs of this machine that are still what was read.", "flag"),
            Option(("--license",), "The license of the research object: CC-BY-4.0, or an address.", metavar="NAME"),
            Option(("--author",), "Whose it is: 'Ada Lovelace <https://orcid.org/…>'; your login name if not given.", metavar="NAME"),
        ),
        reads=True,
        examples=(
            "scitq report qc",
            "scitq report qc --html qc.html --checksums",
            "scitq report qc --crate qc-crate --license CC-BY-4.0",
        ),
        schema="report",
    ),
)  # fmt: skip
