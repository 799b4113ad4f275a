"""Odd hosts, and connections that end: what can be used is used, what cannot says so in a sentence, and nothing is left half done."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scitq.errors import HostUnfit, HostUnreachable, LinkBroken, WorkerError
from scitq.remote import bootstrap, sshlink
from scitq.remote.bootstrap import Step
from scitq.remote.link import Stream
from scitq.remote.ssh import SshRoute
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host
from tests.hosts.system import until

pytestmark = pytest.mark.servers

KEY = "5a" * 32
Booted = Callable[..., Host]
NOISE = """echo 'echo "Welcome to $(hostname)!"; printf "no end of line"; echo "@scitq and more" >&2' > $home/.bashrc
chown "$LOGIN": $home/.bashrc"""
NO_PYTHON = "rm -f /usr/bin/python3* /usr/local/bin/python3* /usr/bin/python"
OLD_PYTHON = f"""{NO_PYTHON}
printf '#!/bin/sh\\n[ "$1" = -V ] && echo Python 3.6.8\\nexit 1\\n' > /usr/bin/python3; chmod 755 /usr/bin/python3"""
READ_ONLY_HOME = "mount --bind $home $home; mount -o remount,bind,ro $home"


@pytest.fixture
def booted(cloud: Cloud) -> Iterator[Booted]:
    """Boots hosts, which are deleted at the end."""
    made: list[Host] = []

    def boot(**how: Any) -> Host:
        made.append(cloud.boot(**how))
        return made[-1]

    yield boot
    for host in made:
        cloud.delete(host)


@contextlib.contextmanager
def route(host: Host, **how: Any) -> Iterator[SshRoute]:
    way = SshRoute(host.name, **{"file_id": "file", "worker": "w1", "key": KEY, **how})
    try:
        yield way
    finally:
        way.close()


def pid(way: SshRoute) -> int:
    """The agent's, as it says itself."""
    with contextlib.closing(way.stream()) as stream:
        found: int = stream.ask("GET", "/ping").json()["pid"]
        return found


def one_agent(host: Host) -> None:
    """Those that were started at the same time and came too late end by themselves."""
    until("all agents but one to end", lambda: len(host.processes(" agent --root")) == 1)


# --- odd hosts ------------------------------------------------------------------------------------------------------------


def test_a_login_that_says_much_is_not_misunderstood(booted: Booted) -> None:
    host = booted(user="alice", at_boot=NOISE)
    for how in ("socket", "dial", "port"):
        with route(host, how=how) as way:
            way.ensure()
            assert pid(way) and way.how == how


def test_a_login_whose_shell_ends_at_once_is_told_from_a_worker(booted: Booted) -> None:
    host = booted(user="alice", at_boot="echo 'echo not today; exit 3' > $home/.bashrc")
    with route(host) as way, pytest.raises(HostUnfit, match=r"does not run what it is asked.*not today"):
        way.ensure()


def test_a_home_that_cannot_be_written_is_gone_around(booted: Booted) -> None:
    host = booted(user="alice", at_boot=READ_ONLY_HOME)
    uid = host.said("id -u alice")
    with route(host) as way:
        way.ensure()
        assert way.root == f"/var/tmp/scitq-{uid}/file/w1" and pid(way)
    host.run("mount -o remount,bind,rw /home/alice")
    with route(host) as way:
        way.ensure()
        assert way.root == f"/var/tmp/scitq-{uid}/file/w1"  # where it is already


def test_a_folder_that_another_user_put_there_is_not_taken(booted: Booted) -> None:
    host = booted(
        user="alice", at_boot=f"{READ_ONLY_HOME}; id bob || useradd -m bob; mkdir -p /var/tmp/scitq-$(id -u alice)"
    )
    with route(host) as way:
        way.ensure()
        assert way.root == f"/tmp/scitq-{host.said('id -u alice')}/file/w1"


def test_what_a_host_lacks_is_said_in_a_sentence(booted: Booted) -> None:
    bare, old = booted(at_boot=NO_PYTHON), booted(at_boot=OLD_PYTHON)
    with route(bare) as way, pytest.raises(HostUnfit, match=r"has no Python 3\.10 or later\. Install one"):
        way.ensure()
    with route(old) as way, pytest.raises(HostUnfit, match=r"has no Python 3\.10 or later; it has Python 3\.6\.8"):
        way.ensure()


