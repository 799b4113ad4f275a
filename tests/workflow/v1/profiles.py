#!/usr/bin/env python3
"""Profile each sample of a folder, then merge the profiles into one table.

python profiles.py s3://lab/reads s3://lab/profiler.tgz s3://lab/out --workers 3 --provider ovh --region GRA11
python profiles.py s3://lab/reads s3://lab/profiler.tgz s3://lab/out --workers 0        (workers started by hand)
"""

import argparse
import os
from collections import defaultdict

from scitq.fetch import list_content, sync
from scitq.lib import Server

parser = argparse.ArgumentParser()
parser.add_argument("reads", help="URI with the reads, one folder per sample")
parser.add_argument("profiler", help="URI of the archive with the program and its table")
parser.add_argument("output", help="URI of the folder for what comes out")
parser.add_argument("--local", default="merged", help="where the merged table is brought")
parser.add_argument("--batch", default="profiles")
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--provider", default="auto")
parser.add_argument("--region", default="auto")
parser.add_argument("--flavor", default="auto:cpu>=8:ram>=30")
parser.add_argument("--concurrency", type=int, default=2)
parser.add_argument("--container", help="run in this image")
parser.add_argument("--server", default=os.environ.get("SCITQ_SERVER", "127.0.0.1"))
args = parser.parse_args()

s = Server(args.server, style="object")

samples = defaultdict(list)
for entry in list_content(args.reads):
    if entry.name.endswith((".fq.gz", ".fastq.gz")):
        samples[entry.name.split("/")[-2]].append(entry.name)

INPUT, OUTPUT, RESOURCE = ("/input", "/output", "/resource") if args.container else ("$INPUT", "$OUTPUT", "$RESOURCE")
more = {"container": args.container, "container_options": "--entrypoint=''"} if args.container else {}

tasks = []
for sample, files in sorted(samples.items()):
    tasks.append(
        s.task_create(
            command=f"sh -c 'zcat {INPUT}/*.gz | sh {RESOURCE}/profiler/profile.sh {sample} $CPU > {OUTPUT}/{sample}.profile'",
            name=f"profile {sample}",
            batch=args.batch,
            input=" ".join(files),
            resource=f"{args.profiler}|untar",
            output=f"{args.output}/profiles/{sample}/",
            use_cache=True,
            **more,
        )
    )
print(f"{len(tasks)} tasks created, the first is {tasks[0].task_id}")

if args.workers > 0:
    s.worker_deploy(
        number=args.workers,
        batch=args.batch,
        region=args.region,
        provider=args.provider,
        flavor=args.flavor,
        concurrency=args.concurrency,
        prefetch=1,
    )

s.join(tasks, retry=2)
for task in tasks:
    now = s.task_get(task.task_id)
    print(now.name, now.status)

# One task over everything: the slash at the end takes the whole folder, as deep as it goes.
merge = s.task_create(
    command=f"sh -c 'cat {INPUT}/*/*.profile | sort > {OUTPUT}/merged.tsv; wc -l < {OUTPUT}/merged.tsv'",
    name="merge",
    batch=args.batch + "-merge",
    input=f"{args.output}/profiles/",
    output=f"{args.output}/merged/",
    **more,
)
counts = s.join([merge], retry=5, check=True)
print("join says", counts)

sync(f"{args.output}/merged/", args.local)
with open(os.path.join(args.local, "merged.tsv")) as table:
    print(table.read(), end="")
