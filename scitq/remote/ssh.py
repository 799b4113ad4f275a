"""The way to a worker on another machine: one SSH connection, over which its agent is started and talked to.

Byte streams to the agent go by forwarding of its Unix socket; where the server forbids that, through a small program on the host
(`dial`); where that is forbidden too, to a port of the host's loopback, where every request shows a token. Connecting and
logging in is `sshlogin`, carrying bytes `sshlink`, what is done on a new host `bootstrap`.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import shlex
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import paramiko

from scitq.errors import HostError, HostUnfit, HostUnreachable, LinkBroken, WorkerError
from scitq.remote import bootstrap, hostkeys, installing, sshconfig, sshlogin
from scitq.remote.agent import VERSION, token
from scitq.remote.agent.__main__ import FLAGS
from scitq.remote.agent.starting import DIALLED
from scitq.remote.bootstrap import Note, Step
from scitq.remote.link import Stream
from scitq.remote.sshlink import Pump
from scitq.remote.sshlogin import Ask

WAYS = ("socket", "dial", "port")
ANSWER_S = 20.0
LONGEST_SOCKET = 107
"""Bytes of a path that sshd can connect to."""
_LINE_LIMIT = 1 << 20


class _Connection:
    """One login, with all that goes over it."""

    def __init__(self, place: sshconfig.Place, ask: Ask | None) -> None:
        self._way = sshlogin.connect(place, ask)
        self.transport = self._way.transport
        self.pump = Pump(self.transport)

    @property
    def is_alive(self) -> bool:
        """Whether it still is one."""
        return self.pump.is_alive

    def close(self) -> None:
        """End it, and those that it goes through."""
        self.pump.close()
        self._way.close()


class _Session:
    """A program that runs on the host: bootstrap's `Talk`."""

    def __init__(self, host: str, channel: paramiko.Channel, command: str) -> None:
        self._host, self.channel = host, channel
        self._inbox = b""
        self._is_over = False
        channel.settimeout(ANSWER_S)
        try:
            channel.exec_command(command)
        except (paramiko.SSHException, EOFError, OSError) as problem:
            channel.close()
            raise HostUnfit(f"{host} does not run commands over SSH: {problem}.", host=host) from problem

    def send(self, data: bytes) -> None:
        """All of it."""
        try:
            self.channel.settimeout(bootstrap.PUSH_S)
            self.channel.sendall(data)
        except OSError as problem:
            if not self.channel.closed and not self.channel.eof_received:
                raise LinkBroken(f"the connection to {self._host} ended: {problem}.") from problem
            # The program ended before it had read all: what it said tells why.

    def line(self, timeout_s: float) -> bytes | None:
        """The next line of its output; None at the end."""
        deadline = time.monotonic() + timeout_s
        while b"\n" not in self._inbox and len(self._inbox) < _LINE_LIMIT:
            try:
                self.channel.settimeout(max(0.01, deadline - time.monotonic()))
                piece = self.channel.recv(1 << 16)
            except TimeoutError:
                raise HostUnreachable(
                    f"{self._host} does not answer within {timeout_s:.0f} s.", host=self._host
                ) from None
            if not piece:
                if not self.channel.get_transport().is_active():
                    raise LinkBroken(f"the connection to {self._host} ended.")
                if not self._inbox and not self._is_over:
                    self._is_over, self._inbox = True, self._errors()
                if not self._inbox:
                    return None
                piece = b"\n"
            self._inbox += piece
        line, _, self._inbox = self._inbox.partition(b"\n")
        return line

    def _errors(self) -> bytes:
        """What a program that has ended said of it."""
        said = b""
        with contextlib.suppress(TimeoutError):
            self.channel.settimeout(1.0)
            while len(said) < _LINE_LIMIT and (piece := self.channel.recv_stderr(1 << 16)):
                said += piece
        return said

    def rest(self) -> bytes:
        """What has come after the last line."""
        left, self._inbox = self._inbox, b""
        return left


