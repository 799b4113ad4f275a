"""Tasks in containers of a real Docker daemon, from submission to result."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq import registries
from scitq.engine import Engine
from scitq.remote import images, local
from scitq.remote.logins import Login
from scitq.states import Outcome
from scitq.workflow import Workflow, remote, shell_code
from tests.containers import IMAGE, PASSWORD, USER, Dockerd, Podman, Registry, closing
from tests.crash.conftest import holder, kill
from tests.engine.conftest import Opener, sound
from tests.engine.test_engine import WAIT_S

pytestmark = pytest.mark.servers

# Takes --gpus away, which this machine's daemon cannot serve, and keeps what it was called with.
DOCKER = """#!{python}
import json, os, sys
words = sys.argv[1:]
with open({calls!r}, "a") as file:
    file.write(json.dumps(words) + "\\n")
if "--gpus" in words:
    at = words.index("--gpus")
    del words[at:at + 2]
os.execv({docker!r}, ["docker", *words])
"""
NVIDIA_SMI = "#!/bin/sh\necho '0, NVIDIA H100 80GB HBM3, 81559'\n"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """A registry with a password."""
    folder = tmp_path / "registry"
    folder.mkdir()
    with closing(Registry(folder)) as server:
        yield server


@pytest.fixture
def log_in(dockerd: Dockerd, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration of the user's with a login for the registry, which only this process is told of."""
    folder = tmp_path / "docker"
    folder.mkdir()
    other = {"other.example": {"auth": "b3RoZXI6b3RoZXI="}}
    (folder / "config.json").write_text(json.dumps({"auths": {**registry.auth, **other}}))
    return folder


def test_a_command_runs_in_its_image_and_the_execution_says_which(
    dockerd: Dockerd, engine: Engine, tmp_path: Path
) -> None:
    (tmp_path / "in").write_text("data\n")
    task = engine.submit(
        "cat /input/in; tr a-z A-Z < $INPUT/in > $OUTPUT/out", shell=True, container=IMAGE, input=str(tmp_path / "in"),
        output=str(tmp_path / "results"), cpus=1, memory="64M", env={"A": "b"},
    )  # fmt: skip

    assert task.result(WAIT_S).stdout == "data\n"
    assert (tmp_path / "results" / "out").read_text() == "DATA\n"
    identity = dockerd.said("image", "inspect", "--format", "{{.Id}}", IMAGE)
    assert task.executions[0].image == identity
    assert engine.sql("select image from executions") == [{"image": identity}]
    assert engine.sql("select container from tasks") == [{"container": IMAGE}]
    # Built here, so without a digest: nothing that another machine could be told is pinned.
    assert task.row().raised.image is None and images.resolve(IMAGE) == identity
    sound(engine)


