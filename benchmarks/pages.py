"""(s) How long the web page takes over lists of a million tasks: in every order, filtered, at the beginning and far in."""

from __future__ import annotations

import html
import http.client
import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from benchmarks.contest import Contestant, run
from benchmarks.report import Section, at_most

WORKERS, BATCHES = 20, 10
# Of each kind of list: the first page, and some further ones.
PAGES = 4
LISTS = {
    "by number": "/tasks",
    "by name": "/tasks?sort=name",
    "by batch": "/tasks?sort=batch",
    "by state": "/tasks?sort=state",
    "by start": "/tasks?sort=time",
    "by worker": "/tasks?sort=worker",
    "failed, by name": "/tasks?state=failed&sort=name",
    "pending, by name": "/tasks?state=pending&sort=name",
    "succeeded of a batch, by start": "/tasks?state=succeeded&batch=b3&sort=time",
    "of a worker, by start": "/tasks?worker=w7&sort=time",
    "one name": "/tasks?text=task-777777",
    "a word that none has": "/tasks?text=nowhere",
    "by a condition": "/tasks?where=" + quote("run_s > 9.99"),
    "by a condition, worker": "/tasks?sort=worker&where=" + quote("exit_code = 3 and worker = 'w3'"),
}
OTHERS = {"first page": "/", "batches": "/batches", "workers": "/workers"}


def measure(size: int) -> dict[str, dict[str, list[float]]]:
    """The times of every list's pages, over one file."""
    import scitq

    path = Path("lab.scitq")
    with scitq.open(path, drive=False) as engine:
        for batch in range(BATCHES):
            engine.submit_many(
                ({"command": f"align --sample {n}", "name": f"task-{n}"} for n in range(batch, size, BATCHES)), batch=f"b{batch}"
            )  # fmt: skip
        engine._write(_history)
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH")))),
    }
    server = subprocess.Popen(
        [sys.executable, "-m", "scitq", "-f", str(path), "--json", "web", "--no-open"],
        stdout=subprocess.PIPE,
        env=environ,
    )
    try:
        assert server.stdout is not None
        told = json.loads(server.stdout.readline())
        browser = _Browser(told["port"], told["url"])
        lists = {name: browser.walk(path, PAGES) for name, path in LISTS.items()}
        others = {name: [browser.get(path)[0] for _ in range(PAGES)] for name, path in OTHERS.items()}
    finally:
        server.terminate()
        server.wait()
    return {"lists": lists, "others": others}


def _history(db: object) -> None:
    """Nine of ten tasks have run, on some worker; a few failed. Written at once: no agent takes part."""
    import apsw

    from scitq.states import Outcome as Ends
    from scitq.states import TaskState

    assert isinstance(db, apsw.Connection)
    now = time.time_ns() // 1_000_000
    db.executemany(
        "insert into worker(name, kind, state, concurrency, created) values (?, 'ssh', 3, 4, ?)",
        ((f"w{n}", now) for n in range(WORKERS)),
    )
    ran = "id % 10 <> 0"
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
    for sql in (
        f"""insert into execution(task, worker, attempt, assigned, started, ended, outcome, exit_code, run_s)
          select id, 1 + id % {WORKERS}, 1, created, created, created + 5000, iif(id % 1000 = 1, {int(Ends.FAILED)}, {int(Ends.SUCCEEDED)}),
          iif(id % 1000 = 1, 3, 0), (id % 997) / 99.7 from task where {ran}""",
        f"update task set state = iif(id % 1000 = 1, {int(TaskState.FAILED)}, {int(TaskState.SUCCEEDED)}) where {ran}",
        "update counter set n = (select count(*) from task where task.batch = counter.batch and task.state = counter.state)",
    ):
        for _ in db.execute(sql):
            pass
    db.config(apsw.SQLITE_DBCONFIG_ENABLE_TRIGGER, 1)


class _Browser:
    """Asks for pages as a browser would."""

    def __init__(self, port: int, link: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self._connection.request("GET", link.partition(str(port))[2])
        answer = self._connection.getresponse()
        answer.read()
        self._headers = {"Cookie": str(answer.getheader("set-cookie")).partition(";")[0]}

    def get(self, path: str) -> tuple[float, str]:
        """A page, and how long it took."""
        began = time.perf_counter()
        self._connection.request("GET", path, headers=self._headers)
        answer = self._connection.getresponse()
        text = answer.read().decode()
        assert answer.status == 200, (path, answer.status, text[:500])
        return time.perf_counter() - began, text

    def walk(self, path: str, pages: int) -> list[float]:
        """Some pages of a list, one after the other."""
        found = []
        for _ in range(pages):
            seconds, text = self.get(path)
            found.append(seconds)
            following = re.search(r'rel="next" href="([^"]+)"', text)
            if following is None:
                break
            path = html.unescape(following.group(1))
        return found


def pages(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(s)"""
    size = 100_000 if quick else 1_000_000
    found: dict[str, Any] = dict(run(Contestant("pages", (sys.executable, "-m", "benchmarks.pages")), size, folder))
    section = Section(
        "s", f"The web page over {size:,} tasks, nine of ten of which have run on {WORKERS} workers", ("", "")
    )
    every = [seconds for times in found["lists"].values() for seconds in times]
    worst = max(found["lists"], key=lambda name: max(found["lists"][name]))
    section.findings = [
        at_most("a page of a list, median", 1000 * statistics.median(every), 200, " ms", 0),
        at_most(f"the slowest of them ({worst})", 1000 * max(every), 200, " ms", 0),
    ]
    told = [f"{name} {1000 * statistics.median(times):.0f} ms" for name, times in found["lists"].items()]
    others = [
        f"{name} {1000 * times[0]:.0f} ms, then {1000 * statistics.median(times):.0f} ms"
        for name, times in found["others"].items()
    ]
    section.notes.append(
        f"Lists, 50 tasks a page, medians of the first {PAGES}: {'; '.join(told)}. A search that finds little gives up after a tenth of a "
        f"second, and says from where to go on. Other pages: {'; '.join(others)}."
    )
    return section


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
