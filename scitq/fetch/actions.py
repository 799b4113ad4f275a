"""What is done with what arrived: |gunzip, |untar, |unzip, |mv:folder, one after the other.

All of it happens in a hidden folder beside the destination; only when everything succeeded does it move in place. What
is there already is never overwritten.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO

from scitq.fetch.errors import BadArchive, Collision, of_os_error
from scitq.fetch.files import is_temporary, make_folder, neighbour, remove, sync_folder, typed
from scitq.fetch.settings import Settings
from scitq.fetch.uri import Action

_TAR = re.compile(r"(?i)\.(tar(\.(gz|bz2|xz|zst))?|tgz|tbz2?|txz|tzst)\Z")
STREAMED = ("gunzip", "untar")


@contextlib.contextmanager
def workshop(folder: str, source: str) -> Iterator[str]:
    """A hidden folder in `folder`, for what is not finished; gone at the end."""
    make_folder(folder)
    beside = os.path.join(folder, "x")
    _sweep(folder, os.path.basename(neighbour(beside, source, "")))
    path = neighbour(beside, source, "work", fresh=True)
    with typed(folder, "get"):
        os.mkdir(path, 0o700)
        # Locked as long as somebody works in it; the lock goes with the process.
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield path
    finally:
        os.close(handle)
        remove(path)
        remove(f"{path}.mv")


def _sweep(folder: str, begin: str) -> None:
    """Clear away what a killed process left of the same work."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if not name.startswith(begin) or not name.endswith(".work") or not is_temporary(name):
            continue
        with contextlib.suppress(OSError):
            # One that was made this minute may not have its lock yet.
            if time.time() - os.lstat(path).st_mtime < 60.0:
                continue
            handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove(path)
            finally:
                os.close(handle)


def stream(action: Action, raw: IO[bytes], name: str, work: str, settings: Settings) -> None:
    """The first action, while the data still comes: into the empty folder `work`."""
    from scitq.fetch import archives  # not needed by most, and with zipfile and tarfile it takes its time

    if action.name == "untar":
        archives.untar(raw, work, settings, name)
    else:
        archives.gunzip(raw, os.path.join(work, ungzipped(name)), settings, name)


def apply(actions: Sequence[Action], work: str, settings: Settings) -> None:
    """The actions on everything that is in `work`, from left to right."""
    for action in actions:
        if action.name == "mv":
            _move(work, action.argument)
        else:
            _each(work, action.name, settings)


def ungzipped(name: str) -> str:
    """What a gzipped file is called afterwards; one that does not say so keeps its name."""
    if name.lower().endswith(".tgz"):
        return name[:-4] + ".tar"
    return name[:-3] if name.lower().endswith(".gz") and len(name) > 3 else name


def _move(work: str, folder: str) -> None:
    aside = f"{work}.mv"
    os.rename(work, aside)
    target = os.path.join(work, folder)
    os.makedirs(os.path.dirname(target), mode=0o700)
    os.rename(aside, target)
    os.chmod(target, 0o777 & ~_umask())


def _each(work: str, name: str, settings: Settings) -> None:
    """On a single file, whatever it is called; of several, on those whose names say that they are meant."""
    files = [os.path.join(folder, file) for folder, _, names in os.walk(work) for file in names]
    files = sorted(file for file in files if not os.path.islink(file))
    meant = {"gunzip": lambda file: file.lower().endswith(".gz"), "unzip": lambda file: file.lower().endswith(".zip")}
    fits: Callable[[str], bool] = meant.get(name, lambda file: _TAR.search(file) is not None)
    chosen = files if len(files) == 1 else [file for file in files if fits(file)]
    if not chosen:
        raise BadArchive(f"There is nothing to {name} among {len(files)} files.", uri="", phase=name)
    for file in chosen:
        if name == "gunzip":
            _gunzip(file, settings)
        else:
            _unpack(file, name, settings)


def _gunzip(file: str, settings: Settings) -> None:
    from scitq.fetch import archives

    folder, old = os.path.split(file)
    new = ungzipped(old)
    if new != old and os.path.lexists(os.path.join(folder, new)):
        raise Collision(f"{old}: {new} exists already, and is not overwritten.", uri=old, phase="gunzip")
    fresh = os.path.join(folder, f"{new}.scitq-gunzip")
    with open(file, "rb") as raw:
        archives.gunzip(raw, fresh, settings, old)
    os.unlink(file)
    os.rename(fresh, os.path.join(folder, new))


def _unpack(file: str, name: str, settings: Settings) -> None:
    from scitq.fetch import archives

    folder, old = os.path.split(file)
    inner = f"{file}.scitq-unpack"
    os.mkdir(inner, 0o700)
    if name == "unzip":
        archives.unzip(file, inner, settings, old)
    else:
        with open(file, "rb", buffering=0) as raw:
            archives.untar(raw, inner, settings, old)
    os.unlink(file)
    settle(inner, folder)
    remove(inner)


def settle(source: str, folder: str, *, overwrite: bool = False) -> list[str]:
    """Move everything in `source` into `folder`, folders joined; nothing moves if anything is in the way."""
    moves: list[tuple[str, str]] = []
    made: list[str] = []
    _plan(source, folder, moves, made, overwrite)
    done: list[tuple[str, str]] = []
    try:
        for path in made:
            os.mkdir(path)
        for origin, target in moves:
            if overwrite and not os.path.isdir(origin):
                os.replace(origin, target)
            else:
                _rename_to_free(origin, target)
                done.append((origin, target))
    except OSError as error:
        for origin, target in reversed(done):
            with contextlib.suppress(OSError):
                os.rename(target, origin)
        raise of_os_error(error, folder, "get") from error
    sync_folder(folder)
    return [target for _, target in moves]


def _rename_to_free(origin: str, target: str) -> None:
    if os.path.lexists(target):
        raise FileExistsError(17, "appeared meanwhile", target)
    os.rename(origin, target)


def _plan(source: str, folder: str, moves: list[tuple[str, str]], made: list[str], overwrite: bool) -> None:
    for entry in sorted(os.scandir(source), key=lambda each: each.name):
        target = os.path.join(folder, entry.name)
        is_folder = entry.is_dir(follow_symlinks=False)
        if not os.path.lexists(target):
            moves.append((entry.path, target))
        elif is_folder and os.path.isdir(target) and not os.path.islink(target):
            _plan(entry.path, target, moves, made, overwrite)
        elif overwrite and not is_folder and not os.path.isdir(target):
            moves.append((entry.path, target))
        else:
            raise Collision(f"{target}: it exists already, and is not overwritten.", uri=target, phase="get")


def _umask() -> int:
    """Without changing it for other threads, where the kernel tells."""
    with (
        contextlib.suppress(OSError, StopIteration, ValueError),
        open("/proc/self/status", encoding="ascii", errors="replace") as file,
    ):
        return int(next(line for line in file if line.startswith("Umask:")).split()[1], 8)
    return 0o022
