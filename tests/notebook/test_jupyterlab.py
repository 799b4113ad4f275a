"""One session in a real JupyterLab, in a real browser: cells are run, live tables change while the kernel is free."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat.v4
import pytest
from playwright.sync_api import Dialog, Page, expect, sync_playwright

from scitq.remote import local
from tests.notebook.conftest import HOSTILE
from tests.notebook.kernel import ROOT, add_kernel, until
from tests.workflow.browser import QUIET

pytestmark = [pytest.mark.servers, pytest.mark.filterwarnings("ignore::DeprecationWarning")]
PATIENCE_MS = 120_000
_ENDED = re.compile(r"\[[0-9]+\]:")
TOKEN = "a-token-of-this-test"

CELLS = (
    "%load_ext scitq\nimport scitq\nfrom scitq.workflow import Workflow\nq = scitq.open('lab.scitq')",
    "HOSTILE = bytes.fromhex('{hostile}').decode()\nq.submit(['printf', '%s', HOSTILE], name=HOSTILE).result()",
    "q.tasks()",
    '%%task hello --wait\necho "hello from bash"',
    "with Workflow('live', engine=q, shell=True) as wf:\n    for n in range(3):\n"
    "        wf.step('one', 'while ! [ -e go ]; do sleep 0.05; done', name=f'{HOSTILE} {n}')\nwf.run(block=False)",
    "print('the kernel', 'is free')",
    "%scitq task delete hello",
    "%scitq task list",
    "import os\nprint('process', os.getpid(), 'sees', len(q.tasks()), 'tasks')",
)
_PROCESS = re.compile(r"process ([0-9]+) sees ([0-9]+) tasks")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[str]:
    """A server of its own, on a free port that it chose; gives the address of the notebook, with its token."""
    cells = [nbformat.v4.new_code_cell(text.replace("{hostile}", HOSTILE.encode().hex())) for text in CELLS]  # type: ignore[no-untyped-call]
    spec = {"kernelspec": {"name": "scitq", "display_name": "scitq", "language": "python"}}
    (tmp_path / "tour.ipynb").write_text(json.dumps(nbformat.v4.new_notebook(cells=cells, metadata=spec)))  # type: ignore[no-untyped-call]
    home = tmp_path / "home"
    home.mkdir()
    environ = {
        **os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT), "JUPYTER_TOKEN": TOKEN, "JUPYTER_RUNTIME_DIR": str(home / "run"),
        "JUPYTER_CONFIG_DIR": str(home / "config"), "JUPYTER_DATA_DIR": str(home / "data"), "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_PATH": str(add_kernel(tmp_path)), "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }  # fmt: skip
    options = (
        "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1", "--ServerApp.port=0", f"--ServerApp.root_dir={tmp_path}",
        "--LabApp.news_url=None", "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    )  # fmt: skip
    with (tmp_path / "lab.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options],
            cwd=tmp_path,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
    try:
        told = home / "run" / f"jpserver-{server.pid}.json"
        assert until(lambda: told.exists() and _port(told) > 0, 180), (tmp_path / "lab.log").read_text()
        yield f"http://127.0.0.1:{_port(told)}/lab/tree/tour.ipynb?token={TOKEN}&reset"
    finally:
        server.terminate()  # it shuts its kernels down
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        local.stop(tmp_path / "lab.scitq.d/local")


def _port(told: Path) -> int:
    try:
        return int(json.loads(told.read_text())["port"])
    except ValueError:  # it is being written
        return 0


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A page of a browser without a window."""
    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        assert program, "chromium is not installed: see tests/debian-packages.txt"
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu", *QUIET])
        found = browser.new_page(viewport={"width": 1200, "height": 1900})
        found.set_default_timeout(PATIENCE_MS)
        yield found
        browser.close()


@pytest.mark.timeout(900)
def test_a_session_in_jupyterlab(lab: str, page: Page, tmp_path: Path) -> None:
    expect.set_options(timeout=PATIENCE_MS)
    dialogs: list[str] = []

    def heard(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", heard)
    page.goto(lab)
    cells = page.locator(".jp-Notebook .jp-CodeCell")
    expect(cells).to_have_count(len(CELLS))
    expect(page.locator(".jp-Notebook-ExecutionIndicator[data-status=idle]")).to_be_visible()

    def run(at: int) -> Any:
        cells.nth(at).locator(".cm-content").click()
        page.keyboard.press("Control+Enter")
        return cells.nth(at).locator(".jp-Cell-outputArea")

    def end(at: int) -> Any:
        """The same, when the cell has ended."""
        found = run(at)
        expect(cells.nth(at).locator(".jp-InputPrompt")).to_have_text(_ENDED)
        return found

    def is_begun() -> bool:
        # What is asked of a notebook before its kernel has answered is dropped without a word: it is asked again.
        run(0)
        prompt = cells.nth(0).locator(".jp-InputPrompt")
        return until(lambda: _ENDED.fullmatch(prompt.inner_text()) is not None, 10)

    assert until(is_begun, 180)
    end(1)
    listed = end(2)
    expect(listed).to_contain_text("<script>document.title='owned'</script>\\x1b[2J")
    expect(listed.locator("table.scitq")).to_be_visible()
    expect(run(3)).to_contain_text("hello from bash")

    live = run(4)
    expect(live).to_contain_text("workflow live")
    expect(live).to_contain_text("0/3")
    expect(run(5)).to_contain_text("the kernel is free")
    live.get_by_role("button", name="Pause").click()
    expect(live).to_contain_text("(paused)")
    live.get_by_role("button", name="Go on").click()
    expect(live).not_to_contain_text("(paused)")

    deleted = run(6)
    deleted.locator("input.jp-Stdin-input").fill("y")
    deleted.locator("input.jp-Stdin-input").press("Enter")
    expect(deleted).to_contain_text("deleted")
    page.screenshot(path=tmp_path / "while.png")

    (tmp_path / "go").touch()
    expect(live).to_contain_text("3/3")
    expect(live.get_by_role("button", name="Pause")).to_have_count(0)
    table = run(7)
    expect(table.locator("table.scitq")).to_contain_text("succeeded")
    page.screenshot(path=tmp_path / "end.png")

    end(0)  # once more, in the same kernel
    expect(run(8)).to_contain_text(_PROCESS)
    before = _PROCESS.findall(cells.nth(8).locator(".jp-Cell-outputArea").inner_text())
    page.keyboard.press("Escape")
    page.keyboard.press("0")
    page.keyboard.press("0")
    page.locator(".jp-Dialog").get_by_role("button", name="Confirm Kernel Restart").click()

    def is_again() -> bool:
        """The new kernel runs cells; what it is asked before that is dropped, as above."""
        run(0)
        told = run(8)

        def differs() -> bool:
            now = _PROCESS.findall(told.inner_text())
            return bool(now) and now[0][0] != before[0][0]

        return until(differs, 10)

    assert until(is_again, 180)
    assert _PROCESS.findall(cells.nth(8).locator(".jp-Cell-outputArea").inner_text())[0][1] == before[0][1] != "0"
    expect(end(7).locator("table.scitq")).to_contain_text("succeeded")

    assert dialogs == [] and "owned" not in page.title()
    assert page.locator(".jp-OutputArea script").count() == 0
