"""Links of files that are read where they lie (README and its like): what they lead to is there. Sphinx looks after those of docs/."""

from __future__ import annotations

import re
import urllib.parse
from pathlib import Path

import pytest

from tests.docs.blocks import PAGES, ROOT

FILES = sorted(
    {*ROOT.glob("*.md"), *ROOT.glob("benchmarks/*.md"), *ROOT.glob("examples/*.md"), *ROOT.glob("scitq/**/*.md")}
)
_CODE = re.compile(r"^(```+).*?^\1$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\]]*\])*\]\(([^()\s]+)\)")


def links(path: Path) -> list[str]:
    """Where a page leads to; what stands in code is no link."""
    return _LINK.findall(_CODE.sub("", path.read_text(encoding="utf-8")))


def anchors(path: Path) -> set[str]:
    """The headings of a page as links name them."""
    text = re.sub(r"^(```+).*?^\1$", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("file", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_what_a_file_links_to_is_there(file: Path) -> None:
    for link in links(file):
        name, _, anchor = link.partition("#")
        if urllib.parse.urlsplit(link).scheme:
            continue
        target = (file.parent / name).resolve() if name else file
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("folder", ["howto", "explanation", "reference"])
def test_every_page_is_in_the_list_of_its_part(folder: str) -> None:
    """Which is read where it lies, too: there a toctree shows nothing."""
    index = ROOT / "docs" / folder / "index.md"
    pages = {page.name for page in index.parent.glob("*.md")} - {"index.md"}

    assert pages - set(links(index)) == set()


def test_links_to_elsewhere_are_addresses() -> None:
    """They are not visited: no test needs the network."""
    found = {link for file in (*FILES, *PAGES) for link in links(file) if urllib.parse.urlsplit(link).scheme}

    print(*sorted(found), sep="\n")
    assert found
    for link in found:
        parts = urllib.parse.urlsplit(link)
        assert parts.scheme == "https" and re.fullmatch(r"[\w.-]+\.[a-z]{2,}", parts.netloc), link


def test_no_page_names_a_place_of_this_machine() -> None:
    for page in (*FILES, *PAGES):
        assert re.findall(r"(?<![\w./~])/(?:tmp|root|work|home)/\w+", page.read_text(encoding="utf-8")) == [], page.name
