"""The pages of workers and batches, and the first one, in a real browser: what they show, and every deed of theirs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import apsw
import pytest
from playwright.sync_api import Locator, Page, expect

from scitq.engine import Engine
from scitq.hints import driver_of
from scitq.states import Halt, JobState, Outcome, Stage, WorkerState
from scitq.store import batches, executions, jobs, workers
from scitq.task import Assignment, TaskId
from scitq.worker import SSH
from tests.shell.web.conftest import Site

pytestmark = pytest.mark.servers

NOW = 1_800_000_000_000
EVIL = "<script>alert(1)</script>"


def fill(path: Path) -> None:
    """Two hosts, one of them measured for an hour, with executions that ended and one that has not; nobody drives."""
    with Engine(path, drive=False) as engine:
        engine.submit_many([{"command": "true", "name": f"t{n}"} for n in range(8)], batch="qc")
        engine.submit_many([{"command": "true"} for _ in range(3)], batch="other")
        engine.worker_add("me@atlas", concurrency=4)
        engine.worker_add("me@far.example", name="far", concurrency=2)
        engine._write(_history)


def _prepared(name: str, db: apsw.Connection) -> None:
    """As if somebody had driven."""
    row = workers.find(db, name)
    for job in jobs.of_worker(db, row.id):
        jobs.move(db, NOW, job.id, JobState.RUNNING)
        jobs.say(db, job.id, "connect", 0.4, f"connecting to {EVIL}")
        jobs.move(db, NOW, job.id, JobState.SUCCEEDED)
    workers.move(db, NOW, row.id, WorkerState.READY)
    workers.describe(db, row.id, {"cpus": 32, "memory": 250 * 10**9, "gpus": ["0", "1"]})


def _history(db: apsw.Connection) -> None:
    for name in ("atlas", "far"):
        _prepared(name, db)
    atlas = workers.find(db, "atlas").id
    for n in range(60):
        workers.measure(db, atlas, {
            "at": NOW + n * 60_000, "load": n / 4, "cpu": (n % 10) / 10, "memory": 250 * 10**9, "memory_free": 200 * 10**9 - n * 10**9,
            "disk": 10**12, "disk_free": 10**11, "net_in": n * 6 * 10**8, "net_out": n * 10**6, "uptime": 9, "running": 1, "queued": 0,
            "read_s": 12e6, "written_s": 3e6, "disks": {"/": [10**12, 10**11], f"/{EVIL}": [10**12, 5 * 10**11]},
        })  # fmt: skip
    ends = [Outcome.SUCCEEDED] * 4 + [Outcome.FAILED] * 2
    orders = executions.begin(db, NOW, [Assignment(TaskId(id), int(atlas)) for id in range(1, 8)])
    for n, (order, end) in enumerate(zip(orders, ends, strict=False)):
        db.execute("update execution set run_s = ? where id = ?", (10.0 * (n + 1), order.execution))
        executions.finish(db, NOW + 1000, order.execution, end, Stage.RUN, None)


@pytest.fixture(scope="module")
def site(make_site: Callable[[Callable[[Path], None]], Site]) -> Site:
    """The module's."""
    return make_site(fill)


@pytest.fixture(autouse=True)
def closed(site: Site, bare: Site) -> Iterator[None]:
    """Each test has tabs of its own, which have nothing to complain of."""
    yield
    site.close_pages()
    bare.close_pages()
    assert bare.complaints == []
    complaints, site.complaints[:] = list(site.complaints), []
    assert complaints == []


def row(page: Page, name: str) -> Locator:
    """The row of a worker or a batch."""
    return page.locator("tr[data-row]").filter(has=page.get_by_role("link", name=name, exact=True))


def confirm(page: Page) -> None:
    """On the page that asks."""
    page.locator("main form").get_by_role("button").first.click()


# --- workers --------------------------------------------------------------------------------------------------------------


def test_workers_show_what_they_hold_did_and_do(site: Site) -> None:
    page = site.page("/workers")
    atlas = row(page, "atlas")
    for text in ("ready", "32 CPUs, 250 GB, 2 GPU", "90 %", "14.8", "10 MB/s", "reads 12 MB/s · writes 3.0 MB/s"):
        expect(atlas).to_contain_text(text)
    expect(atlas).to_contain_text(f"/{EVIL} 50 %")
    expect(atlas.locator("svg.spark")).to_have_count(5)
    expect(atlas.get_by_role("img", name="CPUs busy, lately")).to_be_visible()
    assert row(page, "far").locator("svg.spark").count() == 0
    atlas.get_by_role("link", name="4", exact=True).click()
    page.wait_for_url("**state=succeeded**")
    expect(page.locator("#rows tr")).to_have_count(4)
    page.go_back()
    row(page, "atlas").get_by_role("link", name="2", exact=True).click()
    expect(page.locator("#rows tr")).to_have_count(2)


