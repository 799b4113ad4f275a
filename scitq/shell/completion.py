"""Completion in bash, zsh and fish: the scripts that `scitq completion SHELL` prints, and what they ask of the program.

A script sets $_SCITQ_COMPLETING to the name of its shell and runs the program that is being completed. What comes back is a line
for each candidate, in the form that this shell's script takes. Neither click nor the engine is loaded for it, nothing is waited
for, and whatever goes wrong there are just no candidates.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from scitq.shell import completing
from scitq.shell.completing import Candidate
from scitq.shell.table import Option
from scitq.shell.table.settings import COMPLETED

if TYPE_CHECKING:
    import apsw

    from scitq.shell.answers import Text
    from scitq.worker import JobRow

# The words that a program of its own name stands for.
PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "scitq": (), "scitq-manage": (), "scitq-launch": ("launch",), "scitq-fetch": ("fetch",),
}  # fmt: skip

_BASH = r"""# Completion of scitq for bash, 3.2 or later: eval "$(scitq completion bash)"
_scitq_complete() {
    local line
    COMPREPLY=()
    # What is whole comes with a blank behind it, so that readline adds none.
    while IFS= read -r line; do
        [ -n "$line" ] && COMPREPLY+=("$line")
    done <<< "$(_SCITQ_COMPLETING=bash _SCITQ_LINE="${COMP_LINE:0:$COMP_POINT}" _SCITQ_BREAKS="$COMP_WORDBREAKS" \
        "${1/#\~/$HOME}" 2> /dev/null)"
}
complete -o nospace -o bashdefault -F _scitq_complete PROGRAMS
"""
_ZSH = r"""#compdef PROGRAMS
# Completion of scitq for zsh: eval "$(scitq completion zsh)", after compinit; or as a file _scitq in a folder of $fpath.
_scitq() {
    local line
    local -a whole begun
    for line in "${(@f)$(_SCITQ_COMPLETING=zsh ${~words[1]} "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2> /dev/null)}"; do
        case $line in
            ("="*) whole+=("${line[2,-1]}") ;;
            ("+"*) begun+=("${line[2,-1]}") ;;
        esac
    done
    (( $#whole )) && _describe -V -t scitq scitq whole
    (( $#begun )) && _describe -V -t scitq-begun scitq begun -S ''
}
if [ "$funcstack[1]" = _scitq ]; then
    _scitq "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
    compdef _scitq PROGRAMS
fi
"""
_FISH = r"""# Completion of scitq for fish: scitq completion fish > ~/.config/fish/conf.d/scitq.fish
function __scitq_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    env _SCITQ_COMPLETING=fish $words "$current" 2> /dev/null
end
for program in PROGRAMS
    complete -c $program -f -k -a '(__scitq_complete)'
end
"""
SCRIPTS = {
    name: text.replace("PROGRAMS", " ".join(PROGRAMS))
    for name, text in zip(COMPLETED, (_BASH, _ZSH, _FISH), strict=True)
}
_INSTALL = {
    "bash": "For every bash of yours: echo 'eval \"$(scitq completion bash)\"' >> ~/.bashrc",
    "zsh": "For every zsh of yours: echo 'eval \"$(scitq completion zsh)\"' >> ~/.zshrc",
    "fish": "For every fish of yours: scitq completion fish > ~/.config/fish/conf.d/scitq.fish",
}


def script(_: object, args: SimpleNamespace) -> Text:
    """The script for a shell; how it is installed is told to who looks at it."""
    from scitq.errors import BadInput
    from scitq.shell.answers import Text

    shell = os.path.basename(args.program)
    if shell not in SCRIPTS:
        raise BadInput(f"words are completed in {', '.join(SCRIPTS)}, not in {args.program}.")
    text = SCRIPTS[shell]
    notes = [_INSTALL[shell]] if args.screen.is_terminal else []
    return Text(text.rstrip("\n"), {"shell": shell, "script": text, "install": _INSTALL[shell]}, notes, safe=True)


def answer(program: str) -> int:
    """Print what may stand where the cursor is, and nothing else, whatever happens. Gives the exit code."""
    try:
        shell, begun = os.environ["_SCITQ_COMPLETING"], PROGRAMS[program]
        if shell == "bash":
            lines = of_bash(begun, os.environ["_SCITQ_LINE"], os.environ.get("_SCITQ_BREAKS", ""))
        else:
            *before, current = sys.argv[1:]
            lines = (of_zsh if shell == "zsh" else of_fish)([*begun, *before], current)
        os.write(1, "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
    except Exception:  # a shell at its prompt has no place for complaints
        return 1
    return 0


def of_bash(begun: Sequence[str], line: str, breaks: str) -> Iterator[str]:
    """What readline is to put where its own idea of the last word begins: at the last break or open quote in it."""
    typed = typed_so_far(line, breaks)
    for one in _candidates([*begun, *typed.words[1:]], typed.word):
        if one.text.startswith(typed.word[: typed.kept]):
            rest = one.text[typed.kept :]
            yield _written(rest, typed.quote) + ("" if typed.quote or _goes_on(one) else " ")


def of_zsh(words: Sequence[str], current: str) -> Iterator[str]:
    """`=TEXT:HELP`; with a plus sign where one goes on typing in the same word."""
    for one in _candidates(words, current):
        text = one.text.replace("\\", "\\\\").replace(":", "\\:")
        yield f"{'+' if _goes_on(one) else '='}{text}{f':{one.help}' if one.help else ''}"


def of_fish(words: Sequence[str], current: str) -> Iterator[str]:
    """`TEXT<Tab>HELP`. The word comes as it was typed, with its quotes."""
    for one in _candidates(words, typed_so_far(current, "").word):
        yield f"{one.text}\t{one.help}"


def _goes_on(one: Candidate) -> bool:
    return one.text.endswith(("/", "=", "mv:")) or one.kind in ("column", "keyword", "table")


def _candidates(words: Sequence[str], incomplete: str) -> list[Candidate]:
    engine: Any = Glance(words)
    found = completing.candidates(engine, words, incomplete)
    return [one for one in found if one.text.isprintable()]


# --- the line -----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Typed:
    """A line up to the cursor: the whole words, the one that is not; how much of that the shell keeps; the open quote in it."""

    words: tuple[str, ...]
    word: str
    kept: int = 0
    quote: str = ""


def typed_so_far(line: str, breaks: str) -> Typed:
    """The words of a simple command as bash and fish see them; nothing is expanded."""
    words: list[str] = []
    text, quote, kept, at = "", "", 0, 0
    is_begun = False
    while at < len(line):
        char = line[at]
        if quote and char != quote:
            if char == "\\" and quote == '"' and line[at + 1 : at + 2] in ('"', "\\", "$", "`"):
                at += 1
            text += line[at : at + 1]
        elif char in "'\"":
            quote = "" if quote else char
            is_begun, kept = True, len(text)
        elif char == "\\":
            at += 1
            text += line[at : at + 1]
            is_begun = True
        elif char.isspace():
            if is_begun:
                words.append(text)
            text, is_begun, kept = "", False, 0
        else:
            text += char
            is_begun = True
            if char in breaks:
                kept = len(text)
        at += 1
    return Typed(tuple(words), text, kept, quote)


def _written(text: str, quote: str) -> str:
    """A text as it stands in a line of bash, within the quote that is open."""
    if quote == "'":
        return text.replace("'", "'\\''")
    if quote:
        return "".join(f"\\{char}" if char in '"\\$`' else char for char in text)
    return "".join(char if char.isalnum() or char in "_@%+=:,./~-" else f"\\{char}" for char in text)


# --- the file -----------------------------------------------------------------------------------------------------------------


class Glance:
    """What `completing` needs of an engine, without one: a reader of the file, opened when a value is asked for."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words = list(words)

    @cached_property
    def _db(self) -> apsw.Connection | None:
        from scitq.store import names

        path = self._file()
        return names.glance(path) if path.is_file() else None

    @property
    def _closed(self) -> bool:
        return self._db is None

    def _reader(self) -> apsw.Connection:
        assert self._db is not None
        return self._db

    def jobs(self, worker: None, limit: int) -> list[JobRow]:
        """The latest long operations."""
        from scitq.store import jobs

        return jobs.latest(self._reader(), limit)

    def _file(self) -> Path:
        from scitq.finding import looked_for

        row = completing.place_of(self._words).row
        own = {flag for one in (row.parameters if row else ()) if isinstance(one, Option) for flag in one.flags}
        flags = {"--file", "-f"} - own
        for number, word in enumerate(self._words):
            if word in flags and number + 1 < len(self._words):
                return Path(self._words[number + 1]).expanduser().absolute()
            if word.startswith("--file="):
                return Path(word.removeprefix("--file=")).expanduser().absolute()
        return looked_for().absolute()
