"""Another machine works: a host of your SSH configuration becomes a worker, reads a file of this machine, sends its output back.

    python 12_ssh_worker.py atlas

It needs sshd and Python 3.10 there; no root rights, no internet, nothing to install. What is brought there is deleted at the end.
"""

import argparse
import pathlib
import time

import scitq

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("host", help="as you would type it after ssh")
given = parser.parse_args()

reads = pathlib.Path("reads.txt")
reads.write_text("ACGT\nTTTT\nACGT\n")

with scitq.open("far.scitq") as q:
    # Its tasks stay its own while it is silent, for ten minutes of the time in which this machine is awake.
    worker = q.worker_add(given.host, concurrency=2, batch="far", lost_after=600)
    worker = q.worker_ready(worker.name, timeout=120)
    print(q.jobs(worker.name)[0].log, end="")

    # A plain path is this machine's: it is sent there once, and what a task leaves comes back.
    count = q.submit(
        "sort $INPUT/reads.txt | uniq -c > $OUTPUT/counts.txt", shell=True, name="count", batch="far", input=reads
    )
    # What another task left on the same worker is read there, and not sent again.
    most = q.submit(
        "sort -rn $INPUT/counts.txt | head -n 1; uname -n", shell=True, name="most", batch="far", input=count.output
    )
    print(most.result(timeout=120).stdout, end="")
    print(pathlib.Path(count.output, "counts.txt").read_text(), end="")

    job = q.worker_delete(worker.name)  # its agent ends, and its folder goes
    while q.job(job.id).ended_ms is None:
        time.sleep(0.1)
    print(f"{worker.name}: {q.job(job.id).state.word}")
