"""The list of tasks in a real browser: found, sorted, chosen, and something done about; live, by keyboard, without JavaScript."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Dialog, Page, expect

from scitq.engine import Engine
from scitq.states import TaskState
from tests.shell.web.conftest import Site

pytestmark = pytest.mark.servers

EVIL = "<script>alert('x')</script>\"'&amp;<img src=x onerror=alert(1)>javascript:alert(2)\x1b[31m\u202e"


def fill(path: Path) -> None:
    """Tasks that ran, and failed, with output; more than a page of those that wait."""
    with Engine(path, linger_s=0) as engine:
        engine.submit("echo good words; echo bad words >&2", shell=True, name="ran", batch="done")
        engine.submit("echo lost; exit 3", shell=True, name="broke", batch="done")
        engine.submit(f"echo {shlex.quote(EVIL)}", shell=True, name=EVIL, batch=f"evil {EVIL}"[:90])
        engine.wait_all(60)
    with Engine(path, drive=False) as engine:
        engine.submit_many([{"command": f"sleep {n}", "name": f"s{n:03}"} for n in range(120)], batch="many")


@pytest.fixture(scope="module")
def site(make_site: Callable[[Callable[[Path], None]], Site]) -> Site:
    """The module's."""
    return make_site(fill)


@pytest.fixture(autouse=True)
def closed(site: Site) -> Iterator[None]:
    """Each test has tabs of its own, which have nothing to complain of."""
    yield
    site.close_pages()
    complaints, site.complaints[:] = list(site.complaints), []
    assert complaints == []


def names(page: Page) -> list[str]:
    """The tasks that are shown."""
    return page.locator("#rows tr strong").all_inner_texts()


def states(site: Site, batch: str) -> dict[str, str]:
    """What the file says."""
    return {str(row.name): row.state.word for row in site.engine.rows(batch=batch)}


def submitted(site: Site, batch: str, *names: str) -> None:
    """Tasks that nobody runs."""
    site.engine.submit_many([{"command": "true", "name": name} for name in names], batch=batch)


def test_tasks_are_found(site: Site) -> None:
    page = site.page("/tasks")
    expect(page.locator("#rows tr")).to_have_count(50)
    page.get_by_role("link", name=re.compile("^failed 1")).first.click()
    expect(page.locator("#rows tr")).to_have_count(1)
    row = page.locator("#rows tr")
    for text in ("broke", "echo lost; exit 3", "done", "failed (exit 3)", "local", "lost"):
        expect(row).to_contain_text(text)
    page.goto(site.base + "/tasks?batch=done")
    expect(page.locator("#rows tr").filter(has_text="ran")).to_contain_text("bad words")
    page.get_by_label("Name, command or number").fill("EXIT 3")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#rows tr")).to_have_count(1)
    assert names(page) == ["broke"] and "batch=done" in page.url
    page.get_by_label("Batch", exact=True).select_option("many")
    expect(page.get_by_text("No such tasks.")).to_be_visible()
    page.get_by_role("link", name="without filter").click()
    page.get_by_label("Condition in SQL").fill("exit_code = 3 or name = 's007'")
    page.get_by_label("Condition in SQL").press("Enter")
    expect(page.locator("#rows tr")).to_have_count(2)
    page.get_by_label("Condition in SQL").fill("name = 'x'; delete from task")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("alert")).to_contain_text("where: ';' has no place in a condition")
    assert len(site.engine.rows(batch="many")) == 120
    site.complaints.clear()  # that there was a 400


def test_tasks_are_sorted(site: Site) -> None:
    page = site.page("/tasks?batch=many")
    assert names(page)[:2] == ["s119", "s118"]
    page.get_by_role("link", name="task", exact=True).click()
    expect(page.locator("th[aria-sort=ascending]")).to_have_text(re.compile("^task"))
    assert names(page)[0] == "s000" and len(names(page)) == 50
    page.get_by_role("link", name="Next").click()
    expect(page.locator("#rows tr").first).to_contain_text("s050")
    page.get_by_role("link", name="Next").click()
    expect(page.locator("#rows tr")).to_have_count(20)
    expect(page.get_by_role("link", name="Next")).to_have_count(0)
    page.get_by_role("link", name="Previous").click()
    expect(page.locator("#rows tr").first).to_contain_text("s050")
    page.get_by_role("link", name="Previous").click()
    expect(page.locator("#rows tr").first).to_contain_text("s000")
    expect(page.get_by_role("link", name="Previous")).to_have_count(0)
    page.locator("th").get_by_role("link", name="task").click()
    expect(page.locator("th[aria-sort=descending]")).to_have_text(re.compile("^task"))
    assert names(page)[0] == "s119"
    for key in ("id", "batch", "state", "worker", "time"):
        page.goto(f"{site.base}/tasks?sort={key}&way=up")
        expect(page.locator("th[aria-sort=ascending]")).to_have_count(1)
        expect(page.locator("#rows tr")).to_have_count(50)
    for bad in (
        "sort=x",
        "state=nothing",
        "after=[",
        "after=[1,2,3]",
        'sort=name&before=[0,1,"a"]',
        "after=[-1]",
        "after=[1e3]",
    ):
        code, _, text = site.request("GET", f"/tasks?{bad}".replace('"', "%22"), Cookie=site.cookie)
        assert code == 400 and "Traceback" not in text, bad


