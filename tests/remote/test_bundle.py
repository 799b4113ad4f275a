"""The bundle is reproducible, complete, private, and rebuilt when it is damaged."""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from scitq.remote import bundle as module
from scitq.remote import local
from scitq.remote.bundle import TRAVELS, build, bundle
from tests.remote.client import Driver


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "_known", None)


def test_the_same_sources_give_the_same_bytes() -> None:
    code = "import hashlib; from scitq.remote.bundle import build; print(hashlib.sha256(build()).hexdigest())"
    env = {"PYTHONPATH": str(Path(module.__file__).parents[2]), "PATH": os.defpath}
    hashes = {
        subprocess.run([sys.executable, "-c", code], env={**env, "PYTHONHASHSEED": seed}, cwd="/", check=True,
                       capture_output=True, text=True).stdout.strip()
        for seed in ("1", "2", "3")
    }  # fmt: skip
    assert hashes == {hashlib.sha256(build()).hexdigest()}


def test_everything_of_the_agent_travels() -> None:
    folder = Path(module.__file__).parent / "agent"
    assert {Path(name).name for name in TRAVELS} == {path.name for path in folder.glob("*.py")}


def test_it_is_named_by_its_hash_and_private() -> None:
    path, digest = bundle()
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest and path.name == f"agent-{digest}.pyz"
    assert path.stat().st_mode & 0o777 == 0o600
    assert bundle() == (path, digest)


def test_a_damaged_one_is_built_again() -> None:
    path, digest = bundle()
    path.write_bytes(path.read_bytes()[:-100])
    assert bundle() == (path, digest)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == digest
    path.unlink()
    assert bundle() == (path, digest) and path.exists()


def test_it_holds_source_and_code_and_nothing_of_this_machine() -> None:
    path, _ = bundle()
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        assert names == sorted(names) and all(info.date_time[0] == 1980 for info in archive.infolist())
        assert all(name + "c" in names for name in names if name.endswith(".py"))
        here = str(Path(module.__file__).parents[2]).encode()
        assert all(here not in archive.read(name) for name in names)


def pythons() -> list[str]:
    """Every version that is installed here and may be found on a worker."""
    found = {shutil.which(f"python3.{minor}") for minor in range(10, 15)} | {shutil.which("python3"), sys.executable}
    working = []
    for python in sorted(path for path in found if path):
        code = "import sys; print(sys.version_info >= (3, 10))"
        done = subprocess.run([python, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
        if done.stdout == "True\n":  # else it is too old, or a version manager's stand-in for what is not installed
            working.append(python)
    return working


def test_all_of_it_is_python_3_10() -> None:
    with zipfile.ZipFile(bundle()[0]) as archive:
        for name in archive.namelist():
            if name.endswith(".py"):
                ast.parse(archive.read(name), feature_version=(3, 10))


@pytest.mark.parametrize("python", pythons())
def test_it_runs_tasks_on_every_python_there_is(root: Path, python: str) -> None:
    local.ensure(root, command=[python, "-I", "-S", "-X", "utf8", str(bundle()[0])])
    driver = Driver(root)
    assert driver.run(1, "echo", "x")["o"] == "x\n"
    assert driver.script(2, "seq 10000; exit 3")["code"] == 3
    assert len(driver.output(2).split()) == 10000
    driver.close()


def test_what_moves_data_is_there_and_not_loaded_before_it_is_needed() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(bundle()[0])!r})\n"
        "from scitq.remote.agent import agent, keeper\n"
        "before = [name for name in sys.modules if name.startswith(('scitq.fetch', 'scitq.errors'))]\n"
        "from scitq.fetch.transfer import get\n"
        "print(before, get.__module__)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "scitq.fetch.transfer"]
