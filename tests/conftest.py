"""What every test gets: a folder and a home of its own, no state file by accident, and no process left behind."""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from tests.containers import Dockerd, Podman
from tests.fetch.web import WebServer
from tests.hosts.cloud import Cloud, sweep
from tests.hosts.host import Host

# Nothing here is timed: others may be using the machine.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# How long processes of a test may take to end by themselves after it: an agent needs a moment to notice.
PATIENCE_S = 20.0
SAMPLE = 1 / 4


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A HOME and cache folder for the whole session; the tester's own are never read or written.

    Processes that a module's or the session's own fixtures start must be gone at its end.
    """
    home = tmp_path_factory.mktemp("home")
    mark = uuid.uuid4().hex
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCITQ_TEST_RUN", mark)
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CACHE_HOME", str(home / ".cache"))
        patch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
        patch.delenv("SCITQ_FILE", raising=False)
        yield home
    if left := end_processes_of(mark, home, PATIENCE_S):
        pytest.fail("left behind by fixtures (ended now): " + "; ".join(left), pytrace=False)


@pytest.fixture(autouse=True)
def own_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The test runs in its own folder, and every process that it starts must have ended when it ends."""
    mark = uuid.uuid4().hex
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SCITQ_FILE", raising=False)
    monkeypatch.setenv("SCITQ_TEST_RUN", mark)
    yield
    left = end_processes_of(mark, tmp_path, PATIENCE_S)
    if left:
        pytest.fail("left behind (ended now): " + "; ".join(left), pytrace=False)


@pytest.fixture
def state_file(tmp_path: Path) -> Path:
    """Where this test's state file goes; nothing is there yet."""
    return tmp_path / "lab.scitq"


@pytest.fixture
def workers_may_linger(own_surroundings: None, tmp_path: Path) -> Iterator[None]:
    """For tests of programs that end as a person's do: the local worker they leave waiting for more work is stopped."""
    yield
    from scitq.remote import local

    for folder in sorted(tmp_path.rglob("*.d/local")):
        local.stop(folder)


def end_processes_of(mark: str, folder: Path, patience_s: float) -> list[str]:
    """Wait for the processes that carry the mark or the folder in their environment; end and name those that stay.

    Tasks get an environment of their own without the mark, but their INPUT, OUTPUT and TEMP lie in the folder.
    """
    signs = (b"SCITQ_TEST_RUN=" + mark.encode(), os.fsencode(folder) + b"/")
    deadline = time.monotonic() + patience_s
    while found := _processes_with(signs):
        if time.monotonic() >= deadline:
            break
        time.sleep(0.02)
    for pid in found:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue  # it ended meanwhile; still too late to be in order
    return [f"{pid} {command}" for pid, command in found.items()]


def _processes_with(signs: tuple[bytes, ...]) -> dict[int, str]:
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environ = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue  # gone, or another user's
        if int(entry.name) != os.getpid() and any(sign in environ for sign in signs):
            found[int(entry.name)] = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return found


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What CI draws by SCITQ_SEED, which `.ci/run` prints; elsewhere all are played.

    Of the tests of campaigns every fourth one; where tests are repeated in other surroundings, the share that SCITQ_SHARE says.
    """
    seed = os.environ.get("SCITQ_SEED")
    if not os.environ.get("CI") or seed is None:
        return
    share = float(os.environ.get("SCITQ_SHARE", "1"))
    left_out = [
        item for item in items
        if random.Random(f"{seed} {item.nodeid}").random() > (SAMPLE if item.get_closest_marker("sampled") else share)
    ]  # fmt: skip
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one: nothing may go untested without anybody noticing."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail"):
        _fail_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips itself as a whole."""
    report = yield
    if report.skipped:
        _fail_in_ci(report)
    return report


def _fail_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    if os.environ.get("CI") == "true":
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not accept: {reason}"


# What crash tests print (seeds, how many points were hit) is part of their result: shown though they pass.
_said: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what a crash test printed."""
    if (
        report.when == "call"
        and report.passed
        and report.capstdout
        and any(sign in report.nodeid for sign in ("crash/", "test_kill", "test_model"))
    ):
        _said.append(f"{report.nodeid.rpartition('::')[2]}: {' | '.join(report.capstdout.split(chr(10))).strip(' |')}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show it, and how those failed that were played once more (.ci/run; the plugin itself says only which)."""
    again = terminalreporter.stats.get("rerun", [])
    if again:
        terminalreporter.section("failed once, played once more")
        for report in again:
            terminalreporter.write_line(f"---- {report.nodeid}")
            terminalreporter.write_line(report.longreprtext)
    if _said:
        terminalreporter.section("kill points")
        for line in _said:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def web_server() -> Iterator[WebServer]:
    """A web server."""
    server = WebServer()
    yield server
    server.close()


@pytest.fixture
def web(web_server: WebServer) -> Iterator[WebServer]:
    """It, empty."""
    web_server.reset()
    yield web_server
    web_server.reset()


@pytest.fixture(scope="session")
def dockerd_server() -> Iterator[Dockerd]:
    """A Docker daemon of this process's own."""
    daemon = Dockerd()
    yield daemon
    daemon.close()


@pytest.fixture
def dockerd(dockerd_server: Dockerd, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dockerd]:
    """It, for programs that the test starts; no container may be left there."""
    yield from _lent(dockerd_server, monkeypatch)


@pytest.fixture(scope="session")
def podman_storage() -> Iterator[Podman]:
    """podman with a storage of this process's own."""
    podman = Podman()
    yield podman
    podman.close()


@pytest.fixture(params=["docker", "podman"])
def containers(
    request: pytest.FixtureRequest, dockerd_server: Dockerd, podman_storage: Podman, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Dockerd | Podman]:
    """Either of the two engines, for programs that the test starts; no container may be left there."""
    yield from _lent(dockerd_server if request.param == "docker" else podman_storage, monkeypatch)


@pytest.fixture(scope="session")
def cloud(own_home: Path) -> Iterator[Cloud]:
    """A network for SSH hosts of this process's own, which ssh here knows by their names."""
    sweep()
    cloud = Cloud()
    (own_home / ".ssh").mkdir(mode=0o700, exist_ok=True)
    (own_home / ".ssh" / "config").symlink_to(cloud.folder / "ssh_config")
    yield cloud
    (own_home / ".ssh" / "config").unlink()
    cloud.close()


@pytest.fixture
def host(cloud: Cloud) -> Iterator[Host]:
    """A fresh host with nothing but sshd and this machine's programs."""
    host = cloud.boot()
    yield host
    cloud.delete(host)


def _lent(engine: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in engine.environment.items():
        monkeypatch.setenv(name, value)
    yield engine
    if left := engine.containers():
        engine.run("rm", "-f", *left, is_checked=False)
        pytest.fail(f"containers left behind: {left}", pytrace=False)
