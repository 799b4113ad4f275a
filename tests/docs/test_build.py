"""The documentation builds without a warning, and has in it what the program says of itself."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs import tables
from scitq import engine
from scitq.shell import schemas
from scitq.shell.table import COMMANDS
from tests.docs.blocks import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages, built; a warning is an error."""
    folder = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-n", "-q", "-d", folder / "doctrees", ROOT / "docs", folder / "html"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert (built.returncode, built.stderr) == (0, "")
    return folder / "html"


def text_of(page: Path) -> str:
    """What a reader sees of a page."""
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8"))))


def test_the_documentation_builds_without_a_warning(site: Path) -> None:
    assert {"index.html", "tutorial.html", "changelog.html"} <= {path.name for path in site.iterdir()}


def test_every_command_is_in_the_reference_with_its_options(site: Path) -> None:
    pages = " ".join(text_of(page) for page in (site / "reference" / "commands").glob("*.html"))

    for row in tables.visible():
        assert tables.usage(row) in pages, row.path
        for flags, _ in tables.options(row):
            assert flags in pages, (row.path, flags)


def test_hidden_commands_are_not(site: Path) -> None:
    pages = " ".join(text_of(page) for page in (site / "reference" / "commands").glob("*.html"))

    assert [row.path for row in COMMANDS if row.hidden and f"scitq {row.path} [" in pages] == []


def test_every_schema_is_in_the_reference(site: Path) -> None:
    page = (site / "reference" / "json.html").read_text(encoding="utf-8")

    assert [name for name in schemas.SCHEMAS if f'id="schema-{name}"' not in page] == []
    assert {row.schema for row in tables.visible() if row.schema} <= set(schemas.SCHEMAS)


def test_what_docstrings_say_is_in_the_reference(site: Path) -> None:
    page = text_of(site / "reference" / "python.html")

    assert "Queue a task; it is in the file when this returns." in page
    assert "Raises: BadInput" in page and "nothing was queued" in page
    assert "HostKeyChanged" in page


def test_pages_ask_nothing_of_other_machines(site: Path) -> None:
    """No fonts, scripts or pictures from elsewhere: the pages are read without network."""
    asked = re.compile(r"""(?:\bsrc|<link[^>]+href)=["']?https?://[^"'\s>]+""")

    for page in site.rglob("*.html"):
        assert asked.findall(page.read_text(encoding="utf-8")) == [], page.name
    for style in (site / "_static").rglob("*.css"):
        assert re.findall(r"(?:@import|url\()\s*[\"']?https?:", style.read_text(encoding="utf-8")) == [], style.name


def test_every_column_of_the_views_is_described(state_file: Path) -> None:
    """The reference names what `scitq sql` shows, and nothing else."""
    with engine.open(state_file, drive=False) as queue:
        views = [row["name"] for row in queue.sql("select name from sqlite_schema where type = 'view' order by rowid")]
        columns = {view: list(queue.sql(f"select * from {view}").columns) for view in views}
    page = (ROOT / "docs" / "reference" / "state-file.md").read_text(encoding="utf-8")
    parts = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE))

    assert set(parts) == set(views)
    for view, part in parts.items():
        cells = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", part, re.MULTILINE)
        assert sorted(name for cell in cells for name in re.findall(r"`(\w+)`", cell)) == sorted(columns[view]), view
