"""A Docker daemon of the tests' own, with a tiny image that nothing is pulled for, and a registry with a password.

It touches nothing of the system's: own data, own socket, no bridge, no firewall rule. Containers have no network.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

IMAGE = "busybox:test"
USER, PASSWORD = "user", "a-long-secret-password"
DEADLINE_S = 60.0


def wait_until(is_done: Callable[[], Any], what: str) -> Any:
    """Wait for something, patiently."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := is_done()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)
    return found


def end(process: subprocess.Popen[bytes]) -> None:
    """TERM, and KILL for who does not listen."""
    process.terminate()
    try:
        process.wait(DEADLINE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Program:
    """A container engine's program, with a folder of its own."""

    name: str
    folder: Path
    environment: dict[str, str]

    def run(self, *words: str, is_checked: bool = True, **more: Any) -> subprocess.CompletedProcess[bytes]:
        """The program, told to use what is there."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run([self.name, *words], env=environment, capture_output=True, check=False, **more)
        assert not is_checked or done.returncode == 0, (words, done.stderr.decode())
        return done

    def said(self, *words: str) -> str:
        """What it answers."""
        return self.run(*words).stdout.decode().strip()

    def make_image(self, name: str, *changes: str) -> str:
        """An image of a shell and its tools, made here; its id."""
        return make_image([self.name], name, changes, {**os.environ, **self.environment})

    def containers(self) -> list[str]:
        """The names of all containers, running or not."""
        return self.said("ps", "-a", "--format", "{{.Names}}").split()

    def mounts(self) -> list[str]:
        """What is mounted in its folder."""
        return mounts_below(self.folder)

    def processes(self) -> list[str]:
        """The command lines of what has its folder in them: one for each container, and the daemon's own."""
        return processes_of(self.folder)


class Dockerd(Program):
    """One private daemon."""

    name = "docker"

    def __init__(self, *, live_restore: bool = False) -> None:
        # A socket's path has to be short.
        self.folder = Path(tempfile.mkdtemp(prefix="scitq-dockerd-", dir="/tmp"))
        self.socket = self.folder / "docker.sock"
        self.live_restore = live_restore
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.folder / "config")}
        self.start()
        self.make_image(IMAGE)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        # After a kill: a process that nobody reaps counts as one that lives.
        (self.folder / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)
        words: list[str | Path] = ["dockerd", "--data-root", self.folder / "data", "--exec-root", self.folder / "exec",
                 "--pidfile", self.folder / "pid", "-H", f"unix://{self.socket}", "--bridge", "none", "--iptables=false",
                 "--ip6tables=false", "--ip-forward=false", "--ip-masq=false"]  # fmt: skip
        if self.live_restore:
            words.append("--live-restore")
        with open(self.folder / "log", "ab") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, (self.folder / "log").read_text()[-3000:]
            return self.run("version", is_checked=False).returncode == 0

        wait_until(answers, "the Docker daemon")

    def stop(self) -> None:
        """End it; with `live_restore`, containers go on."""
        assert self.process is not None
        end(self.process)
        self.process = None

    def close(self) -> None:
        """End it and all that it has; nothing stays."""
        with contextlib.suppress(Exception):
            if names := self.containers():
                self.run("rm", "-f", *names, is_checked=False)
        if self.process is not None:
            end(self.process)
        for place in reversed(self.mounts()):
            subprocess.run(["umount", "-l", place], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


class Podman(Program):
    """podman with storage of its own, and what it needs on machines like this one."""

    name = "podman"

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="scitq-podman-", dir="/tmp"))
        self.environment = {
            "CONTAINERS_CONF": f"{self.folder}/containers.conf", "CONTAINERS_STORAGE_CONF": f"{self.folder}/storage.conf",
            "SCITQ_CONTAINER_ENGINE": "podman",
        }  # fmt: skip
        (self.folder / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=20000:20000", "nproc=4000:4000"]\nnetns = "none"\n'
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        )
        (self.folder / "storage.conf").write_text(
            f'[storage]\ndriver = "overlay"\ngraphroot = "{self.folder}/graph"\nrunroot = "{self.folder}/run"\n'
        )
        self.make_image(IMAGE)

    def close(self) -> None:
        """End all that it has; nothing stays."""
        with contextlib.suppress(Exception):
            if names := self.containers():
                self.run("rm", "-f", "--time", "0", *names, is_checked=False)
        for place in reversed(self.mounts()):
            subprocess.run(["umount", "-l", place], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


Engine = Dockerd | Podman


def make_image(engine: Sequence[str], name: str, changes: Sequence[str], environment: dict[str, str]) -> str:
    """Import the statically linked busybox as an image."""
    with tempfile.TemporaryDirectory() as folder:
        top = Path(folder)
        for each in ("bin", "etc", "tmp"):
            (top / each).mkdir()
        (top / "tmp").chmod(0o1777)
        shutil.copy("/bin/busybox", top / "bin")
        names = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True).stdout.split()
        for each in names:
            if each != "busybox":
                (top / "bin" / each).symlink_to("busybox")
        (top / "etc" / "passwd").write_text("root:x:0:0::/:/bin/sh\n")
        archive = Path(folder + ".tar")
        subprocess.run(["tar", "-C", folder, "-cf", archive, "."], check=True)
        options = [word for change in changes for word in ("-c", change)]
        try:
            done = subprocess.run(
                [*engine, "import", *options, str(archive), name], env=environment, capture_output=True, check=False
            )
        finally:
            archive.unlink()
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()


