"""A task's own pages in a real browser: what it writes as it writes it, everything that can be done about it, its edit."""

from __future__ import annotations

import contextlib
import io
import os
import re
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Dialog, Page, Route, expect

from scitq.engine import Engine
from scitq.handle import Task
from scitq.shell.web.output import PIECE_BYTES
from scitq.states import TaskState
from scitq.store import logs
from scitq.task import ExecutionId
from tests.shell.web.conftest import Site
from tests.workflow.history import Made, history

pytestmark = pytest.mark.servers

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\u202e${{7*7}}"
# Tasks of this batch are launched by nobody.
STILL = "still"
WAIT_S = 60


@pytest.fixture(scope="module")
def site(make_site: Callable[[Callable[[Path], None]], Site]) -> Iterator[Site]:
    """A page over a file that is driven here, by an agent that has begun before any test does."""
    drivers: list[Engine] = []

    def fill(path: Path) -> None:
        engine = Engine(path)
        drivers.append(engine)
        engine.set_batch(STILL, priority=1)
        engine.pause_batch(STILL)
        engine.submit("true", name="warm").result(WAIT_S)

    found = make_site(fill)
    yield found
    for engine in drivers:
        engine.cancel_all(WAIT_S)
        engine.close()


@pytest.fixture(autouse=True)
def nothing_to_complain_of(site: Site) -> Iterator[None]:
    """No page may have said anything on its console: neither what a task wrote, nor a policy that was broken."""
    yield
    site.close_pages()
    # A form that comes back with what is wrong says 400 or 409, which the browser takes note of.
    assert [line for line in site.complaints if not re.search("status of (400|409) ", line)] == []


@pytest.fixture
def go(tmp_path: Path) -> Callable[[str], str]:
    """Says how a script waits for a file of that name."""
    return lambda name: f"until [ -e {tmp_path}/{name} ]; do sleep 0.05; done"


def _row(site: Site, task: Task) -> Any:
    return site.engine.task(int(task.id)).row()


def _is(site: Site, task: Task, state: TaskState) -> None:
    """Wait until the file says so."""
    site.engine._wait_for(lambda: int(_row(site, task).state is not state), WAIT_S, f"{state.word}")


# --- output ---------------------------------------------------------------------------------------------------------------


def test_output_is_shown_as_it_is_written(site: Site, tmp_path: Path, go: Callable[[str], str]) -> None:
    script = (
        f"printf 'a \\033[1;32mgreen\\033[0m <script>alert(1)</script>\\n\\377\\000\\033]0;t\\007|\\n'; echo first >&2; {go('one')}\n"
        f"i=0; while [ $i -lt 300 ]; do echo line $i; i=$((i+1)); done; {go('two')}; echo the end"
    )
    task = site.engine.submit(script, shell=True, name=EVIL, batch="live")
    page = site.page(f"/task/{task.id}")
    out, err = page.locator("[data-stream=stdout] pre"), page.locator("[data-stream=stderr] pre")

    expect(out.locator(".bold.fg2")).to_have_text("green")
    expect(out).to_contain_text("<script>alert(1)</script>")
    expect(out).to_contain_text("\\xff\\x00\\x1b]0;t\\x07|")
    expect(err).to_have_text("first\n")
    expect(page.locator("#task .chip").first).to_have_text("running")

    (tmp_path / "one").touch()
    expect(out).to_contain_text("line 299")
    expect(page.locator("[data-stream=stdout] [data-follow]")).to_have_attribute("aria-pressed", "true")
    assert out.evaluate("pre => pre.scrollTop > 0 && pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 6")

    out.evaluate("pre => { pre.scrollTop = 40; }")  # who scrolls reads: it stands still
    expect(page.locator("[data-stream=stdout] [data-follow]")).to_have_attribute("aria-pressed", "false")
    (tmp_path / "two").touch()
    expect(out).to_contain_text("the end")
    assert out.evaluate("pre => pre.scrollTop") == 40
    page.click("[data-stream=stdout] [data-follow]")
    assert out.evaluate("pre => pre.scrollTop + pre.clientHeight >= pre.scrollHeight - 6")

    expect(page.locator("#task .chip").first).to_have_text("succeeded")  # the rest of the page is current as well
    expect(page.locator("#task table")).to_contain_text("succeeded")
    assert page.title().startswith(f"{task.id} '<script>alert(1)") and "\x1b" not in page.title()
    last = site.engine.task(int(task.id)).executions[-1]
    answer = page.request.get(f"{site.base}/task/{task.id}/execution/{last.id}/stdout")
    assert answer.body() == task.output_bytes(logs.OUT) and answer.headers["content-type"].startswith("text/plain")
    assert "attachment" in answer.headers["content-disposition"] and "\n" not in answer.headers["content-disposition"]
    # Every byte of it came once.
    text = out.text_content()
    assert text is not None and text.count("line 7\n") == 1 and len(re.findall("line ", text)) == 300


