"""What a new host is asked, and done to it: run there before anything of ours is there, so it stands alone.

`bootstrap` sends this file's text to the host's Python and talks with it over standard input and output, one JSON object a
line: facts about the host; the bundle and the token, where they lack; the agent's start; a first task, unless one ran well
with this very program. Repeating it does no harm.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from typing import Any

FLAGS = ["-I", "-S", "-X", "utf8"]
# See fetch.rclonerun: the first that names a file only when it is whole.
OLDEST_RCLONE = (1, 63)
# In the root folder: the digest of the program with which a first task ran well.
TRIED = "tried"
# Of the login that started it, not for tasks.
FOREIGN = ("SSH_", "XDG_SESSION_", "DBUS_", "XDG_RUNTIME_DIR", "SUDO_")


def main(asked: dict[str, Any]) -> None:
    """Tell facts; take what comes; start the agent."""
    places, root = [], None
    for base in bases(asked):
        problem = why_not(base, is_new=not os.path.isdir(os.path.join(base, asked["below"])))
        places.append([base, problem])
        if problem is None:
            root = os.path.join(base, asked["below"])
            break
    found = facts(root)
    found["refused"] = [place for place in places if place[1]]
    if root is None:
        say(asked, found)
        return
    program = os.path.join(root, f"agent-{asked['digest'][:16]}.pyz")
    found.update(root=root, program=program, has_program=digest(program) == asked["digest"])
    found["is_tried"] = read(os.path.join(root, TRIED)) == asked["digest"]
    say(asked, found)
    line = sys.stdin.buffer.readline()
    if not line:
        return  # nobody is there any more
    told = json.loads(line)
    try:
        make_private(root)
        if told["size"]:
            take(program, told["size"], asked["digest"], root)
            say(asked, {"ok": True})
        keep(os.path.join(root, "token"), (told["token"] + "\n").encode())
    except OSError as error:
        say(asked, {"ok": False, "error": f"{error.strerror or error}: {error.filename or root}"})
        return
    said = start(program, root, told)
    say(asked, said)
    if said["ok"] and told["try"]:
        say(asked, attempt(program, root, asked["digest"]))


def bases(asked: dict[str, Any]) -> list[str]:
    """Where the agent's folder may be, best first; the one that has it already before all."""
    if asked["folder"]:
        return [os.path.abspath(os.path.expanduser(asked["folder"]))]
    home = os.path.expanduser("~")
    found = [os.path.join(home, ".scitq")] if home.startswith("/") else []
    found += [f"/var/tmp/scitq-{os.getuid()}", f"/tmp/scitq-{os.getuid()}"]
    return sorted(found, key=lambda base: not os.path.isdir(os.path.join(base, asked["below"])))


def why_not(base: str, *, is_new: bool) -> str | None:
    """Why a folder cannot be used; None when it can. It is made, private, and nobody else's. In one that `is_new` to us
    programs must run as well: what tasks bring along, what scitq brings."""
    try:
        os.makedirs(base, mode=0o700, exist_ok=True)
        found = os.lstat(base)
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            return "it belongs to somebody else"
        os.chmod(base, 0o700)
        trial = os.path.join(base, f".trial-{os.getpid()}")
        with open(trial, "wb") as file:
            file.write(b"x" * 4096)
        os.unlink(trial)
        return why_not_run(trial) if is_new else None
    except OSError as error:
        return error.strerror or str(error)


