"""A terminal to test in: tmux on a socket of its own. Waits for what ought to appear, with a deadline; never just sleeps."""

from __future__ import annotations

import re
import subprocess
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

DEADLINE_S = 40.0


class Terminal:
    """One window of 80 columns with a plain shell."""

    def __init__(self, folder: Path, environ: Mapping[str, str], *, columns: int = 80, rows: int = 30) -> None:
        self._socket = f"scitq-{uuid.uuid4().hex[:8]}"
        sizes = ("COLUMNS", "LINES")  # a size that somebody exported must not hide the terminal's own
        given = {name: value for name, value in environ.items() if name not in sizes}
        self._environ = {**given, "PS1": "$ ", "ENV": "", "LC_ALL": "C.UTF-8"}
        # 'exec env' so that PS1 reaches the shell whatever the server makes of the environment.
        self._tmux(
            "-f", "/dev/null", "new-session", "-d", "-x", str(columns), "-y", str(rows), "-c", str(folder), "env", "PS1=$ ", "sh"
        )  # fmt: skip
        self.wait_for(r"^\$ ?$")

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        self.keys(line)
        self.press("Enter")

    def keys(self, text: str) -> None:
        """Type without pressing Enter."""
        self._tmux("send-keys", "-l", text)

    def press(self, key: str) -> None:
        """Press a key, by tmux's name for it: C-c."""
        self._tmux("send-keys", key)

    def screen(self) -> str:
        """What is on the screen, and above it."""
        return self._tmux("capture-pane", "-p", "-J", "-S", "-500")

    def coloured(self) -> str:
        """The same with its colours."""
        return self._tmux("capture-pane", "-p", "-e", "-S", "-500")

    def wait_for(self, pattern: str, deadline_s: float = DEADLINE_S) -> str:
        """Wait until the pattern is on the screen; gives the screen."""
        until = time.monotonic() + deadline_s
        while not re.search(pattern, screen := self.screen(), re.MULTILINE):
            assert time.monotonic() < until, f"{pattern!r} does not come. The screen:\n{screen}"
            time.sleep(0.03)
        return screen

    def close(self) -> None:
        """End the terminal and what runs in it."""
        self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        ended = subprocess.run(
            ["tmux", "-u", "-L", self._socket, *words], env=self._environ, capture_output=True, text=True, timeout=20
        )
        assert ended.returncode == 0, ended.stderr
        return ended.stdout
