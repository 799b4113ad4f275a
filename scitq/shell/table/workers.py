"""Workers, and the long operations on them."""

from __future__ import annotations

from dataclasses import replace

from scitq.shell.table.rows import Argument, Command, Option
from scitq.shell.table.words import LONG, NO_HEAD, YES
from scitq.states import WorkerState

_WORKER = (
    Argument("worker", required=False, metavar="NAME", takes="worker"),
    Option(("-i", "--id"), "The worker of this number.", "whole", key="by_id", hidden=True, takes="worker"),
    Option(("-n", "--name"), "The worker of this name.", key="by_name", hidden=True, takes="worker"),
)
_NO_WAIT = Option(("--no-wait",), "Only write it down, for whoever drives.", "flag")
# What a worker elsewhere can be told.
_SETTINGS = (
    Option(
        ("--lost-after",),
        "After so many seconds of silence its tasks may go to others; auto: 3600.",
        metavar="SECONDS|auto",
    ),
    Option(
        ("--folder",),
        "Where it keeps everything; auto: ~/.scitq, or where there is room for it.",
        metavar="FOLDER|auto",
    ),
    Option(("--python",), "Its Python, if the first found is not to be used.", metavar="PATH|auto"),
    Option(("--nice",), "How far its tasks stand back for other programs: 0 to 19.", metavar="N|auto"),
    Option(("--hours",), "It launches tasks only then, by its own clock: 22:00-07:00.", metavar="FROM-TO|auto"),
    Option(("--flavor",), "What recruiters call such machines; auto: local.", metavar="NAME|auto"),
    Option(
        ("--keep-batch",),
        "Whether it serves its own batch only, even when that has nothing pending.",
        metavar="on|off",
        takes="words:on,off",
    ),
    Option(
        ("--yield-to-users",),
        "Whether it launches nothing while somebody is logged in there.",
        metavar="on|off",
        takes="words:on,off",
    ),
    Option(
        ("--send-limit",), "Beyond this much data of this machine it warns before it is sent: 10G.", metavar="SIZE|auto"
    ),
)

