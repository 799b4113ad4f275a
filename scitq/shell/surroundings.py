"""Where a command line is run: by itself, or in a process that is open already (the interactive shell, a notebook).

`cli.run(…, surroundings=…)` takes the engine and the screen from here; without it, each line opens the file and closes it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from scitq.shell.show import Screen

if TYPE_CHECKING:
    from scitq.engine import Engine


def _screen(as_json: bool) -> Screen:
    return Screen(as_json=as_json)


@dataclass
class Surroundings:
    """What a command finds when it is run in a process that goes on after it.

    `engine` is used, and left open, by commands about its file; one about another file opens that for itself. `adopt` opens
    the file of a command while there is no engine yet, and whoever gave it keeps that engine.
    """

    engine: Engine | None = None
    screen: Callable[[bool], Screen] = _screen
    is_interactive: bool = False
    adopt: Callable[[Path], Engine] | None = None

    def engine_of(self, path: Path | None) -> Engine | None:
        """The open engine of that file; None: there is none. Without a path: of whichever file is open."""
        found = self.engine
        if found is None or found._closed:
            return None
        return found if path is None or os.path.realpath(path) == os.path.realpath(found.path) else None
