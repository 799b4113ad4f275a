"""The manual page, made from the table of commands: `python docs/make_man.py` writes docs/man/, `--check` says whether it is current.

In man(7) macros; ASCII only, what is not is named by its number, so that it reads in every locale.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parent)]

from docs import tables
from scitq.shell import cli
from scitq.shell.table import Command
from scitq.shell.table.codes import EXIT_CODES

FOLDER = HERE / "man"
DATE = "2026-11-24"
# Pages that are the same one: the program under version 1's names.
LINKS = ("scitq-launch.1", "scitq-fetch.1", "scitq-manage.1")
_WIDTH = 78
_SECTIONS = {"": "Run, drive, look, keep"}


def escape(text: str) -> str:
    """Text as roff takes it: nothing in it is a request, an escape or a typographic dash."""
    text = (
        text.replace("\\", "\\e").replace("-", "\\-").replace("'", "\\(aq").replace("`", "\\(ga").replace('"', "\\(dq")
    )
    text = text.replace("^", "\\(ha").replace("~", "\\(ti").replace("…", "...")  # groff's ASCII has no ellipsis
    text = "".join(letter if letter < "\x7f" else f"\\[u{ord(letter):04X}]" for letter in text)
    return _begun(text)


def bold(text: str) -> str:
    """In bold, on a line of its own."""
    return f"\\fB{escape(text)}\\fR"


def wrapped(text: str) -> list[str]:
    """A paragraph: `code` in bold, in lines of less than eighty bytes."""
    lines: list[str] = []
    line = ""
    is_code = False
    for word in text.split():
        said = ""
        for number, piece in enumerate(word.split("`")):
            is_code ^= number > 0
            said += (bold(piece) if is_code else _inside(piece)) if piece else ""
        if line and len(line) + 1 + len(said) > _WIDTH:
            lines.append(line)
            line = ""
        line = f"{line} {said}" if line else said
    return [_begun(one) for one in [*lines, line] if one]


def _inside(text: str) -> str:
    return escape(text).removeprefix("\\&")


def _begun(line: str) -> str:
    """A line that begins with a dot or a quote is no request."""
    return f"\\&{line}" if line.startswith((".", "'", "\\(aq")) else line


def block(text: str) -> list[str]:
    """Lines as they stand."""
    lines = [escape(line) for line in text.splitlines()]
    return [".PP", ".RS 4", ".nf", *lines, ".fi", ".RE"]


def page() -> str:
    """The page."""
    lines = [
        '.\\" Made by docs/make_man.py from the table of commands: edit that, and run it.',
        f'.TH SCITQ 1 "{DATE}" "scitq" "User Commands"',
        ".nh",
        ".ad l",
        ".SH NAME",
        "scitq, scitq\\-launch, scitq\\-fetch, scitq\\-manage \\-",
        "a scientific task queue in one file",
        ".SH SYNOPSIS",
        *_synopsis(),
        ".SH DESCRIPTION",
        *_description(),
        ".SH COMMANDS",
        *_commands(),
        ".SH ENVIRONMENT",
        *_pairs(tables.environment()),
        ".SH FILES",
        *_pairs(tables.FILES),
        ".SH EXIT STATUS",
        *_pairs(EXIT_CODES),
        ".PP",
        "Those of",
        bold("scitq fetch"),
        "are said at its commands.",
        ".SH SEE ALSO",
        "\\fBssh_config\\fR(5), \\fBrclone\\fR(1), \\fBsqlite3\\fR(1)",
        ".PP",
        *wrapped(
            "The documentation of scitq: a tutorial, how things are done, how it works, and all there is in Python."
        ),
    ]
    return "\n".join(lines) + "\n"


def _synopsis() -> Iterator[str]:
    programs = (
        ("scitq", "[OPTIONS] COMMAND ..."),
        ("scitq-launch", "[OPTIONS] COMMAND ..."),
        ("scitq-fetch", "VERB [OPTIONS] URI ..."),
    )
    for number, (program, rest) in enumerate(programs):
        yield from ([".br"] if number else [])
        yield f"{bold(program)} {escape(rest)}"


def _description() -> Iterator[str]:
    for number, (kind, text) in enumerate(tables.paragraphs(cli._SUMMARY)):
        if kind == "block":
            yield from block(text)
        else:
            yield from ([".PP"] if number else []) + wrapped(text)
    yield ".PP"
    yield from wrapped(
        "Every command takes `-f FILE` (the state file), `--json` (print JSON, with exact numbers), `--no-pager`, "
        "`-v` (tell what goes on inside) and `-h`. Results go to standard output, everything else to standard error."
    )


def _commands() -> Iterator[str]:
    rows = tables.visible()
    for noun in dict.fromkeys(tables.noun(row) for row in rows):
        title = _SECTIONS.get(noun) or f"scitq {noun}"
        yield f".SS {escape(title)}"
        if noun in cli._GROUPS:
            for number, (kind, text) in enumerate(tables.paragraphs(cli._GROUPS[noun])):
                yield from block(text) if kind == "block" else ([".PP"] if number else []) + wrapped(text)
        for row in rows:
            if tables.noun(row) == noun:
                yield from _command(row)


def _command(row: Command) -> Iterator[str]:
    words = tables.usage(row).removesuffix(" [OPTIONS]")
    name, rest = f"scitq {row.path}", words.removeprefix(f"scitq {row.path}").replace(" [OPTIONS]", "")
    yield from (".TP", f"{bold(name)}{escape(rest)}")
    for number, (kind, text) in enumerate(tables.paragraphs(row.help)):
        yield from block(text) if kind == "block" else ([".IP"] if number else []) + wrapped(text)
    own = tables.options(row)
    if own:
        yield ".RS"
        for flags, says in own:
            yield from (".TP", bold(flags), *wrapped(says))
        yield ".RE"
    if row.examples:
        yield ".IP"
        yield "For example:"
        yield from (".RS", ".nf", *(escape(example) for example in row.examples), ".fi", ".RE")


def _pairs(pairs: Sequence[tuple[str, str]]) -> Iterator[str]:
    for name, text in pairs:
        yield from (".TP", bold(name), *wrapped(text))


def made() -> dict[str, str]:
    """What the files of docs/man have to say, by their names."""
    return {"scitq.1": page(), **dict.fromkeys(LINKS, ".so man1/scitq.1\n")}


def main() -> int:
    """Write them, or with --check say which are not current."""
    stale = [
        name
        for name, text in made().items()
        if not (FOLDER / name).exists() or (FOLDER / name).read_text("ascii") != text
    ]
    if "--check" in sys.argv:
        print(
            "\n".join(f"docs/man/{name} is not current: python docs/make_man.py" for name in stale),
            end="\n" if stale else "",
        )
        return bool(stale)
    FOLDER.mkdir(exist_ok=True)
    for name in stale:
        (FOLDER / name).write_text(made()[name], "ascii")
        print(f"docs/man/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
