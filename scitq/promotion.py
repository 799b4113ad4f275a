"""`scitq promote` and `demote`: a state file and its driver move to an always-on host, and back.

In this order, so that at no instant two places may drive: the file here is sealed and its driver gone; a sealed copy is there;
the file here says that it is away; the copy there is opened; a driver starts there. Each step is written down by what it
does, and may be repeated: killed anywhere, the next call goes on. Until the file says that it is away, `demote` undoes all.
Back it goes the same way, and the moment that counts is the one transaction in which the file here gets the content of that
there. What the machine at the other end does is `moving`, by way of the hidden command `scitq host-side`.
"""

from __future__ import annotations

import json
import os
import posixpath
import shlex
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from scitq import belongings, moving
from scitq._version import VERSION
from scitq.errors import MoveFailed
from scitq.fetch import configuration
from scitq.remote import environment
from scitq.remote.environment import Kind
from scitq.remote.login import Login, check
from scitq.steps import Steps
from scitq.store import copies, manifests, moved, workers
from scitq.store.connection import Store
from scitq.store.moved import Moved
from scitq.worker import LOCAL

Say = Callable[[str], None]
Words = list[str]
# Newer ones first: they are there because somebody wanted them.
_PYTHONS = ("python3.14", "python3.13", "python3.12", "python3.11", "python3")
_ASK = """
import json, os, platform, sys, sysconfig
try:
    from scitq._version import VERSION
except Exception:
    VERSION = None
print("\\nscitq-answer " + json.dumps({"python": sys.executable, "home": os.path.expanduser("~"), "scitq": VERSION,
    "version": "%d.%d" % sys.version_info[:2], "is_new": sys.version_info >= (3, 11), "platform": sysconfig.get_platform(),
    "abi": sysconfig.get_config_var("SOABI") or "", "libc": platform.libc_ver()[0]}))
"""


@dataclass(frozen=True)
class Place:
    """Where the file goes on a host, and how scitq is called there."""

    path: str
    program: Words

    def command(self, verb: str, *more: str) -> str:
        """A command of `scitq host-side`."""
        return shlex.join([*self.program, "host-side", verb, self.path, *more])


def promote(
    store: Store, host: str, *, folder: str | None = None, python: str | None = None, is_forced: bool = False, say: Say
) -> Moved:
    """Move the file to a host and drive it there; harmless to repeat.

    Raises:
        MoveFailed: it cannot be done; the text says why, and what to do.
    """
    check(host)
    store.is_mover = True
    mark = moved.found(store.reader())
    if mark is not None and (mark.state == "arriving" or mark.host != host):
        raise mark.refusal(store.path.name)
    is_here = mark is None or mark.state != "away"  # else what is here is a pointer: nothing more is written down in it
    with Steps(store, "promote", host, say, is_written=is_here) as steps, Login(host) as login:
        if mark is not None and mark.state == "away":
            place = Place(mark.path, mark.program)
        else:
            if mark is None and not is_forced and (found := moving.obstacles(store.reader(), store.side)):
                raise MoveFailed(_listed(f"{store.path.name} cannot leave this machine yet", found))
            place = _prepare(login, store, mark, folder, python, say)
            steps.done("prepare", f"scitq {VERSION} is there: {shlex.join(place.program)}")
            mark = _take_there(login, store, host, place, steps, is_forced=is_forced, say=say)
        _start_there(login, place)
        steps.done("start", "it is driven there")
        for sentence in _out_of_reach(login, store):
            say(sentence)
    return mark


def _listed(what: str, reasons: Sequence[str]) -> str:
    return f"{what}:\n" + "\n".join(f"  {reason}." for reason in reasons) + "\nOr all the same: --force"


# --- what it takes there -------------------------------------------------------------------------------------------------


def _prepare(login: Login, store: Store, mark: Moved | None, folder: str | None, python: str | None, say: Say) -> Place:
    """See that the host has scitq; this may take a while, and the file is still driven here meanwhile."""
    if mark is not None and mark.path and folder is None:
        folder = posixpath.dirname(mark.path)
    found = _pythons(login, python)
    if not found:
        what = f"{python} is no Python 3.11 or later" if python else "there is no Python 3.11 or later"
        raise MoveFailed(
            f"{login.host}: {what}, which scitq needs. Install one, or name one: --python /path/to/python3.11"
        )
    home = found[0]["home"]
    place = posixpath.normpath(posixpath.join(home, folder or f"scitq/{store.path.stem}"))
    if not place.startswith("/"):
        raise MoveFailed(f"{login.host}: it does not say where the home of its user is; give an absolute --folder.")
    return Place(posixpath.join(place, store.path.name), _program(login, found, place, say))


