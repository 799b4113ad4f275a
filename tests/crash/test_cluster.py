"""Tasks on several real hosts while cables, hosts, servers, agents and drivers fail at random moments.

Afterwards DESIGN.md §10 holds: every task succeeded once, its output and log are whole, nothing of it is left on any host.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.remote import local
from scitq.states import TaskState
from tests.crash.conftest import rounds
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host
from tests.hosts.system import run, until

pytestmark = [pytest.mark.servers, pytest.mark.sampled]

WAIT_S = 600
STILL_S = 60
LINES = 5000
# More than an agent's journal takes, so that logs come home by themselves; an output; a mark of each start on the host.
COMMAND = f'echo "$SCITQ_TASK" >> /root/started; seq {LINES}; echo "$SCITQ_TASK" > $OUTPUT/made; sleep $((RANDOM % 3)).$((RANDOM % 10))'


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    for place in tmp_path.glob("*.d/local"):
        local.stop(place)


class Faults:
    """Something goes wrong somewhere every moment, and is mended a moment later."""

    def __init__(self, hosts: list[Host], dice: random.Random) -> None:
        self.hosts, self.dice = hosts, dice
        self.done: Counter[str] = Counter()
        self._stop = threading.Event()
        self._problem: BaseException | None = None
        self._threads = [
            threading.Thread(target=self._play, args=(host, random.Random(dice.random()))) for host in hosts
        ]

    def __enter__(self) -> Faults:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._problem is not None:
            raise self._problem

    def _play(self, host: Host, dice: random.Random) -> None:
        kinds: dict[str, Callable[[], None]] = {
            "drop": lambda: self._cut(host, dice, "drop"),
            "one way": lambda: self._cut(host, dice, dice.choice(["in", "out"])),
            "reset": lambda: self._cut(host, dice, "reset"),
            "cable": lambda: self._unplug(host, dice),
            "slow": lambda: self._slow(host, dice),
            "sshd": lambda: self._kill(host, "sshd: "),
            "agent": lambda: self._kill(host, " agent --root "),
            "keeper": lambda: self._kill(host, " keeper --root "),
            "freeze": lambda: self._freeze(host, dice),
            "reboot": host.reboot,
            "1 Mbit/s": lambda: self._slow(host, dice, rate=125_000),
        }
        try:
            while not self._stop.wait(dice.uniform(0.5, 4.0)):
                kind = dice.choice(list(kinds))
                kinds[kind]()
                self.done[kind] += 1
        except BaseException as problem:
            self._problem = problem

    def _cut(self, host: Host, dice: random.Random, how: str) -> None:
        host.cut(how)
        self._stop.wait(dice.uniform(0.1, 6.0))
        host.heal()

    def _unplug(self, host: Host, dice: random.Random) -> None:
        host.plug(False)
        self._stop.wait(dice.uniform(0.1, 6.0))
        host.plug(True)

    def _slow(self, host: Host, dice: random.Random, rate: float = 0) -> None:
        host.shape(**({"rate": rate} if rate else {"delay_ms": 150, "loss": 2}))
        self._stop.wait(dice.uniform(1.0, 6.0))
        host.shape()

    def _freeze(self, host: Host, dice: random.Random) -> None:
        host.freeze()
        self._stop.wait(dice.uniform(0.1, 5.0))
        host.freeze(False)

    @staticmethod
    def _kill(host: Host, sign: str) -> None:
        pids = [line.split()[0] for line in host.processes(sign)]
        if pids:
            host.run(f"kill -9 {' '.join(pids)}", is_checked=False)


def begin(path: Path, hosts: list[Host]) -> Engine:
    engine = Engine(path)
    engine.drive()
    until("the local worker", lambda: bool(engine.workers()))
    engine.worker_pause("local")
    for host in hosts:
        engine.worker_add(host.name, concurrency=2)
    for host in hosts:
        engine.worker_ready(host.name, WAIT_S)
    return engine


def stands_still(engine: Engine) -> bool:
    """Nothing has succeeded for a minute."""
    newest = max((event.at_ms for event in engine.journal(limit=1000) if event.dst is TaskState.SUCCEEDED), default=0)
    if not newest or time.time() - newest / 1000 < STILL_S:
        return False
    lines = [
        f"{row.name}: {row.state.word}, {row.note}, holds {engine.loads().get(int(row.id), 0)}"
        for row in engine.workers()
    ]
    lines += [f"{task.id} {task.state.word}: {task.why()}" for task in engine.tasks() if not task.state.is_final][:10]
    raise AssertionError("nothing happens any more:\n" + "\n".join(lines))


def is_whole(engine: Engine, hosts: list[Host], count: int) -> None:
    """What must hold when all is done."""
    assert {state.word: n for state, n in engine.counts().items() if n} == {"succeeded": count}
    assert engine.check() == []
    text = "".join(f"{n}\n" for n in range(1, LINES + 1)).encode()
    for task in engine.tasks():
        outcomes = [str(execution.cause) for execution in task.executions]
        assert outcomes.count("succeeded") == 1 and outcomes[-1] == "succeeded", (task.id, outcomes)
        assert set(outcomes) <= {"succeeded", "lost", "recalled"}, (task.id, outcomes)
        assert task.output_bytes() == text, (task.id, len(task.output_bytes()))
        made = engine.side / "outputs" / str(task.id)
        assert [each.name for each in made.iterdir()] == ["made"], task.id
        assert (made / "made").read_text() == f"{task.id}\n"
    for host in hosts:
        until(f"the end of all on {host.name}", lambda host=host: not host.processes("/command"))  # type: ignore[misc]


@pytest.mark.sampled
def test_a_cluster_does_every_task_once_whatever_fails(folder: Path, cloud: Cloud, dice: random.Random) -> None:
    tens = rounds(1, 0.1)
    size, count = (10, 1000) if tens >= 10 else (3, 60 * tens)
    hosts = cloud.boot_many([f"c{n}" for n in range(size)])
    engine = begin(folder / "lab.scitq", hosts)
    began = time.monotonic()
    try:
        with Faults(hosts, dice) as faults:
            engine.submit_many({"command": COMMAND, "shell": "bash"} for _ in range(count))
            until(
                "all tasks",
                lambda: engine.counts().get(TaskState.SUCCEEDED, 0) >= count or stands_still(engine),
                WAIT_S,
            )
        print(f"{count} tasks on {size} hosts in {time.monotonic() - began:.0f} s, faults: {dict(faults.done)}")
        is_whole(engine, hosts, count)
    finally:
        engine.cancel_all(None)
        engine.close()
        for host in hosts:
            cloud.delete(host)


class Drivers:
    """Processes that drive the file, one after the other: killed, stopped for a while, replaced by force while they stand still;
    and the machine's address changes under them."""

    def __init__(self, file: Path, cloud: Cloud, dice: random.Random) -> None:
        self.file, self.cloud, self.dice = file, cloud, dice
        self.done: Counter[str] = Counter()
        self._all: list[subprocess.Popen[bytes]] = []
        self._address = 1

    def begin(self, *more: str) -> None:
        words = [sys.executable, "-m", "scitq", "-f", str(self.file), "up", *more]
        with open(self.file.with_suffix(".log"), "ab") as log:
            self._all.append(subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def end(self) -> None:
        for each in self._all:
            if each.poll() is None:
                each.send_signal(signal.SIGCONT)
                each.kill()
            each.wait()
        self._move(1)

    def trouble(self) -> None:
        """One of them, chosen by chance."""
        if self._all[-1].poll() is not None:
            self.begin()
            return
        kind = self.dice.choice(["kill", "stop", "replace", "move"])
        self.done[kind] += 1
        if kind == "kill":
            self._all[-1].kill()
            self.begin()
        elif kind == "stop":
            self._all[-1].send_signal(signal.SIGSTOP)
            time.sleep(self.dice.uniform(0.1, 5.0))
            self._all[-1].send_signal(signal.SIGCONT)
        elif kind == "replace":
            stopped = self._all[-1]
            stopped.send_signal(signal.SIGSTOP)
            self.begin("--take-over")
            time.sleep(self.dice.uniform(0.5, 5.0))
            stopped.send_signal(signal.SIGCONT)
        else:
            self._move(self._address % 3 + 1)

    def _move(self, number: int) -> None:
        """This machine's address on the hosts' network is another one from now on."""
        if number != self._address:
            own, last = self.cloud.gateway.rpartition(".")[0], {1: 1, 2: 253, 3: 254}
            run("ip", "addr", "del", f"{own}.{last[self._address]}/24", "dev", self.cloud.bridge)
            run("ip", "addr", "add", f"{own}.{last[number]}/24", "dev", self.cloud.bridge)
            self._address = number


@pytest.mark.sampled
def test_a_cluster_outlives_its_drivers(folder: Path, cloud: Cloud, dice: random.Random) -> None:
    size, count = 3, 40 * rounds(1, 0.1)
    hosts = cloud.boot_many([f"d{n}" for n in range(size)])
    path = folder / "lab.scitq"
    begin(path, hosts).close()
    drivers = Drivers(path, cloud, dice)
    with Engine(path, drive=False) as engine:
        engine.submit_many({"command": COMMAND, "shell": "bash"} for _ in range(count))
        try:
            drivers.begin()
            until_at = time.monotonic() + WAIT_S
            while engine.counts().get(TaskState.SUCCEEDED, 0) < count and time.monotonic() < until_at:
                time.sleep(dice.uniform(0.5, 3.0))
                drivers.trouble()
                stands_still(engine)
            print(f"{count} tasks on {size} hosts, drivers: {dict(drivers.done)}")
            is_whole(engine, hosts, count)
        finally:
            drivers.end()
    for host in hosts:
        cloud.delete(host)
