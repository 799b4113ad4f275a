"""executorlib with two standing workers; each call runs the command and reads what it wrote."""

from __future__ import annotations

import json
import sys

from executorlib import SingleNodeExecutor

from benchmarks.contestants import SLOTS, Stopwatch, paced


def noop() -> int:
    """One command, with what it wrote."""
    import subprocess

    return subprocess.run(["sh", "-c", ":"], capture_output=True).returncode


def same(value: int) -> int:
    """A trivial function."""
    return abs(value)


def main(what: str, size: int) -> dict[str, float]:
    with SingleNodeExecutor(max_workers=SLOTS, block_allocation=True) as pool:
        for future in [pool.submit(noop) for _ in range(20)]:
            future.result()
        if what == "latency":
            return paced(lambda: pool.submit(noop).result(), size)
        watch = Stopwatch()
        is_call = what == "functions"
        futures = [pool.submit(same, n) if is_call else pool.submit(noop) for n in range(size)]
        for future in futures:
            future.result()
        return watch.outcome(size)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
