"""sqlite-utils' own test suite, of the very release that is installed, over our adapter: what passes on sqlite3 passes on it."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIMIT_S = 600


@pytest.fixture
def suite(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The source distribution's folder; downloaded once, where pytest has a cache."""
    cache: pytest.Cache | None = getattr(request.config, "cache", None)
    folder = cache.mkdir("sqlite-utils") if cache is not None else tmp_path
    name = f"sqlite_utils-{version('sqlite-utils')}"
    archive = folder / f"{name}.tar.gz"
    if not archive.exists():
        # pip's settings are in the tester's home, which tests do not see.
        environ = {**os.environ, "HOME": pwd.getpwuid(os.getuid()).pw_dir, "TMPDIR": str(tmp_path)}
        environ.pop("XDG_CONFIG_HOME", None)
        wanted = f"sqlite-utils=={version('sqlite-utils')}"
        words = ["-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "sqlite-utils", "--dest", str(folder)]
        ended = subprocess.run([sys.executable, *words, wanted], env=environ, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
    with tarfile.open(archive) as content:
        content.extractall(tmp_path, filter="data")
    return tmp_path / name


def start(suite: Path, report: Path, *, over_apsw: bool) -> subprocess.Popen[bytes]:
    environ = {**os.environ, "SUITE_REPORT": str(report), "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parent}"}
    environ.pop("PYTEST_ADDOPTS", None)
    if over_apsw:
        environ["SUITE_OVER_APSW"] = "1"
    folder = suite.parent / ("apsw" if over_apsw else "sqlite3")
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "over_apsw", f"--basetemp={folder}", "tests"]
    with report.with_suffix(".log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, *words], cwd=suite, env=environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )


@pytest.mark.sampled
@pytest.mark.slow
def test_all_that_passes_on_the_standard_library_passes_on_the_adapter(suite: Path, tmp_path: Path) -> None:
    reports = {kind: tmp_path / f"{kind}.json" for kind in (False, True)}
    with ExitStack() as stack:
        for child in [stack.enter_context(start(suite, reports[kind], over_apsw=kind)) for kind in reports]:
            stack.callback(child.kill)
            child.wait(LIMIT_S)

    passed = {kind: set(_passed(reports[kind])) for kind in reports}

    assert len(passed[False]) > 1000, reports[False].with_suffix(".log").read_text()[-5000:]
    left = sorted(passed[False] - passed[True])
    assert left == [], reports[True].with_suffix(".log").read_text()[-20000:]


def _passed(report: Path) -> Iterator[str]:
    if report.exists():
        yield from (name for name, outcome in json.loads(report.read_text()).items() if outcome == "passed")