def test_what_tasks_say_is_text(site: Site) -> None:
    dialogs: list[str] = []
    page = site.page("/tasks?text=alert")

    def said(dialog: Dialog) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", said)
    shown = EVIL.replace("\x1b", "\\x1b").replace("\u202e", "\\u202e")
    expect(page.locator("#rows tr strong")).to_have_text(shown)
    for path in ("/", "/batches", "/workers", "/tasks?batch=" + "evil", "/tasks?where=%3Cscript%3Ealert(1)%3C/script%3E",
                 "/tasks?text=%22%3E%3Cscript%3Ealert(1)%3C/script%3E"):  # fmt: skip
        page.goto(site.base + path)
        assert page.locator("main script, main img, main [onerror]").count() == 0
    page.goto(site.base + "/batches?text=alert")
    expect(page.get_by_role("rowheader")).to_contain_text("<script>alert('x')</script>")
    page.get_by_role("rowheader").get_by_role("link").first.click()
    expect(page.locator("#rows tr")).to_have_count(1)
    assert dialogs == []
    site.complaints.clear()  # of the condition that is none


def test_something_is_done_to_the_chosen_after_a_look(site: Site) -> None:
    submitted(site, "chosen", "a", "b", "c")
    page = site.page("/tasks?batch=chosen&sort=name")
    page.get_by_label("Choose task").nth(0).check()
    page.get_by_label("Choose task").nth(1).check()
    expect(page.get_by_text("2 chosen")).to_be_visible()
    page.get_by_role("button", name="Pause the chosen").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Pause")
    expect(page.locator("main")).to_contain_text("scitq")
    assert set(states(site, "chosen").values()) == {"pending"}
    page.locator("main form").get_by_role("button").first.click()
    page.wait_for_url("**/tasks?batch=chosen**")
    assert states(site, "chosen") == {"a": "paused", "b": "paused", "c": "pending"}
    expect(page.get_by_role("status").filter(has_text="2 tasks")).to_be_visible()

    def do(what: str, *which: int) -> None:
        for n in which:
            page.get_by_label("Choose task").nth(n).check()
        page.get_by_role("button", name=f"{what} the chosen").click()
        page.wait_for_load_state()
        if page.url.endswith(f"/do/task/{what.lower()}"):
            page.locator("main form").get_by_role("button").first.click()
        page.wait_for_url("**/tasks?batch=chosen**")

    do("Resume", 0)
    assert states(site, "chosen") == {"a": "pending", "b": "paused", "c": "pending"}
    do("Cancel", 0, 1, 2)
    assert set(states(site, "chosen").values()) == {"cancelled"}
    do("Relaunch", 2)
    assert states(site, "chosen") == {"a": "cancelled", "b": "cancelled", "c": "pending"}
    do("Delete", 0, 1)
    assert states(site, "chosen") == {"c": "pending"}


def test_something_is_done_to_all_of_a_list(site: Site) -> None:
    submitted(site, "whole", *(f"t{n}" for n in range(60)))
    page = site.page("/tasks?batch=whole&text=t1")
    page.get_by_text(re.compile("Do something to all")).click()
    page.get_by_role("button", name="Cancel all").click()
    expect(page.locator("main")).to_contain_text("11")
    page.locator("main form").get_by_role("button").first.click()
    page.wait_for_url("**/tasks?batch=whole**")
    assert sum(state == "cancelled" for state in states(site, "whole").values()) == 11


