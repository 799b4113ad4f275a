"""The one runner: `python benchmarks/run.py [a b c …] [--rounds 5] [--quick] [--no-peers] [--write]`.

It prints what it finds, as ratios to references measured in turn in the same session; with --write it also goes to RESULTS.md,
where parts that were not run this time keep their old text. What is measured is in the modules beside this one.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import re
import sys
import tempfile
import traceback
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if not __package__:  # run as a program
    sys.path[0] = str(ROOT)

from benchmarks import (  # noqa: E402
    agents,
    containers,
    contest,
    cuts,
    data,
    functions,
    holding,
    hosts,
    machine,
    noops,
    pages,
    profiles,
    prompts,
    resting,
    screens,
    workflows,
)

BENCHMARKS = {
    "a": noops.throughput, "b": noops.latency, "c": holding.submission, "d": holding.asking, "e": noops.graph, "f": resting.cold,
    "g": resting.idle, "h": agents.many, "i": functions.calls, "j": data.big, "k": data.small, "l": containers.echo, "m": hosts.fleet,
    "n": workflows.workflows, "o": cuts.cuts, "p": profiles.profile, "q": screens.screen,
    "r": prompts.completion, "s": pages.pages,
}  # fmt: skip
NEEDS_PEERS = frozenset("abi")
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
_PART = re.compile(r"^## \((\w)\)", re.MULTILINE)


def main() -> int:
    """Run what was asked for; 1 when a benchmark could not be run."""
    parser = argparse.ArgumentParser(
        description="Measure scitq against references, interleaved. Leave the machine alone meanwhile."
    )
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="part",
        help="letters, by default all: "
        + ", ".join(
            f"{letter} {(fn.__module__.rpartition('.')[2])}.{fn.__name__}" for letter, fn in BENCHMARKS.items()
        ),
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each contestant has its turn (5)")
    parser.add_argument(
        "--quick", action="store_true", help="small numbers, to see that it works; the figures mean little"
    )
    parser.add_argument(
        "--no-peers", action="store_true", help="without HyperQueue, huey and executorlib (nothing is installed)"
    )
    parser.add_argument("--write", action="store_true", help="write RESULTS.md")
    parser.add_argument("--folder", type=Path, help="where state files and the rest go (a temporary folder)")
    given = parser.parse_args()
    parts = "".join(given.parts) or "".join(BENCHMARKS)
    if unknown := set(parts) - set(BENCHMARKS):
        parser.error(f"no benchmark {', '.join(sorted(unknown))}; there are {' '.join(BENCHMARKS)}")
    rounds = given.rounds if not given.quick else min(given.rounds, 2)
    is_done = True
    with tempfile.TemporaryDirectory(prefix="scitq-bench-", dir=given.folder) as place:
        folder = Path(place)
        facts = [*machine.facts(folder), ("date", f"{datetime.date.today()}"), ("scitq", _version())]
        facts.append(("rounds", f"{rounds}{', quick: the figures mean little' if given.quick else ''}"))
        peers = not given.no_peers and bool(NEEDS_PEERS & set(parts))
        if peers:
            facts.append(("peers", ", ".join(contest.install_peers())))
        head = "\n".join(f"* {name}: {value}" for name, value in facts)
        print(f"{head}\n", flush=True)
        texts: dict[str, str] = {}
        for letter in parts:
            try:
                texts[letter] = BENCHMARKS[letter](rounds, given.quick, folder, peers).text()
            except Exception:
                is_done = False
                traceback.print_exc()
                continue
            print(texts[letter], flush=True)
    if given.write:
        write(head, texts)
    return 0 if is_done else 1


def write(head: str, texts: dict[str, str]) -> None:
    """Put these parts into RESULTS.md; each says itself under which circumstances it was measured, once they differ."""
    old: dict[str, str] = {}
    tail = ""
    with contextlib.suppress(FileNotFoundError):
        text = RESULTS.read_text(encoding="utf-8")
        text, mark, tail = text.partition("\n## Fault campaign")
        tail = mark + tail
        pieces = _PART.split(text)
        old = {letter: f"## ({letter}){body}".rstrip() for letter, body in zip(pieces[1::2], pieces[2::2], strict=True)}
    told = head.replace("\n* ", "; ").removeprefix("* ")
    fresh = {letter: f"{text.rstrip()}\n\nMeasured with: {told}." for letter, text in texts.items()}
    body = "\n\n".join(found for _, found in sorted({**old, **fresh}.items()))
    RESULTS.write_text(f"{TITLE}\n{body}\n{tail}", encoding="utf-8")


TITLE = """# What was measured

Written by `python benchmarks/run.py --write`; the bars are those of the project's own plan. A ratio compares two things that took
turns in one session; figures are medians of the rounds, with [smallest-largest]. Single runs on a shared machine differ widely.
"""


def _version() -> str:
    from scitq._version import VERSION

    return VERSION


if __name__ == "__main__":
    sys.exit(main())
