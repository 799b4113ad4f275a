"""The demo's steps, as a plain program: `python pipeline.py STEP …`. Standard library only; knows nothing of scitq.

    trim      READS_1 READS_2 SAMPLE OUT    one sample's pairs: cut bad ends off, drop short pairs
    place     TRIMMED REFERENCE OUT         where every kept read lies on the reference, and what covers it
    kmer      TRIMMED REFERENCE OUT         which of the sample's k-mers the reference has
    report    OUT TRIMMED… PLACED… KMERS…   one table of all samples

A sample is a range of tiles of the flow cell's lane, named after it: `tiles-001-012`. Every step writes a folder that
is complete or absent. What the numbers mean stands beside the code that computes them.
"""

from __future__ import annotations

import gzip
import json
import math
import shutil
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

TRIM_BELOW = 20  # bases of a lower quality are cut off the end
SHORTEST = 40  # a pair with a shorter read is dropped
MISMATCHES_ALLOWED = 0.1  # of a read's length; an unrelated read has more than half
KMER_LENGTHS = (21, 33, 55)
PHRED = 33
COMPLEMENT = str.maketrans("ACGTN", "TGCAN")


# The report's columns, and those of them that the printed table has room for.
COLUMNS = (
    "sample",  # range of tiles
    "reads",  # of both mates
    "kept",  # after trimming
    "mean Q",  # of the kept bases
    "GC %",  # of the kept bases
    "placed",  # kept reads with a place on the reference
    "mismatches before",  # of all reads as the machine gave them, at their best places
    "mismatches",  # of the placed reads
    "insert",  # median length of what was sequenced from both ends
    "k-mers %",  # of the kept reads' 21-mers, how many the reference has
    "coverage",  # mean depth of the placed reads
    "breadth %",  # of the reference that any placed read covers
)
SHOWN = ("sample", "reads", "kept", "mean Q", "GC %", "mismatch", "k-mers", "coverage", "breadth")
Row = dict[str, Any]


@dataclass(frozen=True)
class Read:
    """One read: its name without the mate's number, its bases, and the quality of each as a letter."""

    name: str
    bases: str
    quality: str


def main(arguments: Sequence[str]) -> int:
    """Run one step; a wrong call says how it is called."""
    match arguments:
        case ["trim", reads_1, reads_2, sample, out]:
            trim(Path(reads_1), Path(reads_2), sample, Path(out))
        case ["place", trimmed, reference, out]:
            place(Path(trimmed), Path(reference), Path(out))
        case ["kmer", trimmed, reference, out]:
            kmer(Path(trimmed), Path(reference), Path(out))
        case ["report", out, first, *others]:
            print(report(Path(out), [Path(folder) for folder in (first, *others)]))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


# ---- trim


def trim(reads_1: Path, reads_2: Path, sample: str, out: Path) -> None:
    """Keep the pairs of the sample's tiles whose reads are both long enough after their bad ends are cut off."""
    first_tile, last_tile = tiles(sample)
    raw: list[tuple[Read, Read]] = []
    kept: list[tuple[Read, Read]] = []
    for one, two in zip(fastq(reads_1), fastq(reads_2), strict=True):
        if one.name != two.name:
            raise SystemExit(f"{reads_1.name} and {reads_2.name} do not pair: {one.name} stands beside {two.name}")
        if not first_tile <= tile(one.name) <= last_tile:
            continue
        raw.append((one, two))
        pair = cut(one), cut(two)
        if min(len(read.bases) for read in pair) >= SHORTEST:
            kept.append(pair)
    if not kept:
        raise SystemExit(f"{sample}: no pair is left of {len(raw)}")

    reads = [read for pair in kept for read in pair]
    bases = "".join(read.bases for read in reads)
    qualities = [ord(letter) - PHRED for read in reads for letter in read.quality]
    stats = {
        "sample": sample,
        "reads": 2 * len(raw),
        "kept": len(reads),
        "bases": len(bases),
        "quality_sum": sum(qualities),
        "gc": bases.count("G") + bases.count("C"),
        "quality_by_cycle": quality_by_cycle(reads),
    }
    with whole_folder(out) as folder:
        for name, pairs in (("raw", raw), ("reads", kept)):
            for mate in (0, 1):
                write_fastq(folder / f"{name}_{mate + 1}.fastq", [pair[mate] for pair in pairs], mate + 1)
        write_json(folder / "stats.json", stats)


