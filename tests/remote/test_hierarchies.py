"""Where control groups are made; version 2 of them, whose limits are tried on a plain folder that stands in for it."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scitq.remote.agent import cgroups, limits
from scitq.remote.agent.cgroups import Box
from scitq.remote.agent.hierarchies import folder_for
from scitq.remote.agent.limits import Limits
from scitq.remote.agent.lines import Exit
from scitq.remote.agent.orders import Order
from scitq.remote.agent.slots import Slot
from scitq.remote.agent.spawn import Spawner

FILES = {
    "cgroup.procs": "", "cgroup.controllers": "cpu memory", "cgroup.subtree_control": "", "memory.max": "max", "cpu.max": "max 100000",
    "memory.swap.max": "max", "memory.oom.group": "0", "memory.events": "low 0\nhigh 0\nmax 0\noom 0\noom_kill 0\n",
}  # fmt: skip


class Hierarchy:
    """A folder that behaves like the mount of a version 2 hierarchy, and what /proc/self says of it."""

    def __init__(self, folder: Path) -> None:
        self.top = folder / "cgroup"
        self.make(str(self.top))
        self.proc = folder / "proc"
        self.proc.mkdir()
        self.mounts = [f"30 23 0:26 / {self.top} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate"]
        self.lives_in("/")

    def lives_in(self, path: str, *more: str) -> Path:
        """Our own group."""
        (self.proc / "cgroup").write_text("".join(f"{line}\n" for line in (*more, f"0::{path}")))
        (self.proc / "mountinfo").write_text("".join(f"{line}\n" for line in self.mounts))
        group = self.top / path.strip("/")
        for each in reversed([group, *group.parents]):
            if each.is_relative_to(self.top) and not each.exists():
                self.make(str(each))
        return group

    @staticmethod
    def make(folder: str) -> None:
        os.mkdir(folder)
        for name, text in FILES.items():
            Path(folder, name).write_text(text)

    @staticmethod
    def unmake(folder: str) -> None:
        if not os.path.exists(folder):
            raise FileNotFoundError(errno.ENOENT, "not there", folder)
        if Path(folder, "cgroup.procs").read_text().strip("0 \n"):
            raise OSError(errno.EBUSY, "busy", folder)
        shutil.rmtree(folder)


@pytest.fixture
def hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hierarchy:
    for module in (cgroups, limits):
        monkeypatch.setattr(module, "make", Hierarchy.make)
        monkeypatch.setattr(module, "unmake", Hierarchy.unmake)
    return Hierarchy(tmp_path)


def begun(hierarchy: Hierarchy) -> Limits:
    found = Limits("tag", str(hierarchy.proc))
    found.begin(())
    return found


def test_groups_are_made_beside_the_own_one(hierarchy: Hierarchy) -> None:
    scope = hierarchy.lives_in("/app.slice/run-1.scope")
    (scope.parent / "cgroup.subtree_control").write_text("cpu memory pids")
    found = begun(hierarchy)
    assert found.told() == {"limits": ["cpus", "memory"], "limits_reason": None}
    box = found.box("7", {"memory": 5e9, "cpus": 0.5})
    assert box is not None and box.folders == [f"{scope.parent}/scitq-tag-7"]
    assert box.make() == []
    told = {name: (scope.parent / "scitq-tag-7" / name).read_text() for name in FILES}
    assert (told["memory.max"], told["memory.swap.max"], told["memory.oom.group"]) == ("5000000000", "0", "1")
    assert told["cpu.max"] == "50000 100000"
    found.release(box)
    assert not (scope.parent / "scitq-tag-7").exists()


def test_the_top_group_of_a_machine_is_divided_itself(hierarchy: Hierarchy) -> None:
    (hierarchy.top / "cgroup.subtree_control").write_text("memory")
    found = begun(hierarchy)
    assert found.told()["limits"] == ["memory"]
    assert "may not be divided for cpus" in found.told()["limits_reason"]
    assert found.box("7", {"cpus": 0.5}) is None


def test_a_group_with_a_limit_is_not_left(hierarchy: Hierarchy) -> None:
    scope = hierarchy.lives_in("/app.slice/run-1.scope")
    (scope.parent / "cgroup.subtree_control").write_text("cpu memory")
    (scope / "memory.max").write_text("1000000000")
    found = begun(hierarchy)
    assert found.told()["limits"] == []
    assert f"{scope} may not be divided for memory" in found.told()["limits_reason"]


def test_a_folder_that_is_not_ours_is_said_so(hierarchy: Hierarchy, monkeypatch: pytest.MonkeyPatch) -> None:
    (hierarchy.top / "cgroup.subtree_control").write_text("cpu memory")

    def refuse(folder: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), folder)

    monkeypatch.setattr(limits, "make", refuse)
    told = begun(hierarchy).told()
    assert told == {"limits": [], "limits_reason": "no control group may be made (Permission denied)"}


def test_systems_without_groups_or_controllers_are_said_so(tmp_path: Path, hierarchy: Hierarchy) -> None:
    nothing = Limits("tag", str(tmp_path / "nowhere"))
    nothing.begin(())
    assert nothing.told() == {"limits": [], "limits_reason": "this system has no control groups"}
    (hierarchy.top / "cgroup.controllers").write_text("hugetlb")
    reason = begun(hierarchy).told()["limits_reason"]
    assert reason == "no controller of memory is available; no controller of cpus is available"


@pytest.mark.parametrize(
    ("root", "path", "wanted"),
    [
        ("/", "/jobs/7", "/m/jobs/7"),
        ("/docker/x", "/docker/x/y", "/m/y"),
        ("/docker/x", "/docker/x", "/m"),
        ("/", "/", "/m"),
    ],
)
def test_version_1_divides_the_own_group_of_each_hierarchy(
    hierarchy: Hierarchy, root: str, path: str, wanted: str
) -> None:
    hierarchy.mounts += [f"35 31 0:32 {root} /m rw shared:9 - cgroup cgroup rw,memory"]
    hierarchy.lives_in("/", f"4:memory:{path}", "1:cpu,cpuacct:/elsewhere")
    assert folder_for("memory", str(hierarchy.proc), []) == wanted


def test_a_program_enters_ends_and_is_judged(hierarchy: Hierarchy, tmp_path: Path) -> None:
    (hierarchy.top / "cgroup.subtree_control").write_text("cpu memory")
    order = Order({"order": 7, "argv": ["echo", "hello"], "limit": {"memory": 1e9}})
    found = begun(hierarchy)
    assert order.limit is not None
    box = order.box = found.box("7", order.limit)
    assert box is not None and box.make() == []
    os.mkdir(tmp_path / "slot")
    slot = Slot(str(tmp_path), 0)
    slot.make()
    env = {"PATH": os.environ["PATH"], "SCITQ_EXECUTION": "7", "SCITQ_JOURNAL": "j"}
    _, status = os.waitpid(Spawner().start(order, slot, env), 0)
    assert (status, Path(slot.out_path).read_text()) == (0, "hello\n")
    group = Path(box.folders[0])
    assert (group / "cgroup.procs").read_text() == "0"  # which stands for the writer
    end = Exit(None, signal.SIGKILL, None, None, None)
    assert found.judge(box, end) is None
    assert [end.why] == [None]
    (group / "memory.events").write_text("max 9\noom 1\noom_kill 2\noom_group_kill 1\n")
    found.judge(box, end)
    assert [end.why, end.note] == ["memory", "it was killed at its limit of 1 GB of memory"]
    (group / "memory.events").write_text("max 0\noom 0\noom_kill 1\n")
    assert box.shortage(True) == "it was killed because its worker had no memory left"
    slot.close()


def test_who_cannot_enter_runs_all_the_same_and_it_is_noted(hierarchy: Hierarchy, tmp_path: Path) -> None:
    box = Box([str(tmp_path / "gone")])
    program, argv, env = box.launcher("/bin/echo", ["echo", "hello"], {"SCITQ_EXECUTION": "7", "SCITQ_JOURNAL": "j"})
    child = subprocess.run(
        ["/bin/sh", "-c", 'exec 3<>"$0"; exec "$@"', f"/proc/self/fd/{box.file}", *argv],
        env=env, executable="/bin/sh", stdout=subprocess.PIPE, pass_fds=(box.file,), check=True,
    )  # fmt: skip
    assert (program, child.stdout) == (sys.executable, b"hello\n")
    note = Limits.judge(box, Exit(0, None, None, None, None))
    assert note == f"ran without limits: {os.strerror(errno.ENOENT)}"
    assert box.file == -1


def test_one_write_kills_a_group_of_version_2(hierarchy: Hierarchy) -> None:
    group = hierarchy.lives_in("/scitq-tag-7")
    (group / "cgroup.kill").write_text("")
    Box([str(group)]).kill()
    assert (group / "cgroup.kill").read_text() == "1"


def test_abandoned_groups_of_other_keepers_are_removed(hierarchy: Hierarchy) -> None:
    (hierarchy.top / "cgroup.subtree_control").write_text("cpu memory")
    old, fresh, used, mine = (
        hierarchy.lives_in(f"/scitq-{name}") for name in ("other-1", "other-2", "other-3", "tag-4")
    )
    hierarchy.lives_in("/")
    (used / "cgroup.procs").write_text("1")
    for group in (old, used):
        os.utime(group, (0, 0))
    found = Limits("tag", str(hierarchy.proc))
    found.begin(("4",))
    assert [group.exists() for group in (old, fresh, used, mine)] == [False, True, True, True]
    begun(hierarchy)
    assert not mine.exists()


def test_a_real_group_of_version_2_is_entered_killed_and_removed() -> None:
    """Its controllers may all be used by version 1; entering, killing and removing need none."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    place = next((fields[4] for fields in mounts if "cgroup2" in fields), None)
    if place is None:
        print("no version 2 is mounted here")
        return
    folder = f"{place}/scitq-test-{os.getpid()}"
    try:
        os.mkdir(folder)
    except OSError as refused:
        print(f"no group can be made in {place}: {refused.strerror}")
        assert refused.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        return
    box = Box([folder])
    script = "setsid sleep 600 & echo ready; sleep 600"
    program, argv, env = box.launcher("/bin/sh", ["sh", "-c", script], {"SCITQ_EXECUTION": "7", "SCITQ_JOURNAL": "j"})
    reading, writing = os.pipe()
    try:
        actions = [(os.POSIX_SPAWN_DUP2, writing, 1), (os.POSIX_SPAWN_DUP2, box.file, 3)]
        pid = os.posix_spawn(program, argv, {**env, "PATH": os.environ["PATH"]}, file_actions=actions)
        assert os.read(reading, 100) == b"ready\n"
        deadline = time.monotonic() + 30
        while len(box.members()) != 3:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert pid in box.members() and not box.remove()
        box.kill()
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        while not box.remove():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert not os.path.exists(folder)
        print("version 2: entered, killed and removed for real")
    finally:
        box.kill()
        os.close(reading)
        os.close(writing)
        while not box.remove():
            time.sleep(0.01)
