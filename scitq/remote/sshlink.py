"""One SSH connection's byte streams as sockets: a thread carries them between channels and socket pairs.

Whoever reads and writes such a socket needs not know SSH, and may wait for many of them at once. The thread also asks for a sign
of life, so that a connection that is dead without a word (a cut cable, a frozen host) ends within half a minute.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import subprocess
import tempfile
import threading
import time
from typing import Any

import paramiko
from paramiko.common import MSG_CHANNEL_WINDOW_ADJUST, MSG_REQUEST_FAILURE, MSG_REQUEST_SUCCESS, cMSG_GLOBAL_REQUEST

# What goes wrong is raised; without this, paramiko's own words about it appear on the terminal of whoever has set up no logging.
logging.getLogger("paramiko").addHandler(logging.NullHandler())

PIECE_BYTES = 1 << 16
ASK_S = 8.0
"""How often a sign of life is asked for."""
SILENT_S = 20.0
"""After this long without an answer the connection is dead."""
USER_TIMEOUT_MS = 20_000
_UNSENT_BYTES = 256 << 10
_LATE_S = 5.0
_READ_TIMEOUT_S = 5.0
_STREAMLOCAL = "direct-streamlocal@openssh.com"


class Transport(paramiko.Transport):  # type: ignore[misc]  # paramiko has no types
    """paramiko's, which also connects to Unix sockets over there, and hears answers to its signs of life.

    Not its newer ServiceRequestingTransport: that one sends a login before it listens for the answer, and may miss it; and
    waits for ever when the connection ends before.
    """

    def __init__(self, *arguments: Any, kinds: tuple[str, ...] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._opening = threading.local()
        self.heard = time.monotonic()
        self.pump: Pump | None = None
        self._channel_handler_table = {
            **paramiko.Transport._channel_handler_table,
            MSG_CHANNEL_WINDOW_ADJUST: self._window_opened,
        }
        for number in (MSG_REQUEST_SUCCESS, MSG_REQUEST_FAILURE):
            self._handler_table[number] = self._lives
        if kinds:  # a host with several keys is asked for one that is known
            security = self.get_security_options()
            known = [kind for kind in security.key_types if kind in kinds]
            security.key_types = (*known, *(kind for kind in security.key_types if kind not in known))

    def open_socket(self, path: str) -> paramiko.Channel:
        """A channel to a Unix socket on the host.

        paramiko's own `open_channel` knows nothing of this kind; what it lacks is added to its message.
        """
        self._opening.path = path
        try:
            return self.open_channel(_STREAMLOCAL)
        finally:
            self._opening.path = None

    def _send_user_message(self, message: paramiko.Message) -> None:
        path = getattr(self._opening, "path", None)
        if path is not None:
            message.add_string(path)
            message.add_string("")  # reserved, both
            message.add_int(0)
        super()._send_user_message(message)

    def ask_for_life(self) -> None:
        """To be answered, whatever the answer is."""
        message = paramiko.Message()
        message.add_byte(cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self._send_user_message(message)

    def _lives(self, _: paramiko.Message) -> None:
        self.heard = time.monotonic()

    def _window_opened(self, channel: paramiko.Channel, message: paramiko.Message) -> None:
        paramiko.Transport._channel_handler_table[MSG_CHANNEL_WINDOW_ADJUST](channel, message)
        self.heard = time.monotonic()
        if self.pump is not None:
            self.pump.touch(channel.chanid)

    def settle(self) -> None:
        """After the login: the kernel gives up on a peer that acknowledges nothing, and nobody looks ten times a second."""
        if isinstance(self.sock, socket.socket) and self.sock.family != socket.AF_UNIX:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                # What is sent next goes next, not behind megabytes that the kernel took before.
                self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        self.sock.settimeout(_READ_TIMEOUT_S)

    def end(self) -> None:
        """Close it now: who reads from its socket is woken."""
        with contextlib.suppress(Exception):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.close()


class Proxy:
    """The user's ProxyCommand: a program whose standard input and output are the connection."""

    def __init__(self, command: str) -> None:
        self.sock, theirs = socket.socketpair()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 it lives as long as the connection
        with theirs:
            self._program = subprocess.Popen(
                ["/bin/sh", "-c", f"exec {command}"],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=self._errors,
                start_new_session=True,
            )

    def said(self) -> str:
        """The end of what it said, when it said anything."""
        return self._last

    _last = ""

    def close(self) -> None:
        """End it."""
        self.sock.close()
        self._program.terminate()
        try:
            self._program.wait(_READ_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._program.kill()
            self._program.wait()
        with contextlib.suppress(ValueError):  # closed before
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").strip().splitlines()
            self._last = lines[-1] if lines else ""
            self._errors.close()


class _Line:
    """One channel and the socket that stands for it."""

    def __init__(self, channel: paramiko.Channel, sock: socket.socket, first: bytes) -> None:
        self.channel, self.sock = channel, sock
        self.to_socket = memoryview(first)
        self.to_channel = memoryview(b"")
        self.has_ended = False
        self.mask = 0


class _Bell:
    """What paramiko takes for an event: set when a channel has something to read."""

    def __init__(self, pump: Pump, id: int) -> None:
        self._pump, self._id = pump, id

    def set(self) -> None:
        """Bytes have come, or their end."""
        self._pump.hear()
        self._pump.touch(self._id)

    def clear(self) -> None:
        """Nothing is kept that could be."""


class Pump:
    """The thread of one connection."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._selector = selectors.DefaultSelector()
        self._wake, self._waker = socket.socketpair()
        for end in (self._wake, self._waker):
            end.setblocking(False)
        self._selector.register(self._wake, selectors.EVENT_READ, None)
        self._lock = threading.Lock()
        self._lines: dict[int, _Line] = {}
        self._fresh: list[_Line] = []
        self._touched: set[int] = set()
        self._is_closing = False
        self._has_ended = False
        transport.pump = self
        self._thread = threading.Thread(target=self._run, name="scitq-ssh", daemon=True)
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the connection still is one."""
        return not self._has_ended and self._transport.is_active()

    @property
    def count(self) -> int:
        """How many streams there are."""
        with self._lock:
            return len(self._lines) + len(self._fresh)

    def carry(self, channel: paramiko.Channel, first: bytes = b"") -> socket.socket:
        """A socket that stands for a channel; `first` is what was read of it already."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        channel.settimeout(0.0)
        with self._lock:
            has_ended = self._has_ended or self._is_closing
            if not has_ended:
                self._fresh.append(_Line(channel, ours, first))
        if has_ended:
            ours.close()
            channel.close()
        self._ring()
        return theirs

    def hear(self) -> None:
        """Something has come from the host: it lives."""
        self._transport.heard = time.monotonic()

    def touch(self, id: int) -> None:
        """Have a look at a channel; from any thread."""
        with self._lock:
            self._touched.add(id)
        self._ring()

    def close(self) -> None:
        """End the connection and all its streams."""
        self._is_closing = True
        self._transport.end()  # wakes whoever waits for it
        self._ring()
        if threading.current_thread() is not self._thread:
            self._thread.join(2 * _READ_TIMEOUT_S)

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b".")

    # --- the thread -------------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._is_closing and self._transport.is_active():
                self._turn()
        except (OSError, EOFError, paramiko.SSHException):
            pass  # paramiko's several ways of saying that the connection ended
        finally:
            with self._lock:
                self._has_ended = True
                fresh, self._fresh = self._fresh, []
            self._transport.end()
            for line in (*self._lines.values(), *fresh):
                self._finish(line)
            self._selector.close()
            self._wake.close()
            self._waker.close()

    def _turn(self) -> None:
        began = time.monotonic()
        patience_s = self._attend(began)
        events = self._selector.select(patience_s)
        if time.monotonic() - began > patience_s + _LATE_S:
            # This process was stopped, or the machine slept: what came meanwhile is read before anybody is judged.
            self._transport.heard = self._asked = time.monotonic()
        for key, mask in events:
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    self._wake.recv(4096)
            elif mask & selectors.EVENT_READ:
                self._read(key.data)
        with self._lock:
            fresh, self._fresh = self._fresh, []
            touched, self._touched = self._touched, set()
        for line in fresh:
            self._lines[line.channel.chanid] = line
            line.channel.in_buffer.set_event(_Bell(self, line.channel.chanid))
            touched.add(line.channel.chanid)
        touched |= {key.data.channel.chanid for key, _ in events if key.data is not None}
        for id in touched:
            if id in self._lines:
                self._carry(self._lines[id])

    _asked = 0.0

    def _attend(self, now: float) -> float:
        """Ask for a sign of life when it is time; end a connection that gives none. How long to wait for events."""
        if self._asked > self._transport.heard and now - self._asked > SILENT_S:
            self._is_closing = True
            return 0.0
        if now - max(self._asked, self._transport.heard) >= ASK_S and self._asked <= self._transport.heard:
            self._asked = now
            with contextlib.suppress(Exception):  # it ended: seen by the loop
                self._transport.ask_for_life()
        due = self._asked + SILENT_S if self._asked > self._transport.heard else self._transport.heard + ASK_S
        return max(0.05, due - now)

    def _read(self, line: _Line) -> None:
        if line.to_channel:
            return
        try:
            data = line.sock.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        line.to_channel = memoryview(data)
        line.has_ended = line.has_ended or not data

    def _carry(self, line: _Line) -> None:
        """Everything that can be carried now."""
        try:
            while line.to_channel:
                line.to_channel = line.to_channel[line.channel.send(line.to_channel.tobytes()) :]
        except TimeoutError:
            pass  # the window is full: it is touched when it opens
        except (OSError, EOFError, paramiko.SSHException):  # the connection broke just now
            line.has_ended, line.to_channel = True, memoryview(b"")
        is_over = False
        try:
            while True:
                while line.to_socket:
                    line.to_socket = line.to_socket[line.sock.send(line.to_socket) :]
                if is_over:
                    break
                line.to_socket = memoryview(line.channel.recv(PIECE_BYTES))
                is_over = not line.to_socket
        except (TimeoutError, BlockingIOError):
            pass  # nothing more has come; or nobody reads: the channel's window fills, and the sender waits
        except (OSError, EOFError, paramiko.SSHException):
            line.has_ended = True
        if is_over or (line.has_ended and not line.to_channel):
            self._finish(line)
            return
        self._watch(line)

    def _watch(self, line: _Line) -> None:
        mask = (0 if line.to_channel else selectors.EVENT_READ) | (selectors.EVENT_WRITE if line.to_socket else 0)
        if mask == line.mask:
            return
        if not mask:
            self._selector.unregister(line.sock)
        elif not line.mask:
            self._selector.register(line.sock, mask, line)
        else:
            self._selector.modify(line.sock, mask, line)
        line.mask = mask

    def _finish(self, line: _Line) -> None:
        if line.mask:
            self._selector.unregister(line.sock)
            line.mask = 0
        line.sock.close()
        with contextlib.suppress(Exception):
            line.channel.close()
        self._lines = {id: each for id, each in self._lines.items() if each is not line}
