"""What `scitq doctor` looks at: each check is a function that says what it found, and what to do about it. None changes anything.

They run side by side, each within its time; a disk or a daemon that does not answer keeps none of the others waiting.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import locale
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from scitq import config, noticing
from scitq._version import VERSION
from scitq.saying import clean, duration, several, size

Status = Literal["ok", "advice", "problem"]
# How long all checks together may take; and the share of that in which a program has to answer.
ALL_S = 2.6
SHARE = 0.75
NOFILE = 1024
ENGINES = ("docker", "podman", "apptainer", "singularity")
OPTIONAL = {
    "ipykernel": "notebooks", "ipywidgets": "live tables in notebooks", "pandas": "tables as data frames",
    "matplotlib": "plots",
}  # fmt: skip
# A clock that is before this day was never set: 2026-01-01.
_LEAST_TIME = 1_767_225_600


@dataclass(frozen=True)
class Finding:
    """A line: what it is about, how it stands, and for all that is not in order what to do."""

    about: str
    status: Status
    text: str
    todo: str | None = None


# What a check takes: how many seconds a program may take that it asks.
Check = Callable[[float], Iterable[Finding]]


def together(checks: Sequence[tuple[str, Check]], within_s: float = ALL_S) -> list[Finding]:
    """All of them at once; the findings in the order of the checks. One that does not end in time is a finding itself."""
    found: list[list[Finding] | None] = [None] * len(checks)

    def run(number: int, about: str, check: Check) -> None:
        try:
            found[number] = list(check(SHARE * within_s))
        except Exception as error:  # whatever it stumbled over is what its reader has to know
            found[number] = [Finding(about, "problem", f"cannot be looked at: {type(error).__name__}: {error}")]

    threads = [
        threading.Thread(target=run, args=(number, about, check), name=f"scitq-doctor-{about}", daemon=True)
        for number, (about, check) in enumerate(checks)
    ]
    for thread in threads:
        thread.start()
    ends = time.monotonic() + within_s
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    answer: list[Finding] = []
    for (about, _), some in zip(checks, found, strict=True):
        late = [Finding(about, "advice", f"did not answer within {duration(within_s)}", "look at it by hand")]
        answer += late if some is None else some
    return answer


def ask(words: Sequence[str], timeout_s: float) -> tuple[int | None, str]:
    """What a program answers: its exit code (None: it did not end in time, or cannot be started), and its first words."""
    try:
        ended = subprocess.run(
            list(words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        return None, f"does not answer within {duration(timeout_s)}"
    except OSError as error:
        return None, f"cannot be started: {error.strerror}"
    said = (ended.stdout if ended.returncode == 0 else ended.stderr or ended.stdout).decode(errors="backslashreplace")
    return ended.returncode, clean(said.strip().split("\n")[0])


# --- this program ---------------------------------------------------------------------------------------------------------------


def python(_: float) -> Iterator[Finding]:
    """The Python that runs this, and the SQLite in it."""
    version = ".".join(map(str, sys.version_info[:3]))
    yield Finding("python", "ok", f"{version}, scitq {VERSION} ({sys.executable})")
    yield Finding("sqlite", "ok", f"{importlib.metadata.version('apsw')} (of apsw)")


def settings(_: float) -> Iterator[Finding]:
    """The file of settings, and what it wants of this machine."""
    found = config.load()
    if found.problems:
        for problem in found.problems:
            yield Finding("settings", "problem", problem, "scitq config edit")
    else:
        yield Finding("settings", "ok", str(found.path) if found.path.exists() else "none: everything is as it comes")
    program = "osascript" if sys.platform == "darwin" else "notify-send"
    is_here = shutil.which(program) is not None
    if found.get("notifications.desktop") and not is_here:
        yield Finding("notifications", "problem", f"notifications.desktop is on, but {program} is not here",
                      "apt install libnotify-bin, or: scitq config unset notifications.desktop")  # fmt: skip
    else:
        how = (
            "the desktop is told"
            if found.get("notifications.desktop")
            else "off (scitq config set notifications.desktop true)"
        )
        yield Finding("notifications", "ok", how)
    for key in ("hooks.batch_end", "hooks.workflow_end"):
        words = found.get(key)
        if words and shutil.which(words[0]) is None:
            yield Finding(
                "hooks", "problem", f"{key}: there is no program {words[0]!r}", f"scitq config set {key} PROGRAM…"
            )


def packages(_: float) -> Iterator[Finding]:
    """Python packages that everything works without."""
    missing = [name for name in OPTIONAL if importlib.util.find_spec(name) is None]
    here = [name for name in OPTIONAL if name not in missing]
    if here:
        yield Finding("packages", "ok", ", ".join(here))
    if missing:
        what = ", ".join(f"{name} ({OPTIONAL[name]})" for name in missing)
        yield Finding("packages", "advice", f"not installed: {what}", f"if wanted: pip install {' '.join(missing)}")


def terminal(_: float) -> Iterator[Finding]:
    """What can be shown here."""
    encoding = (sys.stdout.encoding or locale.getpreferredencoding(False)).lower().replace("-", "")
    name = os.environ.get("TERM", "")
    kind = name or "without a name" if sys.stdout.isatty() else "this is none"
    said = f"{kind}, {'colours' if config.has_colour() else 'no colours'}, {encoding}"
    if encoding != "utf8":
        yield Finding("terminal", "advice", f"{said}: some letters cannot be shown", "export LC_ALL=C.UTF-8")
    else:
        yield Finding("terminal", "ok", said)


# --- this machine ---------------------------------------------------------------------------------------------------------------


def disks(_: float) -> Iterator[Finding]:
    """Room for what grows: the home folder, the temporary one."""
    places: dict[int, tuple[str, str]] = {}
    temporary = os.environ.get("TMPDIR", "/tmp")
    for what, folder in (("home", str(Path.home())), ("temporary files", temporary), ("here", os.getcwd())):
        try:
            places.setdefault(os.stat(folder).st_dev, (what, folder))
        except OSError as error:
            yield Finding("disk", "problem", f"{folder} ({what}): {error.strerror}")
    for what, folder in places.values():
        yield disk(what, folder)


def disk(what: str, folder: str) -> Finding:
    """How much room a folder has."""
    found = os.statvfs(folder)
    free, total = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
    said = f"{size(free)} of {size(total)} free at {folder} ({what})"
    if free < noticing.SCARCE_BYTES / 10:
        return Finding("disk", "problem", said, "free some space: work stops without")
    return (
        Finding("disk", "advice", said, "free some space")
        if noticing.is_scarce(free, total)
        else Finding("disk", "ok", said)
    )


def limits(_: float) -> Iterator[Finding]:
    """How many files a process may have open."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < NOFILE:
        yield Finding(
            "open files", "advice", f"{soft} at once (at most {hard}): little for many workers", f"ulimit -n {NOFILE}"
        )
    else:
        yield Finding("open files", "ok", f"{'any number' if soft == resource.RLIM_INFINITY else soft} at once")


