#!/usr/bin/env python3
"""A tour of scitq.lib: dictionaries and objects, recruiters, stop and go, late edits, executions and what they printed.

python styles.py file:///tmp/styles
"""

import os
import sys

from scitq.lib import Server

BATCH = "letters"
base = sys.argv[1]
address = os.environ.get("SCITQ_SERVER", "127.0.0.1")

server = Server(address)
objects = Server(address, style="object", asynchronous=False, put_timeout=10, get_timeout=20)

# Who serves the batch: any free worker of flavor local, two tasks at a time.
server.recruiter_create(
    batch=BATCH, rank=1, tasks_per_worker=4, flavor="local", concurrency=2, prefetch=1, maximum_workers=1
)
server.recruiter_update(batch=BATCH, rank=1, tasks_per_worker=2)
print("recruiters:", [(r["batch"], r["rank"], r["tasks_per_worker"]) for r in server.recruiters(batch=BATCH)])

# Nothing starts before we say so; that leaves time to change our minds.
server.batch_stop(BATCH)
tasks = []
for letter in "abc":
    tasks.append(
        server.task_create(
            command=f"sh -c 'echo {letter}{letter}{letter} > $OUTPUT/{letter}.txt; echo made {letter}; echo really >&2'",
            name=f"make {letter}",
            batch=BATCH,
            output=f"{base}/{letter}/",
            run_timeout=600,
            download_timeout=600,
            use_cache=True,
        )
    )
print("stopped:", sorted(task["status"] for task in server.tasks(batch=BATCH)))
server.task_update(tasks[1]["task_id"], command="sh -c 'echo bbbb > $OUTPUT/b.txt; echo made b again; echo really >&2'")

total = objects.task_create(
    command="cat $INPUT/*.txt | sort -r > $OUTPUT/total.txt && echo $(cat $OUTPUT/total.txt | wc -c) bytes",
    shell=True,
    name="total",
    batch=BATCH,
    input=" ".join(task["output"] for task in tasks),
    output=f"{base}/total/",
    required_task_ids=[task["task_id"] for task in tasks],
    retry=1,
)
print("total is", objects.task_get(total.task_id).status)

server.batch_go(BATCH)
print("joined:", server.join(tasks, retry=1))
print("joined:", objects.join([total], retry=1, check=True))

for task in tasks:
    (execution,) = server.executions(task_id=task["task_id"], latest=True)
    said = server.execution_output(execution["execution_id"], output=True, error=True)
    print(task["name"], execution["status"], execution["return_code"], repr(said["output"]), repr(said["error"]))
    print(
        "  from the 6th character:",
        repr(server.execution_output(execution["execution_id"], output_position=6)["output"]),
    )

for execution in objects.executions(task_name="total", status="succeeded"):
    print("total printed", objects.execution_get(execution.execution_id).output.strip())

for worker in objects.workers():
    print("worker", worker.status, worker.concurrency >= 1, worker.flavor)
    objects.worker_update(worker.worker_id, prefetch=3)
    print("prefetch is", objects.worker_get(worker.worker_id).prefetch)

# Once more: what succeeded is pending again, and joins as before.
server.task_update(tasks[0]["task_id"], status="pending", command="sh -c 'echo aaaaa > $OUTPUT/a.txt'")
server.join([tasks[0]], retry=0, check=True)
print("executions of the first:", len(server.executions(task_id=tasks[0]["task_id"])))

try:
    broken = objects.task_create(command="false", name="broken", batch=BATCH)
    objects.join([broken], retry=1, check=True)
except RuntimeError:
    print("broken, after", len(list(objects.executions(task_id=broken.task_id))), "tries")

objects.task_delete(broken.task_id)
server.recruiter_delete(BATCH, 1)
print("left:", len(server.tasks(batch=BATCH)), "tasks,", len(server.recruiters(batch=BATCH)), "recruiters")
server.batch_delete(BATCH)
print("left:", len(server.tasks(batch=BATCH)), "tasks")
