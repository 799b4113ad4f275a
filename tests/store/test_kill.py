"""kill -9: whatever was acknowledged is there afterwards, and the next one opens the file and goes on.

Two campaigns: at every enumerated point (before and after each commit, lock, bell, rename and fsync of a whole life of a
store), and at random moments with two writers. `SCITQ_ROUNDS` sets the random rounds, `SCITQ_SEED` their seed.
"""

from __future__ import annotations

import os
import random
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from scitq.errors import NotAStateFile
from scitq.store.connection import Store
from scitq.store.lease import Lease
from tests.store.small import SMALL, SMALL_2, bodies, end, integrity, line, put, start_child

ROUNDS = int(os.environ.get("SCITQ_ROUNDS", "10"))
SEED = int(os.environ.get("SCITQ_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)

# Counts the points of a life, and kills the process at the one asked for. Only names of modules are replaced, not product code.
POINTS = """
import apsw, scitq.store.locks, scitq.store.snapshot, scitq.store.bell
from types import SimpleNamespace
AT, passed = int(sys.argv[2]), 0
def point(name):
    global passed
    passed += 1
    if passed == AT:
        say("at", name)
        os.kill(os.getpid(), signal.SIGKILL)
def around(module, name, real):
    def call(*args, **named):
        point("before " + name)
        try: return real(*args, **named)
        finally: point("after " + name)
    setattr(module, name, call)
class Ours:
    def __init__(self, real, *names):
        self.__dict__["real"] = real
        for name in names: around(self, name, getattr(real, name))
    def __getattr__(self, name): return getattr(self.real, name)
scitq.store.locks.fcntl = Ours(scitq.store.locks.fcntl, "flock")
scitq.store.snapshot.os = Ours(os, "link", "fsync")
scitq.store.bell.os = Ours(os, "pwrite")
class Points(apsw.Connection):
    def execute(self, sql, *args):
        kind = sql.split()[0]
        if kind not in ("BEGIN", "COMMIT", "VACUUM"): return super().execute(sql, *args)
        point("before " + kind)
        try: return super().execute(sql, *args)
        finally: point("after " + kind)
apsw.Connection = Points
"""
LIFE = """
from scitq.store.snapshot import backup
store = Store.open(PATH, SMALL); say("ack opened")
lease = Lease(store); lease.try_acquire(); say("ack epoch", lease.epoch)
for n in range(3):
    {write}; say("ack note", n)
futures = [store.post(put(f"posted {n}")) for n in range(3)]
for n, future in enumerate(futures): future.result(); say("ack posted", n)
backup(store, Path(PATH).with_name("copy.scitq")); say("ack backup")
lease.release(); store.close(); say("ack closed")
store = Store.open(PATH, SMALL_2); say("ack migrated"); store.close()
say("points", passed)
""".replace("posted {n}", "posted {{n}}")
HONEST = 'store.write(put(f"note {n}"), full=n == 1)'


def live(path: Path, at: int, write: str = HONEST) -> list[str]:
    """A life that ends at point `at` (0: at its natural end); what it said."""
    with start_child(POINTS + LIFE.replace("{write}", write).replace("{{n}}", "{n}"), path, at) as child:
        out, err = child.communicate(timeout=60)
    assert child.returncode in (0, -signal.SIGKILL), err
    return out.splitlines()


def judge(path: Path, said: list[str]) -> list[str]:
    """What is wrong with the file that this life left behind."""
    wrong: list[str] = []
    acknowledged = {words[4:] for words in said if words.startswith("ack ")}
    copy = path.with_name("copy.scitq")
    if "backup" in acknowledged and not copy.exists():
        wrong.append("the acknowledged backup is not there")
    if copy.exists():
        with Store.open(copy, SMALL) as store:
            if integrity(store.reader()) != "ok" or "note 2" not in bodies(store.reader()):
                wrong.append("the backup is not whole")
    schema = SMALL
    try:
        with Store.open(path, SMALL, read_only=True) as store:
            schema = SMALL_2 if store.version == 2 else SMALL
    except NotAStateFile:  # killed while it was made; the next one makes it
        if "opened" in acknowledged:
            wrong.append("the acknowledged file is not there")
    if "migrated" in acknowledged and schema is SMALL:
        wrong.append("the acknowledged migration is not there")
    with Store.open(path, schema) as store:
        found = bodies(store.reader())
        lost = {words for words in acknowledged if words.startswith(("note", "posted"))} - found
        if lost:
            wrong.append(f"lost: {sorted(lost)}")
        if integrity(store.reader()) != "ok":
            wrong.append(integrity(store.reader()))
        lease = Lease(store)
        if not lease.try_acquire():
            wrong.append("the lease of a dead process is kept")
        elif "epoch 1" in acknowledged and (lease.epoch or 0) < 2:
            wrong.append("an acknowledged epoch is forgotten")
        store.write(put("going on"))
    return wrong


@pytest.mark.sampled
@pytest.mark.slow
def test_killed_at_every_point_of_its_life_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    whole = live(tmp_path / "whole.scitq", 0)
    points = int(whole[-1].split()[1])
    assert whole[-2] == "ack migrated"
    (tmp_path / "copy.scitq").unlink()
    hit: dict[str, int] = {}

    def one(at: int) -> tuple[Path, list[str]]:
        folder = tmp_path / str(at)
        folder.mkdir()
        return folder, live(folder / "lab.scitq", at)

    with ThreadPoolExecutor(2) as pool:
        lives = list(pool.map(one, range(1, points + 1)))
    for at, (folder, said) in enumerate(lives, 1):
        name = next((words[3:] for words in said if words.startswith("at ")), "none")
        hit[name] = hit.get(name, 0) + 1
        assert judge(folder / "lab.scitq", said) == [], f"killed at point {at}, {name}; it said {said}"
    print(f"{points} points:", ", ".join(f"{name} {count}" for name, count in sorted(hit.items())))
    assert {"before COMMIT", "after COMMIT", "before flock", "after flock", "before link", "after fsync"} <= set(hit)


@pytest.mark.slow
def test_the_campaign_notices_a_commit_that_is_acknowledged_too_early(tmp_path: Path) -> None:
    early = 'say("ack note", n); store.write(put(f"note {n}"))'
    wrong: list[str] = []
    for at in range(1, 200):
        folder = tmp_path / str(at)
        folder.mkdir()
        said = live(folder / "lab.scitq", at, early)
        if "ack note 0" in said and not wrong:
            wrong = judge(folder / "lab.scitq", said)
            break
    assert wrong and wrong[0].startswith("lost")


WRITER = """
store = Store.open(PATH, SMALL); me = sys.argv[2]
store.reader(); store.subscribe(lambda: None)
say("ready")
acknowledged = os.open(sys.argv[3], os.O_WRONLY | os.O_APPEND)
def ack(*names): os.write(acknowledged, "".join(f"{name}\\n" for name in names).encode())
n = 0
while True:
    n += 1
    if n % 5: store.write(put(f"{me} {n}"), full=n % 7 == 0)
    else:
        futures = [store.post(put(f"{me} {n} {k}")) for k in range(10)]
        for future in futures: future.result()
        ack(*(f"{me} {n} {k}" for k in range(10)))
    if n % 5: ack(f"{me} {n}")
"""


@pytest.mark.sampled
def test_two_writers_killed_at_random_lose_nothing(state_file: Path) -> None:
    rng = random.Random(SEED)
    print(f"seed {SEED}")
    acknowledged: set[str] = set()
    for round_ in range(ROUNDS):
        # A file each: a kill may cut a line short, at the end of a page, and the other one's next would be joined to it.
        acks = [state_file.with_name(f"acknowledged-{n}") for n in range(2)]
        for file in acks:
            file.write_bytes(b"")
        children = [start_child(WRITER, state_file, f"{round_}-{n}", file) for n, file in enumerate(acks)]
        for child in children:
            assert line(child) == "ready"
        # One dies first; the other goes on for a while, so that it meets what the first left behind.
        for child in rng.sample(children, 2):
            time.sleep(rng.uniform(0.02, 0.12))
            child.kill()
        for child in children:
            _, err = child.communicate(timeout=60)
            assert child.returncode == -signal.SIGKILL, err
        # A last line without its end was not said.
        said = [words for file in acks for words in file.read_text().splitlines(keepends=True)]
        acknowledged |= {words.rstrip("\n") for words in said if words.endswith("\n")}
        with Store.open(state_file, SMALL) as store:
            missing = acknowledged - bodies(store.reader())
            assert not missing, f"seed {SEED}, round {round_}: {len(missing)} lost"
            assert integrity(store.reader()) == "ok"
            store.write(put(f"between {round_}"))
    print(f"{ROUNDS} rounds, {len(acknowledged)} acknowledged writes")
    assert len(acknowledged) > ROUNDS


def test_a_killed_writer_in_mid_transaction_is_rolled_back_by_the_next(state_file: Path) -> None:
    code = """
store = Store.open(PATH, SMALL); store.write(put("kept"))
def run(db):
    for n in range(5000): db.execute("INSERT INTO note(body) VALUES (?)", (f"half {n} {'x' * 4000}",))  # spills to the WAL
    say("in the middle"); sys.stdin.readline()
store.write(run)
"""
    with Store.open(state_file, SMALL) as store:
        child = start_child(code, state_file)
        assert line(child) == "in the middle"
        child.kill()
        child.communicate()
        store.write(put("after"))
        assert bodies(store.reader()) == {"kept", "after"}
        assert end(start_child("say(integrity(Store.open(PATH, SMALL).reader()))", state_file)) == ["ok"]