def clock(program_s: float) -> Iterator[Finding]:
    """Whether the clock was ever set, and is kept."""
    if time.time() < _LEAST_TIME:
        yield Finding(
            "clock", "problem", f"it says {time.strftime('%Y-%m-%d %H:%M')}", "set it: certificates and caches go by it"
        )
        return
    code, said = (
        (1, "")
        if shutil.which("timedatectl") is None
        else ask(["timedatectl", "show", "-p", "NTPSynchronized", "--value"], program_s)
    )
    if code == 0 and said == "no":
        yield Finding("clock", "advice", "nothing keeps it right", "timedatectl set-ntp true")
    else:
        yield Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M %Z"))


# --- programs -------------------------------------------------------------------------------------------------------------------


def engines(program_s: float) -> Iterator[Finding]:
    """What runs containers here, and whether this user may."""
    there = [name for name in ENGINES if shutil.which(name)]
    able = False
    findings = []
    for name in there:
        asked = {"docker": "{{.ServerVersion}}", "podman": "{{.Version.Version}}"}.get(name)
        code, said = ask([name, "--version"] if asked is None else [name, "info", "--format", asked], program_s)
        if code == 0:
            able = True
            findings.append(Finding(name, "ok", said))
        elif "permission denied" in said.lower():
            user = os.environ.get("USER") or str(os.getuid())
            findings.append(
                Finding(
                    name, "advice", "this user may not use it", f"sudo usermod -aG {name} {user}, then log in again"
                )
            )
        else:
            findings.append(Finding(name, "advice", f"it is here but cannot be used: {said}",
                                    "sudo systemctl start docker" if name == "docker" else None))  # fmt: skip
    yield from findings
    if not able:
        todo = "install podman or docker, or give such tasks to workers that have one"
        yield Finding("containers", "advice", "tasks with container= cannot run on this machine", todo)
    if sys.platform == "linux":
        is_new = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
        yield Finding("cgroups", "ok", f"version {2 if is_new else 1}")