def test_a_list_stays_current_and_leaves_alone_what_one_does(site: Site) -> None:
    submitted(site, "live", *(f"l{n:02}" for n in range(40)))
    page = site.page("/tasks?batch=live")
    page.get_by_label("Choose task").nth(3).check()
    field = page.get_by_label("Condition in SQL")
    field.fill("half a cond")
    page.evaluate("scrollTo(0, 300)")
    scrolled = page.evaluate("scrollY")
    chosen = page.locator("input[data-pick]:checked").get_attribute("value")

    site.engine.submit("true", name="new one", batch="live")
    site.engine.tasks(batch="live", name="l00")[0].cancel()

    expect(page.locator("#rows tr").first).to_contain_text("new one")
    expect(page.locator("#rows tr").filter(has_text="l00")).to_contain_text("cancelled")
    expect(page.locator("#tabs")).to_contain_text("all 41")
    assert page.locator("input[data-pick]:checked").get_attribute("value") == chosen
    assert field.input_value() == "half a cond"
    assert page.evaluate("document.activeElement.name") == "where"
    assert scrolled > 0 and abs(page.evaluate("scrollY") - scrolled) < 200  # the row that came is above
    expect(page.get_by_text("1 chosen")).to_be_visible()


def test_the_stream_ends_while_a_tab_is_hidden(site: Site) -> None:
    submitted(site, "hidden", "h1")
    page = site.page("/tasks?batch=hidden")

    def turn(is_hidden: bool) -> None:
        page.evaluate(
            "is => { Object.defineProperty(document, 'hidden', {value: is, configurable: true}); "
            "document.dispatchEvent(new Event('visibilitychange')); }", is_hidden
        )  # fmt: skip

    site.engine.submit("true", name="h2", batch="hidden")
    expect(page.locator("#rows tr")).to_have_count(2)
    with page.expect_event("requestfailed", lambda request: "/live" in request.url):
        turn(True)
    site.engine.submit("true", name="h3", batch="hidden")
    with page.expect_request(lambda request: "/live" in request.url):
        turn(False)
    expect(page.locator("#rows tr")).to_have_count(3)  # what came meanwhile is there


def test_keys_alone(site: Site) -> None:
    submitted(site, "keys", "k1", "k2", "k3")
    page = site.page("/")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    for key, path in (("w", "/workers"), ("b", "/batches"), ("t", "/tasks")):
        page.keyboard.press("g")
        page.keyboard.press(key)
        page.wait_for_url(site.base + path)
    page.keyboard.press("/")
    page.keyboard.type("k")
    assert page.evaluate("document.activeElement.name") == "text"
    page.goto(site.base + "/tasks?batch=keys&sort=name")
    for key in ("j", "j", "x", "k", "x"):
        page.keyboard.press(key)
    assert page.locator("tr:has(input:checked) strong").all_inner_texts() == ["k1", "k2"]
    expect(page.locator("tr.at strong")).to_have_text("k1")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile(r"/task/\d+$"))

    page.goto(site.base + "/tasks?batch=keys&sort=name")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="To the content")).to_be_focused()
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText") == "Cancel the chosen":
            break
        if page.evaluate("document.activeElement.matches('#rows tr:first-child input')"):
            page.keyboard.press("Space")
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Cancel")
    for _ in range(30):
        if page.evaluate("document.activeElement.closest('main form button') !== null"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**/tasks?batch=keys**")
    assert states(site, "keys") == {"k1": "cancelled", "k2": "pending", "k3": "pending"}


def test_all_works_without_javascript(site: Site) -> None:
    submitted(site, "plain", "p1", "p2")
    page = site.page("/tasks?batch=plain", java_script_enabled=False)
    expect(page.locator("#rows tr")).to_have_count(2)
    page.get_by_label("Name, command or number").fill("p1")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#rows tr")).to_have_count(1)
    page.get_by_label("Choose task").check()
    page.get_by_role("button", name="Cancel the chosen").click()
    page.locator("main form").get_by_role("button").first.click()
    expect(page.get_by_role("status").filter(has_text="1 task")).to_be_visible()
    assert states(site, "plain") == {"p1": "cancelled", "p2": "pending"}


def test_pages_fit_a_telephone_and_the_dark(site: Site) -> None:
    page = site.page("/", viewport={"width": 360, "height": 800}, color_scheme="dark")
    for path in ("/", "/tasks", "/batches", "/workers"):
        page.goto(site.base + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(18, 22, 28)"
    assert TaskState.FAILED in site.engine.counts()
