"""What container engines are told, word by word, and what is made of their answers. No engine runs here.

apptainer cannot be installed where these tests run: its command lines are checked as they are recorded by a stand-in.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from scitq.fetch.errors import AccessDenied, FetchError, Interrupted, NoSpace, NotFound, Throttled
from scitq.fetch.settings import Settings
from scitq.remote.agent import engines, images
from scitq.remote.agent.container import of_refusal, split
from scitq.remote.agent.dockerapi import Frames
from scitq.remote.agent.pulling import of_message
from scitq.remote.agent.registries import Registries
from scitq.remote.agent.staging import Job
from tests.remote.client import Driver

PLACES = {"INPUT": "/w/input", "OUTPUT": "/w/output", "TEMP": "/w/temp", "RESOURCE": "/w/resource"}


def order(**more: Any) -> engines.Order:
    found: dict[str, Any] = {
        "name": "scitq-0-1", "label": "0:1", "image": "sha256:1", "argv": ["echo", "a b"], "is_script": False, "options": [],
        "places": PLACES, "command": "/w/command",
    }  # fmt: skip
    return engines.Order(**{**found, **more})


def created(engine: str = "docker", **more: Any) -> list[str]:
    return engines.create(engine, order(**more), "/dev/fd/3", [])


def value_of(words: list[str], option: str) -> list[str]:
    return [value for word, value in itertools.pairwise(words) if word == option]


def test_docker_is_told_all_of_it() -> None:
    words = created(cap=1 << 20)

    assert words == [
        "docker", "create", "--name", "scitq-0-1", "--label", "scitq.execution=0:1", "--pull", "never",
        "--log-driver", "local", "--log-opt", "max-file=1", "--log-opt", "compress=false", "--log-opt", "max-size=64m",
        "--security-opt", "no-new-privileges", "--user", f"{os.getuid()}:{os.getgid()}",
        "--mount", "type=bind,source=/w/input,target=/input", "--mount", "type=bind,source=/w/output,target=/output",
        "--mount", "type=bind,source=/w/temp,target=/temp", "--mount", "type=bind,source=/w/resource,target=/resource,readonly",
        "--env-file", "/dev/fd/3", "sha256:1", "echo", "a b",
    ]  # fmt: skip


def test_options_stand_behind_ours_and_before_the_image() -> None:
    options = ["--network", "none", "-v", "/data:/data:ro"]
    words = created(options=options)

    assert words[-7:] == [*options, "sha256:1", "echo", "a b"]


def test_limits_and_gpus() -> None:
    words = created(memory=2e9, cpus=1.5, gpus=["0", "3"])

    assert value_of(words, "--memory") == value_of(words, "--memory-swap") == ["2000000000b"]
    assert value_of(words, "--cpus") == ["1.5"]
    assert value_of(words, "--gpus") == ['"device=0,3"']
    assert value_of(created("podman", gpus=["0"]), "--device") == ["nvidia.com/gpu=0"]


@pytest.mark.parametrize(
    ("options", "absent"),
    [
        (["--privileged"], "no-new-privileges"),
        (["--security-opt", "no-new-privileges=false"], "no-new-privileges"),
        (["-u", "5"], f"{os.getuid()}:{os.getgid()}"),
        (["--user=5:6"], f"{os.getuid()}:{os.getgid()}"),
        (["-m1g"], "--memory-swap"),
        (["--cpus=2"], "1"),
        (["--gpus", "all"], '"device=0"'),
    ],
)
def test_what_the_options_say_is_not_said_by_us(options: list[str], absent: str) -> None:
    words = created(options=options, memory=1e9, cpus=1, gpus=["0"])

    assert absent not in words
    assert [word for word in words if word in options] == options


def test_a_group_belongs_to_the_user() -> None:
    assert value_of(created(options=["-g", "50"]), "--user") == [f"{os.getuid()}:50"]


def test_a_script_takes_the_place_of_the_entry_point() -> None:
    words = created(argv=["bash"], is_script=True)

    assert value_of(words, "--entrypoint") == ["bash"]
    assert words[-2:] == ["sha256:1", "/command"]
    assert "type=bind,source=/w/command,target=/command,readonly" in words
    assert created(argv=["bash"], is_script=True, options=["--entrypoint", "/run"])[-3:] == [
        "sha256:1",
        "bash",
        "/command",
    ]


def test_a_path_with_a_comma_stays_one_path() -> None:
    assert 'type=bind,"source=/a,b","target=/a,b",readonly' in created(mounts=["/a,b"])


def test_no_value_of_a_variable_is_on_the_command_line() -> None:
    variables, lines = split({"A": "secret", "B": "two\nlines", "C": "\udcff", "odd name": "x", "PATH": "/bin"})

    assert lines == b"A=secret\nPATH=/bin\n"
    assert variables == {"B": "two\nlines", "C": "\udcff", "odd name": "x"}


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("manifest for 127.0.0.1:4290/a/b:1 not found: manifest unknown", NotFound),
        ("Error: reading manifest 1 in 127.0.0.1:42937/lab/denied: manifest unknown", NotFound),
        ("pull access denied for nosuch, repository does not exist or may require 'docker login'", NotFound),
        ("unauthorized: authentication required", AccessDenied),
        ("no basic auth credentials", AccessDenied),
        ("toomanyrequests: You have reached your pull rate limit", Throttled),
        ("write /var/lib/docker/tmp/x: no space left on device", NoSpace),
        ("dial tcp: lookup registry.example on 10.0.0.2:53: no such host", Interrupted),
        ("net/http: TLS handshake timeout", Interrupted),
        ("http: server gave HTTP response to HTTPS client", FetchError),
    ],
)
def test_what_an_engine_says_of_a_pull(said: str, kind: type[FetchError]) -> None:
    assert type(of_message("docker", "127.0.0.1:42937/lab/denied:1", said)) is kind


@pytest.mark.parametrize(
    ("said", "why", "code"),
    [
        ("unknown flag: --bogus\n\nUsage: docker create", "spawn", 125),
        ('OCI runtime create failed: exec: "nosuch": executable file not found in $PATH: unknown', "spawn", 127),
        ('runc create failed: exec: "/etc": permission denied: unknown', "spawn", 126),
        ("Error response from daemon: No such image: x", "unstarted", None),
        ("Error response from daemon: failed to create shim task: cgroups: cannot be made: unknown", "stage_in", None),
    ],
)
def test_what_an_engine_says_instead_of_running(said: str, why: str, code: int | None) -> None:
    ended = of_refusal("docker", said).said

    assert (ended["why"], ended["code"]) == (why, code)


def test_frames_may_come_in_any_pieces() -> None:
    data = b"\x01\0\0\0\0\0\0\x03out\x02\0\0\0\0\0\0\x04errs\x01\0\0\0\0\0\0\x00\x01\0\0\0\0\0\0\x01!"
    for size in range(1, len(data) + 1):
        frames, streams = Frames(), {1: b"", 2: b""}
        for at in range(0, len(data), size):
            for stream, piece in frames.feed(data[at : at + size]):
                streams[stream] += piece
        assert streams == {1: b"out!", 2: b"errs"}


STAND_IN = """#!/bin/sh
for word; do printf '%s\\n' "$word"; done >> "$RECORD"
env >> "$RECORD.env"
case $1 in pull) for word; do last=$word; done; for file; do case $file in *.sif) echo image > "$file";; esac; done;;
  *) echo ran; exit 3;;
