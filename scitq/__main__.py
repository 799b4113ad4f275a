"""`python -m scitq` is `scitq`: a program that is started often, so that its start counts."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """`scitq` and `scitq-manage`.

    Nothing that loading modules makes is garbage, but the collector looks at all of it a dozen times: a seventh of a short
    command's time. `scitq.shell.cli` lets it begin when all is loaded.
    """
    gc.disable()
    if "_SCITQ_COMPLETING" in os.environ:  # a shell asks how a line may go on
        from scitq.shell import completion

        sys.exit(completion.answer("scitq"))
    from scitq.shell.cli import main

    main()


if __name__ == "__main__":
    sys.argv[0] = "scitq"  # what the file says of its driver
    main()