class SshRoute:
    """To the agent of one worker on one host. Methods block, and may be called from several threads."""

    def __init__(
        self,
        address: str,
        *,
        file_id: str,
        worker: str,
        key: str,
        folder: str | None = None,
        python: str | None = None,
        root: str | None = None,
        how: str | None = None,
        linger_s: float = 3600.0,
        ask: Ask | None = None,
        note: Note | None = None,
        installs: Callable[[], bool] = lambda: False,
        rclone: Callable[[], str | None] = lambda: None,
        place: sshconfig.Place | None = None,
    ) -> None:
        """`address` as `ssh` takes it; `key` (hexadecimal) is the state file's, by which agents know their driver.

        `folder`: where workers live on the host; `root`: where this one was found before; `how`: one of WAYS, and no other.
        `ask` asks the user for a passphrase; `note` hears of each step that was done. `installs`: whether what the host lacks is
        to be installed; `rclone`: this machine's, to be put there. `place`: where that is, if the user's SSH configuration is not to
        be asked.
        """
        self.address, self._place = address, place
        self._below = f"{_part(file_id)}/{_part(worker)}"
        self._token = hmac.new(bytes.fromhex(key), self._below.encode(), hashlib.sha256).hexdigest()
        self._headers = token.header(self._token)
        self._folder, self._python, self._linger_s = folder, python, linger_s
        self._ask, self._note = ask, note or (lambda _: None)
        self._installs, self._rclone = installs, rclone
        self._wanted = how
        self._lock = threading.RLock()
        self._bringing = threading.Lock()
        self._main: _Connection | None = None
        self._others: list[_Connection] = []
        self._is_closed = False
        self._program: tuple[str, str] | None = None  # its Python, and the bundle
        self._port: int | None = None
        self.host = address
        self.root = root
        self.how = how or ""
        self.facts: dict[str, Any] = {}

    # --- what routes do ---------------------------------------------------------------------------------------------------

    def ensure(self) -> None:
        """See that the agent runs, and find a way to it.

        Raises:
            HostError: it cannot be reached, or no agent can live there.
            LinkBroken: the connection ended meanwhile.
        """
        with self._lock:
            is_fresh = self._connect()
            try:
                self._reach()
            except (LinkBroken, HostUnreachable):
                if is_fresh:
                    raise
                # An old connection is often found dead only when it is used.
                self._disconnect()
                self._connect()
                self._reach()

    def _reach(self) -> None:
        wanted = self._wanted or self.how or "socket"
        if installs := self._installs():
            self._install_engine()
        elif self.root is not None and wanted == "socket" and self._answers("socket") is None:
            self.how = "socket"
            return
        elif wanted == "dial" and self._program is not None and self._answers("dial") is None:
            self.how = "dial"
            return
        self._prepare(with_port=wanted == "port")
        if installs and (here := self._rclone()) is not None:
            self._bring_rclone(here)
        self._choose()

    def _install_engine(self) -> None:
        began = time.monotonic()
        talk = self._session(bootstrap.COMMAND)
        try:
            done = installing.engine(talk, self.host)
        finally:
            talk.channel.close()
        self._note(Step("install", time.monotonic() - began, done))
        if "installed" in done:  # whoever may use it now is known at the next login
            self._disconnect()
            self._connect()

    def rclone(self, here: str) -> str | None:
        """The rclone program there, a copy of this machine's when the host has none that is new enough.

        Raises:
            WorkerError: it could not be brought.
        """
        with self._bringing:
            with self._lock:
                self._connect()
                if self._program is None:
                    self._prepare(with_port=False)
            self._bring_rclone(here)
            found: str | None = self.facts.get("rclone")
            return found

    def _bring_rclone(self, here: str) -> None:
        if self.facts.get("rclone") or self._program is None or self.root is None:
            return
        began = time.monotonic()
        if sys.platform != "linux" or os.uname().machine != self.facts["machine"]:
            self._note(Step("rclone", 0.0, f"no rclone for {self.facts['machine']} here: none is put there"))
            return
        base = os.path.dirname(os.path.dirname(self.root))
        with self._lock:
            talk = self._session(installing.receiver(self._program[0], f"{base}/bin/rclone"))
        try:
            installing.send(talk, self.host, Path(here))
        finally:
            talk.channel.close()
        self.facts["rclone"] = f"{base}/bin/rclone"
        self._note(Step("rclone", time.monotonic() - began, "rclone pushed"))

    def stream(self) -> Stream:
        """A new stream to the agent, which shows the token with every request.

        Raises:
            LinkBroken: nobody answers.
        """
        return Stream(self.connect(), self._headers)

    def connect(self) -> socket.socket:
        """The same as plain bytes: HTTP/1.1, for any client.

        Raises:
            LinkBroken: nobody answers.
        """
        with self._lock:
            if self._main is None or not self._main.is_alive:
                raise LinkBroken(f"there is no connection to {self.host}.")
            return self._open(self.how or "socket")

    def close(self) -> None:
        """End the connection, and all streams with it. The agent stays."""
        self._is_closed = True
        for connection in (self._main, *self._others):  # who is waiting there for an answer has the lock, and lets go
            if connection is not None:
                connection.close()
        with self._lock:
            self._disconnect()

    # --- what can be done on the host -------------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the agent, its keeper and its tasks; its record stays."""
        self._command("stop")

    def remove(self) -> None:
        """The same, and nothing of this worker stays on the host."""
        self._command("remove")

    def _command(self, role: str) -> None:
        with self._lock:
            self._connect()
            if self._program is None:
                self._prepare(with_port=False)
            assert self._program is not None and self.root is not None
            talk = self._session(self._words(role))
            said = b""
            try:
                for line in bootstrap.lines(talk, self.host, bootstrap.START_S):
                    said = line or said
            finally:
                talk.channel.close()
            if b'"ok": true' not in said:
                raise HostUnfit(f"{self.host}: {said.decode(errors='replace')[-500:]}", host=self.host)

    @property
    def link(self) -> dict[str, Any]:
        """What may be kept of it for the next time."""
        return {"how": self.how, "root": self.root, "probe": self.facts}

    # --- connections ------------------------------------------------------------------------------------------------------

    def _connect(self) -> bool:
        """See that there is a connection; True when it was made now."""
        if self._was_closed():
            raise LinkBroken(f"the connection to {self.host} was closed.")
        if self._main is not None and self._main.is_alive:
            return False
        self._disconnect()
        began = time.monotonic()
        place = self._place or sshconfig.look_up(self.address)
        self.host = str(place)
        self._main = _Connection(place, self._ask)
        if self._was_closed():  # meanwhile
            self._disconnect()
            raise LinkBroken(f"the connection to {self.host} was closed.")
        self._note(Step("connect", time.monotonic() - began, self.host))
        return True

    def _was_closed(self) -> bool:
        return self._is_closed  # by another thread, at any moment

    def _disconnect(self) -> None:
        for connection in (*self._others, *([self._main] if self._main is not None else [])):
            connection.close()
        self._main, self._others = None, []

    def _session(self, command: str) -> _Session:
        """Run a program there; where a connection may have no more of them, another connection is made."""
        assert self._main is not None
        for old in [each for each in self._others if not each.is_alive or not each.pump.count]:
            self._others.remove(old)
            old.close()
        for connection in (self._main, *self._others):
            if connection.is_alive and (channel := self._free(connection)) is not None:
                return _Session(self.host, channel, command)
        fresh = _Connection(self._place or sshconfig.look_up(self.address), self._ask)
        self._others.append(fresh)
        if (channel := self._free(fresh)) is None:
            raise HostUnfit(f"{self.host} allows no sessions: nothing can be run there over SSH.", host=self.host)
        return _Session(self.host, channel, command)

    def _free(self, connection: _Connection) -> paramiko.Channel | None:
        try:
            return connection.transport.open_session()
        except paramiko.ChannelException:
            return None
        except (paramiko.SSHException, EOFError, OSError) as problem:
            if connection.is_alive:
                raise HostUnreachable(f"{self.host} opens no session: {problem}.", host=self.host) from problem
            raise LinkBroken(f"the connection to {self.host} ended: {problem}.") from problem

    # --- the agent --------------------------------------------------------------------------------------------------------

    def _prepare(self, *, with_port: bool) -> None:
        talk = self._session(bootstrap.COMMAND)
        try:
            done = bootstrap.prepare(
                talk,
                self.host,
                below=self._below,
                token=self._token,
                folder=self._folder,
                python=self._python,
                linger_s=self._linger_s,
                with_port=with_port,
                note=self._note,
            )
        finally:
            talk.channel.close()
        self.root, self._program, self._port, self.facts = done.root, (done.python, done.program), done.port, done.facts

    def _choose(self) -> None:
        """The first way that the agent answers by."""
        problems = []
        for how in WAYS if self._wanted is None else (self._wanted,):
            began = time.monotonic()
            if how == "port" and self._port is None:
                self._prepare(with_port=True)
            problem = self._answers(how)
            if problem is None:
                self.how = how
                self._note(Step("answer", time.monotonic() - began, f"by {how}"))
                return
            problems.append(f"{how}: {problem}")
            if self._main is None or not self._main.is_alive:
                raise LinkBroken(f"the connection to {self.host} ended: {problem}")
        raise HostUnfit(
            f"{self.host}: the agent runs, but sshd lets nobody through to it ({'; '.join(problems)}). Allow one of "
            "AllowStreamLocalForwarding, sessions, AllowTcpForwarding there.",
            host=self.host,
        )

    def _answers(self, how: str) -> str | None:
        """Why the agent does not answer by a way; None when it does."""
        try:
            stream = Stream(self._open(how), self._headers)
        except WorkerError as problem:
            return str(problem)
        try:
            answer = stream.ask("GET", "/ping", timeout_s=ANSWER_S)
        except WorkerError as problem:
            return str(problem)
        finally:
            stream.close()
        told = answer.json() if answer.status == 200 else {}
        if answer.status != 200 or told.get("stopping") is not None or told.get("version") != VERSION:
            return f"the agent answers {answer.status}: {answer.body[:200].decode(errors='replace')}"
        return None

    def _open(self, how: str) -> socket.socket:
        assert self._main is not None
        transport, pump = self._main.transport, self._main.pump
        try:
            if how == "socket":
                path = f"{self.root}/agent.sock"
                if len(path.encode()) > LONGEST_SOCKET:
                    raise LinkBroken(f"{path} is too long for a socket's address")
                return pump.carry(transport.open_socket(path))
            if how == "port":
                to = ("127.0.0.1", self._port or 0)
                return pump.carry(transport.open_channel("direct-tcpip", to, ("127.0.0.1", 0)))
        except (paramiko.SSHException, EOFError, OSError) as problem:
            raise LinkBroken(f"{self.host} opens no {how} to the agent: {problem}.") from problem
        return self._dial()

    def _dial(self) -> socket.socket:
        talk = self._session(self._words("dial"))
        seen: deque[str] = deque(maxlen=3)
        try:
            for line in bootstrap.lines(talk, self.host, ANSWER_S):
                if line == DIALLED.strip():
                    break
                seen.append(line.decode(errors="replace"))
            else:
                raise LinkBroken(f"{self.host}: nobody dials there: {' / '.join(seen)[:300] or 'nothing was said'}")
        except BaseException:
            talk.channel.close()
            raise
        pump: Pump = talk.channel.get_transport().pump
        return pump.carry(talk.channel, talk.rest())

    def _words(self, role: str) -> str:
        if self._program is None or self.root is None:
            raise LinkBroken(f"{self.host}: it is not known yet where the agent is.")
        python, program = self._program
        return shlex.join([python, *FLAGS, program, role, "--root", self.root])


