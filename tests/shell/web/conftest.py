"""The page of a real `scitq web` over a real state file, and a real browser: one of each for a module."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from scitq.engine import Engine
from scitq.remote import local
from tests.shell.conftest import PROGRAM, ROOT

# Conditions are waited for, on a machine that may be busy with other tests.
PATIENCE_MS = 120_000
expect.set_options(timeout=PATIENCE_MS)
# Few processes, and no drawing: pages are looked at by their content.
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--renderer-process-limit=1",
    "--process-per-site",
]


class Site:
    """`scitq web` over one state file, the file as this process sees it, and a browser that was let in."""

    def __init__(self, path: Path, browser: Browser) -> None:
        self.path = path
        self.engine = Engine(path, drive=False)
        self.process = serve("-f", str(path), cwd=path.parent)
        assert self.process.stdout is not None
        self.told = json.loads(self.process.stdout.readline())
        self.link: str = self.told["url"]
        self.base = self.link.partition("/enter")[0]
        self.complaints: list[str] = []
        self._browser = browser
        self._contexts: list[BrowserContext] = []
        self._usual: BrowserContext | None = None
        self._state: Any = None

    def context(self, **options: Any) -> BrowserContext:
        """A browser's worth of settings, let in; the same one for all who want nothing in particular, which is cheaper."""
        if not options and self._usual is not None:
            return self._usual
        found = self._browser.new_context(storage_state=self._entered(), **options)
        found.set_default_timeout(PATIENCE_MS)
        if options:
            self._contexts.append(found)
        else:
            self._usual = found
        return found

    def page(self, path: str = "/", **options: Any) -> Page:
        """A tab on one of the pages. What it complains of on its console is remembered."""
        page = self.context(**options).new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(self.base + path)
        return page

    def _entered(self) -> Any:
        if self._state is None:
            context = self._browser.new_context()
            page = context.new_page()
            page.goto(self.link)
            page.wait_for_url(self.base + "/")
            self._state = context.storage_state()
            context.close()
        return self._state

    @property
    def cookie(self) -> str:
        """The browser's session, for requests without a browser."""
        [cookie] = self._entered()["cookies"]
        return f"{cookie['name']}={cookie['value']}"

    def request(
        self, method: str, path: str, body: str | None = None, **headers: str
    ) -> tuple[int, dict[str, str], str]:
        """A plain request, of whatever is given: code, headers, text. `_` in the names of headers stands for `-`."""
        connection = http.client.HTTPConnection("127.0.0.1", self.told["port"], timeout=60)
        with contextlib.closing(connection):
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, given)
            answer = connection.getresponse()
            return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read().decode()

    def close_pages(self) -> None:
        """After a test."""
        for context in self._contexts:
            context.close()
        self._contexts.clear()
        for page in self._usual.pages if self._usual is not None else ():
            page.close()

    def close(self) -> None:
        """Ctrl-C; it must end well."""
        self.close_pages()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=120)
        self.engine.close()
        if (self.engine.side / "local").exists():
            local.stop(self.engine.side / "local")
        # Nothing but the notes of the beginning: what browsers break off is no mistake of anybody.
        assert [line for line in errors.splitlines() if not line.startswith(b'{"note": ')] == []
        assert self.process.returncode == 0


def serve(*words: str, **more: Any) -> subprocess.Popen[bytes]:
    """`scitq --json web` in the background."""
    return subprocess.Popen(
        [*PROGRAM, "--json", "web", "--no-open", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **more.pop("env", {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    program = shutil.which("chromium")
    if program is None:
        pytest.fail("chromium is not installed: see tests/debian-packages.txt")
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=_ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="module")
def make_site(
    browser: Browser, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Callable[[Path], None]], Site]]:
    """Makes the module's site over what a function puts into a new state file."""
    made: list[Site] = []

    def make(fill: Callable[[Path], None]) -> Site:
        path = tmp_path_factory.mktemp("site") / "lab.scitq"
        fill(path)
        made.append(Site(path, browser))
        return made[-1]

    yield make
    for site in made:
        site.close()


__all__ = ["PATIENCE_MS", "PROGRAM", "Site", "serve"]
