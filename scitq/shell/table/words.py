"""Options and arguments that several rows of the table share."""

from __future__ import annotations

from scitq.shell.table.rows import SHELLS, Argument, Option

COMMAND = Argument("command", many=True, metavar="COMMAND…", takes="command")
IDS = Argument("ids", many=True, required=False, metavar="ID|NAME…", takes="task")
ID = Argument("task", required=False, metavar="ID|NAME", takes="task")
# The letters of scitq 1: a task by number or by name.
BY_ID = Option(
    ("-i", "--id"), "The task of this number.", many=True, metavar="ID", key="by_id", hidden=True, takes="task"
)
BY_NAME = Option(
    ("-n", "--name"), "The task of this name.", many=True, metavar="NAME", key="by_name", hidden=True, takes="task"
)
NAME = Option(("-n", "--name"), "A name for the task.")
BATCH = Option(("-b", "--batch"), "The batch it belongs to.", takes="batch")
REQUIRES = Option(("-R", "--requirements"), "Tasks that must succeed first: numbers or names, by comma; repeatable.", many=True,
                   metavar="IDS", key="requires", takes="task")  # fmt: skip
RETRY = Option(("--retry",), "Further tries after a failure; or by cause: timed_out=2,exit:137=1,any=1 (exit, timed_out, out_of_memory, "
                "stage_in, collect, any).", metavar="N|CAUSE=N,…")  # fmt: skip
RETRY_MORE = (
    Option(("--retry-memory",), "So many times the memory for the next try, after one that ran out of it; up to the largest worker's.",
           "number", metavar="FACTOR"),
    Option(("--retry-timeout",), "So many times the time, after one that took too long.", "number", metavar="FACTOR"),
)  # fmt: skip
RUN_TIMEOUT = Option(("--run-timeout",), "Stop it when it has run this long.", "seconds", metavar="SECONDS")
PRIORITY = Option(("--priority",), "Higher goes first; 0 if not given.", "whole", metavar="N")
ENV = Option(("-e", "--env"), "A variable for its environment; NAME alone takes today's value. Repeatable.", "pair", many=True,
              metavar="NAME=VALUE")  # fmt: skip
SHELL = Option(
    ("--shell",),
    "COMMAND is one quoted script for sh; --shell=bash (zsh, …) for another shell.",
    metavar="[=bash]",
    takes=f"words:{','.join(SHELLS)}",
)
CPUS = Option(("--cpus",), "CPUs it needs while it runs; 0: nothing in particular.", "number", metavar="N")
MEMORY = Option(("--memory",), "Memory it needs while it runs: 16G, 500M.", metavar="SIZE")
GPUS = Option(("--gpus",), "GPUs it needs while it runs.", "whole", metavar="N")
NEEDS = (CPUS, MEMORY, GPUS)
INPUT = Option(("-i", "--input"), "Data it reads, in $INPUT: a path, a URI, or task://12 for what task 12 leaves; repeatable.", many=True,
                metavar="URI", takes="uri")  # fmt: skip
RESOURCE = Option(
    ("-r", "--resource"), "Data that tasks share, in $RESOURCE; repeatable.", many=True, metavar="URI", takes="uri"
)
OUTPUT = Option(("-o", "--output"), "The folder where what it leaves in $OUTPUT goes.", metavar="URI", takes="uri")
KEEP_CACHE = Option(("--keep-cache",), "Their results may still be taken.", "flag")
USE_CACHE = (
    Option(("--use-cache",), "Take the result of an equal task if there is one.", "flag"),
    Option(("--no-cache",), "Run it, whatever the batch's defaults say.", "flag"),
)
DATA = (
    INPUT, RESOURCE, OUTPUT,
    Option(("--overwrite",), "Put it there though there is something of others.", "flag"),
    Option(("--skip-if-exists",), "Succeed at once if the output is there, complete.", "flag"),
    Option(("--no-keep-failed",), "Drop what a failed try left.", "flag"),
    Option(("--stage-in-timeout",), "Limit for fetching its data.", "seconds", metavar="SECONDS"),
    Option(("--download-timeout",), "What --stage-in-timeout is, in scitq 1.", "seconds", metavar="SECONDS", hidden=True),
)  # fmt: skip
CONTAINER = (
    Option(("-d", "--docker", "--container"), "The image of the container it runs in.", metavar="IMAGE", takes="image"),
    Option(("-O", "--option", "--container-options"), "Options for the container engine, such as '--gpus all'; repeatable.", many=True,
           metavar="TEXT"),
)  # fmt: skip
USER = (
    Option(("-u", "--uid"), "The user it runs as: in its container, or by sudo.", metavar="UID"),
    Option(("-g", "--gid"), "The group it runs as.", metavar="GID"),
)
CONDITIONS = (
    NAME,
    BATCH,
    RETRY,
    *RETRY_MORE,
    RUN_TIMEOUT,
    PRIORITY,
    *NEEDS,
    ENV,
    REQUIRES,
    SHELL,
    *CONTAINER,
    *USER,
)
WHERE = Option(("--where",), "All that meet a condition in SQL over the view tasks, such as \"batch='qc' and state='failed'\".",
                metavar="CONDITION")  # fmt: skip
YES = Option(("-y", "--yes"), "Do it without asking.", "flag")
NO_HEAD = Option(("-H", "--no-header"), "No headings.", "flag")
LONG = Option(("-L", "--long"), "More columns, nothing cut.", "flag")
