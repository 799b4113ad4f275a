"""The user's own `ssh`, as a program: for what goes where its user would type it (`promote`, and commands that are passed on).

It reads the user's configuration, asks for passphrases on the terminal, and checks host keys as ever. Workers are reached
otherwise. `SCITQ_SSH` names another program, with arguments: `ssh -F my_config`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, cast

from scitq.errors import BadInput, MoveFailed
from scitq.saying import duration

ANSWER = b"scitq-answer "
"""What begins the line of an answer: before it may stand what a shell's start-up files print."""
STREAM = b"scitq-stream\n"
"""The line after which bytes follow to the end."""
_WAIT_S = 20
_UNREACHABLE = 255
# What neither ends nor moves a byte for so long hangs, though SSH itself is alive. (Installing there takes minutes without a word.)
SILENCE_S = 1800.0
# A file that ssh reads by itself may take so long.
_SLOWEST_BYTES_S = 50_000


def program() -> list[str]:
    """The words that are `ssh`.

    Raises:
        MoveFailed: there is none.
    """
    words = shlex.split(os.environ.get("SCITQ_SSH", "")) or ["ssh"]
    if shutil.which(words[0]) is None:
        raise MoveFailed(f"there is no program {words[0]!r} on PATH; install an SSH client.")
    return [*words, "-o", f"ConnectTimeout={_WAIT_S}", "-o", "ServerAliveInterval=15"]


def check(host: str) -> str:
    """A host as `ssh` may be told it.

    Raises:
        BadInput: it would be taken for an option, or for several words.
    """
    if not host or host.startswith("-") or any(char.isspace() or not char.isprintable() for char in host):
        raise BadInput(f"{host!r} is no host: give a name of your SSH configuration, or user@host.")
    return host


def is_unreachable(code: int) -> bool:
    """Whether `ssh` says by its exit code that it did not get there."""
    return code == _UNREACHABLE


