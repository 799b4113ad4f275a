"""The blocks of code in Markdown pages, and how they are run: what is shown as output is compared with what comes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from scitq.shell import cli

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted((ROOT / "docs").rglob("*.md"))
_FENCE = re.compile(r"^(```+)(\{code-block\} )?(\w+)\n(.*?)^\1$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the file it is to be kept in if it has a caption, its text."""

    language: str
    file: str | None
    text: str


@dataclass(frozen=True)
class Typed:
    """A line that is typed, and the lines that are shown after it."""

    line: str
    shown: tuple[str, ...]


def blocks(text: str) -> list[Block]:
    """All blocks of a page, in order."""
    found = []
    for fence in _FENCE.finditer(text):
        body = fence[4]
        caption = re.match(r":caption: (\S+)\n\n?", body) if fence[2] else None
        found.append(Block(fence[3], caption[1] if caption else None, body[caption.end() :] if caption else body))
    return found


def typed(block: Block) -> list[Typed]:
    """What is typed in a console."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif found:
            found[-1][1].append(line)
    return [Typed(line, tuple(shown)) for line, shown in found]


def understand(line: str) -> str | None:
    """Parse a line as the program would, without doing it: None, or what is wrong with it. Other programs' are let be."""
    words = shlex.split(line, comments=True)
    programs = {"scitq": cli.program, "scitq-manage": cli.program, "scitq-fetch": cli.fetch_program}
    if words and words[0] == "scitq-launch":
        words[:1] = ["scitq", "launch"]
    if words[:2] == ["scitq", "run"] and words[-1].endswith(".py"):  # there it is a file
        words[1:2] = ["workflow", "run"]
    if not words or words[0] not in programs:
        return None
    command: click.Command = programs[words[0]]()
    try:
        context = command.make_context(words[0], words[1:])
        while isinstance(command, click.Group):
            rest = [*context._protected_args, *context.args]
            if not rest:
                return None
            _, found, rest = command.resolve_command(context, rest)
            assert found is not None
            command, context = found, found.make_context(found.name, rest, parent=context)
    except click.exceptions.Exit:
        return None
    except click.ClickException as problem:
        return problem.format_message()
    return None


def surroundings(folder: Path) -> dict[str, str]:
    """The environment of a person who has installed scitq: its programs are on PATH."""
    programs = folder / ".programs"
    programs.mkdir(exist_ok=True)
    for name, code in {
        "scitq": '-m scitq "$@"',
        "scitq-launch": "-c 'from scitq.shell.cli import launch; launch()' \"$@\"",
        "scitq-fetch": "-c 'from scitq.shell.cli import fetch; fetch()' \"$@\"",
        "python": '"$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\nexec {sys.executable} {code}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C.UTF-8",
    }


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Type a line in a folder."""
    return subprocess.run(
        ["sh", "-c", line], cwd=folder, env=surroundings(folder), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
    )  # fmt: skip


def is_shown(shown: tuple[str, ...], came: str) -> bool:
    """Whether what came is what the page shows: blanks and durations do not matter, `…` stands for anything."""
    wanted = [" ".join(line.split()) for line in shown if line.strip()]
    lines = [" ".join(line.split()) for line in came.splitlines() if line.strip()]
    return re.fullmatch("".join(map(_pattern, wanted)), "\n".join([*lines, ""]) if lines else "") is not None


_DURATION = re.compile(r"\d+(?:\\\.\d+)?\\? ?(?:ms|s|min)\b")
_ANY_DURATION = r"(?:[\d.]+ ?(?:ms|s|min)\b|\d+ h \d\d)"


def _pattern(line: str) -> str:
    """One line as a regular expression; `…` alone stands for any lines."""
    if line == "…":
        return "(?:.*\n)*"
    # How long something took is said in a unit that fits it.
    parts = [_DURATION.sub(lambda _: _ANY_DURATION, re.escape(part)) for part in line.split("…")]
    return ".*".join(parts) + "\n"
