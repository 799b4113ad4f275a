"""The demo's numbers, against the same numbers found another way.

Reads are placed here by multiplying polynomials, trimmed by trying every cut, and counted by hand; nothing of
`scitq.demo.pipeline` computes what it is compared with.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from scitq.demo import pipeline, run

SAMPLES = [
    "tiles-001-012",
    "tiles-013-025",
    "tiles-026-038",
    "tiles-039-050",
    "tiles-051-062",
    "tiles-063-075",
    "tiles-076-088",
    "tiles-089-100",
]


class Fastq(NamedTuple):
    """A record of a FASTQ file as it stands there."""

    head: str
    bases: str
    quality: list[int]


def records(path: Path) -> Iterator[Fastq]:
    lines = gzip.decompress(path.read_bytes()).decode().split("\n")
    for start in range(0, len(lines) - 3, 4):
        yield Fastq(lines[start], lines[start + 1], [ord(letter) - 33 for letter in lines[start + 3]])


def pairs_of(sample: str) -> list[tuple[Fastq, Fastq]]:
    _, first, last = sample.split("-")
    both = zip(*(records(path) for path in run.READS), strict=True)
    return [pair for pair in both if int(first) <= int(pair[0].head.split("_")[3]) <= int(last)]


def best_end(quality: list[int]) -> int:
    """Where cutting removes the most; tried out for every end that the walk from the right can reach."""
    reachable = [len(quality)]
    for end in range(len(quality) - 1, -1, -1):
        if sum(20 - q for q in quality[end:]) < 0:
            break
        reachable.append(end)
    return max(reachable, key=lambda end: (sum(20 - q for q in quality[end:]), end))


REFERENCE = "".join(gzip.decompress(run.REFERENCE.read_bytes()).decode().split("\n")[1:])
OTHER_STRAND = {"A": "T", "C": "G", "G": "C", "T": "A", "N": "N"}


def matches_everywhere(bases: str) -> bytes:
    """How many bases agree at every offset at once: the coefficients of a product of polynomials, a byte each.

    For each letter the reference is a polynomial that has it where its coefficient is one, and the read one that has it
    turned round; the coefficient of their product at `offset + length - 1` counts the agreements.
    """
    product = 0
    for letter in "ACGT":
        there = int.from_bytes(bytes(base == letter for base in REFERENCE), "little")
        here = int.from_bytes(bytes(base == letter for base in reversed(bases)), "little")
        product += there * here
    coefficients = product.to_bytes(len(REFERENCE) + len(bases), "little")
    return coefficients[len(bases) - 1 : len(REFERENCE)]


def placed(bases: str) -> tuple[int, str, int]:
    """Mismatches, the read as it lies on the reference, offset."""
    assert len(bases) < 256, "a coefficient must fit in its byte"
    found = []
    for turned in (bases, "".join(OTHER_STRAND[base] for base in reversed(bases))):
        agreeing = matches_everywhere(turned)
        most = max(agreeing)
        found.append((len(bases) - most, turned, agreeing.index(most)))
    return min(found, key=lambda place: place[0])


@functools.cache
def expected(sample: str) -> tuple[dict[str, str], list[int]]:
    """A sample's row of the report, and its depth along the reference."""
    pairs = pairs_of(sample)
    kept, inserts, depth = [], [], [0] * len(REFERENCE)
    mismatches = 0
    for pair in pairs:
        ends = [best_end(read.quality) for read in pair]
        if min(ends) < 40:
            continue
        covered = set()
        for read, end in zip(pair, ends, strict=True):
            kept.append((read.bases[:end], read.quality[:end]))
            wrong, turned, offset = placed(read.bases[:end])
            assert wrong <= end / 10, "all of these reads belong to the reference"
            mismatches += wrong
            span = range(offset, offset + len(turned))
            covered |= {span[0], span[-1]}
            for position in span:
                depth[position] += 1
        inserts.append(max(covered) - min(covered) + 1)
    bases = "".join(bases for bases, _ in kept)
    kmers = [read[i : i + 21] for read, _ in kept for i in range(len(read) - 20)]
    both_strands = REFERENCE + "|" + "".join(OTHER_STRAND[base] for base in reversed(REFERENCE))
    known = {both_strands[i : i + 21] for i in range(len(both_strands) - 20)}
    row = {
        "sample": sample,
        "reads": str(2 * len(pairs)),
        "kept": str(len(kept)),
        "mean Q": f"{statistics.fmean(q for _, quality in kept for q in quality):.2f}",
        "GC %": f"{100 * sum(base in 'GC' for base in bases) / len(bases):.2f}",
        "placed": str(len(kept)),
        "mismatches before": str(sum(placed(read.bases)[0] for pair in pairs for read in pair)),
        "mismatches": str(mismatches),
        "insert": f"{statistics.median(inserts):g}",
        "k-mers %": f"{100 * sum(kmer in known for kmer in kmers) / len(kmers):.2f}",
        "coverage": f"{len(bases) / len(REFERENCE):.2f}",
        "breadth %": f"{100 * sum(map(bool, depth)) / len(REFERENCE):.1f}",
    }
    return row, depth


