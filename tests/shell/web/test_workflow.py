"""Pages of workflows and of costs in a real browser; what they are made of is right, bounded, and kept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest
from playwright.sync_api import expect

from scitq.engine import Engine
from scitq.shell.web import pictures, spending
from scitq.states import Halt, TaskState, WorkerState
from scitq.store import batches, query, spent, workers
from scitq.worker import WorkerId
from scitq.workflow import Workflow, reportgather
from tests.shell.web.conftest import Site
from tests.store.renting import gone, rent
from tests.workflow.history import Made, history

pytestmark = pytest.mark.servers

EVIL = "<b>&\"'"


@pytest.fixture(scope="module")
def site(make_site: Callable[[Callable[[Path], None]], Site]) -> Iterator[Site]:
    """A page over a file that nobody drives, with workflows that have run."""

    def fill(path: Path) -> None:
        with Engine(path, drive=False) as engine:
            history(engine, f"qc {EVIL}", {
                f"fetch {EVIL}": Made(6, again=3, name=EVIL + "{n}"), "align": Made(6, [f"fetch {EVIL}"], failing=6),
                "stats": Made(1, ["align"], state=TaskState.PENDING, name="all"),
            }, workers=2)  # fmt: skip
            history(engine, "wide", {"a": Made(300), "b": Made(300, ["a"])}, workers=2)
            first = [engine.submit(["true", str(n)], batch="plain") for n in range(3)]
            engine.submit("true", batch="plain", requires=first)

    yield make_site(fill)


@pytest.fixture(autouse=True)
def nothing_to_complain_of(site: Site) -> Iterator[None]:
    """No page may have said anything on its console."""
    yield
    site.close_pages()
    assert site.complaints == []


def _halt(site: Site, batch: str) -> Halt:
    return batches.all_of(site.engine._reader())[batch][0]


@pytest.mark.parametrize("scripted", [True, False], ids=["script", "no-script"])
def test_a_workflow_is_shown_step_by_step_paused_and_let_go_on(site: Site, scripted: bool) -> None:
    page = site.page("/workflows", java_script_enabled=scripted)
    page.click(f"text=qc {EVIL}")

    expect(page.locator("h1")).to_contain_text(f"qc {EVIL}")
    align = page.locator("tr", has_text="align")
    expect(align).to_contain_text("5")
    expect(align.locator("a", has_text="1")).to_have_attribute("href", re.compile("state=failed"))
    expect(page.locator(".said.bad").last).to_contain_text("error: the file is truncated")
    for button, halt in (
        ("Pause with what runs", Halt.SUSPENDED), ("Go on", Halt.GO), ("Pause", Halt.PAUSED), ("Pause with what runs", Halt.SUSPENDED),
        ("Go on", Halt.GO),
    ):  # fmt: skip
        page.get_by_role("button", name=button, exact=True).click()
        expect(page.locator("tr", has_text="stats").locator(".chip")).to_have_text([halt.word] if halt else [])
        assert _halt(site, f"qc {EVIL}.stats") is halt
        expect(page.locator(".said.good")).to_contain_text("The same: scitq workflow")


def test_graph_and_timeline_are_drawn_and_lead_on(site: Site) -> None:
    page = site.page(f"/workflow?name=qc+{'%3Cb%3E%26%22%27'}")
    expect(page.locator("svg.graph a")).to_have_count(13)
    expect(page.locator("svg.timeline")).to_have_count(1)
    box = page.locator("svg.graph a").first
    box.focus()
    assert page.evaluate("document.activeElement.getAttribute('href')") == "/task/1"
    page.keyboard.press("Enter")
    expect(page.locator("h1")).to_contain_text(f"1 {EVIL}0")

    page.goto(f"{site.base}/workflow?name=wide")
    expect(page.locator("svg.graph a")).to_have_count(2)
    page.locator("svg.graph a").first.click()
    expect(page).to_have_url(re.compile("batch=wide.a"))
    page.goto(f"{site.base}/graph?batch=plain")
    expect(page.locator("svg.graph a")).to_have_count(4)
    expect(page.locator("svg.graph .edges path")).to_have_count(3)
    page.goto(f"{site.base}/graph?batch=wide.b")
    expect(page.locator("svg.graph a")).to_have_count(2)
    expect(page.locator("main")).to_contain_text("A step of wide")


SCRIPT = """
from scitq.workflow import Workflow
wf = Workflow("planned", shell=True)
wf.step("one", "echo {text}", name="a")
wf.step("two", "echo two", name="b")
print("declared")
wf.run()
"""


def test_what_a_new_start_would_run_is_asked_of_the_script(site: Site, tmp_path: Path) -> None:
    script = tmp_path / "planned.py"
    script.write_text(SCRIPT.format(text="one"))
    workflow = Workflow("planned", engine=site.engine, shell=True)
    workflow.step("one", "echo one", name="a")
    workflow.start()
    workflow.quit()
    site.engine._write(lambda db: db.execute("update workflow set script = ? where name = 'planned'", (str(script),)))
    page = site.page("/workflow?name=planned")

    page.click("text=What would run again, and why?")
    expect(page.locator("main")).to_contain_text("1 task would run.")
    expect(page.locator("tr", has_text="two").locator("td").nth(1)).to_have_text("1")
    assert {row.name for row in site.engine.rows(batch="planned.one")} == {"a"} and not site.engine.rows(
        batch="planned.two"
    )
    script.write_text(SCRIPT.format(text="more"))
    page.click("text=Back")
    page.click("text=What would run again, and why?")
    expect(page.locator("tr", has_text="one")).to_contain_text("command changed")

    script.write_text("raise SystemExit('not today')")
    page.click("main >> text=Back")
    page.click("text=What would run again, and why?")
    expect(page.get_by_role("alert")).to_contain_text("exit code 1: not today")
    script.unlink()
    page.goto(f"{site.base}/workflow?name=planned")
    expect(page.locator("main")).to_contain_text("is not there any more.")
    site.complaints[:] = [line for line in site.complaints if "status of 400" not in line]


def test_reports_are_downloaded(site: Site, tmp_path: Path) -> None:
    page = site.page("/workflow?name=wide")
    with page.expect_download() as coming:
        page.click("text=Report (HTML)")
    assert coming.value.suggested_filename == "wide.html"
    assert "<svg" in Path(coming.value.path()).read_text(encoding="utf-8")
    answer = page.request.get(f"{site.base}/workflow/report?name=wide&as=json")
    assert json.loads(answer.body())["workflow"] == "wide"
    for path, code in (
        ("/workflow/report?name=none", 404),
        ("/workflow", 400),
        ("/workflow?name=none", 404),
        ("/graph?batch=x", 404),
    ):
        found, _, text = site.request("GET", path, cookie=site.cookie)
        assert found == code and 'role="alert"' in text, path


def test_a_workflow_is_deleted_after_a_look(site: Site) -> None:
    history(site.engine, "gone", {"a": Made(2)})
    page = site.page("/workflow?name=gone")

    page.click("button:has-text('Delete')")
    expect(page.locator("main")).to_contain_text("1 step and 2 tasks are deleted with their history and logs")
    expect(page.locator("main")).to_contain_text("The same: scitq workflow delete gone")
    assert "gone" in [row.name for row in site.engine.workflows()]
    page.click("button:has-text('Delete 1 workflow')")
    expect(page.locator(".said")).to_contain_text("1 workflow deleted.")
    assert "gone" not in [row.name for row in site.engine.workflows()] and "gone.a" not in site.engine.batches()


def test_costs_are_machine_time_as_long_as_there_are_no_prices(site: Site) -> None:
    page = site.page("/cost")
    expect(page.locator("main")).to_contain_text("No prices: these machines cost nothing.")
    expect(page.locator("caption")).to_contain_text(["By workflow", "By batch", "By worker"])
    row = page.locator("tr", has_text="wide.a")
    expect(row.locator("td").last).to_have_text("300")
    row.locator("a").click()
    expect(page).to_have_url(re.compile("batch=wide.a"))
    # With a price there are amounts as well.
    site.engine._write(_rented)
    site.engine.set_max_cost("15 EUR")
    page.goto(site.base + "/cost")
    expect(page.locator("#spent")).to_contain_text("spent of 15.00 €")
    expect(page.locator("tr", has_text="<b>ovh</b>")).to_contain_text("2.00 €")
    expect(page.locator("#limits")).to_contain_text("15.00 €")
    page.set_viewport_size({"width": 360, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.goto(site.base + "/")
    expect(page.locator("#status")).to_contain_text("2.00 € of 15 €")


def _rented(db: apsw.Connection) -> None:
    """Two hours of a machine, which is gone."""
    worker = rent(db, "<b>ovh</b>", 1.0, batch="wide.a")
    gone(db, worker, 2 * 3_600_000)
    workers.move(db, 0, WorkerId(worker), WorkerState.GONE)


def test_pages_fit_a_small_screen(site: Site) -> None:
    page = site.page("/", viewport={"width": 360, "height": 800})
    for path in ("/workflows", "/workflow?name=wide", "/graph?batch=plain", "/cost"):
        page.goto(site.base + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path


# --- without a browser ----------------------------------------------------------------------------------------------------------


def test_the_bill_adds_up(state_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spending, "STRETCH", 7)
    with Engine(state_file, drive=False) as engine:
        history(
            engine,
            "qc",
            {"fetch": Made(20, again=4), "align": Made(20, ["fetch"], failing=5, cached=2)},
            workers=3,
            slots=4,
        )
        bill, share = spending.adding(engine).look(60)
        assert bill is not None and share is None

        asked = "select count(*), total(run_s), total(cpu_s), total(iif(outcome = 0, 0, run_s)) from execution"
        count, run_s, cpu_s, bad_s = query.one(engine._reader(), asked)
        total = bill.total
        assert total.executions == count and total.run_s == pytest.approx(run_s) and total.cpu_s == pytest.approx(cpu_s)
        assert total.machine_s == pytest.approx(run_s / 4) and total.bad_s == pytest.approx(bad_s / 4)
        for lines in (bill.batches, bill.workflows):
            assert sum(line.executions for line in lines) == count
            assert sum(line.machine_s for line in lines) == pytest.approx(total.machine_s)
        assert [line.name for line in bill.workflows] == ["qc"] and len(bill.machines) == 3
        assert all(line.idle_share is not None and 0 <= line.idle_share <= 1 for line in bill.machines)
        # Of a file that has not changed it is the same one; of one that has, another.
        assert spending.adding(engine).look(60)[0] is bill
        engine.submit("true")
        monkeypatch.setattr(spending, "AGE_BY_COST", 0.0)
        engine.submit("true").cancel()
        assert spending.adding(engine).look(60)[0] is not bill


def test_executions_are_added_up_a_stretch_at_a_time(state_file: Path) -> None:
    """What one look costs is bounded: a stretch is read by its numbers, and each of its tasks by its own."""
    with Engine(state_file, drive=False) as engine:
        asked: list[tuple[str, Any]] = []

        def trace(_: object, sql: str, values: Any) -> bool:
            asked.append((sql, values))
            return True

        db = engine._reader()
        db.set_exec_trace(trace)
        spent.between(db, 0, 100, 0)
        db.set_exec_trace(None)
        [(sql, values)] = asked
        plan = " ".join(str(row[-1]) for row in db.execute(f"explain query plan {sql}", values).fetchall())
        assert "SEARCH execution USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)" in plan
        assert "SEARCH task USING INTEGER PRIMARY KEY (rowid=?)" in plan


def test_pictures_are_kept_until_the_file_changes(state_file: Path) -> None:
    with Engine(state_file, drive=False) as engine:
        history(engine, "qc", {"fetch": Made(3), "align": Made(3, ["fetch"])})
        first = pictures.of_workflow(engine, "qc")
        assert first is not None and first.count("<a href=") == 6
        assert pictures.of_workflow(engine, "qc") is first
        pictures.kept(engine)._found.clear()
        assert pictures.of_workflow(engine, "qc") == first
        assert pictures.timeline(engine, "qc") is not None


def test_large_workflows_are_drawn_without_reading_their_tasks(
    state_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Engine(state_file, drive=False) as engine:
        history(engine, "qc", {"fetch": Made(300), "align": Made(300, ["fetch"])})
        monkeypatch.setattr(reportgather, "gather", lambda *_: pytest.fail("every task was read"))
        drawn = pictures.of_workflow(engine, "qc")
        assert drawn is not None and drawn.count("<a href=") == 2 and "300 requirements" in drawn
