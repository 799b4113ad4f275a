"""(j) Moving data: `scitq-fetch` beside the `rclone` program called by hand with the same settings, over one server."""

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


def moving(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """From and to a WebDAV server on loopback: one big file, and many small ones in one folder."""
    big_bytes, count = (10_000_000, 20) if quick else (BIG_BYTES, SMALL_FILES)
    served = folder / "served"
    (served / "big").mkdir(parents=True)
    (served / "small").mkdir()
    block = os.urandom(10_000_000)
    with open(served / "big" / "x.bin", "wb") as file:
        for _ in range(big_bytes // len(block)):
            file.write(block)
    for number in range(count):
        (served / "small" / f"{number:04}.txt").write_bytes(block[number : number + 2000])
    ways = [
        (f"{big_bytes / 1e9:g} GB, here", "dav://big/x.bin", "here/", "dav:big/x.bin"),
        (f"{big_bytes / 1e9:g} GB, there", "big/x.bin", "dav://there/", "big/x.bin"),
        (f"{count:,} small files, here", "dav://small", "here/", "dav:small"),
        (f"{count:,} small files, there", "small", "dav://there", "small"),
    ]
    rows, findings = [], []
    with server(served, folder) as environ:
        for title, source, target, by_hand in ways:
            taken: dict[str, list[float]] = {OURS: [], BY_HAND: []}
            words = {
                OURS: [sys.executable, "-c", "from scitq.shell.cli import fetch; fetch()", "copy", source, target],
                BY_HAND: [rclone(), "copy", "--transfers=4", by_hand, target.replace("://", ":")],
            }
            for turn in range(max(2, rounds)):
                for name in (OURS, BY_HAND) if turn % 2 else (BY_HAND, OURS):
                    for place in (folder / "here", served / "there"):
                        shutil.rmtree(place, ignore_errors=True)
                        place.mkdir()
                    os.sync()  # what the one before wrote is not for this one to wait for
                    begin = time.perf_counter()
                    subprocess.run(words[name], cwd=served if "there" in target else folder, env=environ, check=True,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
                    taken[name].append(time.perf_counter() - begin)
            ratios = [ours / theirs for ours, theirs in zip(taken[OURS], taken[BY_HAND], strict=True)]
            rows.append((title, spread(taken[OURS]), spread(taken[BY_HAND]), spread(ratios)))
            findings.append(at_most(title, statistics.median(ratios), 1.1))
    return Section(
        "j", "Copies between this machine and a WebDAV server on it, in seconds", ("", OURS, BY_HAND, "ratio"), rows, findings,
        ["scitq-fetch includes the start of Python, a look at what is there, and the check that it is whole."],
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
            [rclone(), "serve", "webdav", "--addr=127.0.0.1:0", "--dir-cache-time=0s", "--config=", str(served)],
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
        config.write_text(f"[dav]\ntype = webdav\nurl = http://127.0.0.1:{port}/\nvendor = other\n")
        yield {**surroundings(), "RCLONE_CONFIG": str(config)}
    finally:
        process.kill()
        process.wait()
