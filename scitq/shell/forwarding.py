"""Commands about a file that is driven on another host (`scitq promote`) are passed on to it, as if they were typed there.

What only reads works without the host, too: from the copy that is here, with a word that it is as of then.
"""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Any

from scitq.remote.login import is_unreachable, pass_on
from scitq.shell.table import Argument, Command

if TYPE_CHECKING:
    from scitq.shell.show import Screen
    from scitq.store.moved import Moved


def passed_on(
    row: Command, there: Moved, given: dict[str, Any], screen: Screen, name: str, *, verbose: bool
) -> int | None:
    """Have the command done there; gives its exit code. None: it is to be answered from the file that is here."""
    if there.is_followed:
        switches = {"--json": screen.as_json, "--verbose": verbose, "--no-pager": not screen.has_pager}
        common = [flag for flag, is_on in switches.items() if is_on]
        words = [*there.program, "--file", there.path, *row.path.split(), *common, *words_of(row, given)]
        has_terminal = os.isatty(0) and os.isatty(1) and not screen.as_json
        code = pass_on(there.host, posixpath.dirname(there.path), words, has_terminal=has_terminal)
        if not is_unreachable(code):
            return code
        if not row.reads:
            screen.error(
                f"ssh {there.host} ended with {code}: {name} is driven there, so this is done there or not at all."
            )
            return code
        screen.say(f"{there.host} cannot be reached: this is {name} as it was when it left.")
        return None
    if row.reads:
        screen.say(str(there.refusal(name)))
    return None


def words_of(row: Command, given: dict[str, Any]) -> list[str]:
    """The options and arguments of a command, as one would type them."""
    options: list[str] = []
    arguments: list[str] = []
    for one in row.parameters:
        value = given.get(one.name)
        if value is None or value is False or value == ():
            continue
        values = value if isinstance(value, list | tuple) else [value]
        if isinstance(one, Argument):
            arguments += [str(each) for each in values]
        elif value is True:
            options.append(one.flags[-1])
        elif one.kind == "two":
            options += [one.flags[-1], *(str(each) for each in value)]
        else:
            options += [f"{one.flags[-1]}={each}" for each in values]
    return [*options, *(["--", *arguments] if arguments else [])]