def cut(read: Read) -> Read:
    """Cut the end off where that removes the most quality below the limit, as BWA does.

    Walking in from the end, what each base is short of the limit is summed up; the cut is where the sum is highest.
    """
    short, most, end = 0, 0, len(read.bases)
    for position in range(len(read.bases) - 1, -1, -1):
        short += TRIM_BELOW - (ord(read.quality[position]) - PHRED)
        if short < 0:
            break
        if short > most:
            most, end = short, position
    return Read(read.name, read.bases[:end], read.quality[:end])


def quality_by_cycle(reads: Sequence[Read]) -> list[float]:
    """The mean quality of each cycle of the machine, over the reads that are long enough to have it."""
    sums = [0] * max(len(read.bases) for read in reads)
    counts = sums.copy()
    for read in reads:
        for cycle, letter in enumerate(read.quality):
            sums[cycle] += ord(letter) - PHRED
            counts[cycle] += 1
    return [round(total / count, 2) for total, count in zip(sums, counts, strict=True)]


# ---- place


def place(trimmed: Path, reference_file: Path, out: Path) -> None:
    """Put every kept read where it has the fewest mismatches, of all offsets on both strands; count what covers what.

    The mismatches of the reads before trimming are counted too: the difference is what trimming was good for.
    """
    sample = read_json(trimmed / "stats.json")["sample"]
    reference = fasta(reference_file)
    planes = bit_planes(reference)
    pileup = [Counter[str]() for _ in reference]
    ends: dict[str, list[int]] = {}
    placements: list[str] = []
    placed = mismatched = unique = 0
    for mate in (1, 2):
        for read in fastq(trimmed / f"reads_{mate}.fastq"):
            mismatches, second, strand, offset = best_place(read.bases, planes, len(reference))
            is_placed = mismatches <= MISMATCHES_ALLOWED * len(read.bases)
            row = (read.name, mate, strand, offset + 1, len(read.bases), mismatches, second) if is_placed else None
            placements.append("\t".join(map(str, row or (read.name, mate, "*", "*", len(read.bases), "*", "*"))))
            if not is_placed:
                continue
            placed += 1
            mismatched += mismatches
            unique += second > mismatches
            bases = read.bases if strand == "+" else reverse_complement(read.bases)
            for position, base in enumerate(bases, offset):
                pileup[position][base] += 1
            ends.setdefault(read.name, []).extend((offset, offset + len(bases)))

    raw = [read for mate in (1, 2) for read in fastq(trimmed / f"raw_{mate}.fastq")]
    inserts = [max(found) - min(found) for found in ends.values() if len(found) == 4]
    stats = {
        "sample": sample,
        "placed": placed,
        "unique": unique,
        "mismatches_before": sum(best_place(read.bases, planes, len(reference))[0] for read in raw),
        "mismatches": mismatched,
        "inserts": sorted(inserts),
    }
    with whole_folder(out) as folder:
        head = "read\tmate\tstrand\tposition\tlength\tmismatches\tnext_best"
        write_lines(folder / "placements.tsv", [head, *placements])
        write_lines(
            folder / "coverage.tsv", ["position\treference\tdepth\tA\tC\tG\tT", *pileup_lines(reference, pileup)]
        )
        write_json(folder / "stats.json", stats)


def bit_planes(bases: str) -> tuple[int, int, int]:
    """A sequence as three numbers, one bit a base: two tell A, C, G and T apart, the third marks any other letter."""
    high = low = other = 0
    for position, base in enumerate(bases):
        code = "ACGT".find(base)
        if code < 0:
            other |= 1 << position
        else:
            high |= (code >> 1) << position
            low |= (code & 1) << position
    return high, low, other


def best_place(bases: str, planes: tuple[int, int, int], reference_length: int) -> tuple[int, int, str, int]:
    """The fewest mismatches, those of the next best place, and strand and offset of the best (the first among equals).

    Every offset is tried, so that nothing hides behind a seed that happens to hold an error: with the bases of a read
    side by side in one number, comparing all of them is three operations.
    """
    ref_high, ref_low, ref_other = planes
    mask = (1 << len(bases)) - 1
    best, second, strand, at = len(bases) + 1, len(bases) + 1, "*", -1
    for direction, turned in (("+", bases), ("-", reverse_complement(bases))):
        high, low, other = bit_planes(turned)
        for offset in range(reference_length - len(bases) + 1):
            differing = (ref_high >> offset ^ high) | (ref_low >> offset ^ low) | (ref_other >> offset) | other
            mismatches = (differing & mask).bit_count()
            if mismatches < best:
                best, second, strand, at = mismatches, best, direction, offset
            elif mismatches < second:
                second = mismatches
    return best, second, strand, at


