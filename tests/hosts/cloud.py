"""Throw-away SSH hosts (Linux, root): each has network, processes, folders, hostname and disk of its own, and a real sshd.

A `Cloud` is a bridge, a key pair and hosts on it. Everything it makes stands in its manifest before it is made; a cloud whose
maker was killed is removed by `sweep`, and nothing is removed that stands in no manifest. Hosts reach one another and this
machine (`gateway`), nothing else.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.hosts import image
from tests.hosts.host import Facts, Host
from tests.hosts.system import lives, noted, run, until

_CGROUPS = Path("/sys/fs/cgroup")
_PREFIX = "scitq-hosts-"
_OURS = "scitq-hosts"
_NETWORKS = 250
_LAST = 253


def _controllers() -> list[str]:
    """The controllers of cgroup version 1; empty where version 2 is."""
    if (_CGROUPS / "cgroup.controllers").exists():
        return []
    return sorted(
        entry.name
        for entry in _CGROUPS.iterdir()
        if (entry / "tasks").exists() and entry.name != "systemd" and not entry.is_symlink()
    )


class Cloud:
    """Hosts that vanish with it."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder`: of a cloud that was left behind, to close it."""
        self.v1 = _controllers()
        self._lock = threading.RLock()
        self._hosts: dict[str, Host] = {}
        if folder is not None:
            self.folder = folder
            self._read()
            return
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir="/tmp")).resolve()
        self._owner, self._made = noted(os.getpid()), 0
        self.number, self.bridge = 0, ""
        # Who makes the bridge has its network: the name is the reservation.
        for number in random.sample(range(_NETWORKS), _NETWORKS):
            self.number, self.bridge = number, f"sq{number}"
            if Path("/sys/class/net", self.bridge).exists():
                continue
            self.note()
            if run("ip", "link", "add", self.bridge, "type", "bridge", is_checked=False).returncode == 0:
                break
        else:
            self.bridge = ""
            raise AssertionError("no bridge can be made; is this root?")
        run("ip", "addr", "add", f"{self.gateway}/24", "dev", self.bridge)
        run("ip", "link", "set", self.bridge, "up")
        self.key = self.folder / "id_ed25519"
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", self.key)

    # --- manifest ---------------------------------------------------------------------------------------------------------

    def note(self) -> None:
        """Write down what there is, or is about to be."""
        with self._lock:
            told = {
                "owner": self._owner, "number": self.number, "bridge": self.bridge, "made": self._made,
                "hosts": {name: host.as_json() for name, host in self._hosts.items()},
            }  # fmt: skip
            fresh = self.folder / "manifest.new"
            fresh.write_text(json.dumps(told, indent=1))
            fresh.replace(self.folder / "manifest.json")

    def _read(self) -> None:
        told: dict[str, Any] = json.loads((self.folder / "manifest.json").read_text())
        self._owner, self._made = _pair(told["owner"]), told["made"]
        self.number, self.bridge = told["number"], told["bridge"]
        for name, facts in told["hosts"].items():
            for process in ("first", "parent", "cable"):
                facts[process] = _pair(facts[process])
            self._hosts[name] = Host(self, Facts(**facts))

    @property
    def is_abandoned(self) -> bool:
        """Whether its maker is gone."""
        return not lives(self._owner)

    # --- hosts ------------------------------------------------------------------------------------------------------------

    @property
    def gateway(self) -> str:
        """This machine's address on the hosts' network, for servers that they are to reach."""
        return f"10.76.{self.number}.1"

    def boot(
        self,
        name: str | None = None,
        *,
        user: str = "root",
        disk: str | None = None,
        memory: str | None = None,
        sshd: str = "",
        at_boot: str = "",
        keys: image.Keys | None = None,
    ) -> Host:
        """A new host. `disk` and `memory` are limits ("256m"), `sshd` lines of its sshd's configuration, `at_boot` a shell
        script that root runs at each boot; `$home` there is the home of `user`, who is made when there is none. `keys`: what it
        was given before it was started, and `ssh` here knows nothing of."""
        with self._lock:
            self._made += 1
            index = self._made
            name = name or f"h{index}"
            assert name not in self._hosts and index < _LAST, f"{name}: the name is taken, or the network is full"
            facts = Facts(
                name=name,
                ip=f"10.76.{self.number}.{index + 1}",
                netns=f"{self.bridge}h{index}",
                mac=f"02:76:00:{self.number:02x}:00:{index:02x}",
                user=user,
                folder=str(self.folder / "hosts" / name),
                disk=disk,
                memory=memory,
            )
            host = self._hosts[name] = Host(self, facts)
            self.note()
        run("ip", "netns", "add", facts.netns)
        run("ip", "-n", facts.netns, "link", "set", "lo", "up")
        host.wire()
        for place in ("disk", "root"):
            (host.folder / place).mkdir(parents=True)
        if disk is not None:
            facts.mounted = True
            self.note()
            run("mount", "-t", "tmpfs", "-o", f"size={disk},mode=755", "scitq-host", host.folder / "disk")
        names = f"127.0.0.1 localhost\n{host.ip} {name}\n{self.gateway} gateway\n"
        host.key = image.fill(host.folder / "disk", name, names, self.key.with_suffix(".pub"), sshd, at_boot)
        if keys is not None:
            host.key = image.give(host.folder / "disk", keys) or host.key
        else:
            with self._lock:
                with open(self.folder / "known_hosts", "a") as known:
                    known.write(f"{host.ip} {host.key}\n")
                with open(self.folder / "ssh_config", "a") as config:
                    config.write(self.configuration(host))
        host.start()
        return host

    def configuration(self, host: Host, **more: str) -> str:
        """What a user would have in ~/.ssh/config about a host."""
        told = {
            "HostName": host.ip, "User": host.user, "IdentityFile": str(self.key), "IdentitiesOnly": "yes",
            "UserKnownHostsFile": str(self.folder / "known_hosts"), "StrictHostKeyChecking": "yes", **more,
        }  # fmt: skip
        return f"Host {host.name}\n" + "".join(f"    {name} {value}\n" for name, value in told.items())

    def boot_many(self, names: Sequence[str], **how: Any) -> list[Host]:
        """Several hosts, at the same time."""
        with ThreadPoolExecutor(4) as pool:
            return list(pool.map(lambda name: self.boot(name, **how), names))

    def delete(self, host: Host) -> None:
        """End a host and all it has."""
        host.kill()
        host.unwire()
        run("ip", "netns", "del", host.facts.netns, is_checked=False)
        for kind in self._kinds():
            self._remove_group(self.group(kind, host.name))
        if host.facts.mounted:
            disk = host.folder / "disk"
            until(
                "the host's disk to be free",
                lambda: run("umount", disk, is_checked=False).returncode == 0 or not os.path.ismount(disk),
            )
        assert not any(os.path.ismount(host.folder / place) for place in ("disk", "root")), host
        shutil.rmtree(host.folder, ignore_errors=True)
        with self._lock:
            del self._hosts[host.name]
            self.note()

    def close(self) -> None:
        """End all hosts, and what they shared."""
        for host in list(self._hosts.values()):
            self.delete(host)
        if self.bridge:
            run("ip", "link", "del", self.bridge, is_checked=False)
            for kind in self._kinds():
                with contextlib.suppress(OSError):
                    self.group(kind).rmdir()
        shutil.rmtree(self.folder)

    # --- cgroups ----------------------------------------------------------------------------------------------------------

    def _kinds(self) -> list[str]:
        return [*self.v1, "systemd"] if self.v1 else [""]

    def group(self, kind: str, name: str = "") -> Path:
        """A host's cgroup; of version 1, that of one controller."""
        return _CGROUPS / (kind if self.v1 else "") / _OURS / self.bridge / name

    def groups(self, name: str) -> list[Path]:
        """All cgroups of a host, made where they are missing."""
        with self._lock:
            return [self._made_group(kind, name) for kind in self._kinds()]

    def _made_group(self, kind: str, name: str) -> Path:
        group = self.group(kind, name)
        if group.exists():
            return group
        above = (group.parent.parent, group.parent)
        for place in (*above, group):
            place.mkdir(exist_ok=True)
            if not self.v1 and place is not group:
                with contextlib.suppress(OSError):
                    (place / "cgroup.subtree_control").write_text("+memory +pids +cpu")
            elif kind == "cpuset":  # of version 1: it starts empty, and takes nobody in
                for file in ("cpuset.cpus", "cpuset.mems"):
                    (place / file).write_text((place.parent / file).read_text())
        return group

    def _remove_group(self, group: Path) -> None:
        for place, _, _ in os.walk(group, topdown=False):

            def is_gone(place: str = place) -> bool:
                with contextlib.suppress(OSError):
                    os.rmdir(place)
                return not os.path.isdir(place)

            until(f"{place} to be empty", is_gone)


def _pair(told: list[int] | None) -> tuple[int, int] | None:
    return None if told is None else (told[0], told[1])


def sweep() -> None:
    """Remove what killed runs left."""
    for manifest in Path("/tmp").glob(f"{_PREFIX}*/manifest.json"):
        with contextlib.suppress(FileNotFoundError), _locked(manifest.parent) as is_ours:
            if is_ours and (left := Cloud(manifest.parent)).is_abandoned:
                left.close()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Whether nobody else removes it at this moment."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)
