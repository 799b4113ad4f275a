"""A workflow that grows while it runs: how many parts there are is known only when they have been made.

    python 06_dynamic.py [--lines 2]

Kill it anywhere and run it again: it goes on from there.
"""

import argparse

import scitq
from scitq.path import URI
from scitq.workflow import Workflow

TEXTS = {
    "whale": ["call me ishmael", "some years ago", "never mind how long precisely", "having little money", "i thought i would sail"],
    "gale": ["stately plump buck mulligan", "came from the stairhead", "bearing a bowl of lather"],
}  # fmt: skip

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--lines", type=int, default=2, help="lines of each part")
given = parser.parse_args()

with Workflow("dynamic", file="dynamic.scitq", shell=True) as wf:
    for name, lines in TEXTS.items():
        wf.step(
            "cut", f"printf '%s\\n' {' '.join(map(repr, lines))} | split -l {given.lines} - $OUTPUT/{name}-", name=name
        )

    def count(cut: scitq.Task, files: list[URI]) -> None:
        """Called for each text as soon as it has been cut: a task for each part that this left."""
        for part in files:
            wf.step("count", "cat $INPUT/* | wc -w > $OUTPUT/words", name=f"count {part.name}", input=part)

    wf["cut"].each(count)

wf.run()

# Or by hand: wait for what is there, look at it, go on. Parts came in any order, so they are put in one: otherwise the
# total would be another task each time.
parts = sorted(wf["count"].tasks, key=lambda part: part.name)
many = [part for part in parts if int((part.output / "words").read_text()) > 5]
total = wf.step("total", "cat $INPUT/*/words | awk '{ n += $1 } END { print n }'", name="total",
                input=[part.output.with_action(f"mv:{n}") for n, part in enumerate(many)])  # fmt: skip
wf.run()
print(len(parts), "parts,", len(many), "of them long, with", total.stdout().strip(), "words")
