#!/usr/bin/env python3
"""Quality control of paired reads: trim them, take the host's out, take equally many of each sample, and count.

The reads are in one folder per sample:   <reads>/<sample>/<sample>_1.fastq.gz and _2.fastq.gz
The host is a bowtie2 index named `host`, in an archive.

    python qc.py s3://lab/raw s3://lab/host.tgz s3://lab/qc --docker
"""

import argparse
from collections import defaultdict

from scitq import fetch
from scitq.workflow import Workflow

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("reads", help="URI of the raw reads")
parser.add_argument("host", help="URI of the host's index (.tgz)")
parser.add_argument("output", help="URI of the folder for the results")
parser.add_argument("--depth", type=int, default=100, help="pairs to keep of each sample")
parser.add_argument("--docker", action="store_true", help="run in containers")
args = parser.parse_args()

CONTAINERS = {
    "fastp": "staphb/fastp:0.23.4",
    "bowtie2": "staphb/bowtie2:2.5.1",
    "seqtk": "staphb/seqtk:1.3",
    "stats": "ubuntu:22.04",
}
if args.docker:
    IN, OUT, RESOURCE = "/input", "/output", "/resource"
else:
    CONTAINERS = dict.fromkeys(CONTAINERS)
    IN, OUT, RESOURCE = "$INPUT", "$OUTPUT", "$RESOURCE"

samples = defaultdict(list)
for file in fetch.list_content(args.reads):
    if file.rel_name.endswith(".fastq.gz"):
        samples[file.rel_name.split("/")[0]].append(file.name)
print(f"{len(samples)} samples: {', '.join(sorted(samples))}")

wf = Workflow(
    "qc",
    shell=True,
    provider=None,
    flavor="local",
    retry=1,
    max_step_workers=2,
    prefetch=1,
    base_storage=args.output,
)

for sample, files in sorted(samples.items()):
    trimmed = wf.step(
        batch="fastp",
        name=f"fastp:{sample}",
        container=CONTAINERS["fastp"],
        command=f"mkdir {OUT}/report && fastp --in1 {IN}/{sample}_1.fastq.gz --in2 {IN}/{sample}_2.fastq.gz "
        f"--out1 {OUT}/{sample}_1.fastq.gz --out2 {OUT}/{sample}_2.fastq.gz --length_required 50 --cut_tail "
        f"--json {OUT}/report/{sample}.json --html {OUT}/report/{sample}.html --thread $CPU",
        input=files,
        rel_output=f"{sample}/fastp",
        concurrency=2,
    )
    hostless = wf.step(
        batch="hostfilter",
        name=f"hostfilter:{sample}",
        container=CONTAINERS["bowtie2"],
        command=f"bowtie2 -p $CPU --reorder -x {RESOURCE}/host -1 {IN}/{sample}_1.fastq.gz -2 {IN}/{sample}_2.fastq.gz "
        f"| samtools fastq -n -f 12 -F 256 -1 {OUT}/{sample}_1.fastq.gz -2 {OUT}/{sample}_2.fastq.gz "
        "-0 /dev/null -s /dev/null -",
        input=trimmed.output,
        resource=f"{args.host}|untar",
        required_tasks=trimmed,
        rel_output=f"{sample}/hostfilter",
        concurrency=1,
        tasks_per_worker=4,
    )
    subsampled = wf.step(
        batch="seqtk",
        name=f"seqtk:{sample}",
        container=CONTAINERS["seqtk"],
        command=f"for r in 1 2; do seqtk sample -s42 {IN}/{sample}_$r.fastq.gz {args.depth} | gzip -n "
        f"> {OUT}/{sample}_$r.fastq.gz; done",
        input=hostless.output,
        required_tasks=hostless,
        rel_output=f"{sample}/seqtk",
        concurrency=2,
    )

stats = wf.step(
    batch="stats",
    name="stats",
    container=CONTAINERS["stats"],
    command=f"for f in {IN}/*_1.fastq.gz; do s=$(basename $f _1.fastq.gz); "
    f'echo $s $(($(zcat $f | wc -l) / 4)) $(zcat {IN}/$s*.fastq.gz | paste - - - - | cut -f 2 | tr -d "\\n" | wc -c) '
    f'$(grep -c "mean_length" {IN}/report/$s.json); done > {OUT}/stats.txt; cat {OUT}/stats.txt',
    input=subsampled.gather("output") + trimmed.gather("output/report|mv:report"),
    required_tasks=subsampled.gather("step"),
    rel_output="stats",
    concurrency=1,
)

wf.run()
print(stats.get_output())
wf.download(uri_list=[stats.output], destination="stats")
wf.clean()
