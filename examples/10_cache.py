"""Not the same thing twice: what has succeeded before, on the same data, is taken instead of run.

Run it twice: the second time nothing is executed. Then change a file in reads/ and run it again: only that sample is.
"""

import pathlib

import scitq

reads = pathlib.Path("reads")
if not reads.exists():
    reads.mkdir()
    for name, bases in [("s1", "ACGTACGT"), ("s2", "GGGGCCCC"), ("s3", "ATATATAT")]:
        (reads / f"{name}.txt").write_text(bases + "\n")

with scitq.open("cache.scitq", use_cache=True) as q:
    counts = [
        q.submit("fold -w1 $INPUT/* | sort | uniq -c > $OUTPUT/counts", shell=True, input=path, name=path.stem)
        for path in sorted(reads.iterdir())
    ]
    total = q.submit(
        "cat $INPUT/*/counts | awk '{ n[$2] += $1 } END { for (base in n) print base, n[base] }' | sort",
        shell=True, name="total", input=[count.output.with_action(f"mv:{n}") for n, count in enumerate(counts)],
    )  # fmt: skip
    print(total.result().stdout, end="")
    for task in [*counts, total]:
        print(task.why())
