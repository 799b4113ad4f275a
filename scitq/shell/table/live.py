"""Views that go on while things happen."""

from __future__ import annotations

from scitq.shell.table.rows import Argument, Command, Option
from scitq.shell.table.words import IDS, WHERE

LIVE: tuple[Command, ...] = (
    Command(
        "top", "live.top:top",
        """Workers and what they run, live on the whole terminal: how busy, since when, what each wrote last; ? there for the keys.

        Where there is no terminal, and with --once or --json, what there is at this moment.""",
        (Option(("--once",), "Say how it is now, and return.", "flag"),),
        reads=True, terminal=True, examples=("scitq top --once",), schema="top",
    ),
    Command(
        "watch", "live.watch:watch",
        """Repeat COMMAND, one that only looks, whenever the file changes, with what is new marked; without one, status.

        q or Ctrl-C leaves. In a pipe it is printed again, after a blank line; with --json, a line of JSON each time.""",
        (
            Option(("-n", "--seconds"), "Not more often than every so many seconds.", "seconds", default=2.0, metavar="SECONDS"),
            Option(("--times",), "Print so many answers, and return.", "whole", metavar="N"),
            Argument("command", many=True, required=False, metavar="COMMAND…", takes="command"),
        ),
        reads=True, terminal=True, wraps=True, examples=("scitq watch --times 1 batch list",),
    ),
    Command(
        "tail", "live.tail:tail",
        """What several tasks write, each line behind the name of its task; what is on stderr behind a !.

        With -f it goes on until all of them are over, and new tasks of the batch join.""",
        (
            IDS,
            Option(("-f", "--follow"), "Go on as they write.", "flag"),
            Option(("-b", "--batch"), "The tasks of this batch; with -f those that are not over, and those to come.", takes="batch"),
            WHERE,
            Option(("-l", "--lines"), "Begin with so many of the last lines of each.", "whole", default=10, metavar="N"),
        ),
        reads=True, examples=("scitq tail count 'align s01'", "scitq tail -b align -l 3"), schema="tail",
    ),
)  # fmt: skip
