"""`scitq report`."""

from __future__ import annotations

import json
from pathlib import Path

from scitq.engine import Engine
from tests.shell.conftest import Lab
from tests.workflow.history import Made, history


def make(lab: Lab) -> None:
    """A workflow that has run, and one that has not."""
    with Engine(lab.folder / "lab.scitq", drive=False) as engine:
        history(engine, "qc", {"trim": Made(3, failing=3), "merge": Made(1, ["trim"])})


def test_report_writes_what_is_asked_for_and_says_where(lab: Lab) -> None:
    make(lab)

    assert lab.out("report", "qc").startswith("qc.html (")
    told = lab.out(
        "report", "qc", "--html", "a.html", "--crate", "crate", "--license", "CC0-1.0", "--author", "Ada"
    ).splitlines()

    assert [line.partition(" (")[0] for line in told] == ["a.html", "crate"]
    assert "<title>qc: workflow report</title>" in (lab.folder / "qc.html").read_text()
    assert "spdx.org/licenses/CC0-1.0" in (lab.folder / "crate" / "ro-crate-metadata.json").read_text()
    assert sorted(path.name for path in lab.folder.iterdir()) == [
        "a.html",
        "crate",
        "lab.scitq",
        "lab.scitq.d",
        "qc.html",
    ]


def test_report_goes_to_stdout_as_json_or_html(lab: Lab) -> None:
    make(lab)

    told = json.loads(lab.scitq("report", "qc", "--json").stdout)
    page = lab.out("report", "qc", "--html", "-")

    assert [task["state"] for task in told["tasks"]] == ["succeeded", "succeeded", "failed", "succeeded"]
    assert page.startswith("<!doctype html>") and page.endswith("</html>\n")
    assert not Path(lab.folder / "qc.html").exists()


def test_report_of_what_is_not_there_is_a_sentence(lab: Lab) -> None:
    make(lab)

    assert b"no workflow is named 'nope' (known: qc)" in lab.scitq("report", "nope", code=1).stderr
    assert b"cannot be written" in lab.scitq("report", "qc", "--html", "no/where.html", code=1).stderr