def _part(name: str) -> str:
    """A name as the name of a folder, whatever it is."""
    plain = quote(name, safe=" @+=,")
    return plain if plain.strip(".") else plain.replace(".", "%2E")


def ask(address: str, program: str, asked: dict[str, Any], by: Ask | None = None) -> dict[str, Any]:
    """Run a program that stands alone on a host, once, and give what it answers: see `bootstrap.ask`.

    Raises:
        HostError: it cannot be reached, or does not run it: nothing was done.
        LinkBroken: the connection ended, or nothing was heard in time: nobody knows what was done.
    """
    place = sshconfig.look_up(address)
    connection = _Connection(place, by)
    try:
        try:
            channel = connection.transport.open_session()
        except (paramiko.SSHException, EOFError, OSError) as problem:
            raise HostUnreachable(f"{place} opens no session: {problem}.", host=str(place)) from problem
        talk = _Session(str(place), channel, bootstrap.COMMAND)
        try:
            return bootstrap.ask(talk, str(place), program, asked)
        except HostUnreachable as problem:
            raise LinkBroken(str(problem)) from problem
        finally:
            talk.channel.close()
    finally:
        connection.close()


def trust(address: str, ask: Ask | None = None) -> tuple[str, hostkeys.HostKey, HostError | None]:
    """The host behind an address by its name in known_hosts, the key that it shows now, and what is to be said against it."""
    place = sshconfig.look_up(address)
    key, problem = sshlogin.shown_key(place, ask)
    return place.key_name or hostkeys.name_of(place.host, place.port), key, problem