def processes_of(folder: Path) -> list[str]:
    """The command lines with a folder in them, but for those of the engines' programs, which come and go."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return sorted(words for words in found if str(folder) in words and not words.startswith(("docker ", "podman ")))


def mounts_below(folder: Path) -> list[str]:
    """The mount points in a folder."""
    places = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [place for place in places if place.startswith(f"{folder}/")]


class Registry:
    """Debian's docker-registry on loopback, which daemons take for one that needs no TLS."""

    def __init__(self, folder: Path, *, has_password: bool = True) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.host = f"127.0.0.1:{self.port}"
        told = ["version: 0.1", "log: {level: info}", "storage:", f"  filesystem: {{rootdirectory: {folder}/data}}",
                "  delete: {enabled: true}", f"http: {{addr: \"{self.host}\"}}"]  # fmt: skip
        if has_password:
            users = subprocess.run(["htpasswd", "-Bbn", USER, PASSWORD], capture_output=True, check=True).stdout
            (folder / "users").write_bytes(users)
            told.append(f"auth: {{htpasswd: {{realm: tests, path: {folder}/users}}}}")
        (folder / "registry.yml").write_text("\n".join(told) + "\n")
        with open(folder / "registry.log", "ab") as log:
            self.process = subprocess.Popen(
                ["docker-registry", "serve", str(folder / "registry.yml")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

        def answers() -> bool:
            assert self.process.poll() is None, (folder / "registry.log").read_text()[-2000:]
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5):
                return True
            return False

        wait_until(answers, "the registry")

    @property
    def auth(self) -> dict[str, Any]:
        """The entry of a config.json for it."""
        import base64

        return {self.host: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}

    def push(self, dockerd: Dockerd, image: str, name: str) -> str:
        """Bring an image of a daemon there, and forget it in the daemon; its digest."""
        config = self.folder / "config"
        config.mkdir(exist_ok=True)
        (config / "config.json").write_text(json.dumps({"auths": self.auth}))
        whole = f"{self.host}/{name}"
        dockerd.run("tag", image, whole)
        said = dockerd.run("--config", str(config), "push", whole).stdout.decode()
        dockerd.run("rmi", whole)
        return next(word for word in said.split() if word.startswith("sha256:"))

    def log(self) -> str:
        """What it was asked."""
        return (self.folder / "registry.log").read_text()

    def close(self) -> None:
        """End it."""
        end(self.process)


@contextlib.contextmanager
def closing(daemon: Any) -> Iterator[Any]:
    """For fixtures."""
    try:
        yield daemon
    finally:
        daemon.close()


def kill(pid: int) -> None:
    """kill -9, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not os.path.exists(f"/proc/{pid}") or " Z " in _stat(pid), f"the end of {pid}")


def _stat(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return " Z "
