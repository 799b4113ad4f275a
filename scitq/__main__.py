"""`python -m scitq` is `scitq`."""

from __future__ import annotations

import sys

from scitq.shell.cli import main

if __name__ == "__main__":
    sys.argv[0] = "scitq"  # what the file says of its driver
    main()