class Inline:
    """An engine that runs a command when it is submitted."""

    def __init__(self) -> None:
        self.output: dict[str, str] = {}
        self.batches: list[str] = []
        self.requires: dict[str, list[str]] = {}

    def submit(self, command: list[str], /, *, name: str, batch: str, requires: Sequence[str]) -> str:
        self.requires[name] = list(requires)
        self.batches.append(batch)
        self.output[name] = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return name


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Inline, Path]:
    """The whole demo, run once without an engine."""
    results = tmp_path_factory.mktemp("demo")
    engine = Inline()
    run.submit(engine, results)
    return engine, results


def test_every_number_of_the_report_is_found_by_other_means_too(finished: tuple[Inline, Path]) -> None:
    rows = {row["sample"]: row for row in run.summary(finished[1])}

    assert list(rows) == [*SAMPLES, "all"]
    for sample in SAMPLES:
        assert rows[sample] == expected(sample)[0]
    for counted in ("reads", "kept", "placed", "mismatches before", "mismatches"):
        assert int(rows["all"][counted]) == sum(int(rows[sample][counted]) for sample in SAMPLES)
    # Four thousand reads, of a library that its makers say has inserts of about 215 bases.
    assert (rows["all"]["reads"], rows["all"]["insert"]) == ("4108", "215")


def test_coverage_of_every_position_is_found_by_other_means_too(finished: tuple[Inline, Path]) -> None:
    for sample in SAMPLES[::3]:
        _, *lines = (finished[1] / "place" / sample / "coverage.tsv").read_text().splitlines()
        table = [line.split("\t") for line in lines]

        assert "".join(line[1] for line in table) == REFERENCE
        assert [int(line[2]) for line in table] == expected(sample)[1]
        assert all(int(depth) == sum(map(int, bases)) for _, _, depth, *bases in table)


def test_the_best_place_is_the_best_by_plain_comparison() -> None:
    planes = pipeline.bit_planes(REFERENCE)
    for one, two in pairs_of("tiles-001-012")[:12]:
        for bases in (one.bases, two.bases[:37] + "N" + two.bases[38:]):
            counts = {}
            for strand, turned in (("+", bases), ("-", "".join(OTHER_STRAND[base] for base in reversed(bases)))):
                for offset in range(len(REFERENCE) - len(bases) + 1):
                    there = REFERENCE[offset : offset + len(bases)]
                    counts[strand, offset] = sum(a != b for a, b in zip(turned, there, strict=True))
            (where, fewest), (_, second), *_ = sorted(counts.items(), key=lambda item: item[1])
            assert pipeline.best_place(bases, planes, len(REFERENCE)) == (fewest, second, *where)


def test_tasks_are_named_batched_and_wait_for_what_they_read(finished: tuple[Inline, Path]) -> None:
    engine, _ = finished

    assert engine.batches == ["trim"] * 8 + ["place", "kmer"] * 8 + ["report"]
    assert engine.requires["trim tiles-001-012"] == []
    assert engine.requires["place tiles-013-025"] == ["trim tiles-013-025"]
    assert engine.requires["kmer tiles-089-100"] == ["trim tiles-089-100"]
    assert engine.requires["report all"] == [name for name in engine.requires if name != "report all"]