def pileup_lines(reference: str, pileup: Sequence[Counter[str]]) -> Iterator[str]:
    """One line a position of the reference: how often it is covered, and by which bases."""
    for position, (base, column) in enumerate(zip(reference, pileup, strict=True), 1):
        yield "\t".join(map(str, (position, base, column.total(), *(column[letter] for letter in "ACGT"))))


# ---- kmer


def kmer(trimmed: Path, reference_file: Path, out: Path) -> None:
    """Count the sample's k-mers, and those of them that the reference has too, for the k that assemblers start with."""
    sample = read_json(trimmed / "stats.json")["sample"]
    reference = fasta(reference_file)
    reads = [read.bases for mate in (1, 2) for read in fastq(trimmed / f"reads_{mate}.fastq")]
    spectra = {}
    for k in KMER_LENGTHS:
        known = set(canonical_kmers(reference, k))
        counts = Counter(found for bases in reads for found in canonical_kmers(bases, k))
        spectra[str(k)] = {
            "total": counts.total(),
            "distinct": len(counts),
            "total_known": sum(count for found, count in counts.items() if found in known),
            "distinct_known": len(known & counts.keys()),
            "reference": len(known),
            # How many distinct k-mers were seen once, twice, …: errors make the peak at one, the genome the other.
            "histogram": sorted(Counter(counts.values()).items()),
        }
    with whole_folder(out) as folder:
        write_json(folder / "stats.json", {"sample": sample, "spectra": spectra})


def canonical_kmers(bases: str, k: int) -> Iterator[str]:
    """Every k-mer as itself or its reverse complement, whichever comes first, so that both strands count as one."""
    turned = reverse_complement(bases)
    last = len(bases) - k
    for start in range(last + 1):
        yield min(bases[start : start + k], turned[last - start : last - start + k])


# ---- report


def report(out: Path, folders: Sequence[Path]) -> str:
    """Gather what all steps counted into a row for each sample and one for the lane; write it, and give it as text."""
    samples: dict[str, Row] = {}
    depths: dict[str, list[int]] = {}
    for folder in folders:
        stats = read_json(folder / "stats.json")
        samples.setdefault(stats["sample"], {}).update(stats)
        if (folder / "coverage.tsv").exists():
            depths[stats["sample"]] = depths_in(folder / "coverage.tsv")
    if incomplete := sorted(samples.keys() ^ depths.keys()):
        raise SystemExit(f"no coverage of {', '.join(incomplete)}: give the folders of trim, place and kmer")

    rows = [row_of(samples[name], depths[name]) for name in sorted(samples)]
    whole = [sum(column) for column in zip(*depths.values(), strict=True)]
    rows.append(row_of(lane(list(samples.values())), whole))
    text = "\n\n".join((as_text(rows), explained(rows[-1]), profile(whole)))
    with whole_folder(out) as folder:
        lines = ["\t".join(COLUMNS), *("\t".join(row[column] for column in COLUMNS) for row in rows)]
        write_lines(folder / "report.tsv", lines)
        write_lines(folder / "report.txt", [text])
    return text


def row_of(stats: Row, depths: Sequence[int]) -> dict[str, str]:
    """What a sample's counts amount to, by column."""
    short_kmers = stats["spectra"][str(KMER_LENGTHS[0])]
    return {
        "sample": stats["sample"],
        "reads": str(stats["reads"]),
        "kept": str(stats["kept"]),
        "mean Q": f"{stats['quality_sum'] / stats['bases']:.2f}",
        "GC %": f"{100 * stats['gc'] / stats['bases']:.2f}",
        "placed": str(stats["placed"]),
        "mismatches before": str(stats["mismatches_before"]),
        "mismatches": str(stats["mismatches"]),
        "insert": f"{statistics.median(stats['inserts']):g}" if stats["inserts"] else "-",
        "k-mers %": f"{100 * short_kmers['total_known'] / short_kmers['total']:.2f}",
        "coverage": f"{sum(depths) / len(depths):.2f}",
        "breadth %": f"{100 * sum(depth > 0 for depth in depths) / len(depths):.1f}",
    }


def lane(samples: Sequence[Row]) -> Row:
    """The counts of all samples as if they were one."""
    summed = ("reads", "kept", "bases", "quality_sum", "gc", "placed", "mismatches_before", "mismatches")
    k = str(KMER_LENGTHS[0])
    return {
        "sample": "all",
        **{name: sum(sample[name] for sample in samples) for name in summed},
        "inserts": [insert for sample in samples for insert in sample["inserts"]],
        "spectra": {k: {n: sum(sample["spectra"][k][n] for sample in samples) for n in ("total", "total_known")}},
    }


