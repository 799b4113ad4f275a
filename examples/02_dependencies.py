"""Tasks that wait for one another: fan out, gather, try again, fail and mend. Run me anywhere: python 02_dependencies.py"""

import tempfile
from pathlib import Path

import scitq

folder = Path(tempfile.mkdtemp(prefix="scitq-"))
texts = {"whale": "call me ishmael", "dale": "it was the best of times", "gale": "stately plump buck mulligan"}

with scitq.open(folder / "lab.scitq") as q:
    # Fan out: one task a text. `shell=True` runs a script; without it the words are run as they are.
    counts = []
    for name, text in texts.items():
        (folder / f"{name}.txt").write_text(text + "\n", encoding="utf-8")
        script = f"wc -w < {folder}/{name}.txt > {folder}/{name}.count"
        counts.append(q.submit(script, shell=True, name=f"count {name}", batch="count"))

    # Gather: starts when all of them have succeeded, and not before.
    add = ["awk", "{ n += $1 } END { print n }", *(folder / f"{name}.count" for name in texts)]
    total = q.submit(add, name="total", requires=counts)
    print("total:", total.result().stdout.strip(), "words")

    # Try again: this one fails the first time, as networks do.
    script = f"test -e {folder}/seen || {{ touch {folder}/seen; exit 7; }}"
    flaky = q.submit(script, shell=True, name="flaky", retry=2, retry_delay=0.2)
    flaky.result()
    print("flaky:", ", then ".join(str(attempt.cause) for attempt in flaky.executions))

    # Fail: what needs a failed task is blocked, and says why.
    broken = q.submit(f"sort {folder}/names.txt", shell=True, name="sort names")
    report = q.submit(f"echo sorted > {folder}/report", shell=True, name="report", requires=broken)
    report.wait()
    print("report:", report.why())
    try:
        broken.result()
    except scitq.TaskFailed as failure:
        print("the last lines of it:", *failure.tail)

    # Mend: put the cause right and relaunch; what was blocked goes on by itself.
    (folder / "names.txt").write_text("melville\ndickens\njoyce\n", encoding="utf-8")
    broken.relaunch()
    report.result()
    print("report:", report.status, "after", len(broken.executions), "tries of what it needed")

print(f"All of it is in {folder}: scitq -f {folder}/lab.scitq task list")
