"""A worker on a small disk: run in a mount namespace of its own.

    unshare --map-root-user --mount python -m tests.remote.small FOLDER

Says as JSON what was in the cache, and what tasks said, after each step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from scitq.remote import local
from tests.fetch.web import WebServer, wait_for
from tests.remote.client import Driver

DISK_MB = 32
SIZES = {"/a": 6, "/b": 6, "/c": 6, "/d": 12, "/e": 14, "/f": 28}


def cached(root: Path) -> str:
    """The names of the resources that are there."""
    return " ".join(sorted(path.name for path in root.glob("cache/*.*/data/*")))


def is_idle(root: Path, still: int) -> bool:
    return len(os.listdir(root / "stage")) == still and not os.listdir(root / "trash")


def main(folder: Path) -> dict[str, Any]:
    """Fill the disk with resources, and ask for more."""
    root = folder / "worker"
    root.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=700", "none", root], check=True)
    web = WebServer()
    for path, size in SIZES.items():
        web.add(path, os.urandom(size << 20))
    local.ensure(root)
    driver = Driver(root)
    driver.say({"slots": 2})
    found: dict[str, Any] = {"cached": []}
    gate, on = folder / "gate", folder / "on"

    def use(execution: int, path: str, script: str = "true") -> dict[str, Any]:
        line = driver.script(execution, script, resource=[f"{web.url}{path}"])
        wait_for(lambda: is_idle(root, int(on.exists())))
        found["cached"].append(cached(root))
        return line

    use(1, "/a")
    use(2, "/b")
    driver.say({"order": 3, "resource": [f"{web.url}/c"],
                "script": f"touch {on}; while [ ! -e {gate} ]; do sleep 0.02; done; cat $RESOURCE/c | wc -c"})  # fmt: skip
    wait_for(on.exists)
    use(4, "/a")
    use(5, "/d")  # the least recently used goes: b
    use(6, "/e")  # all go that no task has
    found["too much"] = use(7, "/f")  # nothing goes: all of it would not be enough
    # A source that does not say how much it is: the disk fills up, then there is room.
    web.add("/g", web.pages["/e"].data, says_length=False)
    found["unknown"] = use(8, "/g", "cat $RESOURCE/g | wc -c")
    # What a failed task left goes when nothing else is left to go.
    driver.script(9, "head -c 10000000 /dev/zero > $TEMP/x; echo said; echo left > $OUTPUT/x; exit 1")
    web.add("/h", web.pages["/e"].data)
    found["after failure"] = use(10, "/h")
    found["left"] = sorted(path.name for path in (root / "exec" / "9").iterdir())
    gate.touch()
    found["had it all the time"] = driver.exit_of(3)
    driver.close()
    local.stop(root)
    web.close()
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
