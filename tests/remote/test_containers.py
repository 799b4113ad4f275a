"""Executions in containers of a real Docker daemon, through the real agent."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from tests.containers import IMAGE, Dockerd, Engine, wait_until
from tests.remote.client import Driver

pytestmark = pytest.mark.servers


def test_a_program_runs_in_its_image(dockerd: Dockerd, driver: Driver) -> None:
    line = driver.run(1, "cat", "/etc/passwd", image=IMAGE)

    assert (line["code"], line["why"], line["o"]) == (0, None, "root:x:0:0::/:/bin/sh\n"), line["note"]


def test_a_script_and_its_places(containers: Engine, driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a b").write_text("an input\n")
    text = 'cat "$INPUT/a b"; echo $OUTPUT $TEMP $RESOURCE $CPU $MEMORY $MINE $SCITQ_TASK; echo made > $OUTPUT/made; echo x > $TEMP/x'
    line = driver.script(
        1, text, shell="sh", image=IMAGE, input=[str(tmp_path / "data" / "a b")], env={"MINE": "two\nlines  'and \"quotes"},
        cpu=3, memory=64_000_000, deliver=str(tmp_path / "home"),
    )  # fmt: skip

    assert (line["code"], line["e"]) == (0, "")
    assert line["o"] == "an input\n/output /temp /resource 3 64000000 two lines 'and \"quotes 1\n"
    driver.seen("collected", 1)
    assert (tmp_path / "home" / "made").read_text() == "made\n"
    assert (tmp_path / "home" / "made").stat().st_uid == os.getuid()


def test_the_image_is_told_at_the_start_and_at_the_end(containers: Engine, driver: Driver) -> None:
    line = driver.run(1, "true", image=IMAGE)

    identity = f"sha256:{json.loads(containers.said('image', 'inspect', IMAGE))[0]['Id'].removeprefix('sha256:')}"
    assert line["image"] == {"engine": containers.name, "id": identity, "digest": None}
    assert driver.seen("start", 1)["image"]["id"] == identity


def test_its_exit_code_is_the_containers(containers: Engine, driver: Driver) -> None:
    codes = [1, 125, 127, 137, 255]
    for code in codes:
        text = f"printf out; printf err >&2; exit {code}"
        driver.say({"order": code, "task": code, "script": text, "image": IMAGE})

    for code in codes:
        line = driver.exit_of(code)
        assert (line["code"], line["why"], line["o"], line["e"]) == (code, None, "out", "err")


def test_streams_keep_every_byte(containers: Engine, driver: Driver) -> None:
    text = "seq 1 200000; printf 'no end\\377\\000' ; seq 1 1000 >&2"
    driver.script(1, text, image=IMAGE)

    assert driver.output(1) == b"".join(b"%d\n" % n for n in range(1, 200001)) + b"no end\xff\0"
    assert driver.output(1, "err") == b"".join(b"%d\n" % n for n in range(1, 1001))


def test_a_program_that_the_image_does_not_have(containers: Engine, driver: Driver) -> None:
    line = driver.run(1, "no-such-program", image=IMAGE)

    assert (line["code"], line["why"]) == (127, "spawn")
    assert "no-such-program" in line["note"]


def test_an_option_that_the_engine_does_not_know(containers: Engine, driver: Driver) -> None:
    line = driver.run(1, "true", image=IMAGE, options=["--no-such-option"])

    assert (line["code"], line["why"], line["note"]) == (
        125,
        "spawn",
        f"{containers.name}: unknown flag: --no-such-option",
    )


def test_nothing_is_privileged_unless_it_is_asked_for(dockerd: Dockerd, driver: Driver) -> None:
    look = ["grep", "NoNewPrivs", "/proc/self/status"]

    assert driver.run(1, *look, image=IMAGE)["o"] == "NoNewPrivs:\t1\n"
    assert (
        driver.run(2, *look, image=IMAGE, options=["--security-opt", "no-new-privileges=false"])["o"]
        == "NoNewPrivs:\t0\n"
    )


@pytest.mark.promise("core 11.7")
def test_cancel_ends_it_with_term(dockerd: Dockerd, driver: Driver) -> None:
    driver.say(
        {
            "order": 1,
            "task": 1,
            "script": "trap 'echo bye; exit 9' TERM; echo on; while :; do sleep 0.05; done",
            "image": IMAGE,
        }
    )
    driver.wait_for(1, b"on\n")
    driver.say({"cancel": 1})

    line = driver.exit_of(1)
    assert (line["why"], line["code"], line["o"]) == ("cancel", 9, "on\nbye\n")


@pytest.mark.promise("lessons 3.5.7")
def test_who_does_not_hear_term_is_killed_after_the_grace(containers: Engine, driver: Driver) -> None:
    driver.say(
        {
            "order": 1,
            "task": 1,
            "script": "trap '' TERM; echo on; while :; do sleep 0.05; done",
            "image": IMAGE,
            "grace": 0.2,
        }
    )
    driver.wait_for(1, b"on\n")
    driver.say({"cancel": 1})

    line = driver.exit_of(1)
    assert (line["why"], line["code"]) == ("cancel", 137)


def test_more_memory_than_its_limit_is_out_of_memory(containers: Engine, driver: Driver) -> None:
    text = "head -c 200000000 /dev/zero | tail -c 150000000 > /dev/null"
    line = driver.script(1, text, image=IMAGE, memory=32_000_000, limit={"memory": 32_000_000})

    assert line["why"] == "memory"
    assert line["note"] == "it was killed at its limit of 0.032 GB of memory"


def test_cpus_are_limited(dockerd: Dockerd, driver: Driver) -> None:
    look = "cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cut -d' ' -f1 /sys/fs/cgroup/cpu.max"
    line = driver.script(1, look, image=IMAGE, limit={"cpus": 0.5})

    assert line["o"] == "50000\n"


def test_the_entry_point_of_an_image_and_another_one(dockerd: Dockerd, driver: Driver) -> None:
    name = "entry:test"
    dockerd.make_image(name, 'ENTRYPOINT ["/bin/echo", "entered"]')
    try:
        assert driver.run(1, "a  b", image=name)["o"] == "entered a  b\n"
        assert driver.run(2, "a  b", image=name, options=["--entrypoint", "/bin/ls"])["code"] == 1
        assert driver.script(3, "echo script", image=name)["o"] == "script\n"
    finally:
        dockerd.run("rmi", "-f", name)


def test_what_options_mount_is_there(dockerd: Dockerd, driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "more data").mkdir()
    (tmp_path / "more data" / "file").write_text("mounted\n")
    line = driver.run(1, "cat", "/more/file", image=IMAGE, options=["-v", f"{tmp_path}/more data:/more:ro"])

    assert line["o"] == "mounted\n"


def test_resources_cannot_be_written_to_and_links_lead_somewhere(
    dockerd: Dockerd, driver: Driver, tmp_path: Path
) -> None:
    (tmp_path / "resource").write_text("resource\n")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_text("inner\n")
    (tmp_path / "outer").mkdir()
    (tmp_path / "outer" / "link").symlink_to(tmp_path / "inner")
    text = "cat /resource/resource; cat /input/link/file; echo x >> /resource/resource; echo $?"
    more = {"input": [str(tmp_path / "outer")], "resource": [str(tmp_path / "resource")]}
    line = driver.script(1, text, image=IMAGE, **more)

    assert line["o"] == "resource\ninner\n1\n"


def test_a_suspended_container_stands_still(dockerd: Dockerd, driver: Driver) -> None:
    driver.say(
        {
            "order": 1,
            "task": 1,
            "script": "echo on; while [ ! -e /temp/gate ]; do sleep 0.02; done; echo off",
            "image": IMAGE,
        }
    )
    driver.wait_for(1, b"on\n")
    (name,) = dockerd.containers()

    def state() -> str:
        return dockerd.said("inspect", "--format", "{{.State.Status}}", name)

    driver.say({"signal": 1, "number": signal.SIGSTOP})
    wait_until(lambda: state() == "paused", "the pause")
    driver.say({"signal": 1, "number": signal.SIGCONT})
    wait_until(lambda: state() == "running", "its end")
    (driver.root / "slot" / "0" / "temp" / "gate").touch()
    assert driver.exit_of(1)["o"] == "on\noff\n"


@pytest.mark.sampled
def test_containers_stand_back_and_those_that_run_as_well(containers: Engine, driver: Driver) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)

    def stands_back(number: int) -> int | None:
        """How far: docker's weight for the CPUs as a nice value, a podman's process's own."""
        name = next(each for each in containers.containers() if each.endswith(f"-{number}"))
        found = json.loads(containers.said("container", "inspect", name))[0]
        if containers.name == "docker":
            return {0: 0, 110: 10, 36: 15}.get(found["HostConfig"]["CpuShares"])
        pid = found["State"]["Pid"]
        return os.getpriority(os.PRIO_PROCESS, pid) if pid else None

    driver.say({"polite": {"nice": max(own, 10)}}, {"order": 1, "script": "sleep 600", "image": IMAGE})
    wait_until(lambda: containers.containers(), "the container")
    driver.seen("pid", 1)
    wait_until(lambda: stands_back(1) == max(own, 10), "its place behind others")
    driver.say({"polite": {"nice": 15}})
    wait_until(lambda: stands_back(1) == 15, "its place further behind")
    driver.say({"cancel": 1})
    driver.exit_of(1)


