"""What exit codes mean: the one place that says it. `scitq help exit-codes`, the manual page and the documentation show these rows.

Codes do not change their meaning within a major version.
"""

from __future__ import annotations

# Of every command but those of scitq fetch, which tell more.
EXIT_CODES: tuple[tuple[str, str], ...] = (
    ("0", "done"),
    ("1", "not done, or it ended badly: the reason is on standard error. Of `check`, `doctor`, `config check`, `config rclone --check`: "
          "something is wrong. Of `up --until-done`, `workflow run`: tasks failed. Also when a question was answered with no"),
    ("2", "a command line that makes no sense, or a question that there is nobody to ask, and no `--yes`; nothing was done"),
    ("3", "`up --until-done`: what is left is paused or suspended, and waits for you"),
    ("70", "`shell`: a mistake of scitq's own; the sentence says where more about it is"),
    ("130", "Ctrl-C. But of what fills the screen (`top`, `watch`) and of `web`, which end so: 0"),
    ("141", "whoever read the output has gone (`scitq task list | head`)"),
    ("143", "asked to end by SIGTERM. But of `up` and `web`, for which that is an end in order: 0"),
    ("other", "`run`, `launch --drive`, `task enter`, `task debug`, `worker shell`, `workflow run`: that of your command, host or script, "
              "128 and the signal's number if one ended it; `shell`: that of the first line that fails"),
)  # fmt: skip

FETCH_CODES: tuple[tuple[str, str], ...] = (
    ("0", "done"),
    ("1", "failed"),
    ("2", "a bad command or address"),
    ("3", "nothing is there"),
    ("4", "access denied"),
    ("5", "no space left"),
    ("6", "something else is there already"),
    ("7", "a program is missing: rclone, aria2c, ncdu"),
    ("8", "the data are not what the source says (checksum)"),
    ("9", "the connection or the server failed: try again"),
    ("129", "the terminal was closed (SIGHUP)"),
    ("130", "Ctrl-C"),
    ("143", "SIGTERM"),
)
