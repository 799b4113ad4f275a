"""What the README and examples/ tell people to type works as it stands there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON_BLOCKS = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
CONSOLE_BLOCKS = re.findall(r"^```console\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
COMMANDS = [line[2:] for block in CONSOLE_BLOCKS for line in block.splitlines() if line.startswith("$ ")]
# Those that need servers, programs, other machines or a terminal are run in tests/engine/test_data.py, test_containers_run.py,
# tests/hosts/test_fleet.py and tests/workflow.
ELSEWHERE = {
    ROOT / "examples" / name
    for name in ("04_data.py", "05_qc.py", "06_dynamic.py", "07_debug.py", "11_containers.py", "12_ssh_worker.py")
}
EXAMPLES = sorted(set((ROOT / "examples").glob("[0-9]*.py")) - ELSEWHERE) or [ROOT / "examples" / "01_hello.py"]


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """As a person would in a folder of their own, with the environment's programs on PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "TMPDIR": str(folder)}
    return subprocess.run(
        command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL
    )


@pytest.mark.parametrize("block", PYTHON_BLOCKS or ["raise SystemExit('no block')"])
@pytest.mark.usefixtures("workers_may_linger")
def test_python_block_of_the_readme_runs(block: str, tmp_path: Path) -> None:
    (tmp_path / "block.py").write_text(block, encoding="utf-8")

    ended = run([sys.executable, "block.py"], tmp_path)

    assert ended.returncode == 0, ended.stderr


def test_console_blocks_of_the_readme_name_only_what_exists(tmp_path: Path) -> None:
    """Installing and testing are what .ci/run does; the scitq commands among them are asked for their help."""
    for command in COMMANDS:
        for part in command.split("&&"):
            words = shlex.split(part, comments=True)
            if words[0].endswith("scitq"):
                subcommands = [word for word in words[1:] if re.fullmatch(r"[a-z]+", word)][:1]
                ended = run([sys.executable, "-m", "scitq", *subcommands, "--help"], tmp_path)
                assert ended.returncode == 0, f"{part}: {ended.stderr}"
            for word in words:
                if "/" in word and not word.startswith((".venv", "http", "https")):
                    assert (ROOT / word).exists(), f"{part}: there is no {word}"


def test_paths_that_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", README)

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.usefixtures("workers_may_linger")
def test_example_runs_on_a_laptop(example: Path, tmp_path: Path) -> None:
    ended = run([sys.executable, str(example)], tmp_path)

    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip(), "an example shows something"
