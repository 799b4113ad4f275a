"""A workflow that is tried out task by task: run me in a terminal, and answer what I ask.

    python 07_debug.py              one task at a time: launch it, see what it says, mend its command, go on
    python 07_debug.py --no-debug   all at once, as it is when it works

The second step has a mistake: `wordcount` is no program. When it has failed, say e, write `wc -w` instead, and let it run again.
"""

import argparse
import sys

from scitq.workflow import Workflow, WorkflowFailed

parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("--no-debug", action="store_true", help="run everything")
given = parser.parse_args()

with Workflow("debugged", file="debug.scitq", shell=True, debug=not given.no_debug) as wf:
    text = wf.step("write", "echo to be or not to be | tee $OUTPUT/text", name="write")
    words = wf.step("count", "wordcount < $INPUT/text > $OUTPUT/words", name="count", input=text.output)
    report = wf.step("report", "echo $(cat $INPUT/words) words", name="report", input=words.output)

try:
    wf.run()
except WorkflowFailed as failure:
    sys.exit(f"{failure}\nTo look into it: scitq -f debug.scitq task enter count")
print("It works:", report.stdout().strip() if report.stdout() else "the report is still to come")