def test_a_host_on_which_a_first_task_fails_says_why_and_is_tried_again(booted: Booted) -> None:
    host = booted(at_boot="mount -t tmpfs -o size=64k tmpfs /tmp; head -c 1m /dev/zero > /tmp/full || true")
    with route(host) as way:
        with pytest.raises(
            HostUnfit, match=r"could write nothing in /tmp \(No space left on device\).*make room there"
        ):
            way.ensure()
        assert host.said(f"ls -d {way.root or '/root/.scitq/file/w1'}/trial 2>/dev/null || echo none") == "none"
        assert host.said("ls /tmp") == "full"
        host.run("rm /tmp/full")
        steps: list[Step] = []
        with route(host, note=steps.append) as again:
            again.ensure()
        assert "smoke" in [step.name for step in steps]


def test_a_folder_in_which_no_program_runs_is_gone_around_or_refused(booted: Booted) -> None:
    host = booted(at_boot="mount --bind $home $home; mount -o remount,bind,noexec $home")
    with (
        route(host, folder="~/here") as way,
        pytest.raises(HostUnfit, match=r"no program can be run from there.*noexec"),
    ):
        way.ensure()
    with route(host) as way:
        way.ensure()
        assert way.root == "/var/tmp/scitq-0/file/w1" and pid(way)
    moved = "/var/tmp/scitq-0/file/w1"  # it is there already, and is not looked at again before a task runs
    host.run(f"mount --bind {moved} {moved}; mount -o remount,bind,noexec {moved}; rm {moved}/tried")
    with route(host) as way, pytest.raises(HostUnfit, match=r"could not run a program in .*noexec\?"):
        way.ensure()


def test_what_the_user_said_of_a_host_is_held_to(booted: Booted) -> None:
    host = booted(disk="24m", at_boot="mkdir -p /data; ln -sf /usr/bin/python3 '/opt/it'\"'\"'s python'")
    with route(host, python="/bin/true x") as way, pytest.raises(HostUnfit, match=r"/bin/true x is no Python 3\.10"):
        way.ensure()
    with (
        route(host, folder="/proc/1") as way,
        pytest.raises(HostUnfit, match=r"no folder that can be written.*/proc/1"),
    ):
        way.ensure()
    with route(host, folder="~/my workers", python="/opt/it's python") as way:
        way.ensure()
        assert way.root == "/root/my workers/file/w1" and pid(way)
        way.remove()
    host.run("head -c 100m /dev/zero > /data/large", is_checked=False)
    with route(host, folder="/data") as way, pytest.raises(HostUnfit, match="No space left"):
        way.ensure()


def test_a_host_that_ends_what_its_users_leave_running_is_told_of(booted: Booted) -> None:
    host = booted(
        user="alice",
        at_boot="mkdir -p /run/systemd/system /etc/systemd/logind.conf.d\n"
        "printf '[Login]\\nKillUserProcesses=yes\\n' > /etc/systemd/logind.conf.d/strict.conf",
    )
    steps: list[Step] = []
    with route(host, note=steps.append) as way:
        way.ensure()
        assert "loginctl enable-linger" in steps[1].text
        way.remove()
    host.run("mkdir -p /var/lib/systemd/linger; touch /var/lib/systemd/linger/alice")
    with route(host, note=steps.append) as way:
        way.ensure()
        assert "linger" not in steps[-4].text + steps[-3].text


def test_names_are_folders_whatever_they_are(host: Host) -> None:
    for name in ("..", "a/é ' \" $x", "-rf"):
        with route(host, worker=name) as way:
            way.ensure()
            assert way.root is not None and way.root.count("/") == 4, way.root
            assert pid(way)
            way.remove()
    assert host.said("ls -A /root/.scitq/file") == ""


def test_a_path_that_is_too_long_for_sshd_is_dialled(host: Host) -> None:
    with route(host, folder="/root/" + "long" * 30) as way:
        way.ensure()
        assert way.how == "dial" and pid(way)


# --- installing -----------------------------------------------------------------------------------------------------------