def way(address: str) -> tuple[str, list[str]]:
    """The host of a worker's address, and what `ssh` is told besides: its port, and where keys are that scitq was told to accept."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        host, port = address, ""
    own = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "scitq" / "known_hosts"
    files = ["-o", f"UserKnownHostsFile ~/.ssh/known_hosts ~/.ssh/known_hosts2 {own}"] if own.exists() else []
    return host, [*files, *(["-p", port] if port else [])]


class Login:
    """A host, for the length of a `with`: several commands over one connection."""

    def __init__(self, host: str, options: Sequence[str] = ()) -> None:
        self.host = check(host)
        self._ssh = [*program(), *options]
        self._folder = tempfile.mkdtemp(prefix="scitq-")

    def __enter__(self) -> Login:
        # One login for all, so that a password is asked for once; it ends with us, or 15 s after we were killed.
        control = ["-o", "ControlMaster=auto", "-o", f"ControlPath={self._folder}/c", "-o", "ControlPersist=15"]
        self._ssh += control
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            words = [*self._ssh, "-O", "exit", self.host]
            subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, timeout=_WAIT_S, check=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def run(self, command: str, send: bytes | IO[bytes] = b"", *, is_checked: bool = True) -> tuple[int, bytes, str]:
        """Run a shell command there; gives its exit code, what it wrote, and the end of its errors.

        Raises:
            MoveFailed: the host cannot be reached; the command hangs; or, if that is checked, it failed.
        """
        how: dict[str, Any] = {"input": send} if isinstance(send, bytes) else {"stdin": send}
        size = len(send) if isinstance(send, bytes) else os.fstat(send.fileno()).st_size
        words, limit_s = [*self._ssh, self.host, command], SILENCE_S + size / _SLOWEST_BYTES_S
        try:
            done = subprocess.run(words, capture_output=True, check=False, timeout=limit_s, **how)
        except subprocess.TimeoutExpired as late:
            raise self._hangs(limit_s) from late
        said = "\n".join(done.stderr.decode(errors="replace").strip().splitlines()[-10:])
        if is_unreachable(done.returncode):
            raise MoveFailed(f"{self.host} cannot be reached: {said or 'ssh says nothing'}. Try: ssh {self.host}")
        if done.returncode and is_checked:
            raise MoveFailed(f"{self.host}: {said or f'exit code {done.returncode}, nothing said'}")
        return done.returncode, done.stdout, said

    def answers(self, command: str, send: bytes | IO[bytes] = b"") -> list[Any]:
        """The answers of a command that ends well: what it says after the mark, as JSON."""
        _, told, said = self.run(command, send)
        try:
            found = [json.loads(line[len(ANSWER) :]) for line in told.splitlines() if line.startswith(ANSWER)]
        except ValueError:
            found = []
        if not found:
            raise MoveFailed(f"{self.host}: an answer that makes no sense: {told[-200:]!r} {said}")
        return found

    def interact(self, command: str, *, has_terminal: bool) -> int:
        """Run a shell command there with our own streams; gives its exit code."""
        return subprocess.call([*self._ssh, *(["-t"] if has_terminal else []), self.host, command])

    @contextlib.contextmanager
    def reading(self, command: str, send: bytes) -> Iterator[IO[bytes]]:
        """The bytes that a command writes after the mark of a stream; it must end well."""
        errors = Path(self._folder, "errors")
        with open(errors, "wb") as sink:
            process = subprocess.Popen(
                [*self._ssh, self.host, command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink
            )
        assert process.stdin is not None and process.stdout is not None
        watch = _Watch(process, SILENCE_S)
        try:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(send)
                process.stdin.close()
            for line in process.stdout:
                if line == STREAM:
                    yield watch.over(process.stdout)
                    break
            else:
                process.wait()
                raise MoveFailed(f"{self.host}: {errors.read_text(errors='replace').strip() or 'it sent nothing'}")
            while process.stdout.read(1 << 16):
                watch.moved()
            if process.wait():
                raise MoveFailed(f"{self.host}: {errors.read_text(errors='replace').strip()}")
        except Exception as problem:
            if watch.has_ended_it:  # which is why the rest went wrong
                raise self._hangs(SILENCE_S) from problem
            raise
        finally:
            watch.stop()
            if process.poll() is None:
                process.kill()
                process.wait()
            process.stdout.close()
            with contextlib.suppress(OSError):
                process.stdin.close()

    def write(self, command: str, give: Callable[[IO[bytes]], None]) -> None:
        """Let something be written to a command, which must end well. Its errors go to a file: a pipe that nobody reads meanwhile
        would stop both."""
        errors = Path(self._folder, "errors")
        with open(errors, "wb") as sink:
            process = subprocess.Popen(
                [*self._ssh, self.host, command], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=sink
            )
        assert process.stdin is not None
        watch = _Watch(process, SILENCE_S)
        is_broken = False
        try:
            give(watch.over(process.stdin))
            process.stdin.close()
        except BrokenPipeError:  # it says itself why it does not listen
            is_broken = True
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()
            if sys.exc_info()[0] is not None:
                process.kill()
            process.wait()
            watch.stop()
        if watch.has_ended_it:
            raise self._hangs(SILENCE_S)
        if process.returncode or is_broken:
            said = "\n".join(errors.read_text(errors="replace").strip().splitlines()[-10:])
            raise MoveFailed(f"{self.host}: {said or f'exit code {process.returncode}'}")

    def _hangs(self, limit_s: float) -> MoveFailed:
        return MoveFailed(
            f"{self.host}: nothing has come back for {duration(limit_s)}, though it can be reached: what runs there hangs (a disk "
            "that does not answer, say). Look there; then try again, which goes on where this has stopped."
        )


class _Watch:
    """Ends a program that moves no byte for too long, and has not ended itself."""

    def __init__(self, process: subprocess.Popen[bytes], limit_s: float) -> None:
        self._process, self._limit_s = process, limit_s
        self._moved_at = time.monotonic()
        self._is_over = threading.Event()
        self.has_ended_it = False
        threading.Thread(target=self._wait, name="scitq-login", daemon=True).start()

    def moved(self) -> None:
        """A byte has moved."""
        self._moved_at = time.monotonic()

    def stop(self) -> None:
        """It has ended."""
        self._is_over.set()

    def over(self, stream: IO[bytes]) -> IO[bytes]:
        """The stream, with an eye on what moves through it."""
        return cast(IO[bytes], _Seen(stream, self.moved))

    def _wait(self) -> None:
        while (left_s := self._moved_at + self._limit_s - time.monotonic()) > 0:
            if self._is_over.wait(left_s):
                return
        self.has_ended_it = True
        self._process.kill()


class _Seen:
    """A stream that tells of each piece that was read or written."""

    def __init__(self, stream: IO[bytes], moved: Callable[[], None]) -> None:
        self._stream, self._moved = stream, moved

    def read(self, size: int = -1) -> bytes:
        """As the stream's."""
        data = self._stream.read(size)
        self._moved()
        return data

    def write(self, data: bytes) -> int:
        """As the stream's."""
        count = self._stream.write(data)
        self._moved()
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def pass_on(host: str, folder: str, words: Sequence[str], *, has_terminal: bool) -> int:
    """Run words in a folder there, with our own streams; gives the exit code."""
    command = f"cd {shlex.quote(folder)} && exec {shlex.join(words)}"
    return subprocess.call([*program(), *(["-t"] if has_terminal else []), check(host), command])
