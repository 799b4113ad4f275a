"""The user's settings: read, checked with their lines, changed without touching anything else."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq import config, configfile
from scitq.config import SETTINGS
from scitq.errors import BadInput


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings are; nothing is there yet. No variable of the tester's says anything."""
    for one in SETTINGS:
        for name in (one.environment, *one.otherwise):
            if name is not None:
                monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("SCITQ_CONFIG", str(tmp_path / "config.toml"))
    return tmp_path / "config.toml"


def problems(file: Path, text: str) -> list[str]:
    file.write_text(text)
    return [problem.removeprefix(f"{file}:") for problem in config.load().problems]


def test_without_a_file_everything_is_as_it_comes(file: Path) -> None:
    found = config.load()

    assert not found.problems
    assert {key: value.value for key, value in found.values.items()} == {one.key: one.default for one in SETTINGS}
    assert all(one.checked(one.default) == one.default for one in SETTINGS if one.default != "")


def test_the_file_says_and_the_environment_wins(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text(
        'colour = "never"\neditor = "ed"\nsend_limit = "2.5G"\n[hooks]\nbatch_end = [\n  "x", # one\n  "y"]\n'
    )
    monkeypatch.setenv("EDITOR", "nano -w")
    monkeypatch.setenv("SCITQ_PAGER", "most")
    monkeypatch.setenv("SCITQ_COLOUR", "always")
    monkeypatch.setenv("SCITQ_WEB_PORT", "8080")

    found = config.load()

    assert not found.problems
    assert (found.get("colour"), found.values["colour"].source) == ("always", "SCITQ_COLOUR")
    assert (found.get("editor"), found.values["editor"].source) == ("ed", "file")  # what is said of scitq comes first
    assert (found.get("pager"), found.values["pager"].source) == ("most", "SCITQ_PAGER")
    assert (found.get("web.port"), found.get("send_limit"), found.get("hooks.batch_end")) == (
        8080,
        2_500_000_000,
        ["x", "y"],
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('\ncolur = "never"', "2: there is no key 'colur'; did you mean 'colour'?"),
        ("# x\n\n[notifications]\ndesktop = 1", "4: notifications.desktop must be true or false, not 1."),
        ('colour = "red"', '1: colour must be one of "auto", "always", "never", not \'red\'.'),
        ("[web]\nport = 70000", "2: web.port must be a whole number from 0 to 65535, not 70000."),
        ("[web]\nport = true", "2: web.port must be a whole number from 0 to 65535, not true."),
        ("[hooks]\ntimeout = nan", "2: hooks.timeout must be a number from 1 to 600, not nan."),
        (
            '[hooks]\nbatch_end = "rm -rf"',
            '2: hooks.batch_end must be a list of texts, such as ["program", "argument"], not',
        ),
        ('[hooks]\nbatch_end = [""]', "2: hooks.batch_end must be a list of texts"),
        ('send_limit = "much"', "1: send_limit must be a size, such as \"10G\", not 'much'."),
        ('a = 1\nb = "', "2: this is not TOML"),
        ("a = 1\na = 2", "2: this is not TOML"),
        ("[hook]\nx = 1", "2: there is no key 'hook.x'"),
        ("[hook]", "1: there is no table [hook]; did you mean 'hooks'?"),
        ("timeout = 5", "1: there is no key 'timeout'; did you mean 'hooks.timeout'?"),
        ('[s3]\nsecret_access_key = "x"', "2: 's3.secret_access_key': secrets do not belong into this file"),
        ('password = "hunter2"', "1: 'password': secrets do not belong into this file"),
    ],
)
def test_what_makes_no_sense_is_said_with_its_line_and_not_used(file: Path, text: str, said: str) -> None:
    found = problems(file, 'pager = "cat"\n' + text if not text.startswith("a =") else text)

    number, _, rest = said.partition(": ")
    number = number if text.startswith("a =") else str(int(number) + 1)
    assert found[0].startswith(f"{number}: {rest}"), found
    assert "hunter2" not in "".join(found)
    assert config.load().get("colour") == "auto"
    assert config.load().get("pager") == ("" if "not TOML" in said else "cat")  # what makes sense counts