def rclone(program_s: float, *, is_asked: bool) -> Iterator[Finding]:
    """The program that fetches from storages, and the storages that it knows; with `is_asked` whether each answers."""
    from scitq.fetch import configuration
    from scitq.fetch.errors import FetchError, ToolMissing
    from scitq.fetch.programs import find

    try:
        program = find("rclone", "")
    except ToolMissing:
        yield Finding(
            "rclone", "advice", "it is not here: s3:// and the like cannot be used", "pip install 'scitq[rclone]'"
        )
        return
    code, said = ask([program, "version"], program_s)
    if code != 0:
        yield Finding(
            "rclone", "advice" if code is None else "problem", f"{program} {said}", "pip install 'scitq[rclone]'"
        )
        return
    yield Finding("rclone", "ok", f"{said.removeprefix('rclone ')} ({program})")
    try:
        if not is_asked:
            names = sorted(configuration.names())
            what = f"{', '.join(names)} (not asked; to try each: scitq doctor --remote-check)"
            yield Finding("storages", "ok", what if names else "none is configured (rclone config makes one)")
            return
        for name, problem in sorted(configuration.check_each().items()):
            if problem is None:
                yield Finding("storages", "ok", f"{name} can be listed")
            else:
                yield Finding(
                    "storages", "problem", f"{name}: {problem}", f"rclone config reconnect {name}: or rclone config"
                )
    except FetchError as problem:
        yield Finding("storages", "problem", str(problem), "rclone config")


def programs(_: float) -> Iterator[Finding]:
    """What is used where it is there."""
    if (found := shutil.which("aria2c")) is None:
        yield Finding(
            "aria2", "advice", "it is not here: large files come over one connection", "if wanted: apt install aria2"
        )
    else:
        yield Finding("aria2", "ok", found)


def ssh(program_s: float) -> Iterator[Finding]:
    """What workers elsewhere need on this side: a key that opens, an agent that holds it, hosts that are known."""
    folder = Path.home() / ".ssh"
    if (found := shutil.which("ssh")) is None:
        yield Finding(
            "ssh",
            "advice",
            "the program is not here: ~/.ssh/config cannot be read as ssh does",
            "apt install openssh-client",
        )
    else:
        yield Finding("ssh", "ok", found)
    keys = sorted(path for path in folder.glob("id_*") if path.suffix != ".pub" and path.is_file())
    held = 0
    if os.environ.get("SSH_AUTH_SOCK") and shutil.which("ssh-add"):
        code, said = ask(["ssh-add", "-l"], program_s)
        held = 1 if code == 0 else 0
        text = "it holds keys" if held else "it holds no key" if code == 1 else f"it does not answer ({said})"
        yield Finding(
            "ssh agent", "ok" if code in (0, 1) else "advice", text, None if code in (0, 1) else "unset SSH_AUTH_SOCK"
        )
    for key in keys:
        if stat.S_IMODE(key.stat().st_mode) & 0o077:
            yield Finding("ssh keys", "problem", f"{key} may be read by others: ssh refuses it", f"chmod 600 {key}")
    if not keys and not held:
        yield Finding("ssh keys", "advice", "there is none: workers elsewhere need one", "ssh-keygen -t ed25519")
    elif keys:
        yield Finding("ssh keys", "ok", ", ".join(key.name for key in keys))
    from scitq.remote.hostkeys import own_file

    files = [path for path in (folder / "known_hosts", own_file()) if path.is_file()]
    lines = [line for path in files for line in path.read_text(errors="replace").splitlines()]
    count = sum(bool(line.strip()) and not line.startswith("#") for line in lines)
    places = " and ".join(map(str, files))
    yield Finding("ssh hosts", "ok", f"{several(count, 'known key')} in {places}" if count else "none is known yet")
