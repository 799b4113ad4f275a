"""Commands made from a template and items: `{}`, `{0}` and `{name}` become the item, or its parts.

Pure text. In a list of words an item is never split, quoted or interpreted. In a script it is quoted for the shell, and a
template in which no quoting is safe is refused. `{{name}}` stands for the text `{name}`; `${name}` is the shell's own.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from scitq.errors import BadInput
from scitq.task import check_command

_PLACE = re.compile(r"\{\{(\w*)\}\}|(?<!\$)\{(\w*)\}")
_SHELLS = frozenset({"sh", "ash", "bash", "dash", "ksh", "zsh"})
_WAY_OUT = 'pass a list instead, for example ["sh", "-c", \'sort "$1" | uniq -c\', "sh", "{}"]'


def submissions(
    template: str | Sequence[Any],
    items: Iterable[Any],
    *,
    shell: bool | str = False,
    name: str | None = None,
    places: Mapping[str, Any] | None = None,
) -> Iterator[dict[str, Any]]:
    """What to submit for each item: its command, its name when a template for names is given, and `places`: other arguments
    in which texts are templates; nothing but `{}` is the item itself.

    Raises:
        BadInput: the template has no place for the item, or one where it cannot be put safely.
    """
    command, shell_name = check_command(template, shell)
    fixed: dict[str, Any] = {"shell": shell}
    words: list[str] = []
    script = ""
    has_elsewhere = any(_has_place(text) for value in (places or {}).values() for text in _texts(value))
    if shell_name is None:
        words = shlex.split(command) if isinstance(command, str) else command
        if not has_elsewhere and not any(_has_place(word) for word in words):
            raise BadInput("the command template has no {} (or {name}) for the items.")
    else:
        script = str(command)
        if _has_place(script) or not has_elsewhere:
            _check_script(script, shell_name)
    for item in items:
        made = dict(fixed)
        made["command"] = fill(script, item, shlex.quote) if script else [fill(word, item) for word in words]
        if name is not None:
            made["name"] = fill(name, item)
        for key, value in (places or {}).items():
            made[key] = _placed(value, item)
        yield made


def _texts(value: Any) -> list[str]:
    found = value if isinstance(value, list | tuple) else [value]
    return [text for text in found if isinstance(text, str)]


def _placed(value: Any, item: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_placed(one, item) for one in value]
    if not isinstance(value, str):
        return value
    return item if value == "{}" else fill(value, item)


def fill(text: str, item: Any, quote: Callable[[str], str] = str) -> str:
    """A text with its places filled from an item."""

    def put(found: re.Match[str]) -> str:
        if found.group(1) is not None:
            return "{" + found.group(1) + "}"
        return quote(_word(_part(item, found.group(2))))

    return _PLACE.sub(put, text)


def _has_place(text: str) -> bool:
    return any(found.group(2) is not None for found in _PLACE.finditer(text))


def _part(item: Any, key: str) -> Any:
    if isinstance(item, Mapping):
        if key in item:
            return item[key]
        raise BadInput(
            f"{{{key}}}: the item has only {', '.join(map(str, item)) or 'nothing'}. Literal braces: {{{{{key}}}}}."
        )
    if isinstance(item, tuple | list):
        if key.isdecimal() and int(key) < len(item):
            return item[int(key)]
        raise BadInput(
            f"{{{key}}}: the item has the parts {{0}} to {{{len(item) - 1}}}. Literal braces: {{{{{key}}}}}."
        )
    if key:
        raise BadInput(
            f"{{{key}}}: the item {item!r:.60} has no parts; its place is {{}}. Literal braces: {{{{{key}}}}}."
        )
    return item


def _word(value: Any) -> str:
    """Text, paths and numbers as `submit` takes them."""
    words, _ = check_command(["-", value], False)
    return words[1]


def _check_script(script: str, shell: str) -> None:
    """See that every place for an item is where a quoted word may stand.

    What this does not fully understand is refused: an item must never become code.
    """
    if not _has_place(script):
        raise BadInput("the script template has no {} (or {name}) for the items.")
    if shell.rpartition("/")[2] not in _SHELLS:
        raise BadInput(f"how items are quoted for {shell!r} is not known: {_WAY_OUT}.")
    for sign, what in (("`", "backquotes"), ("$'", "$'…'"), ("((", "arithmetic"), ("<<", "a here-document")):
        if sign in script.replace("<<<", ""):
            raise BadInput(f"items cannot be put safely in a script with {what}: {_WAY_OUT}.")
    open_quotes = _quoted_parts(script)
    for found in _PLACE.finditer(script):
        if found.group(2) is not None and open_quotes[found.start()]:
            raise BadInput(
                f"{found.group()} stands within quotes, a comment or ${{…}}, or after a backslash: leave it bare, it is quoted "
                f"when it is filled; or {_WAY_OUT}."
            )


def _quoted_parts(script: str) -> list[bool]:
    """For each character, whether a quoted word put there would not be one."""
    inside = []
    quote = ""  # the sign that ends what is open
    before = "\n"
    skip = False
    depth = 0
    for i, sign in enumerate(script):
        inside.append(bool(quote) or skip or depth > 0)
        if skip:
            skip = False
        elif quote == "\n":
            quote = "" if sign == "\n" else quote
        elif sign == "\\" and quote != "'":
            skip = True
        elif quote:
            quote = "" if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == "#" and before in " \t\n;&|()":
            quote = "\n"
        elif script.startswith("${", i):
            depth += 1
        elif sign == "}" and depth:
            depth -= 1
        before = sign
    return inside