def test_no_output_is_lost_while_the_page_is_still_loading(
    site: Site, tmp_path: Path, go: Callable[[str], str]
) -> None:
    task = site.engine.submit(f"echo early; {go('end')}", shell=True, batch="live")
    page = site.page("/tasks")
    held: list[Route] = []
    asked: list[str] = []
    page.route("**/static/task.js*", lambda route: held.append(route))
    page.on("request", lambda request: asked.append(request.url))

    with page.expect_request("**/static/task.js*"):
        page.goto(f"{site.base}/task/{task.id}", wait_until="commit")
    expect(page.locator("html.js #panes")).to_be_visible()  # the first script has run
    expect(page.locator("[data-stream=stdout] pre")).to_be_visible()
    assert not [url for url in asked if "/live" in url]  # who would take what comes is on its way
    held[0].continue_()

    expect(page.locator("[data-stream=stdout] pre")).to_have_text("early\n")
    (tmp_path / "end").touch()


def test_a_relaunched_task_is_followed_into_its_next_try(site: Site, tmp_path: Path, go: Callable[[str], str]) -> None:
    task = site.engine.submit(f"if [ -e {tmp_path}/x ]; then echo second; else echo one; fi", shell=True, batch="live")
    _is(site, task, TaskState.SUCCEEDED)
    page = site.page(f"/task/{task.id}")
    out = page.locator("[data-stream=stdout] pre")
    expect(out).to_have_text("one\n")

    (tmp_path / "x").touch()
    page.click("button:has-text('Relaunch')")
    expect(page.locator(".said")).to_contain_text("1 task queued once more.")
    expect(out).to_have_text("second\n")
    expect(page.locator("#task tbody tr")).to_have_count(2)
    page.click("#task tbody tr:nth-child(2) >> text=show")
    expect(out).to_have_text("one\n")
    expect(page.locator("#output")).to_contain_text("of try 1")


@pytest.fixture(scope="module")
def ended(site: Site) -> dict[str, Any]:
    """Tasks that ended long ago, one of them with much output."""
    found = history(site.engine, "old", {"fetch": Made(3), "align": Made(3, ["fetch"], failing=3, name=EVIL + "{n}")})
    task = site.engine.task(found["fetch"][0])
    execution = task.executions[-1].id
    whole = b"".join(b"%06d \x1b[3%dmx\x1b[0m\n" % (n, n % 8) for n in range(20_000))

    def write(db: Any) -> None:
        logs.keep(db, ExecutionId(execution), logs.OUT, whole, len(whole), False)

    site.engine._write(write)
    return {"task": task, "execution": execution, "whole": whole, **found}


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no-script"])
def test_earlier_output_comes_on_request(site: Site, ended: dict[str, Any], scripted: bool) -> None:
    page = site.page(f"/task/{ended['task'].id}", java_script_enabled=scripted)
    out, link = page.locator("[data-stream=stdout] pre"), page.locator("[data-stream=stdout] .earlier >> text=Earlier")
    text = out.text_content() or ""
    assert text.endswith("019999 x\n") and 0 < len(text) < PIECE_BYTES
    first = int(text[:6])

    link.click()

    expect(out).to_contain_text(f"{first - 1:06} x\n")
    text = out.text_content() or ""
    assert text.endswith("019999 x\n") is scripted and not text.startswith(f"{first:06}")
    if scripted:
        numbers = [int(line[:6]) for line in text.splitlines()]
        assert numbers == list(range(numbers[0], 20_000))
        expect(page.locator("[data-stream=stdout] [data-follow]")).to_have_attribute("aria-pressed", "false")
    else:
        page.click("text=To the end")
        expect(out).to_contain_text("019999 x\n")


