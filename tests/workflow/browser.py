"""A page in a real browser without a window: what it complained of, what it asked the network for, what it looked like."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

# The browser asks for things of its own (updates, accounts), which are none of the page's: it is told not to.
QUIET = (
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-default-apps", "--no-first-run",
    "--disable-extensions", "--disable-domain-reliability", "--no-pings", "--disable-breakpad",
    "--disable-crash-reporter", "--disable-client-side-phishing-detection",
    "--disable-features=OptimizationHints,MediaRouter,Translate", "--metrics-recording-only", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)  # fmt: skip


class Seen(NamedTuple):
    """What came of opening a page."""

    dom: str
    console: list[str]
    requests: list[str]


def look(page: Path, folder: Path, *, width: int = 1200, height: int = 2000, picture: Path | None = None) -> Seen:
    """Open a page. `folder` is the browser's own."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.fail("chromium is not installed: see tests/debian-packages.txt")
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "net.json"
    what = ["--dump-dom"] if picture is None else [f"--screenshot={picture}", "--hide-scrollbars"]
    ended = subprocess.run(
        [program, "--headless", "--no-sandbox", "--disable-gpu", *QUIET, f"--user-data-dir={folder / 'profile'}",
         "--enable-logging=stderr", f"--log-net-log={log}", "--net-log-capture-mode=Everything", f"--window-size={width},{height}",
         *what, page.absolute().as_uri()],
        capture_output=True, timeout=120, env={**os.environ, "HOME": str(folder)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    errors = ended.stderr.decode(errors="replace")
    assert ended.returncode == 0, errors
    console = [line for line in errors.splitlines() if "CONSOLE" in line]
    return Seen(ended.stdout.decode(errors="replace"), console, _requests(log))


def _requests(log: Path) -> list[str]:
    """The addresses that the page asked for."""
    found = json.loads(log.read_text(encoding="utf-8", errors="replace"))
    start = found["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event.get("params", {}) for event in found["events"] if event["type"] == start]
    # What no page began is the browser's own.
    return [str(one["url"]) for one in asked if "url" in one and one.get("initiator") != "not an origin"]
