"""Batches, and who serves them."""

from __future__ import annotations

from scitq.shell.table.rows import Argument, Command, Option
from scitq.shell.table.words import (
    CONTAINER,
    DATA,
    ENV,
    KEEP_CACHE,
    LONG,
    NEEDS,
    NO_HEAD,
    PRIORITY,
    RESOURCE,
    RETRY,
    RETRY_MORE,
    RUN_TIMEOUT,
    USE_CACHE,
    YES,
)

_BATCHES = Argument("names", many=True, required=False, metavar="NAME…", takes="batch")
_ONE_BATCH = Argument("batch", required=False, metavar="NAME", takes="batch")
_BATCH_BY_NAME = Option(
    ("-n", "--name"), "The batch of this name.", many=True, metavar="NAME", key="by_name", hidden=True, takes="batch"
)
_BY_BATCH = Option(("-b", "--batch"), "The batch.", metavar="BATCH", key="by_batch", hidden=True, takes="batch")
_RECRUITER = (
    Argument("batch", required=False, metavar="BATCH", takes="batch"), _BY_BATCH,
    Option(("-n", "--rank"), "Which of its recruiters; those of lower rank are tried first.", "whole", default=1, metavar="N",
           takes="recruiter"),
)  # fmt: skip
_RECRUITER_SAYS = (
    Option(("-f", "--flavor"), "Which workers: a name, or auto:… and what is needed; '' for any.", metavar="FLAVOR",
           takes="flavor"),
    Option(("-C", "--concurrency"), "Tasks of the batch at once on one worker: a share of it, if others use it too.", metavar="N|auto"),
    Option(("-p", "--prefetch"), "Tasks of the batch held ready there beyond those.", metavar="N|auto"),
    Option(("-W", "--maximum-workers"), "Workers that serve the batch at once, at most.", metavar="N|auto"),
    Option(("-T", "--tasks-per-worker"), "Pending tasks for which one more worker is taken over; as many as run at once if not given.",
           metavar="N|auto"),
    Option(("-m", "--minimum-tasks"), "Take over none below so many pending tasks.", metavar="N|auto"),
    Option(("-P", "--provider"), "Rent machines there for what is left; auto: wherever is best. '' for none.", metavar="NAME|auto",
           takes="provider"),
    Option(("-r", "--region"), "Where there; auto, or not given: anywhere.", metavar="NAME", takes="region"),
    Option(("--rounds",), "How many times its slots' worth of tasks a machine is got for, without --tasks-per-worker.", metavar="N|auto"),
    Option(("--market",), "Rent on this one only: ondemand, spot, or any.", metavar="WORD|auto", takes="words:ondemand,spot,any,auto"),
    Option(("--max-price",), "Rent none that costs more an hour.", metavar="PRICE|auto"),
    Option(("--max-cost",), "Rent none that could make all its machines cost more: 15, or '15 EUR'.", metavar="AMOUNT|auto"),
    Option(("--patience",), "Rent only when the first task has waited for so many seconds.", metavar="SECONDS|auto"),
    Option(("--idle-timeout",), "Let machines go after so many seconds without work.", metavar="SECONDS|auto"),
)  # fmt: skip