WORKERS: tuple[Command, ...] = (
    Command(
        "worker list", "workers:listed", "The workers.",
        (
            Option(("-b", "--batch"), "Only those of this batch.", metavar="BATCH", takes="batch"),
            Option(("-S", "--status"), "Only those in this state; repeatable, or by comma.", many=True, metavar="STATE",
                   takes=f"words:{','.join(state.word for state in WorkerState)},running"),
            LONG, NO_HEAD,
        ),
        reads=True,
        examples=(
            "scitq worker list",
            "scitq worker list --long",
        ),
        schema="workers", aliases=("ls",),
    ),
    Command(
        "worker show", "workers:show", "Everything about a worker: what it is, how busy, and what it has done.",
        _WORKER,
        reads=True, examples=("scitq worker show local",), schema="worker-show",
    ),
    Command(
        "worker update", "workers:update", "Change how much a worker runs at once, or what it has for tasks that ask.",
        (
            *_WORKER,
            Option(("-C", "--concurrency"), "Tasks at once.", "whole", metavar="N"),
            Option(("-p", "--prefetch"), "Tasks held beyond those; auto: enough to go on while its link is silent.", metavar="N|auto"),
            Option(("--cpus",), "CPUs it has for tasks that ask; auto: as its agent finds.", metavar="N|auto"),
            Option(("--memory",), "Memory it has: 64G.", metavar="SIZE|auto"),
            Option(("--gpus",), "GPUs it has: how many, or their ids by comma.", metavar="N|IDS|auto"),
            Option(("--limits",), "Whether tasks that start from now on are held to the memory and CPUs they ask for.",
                   metavar="on|off", takes="words:on,off"),
            Option(("--container-engine",), "What runs containers: docker, podman, apptainer or singularity; auto: the first found.",
                   metavar="NAME|auto", takes="words:docker,podman,apptainer,singularity,auto"),
            Option(("--output-cap",), "How much it keeps of each stream of a task; auto: 1 GiB.", metavar="SIZE|auto"),
            Option(("-b", "--batch"), "It serves this batch, and others' recruiters may have it while nothing of that is pending; '' for "
                   "every batch.", takes="batch"),
            Option(("-S", "--status"), "In scitq 1: running, or paused.", metavar="STATE", hidden=True, takes="words:running,ready,paused"),
            *(replace(one, flags=("-f", "--flavor")) if one.name == "flavor" else one for one in _SETTINGS),
        ),
        examples=(
            "scitq worker update local --concurrency 2 --prefetch auto",
            "scitq worker update nuc --hours 22:00-07:00 --nice 10",
        ),
        schema="worker-updated",
    ),
    Command(
        "worker add", "fleet:add",
        """Make hosts that SSH leads to workers: aliases of your SSH configuration, or user@host:port.

        Shows how it goes. No root rights are needed there, and no internet; Python 3.10 or later is.""",
        (
            Argument("hosts", many=True, metavar="HOST…", takes="host"),
            Option(("-n", "--name"), "Its name; the host's if not given."),
            Option(("-C", "--concurrency"), "Tasks at once; as many as it has CPUs if not given.", "whole", metavar="N"),
            Option(("-p", "--prefetch"), "Tasks held beyond those; auto: enough to go on while its link is silent.", metavar="N|auto"),
            Option(("-b", "--batch"), "It serves this batch; others' recruiters may have it while nothing of that is pending.",
                   takes="batch"),
            Option(("--install",), "With root rights there: install what it lacks to run containers.", "flag"),
            *_SETTINGS, _NO_WAIT,
        ),
        file="made", drives=True,
        examples=(
            "scitq worker add atlas --concurrency 16",
            "scitq worker add ada@10.0.0.7:2222 --name barn --no-wait",
        ),
        schema="workers-told",
    ),
    Command(
        "worker deploy", "renting:deploy",
        """Rent machines and make them workers: those that cost least, of what fits. Says what they cost, and asks first.

        FLAVOR is a name, or says what is needed: 'auto:cpu>=8:ram>=32' (see scitq flavor list).""",
        (
            Option(("-f", "--flavor"), "What is needed; the cheapest of all if not given.", metavar="FLAVOR", takes="flavor"),
            Option(("-N", "--number"), "So many; 1 if not given.", "whole", default=1, metavar="N"),
            Option(("-P", "--provider"), "Of this provider only; auto: any.", metavar="NAME", takes="provider"),
            Option(("-r", "--region"), "There only; auto: anywhere.", metavar="REGION", takes="region"),
            Option(("-m", "--market"), "ondemand, spot, or any; as is configured for the provider if not given.",
                   metavar="MARKET", takes="words:ondemand,spot,any"),
            Option(("--max-price",), "At most so much an hour for one.", "number", metavar="PRICE"),
            Option(("-n", "--name"), "Its name; NAME-1 and so on for several."),
            Option(("-C", "--concurrency"), "Tasks at once on one; as many as it has CPUs if not given.", "whole", metavar="N"),
            Option(("-p", "--prefetch"), "Tasks held beyond those; auto: enough to go on while its link is silent.", metavar="N|auto"),
            Option(("-b", "--batch"), "They serve this batch; others' recruiters may have them while nothing of that is pending.",
                   takes="batch"),
            Option(("--expires",), "They end after so many hours, whatever they do.", "number", metavar="HOURS"),
            Option(("--orphan-after",), "One that has nothing to do ends when nobody drove for so many seconds; 2700 if not given.",
                   "number", metavar="SECONDS"),
            YES, _NO_WAIT,
        ),
        file="made", drives=True,
        examples=(
            "scitq worker deploy -f 'auto:cpu>=4:ram>=8' -P rehearsal -N 2 -C 4 --yes --no-wait",
        ),
        schema="workers-told",
    ),
    Command(
        "worker drain", "fleet:drain", "Give a worker nothing more; what it holds it finishes.", _WORKER,
        examples=("scitq worker drain nuc",), schema="worker-told",
    ),
    Command(
        "worker pause", "fleet:pause", "Launch nothing more on a worker; what runs there goes on.", _WORKER,
        examples=("scitq worker pause local",), schema="worker-told",
    ),
    Command(
        "worker resume", "fleet:resume", "Let a worker that was drained or paused go on.", _WORKER,
        examples=("scitq worker resume nuc",), schema="worker-told",
    ),
    Command("worker restart", "fleet:restart", "Start a worker's agent anew; its tasks go on. One that failed is tried again.",
            (*_WORKER, _NO_WAIT), drives=True,
            examples=("scitq worker restart local",),
            schema="job"),
    Command("worker clean", "fleet:clean_up", "Throw away what a worker keeps for later: resources, folders of failed tasks.",
            (*_WORKER, _NO_WAIT), drives=True,
            examples=("scitq worker clean local",),
            schema="job"),
    Command("worker lost", "fleet:lost", "Declare a silent worker lost: its tasks can run elsewhere at once. Asks first.",
            (*_WORKER, YES),
            examples=("scitq worker lost nuc --yes",),
            schema="freed"),
    Command(
        "worker delete", "fleet:delete", "Stop a worker, and delete everything of this file there. Asks first.",
        (*_WORKER, Option(("--force",), "Though it holds tasks, or cannot be reached.", "flag"), YES, _NO_WAIT), drives=True,
        examples=("scitq worker delete atlas --yes",), schema="job", aliases=("rm",),
    ),
    Command(
        "worker shell", "fleet:shell", "Log in to a worker's host.", _WORKER,
        terminal=True, examples=("scitq worker shell atlas",), schema="argv",
    ),
    Command(
        "worker trust", "trusting:trust",
        """Accept the key that a host shows: scitq connects to no host whose key was not accepted. Asks first.

        HOST is what ssh takes. Keys that ssh accepts already need no word here.""",
        (Argument("host", metavar="HOST", takes="host"), YES), file="none",
        examples=("scitq worker trust atlas --yes",), schema="trusted",
    ),
    Command("job list", "fleet:listed", "The latest long operations, such as preparing workers.",
            (Option(("-w", "--worker"), "Those of this worker.", metavar="NAME", takes="worker"),
             Option(("--limit",), "At most so many; 100 if not given.", "whole", default=100, metavar="N"), NO_HEAD),
            reads=True,
            examples=(
            "scitq job list",
            "scitq job list --worker atlas",
        ),
            schema="jobs",
            aliases=("ls",)),
    Command(
        "job show", "fleet:show", "What a long operation did, step by step.",
        (Argument("job", metavar="NUMBER", takes="job"), Option(("-f", "--follow"), "Go on until it has ended.", "flag")),
        reads=True, examples=("scitq job show 1",), schema="job-show",
    ),
    Command(
        "job retry", "renting:retry", "Try again a long operation that failed, and show how that goes.",
        (Argument("job", metavar="NUMBER", takes="job"), _NO_WAIT), drives=True,
        examples=("scitq job retry 3 --no-wait",), schema="job",
    ),
    Command(
        "job cancel", "renting:cancel", "Take back a long operation that has not ended; a machine that is deployed is deleted.",
        (Argument("job", metavar="NUMBER", takes="job"),),
        examples=("scitq job cancel 2",), schema="job",
    ),
    Command(
        "cloud list", "renting:clouds", "The machines that are rented, for how long, and at what price.",
        (Option(("-a", "--all"), "Ask the providers, and show what they have for whichever state file.", "flag"), NO_HEAD),
        reads=True, examples=("scitq cloud list", "scitq cloud list --all"), schema="machines", aliases=("ls",),
    ),
    Command(
        "cloud reap", "renting:reap",
        """Compare what every provider has with the file, and delete machines that nobody knows. Fit for cron.

        Of this file only; those of another file, which is no more, with --store and after it was asked.""",
        (Option(("--store",), "Delete all machines of this other state file: see scitq cloud list --all.", metavar="ID"), YES),
        drives=True, examples=("scitq cloud reap",), schema="reaped",
    ),
)  # fmt: skip
