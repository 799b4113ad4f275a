"""The programs of examples/ about workflows: what they leave, and what is done again when they are run again."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import scitq
from scitq.states import Outcome
from tests.containers import IMAGE, Dockerd
from tests.workflow.terminal import Terminal

ROOT = Path(__file__).parents[2]
DATA = ROOT / "scitq" / "demo" / "data"
QC_IMAGES = ("staphb/fastp:0.23.4", "staphb/bowtie2:2.5.1", "staphb/samtools:1.17", "staphb/seqtk:1.3")
# What the four steps of the quality control do, by hand.
BY_HAND = """
zcat $DATA/reference_1K.fa.gz | head -n 8 > host.fa; bowtie2-build -q host.fa host
for range in s1:1:25 s2:26:50 s3:51:75 s4:76:100; do
    IFS=: read s first last <<< $range
    for m in 1 2; do
        zcat $DATA/ecoli_1K_$m.fq.gz | paste - - - - | awk -F_ -v a=$first -v b=$last '$4 >= a && $4 <= b' | tr '\\t' '\\n' > $s$m.fq
    done
    fastp -i ${s}1.fq -I ${s}2.fq -o t$s.1.fq -O t$s.2.fq --cut_tail --length_required 50 --thread 1 --json json --html html
    bowtie2 -x host -1 t$s.1.fq -2 t$s.2.fq | samtools fastq -n -f 12 -F 256 -1 h$s.1.fq -2 h$s.2.fq -0 /dev/null -s /dev/null -
    for m in 1 2; do seqtk sample -s42 h$s.$m.fq $DEPTH > ${s}_$m.fastq; done
    set -- $s $(($(wc -l < ${s}1.fq) / 4)) $(($(wc -l < t$s.1.fq) / 4)) $(($(wc -l < h$s.1.fq) / 4)) \\
        $(($(wc -l < ${s}_1.fastq) / 4)) $(cat ${s}_?.fastq | paste - - - - | cut -f 2 | tr -d '\\n' | wc -c)
    printf '%s\\t%d\\t%d\\t%d\\t%d\\t%d\\n' "$@"
done
"""

pytestmark = pytest.mark.usefixtures("workers_may_linger")


def run(example: str, *arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path or os.environ["PATH"]}
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / example), *arguments],
        env=environ, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def reads_by_hand(folder: Path, depth: int) -> str:
    """The table; the reads are in the folder then."""
    folder.mkdir()
    environ = {"PATH": os.environ["PATH"], "DATA": str(DATA), "DEPTH": str(depth)}
    ended = subprocess.run(
        ["bash", "-euc", BY_HAND], cwd=folder, env=environ, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    return "sample\tfetched\ttrimmed\thostless\tkept\tbases\n" + ended.stdout


def runs(state_file: str) -> dict[str, int]:
    """How often each task was run."""
    with scitq.open(state_file, drive=False) as q:
        return {
            str(task.name): sum(one.outcome is Outcome.SUCCEEDED and one.worker is not None for one in task.executions)
            for task in q.tasks()
        }


def same_reads(made: Path, hand: Path) -> None:
    for path in sorted(hand.glob("s?_?.fastq")):
        sample = path.name.split("_")[0]
        assert gzip.decompress((made / "reads" / sample / f"{path.name}.gz").read_bytes()) == path.read_bytes()


@pytest.mark.sampled
@pytest.mark.slow
@pytest.mark.servers
def test_quality_control_is_what_the_programs_do_by_hand_and_is_done_once(tmp_path: Path) -> None:
    table = reads_by_hand(tmp_path / "hand", 100)

    first = run("05_qc.py")

    assert first.returncode == 0, first.stderr
    assert table in first.stdout
    assert (tmp_path / "qc-results" / "stats" / "stats.tsv").read_text() == table
    same_reads(tmp_path / "qc-results", tmp_path / "hand")
    kept = [[int(number) for number in line.split("\t")[1:5]] for line in table.splitlines()[1:]]
    assert all(fetched >= trimmed > hostless >= left > 0 for fetched, trimmed, hostless, left in kept), (
        "each step counts"
    )
    once = runs("qc.scitq")
    assert len(once) == 22 and set(once.values()) == {1}

    again = run("05_qc.py")

    assert (again.returncode, runs("qc.scitq")) == (0, once), again.stderr
    assert table in again.stdout

    table = reads_by_hand(tmp_path / "other", 40)
    fewer = run("05_qc.py", "--depth", "40")

    assert fewer.returncode == 0, fewer.stderr
    assert table in fewer.stdout
    same_reads(tmp_path / "qc-results", tmp_path / "other")
    changed = {name for name, count in runs("qc.scitq").items() if count > once[name]}
    assert changed == {"stats", *(f"subsample s{n}" for n in (1, 2, 3, 4))}, (
        "what follows from the change, and nothing else"
    )


@pytest.mark.servers
@pytest.mark.sampled
def test_quality_control_takes_its_programs_from_images_that_are_here(dockerd: Dockerd, tmp_path: Path) -> None:
    """The images are of busybox, with this machine's programs mounted: what matters is where each step ran."""
    for name in QC_IMAGES:
        dockerd.run("tag", IMAGE, name)
    options = "-v /usr:/usr:ro -v /usr/lib:/lib:ro -v /usr/lib64:/lib64:ro --env PATH=/bin:/usr/bin"
    try:
        ended = run("05_qc.py", "--options", options)
    finally:
        dockerd.run("rmi", *QC_IMAGES, is_checked=False)

    assert ended.returncode == 0, ended.stderr
    assert reads_by_hand(tmp_path / "hand", 100) in ended.stdout
    assert "Run in containers" in ended.stdout
    with scitq.open("qc.scitq", drive=False) as q:
        images = {str(task.name): task.executions[-1].image is not None for task in q.tasks()}
    assert images == {name: not name.startswith(("fetch", "stats")) for name in images}