BATCHES: tuple[Command, ...] = (
    Command(
        "batch list", "batches:listed", "The batches: how far they are, whether they go on, their defaults.",
        (_BATCH_BY_NAME, NO_HEAD),
        reads=True, examples=("scitq batch list",), schema="batches", aliases=("ls",),
    ),
    Command(
        "batch pause", "batches:pause", "Launch nothing more of a batch; what runs goes on to its end.", (_BATCHES, _BATCH_BY_NAME),
        examples=("scitq batch pause trim",), schema="halted",
    ),
    Command(
        "batch stop", "batches:stop",
        """What batch pause is, in scitq 1; or suspend, or more.

        -N 0: batch pause. -N 20 or --pause: batch suspend. -N 3, -N 9, --term, --kill: batch pause, and what runs is cancelled, with
        TERM and then KILL; asks first.""",
        (
            _BATCHES, _BATCH_BY_NAME,
            Option(("-N", "--signal"), "As a number: 0, 3, 9 or 20.", "whole", metavar="N", takes="words:0,3,9,20"),
            Option(("--term",), "Cancel what runs.", "flag"), Option(("--kill",), "The same.", "flag"),
            Option(("--pause",), "Stop what runs where it is.", "flag"), YES,
        ),
        hidden=True, examples=("scitq batch stop -n trim", "scitq batch stop -n call --term --yes"), schema="stopped",
    ),
    Command(
        "batch suspend", "batches:suspend", "Launch nothing more of a batch, and stop what runs where it is.", (_BATCHES, _BATCH_BY_NAME),
        examples=("scitq batch suspend trim",), schema="halted",
    ),
    Command(
        "batch go", "batches:go", "Let a batch go on.",
        (
            _BATCHES, _BATCH_BY_NAME,
            Option(("-N", "--signal"), "In scitq 1: 0 or 18.", "whole", metavar="N", hidden=True),
            Option(("--cont",), "In scitq 1: the same as 18.", "flag", hidden=True),
        ),
        examples=("scitq batch go trim",), schema="halted",
    ),
    Command(
        "batch cancel", "batches:cancel", "Cancel what is queued or running of a batch. Asks first.", (_ONE_BATCH, _BATCH_BY_NAME, YES),
        examples=("scitq batch cancel trim --yes",), schema="done",
    ),
    Command(
        "batch delete", "batches:delete", "Delete a batch of which nothing runs: its tasks with their history, its defaults. Asks first.",
        (_ONE_BATCH, _BATCH_BY_NAME, YES, KEEP_CACHE),
        examples=("scitq batch delete assembly.spades --yes",), schema="done", aliases=("rm",),
    ),
    Command(
        "batch set", "batches:defaults",
        """Give a batch defaults: what its tasks get, from now on, where they say nothing themselves.

        Tasks that are in the file already keep what they have. -e replaces the variables of before.""",
        (
            _ONE_BATCH, _BATCH_BY_NAME, RETRY, *RETRY_MORE,
            Option(("--retry-delay",), "Wait before the first retry; twice as long before each further one.", "seconds", metavar="SECONDS"),
            RUN_TIMEOUT, PRIORITY, *NEEDS, ENV, RESOURCE, *DATA[3:], *CONTAINER, *USE_CACHE,
            Option(("--max-cost",), "How much the machines that are rented for it may cost: 15, '15 EUR', or none (see max-cost).",
                   metavar="AMOUNT"),
            Option(("--clear",), "Take away the defaults it has.", "flag"),
        ),
        file="made",
        examples=(
            "scitq batch set trim --retry 2 --memory 4G",
            "scitq batch set align --clear",
        ),
        schema="defaults",
    ),
    Command("recruiter list", "recruiters:listed", "Who serves batches, how much of each worker, and how many of them.",
            (Argument("batch", required=False, metavar="BATCH", takes="batch"), _BY_BATCH, LONG, NO_HEAD),
            reads=True,
            examples=("scitq recruiter list",),
            schema="recruiters",
            aliases=("ls",)),
    Command(
        "recruiter create", "recruiters:create",
        """Say which workers serve a batch, instead of all of them; in the place of the recruiter of that rank, if there is one.

        FLAVOR is a name (local: this machine, and hosts added without another one) or says what is needed: auto:cpu>=8:ram>=32G.
        A worker that has a batch of its own changes to this one when nothing of its own is pending. With -P, machines are rented for
        what is left, up to 10 at once unless -W says otherwise, and let go when they have had nothing to do for 5 minutes; where hours
        are billed, at the end of one. They cost money.""",
        (*_RECRUITER, *_RECRUITER_SAYS), file="made",
        examples=("scitq recruiter create trim -f 'auto:cpu>=4:ram>=8' -C 4 -W 2",), schema="recruiter",
    ),
    Command("recruiter update", "recruiters:update", "Change a recruiter, at once; auto takes a number back. What runs is not touched.",
            (*_RECRUITER, *_RECRUITER_SAYS),
            examples=("scitq recruiter update align -W 3", "scitq recruiter update align --max-price 0.5 --patience 60"),
            schema="recruiter"),
    Command(
        "recruiter delete", "recruiters:delete", "Take a recruiter away; what runs is not touched.", _RECRUITER,
        examples=("scitq recruiter delete align",), schema="dismissed", aliases=("rm",),
    ),
    Command(
        "recruiter show", "recruiters:show", "One recruiter, and what its batch waits for.", _RECRUITER, reads=True,
        examples=("scitq recruiter show align",), schema="recruiter-now",
    ),
    Command(
        "recruiter match", "recruiters:match", "Which workers a recruiter may use, and why not the others.", (*_RECRUITER, NO_HEAD),
        reads=True, examples=("scitq recruiter match align",), schema="matching",
    ),
)  # fmt: skip
