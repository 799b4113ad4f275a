"""One task: queue it, wait for it, read what it wrote. Run me anywhere: python 01_hello.py"""

import scitq

with scitq.open("hello.scitq") as q:  # the file is the queue; made when it is new
    task = q.submit("echo hello from task $SCITQ_TASK; uname -sr", shell=True, name="hello")
    result = task.result()  # waits; raises TaskFailed with the last lines if it fails
    print(result.stdout, end="")
    print(f"It took {result.run_s:.3f} s. The file remembers: scitq -f hello.scitq task show hello")