esac
"""


@pytest.fixture
def apptainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name that records what it is told."""
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "apptainer"
    program.write_text(STAND_IN)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("RECORD", str(tmp_path / "record"))
    monkeypatch.setenv("SCITQ_CONTAINER_ENGINE", "apptainer")
    return tmp_path / "record"


@pytest.mark.promise("core 11.22")
def test_apptainer_is_told_all_of_it(apptainer: Path, driver: Driver) -> None:
    options = ["--gpus", "all", "-v", "/data:/data:ro", "--network", "none", "-u", "5", "--fakeroot"]
    driver.say({"registries": {"config": {"docker.io": {"auth": "dXNlcjpzZWNyZXQ="}}}})
    line = driver.run(1, "echo", "a b", image="lab/tools:1", options=options, env={"MINE": "x"}, registry="docker.io")

    assert (line["code"], line["o"]) == (3, "ran\n")
    words = apptainer.read_text().splitlines()
    file = f"{driver.root}/images/lab%2ftools%3a1/image.sif"
    slot = f"{driver.root}/slot/0"
    assert words == [
        "pull", "--force", file.replace("image.sif", "fresh.sif"), "docker://lab/tools:1",
        "run", "--contain", "--cleanenv", "--no-home", "--workdir", f"{slot}/temp", "--no-privs",
        "--bind", f"{slot}/input:/input:rw", "--bind", f"{slot}/output:/output:rw", "--bind", f"{slot}/temp:/temp:rw",
        "--bind", f"{slot}/resource:/resource:ro",
        "--nv", "--bind", "/data:/data:ro", "--net", "--network", "none", "--fakeroot", file, "echo", "a b",
    ]  # fmt: skip
    environment = Path(f"{apptainer}.env").read_text().splitlines()
    assert {"APPTAINERENV_MINE=x", "APPTAINERENV_OUTPUT=/output", "APPTAINER_DOCKER_PASSWORD=secret"} <= set(
        environment
    )
    assert line["image"]["engine"] == "apptainer"
    assert line["image"]["id"].startswith("sha256:")


