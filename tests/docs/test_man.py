"""The manual page: made from the table, current, clean, readable everywhere."""

from __future__ import annotations

import os
import subprocess

import pytest

from docs import make_man, tables
from scitq.shell.table import COMMANDS
from tests.docs.blocks import ROOT

PAGE = ROOT / "docs" / "man" / "scitq.1"


def shown(locale: str) -> str:
    """The page as man shows it."""
    environ = {**os.environ, "LC_ALL": locale, "MANWIDTH": "100", "MAN_KEEP_FORMATTING": "", "MANPAGER": "cat"}
    ended = subprocess.run(["man", "--warnings", "-l", PAGE], env=environ, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, b"")
    return ended.stdout.decode("ascii" if locale == "C" else "utf-8")


@pytest.mark.parametrize("name", sorted(make_man.made()))
def test_the_page_is_current(name: str) -> None:
    committed = (make_man.FOLDER / name).read_text(encoding="ascii")

    assert committed == make_man.made()[name], f"docs/man/{name} is not current. To make it: python docs/make_man.py"


def test_no_other_page_is_there() -> None:
    assert {path.name for path in make_man.FOLDER.iterdir()} == set(make_man.made())


def test_the_page_is_clean_for_mandoc() -> None:
    ended = subprocess.run(["mandoc", "-Tlint", PAGE], capture_output=True, text=True, timeout=60)

    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_the_page_has_its_sections_and_every_command_in_any_locale(locale: str) -> None:
    page = shown(locale)
    text = " ".join(page.split())

    for section in ("NAME", "SYNOPSIS", "DESCRIPTION", "COMMANDS", "ENVIRONMENT", "FILES", "EXIT STATUS", "SEE ALSO"):
        assert f"\n{section}\n" in page
    for row in tables.visible():
        assert f"scitq {row.path}" in text
        for flags, _ in tables.options(row):
            assert " ".join(flags.replace("…", "...").split()) in text, (row.path, flags)
        for example in row.examples:
            assert " ".join(example.replace("…", "...").split()) in text, (row.path, example)
    assert [row.path for row in COMMANDS if row.hidden and f" scitq {row.path} " in text] == []


TEXTS = ["plain", ".TH x", "'br", "a\\fBb", "--long-option", '`tick` "quote"', "x ^ ~ y", "naïve …", "\\", '.\\" x']


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_is_shown_as_it_is(text: str) -> None:
    source = f".TH X 1 2026-01-01\n.SH NAME\nx \\- y\n.SH TEXT\n{make_man.escape(text)}\n"

    ended = subprocess.run(["mandoc", "-Tutf8", "-Wall"], input=source, capture_output=True, text=True, timeout=60)
    body = ended.stdout.replace("\b", "")

    assert ended.stderr == ""
    assert text.replace("…", "...") in body
