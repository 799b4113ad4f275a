"""Quality control of sequencing reads: trim, take out what is the host's, take equally many of each sample, count.

    python 05_qc.py [--results qc-results] [--depth 100]

The reads are the few thousand that come with scitq, of one lane, cut into four samples; a piece of their reference plays the host.
Run it again: nothing is done twice. Run it with another --depth: only what follows from that is done. It takes fastp, bowtie2,
samtools and seqtk, of this machine (Debian and Ubuntu: sudo apt install fastp bowtie2 samtools seqtk), or from the
images below when this machine's container engine has them.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import scitq
from scitq.workflow import Workflow, WorkflowFailed

IMAGES = {
    "fastp": "staphb/fastp:0.23.4",
    "bowtie2": "staphb/bowtie2:2.5.1",
    "samtools": "staphb/samtools:1.17",
    "seqtk": "staphb/seqtk:1.3",
}
SAMPLES = {"s1": (1, 25), "s2": (26, 50), "s3": (51, 75), "s4": (76, 100)}  # from tile to tile of the lane
DATA = Path(scitq.__file__).parent / "demo" / "data"


def images_are_here() -> bool:
    """Whether a container engine of this machine has all of the images: none is pulled."""
    return any(
        shutil.which(engine)
        and subprocess.run([engine, "image", "inspect", *IMAGES.values()], capture_output=True, check=False).returncode
        == 0
        for engine in ("docker", "podman")
    )


parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--results", default="qc-results", help="a folder, or s3://bucket/folder")
parser.add_argument("--depth", type=int, default=100, help="pairs to keep of each sample")
parser.add_argument("--options", default="", help="for the container engine, if there is one with the images")
given = parser.parse_args()

contained = images_are_here()
missing = [program for program in IMAGES if not shutil.which(program)]
if missing and not contained:
    sys.exit(
        f"05_qc.py needs {', '.join(missing)}: sudo apt install {' '.join(missing)} (or pull {', '.join(IMAGES.values())})."
    )
image = IMAGES if contained else dict.fromkeys(IMAGES)

wf = Workflow(
    "qc",
    file="qc.scitq",
    shell=True,
    retry=1,
    base_storage=given.results,
    container_options=given.options if contained else "",
)
host = wf.step(
    "host", "zcat $INPUT/* | head -n 8 > $TEMP/host.fa && bowtie2-build -q $TEMP/host.fa $OUTPUT/host",
    input=DATA / "reference_1K.fa.gz", container=image["bowtie2"],
)  # fmt: skip
for sample, (first, last) in SAMPLES.items():
    fetched = wf.step(
        "fetch",
        f"for m in 1 2; do zcat $INPUT/ecoli_1K_$m.fq.gz | paste - - - - | awk -F_ '$4 >= {first} && $4 <= {last}' "
        f"| tr '\\t' '\\n' | gzip -n > $OUTPUT/{sample}_$m.fastq.gz; done",
        name=f"fetch {sample}", input=[DATA / "ecoli_1K_1.fq.gz", DATA / "ecoli_1K_2.fq.gz"],
    )  # fmt: skip
    trimmed = wf.step(
        "fastp",
        f"cd $INPUT && fastp -i {sample}_1.fastq.gz -I {sample}_2.fastq.gz -o $OUTPUT/{sample}_1.fastq.gz "
        f"-O $OUTPUT/{sample}_2.fastq.gz --cut_tail --length_required 50 --thread $CPU "
        f"--json $OUTPUT/{sample}.json --html $OUTPUT/{sample}.html",
        name=f"fastp {sample}", input=fetched.output, rel_output=f"fastp/{sample}", container=image["fastp"],
        concurrency=2,
    )  # fmt: skip
    aligned = wf.step(
        "align",
        f"bowtie2 -p $CPU --reorder -x $RESOURCE/host -1 $INPUT/{sample}_1.fastq.gz -2 $INPUT/{sample}_2.fastq.gz "
        f"-S $OUTPUT/{sample}.sam",
        name=f"align {sample}", input=trimmed.output, resource=host.output, container=image["bowtie2"], concurrency=1,
    )  # fmt: skip
    # Both mates of a pair must be strangers to the host (-f 12).
    hostless = wf.step(
        "hostless",
        f"samtools fastq -n -f 12 -F 256 -1 $OUTPUT/{sample}_1.fastq.gz -2 $OUTPUT/{sample}_2.fastq.gz "
        f"-0 /dev/null -s /dev/null $INPUT/{sample}.sam",
        name=f"hostless {sample}", input=aligned.output, container=image["samtools"],
    )  # fmt: skip
    subsampled = wf.step(
        "subsample",
        f"for m in 1 2; do seqtk sample -s42 $INPUT/{sample}_$m.fastq.gz {given.depth} | gzip -n "
        f"> $OUTPUT/{sample}_$m.fastq.gz; done",
        name=f"subsample {sample}", input=hostless.output, rel_output=f"reads/{sample}", container=image["seqtk"],
    )  # fmt: skip
stats = wf.step(
    "stats",
    "cd $INPUT; printf 'sample\\tfetched\\ttrimmed\\thostless\\tkept\\tbases\\n' > $OUTPUT/stats.tsv\n"
    "for kept in kept/*_1.fastq.gz; do s=$(basename $kept _1.fastq.gz); printf $s\n"
    "for step in fetched trimmed hostless kept; do printf '\\t%d' $(($(zcat $step/${s}_1.fastq.gz | wc -l) / 4)); done\n"
    "printf '\\t%d\\n' $(zcat kept/${s}_*.fastq.gz | paste - - - - | cut -f 2 | tr -d '\\n' | wc -c)\n"
    "done >> $OUTPUT/stats.tsv; cat $OUTPUT/stats.tsv",
    name="stats", rel_output="stats",
    # The outputs of all samples, those of each step in a folder of their own.
    input=[
        *wf["fetch"].gather("output|mv:fetched"), *wf["fastp"].gather("output|mv:trimmed"),
        *wf["hostless"].gather("output|mv:hostless"), *wf["subsample"].gather("output|mv:kept"),
    ],
)  # fmt: skip

print(wf.plan())
try:
    wf.run()
except WorkflowFailed as failure:
    sys.exit(str(failure))
print(stats.stdout())
print(
    f"Run {'in containers' if contained else 'with the programs of this machine'}; reads and statistics are in {given.results}."
)