def as_text(rows: Sequence[dict[str, str]]) -> str:
    """The rows as a table for people, 80 columns wide: names to the left, numbers to the right."""
    cells = [
        row
        | {
            "mismatch": f"{row['mismatches before']} → {row['mismatches']}",
            "k-mers": f"{row['k-mers %']}%",
            "coverage": f"{row['coverage']}x",
            "breadth": f"{row['breadth %']}%",
        }
        for row in rows
    ]
    columns = [[heading, *(cell[heading] for cell in cells)] for heading in SHOWN]
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for name, *numbers in zip(*columns, strict=True):
        turned = (number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True))
        lines.append("  ".join((name.ljust(widths[0]), *turned)))
    return "\n".join(lines)


def explained(whole: dict[str, str]) -> str:
    """What the table has no room for."""
    placed, kept, insert = whole["placed"], whole["kept"], whole["insert"]
    return (
        f"{placed} of {kept} kept reads have a place on the reference; median insert {insert} bases.\n"
        "mismatch: before → after trimming; k-mers: 21-mers of the reads that the reference has."
    )


def profile(depths: Sequence[int], columns: int = 50) -> str:
    """How deep the reads lie along the reference, as one line of bars."""
    step = math.ceil(len(depths) / columns)
    means = [statistics.fmean(depths[start : start + step]) for start in range(0, len(depths), step)]
    top = max(means)
    bars = "".join(" ▁▂▃▄▅▆▇█"[math.ceil(8 * mean / top) if top else 0] for mean in means)
    return f"depth along the reference, 1 to {len(depths)} (█ = {top:.0f}x)\n{bars}"


def depths_in(coverage: Path) -> list[int]:
    """The depth column of a coverage table."""
    _, *lines = coverage.read_text(encoding="ascii").splitlines()
    return [int(line.split("\t")[2]) for line in lines]


# ---- files


def fastq(path: Path) -> Iterator[Read]:
    """The reads of a FASTQ file, gzipped or not."""
    with open_text(path) as file:
        while head := file.readline().rstrip():
            bases, plus, quality = (file.readline().rstrip() for _ in range(3))
            if not (head.startswith("@") and plus.startswith("+") and len(bases) == len(quality)):
                raise SystemExit(f"{path}: not FASTQ at {head[:60]!r}")
            yield Read(head[1:].split()[0].rsplit("/", 1)[0], bases, quality)


def write_fastq(path: Path, reads: Iterable[Read], mate: int) -> None:
    """Reads as FASTQ."""
    write_lines(path, (f"@{read.name}/{mate}\n{read.bases}\n+\n{read.quality}" for read in reads))


def fasta(path: Path) -> str:
    """The one sequence of a FASTA file, gzipped or not."""
    with open_text(path) as file:
        head, *lines = file.read().splitlines()
    if not head.startswith(">") or any(line.startswith(">") for line in lines):
        raise SystemExit(f"{path}: not a FASTA file with one sequence")
    return "".join(lines).upper()


def tile(name: str) -> int:
    """The tile that a read comes from: its name is MACHINE_RUN_LANE_TILE_X_Y."""
    return int(name.split("_")[3])


def tiles(sample: str) -> tuple[int, int]:
    """The first and last tile of a sample named like `tiles-001-012`."""
    try:
        word, first, last = sample.split("-")
        if word == "tiles":
            return int(first), int(last)
    except ValueError:
        pass  # said below, like every other wrong name
    raise SystemExit(f"sample {sample!r}: must look like tiles-001-012")


def reverse_complement(bases: str) -> str:
    """The other strand, read in its own direction."""
    return bases.translate(COMPLEMENT)[::-1]


def open_text(path: Path) -> TextIO:
    """A text file, gzipped or not."""
    return gzip.open(path, "rt", encoding="ascii") if path.suffix == ".gz" else open(path, encoding="ascii")


def read_json(path: Path) -> Row:
    """A step's statistics."""
    found: Row = json.loads(path.read_text(encoding="utf-8"))
    return found


def write_json(path: Path, content: Row) -> None:
    """Statistics for the next steps."""
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """A text file of these lines."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that takes the name `out` when all is in it; a step cut short leaves nothing of that name.

    What an earlier run left there is put aside first, so that no file of it is mixed in.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield partial
        partial.chmod(0o755)
        if out.exists():
            out.rename(partial / ".before")
        partial.rename(out)
        shutil.rmtree(out / ".before", ignore_errors=True)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