def test_apptainer_executes_scripts_and_pulls_once(apptainer: Path, driver: Driver) -> None:
    for number in (1, 2):
        driver.script(number, "true", shell="bash", image="lab/tools:1", options=["--entrypoint", "/run me"])

    words = apptainer.read_text().splitlines()
    assert words.count("pull") == 1
    assert words[-4:] == [f"{driver.root}/images/lab%2ftools%3a1/image.sif", "/run me", "bash", "/command"]
    assert words.count("exec") == 2


def test_a_worker_without_an_engine_says_so(driver: Driver) -> None:
    line = driver.run(1, "true", image="x", engine="singularity")

    assert (line["why"], line["error"]) == ("stage_in", "NoEngine")
    assert "singularity is not installed" in line["note"]
    assert "final" not in line


def test_orders_that_cannot_be_are_refused(driver: Driver) -> None:
    line = driver.run(1, "true", image="-v/:/host")

    assert (line["why"], line["code"]) == ("spawn", 126)
    assert json.dumps(line["note"]) == '"image is not a name"'


class Patient:
    """A request to stop that never comes, and remembers for how long it was waited."""

    def __init__(self) -> None:
        self.waits: list[float] = []
        self.is_set = False

    def check(self, *_: str) -> None:
        pass

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        return False


def test_a_registry_that_asks_to_wait_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [*(Throttled("x: its registry asks to wait (toomanyrequests).") for _ in range(14)), None]
    found: list[Any] = [None, None, {"engine": "docker", "id": "sha256:1", "digest": None}]

    def pull(*_: Any) -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    monkeypatch.setattr(images, "pull_by_daemon", pull)
    monkeypatch.setattr(images, "choose", lambda wanted: ({"engine": "docker", "socket": "/nowhere"}, ""))
    monkeypatch.setattr(images.Images, "_find", lambda *_: found.pop(0))
    woken: list[Any] = []
    there = images.Images(str(tmp_path), Registries(str(tmp_path)), lambda *told: woken.append(told))
    job = Job({"id": 1, "image": "x"})
    said: list[str] = []
    job.say = said.append
    cancel: Any = Patient()

    assert there.present(job, Settings(cancel=cancel))["id"] == "sha256:1"
    assert len(said) == job.waits == 2  # six tries each before it says so
    assert "asks to wait" in said[0]
    assert max(cancel.waits) >= 30
    assert woken == [("image docker x ", None)]
    assert there.coming == set()


def test_who_enters_what_is_left_gets_the_same_and_the_work_folder() -> None:
    had = order(options=["--network", "none", "--entrypoint", "/start"], memory=1e9)
    said = ["-c", "exec sh"]
    words, env = engines.enter(
        "podman", had, said, "/w/work", env_file="/dev/fd/5", in_environment=["A"], env={"P": "q"}, has_terminal=True
    )
    assert words[:7] == [
        "podman",
        "run",
        "--rm",
        "--interactive",
        "--tty",
        "--mount",
        "type=bind,source=/w/work,target=/work",
    ]
    assert (
        words[-8:] == ["--network", "none", "--entrypoint", "/start", "--entrypoint", "/bin/sh", "sha256:1", *said][-8:]
    )
    assert value_of(words, "--memory") == ["1000000000b"] and value_of(words, "--pull") == ["never"]
    assert env == {"P": "q"}
    plain, _ = engines.enter(
        "docker", had, said, "/w/work", env_file="/dev/fd/5", in_environment=[], env={}, has_terminal=False
    )
    assert "--tty" not in plain and "create" not in plain

    file = order(image="/cache/image.sif", env={"A": "b"}, options=["--entrypoint", "/start"])
    words, env = engines.enter(
        "apptainer", file, said, "/w/work", env_file="", in_environment=[], env={}, has_terminal=True
    )
    assert words[:4] == ["apptainer", "exec", "--bind", "/w/work:/work:rw"]
    assert words[-4:] == ["/cache/image.sif", "/bin/sh", *said]
    assert env == {"APPTAINERENV_A": "b"}