@pytest.mark.sampled
@pytest.mark.promise("core 11.14")
def test_many_short_containers_leave_nothing(containers: Engine, driver: Driver) -> None:
    rounds = int(os.environ.get("SCITQ_ROUNDS", "12"))
    mounts, processes = containers.mounts(), containers.processes()
    driver.say({"slots": 4})
    for number in range(rounds):
        driver.say({"order": number, "task": number, "script": f"echo {number}", "image": IMAGE})

    assert [driver.exit_of(number)["o"] for number in range(rounds)] == [f"{number}\n" for number in range(rounds)]
    wait_until(lambda: containers.containers() == [], "the removal of all of them")
    wait_until(
        lambda: (containers.mounts(), containers.processes()) == (mounts, processes), "the end of all that they had"
    )
    wait_until(lambda: not os.listdir(driver.root / "stage"), "the removal of what was staged")


def test_what_cannot_be_removed_now_is_removed_later(dockerd: Dockerd, driver: Driver) -> None:
    driver.say({"order": 1, "task": 1, "script": "while [ ! -e /temp/gate ]; do sleep 0.02; done", "image": IMAGE})
    driver.seen("start", 1)
    ready = driver.root / "stage" / "1" / "ready"
    said = ready.read_text()
    ready.write_text(said.replace("docker.sock", "nobody"))
    (driver.root / "slot" / "0" / "temp" / "gate").touch()
    driver.exit_of(1)
    wait_until(lambda: "cannot be removed" in (driver.root / "agent.log").read_text(), "a failure")
    ready.write_text(said)
    wait_until(lambda: dockerd.containers() == [], "its removal")
