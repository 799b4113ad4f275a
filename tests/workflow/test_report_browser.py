"""Reports in a real browser: nothing to complain of, nothing asked of the network."""

from __future__ import annotations

from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.workflow import report
from tests.fetch.web import WebServer
from tests.workflow.browser import look
from tests.workflow.history import Made, history
from tests.workflow.test_report import EVIL

pytestmark = pytest.mark.servers


@pytest.mark.parametrize("tasks", [3, 3333])
def test_a_report_opens_without_errors_or_requests(state_file: Path, tmp_path: Path, tasks: int) -> None:
    with Engine(state_file, drive=False) as engine:
        history(engine, "qc", {
            f"fetch {EVIL}": Made(tasks, sources=["s3://raw/{name}"], command=f"echo '{EVIL}' {{name}}", name=EVIL + "{n}"),
            "align": Made(tasks, [f"fetch {EVIL}"], failing=2 if tasks == 3 else 100, stderr=EVIL.encode() * 20),
            "stats": Made(1, ["align"], name="all"),
        }, workers=tasks // 100 + 2)  # fmt: skip
        report.write(engine, "qc", tmp_path / "qc.html")

    seen = look(tmp_path / "qc.html", tmp_path / "browser")

    assert seen.console == [] and seen.requests == []
    assert seen.dom.count("<svg") >= 3 and 'class="methods"' in seen.dom and seen.dom.rstrip().endswith("</html>")


def test_what_a_page_does_wrong_is_seen(tmp_path: Path, web: WebServer) -> None:
    """That nothing was found above means something."""
    page = tmp_path / "page.html"
    page.write_text(f'<!doctype html><img src="{web.url}/x.png"><script>console.error("boo")</script>')

    seen = look(page, tmp_path / "browser")

    assert len(seen.console) == 1 and "boo" in seen.console[0] and seen.requests == [f"{web.url}/x.png"]
