"""(j), (k) Moving data: `scitq-fetch` beside the `rclone` program called by hand with the same settings, over one server."""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contest import surroundings
from benchmarks.report import Section, at_most, spread

BIG_BYTES = 2 * 1000**3
SMALL_FILES = 2000
OURS, BY_HAND = "scitq-fetch copy", "rclone copy"


def big(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(j) One file of 2 GB from and to a WebDAV server on loopback."""
    size_bytes = 10_000_000 if quick else BIG_BYTES
    served = folder / "served" / "big"
    served.mkdir(parents=True)
    block = os.urandom(10_000_000)
    with open(served / "x.bin", "wb") as file:
        for _ in range(size_bytes // len(block)):
            file.write(block)
    return compared("j", f"A file of {size_bytes / 1e9:g} GB", "big/x.bin", rounds, folder)


def small(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """(k) 2,000 files of 2 kB in one folder."""
    count = 20 if quick else SMALL_FILES
    served = folder / "served" / "small"
    served.mkdir(parents=True)
    for number in range(count):
        (served / f"{number:04}.txt").write_bytes(os.urandom(2000))
    return compared("k", f"{count:,} files of 2 kB", "small", rounds, folder)


def compared(letter: str, title: str, what: str, rounds: int, folder: Path) -> Section:
    """Both ways, taking turns."""
    served = folder / "served"
    rows, findings = [], []
    with server(served, folder) as environ:
        for way in ("from the server", "to the server"):
            taken: dict[str, list[float]] = {OURS: [], BY_HAND: []}
            for turn in range(max(2, rounds)):
                for name in (OURS, BY_HAND) if turn % 2 else (BY_HAND, OURS):
                    # A place of its own each time: the server remembers what was where.
                    place = f"{turn}-{name.partition(' ')[0]}"
                    source, target = (
                        (f"dav://{what}", f"here/{place}/")
                        if way.startswith("from")
                        else (what, f"dav://there/{place}/")
                    )
                    words = (
                        [source, target] if name == OURS else [each.replace("://", ":") for each in (source, target)]
                    )
                    program = [sys.executable, "-c", "from scitq.shell.cli import fetch; fetch()", "copy"]
                    begin = time.perf_counter()
                    subprocess.run(
                        [*(program if name == OURS else [rclone(), "copy", "--transfers=4"]), *words], cwd=served, env=environ,
                        check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    )  # fmt: skip
                    taken[name].append(time.perf_counter() - begin)
                    for left in (served / "here" / place, served / "there" / place):
                        shutil.rmtree(left, ignore_errors=True)
                    os.sync()  # what this one wrote is not for the next to wait for
            ratios = [ours / theirs for ours, theirs in zip(taken[OURS], taken[BY_HAND], strict=True)]
            rows.append((way, spread(taken[OURS]), spread(taken[BY_HAND]), spread(ratios)))
            findings.append(at_most(f"{way}: {OURS} / {BY_HAND}", statistics.median(ratios), 1.1))
    return Section(
        letter, f"{title}, to and from a WebDAV server on this machine, in seconds", ("", OURS, BY_HAND, "ratio"), rows, findings,
        ["scitq-fetch's time includes the start of Python, and the check that all has come."],
    )  # fmt: skip


def rclone() -> str:
    """The program that scitq-fetch uses too."""
    return shutil.which("rclone") or str(Path(sys.executable).parent / "rclone")


@contextlib.contextmanager
def server(served: Path, folder: Path) -> Iterator[dict[str, str]]:
    """The server; gives an environment in which `dav` is its name."""
    socket = folder / "dav.log"
    with socket.open("wb") as log:
        process = subprocess.Popen(
            [rclone(), "serve", "webdav", "--addr=127.0.0.1:0", "--config=", str(served)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while "http://127.0.0.1:" not in (said := socket.read_text()):
            if time.monotonic() > deadline or process.poll() is not None:
                raise RuntimeError(f"rclone serve webdav does not start: {said}")
            time.sleep(0.05)
        port = said.partition("http://127.0.0.1:")[2].partition("/")[0]
        config = folder / "rclone.conf"
        config.write_text(
            f"[dav]\ntype = webdav\nurl = http://127.0.0.1:{port}/\nvendor = other\npacer_min_sleep = 0\n"
        )
        yield {**surroundings(), "RCLONE_CONFIG": str(config)}
    finally:
        process.kill()
        process.wait()
