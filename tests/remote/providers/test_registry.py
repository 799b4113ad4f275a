"""Providers by their kind: those that come with scitq, those of plug-ins, those that are broken."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from scitq.errors import BadRequest
from scitq.remote import providers
from scitq.remote.providers.base import Context

ROOT = Path(__file__).parents[3]


def test_those_that_come_with_scitq_are_entry_points_as_plug_ins_are() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][providers.GROUP] == providers.BUILT_IN


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("no_such_module:factory", "ModuleNotFoundError"),
        ("scitq.errors:no_such_thing", "AttributeError"),
        ("builtins:dict", "TypeError"),
        ("tests.remote.providers.test_registry:raises", "ZeroDivisionError"),
        ("tests.remote.providers.test_registry:nothing", "is no provider"),
    ],
)
def test_a_broken_plug_in_is_a_problem_of_its_check(
    place: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [EntryPoint("mine", place, group)])
    [problem] = providers.check("dream", {"kind": "mine"}, Context(str(tmp_path)))
    assert problem.severity == "error" and said in problem.what and problem.what.startswith("provider dream: ")
    assert "mine" in providers.kinds()
    with pytest.raises(BadRequest, match="provider dream"):
        providers.load("dream", {"kind": "mine"}, Context(str(tmp_path)))


def raises(*_: object) -> None:
    """A factory."""
    raise ZeroDivisionError


def nothing(*_: object) -> object:
    """A factory."""
    return object()


def test_a_kind_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match=r"there is no kind 'moon' \(there are: .*fake, .*local"):
        providers.load("dream", {"kind": "moon"}, Context(str(tmp_path)))


def test_knowing_providers_loads_none_of_them() -> None:
    program = (
        "import sys, scitq.remote.providers as p; p.configured(); p.kinds();"
        "print([m for m in sys.modules if m.startswith(('scitq.remote.providers.fake', 'scitq.remote.providers.ssh', 'paramiko'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"
