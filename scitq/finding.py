"""Which state file is meant where none is named: the one of $SCITQ_FILE, the nearest here or above, that of the settings.

Light, since completion asks it at every Tab.
"""

from __future__ import annotations

import contextlib
import logging
import os
from pathlib import Path

from scitq.errors import BadInput

log = logging.getLogger("scitq")


def find(path: str | Path | None = None) -> Path:
    """The state file that `open` would take."""
    if path is not None:
        text = os.fspath(path)
        if not text:
            raise BadInput("the name of the state file is empty.")
        return Path(text)
    if given := os.environ.get("SCITQ_FILE"):
        return Path(given)
    here = Path(working_folder())
    for folder in (here, *here.parents):
        with contextlib.suppress(OSError):
            found = sorted(file for file in folder.glob("*.scitq") if file.is_file())
            if len(found) > 1:
                names = ", ".join(file.name for file in found[:5])
                raise BadInput(
                    f"{folder} holds several state files ({names}): say which, with scitq.open(FILE) or Workflow(file=FILE) in "
                    "Python, and with -f FILE, or SCITQ_FILE, elsewhere."
                )
            if found:
                return found[0]
    from scitq import config  # read where nothing else says which file

    if named := config.load().get("file"):
        return Path(named).expanduser()
    fresh = here / "scitq.scitq"
    log.warning("No state file here: %s is made.", fresh)
    return fresh


def looked_for(path: str | Path | None = None) -> Path:
    """The same for who only looks: nothing is said of a file that would be made."""
    before, log.disabled = log.disabled, True
    try:
        return find(path)
    finally:
        log.disabled = before


def working_folder() -> str:
    """The current folder.

    Raises:
        BadInput: it was deleted.
    """
    try:
        return os.getcwd()
    except FileNotFoundError:
        raise BadInput("the current folder was deleted: change to another one first.") from None