def test_a_private_image_is_pulled_with_the_users_login_and_all_tries_run_the_same_bits(
    dockerd: Dockerd,
    registry: Registry,
    log_in: Path,
    open_engine: Opener,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = registry.push(dockerd, IMAGE, "lab/tool:1.0")
    engine = open_engine()
    engine.submit("true").result(WAIT_S)  # the agent runs, and knows nothing of the login
    monkeypatch.setenv("DOCKER_CONFIG", str(log_in))
    name = f"{registry.host}/lab/tool"
    task = engine.submit("false", container=f"{name}:1.0", retry=1, retry_delay=0.01)
    task.wait(WAIT_S)

    assert [each.image for each in task.executions] == [f"{name}@{digest}"] * 2
    assert task.row().raised.image == f"{name}@{digest}"
    # The tag goes on to other bits; the task does not.
    dockerd.make_image("other:test", "LABEL other=1")
    other = registry.push(dockerd, "other:test", "lab/tool:1.0")
    assert other != digest and images.digest_of(f"{name}:1.0", Login(USER, PASSWORD)) == f"{name}@{other}"
    task.relaunch()
    task.wait(WAIT_S)
    assert task.executions[-1].image == f"{name}@{digest}"
    task.update(container=f"{name}:1.0")
    task.relaunch()
    task.wait(WAIT_S)
    assert task.executions[-1].image == f"{name}@{other}"
    sound(engine)
    engine.close()
    secret = json.loads((log_in / "config.json").read_text())["auths"][registry.host]["auth"].encode()
    for path in engine.path.parent.rglob("*"):
        held = b""
        if "lab.scitq" in str(path):
            with contextlib.suppress(OSError):  # a folder; or what the agent has just tidied away
                held = path.read_bytes()
        assert secret not in held and PASSWORD.encode() not in held, path


def test_a_login_that_comes_late_is_waited_for_even_when_the_agent_is_killed_meanwhile(
    dockerd: Dockerd, registry: Registry, log_in: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next agent is told once there is something to tell."""
    monkeypatch.setattr(registries, "AGAIN_S", 0.05)
    digest = registry.push(dockerd, IMAGE, "lab/tool:1.0")
    configuration = (log_in / "config.json").read_text()
    (log_in / "config.json").write_text(json.dumps({"credHelpers": {registry.host: "of-nobody"}}))
    monkeypatch.setenv("DOCKER_CONFIG", str(log_in))
    task = engine.submit("echo here", shell=True, container=f"{registry.host}/lab/tool:1.0")
    engine._wait_for(lambda: 0 if "cannot be had" in task.why() else 1, WAIT_S, "the reason")
    assert "docker-credential-of-nobody" in task.why()
    assert kill(holder(engine.side / "local", "agent"))
    (log_in / "config.json").write_text(configuration)

    assert task.result(WAIT_S).stdout == "here\n"
    assert [each.image for each in task.executions] == [f"{registry.host}/lab/tool@{digest}"]
    sound(engine)


def test_without_a_login_a_private_image_fails_once_and_says_so(
    dockerd: Dockerd, registry: Registry, engine: Engine
) -> None:
    registry.push(dockerd, IMAGE, "lab/tool:1.0")
    private = engine.submit("true", container=f"{registry.host}/lab/tool:1.0", retry=5, retry_delay=0.01)
    private.wait(WAIT_S)

    assert len(private.executions) == 1
    assert private.executions[0].cause == "failed (stage in)" and f"{registry.host}/lab/tool:1.0" in private.why()


def test_out_of_memory_in_a_container_succeeds_with_more(containers: Dockerd | Podman, engine: Engine) -> None:
    hog = "x=a; i=0; while [ $i -lt 25 ]; do x=$x$x; i=$((i+1)); done; echo ${#x}"  # doubles to 32 MiB
    task = engine.submit(
        hog, shell=True, container=IMAGE,
        memory="16M", retry={"out_of_memory": 1}, retry_delay=0.01, retry_memory=20.0,
    )  # fmt: skip
    task.wait(WAIT_S)

    assert [each.outcome for each in task.executions] == [Outcome.OUT_OF_MEMORY, Outcome.SUCCEEDED], task.why()
    assert task.row().raised.memory == 320_000_000
    sound(engine)


def test_gpus_reach_the_engine_unchanged_and_are_waited_for(
    dockerd: Dockerd, open_engine: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for NVIDIA's program tells of a GPU, and one for docker's takes `--gpus` away: there is none here."""
    programs, calls = tmp_path / "bin", tmp_path / "calls"
    programs.mkdir()
    docker = shutil.which("docker")
    assert docker is not None
    texts = {"nvidia-smi": NVIDIA_SMI, "docker": DOCKER.format(python=sys.executable, calls=str(calls), docker=docker)}
    for name, text in texts.items():
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    engine = open_engine()
    engine.submit("true").result(WAIT_S)
    engine.update_worker("local", gpus=0)
    launch = "import sys; from scitq.shell.cli import launch; sys.exit(launch())"
    words = ["-f", str(engine.path), "-d", IMAGE, "-O", "--gpus all", "echo", "seen"]
    done = subprocess.run([sys.executable, "-c", launch, *words], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    task = engine.task(int(done.stdout))
    engine._wait_for(lambda: 0 if "no worker has GPUs" in task.why() else 1, WAIT_S, "the reason")
    engine.update_worker("local", gpus="auto")

    assert task.result(WAIT_S).stdout == "seen\n"
    (worker,) = engine.workers()
    assert worker.facts["gpu_models"] == [{"id": "0", "name": "NVIDIA H100 80GB HBM3", "memory": 81559 << 20}]
    (made,) = [words for words in map(json.loads, calls.read_text().splitlines()) if "create" in words]
    at = made.index("--gpus")
    assert made[at : at + 2] == ["--gpus", "all"] and made.count("--gpus") == 1 and made[-2:] == ["echo", "seen"]
    sound(engine)


def test_what_the_page_and_the_example_show_works(dockerd: Dockerd, tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    page = (root / "docs" / "howto" / "containers.md").read_text("utf-8")
    block = re.findall(r"^```py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)[0]
    (tmp_path / "block.py").write_text(block.replace("ubuntu:24.04", IMAGE).replace("2G", "64M"))
    (tmp_path / "seq.txt").write_text("acgt\n")
    for words, shown in (
        (["block.py"], "ACGT"),
        ([str(root / "examples" / "11_containers.py"), "--image", IMAGE], "the most frequent: 2 ACGT"),
    ):
        environ = {**os.environ, "PYTHONPATH": str(root)}
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environ, capture_output=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, b""), done.stderr
        assert shown in done.stdout.decode()
    for name in ("lab", "containers"):
        local.stop(tmp_path / f"{name}.scitq.d" / "local")


def with_python() -> list[str]:
    """The options of a container that has this machine's Python."""
    place = sys.base_prefix
    mounts = {path: os.path.realpath(path) for path in (place, "/lib", "/lib64", "/usr/lib") if os.path.isdir(path)}
    options = [word for path, real in mounts.items() for word in ("-v", f"{real}:{path}:ro")]
    return [*options, "--env", f"PATH={place}/bin:/bin", "--env", f"LD_LIBRARY_PATH={place}/lib"]


def test_functions_are_called_in_containers_whatever_python_the_worker_has(dockerd: Dockerd, engine: Engine) -> None:
    options = with_python()
    factor = 3

    def times(number: int) -> tuple[int, bool]:
        if number > 2:
            raise ValueError(f"{number} is too large")
        return factor * number, os.path.exists("/.dockerenv")

    with engine.executor(container=IMAGE, container_options=options) as executor:
        calls = [executor.submit(times, number) for number in (1, 2, 3)]
        assert [call.result(WAIT_S) for call in calls[:2]] == [(3, True), (6, True)]
        with pytest.raises(ValueError, match="3 is too large"):
            calls[2].result(WAIT_S)
        assert sorted(executor.map(times, range(3))) == [(0, True), (3, True), (6, True)]
    assert calls[0].task.row().spec.python is None
    assert list((engine.side / "calls").iterdir()) != []  # one failed, and may be relaunched


def test_scripts_and_functions_of_workflows_travel_into_containers(dockerd: Dockerd, engine: Engine) -> None:
    word = "there"

    @remote
    def count(label: str) -> str:
        found = os.environ["INPUT"], os.path.exists("/.dockerenv")
        with open(os.path.join(os.environ["OUTPUT"], label), "w") as file:
            file.write(word)
        return f"{label} {found}"

    lines = "\n".join(f"# {n}" for n in range(20_000))
    wf = Workflow("away", engine=engine, container=IMAGE, container_options=with_python())
    long = wf.step("script", shell_code(f'{lines}\necho "it\'s $0" > $OUTPUT/made'))
    called = wf.step("function", count, args={"label": "a"}, input=long.output)
    wf.run()
    assert (long.output / "made").read_text().startswith("it's /resource/")
    assert called.result(WAIT_S).stdout == "a ('/input', True)\n"
    assert (called.output / "a").read_text() == "there"
