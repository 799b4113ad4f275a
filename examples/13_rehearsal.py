"""Renting machines, rehearsed: a make-believe cloud sells flavors at a price, runs out of them, and sends a bill.

    python 13_rehearsal.py

Nothing is paid: its machines are processes of this one, but all else is as with a real cloud. With another provider= the same
workflow would rent machines that cost money; `scitq provider list` says which you have.
"""

import os
import time
from pathlib import Path

import scitq
from scitq import providing
from scitq.remote.providers.fake import Cloud
from scitq.workflow import Workflow

# Settings of this folder's own; yours stay as they are.
settings = Path("rehearsal.toml").absolute()
settings.unlink(missing_ok=True)
os.environ["SCITQ_CONFIG"] = str(settings)
providing.provider_add("rehearsal", "fake", boot_s=0.5, quotas={"cores": 4})

with scitq.open("rehearsal.scitq") as q:
    cloud = Cloud(q.side / "clouds" / "rehearsal")
    cloud.fail("create", "stock", region="north")  # the cheapest has gone when it is asked for: the next one is taken

    wanted = "auto:cpu>=2:ram>=4"
    with Workflow("rehearsed", engine=q, provider="rehearsal", flavor=wanted, max_workflow_workers=2, fresh=True) as wf:
        for n in range(6):
            wf.step("part", f"sleep 0.5; echo {n} > $OUTPUT/{n}", shell=True, name=str(n), concurrency=2)
        whole = wf.step("whole", r"cat $INPUT/* | tr '\n' ' '", shell=True, input=wf["part"].gather("output"))
    print(whole.result().stdout)

    for machine in q.rentals():
        print(f"rented: {machine.flavor} in {machine.region}, {machine.price} {machine.currency} an hour")
        q.worker_delete(q.worker(machine.worker).name)  # by itself it would go after five minutes without work
    while q.rentals():
        time.sleep(0.1)

print("machines left:", len(cloud.machines()))
for bill in cloud.ledger():
    print(f"{bill.machine}: {bill.seconds} s, {bill.amount:.4f} {bill.currency}")
