"""The pictures of terminals: there where pages name them, light, of commands that exist, telling nothing of where they were made."""

from __future__ import annotations

import re
import socket
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from docs import make_pictures
from docs.make_pictures import SCENES, Scene
from tests.docs import blocks
from tests.docs.blocks import PAGES, ROOT

PICTURES = sorted((ROOT / "docs" / "pictures").glob("*.svg"))
SVG = "{http://www.w3.org/2000/svg}"
_IMAGE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


def text_of(picture: Path) -> str:
    """The letters in it."""
    return "\n".join("".join(text.itertext()) for text in ElementTree.parse(picture).iter(f"{SVG}text")).replace(
        "\xa0", " "
    )


def test_every_scene_has_its_picture() -> None:
    assert [path.stem for path in PICTURES] == sorted(SCENES), "To make them: python docs/make_pictures.py"


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_a_picture_in_a_page_is_there_and_described(page: Path) -> None:
    for says, link in _IMAGE.findall(page.read_text(encoding="utf-8")):
        assert (page.parent / link).is_file(), link
        assert len(says) > 40, f"{link}: say what is to be seen"


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_a_picture_is_light_and_asks_nothing_of_others(picture: Path) -> None:
    drawn = picture.read_text(encoding="utf-8")

    assert len(drawn.encode()) < 60_000
    assert re.findall(r"https?:[^\"'\s]*", drawn) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"@import|@font-face|url\(|<script|\bon\w+=|<image|href", drawn)
    root = ElementTree.fromstring(drawn)
    assert root.get("role") == "img"
    assert all(len(root.findtext(f"{SVG}{name}") or "") > 5 for name in ("title", "desc"))


@pytest.mark.parametrize("picture", PICTURES, ids=lambda path: path.stem)
def test_a_picture_tells_nothing_of_where_it_was_made(picture: Path) -> None:
    text = text_of(picture)

    assert len(text.splitlines()) > 5
    assert not re.search(r"(?<![\w.])/(?:tmp|home|root|work|usr|var)\b", text)
    assert not re.search(rf"\b{re.escape(socket.gethostname())}\b", text)


@pytest.mark.parametrize("name", sorted(SCENES))
def test_a_picture_is_of_commands_that_exist(name: str) -> None:
    scene = SCENES[name]

    for command in scene.commands:
        assert blocks.understand(f"scitq {command}".rstrip()) is None, command


@pytest.mark.usefixtures("workers_may_linger")
def test_a_scene_is_played_in_a_real_terminal() -> None:
    """The way from a terminal to a picture, with a command that takes no time."""
    drawn = make_pictures.made(
        Scene("a & b", "What <this> is.", ("--version",), make_pictures.typing("clear", "scitq --version"))
    )

    assert "a &amp; b" in drawn and "What &lt;this&gt; is." in drawn
    lines = ["".join(text.itertext()) for text in ElementTree.fromstring(drawn).iter(f"{SVG}text")]
    assert [line.replace("\xa0", " ") for line in lines][1] == "$ scitq --version"