def test_quality_control_without_its_programs_says_what_to_install(tmp_path: Path) -> None:
    ended = run("05_qc.py", path=str(tmp_path / "nothing-here"))

    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith(
        "05_qc.py needs fastp, bowtie2, samtools, seqtk: sudo apt install fastp bowtie2 samtools seqtk (or pull"
    )
    assert len(ended.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == [], "nothing was begun"


def test_a_workflow_grows_with_what_it_finds(tmp_path: Path) -> None:
    ended = run("06_dynamic.py")

    assert ended.returncode == 0, ended.stderr
    # Five lines and three, two to a part: parts of 6, 8, 5 and of 8, 5 words.
    assert ended.stdout.splitlines()[-1] == "5 parts, 3 of them long, with 22 words"
    once = runs("dynamic.scitq")
    assert len(once) == 2 + 5 + 1 and set(once.values()) == {1}

    again = run("06_dynamic.py")

    assert (again.returncode, runs("dynamic.scitq")) == (0, once), again.stderr
    assert again.stdout.splitlines()[-1] == "5 parts, 3 of them long, with 22 words"

    longer = run("06_dynamic.py", "--lines", "3")

    assert longer.returncode == 0, longer.stderr
    assert longer.stdout.splitlines()[-1] == "3 parts, 3 of them long, with 32 words"


def times(what: str, count: int) -> Callable[[list[str]], bool]:
    """Whether something is on the screen so many times."""
    return lambda lines: sum(what in line for line in lines) >= count


def test_a_mistake_is_found_and_mended_in_the_debug_dialogue(tmp_path: Path) -> None:
    words: list[str | Path] = [sys.executable, ROOT / "examples" / "07_debug.py"]
    with Terminal(words, folder=tmp_path, environ={"PYTHONPATH": str(ROOT)}, columns=140, rows=80) as terminal:
        terminal.wait_for(times("Run it?", 1))
        terminal.press("y", "enter")
        terminal.wait_for(times("Go on?", 1))
        assert "to be or not to be" in terminal.text()
        terminal.press("enter")
        terminal.wait_for(times("Run it?", 2))
        terminal.press("enter")
        terminal.wait_for(times("Run it again?", 1))
        terminal.press("e", "enter")
        terminal.wait_for("^> wordcount")
        terminal.press("home", *["delete"] * len("wordcount"))
        terminal.type("wc -w")
        terminal.press("enter")
        terminal.wait_for(times("Go on?", 2))
        terminal.press("c", "enter")
        terminal.wait_for(times("Run it?", 3))
        terminal.press("enter")
        terminal.wait_for(times("Go on?", 3))
        terminal.press("enter")

        assert terminal.wait_end() == 0, terminal.text()
        assert "It works: 6 words" in terminal.text()
    with scitq.open("debug.scitq", drive=False) as q:
        assert [(task.name, len(task.executions), task.status) for task in q.tasks()] == [
            ("write", 1, "succeeded"),
            ("count", 2, "succeeded"),
            ("report", 1, "succeeded"),
        ]
        assert q.task("count").row().spec.command == "wc -w < $INPUT/text > $OUTPUT/words"


def test_without_debug_the_mistake_is_named(tmp_path: Path) -> None:
    ended = run("07_debug.py", "--no-debug")

    assert ended.returncode == 1
    assert "'count' (count): failed (exit 127)" in ended.stderr
    assert "scitq -f debug.scitq task enter count" in ended.stderr
    assert "Traceback" not in ended.stderr