def _pythons(login: Login, python: str | None) -> list[dict[str, Any]]:
    """What Python there is, the newest first, each with what it says of itself."""
    names = [python] if python else _PYTHONS
    asked = "; ".join(
        f"command -v {shlex.quote(name)} >/dev/null && {shlex.quote(name)} -c {shlex.quote(_ASK)}" for name in names
    )
    if not python:
        # The interpreter of a `scitq` on PATH is the first line of that program.
        first = 'p=$(command -v scitq) && head -n 1 "$p" | sed -n "s/^#!//p"'
        asked = f'i=$({first}); test -n "$i" && $i -c {shlex.quote(_ASK)}; {asked}'
    _, told, said = login.run(f"sh -c {shlex.quote(asked + '; true')}")
    marker = "scitq-answer "
    lines = [line[len(marker) :] for line in told.decode(errors="replace").splitlines() if line.startswith(marker)]
    try:
        found = [dict(json.loads(line)) for line in lines]
    except ValueError:
        raise MoveFailed(f"{login.host}: an answer that makes no sense: {told[-200:]!r} {said}") from None
    return [each for each in found if each.get("is_new")]


def _program(login: Login, found: list[dict[str, Any]], place: str, say: Say) -> Words:
    """The words that are scitq there: one of this version that is there, or one that is brought along."""
    for each in found:
        if each["scitq"] == VERSION:
            return [each["python"], "-P", "-m", "scitq"]
    ours = Kind.here()
    alike = [each for each in found if Kind(each["version"], each["platform"], each["abi"], each["libc"]) == ours]
    files = environment.files()
    name = posixpath.join(place, f"env-{environment.digest(files)[:16]}")
    program = [f"{name}/bin/python", "-P", "-m", "scitq"]
    if _answers(login, program):
        return program
    say(f"{login.host} has no scitq {VERSION}: it is brought along.")
    _bring(login, (alike or found)[0], name, files, is_whole=bool(alike))
    if not _answers(login, program):
        raise MoveFailed(
            f"{login.host}: scitq was brought to {name}, but does not run there: {shlex.join(program)} --version"
        )
    return program


def _answers(login: Login, program: Words) -> bool:
    code, told, _ = login.run(shlex.join([*program, "--version"]), is_checked=False)
    return code == 0 and f"scitq {VERSION}" in told.decode(errors="replace")


