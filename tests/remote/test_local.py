"""Starting and stopping the local worker's agent."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from scitq.errors import AgentFailed
from scitq.remote import local
from scitq.remote.agent import VERSION, processes, starting
from scitq.remote.agent.__main__ import FLAGS
from scitq.remote.agent.root import LOG_LIMIT, is_locked, make, say
from scitq.remote.bundle import bundle
from tests.remote.client import Driver


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 20
    while processes.facts(pid) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_it_is_started_once_and_is_not_our_child(root: Path) -> None:
    local.ensure(root)
    driver = Driver(root)
    first = driver.held()
    local.ensure(root)
    assert driver.held()["pid"] == first["pid"]
    for pid in (first["pid"], first["keeper"]):
        found = processes.facts(pid)
        assert found is not None and found.parent != os.getpid() and found.session != os.getsid(0)
    driver.close()


def test_many_may_start_it_at_once(root: Path) -> None:
    threads = [threading.Thread(target=local.ensure, args=(root,)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    driver = Driver(root)
    held = driver.held()
    assert driver.run(1, "true")["code"] == 0
    driver.close()
    agents = [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if str(root).encode() in command(pid)]
    deadline = time.monotonic() + 30
    while agents and set(agents) != {held["pid"], held["keeper"]}:
        assert time.monotonic() < deadline, [command(pid) for pid in agents]
        agents = [pid for pid in agents if processes.facts(pid) is not None]
        time.sleep(0.01)


def command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.promise("core 11.22")
def test_a_folder_path_too_long_for_a_socket_works(tmp_path: Path) -> None:
    deep = tmp_path / ("long folder name " * 6) / ("x" * 120) / "worker"
    local.ensure(deep)
    driver = Driver(deep)
    line = driver.script(1, "pwd; exit 2")
    assert (line["code"], line["o"]) == (2, f"{deep.resolve()}/slot/0/work\n")
    os.kill(driver.held()["keeper"], signal.SIGKILL)
    assert driver.run(2, "true")["code"] == 0
    driver.close()
    local.stop(deep)


def test_stop_ends_everything_and_records_it(root: Path) -> None:
    local.ensure(root)
    driver = Driver(root)
    driver.say({"slots": 1}, {"order": 1, "argv": ["sleep", "60"]}, {"order": 2, "argv": ["true"]})
    driver.seen("pid", 1)
    held = driver.held()
    driver.close()
    local.stop(root)
    assert gone(held["pid"]) and gone(held["keeper"])
    assert not is_locked(str(root), "agent.lock") and not is_locked(str(root), "keeper.lock")
    local.stop(root)
    local.ensure(root)
    assert (driver.exit_of(1)["why"], driver.exit_of(2)["why"]) == ("cancel", "unstarted")
    assert driver.run(3, "true")["code"] == 0
    driver.close()


def test_stop_ends_a_keeper_whose_agent_is_dead(root: Path) -> None:
    local.ensure(root)
    driver = Driver(root)
    driver.say({"order": 1, "argv": ["sleep", "60"]})
    driver.seen("pid", 1)
    held = driver.held()
    driver.close()
    os.kill(held["pid"], signal.SIGKILL)
    local.stop(root)
    assert gone(held["keeper"])


@pytest.mark.promise("core 11.19")
def test_it_ends_by_itself_when_nobody_needs_it(root: Path) -> None:
    local.ensure(root, linger=0.1)
    driver = Driver(root)
    held = driver.held()
    driver.run(1, "true")
    driver.poll(0)  # acknowledges
    driver.close()
    assert gone(held["pid"]) and gone(held["keeper"])
    local.ensure(root, linger=0.1)
    again = Driver(root)
    again.journal, again.offset = driver.journal, driver.offset
    assert again.run(2, "true")["code"] == 0, "the journal goes on where it was"
    again.poll(0)
    again.close()


def test_an_agent_of_another_version_is_replaced_and_its_tasks_do_not_notice(root: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.pyz"
    with zipfile.ZipFile(bundle()[0]) as now, zipfile.ZipFile(other, "w") as then:
        for name in now.namelist():
            text = now.read(name)
            if name.endswith(".py"):  # as another version of Python sees it, without what was compiled for this one
                then.writestr(name, text.replace(f'VERSION = "{VERSION}"'.encode(), b'VERSION = "0"'))
    make(str(root))
    words = [sys.executable, *FLAGS, str(other), "agent", "--root", str(root), "--linger", "60"]
    old = subprocess.Popen(words, start_new_session=True)
    deadline = time.monotonic() + 30
    while not (root / "agent.sock").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    driver = Driver(root)
    driver.say({"order": 1, "script": f"while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done; echo done"})
    driver.seen("start", 1)
    before = driver.held()
    assert before["version"] == "0"
    driver.close()
    local.ensure(root)
    assert old.wait(30) == -signal.SIGKILL
    after = Driver(root)
    after.journal, after.offset = driver.journal, driver.offset
    assert (after.held()["version"], after.held()["keeper"]) == (VERSION, before["keeper"])
    (tmp_path / "gate").touch()
    assert after.exit_of(1)["o"] == "done\n"
    after.close()


def test_one_whose_folder_was_deleted_leaves_the_next_one_alone(root: Path) -> None:
    local.ensure(root, linger=0.05)
    driver = Driver(root)
    held = driver.held()
    shutil.rmtree(root)
    local.ensure(root)
    driver.close()
    assert gone(held["pid"]) and gone(held["keeper"])
    after = Driver(root)  # it has its socket still
    assert after.run(1, "true")["code"] == 0
    after.close()


def test_an_agent_that_was_never_used_ends_too(root: Path) -> None:
    local.ensure(root, linger=0.05)
    deadline = time.monotonic() + 20
    while is_locked(str(root), "agent.lock") or is_locked(str(root), "keeper.lock"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_stays_while_something_runs_or_is_not_acknowledged(root: Path, tmp_path: Path) -> None:
    local.ensure(root, linger=0.05)
    driver = Driver(root)
    driver.say({"order": 1, "script": f"while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done"})
    held = driver.held()
    driver.close()
    checked = threading.Event()
    checked.wait(0.3)  # several lingers
    assert processes.facts(held["pid"]) is not None
    (tmp_path / "gate").touch()
    checked.wait(0.3)
    assert processes.facts(held["pid"]) is not None, "its exit is not acknowledged yet"
    driver.exit_of(1)
    driver.poll(0)
    driver.close()
    assert gone(held["pid"]) and gone(held["keeper"])


def test_stopping_when_idle_lets_the_work_end(root: Path, tmp_path: Path) -> None:
    local.ensure(root)
    driver = Driver(root)
    text = f"while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done; echo x > $OUTPUT/x"
    driver.say({"order": 1, "script": text, "deliver": str(tmp_path / "place")}, {"stop": "when_idle"})
    held = driver.held()
    (tmp_path / "gate").touch()
    assert gone(held["pid"]) and gone(held["keeper"])
    assert (tmp_path / "place" / "x").exists()
    driver.close()


def test_a_deleted_root_ends_the_agent(tmp_path: Path) -> None:
    folder = tmp_path / "worker"
    local.ensure(folder, linger=0.1)
    driver = Driver(folder)
    driver.run(1, "true")
    held = driver.held()
    shutil.rmtree(folder)
    driver.close()
    assert gone(held["pid"]) and gone(held["keeper"])


def test_failure_to_start_shows_the_log(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(starting, "DEADLINE_S", 0.3)
    with pytest.raises(AgentFailed, match="cannot find itself"):
        local.ensure(root, command=[sys.executable, "-c", "import sys; sys.exit('cannot find itself')"])
    (root.parent / "file").touch()
    with pytest.raises(AgentFailed, match="cannot be made"):
        local.ensure(root.parent / "file" / "below")

    def unplugged() -> list[str]:
        """A machine that is taken away between two steps."""
        shutil.rmtree(root)
        root.touch()
        return ["true"]

    with pytest.raises(AgentFailed, match="log cannot be written: Not a directory"):
        starting.ensure(str(root), unplugged, 1.0)


def test_the_program_explains_itself() -> None:
    path, _ = bundle()
    shown = subprocess.run([sys.executable, "-I", "-S", path, "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"{VERSION}\n"
    for wrong in ([], ["dance"], ["agent"], ["agent", "--root"], ["agent", "--root", "x", "--colour", "blue"]):
        done = subprocess.run([sys.executable, "-I", "-S", path, *wrong], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and done.stderr.startswith("usage:")


def test_the_log_is_bounded(tmp_path: Path) -> None:
    for _ in range(30):
        say(str(tmp_path), "agent", "x" * 100_000)
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert set(sizes) == {"agent.log", "agent.log.1"} and max(sizes.values()) < LOG_LIMIT + 200_000


def test_keepers_start_also_after_the_cache_was_emptied(root: Path, tmp_path: Path) -> None:
    local.ensure(root)
    driver = Driver(root)
    shutil.rmtree(bundle()[0].parent)
    held = driver.held()
    os.kill(held["keeper"], signal.SIGKILL)
    assert driver.run(1, "true")["code"] == 0
    assert driver.held()["keeper"] != held["keeper"]
    driver.close()


def test_who_waits_is_told_when_no_keeper_starts(root: Path) -> None:
    local.ensure(root)
    driver = Driver(root)
    held = driver.held()
    program = next(root.glob("agent-*.pyz"))
    program.rename(root / "hidden")
    os.kill(held["keeper"], signal.SIGKILL)
    assert gone(held["keeper"])
    reply = driver.ask("GET", "/held")
    assert reply.status == 503 and "agent.log" in reply.json()["error"]
    assert driver.ask("POST", "/commands", b'{"slots": 1}\n').status == 503
    (root / "hidden").rename(program)
    deadline = time.monotonic() + 20
    while driver.ask("GET", "/held").status != 200:
        assert time.monotonic() < deadline
    driver.close()


def test_an_agent_that_is_ending_is_followed_by_a_new_one(root: Path) -> None:
    local.ensure(root)
    driver = Driver(root)
    text = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
    driver.say({"order": 1, "script": text, "grace": 1})
    while driver.ask("GET", "/output/1/out?wait=10").body != b"ready\n":
        pass
    old = driver.held()["pid"]
    driver.say({"stop": "now"})
    local.ensure(root)
    driver.close()
    assert driver.held()["pid"] != old
    assert driver.exit_of(1)["why"] == "cancel"
    driver.close()


def test_one_that_is_slow_to_start_is_not_started_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one would wait, and take over when the first is stopped: somebody's folder would have an agent again."""
    monkeypatch.setattr(starting, "AGAIN_S", 0.01)
    slow = 'echo start >> "$0"; sleep 0.5; exec "$@"'
    program = [sys.executable, "-I", "-S", "-X", "utf8", str(bundle()[0])]
    local.ensure(root, command=["/bin/sh", "-c", slow, str(root / "starts"), *program])
    assert (root / "starts").read_text() == "start\n"
