#!/usr/bin/env python3
"""Books are cut into words and lines, counted by a Python function, and put together again in three ways.

python grown.py file:///tmp/library pride dracula        (reads books/pride.txt, books/dracula.txt of the library)
"""

import argparse
import glob
import os

from scitq.path import URI
from scitq.workflow import Workflow, remote, shell_code


@remote
def count(longer_than, label, factor=1.0):
    """How many words are longer than this? What is returned is printed."""
    found = 0
    for path in glob.glob(os.path.join(os.environ["INPUT"], "**", "*.words"), recursive=True):
        with open(path) as words:
            found += sum(len(word.strip()) > longer_than for word in words)
    with open(os.path.join(os.environ["OUTPUT"], "count.txt"), "w") as out:
        out.write(f"{label} {found} {found * factor}\n")
    return f"{label}: {found} long words"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library", help="URI where books/ is and where results go")
    parser.add_argument("books", nargs="+")
    parser.add_argument("--long", type=int, default=6)
    args = parser.parse_args()

    wf = Workflow(
        "grown",
        max_step_workers=2,
        provider=None,
        region="auto",
        flavor="local",
        shell="bash",
        max_workflow_workers=4,
        retry=1,
        rounds=2,
        prefetch=1,
        download_timeout=600,
        run_timeout=600,
        use_cache=True,
        base_storage=URI(args.library),
    )

    counts = []
    for book in args.books:
        cut = wf.step(
            batch="cut",
            name=f"cut-{book}",
            command=shell_code(
                f"""
                # Quotes of all kinds are fine in here.
                set -e
                mkdir "$OUTPUT/words" "$OUTPUT/lines"
                tr -cs 'A-Za-z' '\\n' < "$INPUT/{book}.txt" | awk 'NF {{ print tolower($1) }}' > "$OUTPUT/words/{book}.words"
                awk '{{ print "{book}", NR, length($0) }}' "$INPUT/{book}.txt" > "$OUTPUT/lines/{book}.lines"
                echo "cut {book}"
                """
            ),
            rel_input=f"books/{book}.txt",
            rel_output=f"cut/{book}",
            concurrency=2,
            rounds=3,
        )
        counts.append(
            wf.step(
                batch="count",
                name=f"count-{book}",
                command=count,
                args={"longer_than": args.long, "label": book, "factor": 0.5},
                input=f"{cut.output}words/",
                required_tasks=cut.task_id,
                rel_output=f"count/{book}",
                concurrency=1,
                tasks_per_worker=4,
            )
        )

    # Each sub-folder of words keeps its place; the lines come as they are.
    frequent = wf.step(
        batch="frequent",
        command="sort $INPUT/words/*.words | uniq -c | sort -k1,1nr -k2 | head -n 5 | tee $OUTPUT/frequent.txt",
        input=cut.gather("output/words|mv:words"),
        required_tasks=cut.gather("step"),
        rel_output="frequent",
        concurrency=1,
    )
    longest = wf.step(
        batch="longest",
        command="sort -k3,3nr -k1,1 -k2,2n $INPUT/*.lines | head -n 1 > $OUTPUT/longest.txt; echo $PIPESTATUS",
        input=cut.gather("output/lines"),
        required_tasks=cut.gather("step"),
        rel_output="longest",
        concurrency=1,
        retry=None,
    )
    final = wf.step(
        batch="final",
        name="final",
        command="cat $INPUT/frequent.txt $INPUT/longest.txt > $OUTPUT/final.txt && wc -l < $OUTPUT/final.txt",
        input=[frequent.output, longest.output],
        required_tasks=[frequent.task_id, longest] + [step.task_id for step in counts],
        output=URI(args.library) / "final",
        concurrency=1,
    )
    wf.run()

    for step in counts:
        print(step.get_output().strip())
    print("frequent:", frequent.name, frequent.get_output().split()[:4])
    print("final lines:", final.get_output().strip())
    wf.download(destination="all")
    frequent.download("only")
    wf.clean(log_destination="logs")


if __name__ == "__main__":
    main()
