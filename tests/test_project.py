"""The project's frame: one version, files that agree with one another, scripts that say what they do."""

from __future__ import annotations

import importlib
import os
import re
import stat
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from scitq._version import VERSION

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_version_stands_in_one_place() -> None:
    assert "version" not in PYPROJECT["project"]
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    texts = [path for path in ROOT.glob("*.*") if path.suffix in {".toml", ".md", ".cff"}]
    assert [path.name for path in texts if VERSION in path.read_text(encoding="utf-8")] == []


def test_dependencies_have_lower_bounds_only() -> None:
    project = PYPROJECT["project"]
    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]

    for requirement in [*project["dependencies"], *extras]:
        assert re.fullmatch(r"[a-z0-9-]+>=[0-9.]+", requirement), requirement


def test_a_console_script_has_its_function() -> None:
    for target in PYPROJECT["project"]["scripts"].values():
        module, _, function = target.partition(":")
        assert callable(getattr(importlib.import_module(module), function)), target


def test_the_state_files_engine_is_free_of_the_wal_reset_race() -> None:
    import apsw

    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= (3, 51, 3)


def test_the_changelog_has_an_unreleased_part() -> None:
    assert "## Unreleased" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "name", ["LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "THIRD_PARTY.md", "scitq/py.typed"]
)
def test_the_file_that_people_look_for_is_there(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("script", ["tests/run.sh", "tests/campaign.sh", ".ci/run"])
def test_a_script_is_executable_and_parses(script: str) -> None:
    assert os.stat(ROOT / script).st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", ROOT / script], check=True)


def test_pre_commit_fetches_nothing() -> None:
    text = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")

    assert re.findall(r"^\s*- repo: (.*)$", text, re.MULTILINE) == ["local"]
    assert set(re.findall(r"^\s*language: (.*)$", text, re.MULTILINE)) == {"system"}


def test_what_the_wheel_takes_has_the_demo_and_the_types() -> None:
    """The wheel takes the package's folder as it is (.ci/run builds and tries it); so nothing of it may be ignored."""
    wanted = ["scitq/py.typed", "scitq/demo/pipeline.py", "scitq/demo/data/reference_1K.fa.gz", "scitq/demo/data/GPL-2"]

    assert PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"] == {
        "packages": ["scitq"],
        "shared-data": {"docs/man": "share/man/man1"},
    }
    assert {path.name for path in (ROOT / "docs" / "man").iterdir()} >= {"scitq.1", "scitq-launch.1", "scitq-fetch.1"}
    assert [name for name in wanted if not (ROOT / name).is_file()] == []


# ---- what conftest.py promises, tried on small test files of its own

LEFT_BEHIND = """
    import subprocess, sys

    def test_forgets_a_process():
        process = subprocess.Popen([sys.executable, "-c", "import time; print(1, flush=True); time.sleep(600)"],
                                   stdout=subprocess.PIPE)
        process.stdout.readline()
        process.stdout.close()
        open(r"{pid_file}", "w").write(str(process.pid))
        globals()["kept"] = process

    def test_waits_for_its_process():
        assert subprocess.run([sys.executable, "-c", ""]).returncode == 0
"""


def test_a_process_left_behind_is_ended_and_fails_its_test(pytester: pytest.Pytester, tmp_path: Path) -> None:
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text().replace("PATIENCE_S = 20.0", "PATIENCE_S = 0.1"))
    pid_file = tmp_path / "pid"
    pytester.makepyfile(LEFT_BEHIND.format(pid_file=pid_file))

    result = pytester.runpytest_subprocess("-p", "no:cacheprovider")

    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines([f"*left behind (ended now): {pid_file.read_text()} *"])
    assert not is_alive(int(pid_file.read_text()))


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(("ci", "outcome"), [("true", {"failed": 1}), ("", {"skipped": 1})])
def test_a_skipped_test_fails_in_ci(
    ci: str, outcome: dict[str, int], pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", ci)
    pytester.makeconftest((ROOT / "tests" / "conftest.py").read_text())
    pytester.makepyfile("import pytest\ndef test_it():\n    pytest.skip('no reason')")

    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(**outcome)


def test_a_test_has_a_home_and_a_folder_of_its_own(
    tmp_path: Path, state_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert Path.cwd() == tmp_path == state_file.parent
    assert Path.home().is_relative_to(tmp_path_factory.getbasetemp())
    assert "SCITQ_FILE" not in os.environ
    assert not state_file.exists()


def test_lint_holds_what_travels_to_the_workers_python() -> None:
    """`datetime.UTC` came with Python 3.11: ruff asks for it on the laptop, and must not on a worker."""
    old = "import datetime\n\nNOW = datetime.datetime.now(datetime.timezone.utc)\n"

    def complaints(name: str) -> str:
        command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--stdin-filename", name, "-"]
        return subprocess.run(command, cwd=ROOT, input=old, capture_output=True, text=True).stdout

    assert "UP017" in complaints("scitq/engine.py")
    assert "UP017" not in complaints("scitq/remote/agent/keeper.py")
