"""Leases on a host, run there before anything of ours is there, so it stands alone (Python 3.10, the standard library).

A lease is a folder `slot-N` below ~/.scitq/leases: made whole beside its place and moved there, which works for one only. The agent
of who leased lives in it, and dies with it. `main` does one thing and says in one line what it found: facts about the host, leases.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Any

PLACE = "~/.scitq/leases"
NOTE = "lease.json"
STALE_S = 600.0
"""A lease whose agent has ended is its own file's again after so long without a sign of life."""
KILL_S = 20.0


def main(asked: dict[str, Any]) -> None:
    """Do it, and tell."""
    sys.stdout.write(f"\n{asked['mark']} {json.dumps(done(asked))}\n")
    sys.stdout.flush()


def done(asked: dict[str, Any]) -> dict[str, Any]:
    """Take (`take`), give back (`drop`: a lease's id), show a sign of life (`seen`: ids), or only look; what is there then."""
    base = os.path.expanduser(PLACE)
    told: dict[str, Any] = {"python": sys.executable}
    try:
        os.makedirs(base, mode=0o700, exist_ok=True)
        with turn(base):
            if asked.get("take"):
                told["taken"] = take(base, asked["take"], asked["slots"])
            if asked.get("drop"):
                drop(base, asked["drop"])
            if asked.get("seen"):
                seen(base, asked["seen"])
            told["leases"] = leases(base)
        told["facts"] = facts(base)
    except OSError as error:
        told["error"] = f"{error.filename or base}: {error.strerror or error}"
    return told


@contextlib.contextmanager
def turn(base: str) -> Any:
    """One at a time; where the folder's system has no locks, moving a folder into its place has to do."""
    held = os.open(os.path.join(base, "lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


def leases(base: str) -> list[dict[str, Any]]:
    """All that there are, each with its id and its last sign of life."""
    found = []
    for name in sorted(os.listdir(base)):
        if name.startswith("slot-") and (one := read(base, name)) is not None:
            found.append(one)
    return found


def read(base: str, name: str) -> dict[str, Any] | None:
    """One lease; None without one."""
    path = os.path.join(base, name, NOTE)
    try:
        with open(path, encoding="utf-8") as file:
            told: dict[str, Any] = json.load(file)
        seen_s = os.stat(path).st_mtime
    except (OSError, ValueError):
        return None
    return {**told, "id": f"{name}/{told['code']}", "folder": os.path.join(base, name, "work"), "seen": seen_s}


def take(base: str, wanted: dict[str, Any], slots: int) -> dict[str, Any] | None:
    """The lease of that name, or a new one; None when all are taken."""
    there = leases(base)
    for one in there:
        if one["name"] == wanted["name"]:
            return one
    fresh = os.path.join(base, f".new-{wanted['code']}-{os.getpid()}")
    os.makedirs(fresh, mode=0o700, exist_ok=True)
    with open(os.path.join(fresh, NOTE), "w", encoding="utf-8") as file:
        json.dump({**wanted, "taken": time.time()}, file)
    try:
        for number in range(slots):
            name = f"slot-{number}"
            old = next((one for one in there if one["id"].startswith(f"{name}/")), None)
            if old is not None and is_free(base, old, wanted["store"]):
                remove(base, name)
            with contextlib.suppress(OSError):
                os.rename(fresh, os.path.join(base, name))
                return read(base, name)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return None


def is_free(base: str, lease: dict[str, Any], store: str) -> bool:
    """Whether a lease may be taken from its holder: its time is over, or it is this file's own and has been dead for a while."""
    if lease.get("expires") is not None and time.time() > lease["expires"]:
        return True
    is_stale = time.time() - lease["seen"] > STALE_S
    return lease["store"] == store and is_stale and not processes(os.path.dirname(lease["folder"]))


def drop(base: str, id: str) -> None:
    """Give a lease back, with everything that runs in it."""
    name, _, code = id.partition("/")
    one = read(base, name)
    if one is not None and one["code"] == code:
        remove(base, name)


def seen(base: str, ids: list[str]) -> None:
    """Who holds these asks for them: a sign of life."""
    for id in ids:
        name, _, code = id.partition("/")
        one = read(base, name)
        if one is not None and one["code"] == code:
            os.utime(os.path.join(base, name, NOTE))


def remove(base: str, name: str) -> None:
    """End everything of a lease, then take its folder away. Killed in between, it is there to be dropped again."""
    place = os.path.join(base, name)
    deadline = time.monotonic() + KILL_S
    while (found := processes(place)) and time.monotonic() < deadline:
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)
    old = os.path.join(base, f".old-{os.getpid()}-{time.time_ns()}")
    os.rename(place, old)
    shutil.rmtree(old, ignore_errors=True)


def processes(place: str) -> list[int]:
    """Those whose command line or environment says that they belong to an agent in a folder. Agents first, then keepers: nobody is to
    hear of tasks that end because they were ended."""
    sign, found = os.fsencode(place) + b"/", []
    for entry in os.listdir("/proc") if os.path.isdir("/proc/self") else []:
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                words = file.read().split(b"\0")
            at = words.index(b"--root") if b"--root" in words else 0
            role = words[at - 1] if at and any(word.startswith(sign) for word in words[at + 1 : at + 2]) else b""
            with open(f"/proc/{entry}/environ", "rb") as file:
                pairs = [pair.partition(b"=") for pair in file.read().split(b"\0")]
            names = (b"INPUT", b"OUTPUT", b"TEMP", b"RESOURCE", b"SCITQ_TRANSFERS")
            if role or any(name in names and value.startswith(sign) for name, _, value in pairs):
                found.append((role != b"agent", role != b"keeper", int(entry)))
    return [pid for _, _, pid in sorted(found)]


def facts(base: str) -> dict[str, Any]:
    """What the machine is and has."""
    disk = os.statvfs(base)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "cpus": cpus,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "disk_free": disk.f_bavail * disk.f_frsize,
        "machine": os.uname().machine,
        "gpus": gpus(),
    }


def gpus() -> list[list[str]]:
    """Name and MiB of memory of each GPU that NVIDIA's program lists."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    words = [program, "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    return [[part.strip() for part in line.rsplit(",", 1)] for line in done.stdout.splitlines() if "," in line]
