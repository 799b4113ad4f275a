"""What the pages tell people to type works as it stands there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs import tables
from scitq import config, engine
from scitq.remote import local
from tests.docs import blocks
from tests.docs.blocks import PAGES, ROOT
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host

README = ROOT / "README.md"
TUTORIAL = ROOT / "docs" / "tutorial.md"
# Run whole, elsewhere or here below; the others' Python is run, and their commands are parsed.
WHOLE = {TUTORIAL, ROOT / "docs" / "migration.md"}
WITH_PYTHON = [
    page
    for page in PAGES
    if page not in WHOLE and any(one.language == "python" for one in blocks.blocks(page.read_text(encoding="utf-8")))
]
# What a tutorial's reader did before: it needs the network, or is the test environment's.
_BEFORE = ("python3 -m venv", ". ~/", "pip install", "mkdir ~/", "cd ~/")


def name_of(page: Path) -> str:
    """How a test names a page."""
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [README, *PAGES], ids=name_of)
def test_commands_of_a_page_are_understood(page: Path) -> None:
    for block in blocks.blocks(page.read_text(encoding="utf-8")):
        if block.language == "console":
            for one in blocks.typed(block):
                for part in re.split(r" && | \| ", re.sub(r" < \S+$", "", one.line)):
                    assert blocks.understand(part) is None, part
        if block.language == "py":
            compile(block.text, name_of(page), "exec")
        if block.language == "toml":
            assert config.read(block.text, page)[2] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_that_is_not_run_is_said_to_be_none(page: Path) -> None:
    """Blocks have a language that says what is done with them: a page cannot fall out of the tests by a slip."""
    languages = {block.language for block in blocks.blocks(page.read_text(encoding="utf-8"))}

    assert languages <= {"python", "py", "console", "text", "toml", "json", "sql"}, page


def test_every_command_is_explained_where_people_read() -> None:
    """Not only in the reference, which is made of the table: each is typed in a page that says what it is for."""
    pages = [page for page in PAGES if {"reference", "changelog.md", "migration.md"}.isdisjoint(page.parts)]
    told = "\n".join(page.read_text(encoding="utf-8") for page in (README, *pages))

    assert [row.path for row in tables.visible() if not re.search(rf"\bscitq {row.path}(?![\w-])", told)] == []


def test_every_example_is_in_the_list_and_in_the_map() -> None:
    examples = {path.name for path in (ROOT / "examples").glob("[0-9]*")}
    listed = (ROOT / "examples" / "README.md").read_text(encoding="utf-8")

    assert {name for name in examples if f"]({name})" in listed} == examples
    assert {name for name in examples if f"](examples/{name})" in README.read_text(encoding="utf-8")} == examples


@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
@pytest.mark.usefixtures("workers_may_linger")
def test_python_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    """One block after the other, in one folder, as a reader would."""
    files = []
    for number, block in enumerate(blocks.blocks(page.read_text(encoding="utf-8"))):
        if block.language == "python":
            files.append(tmp_path / (block.file or f"block{number}.py"))
            files[-1].write_text(block.text, encoding="utf-8")
    each = "import runpy, sys\nfor name in sys.argv[1:]: runpy.run_path(name, run_name='__main__')"

    ended = subprocess.run(
        [sys.executable, "-c", each, *files], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr


@pytest.fixture
def atlas(cloud: Cloud) -> Iterator[Host]:
    """The machine down the hall, whose key was accepted before."""
    host = cloud.boot("atlas")
    yield host
    cloud.delete(host)


@pytest.mark.servers
@pytest.mark.usefixtures("atlas")
def test_the_tutorial_goes_as_it_says(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    try:
        for block in blocks.blocks(TUTORIAL.read_text(encoding="utf-8")):
            if block.file:
                (folder / block.file).write_text(block.text, encoding="utf-8")
            for one in blocks.typed(block) if block.language == "console" else []:
                if not one.line.startswith(_BEFORE):
                    ended = blocks.run(one.line, folder)
                    assert blocks.is_shown(one.shown, ended.stdout), f"$ {one.line}\n{ended.stdout}"
                    is_bad = any(line.startswith("Nothing more can be done") for line in one.shown)
                    assert ended.returncode == is_bad, f"$ {one.line}\n{ended.stdout}"
    finally:
        for side in folder.glob("*.scitq.d/local"):
            with engine.open(side.parent.with_suffix(""), drive=False) as queue:
                queue.stop_driver()
            local.stop(side)


@pytest.mark.parametrize(
    ("shown", "came", "is_right"),
    [
        ("one\ntwo", "one\ntwo\n", True),
        ("one\n…\nfour", "one\ntwo\nthree\nfour\n", True),
        ("one\n…\nfour", "one\nfour\n", True),
        ("one\n…\nfour", "one\ntwo\nfive\n", False),
        (" 3  two  …  succeeded", "  3    two default succeeded\n", True),
        ("done in 2.9 s", "done in 14 s\n", True),
        ("1  one  13 ms  …", "1  one     2 min  now\n", True),
        ("done in 2.9 s", "done in 14 files\n", False),
        ("3 failed", "4 failed\n", False),
        ("", "", True),
        ("", "unexpected\n", False),
    ],
)
def test_what_is_shown_is_compared_with_what_comes(shown: str, came: str, is_right: bool) -> None:
    assert blocks.is_shown(tuple(shown.splitlines()), came) is is_right