def test_the_report_prints_a_table_that_fits_a_terminal(finished: tuple[Inline, Path]) -> None:
    engine, results = finished
    text = engine.output["report all"]

    assert run.table(results) == text.rstrip("\n")
    head, first, *_ = text.splitlines()
    assert head.split("  ")[0] == "sample" and "coverage" in head
    assert first.startswith("tiles-001-012") and "x" in first
    assert max(map(len, text.splitlines())) <= 90
    assert all(len(line) <= 80 for line in text.splitlines()[:10])


def change_one_base(source: Path, target: Path, wanted: Callable[[str], bool]) -> str:
    """A copy of the reads in which the first that is wanted has another base in its middle; gives its name."""
    lines = gzip.decompress(source.read_bytes()).decode().splitlines(keepends=True)
    at = next(number for number in range(0, len(lines), 4) if wanted(lines[number]))
    bases = lines[at + 1]
    middle = 20
    lines[at + 1] = bases[:middle] + {"A": "C", "C": "G", "G": "T", "T": "A"}[bases[middle]] + bases[middle + 1 :]
    target.write_bytes(gzip.compress("".join(lines).encode()))
    return lines[at].split("/")[0][1:]


def test_changing_one_base_of_one_read_changes_its_sample_and_no_other(
    finished: tuple[Inline, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = tmp_path / "changed_1.fq.gz"
    name = change_one_base(run.READS[0], changed, lambda head: head.startswith("@EAS20_8_6_30_"))
    monkeypatch.setattr(run, "READS", (changed, run.READS[1]))
    monkeypatch.setattr(run, "samples", lambda: ["tiles-013-025", "tiles-026-038"])

    run.submit(Inline(), tmp_path / "results")

    before = {row["sample"]: row for row in run.summary(finished[1])}
    after = {row["sample"]: row for row in run.summary(tmp_path / "results")}
    assert name.startswith("EAS20_8_6_30_")
    assert after["tiles-013-025"] == before["tiles-013-025"]
    was, now = before["tiles-026-038"], after["tiles-026-038"]
    assert int(now["mismatches"]) == int(was["mismatches"]) + 1
    assert int(now["mismatches before"]) == int(was["mismatches before"]) + 1
    assert now["k-mers %"] != was["k-mers %"]


def step(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", pipeline.__file__, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_step_run_again_replaces_its_folder_as_a_whole(finished: tuple[Inline, Path], tmp_path: Path) -> None:
    trimmed = finished[1] / "trim" / "tiles-039-050"
    out = tmp_path / "out"
    out.mkdir()
    (out / "left by an earlier run").touch()

    assert step("place", trimmed, run.REFERENCE, out).returncode == 0

    assert sorted(path.name for path in out.iterdir()) == ["coverage.tsv", "placements.tsv", "stats.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"], "nothing half-done stays beside it"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "STEP"),
        (("fly",), "STEP"),
        (("trim", run.READS[0], run.READS[1], "tiles-900-901", "out"), "no pair is left"),
        (("trim", run.READS[0], run.READS[1], "everything", "out"), "must look like tiles-001-012"),
        (("trim", run.READS[0], run.REFERENCE, "tiles-001-012", "out"), "not FASTQ"),
        (("report", "out", "absent"), "absent"),
    ],
)
def test_a_wrong_call_fails_with_a_sentence_and_leaves_nothing(
    arguments: tuple[object, ...], said: str, tmp_path: Path
) -> None:
    ended = step(*arguments)

    assert ended.returncode != 0
    assert said in ended.stderr
    assert not list(tmp_path.iterdir())


def test_the_reads_are_those_that_the_readme_beside_them_names() -> None:
    text = (run.DATA / "README.md").read_text()
    for path in (*run.READS, run.REFERENCE):
        assert f"`{path.name}`" in text
        assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    assert (run.DATA / "GPL-2").read_text().lstrip().startswith("GNU GENERAL PUBLIC LICENSE")
