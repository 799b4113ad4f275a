"""What objects show of themselves in notebooks: as HTML, and as text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from scitq import cards
from scitq.engine import Engine
from scitq.remote.providers.fake import Cloud
from scitq.store import rentals
from scitq.workflow import Workflow
from tests.notebook.conftest import HOSTILE

pytestmark = pytest.mark.servers


class Page(HTMLParser):
    """The tags and the text of a piece of HTML; every tag must be closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._open.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_an_engine_shows_who_drives_the_counts_and_the_batches(lab: Engine) -> None:
    page = Page(lab._repr_html_())

    assert "lab.scitq · driver: " in page.text and re.search(
        r"1 worker · 3[0-9] succeeded, 1 failed, 1 blocked", page.text
    )
    assert "qc" in page.text and "many" in page.text and "30 succeeded" in page.text


def test_a_task_shows_why_it_stands_so_its_tries_and_its_last_lines(lab: Engine) -> None:
    page = Page(lab.task(3)._repr_html_())

    assert "failed (exit 3)" in page.text and "scitq task relaunch 3" in page.text
    assert "owned" in page.text.partition("its last lines")[2]


def test_nothing_that_a_task_is_called_or_writes_becomes_markup(lab: Engine) -> None:
    with Workflow(HOSTILE, engine=lab) as wf:
        wf.step(HOSTILE, "true", name=HOSTILE)
    summary = wf.run(block=False)
    lab.wait_all(60)
    shown = [
        lab, lab.tasks(), lab.where("id = 3"), lab.task(3), lab.task(2).result(), lab.sql("select * from tasks"),
        lab.workflow(HOSTILE), wf, summary, wf.plan(),
    ]  # fmt: skip

    for one in shown:
        page = Page(one._repr_html_())
        assert page.tags <= {"div", "span", "b", "code", "pre", "table", "thead", "tbody", "tr", "th", "td"}, one
        assert not any(sign in page.text for sign in "\x1b\x07\u202e"), one
        shown_as = {kind: _timeless(text) for kind, text in one._repr_mimebundle_().items()}
        assert shown_as == {"text/plain": _timeless(one._words()), "text/html": _timeless(one._repr_html_())}


def _timeless(text: str) -> str:
    """Without lengths of time, which go on from one look to the next."""
    return re.sub(r"\bnow\b|\b[0-9.]+ (?:ms|s|min)\b(?: ago)?", "…", text)


def test_of_a_long_list_the_ends_are_shown(lab: Engine) -> None:
    many = lab.tasks(batch="many")
    page = Page(many._repr_html_())

    assert repr(many) == "<30 tasks of lab.scitq>" and "30 tasks of lab.scitq · 30 succeeded" in page.text
    assert (
        f"{30 - 2 * cards.ENDS} more" in page.text and str(many.ids[0]) in page.text and str(many.ids[-1]) in page.text
    )


def test_a_list_of_tasks_is_equal_to_the_same_tasks(lab: Engine) -> None:
    assert lab.tasks(name="first") == [lab.task(1)] == list(lab.where("id = 1"))
    assert lab.tasks(batch="nothing") == [] and lab.tasks(status="failed", name="*") == lab.where("state = 'failed'")
    assert lab.tasks(batch="many", limit=2) == lab.tasks(batch="many")[:2]


def test_what_cannot_be_read_any_more_says_so_and_raises_nothing(tmp_path: Path) -> None:
    with Engine(tmp_path / "gone.scitq", drive=False) as engine:
        task = engine.submit("true")
        tasks = engine.tasks()
        task.delete()
        assert "no task 1" in task._repr_html_() and "no task 1" in repr(task)
        assert "deleted" in Page(tasks._repr_html_()).text

    for one in (task, tasks, engine):
        assert "was closed" in one._repr_html_()
        assert set(one._repr_mimebundle_()) == {"text/plain", "text/html"}


def test_only_what_is_asked_for_is_in_the_bundle(lab: Engine) -> None:
    assert set(lab._repr_mimebundle_(include=["text/plain"])) == {"text/plain"}
    assert set(lab._repr_mimebundle_(exclude=["text/plain"])) == {"text/html"}


def test_of_many_rows_of_a_query_the_first_are_shown(lab: Engine) -> None:
    rows = lab.sql(
        "with recursive n(i) as (values (1) union all select i + 1 from n where i < 1000) select i, null as x from n"
    )

    assert "and 950 more rows" in Page(rows._repr_html_()).text


def test_what_could_be_rented_costs_and_jobs_are_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = Cloud(tmp_path / "books", bare=True)
    cloud.sell("north", "std-2", 0.1, cpu=2, ram=8 << 30, stock=3)
    cloud.sell("south", HOSTILE.partition("\x1b")[0], 0.8, cpu=16, ram=64 << 30)
    settings = tmp_path / "config.toml"
    settings.write_text(f'[providers.dream]\nkind = "fake"\nfolder = "{tmp_path / "books"}"\n')
    monkeypatch.setenv("SCITQ_CONFIG", str(settings))
    with Engine(tmp_path / "lab.scitq", drive=False) as engine:
        assert "Nothing that costs anything" in Page(engine.cost()._repr_html_()).text
        assert "No job yet." in Page(engine.jobs()._repr_html_()).text
        engine.flavor_refresh()
        offers = engine.flavors("auto:cpu>=2")
        [row] = engine.worker_deploy("std-2", number=1, name="rented")
        page = Page(offers._repr_html_())
        assert repr(offers).startswith("Ranking(") and offers._words() == "<2 offers that would do, 0 that would not>"
        assert page.tags <= {"div", "span", "table", "thead", "tbody", "tr", "th", "td"} and "owned" in page.text
        assert all(text in page.text for text in ("std-2", "north", "dream", "8.6 GB", "0.1 EUR"))
        engine._write(lambda db: rentals.accepted(db, row.created_ms - 3_600_000, row.id, "id", None))

        page = Page(engine.jobs()._repr_html_())
        assert "deploy" in page.text and "rented" in page.text and "pending" in page.text
        assert isinstance(engine.jobs(), list) and engine.jobs()._words() == repr(list(engine.jobs()))
        page = Page(engine.cost("worker")._repr_html_())
        assert "rented" in page.text and "goes on" in page.text and "€" in page.text