def why_not_run(trial: str) -> str | None:
    """Why no program runs from there; None when one does."""
    keep(trial, b"#!/bin/sh\nexit 0\n")
    try:
        os.chmod(trial, 0o700)
        subprocess.run([trial], stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    except PermissionError:
        return "no program can be run from there (is it mounted noexec?)"
    except (OSError, subprocess.SubprocessError):
        pass  # the first task will tell better
    finally:
        os.unlink(trial)
    return None


def facts(root: str | None) -> dict[str, Any]:
    """What this machine is and has."""
    space = None
    if root is not None:
        disk = os.statvfs(os.path.dirname(os.path.dirname(root)))
        space = disk.f_bavail * disk.f_frsize
    engine = next((name for name in ("docker", "podman", "apptainer", "singularity") if shutil.which(name)), None)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return {
        "python": sys.executable,
        "version": ".".join(map(str, sys.version_info[:3])),
        "host": os.uname().nodename,
        "machine": os.uname().machine,
        "uid": os.getuid(),
        "cpus": cpus,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "disk_free": space,
        "gpus": gpus(),
        "engine": engine,
        "rclone": rclone(root),
        "killed_at_logout": is_killed_at_logout(),
    }


def rclone(root: str | None) -> str | None:
    """The host's own rclone, or else the one that scitq brought; None when neither is new enough."""
    places = [os.environ.get("PATH") or os.defpath, *([] if root is None else [brought(root)])]
    for found in filter(None, (shutil.which("rclone", path=place) for place in places)):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(
                [found, "version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
            )
            version = re.search(r"v(\d+)\.(\d+)", done.stdout)
            if version is not None and (int(version[1]), int(version[2])) >= OLDEST_RCLONE:
                return found
    return None


def search_path(root: str | None) -> str:
    """Where programs are looked for: last of all among those that scitq brought."""
    common = os.environ.get("PATH") or os.defpath
    return common if root is None else f"{common}:{brought(root)}"


def brought(root: str) -> str:
    """Where programs lie that scitq brought: for all workers of this user."""
    return f"{os.path.dirname(os.path.dirname(root))}/bin"


def gpus() -> int:
    """How many GPUs NVIDIA's program lists."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return 0
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.SubprocessError):
        return 0
    return sum(line.startswith("GPU ") for line in done.stdout.splitlines())


def is_killed_at_logout() -> bool:
    """Whether systemd ends what a user left running, and was not told to let this user's linger."""
    if os.getuid() == 0 or not os.path.isdir("/run/systemd/system"):
        return False
    import pwd

    if os.path.exists(f"/var/lib/systemd/linger/{pwd.getpwuid(os.getuid()).pw_name}"):
        return False
    kills = False
    names = ["/etc/systemd/logind.conf"]
    for folder in ("/usr/lib/systemd/logind.conf.d", "/etc/systemd/logind.conf.d"):
        if os.path.isdir(folder):
            names += [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    for name in names:
        try:
            with open(name, encoding="utf-8", errors="replace") as file:
                for line in file:
                    key, _, value = line.strip().partition("=")
                    if key.strip() == "KillUserProcesses":
                        kills = value.strip().lower() in ("yes", "true", "on", "1")
        except OSError:
            continue
    return kills


def make_private(root: str) -> None:
    """The root folder and the one above it."""
    for folder in (os.path.dirname(root), root):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chmod(folder, 0o700)


def digest(path: str) -> str | None:
    """A file's SHA-256; None where there is none."""
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError:
        return None


def take(program: str, size: int, wanted: str, root: str) -> None:
    """Receive the bundle; older ones go, but for those that may be running."""
    data = sys.stdin.buffer.read(size)
    if hashlib.sha256(data).hexdigest() != wanted:
        raise OSError(5, "the agent's program did not arrive whole", program)
    keep(program, data)
    old = [os.path.join(root, name) for name in os.listdir(root) if name.startswith("agent-") and name.endswith(".pyz")]
    for path in sorted(old, key=os.path.getmtime)[:-3]:
        os.unlink(path)


def keep(path: str, data: bytes) -> None:
    """Write a private file, whole or not at all."""
    fresh = f"{path}.{os.getpid()}.new"
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(data)
    os.rename(fresh, path)


def read(path: str) -> str | None:
    """What a small file says; None where there is none."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def start(program: str, root: str, told: dict[str, Any]) -> dict[str, Any]:
    """Have the agent started, unless it runs."""
    more = ["--linger", str(told["linger"]), *(["--port", "yes"] if told["port"] else [])]
    return run(program, root, "ensure", more)


def attempt(program: str, root: str, digest: str) -> dict[str, Any]:
    """Have a first task run, and remember that it did, until another program comes."""
    found = run(program, root, "try", [])
    if found["ok"]:
        with contextlib.suppress(OSError):
            keep(os.path.join(root, TRIED), digest.encode())
    return found


def run(program: str, root: str, role: str, more: list[str]) -> dict[str, Any]:
    """The agent's program in one of its roles: what came of it."""
    words = [sys.executable, *FLAGS, program, role, "--root", root, *more]
    own = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    own["PATH"] = search_path(root)
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, env=own, cwd="/", check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout.decode().splitlines()[-1])
    except (ValueError, IndexError):
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-500:]
        found = {"ok": False, "error": f"the agent's program did not run: {said or f'exit {done.returncode}'}"}
    return found


def say(asked: dict[str, Any], told: dict[str, Any]) -> None:
    """A line that is told from what the login itself says."""
    sys.stdout.write(f"\n{asked['mark']} {json.dumps(told)}\n")
    sys.stdout.flush()