# A package manager that cannot reach anything, of course: what it is asked for is written down.
APT = """for name in docker podman apptainer singularity rclone; do rm -f /usr/bin/$name /usr/local/bin/$name; done
cat > /usr/local/sbin/apt-get << 'X'
#!/bin/sh
echo "$*" >> /var/log/asked
case "$*" in *install*) printf '#!/bin/sh\n' > /usr/local/bin/docker; chmod 755 /usr/local/bin/docker;; esac
X
chmod 755 /usr/local/sbin/apt-get"""


def test_what_a_host_lacks_is_installed_once_when_that_is_asked_for(booted: Booted, tmp_path: Path) -> None:
    host = booted(at_boot=APT)
    rclone = tmp_path / "rclone"
    rclone.write_bytes(b"#!/bin/sh\necho rclone v1.99.0\n" + b"#" * 3_000_000)
    steps: list[Step] = []
    with route(host, note=steps.append, installs=lambda: True, rclone=lambda: str(rclone)) as way:
        way.ensure()
        assert [step.text for step in steps if step.name in ("install", "rclone")] == [
            "docker installed",
            "rclone pushed",
        ]
        assert way.facts["engine"] == "docker"
    assert host.said("/root/.scitq/bin/rclone version") == "rclone v1.99.0"
    assert "install -y -qq --no-install-recommends docker.io" in host.said("cat /var/log/asked")
    agent = host.said("pgrep -of ' agent --root'")
    assert "/root/.scitq/bin" in host.said(f"tr '\\0' '\\n' < /proc/{agent}/environ | grep ^PATH=")

    steps.clear()
    with route(host, note=steps.append, installs=lambda: True, rclone=lambda: str(rclone)) as way:
        way.ensure()
        assert [step.text for step in steps if step.name in ("install", "rclone")] == ["docker was there"]
    assert host.said("grep -c install /var/log/asked") == "1"


def test_who_may_not_install_is_told_so_and_what_does_not_run_is_not_kept(booted: Booted, tmp_path: Path) -> None:
    host = booted(user="alice", at_boot=f"{APT}\nrm -f /usr/bin/sudo")
    with route(host, installs=lambda: True) as way, pytest.raises(HostUnfit, match="needs root rights there, or sudo"):
        way.ensure()
    host.run("printf '#!/bin/sh\\n' > /usr/local/bin/podman; chmod 755 /usr/local/bin/podman")
    rclone = tmp_path / "rclone"
    rclone.write_bytes(b"for another machine")
    with (
        route(host, installs=lambda: True, rclone=lambda: str(rclone)) as way,
        pytest.raises(HostUnfit, match="rclone could not be put there"),
    ):
        way.ensure()
    assert host.said("ls /home/alice/.scitq/bin") == ""


# --- interrupted ----------------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    """By whoever was told of a step."""


@pytest.mark.sampled
def test_preparing_that_is_broken_off_after_any_step_is_completed_by_the_next(booted: Booted) -> None:
    host = booted(user="alice")
    for last in ("connect", "probe", "push", "start", "smoke", "answer"):

        def note(step: Step, last: str = last) -> None:
            if step.name == last:
                raise Interrupted

        with route(host, note=note) as way, pytest.raises(Interrupted):
            way.ensure()
        with route(host) as way:
            way.ensure()
            assert pid(way)
            one_agent(host)
            way.remove()


def test_what_a_kill_on_the_host_left_is_no_obstacle(host: Host) -> None:
    host.run("mkdir -p /root/.scitq/file/w1; echo x > /root/.scitq/file/w1/agent-0123456789abcdef.pyz.12.new")
    with route(host) as way:
        way.ensure()
        program = way._program[1] if way._program else ""
        host.run("pkill -9 -f scitq; sleep 0.1; pkill -9 -f scitq", is_checked=False)
        host.run(f"head -c 1000 {program} > {program}.half; mv {program}.half {program}")
        way.ensure()
        assert pid(way)


