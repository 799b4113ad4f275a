"""huey on SQLite with two worker processes; results are stored. Its consumer is this file again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

from huey import SqliteHuey

from benchmarks.contestants import NOOP, SLOTS, Stopwatch, paced

huey = SqliteHuey(filename=os.environ.get("HUEY_FILE", "huey.db"))


@huey.task()
def noop() -> list[object]:
    """One command, with what it wrote."""
    ended = subprocess.run(NOOP, capture_output=True)
    return [ended.returncode, ended.stdout, ended.stderr]


def main(what: str, size: int) -> dict[str, float]:
    consumer = subprocess.Popen(
        [sys.executable, __file__, "consume"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        noop().get(blocking=True, timeout=60)
        if what == "latency":
            return paced(lambda: noop().get(blocking=True, timeout=60, backoff=1.0, max_delay=0.001), size)
        watch = Stopwatch()
        for _ in range(size):
            noop()
        while huey.result_count() < size:
            time.sleep(0.01)
        return watch.outcome(size)
    finally:
        consumer.terminate()
        consumer.wait()


if __name__ == "__main__":
    if sys.argv[1] == "consume":
        # As a worker it must be known under the name by which tasks are queued.
        sys.modules["__main__"].__spec__ = None  # type: ignore[assignment]
        huey.create_consumer(workers=SLOTS, worker_type="process", initial_delay=0.01).run()
    else:
        print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