# --- what can be done ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no-script"])
def test_every_deed_changes_the_file(site: Site, scripted: bool) -> None:
    task = site.engine.submit("true", name=EVIL, batch=STILL)
    page = site.page(f"/task/{task.id}", java_script_enabled=scripted)

    page.click("button:has-text('Pause')")
    expect(page.locator(".said")).to_contain_text(f"1 task paused. The same: scitq task pause {task.id}")
    assert _row(site, task).state is TaskState.PAUSED
    page.click("button:has-text('Resume')")
    expect(page.locator(".said")).to_contain_text("1 task let go on.")
    assert _row(site, task).state is TaskState.PENDING

    page.click("button:has-text('Cancel')")
    expect(page.locator("h1")).to_have_text("Cancel 1 task?")
    page.click("text=Back, and do nothing")
    assert _row(site, task).state is TaskState.PENDING
    page.click("button:has-text('Cancel')")
    page.click("button:has-text('Cancel 1 task')")
    expect(page.locator("#task .chip").first).to_have_text("cancelled")
    assert _row(site, task).state is TaskState.CANCELLED

    page.click("button:has-text('Relaunch')")
    expect(page.locator("#task .chip").first).to_have_text("pending")
    assert _row(site, task).state is TaskState.PENDING
    page.click("button:has-text('Delete')")
    expect(page.locator("main")).to_contain_text("deleted with all history and logs")
    page.click("button:has-text('Delete 1 task')")
    expect(page).to_have_url(re.compile("/tasks$"))
    expect(page.locator(".said")).to_contain_text("1 task deleted")
    assert not site.engine.rows(name=EVIL, batch=STILL)


def test_the_keyboard_is_enough(site: Site) -> None:
    task = site.engine.submit("true", batch=STILL)
    page = site.page(f"/task/{task.id}")

    _tab_to(page, "Pause")
    page.keyboard.press("Enter")
    expect(page.locator("#task .chip").first).to_have_text("paused")
    _tab_to(page, "Cancel…")
    page.keyboard.press("Space")
    expect(page.locator("h1")).to_have_text("Cancel 1 task?")
    # What cannot be taken back is not one key away.
    assert page.evaluate("document.activeElement.textContent") == "Back, and do nothing"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#task .chip").first).to_have_text("cancelled")
    assert _row(site, task).state is TaskState.CANCELLED


