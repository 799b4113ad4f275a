"""Renting machines from the page, in a real browser: what there is, what it would cost, and what is done about the jobs of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import apsw
import pytest
from playwright.sync_api import expect

from scitq.engine import Engine
from scitq.remote.providers.fake import Cloud
from scitq.shell.live.machines import Eyes, Request
from scitq.states import JobState, WorkerState
from scitq.store import jobs, rentals, workers
from tests.shell.web.conftest import Site

pytestmark = pytest.mark.servers

NOW = 1_800_000_000_000
EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def site(
    make_site: Callable[[Callable[[Path], None]], Site], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """A file that may rent from a make-believe cloud with two regions; nobody drives it, so nothing is asked for."""
    folder = tmp_path_factory.mktemp("cloud")
    cloud = Cloud(folder / "books", bare=True)
    cloud.sell("north", "std-2", 0.1, cpu=2, ram=8 << 30, stock=3)
    cloud.sell("south", "std-2", 0.2, cpu=2, ram=8 << 30, stock=3)
    cloud.sell("south", EVIL, 0.8, cpu=16, ram=64 << 30, stock=1)
    (folder / "config.toml").write_text(
        f'[providers.dream]\nkind = "fake"\nfolder = "{folder / "books"}"\n', encoding="utf-8"
    )

    def fill(path: Path) -> None:
        with Engine(path, drive=False) as engine:
            engine.submit(["true"], batch="qc")

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCITQ_CONFIG", str(folder / "config.toml"))
        yield make_site(fill)


@pytest.fixture(autouse=True)
def closed(site: Site) -> Iterator[None]:
    """Each test has tabs of its own, which have nothing to complain of."""
    yield
    site.close_pages()
    complaints, site.complaints[:] = list(site.complaints), []
    assert complaints == []


def test_what_is_shown_is_rented_and_its_jobs_are_looked_after(site: Site) -> None:
    page = site.page("/workers")
    page.get_by_role("link", name="Rent machines").click()
    offers = page.locator("#offers tbody tr")
    expect(offers).to_have_count(3)
    expect(offers.first).to_contain_text("std-2")
    expect(page.locator("#offers")).to_contain_text(EVIL)
    assert page.locator("#flavors option").evaluate_all("all => all.map(one => one.value)").count("std-2") == 1
    assert "2 CPUs, 8.59 GB" in str(page.locator("#flavors option[value=std-2]").get_attribute("label"))
    assert "north (3) south (3)" in str(page.locator("#flavors option[value=std-2]").get_attribute("label"))

    page.keyboard.press("/")  # by keys alone
    page.keyboard.type("auto:cpu>=2:cpu<=8")
    page.get_by_label("Region").fill("south")
    page.get_by_label("Machines", exact=True).fill("2")
    page.get_by_label("Tasks at once").fill("4")
    page.get_by_label("Batch").fill("qc")
    page.keyboard.press("Enter")
    expect(page.locator("#preview")).to_contain_text(
        "2 x std-2 (dream south, ondemand): 0.20 €/h each, 0.40 €/h in all"
    )
    line = "worker deploy -f 'auto:cpu>=2:cpu<=8' -r south -N 2 -C 4 -b qc"
    expect(page.locator("#preview code")).to_contain_text(line)
    page.get_by_text("2 offers would not do").click()
    expect(page.locator("#excluded")).to_contain_text("north")
    assert site.engine.rentals() == []

    page.get_by_role("button", name="Rent 2 machines").click()
    expect(page.get_by_role("status").filter(has_text="to be deployed")).to_contain_text(line)
    first, second = sorted(site.engine.rentals(), key=lambda one: one.worker)
    assert [(one.flavor, one.region, one.price) for one in (first, second)] == [("std-2", "south", 0.2)] * 2
    rows = [site.engine.worker(int(one.worker)) for one in (first, second)]
    assert {(row.concurrency, row.batch, row.state) for row in rows} == {(4, "qc", WorkerState.WANTED)}
    for row in rows:
        shown = page.locator("#workers tr").filter(has_text=row.name)
        expect(shown).to_contain_text("rented: std-2 in south of dream, ondemand · 0.20 €/h · 0.00 € until now")

    machines = Eyes(site.engine)(Request()).machines  # and in scitq top
    assert {(one.region, one.cost) for one in machines if one.name == rows[0].name} == {("south", "0.20 €/h 0.00 €")}

    deploy = page.locator("#jobs tr").filter(has_text=rows[0].name)
    deploy.get_by_role("button", name="Cancel").click()
    expect(page.locator("main")).to_contain_text(f"deploy {rows[0].name}: it is taken back; the machine is deleted.")
    expect(page.locator("main code")).to_contain_text(re.compile(r"job cancel \d+$"))
    page.locator("main form button").click()
    expect(page.get_by_role("status").filter(has_text="1 job taken back.")).to_be_visible()
    assert {job.kind: job.state for job in site.engine.jobs(int(first.worker))}["deploy"] is JobState.CANCELLED
    other = page.locator("#jobs tr").filter(has_text=rows[1].name)
    other.get_by_role("button", name="Delete worker").click()
    expect(page.locator("main")).to_contain_text(f"{rows[1].name} (std-2 in south of dream) is deleted at its provider")
    page.locator("main form button").click()
    expect(page.get_by_role("status").filter(has_text="1 worker to be deleted.")).to_be_visible()
    assert "destroy" in {job.kind for job in site.engine.jobs(int(second.worker))}


def test_what_makes_no_sense_is_said_where_it_was_typed(site: Site) -> None:
    page = site.page("/rent?flavor=auto:cpu>>2")
    expect(page.get_by_role("alert")).to_contain_text("column")
    expect(page.get_by_label("Flavor")).to_have_value("auto:cpu>>2")
    assert page.locator("#preview").count() == 0
    for query, says in {
        "number=0": "1 or more",
        "number=x": "number",
        "max_price=-1": "max price",
        "concurrency=0": "one task",
    }.items():
        page.goto(f"{site.base}/rent?{query}")
        expect(page.get_by_role("alert")).to_contain_text(says)
    site.complaints.clear()  # that there were 400s
    page.goto(f"{site.base}/rent?flavor=auto:cpu>=99")
    expect(page.locator("main")).to_contain_text("Nothing that is sold fits.")
    expect(page.locator("#excluded")).to_contain_text("std-2")


def test_nothing_is_rented_twice_or_by_another_page(site: Site) -> None:
    """A form that is sent again, and one without the page's own secret."""
    before = len(site.engine.rentals(every=True))
    _, _, text = site.request("GET", "/rent?flavor=std-2&region=north&name=once", Cookie=site.cookie)
    secret, chosen = re.findall(
        r'name="csrf" value="([^"]+)"><input type="hidden" name="chosen" value="([^"]+)"', text
    )[0]
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": site.base, "Cookie": site.cookie}

    assert site.request("POST", "/rent", f"csrf=no&chosen={chosen}", **form)[0] == 403
    assert site.request("POST", "/rent", f"csrf={secret}&chosen={chosen}", **form)[0] == 303
    code, _, text = site.request("POST", "/rent", f"csrf={secret}&chosen={chosen}", **form)

    assert (code, "nothing was rented" in text) == (400, True)
    assert len(site.engine.rentals(every=True)) == before + 1
    assert site.engine.worker("once").batch is None
    _, _, text = site.request("GET", "/rent?flavor=std-2&region=north&name=once", Cookie=site.cookie)
    secret, chosen = re.findall(
        r'name="csrf" value="([^"]+)"><input type="hidden" name="chosen" value="([^"]+)"', text
    )[0]
    code, headers, _ = site.request("POST", "/rent", f"csrf={secret}&chosen={chosen}", **form)
    assert (code, headers["location"]) == (303, "/rent?flavor=std-2&region=north&name=once")
    _, _, text = site.request("GET", headers["location"], Cookie=site.cookie)
    assert "once" in text and 'role="alert"' in text  # the name is taken: said where it can be changed