def _bring(login: Login, python: dict[str, Any], name: str, files: dict[str, Path], *, is_whole: bool) -> None:
    """Make a virtual environment there; with everything in it, or where the host's Python is another, what pip can get there."""
    part = f"{name}.part"
    target = f"{part}/lib/python{python['version']}/site-packages"
    steps = [
        "set -e; umask 077",
        f"mkdir -p {shlex.quote(posixpath.dirname(name))}",
        f"rm -rf {shlex.quote(part)} {shlex.quote(name)}",
        shlex.join([python["python"], "-m", "venv", *(["--without-pip"] if is_whole else []), part]),
    ]
    if not is_whole:
        files = {file: path for file, path in files.items() if file.startswith(f"{environment.NAME}/")}
        pip = [f"{part}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        steps.append(shlex.join([*pip, *environment.requirements()]) + " >&2 </dev/null")
    steps += [f"tar -xzf - -C {shlex.quote(target)}", f"mv {shlex.quote(part)} {shlex.quote(name)}"]
    try:
        login.write(f"sh -c {shlex.quote('; '.join(steps))}", lambda sink: environment.pack(files, sink))
    except MoveFailed as problem:
        if is_whole:
            raise
        raise MoveFailed(
            f"{problem}\n{login.host} has Python {python['version']} on {python['platform']}, this is {Kind.here().version} on "
            f"{Kind.here().platform}: its packages cannot be taken from here, and pip did not get them there. Install scitq "
            f"{VERSION} there (pip install), then: scitq promote {login.host} --python /path/to/its/python"
        ) from None


# --- there ------------------------------------------------------------------------------------------------------------------


def _take_there(
    login: Login, store: Store, host: str, place: Place, steps: Steps, *, is_forced: bool, say: Say
) -> Moved:
    there = login.answers(place.command("look"))[0]
    _refuse_other(store, host, place, there)
    names = moving.remotes_of(store.reader())
    if names:
        private = posixpath.join(f"{place.path}.d", belongings.RCLONE)
        place = replace(place, program=["env", f"RCLONE_CONFIG={private}", *place.program])
    leaving = Moved("leaving", host, place.path, place.program, _now_ms())
    _send_files(login, store, place, say)  # most of it, while it is still driven here
    steps.done("send", f"its logs and outputs are in {posixpath.dirname(place.path)}")
    moving.leave(store, leaving, is_forced=is_forced)
    steps.done("seal", "nobody drives it here any more")
    _send_files(login, store, place, say)
    steps.done("send", "so are those of the last moment")
    sections = configuration.sections(names) if names else {}
    login.answers(place.command("private"), belongings.rclone_file(sections))
    if sections:
        say(f"{host} is given what your rclone configuration says of {', '.join(sorted(sections))}.")
    arriving = Moved("arriving", socket.gethostname(), str(store.path), [], _now_ms())
    copy = moving.copy_out(store, arriving, f"{place.path}.d")
    with copy.open("rb") as file:
        login.answers(place.command("take", moving.digest_of(copy)), file)
    steps.done("copy", f"the file itself is there, {copy.stat().st_size / 1e6:.1f} MB")
    away = replace(leaving, state="away", since_ms=_now_ms())
    moving.settle(store, away)
    steps.done("leave", f"commands that are given here go to {host}")
    return away


def _refuse_other(store: Store, host: str, place: Place, there: dict[str, Any]) -> None:
    if there["exists"] and there["id"] != manifests.file_id(store.reader()):
        raise MoveFailed(f"{host}: {place.path} is another state file; give another folder with --folder.")


def _send_files(login: Login, store: Store, place: Place, say: Say) -> None:
    """What is in the side folder here, and not (or not so) there."""
    theirs = login.answers(place.command("list"))[0]
    ours = belongings.contents(store.side)
    names = belongings.missing(ours, theirs)
    if not names:
        return
    size = sum(ours[name][0] for name in names)
    if size > 100_000_000:
        say(f"{len(names)} files of logs and outputs go to {login.host}: {size / 1e9:.1f} GB.")
    login.write(place.command("put"), lambda sink: belongings.pack(store.side, names, sink))


def _start_there(login: Login, place: Place) -> None:
    login.answers(place.command("open"))
    words = [*place.program, "--file", place.path, "up", "--detach"]
    login.run(f"cd {shlex.quote(posixpath.dirname(place.path))} && {shlex.join(words)}")


def _out_of_reach(login: Login, store: Store) -> list[str]:
    """The workers that the host cannot log in to, a sentence each."""
    found = []
    for row in workers.all_of(store.reader()):
        if row.kind == LOCAL or not row.address:
            continue
        probe = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", row.address, "true"]
        code, _, said = login.run(f"{shlex.join(probe)} </dev/null", is_checked=False)
        if code:
            why = said.splitlines()[-1] if said else f"exit code {code}"
            found.append(
                f"{login.host} cannot log in to worker {row.name} ({row.address}): {why}. Its tasks wait until it can (a key and "
                f"its host key there: ssh {login.host} ssh {row.address})."
            )
    return found


# --- and back ---------------------------------------------------------------------------------------------------------------


def abandon(store: Store) -> str:
    """Drive what is here, as of when it left: for a host that is lost. Should it not be, its workers are asked about
    (`store.copies`): they do not take orders from both."""
    store.is_mover = True
    mark = moved.found(store.reader())
    if mark is None:
        return f"{store.path.name} is here already."
    moving.stay(store)
    store.write(copies.meet_all)
    return (
        f"{store.path.name} is driven here again, as of {mark.since}; what was done on {mark.host} since is not in it. Workers that "
        "were driven from there follow after scitq up --take-over."
    )


def demote(store: Store, *, is_forced: bool = False, say: Say) -> str:
    """Bring the file back, or undo a promotion that was not finished; returns what became of it, in a sentence.

    Raises:
        MoveFailed: it cannot be done; the text says why, and what to do.
    """
    store.is_mover = True
    mark = moved.found(store.reader())
    if mark is None:
        return f"{store.path.name} is here already."
    if mark.state == "leaving":
        moving.stay(store)
        return f"{store.path.name} stays here; what was begun on {mark.host} is undone."
    if not mark.is_followed:
        raise mark.refusal(store.path.name)
    place = Place(mark.path, mark.program)
    # What is here is a pointer until all of it is back: the job is written down in the file that comes.
    with Steps(store, "demote", mark.host, say, is_written=False) as steps, Login(mark.host) as login:
        words = [socket.gethostname(), str(store.path), *(["--force"] if is_forced else [])]
        told = login.answers(place.command("leave", *words))[0]
        steps.done("seal", f"nobody drives it on {mark.host} any more")
        names = belongings.missing(told["files"], belongings.contents(store.side))
        if names:
            say(f"{len(names)} files of logs and outputs come from {mark.host}.")
            with login.reading(place.command("send"), json.dumps(names).encode()) as stream:
                belongings.unpack(store.side, stream)
        steps.done("send", "its logs and outputs are here")
        copy = store.side / moving.COPY / store.path.name
        copy.parent.mkdir(mode=0o700, exist_ok=True)
        with login.reading(place.command("copy"), b"") as stream, open(copy, "wb", opener=_private) as file:
            while piece := stream.read(1 << 20):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        if moving.digest_of(copy) != told["digest"]:
            raise MoveFailed(f"the state file did not come whole from {mark.host}; try again.")
        moved.alter(copy, None, f"{mark.path}.d", str(store.side))
        store.replace_by(copy)  # from here on it is driven here
        steps.done("copy", "the file itself is here, and may be driven")
        steps.write_down()
        moving.drop_copy(store.side)
        try:
            login.answers(place.command("gone", socket.gethostname(), str(store.path)))
        except MoveFailed as problem:
            say(f"What is left on {mark.host} was not cleared ({problem}); nobody can drive it there.")
    return f"{store.path.name} is back from {mark.host}; what it has there stays as it is, in {posixpath.dirname(mark.path)}."


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
