"""Commands in containers: each step brings its own tools, and nothing of them is installed here.

    python 11_containers.py [--image alpine:3.20]

It takes docker, podman or apptainer on this machine. In the container the task's places have fixed names: /input, /output,
/temp, and /resource, which can only be read; $INPUT and the others name them, too.
"""

import argparse
import pathlib

import scitq

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--image", default="alpine:3.20", help="an image with a shell, sort and uniq")
given = parser.parse_args()

reads = pathlib.Path("reads.txt")
reads.write_text("ACGT\nACGT\nTTTT\n")

with scitq.open("containers.scitq") as q:
    count = q.submit(
        "sort /input/reads.txt | uniq -c | tee /output/counts.txt", shell=True, name="count", input=reads,
        container=given.image,
        container_options="--network none",  # words for the engine, as you would type them: --gpus all, -v /data:/data:ro
        # Twice the memory for a second try if it runs out of it; another try, too, when it takes too long.
        cpus=1, memory="64M", retry={"out_of_memory": 1, "timed_out": 1}, retry_memory=2.0, run_timeout=60,
    )  # fmt: skip
    largest = q.submit("head -n 1 /input/counts.txt", name="largest", container=given.image, input=count.output)

    print(count.result().stdout, end="")
    print("the most frequent:", largest.result().stdout.strip())
    # What ran: the image's digest (its id, for one that was built here). Later tries run the same bits, whatever the tag says.
    print(count.executions[0].image)