def test_two_who_prepare_a_host_at_once_get_the_same_agent(host: Host) -> None:
    found: list[int | Exception] = []

    def prepare() -> None:
        try:
            with route(host) as way:
                way.ensure()
                found.append(pid(way))
        except Exception as problem:
            found.append(problem)

    threads = [threading.Thread(target=prepare) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1, found
    one_agent(host)


# --- connections that end -------------------------------------------------------------------------------------------------


def ends(stream: Stream) -> bool:
    """Whether it is known that the stream has ended."""
    try:
        stream.read()
    except LinkBroken:
        return True
    return False


@pytest.mark.parametrize("how", ["cut", "freeze", "kill"])
def test_a_connection_that_dies_without_a_word_is_noticed_and_made_again(
    host: Host, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with route(host) as way:
        way.ensure()
        first = pid(way)
        stream = way.stream()
        stream.queue("GET", "/events?wait=600&from=0&journal=")
        stream.flush()
        monkeypatch.setattr(sshlink, "ASK_S", 0.2)
        monkeypatch.setattr(sshlink, "SILENT_S", 1.0)
        pump = way._main.pump if way._main is not None else None
        assert pump is not None and pump.is_alive
        pump._ring()
        hurt: dict[str, Callable[[], None]] = {"cut": host.cut, "freeze": host.freeze, "kill": host.kill}
        hurt[how]()
        until("the end of the stream", lambda: ends(stream))
        with pytest.raises(LinkBroken):
            way.stream()
        monkeypatch.undo()
        cure: dict[str, Callable[[], None]] = {
            "cut": host.heal,
            "freeze": lambda: host.freeze(False),
            "kill": host.start,
        }
        cure[how]()

        def is_back() -> bool:
            with contextlib.suppress(HostUnreachable, LinkBroken):
                way.ensure()
                return True
            return False

        until("the host to be back", is_back)
        assert (pid(way) == first) is (how != "kill")
        stream.close()


def test_bytes_wait_for_their_reader_and_others_do_not(host: Host) -> None:
    with route(host) as way:
        way.ensure()
        assert way._main is not None
        channel = way._main.transport.open_session()
        channel.exec_command("cat")
        sock = way._main.pump.carry(channel)
        data = bytes(range(256)) * 4096 * 12  # 12 MB: more than all windows and buffers together
        sender = threading.Thread(target=sock.sendall, args=(data,))
        sender.start()
        for _ in range(20):
            assert pid(way)
        got = bytearray()
        while len(got) < len(data):
            got += sock.recv(1 << 20)
        sender.join()
        sock.close()
        assert got == data
        until("the channel's end", lambda: way._main is not None and way._main.pump.count == 0)


def test_what_was_closed_is_closed(host: Host) -> None:
    before = threading.active_count()
    with route(host, how="dial") as way:
        way.ensure()
        stream = way.stream()
    assert ends(stream)
    stream.close()
    with pytest.raises(WorkerError):
        way.ensure()
    until("the threads' end", lambda: threading.active_count() <= before)  # others may have ended, too
    until("the end of what dialled", lambda: not host.processes(" dial "))


def test_who_closes_a_way_does_not_wait_for_a_host_that_says_nothing(host: Host) -> None:
    def note(step: Step) -> None:
        if step.name == "push":
            host.freeze()

    found: list[Exception] = []
    with route(host, note=note) as way:

        def prepare() -> None:
            try:
                way.ensure()
            except WorkerError as problem:
                found.append(problem)

        thread = threading.Thread(target=prepare)
        thread.start()
        until("its standstill", lambda: way._main is not None and bool(host.is_running) and _is_frozen(host))
        way.close()
        thread.join(30)  # it would wait for two minutes
        assert not thread.is_alive() and isinstance(found[0], LinkBroken), found
    host.freeze(False)


def _is_frozen(host: Host) -> bool:
    group = host._cloud.group("freezer", host.name)
    file = group / ("freezer.state" if host._cloud.v1 else "cgroup.freeze")
    return file.read_text().strip() in ("FROZEN", "1")


class Chatter:
    """A program that says everything but what it is asked for."""

    def send(self, data: bytes) -> None:
        pass

    def line(self, timeout_s: float) -> bytes | None:
        return b"and another thing:"


def test_a_host_that_talks_on_and_on_is_left() -> None:
    with pytest.raises(HostUnreachable, match=r"h talks, but has not said what it was asked for within 0 s"):
        bootstrap._answer(Chatter(), "h", "@mark", 0.1)
    with pytest.raises(HostUnreachable):
        list(bootstrap.lines(Chatter(), "h", 0.1))
