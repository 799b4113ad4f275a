"""Words of scitq 1 that have no command here: of each, what became of it."""

from __future__ import annotations

_NO_SERVER = "There is no server, and no database to look after: the queue is a file, which the first task makes (scitq launch COMMAND)."

# By what stands after `scitq`, two words or one.
FORMER = {
    "db": _NO_SERVER,
    "ansible": "Nothing is installed on workers, so nobody needs Ansible: scitq worker add HOST",
    "server": _NO_SERVER,
    "queue": "Whoever drives the file does that: scitq up",
}
SERVER = "this scitq has no server: the queue is a file. Leave -s out; -f FILE names the file."
