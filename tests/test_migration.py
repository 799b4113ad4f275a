"""docs/migration.md names what there is, and its blocks work."""

from __future__ import annotations

import inspect
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "migration.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"^```python\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)
CONSOLE_BLOCKS = re.findall(r"^```console\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


def names_of(title: str) -> set[str]:
    """What the first column of the table under a heading names; of the row `new`, the second."""
    (section,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", GUIDE, re.DOTALL | re.MULTILINE)
    rows = [re.split(r"(?<!\\)\|", line)[1:3] for line in section.splitlines() if line.startswith("|")]
    return {
        name
        for first, second in rows[2:]
        for name in re.findall(r"`(\w+)(?:\(.*?\))?`", second if first.strip() == "new" else first)
    }


def test_the_guide_names_every_argument_of_a_workflow_and_of_a_step() -> None:
    from scitq.workflow import Workflow

    assert names_of("`Workflow(…)`") == set(inspect.signature(Workflow).parameters)
    assert names_of("`wf.step(…)`") <= set(inspect.signature(Workflow.step).parameters)


def test_the_guide_names_methods_that_the_server_has() -> None:
    from scitq.lib import Server

    named = names_of("`Server(…)` of `scitq.lib`")
    assert len(named) > 20
    assert [name for name in sorted(named) if not callable(getattr(Server, name, None))] == []


@pytest.mark.parametrize("block", PYTHON_BLOCKS)
@pytest.mark.usefixtures("workers_may_linger")
def test_python_block_of_the_guide_runs(block: str, tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(block, encoding="utf-8")

    ended = subprocess.run(
        [sys.executable, "block.py"], env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr
    assert "Hello, Ada\nHello, Grace\n" in ended.stdout
    assert "127.0.0.1" in ended.stderr, "that there is no server is said"


def test_commands_of_the_guide_exist() -> None:
    """Those of the console blocks with their options, those of tables by their names."""
    from scitq.shell.table import COMMANDS

    rows = {row.path: row for row in COMMANDS}
    for line in "".join(CONSOLE_BLOCKS).splitlines():
        words = shlex.split(line.removeprefix("$ scitq "))
        path = next(" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in rows)
        options = {flag for each in rows[path].parameters for flag in getattr(each, "flags", ())}
        assert [word for word in words if word.startswith("-") and word not in options] == [], line
    named = re.findall(r"`scitq ((?:task|worker|workflow|recruiter|batch|config|cache) [a-z]+|[a-z]+)", GUIDE)
    groups = {path.split()[0] for path in rows}
    assert sorted({name for name in named if name not in rows and name not in groups}) == []


def test_paths_that_the_guide_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", GUIDE)

    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
