"""Tasks as data frames, and timelines of them."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.store import query

pytestmark = pytest.mark.servers


@pytest.fixture(autouse=True)
def no_window(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """matplotlib draws into memory, and keeps nothing."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    yield
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")


def test_a_frame_has_a_row_for_each_task_in_units(lab: Engine) -> None:
    frame = lab.tasks(name="*").to_frame()
    first = frame.iloc[0]

    assert list(frame["id"]) == [1, 2, 3, 4] and list(frame["state"]) == ["succeeded", "succeeded", "failed", "blocked"]
    assert str(frame["started"].dtype).endswith("UTC]") and first["created"] <= first["started"] <= first["ended"]
    assert str(frame["run_s"].dtype) == "float64" and 0 < first["run_s"] < 60 and 0 <= first["wait_s"] < 60
    assert frame["exit_code"].dtype == "Int64" and list(frame["exit_code"].fillna(-1)) == [0, 0, 3, -1]
    assert frame["cause"][2] == "failed (exit 3)" and frame["worker"][0] == "local" and frame["worker"].isna()[3]


def test_what_went_in_is_known_of_files_here_and_of_what_tasks_left(lab: Engine, tmp_path: Path) -> None:
    frame = lab.tasks(name="*").to_frame()

    assert list(frame["input_gb"]) == [1e-6, 1e-6, 0, 0] and frame["output_gb"][0] == 1e-6
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a.txt").write_text("12345")
    (tmp_path / "b.txt").write_text("123")
    with Engine(tmp_path / "other.scitq", drive=False) as engine:
        engine.submit("true", input=["folder", "*.txt"])
        engine.submit("true", input="http://127.0.0.1:1/nobody-knows")
        sizes = engine.tasks().to_frame()["input_gb"]
    assert sizes[0] == 8e-9 and sizes.isna()[1]


def test_the_number_of_queries_does_not_grow_with_that_of_tasks(lab: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    me = threading.current_thread()
    real = query.rows

    def rows(db: Any, sql: str, *more: Any) -> Any:
        if threading.current_thread() is me:  # the driver asks too
            asked.append(sql)
        return real(db, sql, *more)

    monkeypatch.setattr(query, "rows", rows)
    lab.tasks(name="*").to_frame()
    few = len(asked)
    lab.tasks().to_frame()
    assert few <= 6 and len(asked) - few == few


def test_a_frame_of_no_tasks_has_the_same_columns(lab: Engine) -> None:
    assert list(lab.tasks(batch="none").to_frame().columns) == list(lab.tasks().to_frame().columns)


def test_the_answer_to_a_query_becomes_a_frame(lab: Engine) -> None:
    frame = lab.sql("select state, count(*) as n from tasks group by 1 order by 1").to_frame()

    assert list(frame.columns) == ["state", "n"] and frame["n"].sum() == sum(lab.counts().values())


def test_a_timeline_has_a_row_for_each_that_a_worker_ran_at_once(lab: Engine) -> None:
    from matplotlib.collections import PolyCollection

    frame = lab.tasks().to_frame()
    one, other, part = lab.tasks().plot.timeline(), frame.plot.timeline(), frame[frame["batch"] == "qc"].plot.timeline()

    for axes in (one, other):
        assert [text.get_text() for text in axes.get_yticklabels()] == ["local"]
        assert {text.get_text() for text in axes.get_legend().get_texts()} == {"succeeded", "failed"}
    bars = [
        sum(len(bar.get_paths()) for bar in axes.collections if isinstance(bar, PolyCollection)) for axes in (one, part)
    ]
    assert bars == [sum(not blocked for blocked in frame["started"].isna()), 1]
    frame.plot.scatter("input_gb", "run_s")


def test_what_has_not_begun_has_no_timeline(tmp_path: Path) -> None:
    with Engine(tmp_path / "new.scitq", drive=False) as engine, pytest.raises(BadInput, match="has begun yet"):
        engine.submit_many(["true", "false"]).plot.timeline()


def test_a_frame_without_its_columns_says_which_is_missing(lab: Engine) -> None:
    with pytest.raises(BadInput, match="no worker"):
        lab.tasks().to_frame().drop(columns="worker").plot.timeline()


def test_without_the_packages_a_sentence_says_how_to_get_them(lab: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    for name in ("pyplot", "dates", "patches"):
        monkeypatch.setitem(sys.modules, f"matplotlib.{name}", None)

    for frame in (lab.tasks().to_frame, lab.sql("select 1 as x").to_frame):
        with pytest.raises(BadInput, match=r"pip install 'scitq\[notebook\]'"):
            frame()
    with pytest.raises(BadInput, match=r"matplotlib.*pip install 'scitq\[notebook\]'"):
        lab.tasks().plot.timeline()
