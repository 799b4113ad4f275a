"""HyperQueue: the wheel's local cluster, one worker of two cores, each task's output in files as is its default."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

from benchmarks.contestants import NOOP, SLOTS, Stopwatch, paced


def main(what: str, size: int) -> dict[str, float]:
    os.mkdir("out")
    with LocalCluster() as cluster:
        cluster.start_worker(WorkerConfig(cores=SLOTS))
        client = cluster.client()

        def submit(count: int, mark: str) -> None:
            """The client's own wait looks once a second, so the end is a last task whose file is watched for."""
            job = Job(default_workdir=Path("out").absolute())
            tasks = [job.program(NOOP) for _ in range(count)]
            job.program(["touch", os.path.abspath(mark)], deps=tasks)
            client.submit(job)
            while not os.path.exists(mark):
                time.sleep(0.001)

        submit(20, "warm")
        if what == "latency":
            names = iter(range(1 << 30))
            return paced(lambda: submit(0, f"mark{next(names)}"), size)
        watch = Stopwatch()
        submit(size, "done")
        return watch.outcome(size)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]))))
    sys.stdout.flush()
    os._exit(0)  # its threads need seconds to end