def test_how_much_a_worker_runs_is_changed_in_place(site: Site) -> None:
    page = site.page("/workers")

    def at_once() -> tuple[int, int | None, str | None]:
        found = site.engine.worker("far")
        return found.concurrency, found.prefetch, found.batch

    row(page, "far").get_by_label("concurrency: one more").click()
    expect(page.get_by_role("status").filter(has_text="far: 3 at once")).to_be_visible()
    row(page, "far").get_by_label("concurrency: one less").click()
    expect(page.get_by_role("status").filter(has_text="far: 2 at once")).to_be_visible()
    row(page, "far").get_by_label("prefetch: one more").click()
    expect(page.get_by_role("status").filter(has_text="1 ready beyond")).to_be_visible()
    assert at_once() == (2, 1, None)
    field = row(page, "far").get_by_label("Batch that far serves")
    field.fill("qc")
    field.press("Enter")
    expect(page.get_by_role("status").filter(has_text="for batch qc")).to_be_visible()
    assert at_once() == (2, 1, "qc")
    row(page, "far").get_by_label("Batch that far serves").fill("")
    row(page, "far").get_by_label("Batch that far serves").press("Enter")
    expect(page.get_by_role("status").filter(has_text="every batch")).to_be_visible()
    row(page, "far").locator("summary").click()
    row(page, "far").get_by_label("At once").fill("many")
    row(page, "far").get_by_role("button", name="Set").click()
    expect(page.get_by_role("alert")).to_contain_text("concurrency must be a number of 0 or more, not 'many'")
    page.goto(site.base + "/workers")
    row(page, "far").locator("summary").click()
    row(page, "far").get_by_label("At once").fill("5")
    row(page, "far").get_by_label("Ahead").fill("auto")
    row(page, "far").get_by_role("button", name="Set").click()
    expect(page.get_by_role("status").filter(has_text="far: 5 at once, as many as short tasks need")).to_be_visible()
    assert at_once() == (5, None, None)
    site.complaints.clear()  # that there was a 400


def test_every_deed_of_a_worker(site: Site) -> None:
    site.engine.worker_add("me@doomed.example", name="doomed")
    site.engine._write(partial(_prepared, "doomed"))
    page = site.page("/workers")

    def do(deed: str, *, asks: bool = False) -> None:
        row(page, "doomed").locator("summary").click()
        row(page, "doomed").get_by_role("button", name=deed, exact=True).click()
        if asks:
            expect(page.get_by_role("heading", level=1)).to_contain_text(deed)
            confirm(page)
        expect(page.get_by_role("status").filter(has_text="1 worker")).to_be_visible()

    for deed, state in (("Pause", "paused"), ("Resume", "ready"), ("Drain", "draining"), ("Resume", "ready")):
        do(deed)
        assert site.engine.worker("doomed").state.word == state
        expect(row(page, "doomed")).to_contain_text(state)
    do("Restart")
    do("Clean", asks=True)
    kinds = [job.kind for job in site.engine.jobs("doomed")]
    assert kinds[:2] == ["clean", "restart"]
    expect(page.locator("#jobs")).to_contain_text("clean")
    page.locator("#jobs tr").filter(has_text="prepare").filter(has_text="doomed").first.locator("summary").click()
    expect(page.locator("#jobs pre").filter(has_text=f"connecting to {EVIL}").first).to_be_visible()
    row(page, "doomed").locator("summary").click()
    row(page, "doomed").get_by_role("button", name="Delete").click()
    expect(page.locator("main")).to_contain_text("everything of lab.scitq there is deleted")
    assert site.engine.worker("doomed").state is WorkerState.READY
    page.go_back()
    site.engine._write(
        lambda db: workers.move(db, NOW, workers.find(db, "doomed").id, WorkerState.UNREACHABLE, "silent")
    )
    expect(row(page, "doomed")).to_contain_text("unreachable")
    do("Declare lost", asks=True)
    assert site.engine.worker("doomed").note == "declared lost"
    do("Delete", asks=True)
    assert site.engine.worker("doomed").state is WorkerState.DELETING


def test_a_host_is_added(site: Site) -> None:
    page = site.page("/workers")
    page.get_by_text("Add a worker").click()
    page.get_by_label(re.compile("^Host")).fill("me@new.example")
    page.get_by_label("Tasks at once").fill("3")
    page.get_by_label("Batch", exact=True).fill("qc")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("status").filter(has_text="new.example is to be prepared")).to_be_visible()
    expect(page.locator("#jobs tr").filter(has_text="new.example")).to_contain_text("pending")
    new = site.engine.worker("new.example")
    assert (new.kind, new.concurrency, new.batch, new.address) == (SSH, 3, "qc", "me@new.example")
    job = site.engine.jobs("new.example")[0]

    site.engine._write(lambda db: jobs.move(db, NOW, job.id, JobState.RUNNING))
    site.engine._write(lambda db: jobs.say(db, job.id, "agent", 0.5, "copied"))

    expect(page.locator("#jobs tr").filter(has_text="new.example")).to_contain_text("agent")
    page.get_by_text("Add a worker").click()
    page.get_by_label(re.compile("^Host")).fill("-oProxyCommand=x")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_role("alert")).to_contain_text("is not a host")
    site.complaints.clear()  # that there was a 400