def test_a_machine_that_could_not_be_had_is_asked_for_again_at_its_price(site: Site) -> None:
    [row] = site.engine.worker_deploy("std-2", name="again")
    [job] = site.engine.jobs("again")

    def fail(db: apsw.Connection) -> None:
        jobs.move(db, NOW, job.id, JobState.RUNNING)
        jobs.move(db, NOW, job.id, JobState.FAILED, "no stock")
        rentals.gone(db, NOW, row.id, note="no stock")

    site.engine._write(fail)
    _, _, text = site.request("GET", "/workers", Cookie=site.cookie)
    secret = re.findall(r'name="csrf" value="([^"]+)"', text)[0]
    form = {"Content-Type": "application/x-www-form-urlencoded", "Origin": site.base, "Cookie": site.cookie}

    _, _, asked = site.request("POST", "/do/job/retry", f"csrf={secret}&name={job.id}", **form)

    assert "a machine is asked for again. 1 x std-2 (dream north, ondemand): 0.10 €/h" in asked
    assert [one.id for one in site.engine.jobs(int(row.id)) if one.kind == "deploy"] == [job.id]  # not yet
    chosen = re.findall(r'name="chosen" value="([^"]+)"', asked)[0]
    site.request("POST", "/do/job/retry", f"csrf={secret}&chosen={chosen}", **form)
    _, _, text = site.request("GET", "/workers", Cookie=site.cookie)
    assert "1 job tried again." in text and site.engine.worker("again").id != row.id
    _, headers, _ = site.request("POST", "/do/job/cancel", f"csrf={secret}&name={job.id}&next=/workers", **form)
    _, _, text = site.request("GET", headers["location"], Cookie=site.cookie)
    assert f"job {job.id} (deploy again" in text and "nothing to cancel" in text


def test_a_job_that_failed_is_tried_again(site: Site) -> None:
    row = site.engine.worker_add("me@broken.example", name="broken")
    [job] = site.engine.jobs("broken")

    def fail(db: apsw.Connection) -> None:
        jobs.move(db, NOW, job.id, JobState.RUNNING)
        jobs.move(db, NOW, job.id, JobState.FAILED, f"no route {EVIL}")
        workers.move(db, NOW, row.id, WorkerState.FAILED)

    site.engine._write(fail)
    page = site.page("/workers")
    shown = page.locator("#jobs tr").filter(has_text="broken")
    expect(shown).to_contain_text(f"no route {EVIL}")
    shown.get_by_role("button", name="Retry").click()
    expect(page.locator("main")).to_contain_text(f"Job {job.id}, prepare broken: it is tried again.")
    page.locator("main form button").click()

    expect(page.get_by_role("status").filter(has_text="1 job tried again.")).to_be_visible()
    assert site.engine.job(int(job.id)).state is JobState.PENDING
