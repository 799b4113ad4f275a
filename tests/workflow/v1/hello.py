#!/usr/bin/env python3
"""Hello world, grown up: greet people, sign each greeting, post it, and bind all of them into one letter.

Needs workers that were started by hand:   scitq-worker -f local my-server 4

    python hello.py file:///tmp/hello
"""

import argparse
import os

from scitq.workflow import Workflow

PEOPLE = {"ada": "Ada", "grace": "Grace Hopper", "emilie": "Émilie", "zoe": "Zoë"}

parser = argparse.ArgumentParser(description="Greet everybody")
parser.add_argument("output", help="URI of the folder where the letters go")
parser.add_argument("--server", default=os.environ.get("SCITQ_SERVER", "127.0.0.1"))
parser.add_argument("--post", default="/tmp/post-office", help="a file that the post office makes when it opens")
args = parser.parse_args()

wf = Workflow(name="hello", server=args.server, shell=True, flavor="local", max_step_workers=2)

for id, name in PEOPLE.items():
    greeting = wf.step(
        batch="greet",
        name=f"greet {name}",
        command=f'echo "Hello, {name}!" > $OUTPUT/{id}.txt && echo "greeted {name}"',
        output=f"{args.output}/greet/{id}",
        concurrency=4,
        prefetch=2,
    )

    signed = wf.step(
        batch="sign",
        name=f"sign {name}",
        command=f'(cat $INPUT/{id}.txt; echo "    -- scitq, with $(cat $INPUT/{id}.txt | wc -w) words") > $OUTPUT/{id}.txt',
        input=greeting.output,
        output=f"{args.output}/sign/{id}",
        required_tasks=greeting,
        concurrency=2,
    )

    # The post office opens when the first one has knocked in vain.
    posted = wf.step(
        batch="post",
        command=f'test -e {args.post} || {{ touch {args.post}; echo "still closed" >&2; exit 7; }}; '
        f"gzip -nc < $INPUT/{id}.txt > $OUTPUT/{id}.txt.gz",
        input=signed.output,
        output=f"{args.output}/post/{id}",
        required_tasks=signed,
        retry=2,
        concurrency=1,
    )

letter = wf.step(
    batch="letter",
    name="one letter",
    command='for part in $INPUT/*.gz; do zcat $part; done | tee $OUTPUT/letter.txt; echo "bound" >&2',
    input=posted.gather("output"),
    output=f"{args.output}/letter",
    required_tasks=posted.gather("step"),
    concurrency=1,
)

print("Last step declared:", wf.previous_step.name)
wf.run(refresh=10)

print(letter.get_output())
print("On the side:", letter.get_error())
print("Greetings:", len(list(wf.server.tasks(batch="hello.greet"))))
for step in posted.gather("step"):
    step.refresh()
    print(step.name, step.status)
