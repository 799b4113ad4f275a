"""An FTP server for tests, with the faults of real ones."""

from __future__ import annotations

import os
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from pyftpdlib.authorizers import DummyAuthorizer
    from pyftpdlib.filesystems import AbstractedFS
    from pyftpdlib.handlers import DTPHandler, FTPHandler
    from pyftpdlib.servers import ThreadedFTPServer
import logging

logging.getLogger("pyftpdlib").setLevel(logging.CRITICAL)


class FtpServer:
    """A folder by FTP: anonymous and `me` may write, `reader` may not."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cuts: list[int] = []
        self.upload_cuts: list[int] = []
        self.stalls = False
        self.stalled = threading.Event()
        self.has_mlsd = True
        self.sent_bytes = 0
        self.users: list[str] = []
        authorizer = DummyAuthorizer()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that anonymous may write: it is meant
            authorizer.add_anonymous(str(root), perm="elradfmwMT")
        authorizer.add_user("me", "p@ss", str(root), perm="elradfmwMT")
        authorizer.add_user("reader", "r", str(root), perm="elr")
        dtp = type("Dtp", (_Dtp,), {"owner": self})
        handler = type(
            "Handler",
            (_Handler,),
            {
                "owner": self,
                "dtp_handler": dtp,
                "authorizer": authorizer,
                "abstracted_fs": _Files,
                "use_sendfile": False,
                "auth_failed_timeout": 0,
            },
        )
        self._server = ThreadedFTPServer(("127.0.0.1", 0), handler)
        self.url = f"ftp://127.0.0.1:{self._server.address[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        self._server.serve_forever(timeout=0.05, handle_exit=False)

    def reset_faults(self) -> None:
        """No faults."""
        self.cuts, self.upload_cuts, self.stalls, self.has_mlsd = [], [], False, True
        self.stalled.clear()

    def reset(self) -> None:
        """Empty and in order."""
        self.reset_faults()
        self.sent_bytes, self.users = 0, []
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def close(self) -> None:
        """Stop."""
        self._server.close_all()
        self._thread.join(30)


class _Files(AbstractedFS):  # type: ignore[misc]
    def chdir(self, path: str) -> None:
        """Without moving the whole process there, as the original does: it is the tests' process, and has many threads."""
        with os.scandir(path):  # raises what it should
            self.cwd = self.fs2ftp(path)


class _Dtp(DTPHandler):  # type: ignore[misc]
    owner: FtpServer
    _limit: int | None = None
    _passed = 0
    ac_in_buffer_size = ac_out_buffer_size = 1 << 16

    def send(self, data: Any) -> int:
        owner = self.owner
        is_file = self.file_obj is not None  # and no listing
        if self._limit is None:
            self._limit = owner.cuts.pop(0) if owner.cuts and is_file else -1
        if owner.stalls and is_file:
            owner.stalled.set()
            return 0
        if 0 <= self._limit <= self._passed:
            self.cmd_channel.close()
            self.close()
            return 0
        if self._limit >= 0:
            data = data[: self._limit - self._passed]
        count = int(super().send(data))
        self._passed += count
        owner.sent_bytes += count
        return count

    def recv(self, size: int) -> Any:
        owner = self.owner
        if self._limit is None:
            self._limit = owner.upload_cuts.pop(0) if owner.upload_cuts else -1
        if 0 <= self._limit <= self._passed:
            self.cmd_channel.close()
            self.close()
            return b""
        data = super().recv(size)
        self._passed += len(data)
        return data


class _Handler(FTPHandler):  # type: ignore[misc]
    owner: FtpServer

    def on_login(self, username: str) -> None:
        self.owner.users.append(username)

    def pre_process_command(self, line: str, cmd: str, arg: str) -> None:
        if cmd == "MLSD" and not self.owner.has_mlsd:
            self.respond("502 Command not implemented.")
            return
        super().pre_process_command(line, cmd, arg)
