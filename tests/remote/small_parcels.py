"""A worker on a small disk that is sent files: run in a mount namespace of its own.

    unshare --map-root-user --mount python -m tests.remote.small_parcels FOLDER

Says as JSON what was there after each step, and what was answered.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from scitq.remote import local
from tests.fetch.web import wait_for
from tests.remote.client import Driver
from tests.remote.test_parcels import announce, entry, order, piece, rows_of, sha

DISK_MB = 34


def main(folder: Path) -> dict[str, Any]:
    """Send more than there is room for."""
    root = folder / "worker"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=700", "none", root], check=True)
    local.ensure(root)
    driver = Driver(root)
    driver.say({"slots": 2})
    found: dict[str, Any] = {"here": [], "answers": []}
    names = {}

    def send(execution: int, size_mb: int) -> dict[str, Any]:
        data = os.urandom(size_mb << 20)
        names[sha(data)] = execution
        order(driver, execution, "wc -c < $INPUT/f", input=[entry(execution, "/home/me/f")])
        driver.seen("stage", execution)
        announce(driver, f"{execution}.0", "f", rows_of({"f": data}))
        found["answers"].append(piece(driver, data).status)
        line = driver.exit_of(execution)
        wait_for(lambda: not os.listdir(root / "stage") and not os.listdir(root / "trash"))
        wait_for(lambda: not os.listdir(root / "parcels" / "of"))
        found["here"].append(sorted(names[name[:64]] for name in os.listdir(root / "blobs")))
        return line

    found["said"] = [send(1, 8)["o"], send(2, 8)["o"], send(3, 12)["o"], send(4, 8)["o"]]
    line = send(5, 33)
    found["refused"] = [line["why"], line["error"]]
    driver.close()
    local.stop(root)
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