def test_a_variable_that_makes_no_sense_is_said_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCITQ_WEB_PORT", "http")

    found = config.load()

    assert found.problems == (
        "environment variable SCITQ_WEB_PORT: web.port must be a whole number from 0 to 65535, not 'http'.",
    )
    assert found.get("web.port") == 0


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_a_file_that_cannot_be_read_is_a_problem_and_no_end(file: Path, content: bytes | None) -> None:
    file.mkdir() if content is None else file.write_bytes(content)

    assert len(config.load().problems) == 1
    assert config.load().get("hooks.timeout") == 60


COMMENTED = """\
# mine
colour = "never"   # for the printer

# how it is told
[notifications]
desktop = true
min_duration = 5 # quick

[hooks]   # programs
batch_end = [
  "mail", # me
  "-s",
]  # that is all
"""


@pytest.mark.parametrize(
    ("key", "value", "before", "after"),
    [
        ("colour", "auto", 'colour = "never"   # for the printer', 'colour = "auto"  # for the printer'),
        ("notifications.min_duration", 9, "min_duration = 5 # quick", "min_duration = 9  # quick"),
        ("notifications.min_duration", None, "min_duration = 5 # quick\n", ""),
        ("pager", "less", "# for the printer\n", '# for the printer\npager = "less"\n'),
        ("notifications.terminal", "osc9", "# quick\n", '# quick\nterminal = "osc9"\n'),
        (
            "hooks.batch_end",
            ["a b", 'c"d\\'],
            'batch_end = [\n  "mail", # me\n  "-s",\n]',
            'batch_end = ["a b", "c\\"d\\\\"]',
        ),
        ("web.port", 80, "# that is all\n", "# that is all\n\n[web]\nport = 80\n"),
        ("send_limit", None, "", ""),
    ],
)
def test_one_value_is_changed_and_all_else_stays(key: str, value: object, before: str, after: str) -> None:
    found = configfile.changed(COMMENTED, key, value)

    assert found == COMMENTED.replace(before, after, 1).replace("]  # that", "]  # that")


def test_what_cannot_be_changed_alone_is_left_to_a_person() -> None:
    for text in ('hooks = {batch_end = ["x"], timeout = 5}\n', "hooks.timeout = 3\nhooks.batch_end = []\n"):
        try:
            found = configfile.changed(text, "hooks.timeout", 7)
        except BadInput as problem:
            assert "scitq config edit" in str(problem)
        else:
            assert found == text.replace("timeout = 3", "timeout = 7")
    with pytest.raises(BadInput, match="scitq config edit"):
        configfile.changed("hooks = {timeout = 5}\n", "hooks.batch_end", ["x"])


@given(st.text(), st.sampled_from(["pager", "editor", "file"]))
def test_every_text_comes_back_as_it_was(text: str, key: str) -> None:
    if any(0xD800 <= ord(letter) < 0xE000 for letter in text):
        return
    found = configfile.changed(COMMENTED, key, text)

    assert dict(value for part in configfile.statements(found) for value in part.values)[key] == text


def test_it_is_its_users_alone_and_replaced_at_once(tmp_path: Path) -> None:
    real, link = tmp_path / "dotfiles" / "config.toml", tmp_path / "config.toml"
    link.symlink_to(real)

    configfile.write(link, "a = 1\n")

    assert link.is_symlink() and real.read_text() == "a = 1\n"
    assert stat.S_IMODE(real.stat().st_mode) == 0o600
    assert os.listdir(real.parent) == ["config.toml"]


def test_where_the_file_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SCITQ_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config.path() == tmp_path / "scitq" / "config.toml"
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")  # to be ignored, as its specification says
    assert config.path() == Path.home() / ".config" / "scitq" / "config.toml"