def _tab_to(page: Page, label: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == label:
            assert page.evaluate("document.activeElement.matches(':focus-visible')")
            return
    pytest.fail(f"{label} is not reached by Tab")


def test_what_was_previewed_is_done_once(site: Site) -> None:
    tasks = [site.engine.submit("true", batch=STILL) for _ in range(3)]
    page = site.page("/tasks")
    csrf = page.locator("[name=csrf]").first.get_attribute("value")
    headers = {"origin": site.base}
    fields = f"csrf={csrf}&id={tasks[0].id}&id={tasks[1].id}&next=https://example.org/"
    kind = {**headers, "content-type": "application/x-www-form-urlencoded"}

    answer = page.request.post(f"{site.base}/do/task/pause", data=fields, headers=kind)
    assert "2 tasks" in answer.text() and "example.org" not in answer.text()
    assert _row(site, tasks[0]).state is TaskState.PENDING  # two at once are shown first
    found = re.search('name="chosen" value="([^"]+)"', answer.text())
    assert found is not None
    confirm = f"csrf={csrf}&chosen={found[1]}"
    assert page.request.post(f"{site.base}/do/task/pause", data=confirm, headers=kind).ok
    assert [_row(site, task).state for task in tasks] == [TaskState.PAUSED, TaskState.PAUSED, TaskState.PENDING]
    again = page.request.post(f"{site.base}/do/task/pause", data=confirm, headers=kind)
    assert again.status == 400 and "done already" in again.text()
    without = page.request.post(f"{site.base}/do/task/cancel", data=f"id={tasks[2].id}", headers=kind)
    assert without.status == 403 and _row(site, tasks[2]).state is TaskState.PENDING
    where = page.request.post(
        f"{site.base}/do/task/cancel",
        data=f"csrf={csrf}&where=batch+%3D+%27{STILL}%27+and+id+%3D+{tasks[2].id}",
        headers=kind,
    )
    assert "--where" in where.text() and "1 pending" in where.text()
    assert page.request.post(f"{site.base}/do/task/explode", data=f"csrf={csrf}", headers=kind).status == 400


# --- editing ------------------------------------------------------------------------------------------------------------------


def test_an_edit_is_shown_before_it_is_made(site: Site) -> None:
    task = site.engine.submit("echo \x1b[31m 'a b'", name="e", batch=STILL, env={"A": "1"}, retry={"timed_out": 2})
    page = site.page(f"/task/{task.id}/edit")
    assert page.input_value("[name=retry]") == "timed_out=2"

    page.fill("[name=container]", "ubuntu:24.04")
    page.fill("[name=memory]", "16 GB")
    page.fill("[name=env]", "A=1\nB=x y")
    page.fill("[name=run_timeout]", "zero")
    page.click("text=See what would change")
    expect(page.locator(".said.bad")).to_contain_text("Limit of the run (s): 'zero' is not a number.")
    assert page.input_value("[name=memory]") == "16 GB"
    page.fill("[name=run_timeout]", "90")
    page.check("[name=use_cache]")
    page.click("text=See what would change")
    expect(page.locator("main")).to_contain_text("+B=x y")
    assert _row(site, task).spec.container is None
    page.click("text=Back to editing")
    page.fill("[name=priority]", "5")
    page.click("text=See what would change")
    page.click("button:has-text('Change it')")

    expect(page.locator(".said")).to_contain_text("is changed (container, memory, limit of the run (s), priority")
    row = _row(site, task)
    spec = row.spec
    assert (spec.container, spec.memory, spec.run_timeout, row.priority) == ("ubuntu:24.04", 16 * 10**9, 90.0, 5)
    assert spec.env == {"A": "1", "B": "x y"} and spec.use_cache and spec.retry == {"timed_out": 2}
    assert spec.command == "echo \x1b[31m 'a b'"  # a form cannot hold that; nobody touched it


def test_what_others_did_meanwhile_is_told_and_nothing_typed_is_lost(site: Site) -> None:
    task = site.engine.submit("echo one\necho two", shell=True, batch=STILL)
    page = site.page(f"/task/{task.id}/edit")
    page.fill("[name=command]", "echo mine\r\necho two")
    task.update(priority=7, name="theirs")

    page.click("text=See what would change")
    expect(page.locator("main")).to_contain_text("Meanwhile somebody changed")
    assert page.input_value("[name=command]") == "echo mine\necho two"
    assert page.input_value("[name=priority]") == "7" and page.input_value("[name=name]") == "theirs"
    page.click("text=See what would change")
    expect(page.locator(".diff")).to_have_text("@@ -1,2 +1,2 @@\n-echo one\n+echo mine\n echo two\n")
    page.click("button:has-text('Change it')")
    expect(page.locator(".said")).to_contain_text("is changed (command)")
    row = _row(site, task)
    assert (row.spec.command, row.priority, row.name) == ("echo mine\necho two", 7, "theirs")


def test_a_task_that_was_launched_meanwhile_is_stopped_and_run_again_as_edited(
    site: Site, tmp_path: Path, go: Callable[[str], str]
) -> None:
    task = site.engine.submit(f"{go('never')}; echo before", shell=True, batch=STILL)
    page = site.page(f"/task/{task.id}/edit")
    page.fill("[name=command]", "echo after")
    page.click("text=See what would change")
    site.engine.go_batch(STILL)
    try:
        _is(site, task, TaskState.RUNNING)
    finally:
        site.engine.pause_batch(STILL)

    page.click("button:has-text('Change it')")
    expect(page.locator(".said.bad")).to_contain_text("is already launched")
    assert page.input_value("[name=command]") == "echo after"
    page.click("text=See what would change")
    page.click("button:has-text('Stop it, change it, run it again')")
    expect(page.locator(".said").first).to_contain_text("is changed (command)")
    assert _row(site, task).spec.command == "echo after" and _row(site, task).state is TaskState.PENDING


def test_an_edit_is_carried_over_to_the_step(site: Site) -> None:
    site.engine.set_batch("step edit", priority=1)
    site.engine.pause_batch("step edit")
    tasks = [site.engine.submit(f"fastp -i s{n}.fq --thread 4", shell=True, batch="step edit") for n in range(3)]
    odd = site.engine.submit("fastp -i s9.fq --thread 8", shell=True, batch="step edit")
    page = site.page(f"/task/{tasks[0].id}/edit")

    page.fill("[name=command]", "fastp -i s0.fq --thread 16")
    page.check("[name=step]")
    page.click("text=See what would change")
    expect(page.locator(".said.note")).to_contain_text(
        "3 tasks of step edit would get the new command: 3 not launched, 1 differ"
    )
    page.click("button:has-text('Change it')")
    expect(page.locator(".said").first).to_contain_text("3 tasks of step edit changed")
    assert [_row(site, task).spec.command for task in tasks] == [f"fastp -i s{n}.fq --thread 16" for n in range(3)]
    assert _row(site, odd).spec.command == "fastp -i s9.fq --thread 8"


# --- archives -----------------------------------------------------------------------------------------------------------------


def test_all_output_is_downloaded(site: Site, ended: dict[str, Any]) -> None:
    page = site.page(f"/task/{ended['task'].id}")
    with page.expect_download() as coming:
        page.click("text=All output (zip)")
    assert coming.value.suggested_filename == f"{ended['task'].id} s00000.zip"
    with zipfile.ZipFile(coming.value.path()) as found:
        assert found.read(f"{ended['task'].id} s00000/stdout.txt") == ended["whole"]
        assert b"s3://lab/" in found.read("elsewhere.txt")

    answer = page.request.get(f"{site.base}/all.zip?batch=old.align")
    with zipfile.ZipFile(io.BytesIO(answer.body())) as found:
        assert found.testzip() is None and len(found.namelist()) == 2  # one wrote an error; where the others' output is
    assert page.request.get(f"{site.base}/all.zip?where=state+%3D+%27failed%27+and+batch+%3D+%27old.align%27").ok
    assert page.request.get(f"{site.base}/all.zip?id={ended['task'].id}&id={ended['fetch'][1]}").ok
    for wrong, code in (("", 400), ("?batch=none", 404), ("?where=nonsense", 400), ("?id=x", 400)):
        assert page.request.get(f"{site.base}/all.zip{wrong}").status in (code, 400), wrong


def test_a_download_that_is_broken_off_harms_nobody(site: Site, ended: dict[str, Any], tmp_path: Path) -> None:
    import http.client

    large = os.urandom(6_000_000)  # more than what is on its way holds
    execution = ExecutionId(site.engine.task(ended["fetch"][1]).executions[-1].id)
    site.engine._write(lambda db: logs.keep(db, execution, logs.ERR, large, len(large), False))
    for path, begins in (
        (f"/task/{ended['task'].id}/execution/{ended['execution']}/stdout", ended["whole"][:1000]),
        (f"/task/{ended['fetch'][1]}/execution/{execution}/stderr", large[:1000]),
        (f"/task/{ended['fetch'][1]}/all.zip", b"PK"), ("/all.zip?batch=old.fetch", b"PK"),
    ):  # fmt: skip
        connection = http.client.HTTPConnection("127.0.0.1", site.told["port"], timeout=60)
        with contextlib.closing(connection), socket.socket() as narrow:
            narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            narrow.connect(("127.0.0.1", site.told["port"]))
            connection.sock = narrow
            connection.request("GET", path, headers={"cookie": site.cookie})
            assert connection.getresponse().read(1000).startswith(begins)
    # That the server has nothing to say of it is looked at when it ends.
    code, _, _ = site.request("GET", "/tasks", cookie=site.cookie)
    assert code == 200 and site.process.poll() is None


# --- anywhere -----------------------------------------------------------------------------------------------------------------


def test_pages_fit_a_small_screen_and_hostile_names(site: Site, ended: dict[str, Any]) -> None:
    page = site.page("/", viewport={"width": 360, "height": 800}, color_scheme="dark")
    dialogs: list[str] = []

    def seen(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", seen)
    failed = next(id for id in ended["align"] if site.engine.task(id).state is TaskState.FAILED)
    for path in (f"/task/{failed}", f"/task/{failed}/edit"):
        page.goto(site.base + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        expect(page.locator("h1")).to_contain_text("<script>alert(1)</script>")
        assert "\u202e" not in page.content()
    assert dialogs == []


def test_what_is_not_there_is_said(site: Site, ended: dict[str, Any]) -> None:
    task = ended["task"].id
    for path, code in (
        ("/task/999999", 404), ("/task/999999/edit", 404), (f"/task/{task}?execution=9999", 400), ("/task/x", 404),
        (f"/task/{task}/execution/9999/stdout", 400), (f"/task/{task}/execution/{ended['execution']}/passwd", 400),
        (f"/task/{task}/earlier?stream=stdout&before=x", 400), (f"/task/{task}?stdout_before=-1", 400), ("/task/999999/live", 404),
    ):  # fmt: skip
        found, _, text = site.request("GET", path, cookie=site.cookie)
        assert found == code and 'role="alert"' in text, (path, found, text)