# --- batches --------------------------------------------------------------------------------------------------------------


def test_batches_show_how_far_they_are(site: Site) -> None:
    page = site.page("/batches")
    qc = row(page, "qc")
    for text in ("atlas", "75 % of 8", "25 s [10 s\u201340 s]", "55 s [50 s\u201360 s]"):
        expect(qc).to_contain_text(text)
    qc.locator("summary").click()
    graph = qc.get_by_role("link", name="Graph").get_attribute("href")
    archive = qc.get_by_role("link", name="All output (zip)").get_attribute("href")
    assert site.request("GET", str(graph), Cookie=site.cookie)[0] == 200
    assert archive == "/all.zip?batch=qc"
    expect(qc.get_by_role("img")).to_have_attribute("aria-label", "75 % of 8 tasks have succeeded or failed")
    qc.get_by_role("link", name="4", exact=True).click()
    page.wait_for_url("**batch=qc**")
    expect(page.locator("#rows tr")).to_have_count(4)
    page.goto(site.base + "/batches?text=oth")
    expect(page.locator("tr[data-row]")).to_have_count(1)


def test_every_deed_of_a_batch(site: Site) -> None:
    site.engine.submit_many([{"command": "true"} for _ in range(3)], batch="mine")
    page = site.page("/batches")

    def halt() -> Halt:
        return batches.all_of(site.engine._reader())["mine"][0]

    row(page, "mine").get_by_role("button", name="Pause", exact=True).click()
    expect(row(page, "mine")).to_contain_text("paused")
    assert halt() is Halt.PAUSED
    row(page, "mine").locator("summary").click()
    row(page, "mine").get_by_role("button", name="Pause with what runs").click()
    expect(row(page, "mine")).to_contain_text("suspended")
    assert halt() is Halt.SUSPENDED
    row(page, "mine").get_by_role("button", name="Go on").click()
    expect(row(page, "mine")).to_contain_text("go")
    assert halt() is Halt.GO
    row(page, "mine").locator("summary").click()
    row(page, "mine").get_by_role("button", name="Cancel").click()
    confirm(page)
    expect(page.get_by_role("status").filter(has_text="3 tasks cancelled")).to_be_visible()
    assert {task.state.word for task in site.engine.rows(batch="mine")} == {"cancelled"}
    row(page, "mine").locator("summary").click()
    row(page, "mine").get_by_role("button", name="Delete").click()
    assert "mine" in site.engine.batches()
    confirm(page)
    expect(page.get_by_role("status").filter(has_text="deleted")).to_be_visible()
    assert "mine" not in site.engine.batches()
    expect(row(page, "mine")).to_have_count(0)


# --- the first page ---------------------------------------------------------------------------------------------------------


def test_notices_are_shown_acted_on_and_put_aside(site: Site) -> None:
    page = site.page("/")
    failed = page.locator("#notices li").filter(has_text="failed")
    expect(failed.first).to_be_visible()
    before = {notice.key for notice in site.engine.notices()}
    text = failed.first.inner_text().splitlines()[0]
    failed.first.get_by_role("button", name="Put aside").click()
    expect(page.get_by_role("status").filter(has_text="Put aside until it changes")).to_be_visible()
    gone = before - {notice.key for notice in site.engine.notices()}
    assert len(gone) == 1 and text
    assert not any(notice.is_new for notice in site.engine.notices())
    site.engine.pause_batch("qc")
    notice = page.locator("#notices li").filter(has_text="batch qc is paused")
    expect(notice).to_be_visible()  # by itself
    notice.get_by_role("button").first.click()
    expect(notice).to_have_count(0)
    assert batches.all_of(site.engine._reader())["qc"][0] is Halt.GO


def test_one_more_browser_comes_in(site: Site) -> None:
    page = site.page("/")
    page.get_by_role("button", name="A link for one more browser").click()
    link = page.locator("main pre").inner_text()
    other = site._browser.new_context()
    first = other.new_page()
    first.goto(link)
    first.wait_for_url(site.base + "/")
    expect(first.get_by_role("heading", level=1)).to_have_text("lab.scitq")
    assert site.request("GET", link.removeprefix(site.base))[0] == 401
    other.close()


@pytest.fixture(scope="module")
def bare(make_site: Callable[[Callable[[Path], None]], Site]) -> Site:
    """A file with nothing in it."""
    return make_site(lambda path: Engine(path, drive=False).close())


def test_a_driver_is_started_and_stopped(bare: Site) -> None:
    site = bare
    page = site.page("/")
    expect(page.locator("#facts")).to_contain_text("nobody drives")
    page.get_by_role("button", name="Start a driver").click()
    expect(page.locator("#facts")).to_contain_text("driver: scitq")
    assert driver_of(site.engine) is not None
    page.get_by_role("button", name="Ask it to stop").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Ask the driver to stop?")
    assert driver_of(site.engine) is not None
    page.get_by_role("button", name="Stop it").click()
    expect(page.locator("#facts")).to_contain_text("nobody drives")
    assert driver_of(site.engine) is None
