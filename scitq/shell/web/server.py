"""`scitq web`: listen on loopback or a Unix socket, print the one-time link, open the browser, serve until Ctrl-C."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import html
import os
import signal
import socket
import stat
import sys
import threading
import webbrowser
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import uvicorn

from scitq import config
from scitq.errors import BadInput
from scitq.shell.web.app import make
from scitq.shell.web.live import Live
from scitq.shell.web.security import Sessions

if TYPE_CHECKING:
    from scitq.engine import Engine
    from scitq.shell.show import Screen

HOST = "127.0.0.1"
BACKLOG = 128


class Server(uvicorn.Server):
    """Says that it listens when it does, and ends its streams first when it is asked to end: they would go on for ever."""

    live: Live
    tell: Callable[[], None]

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Ctrl-C and TERM end it, from the loop; elsewhere than in the main thread, whoever runs it has them."""
        loop, taken = asyncio.get_running_loop(), []
        for number in (signal.SIGINT, signal.SIGTERM):
            with contextlib.suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, self._end)
                taken.append(number)
        try:
            yield
        finally:
            for number in taken:
                loop.remove_signal_handler(number)

    def _end(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """The beginning. From here on Ctrl-C is an end, not an accident."""
        await super().startup(sockets)
        if not self.should_exit:
            self.tell()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """The end."""
        self.live.close()
        await super().shutdown(sockets)


def web(engine: Engine, args: SimpleNamespace) -> int:
    """Serve the page until Ctrl-C."""
    screen: Screen = args.screen
    if args.socket is not None and args.port is not None:
        raise BadInput("--port or --socket, not both.")
    with contextlib.ExitStack() as stack:
        if args.socket is not None:
            listening = stack.enter_context(unix_socket(Path(args.socket)))
            port = None
        else:
            listening = stack.enter_context(_listening(args.port, screen))
            port = int(listening.getsockname()[1])
        sessions, live = Sessions(port), Live()
        options = uvicorn.Config(
            make(engine, sessions, live), log_config=None, access_log=False, server_header=False, date_header=False, ws="none",
            http="h11", loop="asyncio", lifespan="on", proxy_headers=False, timeout_keep_alive=30, limit_concurrency=200,
            timeout_graceful_shutdown=3,
        )  # fmt: skip
        server = Server(options)
        server.live = live
        server.tell = lambda: _tell(engine, screen, sessions, args, stack)
        asyncio.run(server.serve(sockets=[listening]))
    return 0


def _listening(port: int | None, screen: Screen) -> socket.socket:
    """On the port that was asked for; else on the one of the settings, if nobody has it, or a free one."""
    if port is not None:
        return loopback(port)
    try:
        return loopback(config.load().get("web.port"))
    except BadInput as problem:  # a page of another file, say
        screen.say(str(problem))
        return loopback(0)


def _tell(
    engine: Engine, screen: Screen, sessions: Sessions, args: SimpleNamespace, stack: contextlib.ExitStack
) -> None:
    """Print the link, and open the browser on it where there is one."""
    link = f"http://{HOST}:{sessions.port}/enter?token={sessions.token()}"
    if sessions.port is None:
        link = link.replace(f"{HOST}:None", "localhost:PORT")
    if screen.as_json:
        screen.json({"url": link, "port": sessions.port, "socket": args.socket, "file": str(engine.path)})
    else:
        screen.out(link)
    if sessions.port is None:
        here = os.path.abspath(args.socket)
        screen.say(f"From elsewhere: ssh -L PORT:{here} this-host, with a free PORT; the link is good for one browser.")
    elif not args.no_open and not screen.as_json and has_browser():
        stack.callback(_open(engine, link, sessions))
    screen.say("The link is good for one browser. Ctrl-C ends the page; what runs goes on.")


# --- where it listens -----------------------------------------------------------------------------------------------------


def loopback(port: int) -> socket.socket:
    """A socket on this machine's own address, which nobody else reaches.

    Raises:
        BadInput: the port is taken, or none.
    """
    if not 0 <= port < 65536:
        raise BadInput(f"--port takes 1 to 65535, not {port}.")
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen(BACKLOG)  # before the link is printed: whoever comes at once waits, and is not turned away
    except OSError as problem:
        listening.close()
        raise BadInput(f"port {port}: {problem.strerror}. Without --port a free one is taken.") from problem
    return listening


@contextlib.contextmanager
def unix_socket(path: Path) -> Iterator[socket.socket]:
    """A socket that only this user can reach: 0600, in a folder of 0700 that is made where it is missing.

    Raises:
        BadInput: somebody listens there, something else is there, or others may enter the folder.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder = path.parent.stat()
        if folder.st_uid != os.geteuid() or folder.st_mode & 0o077:
            raise BadInput(f"{path.parent}: others may enter this folder. Give one that is yours alone (chmod 700).")
        _free(path)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            listening.bind(str(path))
            listening.listen(BACKLOG)
        finally:
            os.umask(before)
    except OSError as problem:
        raise BadInput(f"{path}: {problem.strerror or problem}.") from problem
    try:
        yield listening
    finally:
        listening.close()
        path.unlink(missing_ok=True)


def _free(path: Path) -> None:
    """Take away what a page that was killed has left."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise BadInput(f"{path} is there, and is no socket.")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError as problem:
            if problem.errno != errno.ECONNREFUSED:
                raise
            path.unlink(missing_ok=True)
            return
    raise BadInput(f"{path}: somebody listens there already.")


# --- the browser ----------------------------------------------------------------------------------------------------------


def has_browser() -> bool:
    """Whether a browser would have a screen to open on."""
    if os.environ.get("BROWSER"):
        return True
    has_screen = sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
    return has_screen and "SSH_CONNECTION" not in os.environ


def _open(engine: Engine, link: str, sessions: Sessions) -> Callable[[], None]:
    """Open the browser by way of a file that only this user can read and that leads on: a link on its command line would be
    seen by everybody on this machine. What comes back takes the file away, which the first use of the link does too."""
    file = engine.side / f"open-{os.getpid()}.html"

    def take_away() -> None:
        file.unlink(missing_ok=True)

    for old in engine.side.glob("open-*.html"):
        with contextlib.suppress(ValueError, PermissionError):
            try:
                os.kill(int(old.stem.removeprefix("open-")), 0)
            except ProcessLookupError:  # that page was killed, and its token died with it
                old.unlink(missing_ok=True)
    take_away()
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        target = html.escape(link)
        out.write(
            f'<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer"><title>scitq</title>'
            f'<meta http-equiv="refresh" content="0;url={target}"><a href="{target}">To the page</a>\n'
        )
    sessions.on_enter = take_away
    # A browser that runs in the terminal would keep the page from being served.
    threading.Thread(target=_show, args=(file.as_uri(),), name="scitq-browser", daemon=True).start()
    return take_away


def _show(address: str) -> None:
    with contextlib.suppress(webbrowser.Error, OSError):
        webbrowser.open(address)
