"""One host of these tests: a machine of its own from outside, with power, a cable, a console, and faults of all of them."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.hosts import image
from tests.hosts.system import DEADLINE_S, end, lives, noted, run, until

if TYPE_CHECKING:
    from tests.hosts.cloud import Cloud


@dataclass
class Facts:
    """What must be known of a host to remove it; in the cloud's manifest before it is made."""

    name: str
    ip: str
    netns: str
    mac: str
    user: str
    folder: str
    disk: str | None = None
    memory: str | None = None
    mounted: bool = False
    # Processes, as pid and start time: the host's pid 1, who waits for it, who carries its frames on a slow cable.
    first: tuple[int, int] | None = None
    parent: tuple[int, int] | None = None
    cable: tuple[int, int] | None = None


class Host:
    """It boots, is stopped, killed, rebooted, frozen, cut off, slowed down; from the laptop's side a real machine."""

    def __init__(self, cloud: Cloud, facts: Facts) -> None:
        self._cloud, self.facts = cloud, facts
        self.name, self.ip, self.user = facts.name, facts.ip, facts.user
        self.folder = Path(facts.folder)
        self.key = ""

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.ip}>"

    @property
    def is_running(self) -> bool:
        """Whether its pid 1 lives."""
        return lives(self.facts.first)

    # --- console ----------------------------------------------------------------------------------------------------------

    def run(self, command: str, *, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of root's on its console, which works without its network."""
        assert self.facts.first is not None, f"{self} is off"
        groups = " ".join(map(str, self._cloud.groups(self.name)))
        return run("sh", "-c", image.CONSOLE, "sh", groups, self.facts.first[0], command, is_checked=is_checked)

    def said(self, command: str) -> str:
        """What a command says there."""
        return self.run(command).stdout.strip()

    def processes(self, sign: str = "") -> list[str]:
        """The command lines on it that have a text in them, but for the console's own."""
        lines = self.said("ps axww -o pid=,args=").splitlines()
        return [line.strip() for line in lines if sign in line and "ps axww" not in line]

    # --- power ------------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Boot it, and wait until sshd greets."""
        if not self.is_running:
            self._boot()
        self.wait()

    def kill(self) -> None:
        """Pull the plug. The cable goes first: as in a real power cut nobody hears a word of it."""
        self.plug(False)
        end(self.facts.first)
        until(f"the end of {self.name}", lambda: not self.is_running)
        end(self.facts.parent)
        self.facts.first = self.facts.parent = None
        self._cloud.note()

    def stop(self) -> None:
        """Shut it down in order: its programs are asked to end, and close their connections."""
        self.run("trap '' TERM; kill -TERM -1; sleep 0.5", is_checked=False)
        self.kill()

    def reboot(self) -> None:
        """Plug out, plug in: another boot id, /tmp and /run empty, the disk as it was."""
        self.kill()
        self.start()

    def freeze(self, is_frozen: bool = True) -> None:
        """As a hypervisor's pause, or a laptop's sleep."""
        group = self._cloud.group("freezer", self.name)
        if self._cloud.v1:
            (group / "freezer.state").write_text("FROZEN" if is_frozen else "THAWED")
            until("the freezer", lambda: (group / "freezer.state").read_text().strip() != "FREEZING")
        else:
            (group / "cgroup.freeze").write_text("1" if is_frozen else "0")

    def wait(self) -> None:
        """Until sshd greets."""

        def greets() -> bool:
            assert self.is_running, f"{self} ended at its boot:\n{(self.folder / 'console.log').read_text()[-2000:]}"
            try:
                with socket.create_connection((self.ip, 22), 2) as connection:
                    return connection.recv(4) == b"SSH-"
            except OSError:
                return False

        until(f"{self.name} to greet", greets)

    # --- network ----------------------------------------------------------------------------------------------------------

    def plug(self, is_in: bool) -> None:
        """The cable in or out."""
        run("ip", "link", "set", self.facts.netns, "up" if is_in else "down", is_checked=is_in)

    def cut(self, how: str = "drop") -> None:
        """Nothing passes (drop), or one way only (in, out: that way is closed), or no new connections (new), or TCP is
        answered with resets (reset)."""
        self.heal()
        rules = {
            "drop": ("INPUT ! -i lo -j DROP", "OUTPUT ! -o lo -j DROP"),
            "in": ("INPUT ! -i lo -j DROP",),
            "out": ("OUTPUT ! -o lo -j DROP",),
            "new": ("INPUT ! -i lo -p tcp --syn -j DROP",),
            "reset": ("INPUT ! -i lo -p tcp -j REJECT --reject-with tcp-reset",),
        }
        for rule in rules[how]:
            self._iptables("-A", *rule.split())

    def heal(self) -> None:
        """Undo a cut."""
        self._iptables("-F", "INPUT")
        self._iptables("-F", "OUTPUT")

    def _iptables(self, *words: str) -> None:
        run("ip", "netns", "exec", self.facts.netns, "iptables", "-w", *words)

    def shape(self, *, delay_ms: float = 0, loss: float = 0, rate: float = 0) -> None:
        """One-way delay, loss in per cent, rate in bytes a second; nothing: the fast cable again. Connections stay."""
        asked = self.folder / "cable.json"
        fresh = asked.with_suffix(".new")
        how = {"delay_ms": delay_ms, "loss": loss, "rate": rate}
        fresh.write_text(json.dumps(how))
        fresh.replace(asked)
        if any(how.values()) and lives(self.facts.cable):
            end(self.facts.cable, signal.SIGHUP)
        elif any(how.values()) or self.facts.cable:
            self.unwire()
            self.wire(is_slow=any(how.values()))

    def wire(self, *, is_slow: bool = False) -> None:
        """Connect it to its cloud's network."""
        netns, outer = self.facts.netns, self.facts.netns
        if is_slow:
            program = [sys.executable, "-m", "tests.hosts.wire", outer, netns, str(self.folder / "cable.json")]
            with open(self.folder / "cable.log", "ab") as log:
                cable = subprocess.Popen(
                    program,
                    cwd=Path(__file__).parents[2],
                    env={"PATH": os.environ["PATH"]},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self.facts.cable = noted(cable.pid)
            self._cloud.note()
            threading.Thread(target=cable.wait, daemon=True).start()
            until("the slow cable", lambda: self._has("eth0") or cable.poll() is not None)
        else:
            run("ip", "link", "add", outer, "type", "veth", "peer", "name", "eth0", "netns", netns)
        run("ip", "link", "set", outer, "master", self._cloud.bridge, "up")
        run("ip", "-n", netns, "link", "set", "eth0", "address", self.facts.mac, "up")
        run("ip", "-n", netns, "addr", "add", f"{self.ip}/24", "dev", "eth0")

    def unwire(self) -> None:
        """Take its cable away."""
        if self.facts.cable is not None:
            end(self.facts.cable)
            until("the end of the slow cable", lambda: not lives(self.facts.cable) and not self._has("eth0"))
            self.facts.cable = None
            self._cloud.note()
        else:
            run("ip", "link", "del", self.facts.netns, is_checked=False)

    def _has(self, device: str) -> bool:
        return run("ip", "-n", self.facts.netns, "link", "show", device, is_checked=False).returncode == 0

    # --- boot -------------------------------------------------------------------------------------------------------------

    def _boot(self) -> None:
        groups = self._cloud.groups(self.name)
        self.plug(True)
        if self.facts.memory:
            limit = "memory.limit_in_bytes" if self._cloud.v1 else "memory.max"
            (self._cloud.group("memory", self.name) / limit).write_text(self.facts.memory)
        environment = {
            "PATH": os.environ["PATH"], "CGROUPS": " ".join(map(str, groups)), "V1": " ".join(self._cloud.v1),
            "NETNS": self.facts.netns, "NAME": self.name, "DISK": f"{self.folder}/disk", "PLACE": f"{self.folder}/root",
            "LOGIN": self.user, "BOOT": image.BOOT, "TMP_SIZE": self.facts.disk or "50%",
        }  # fmt: skip
        with open(self.folder / "console.log", "ab") as log:
            parent = subprocess.Popen(
                ["sh", "-ec", image.LAUNCH],
                env=environment,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.facts.parent = noted(parent.pid)
        self._cloud.note()

        def child() -> int:
            assert parent.poll() is None, (self.folder / "console.log").read_text()[-2000:]
            try:
                is_inside = os.readlink(f"/proc/{parent.pid}/exe").endswith("/unshare")
                children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
            except OSError:
                return 0
            return int(children[0]) if is_inside and children else 0

        self.facts.first = noted(until(f"pid 1 of {self.name}", child, DEADLINE_S))
        self._cloud.note()
        threading.Thread(target=parent.wait, daemon=True).start()  # so that no corpse of it stays

    def as_json(self) -> dict[str, Any]:
        """For the manifest."""
        return asdict(self.facts)
