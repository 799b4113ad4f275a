"""What users wrote for version 1.3 runs as it stands, and leaves what its programs leave when they are run by hand.

The scripts in v1/ were written before there was code to run them, and nothing of them is changed here, not even an import. "By hand"
is a shell in a folder: nothing of scitq computes what it is compared with.
"""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
import tarfile
from collections import Counter
from pathlib import Path

import pytest

import scitq
from scitq.states import TaskState

ROOT = Path(__file__).parents[2]
SCRIPTS = Path(__file__).parent / "v1"
READS = [ROOT / "scitq" / "demo" / "data" / f"ecoli_1K_{mate}.fq.gz" for mate in (1, 2)]
REFERENCE = ROOT / "scitq" / "demo" / "data" / "reference_1K.fa.gz"
# The samples: tiles of the lane that the reads come from.
TILES = {"early": range(1, 21), "middle": range(21, 61), "late": range(61, 101)}
LINES_OF_A_READ = 4

pytestmark = pytest.mark.usefixtures("workers_may_linger")


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A script, as a person of 1.3 would run it: no state file is named, the folder is its own."""
    environ = {name: value for name, value in os.environ.items() if name != "SCITQ_SERVER"}
    environ |= {
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    ended = subprocess.run(
        [sys.executable, str(SCRIPTS / name), *arguments],
        env=environ, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    assert "Traceback" not in ended.stderr
    return ended


def by_hand(folder: Path, script: str, **variables: str | Path) -> str:
    """What a shell makes of it in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    environ = {"PATH": os.environ["PATH"], **{name: str(value) for name, value in variables.items()}}
    ended = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=environ, capture_output=True, text=True, timeout=240
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def records(path: Path) -> list[list[str]]:
    lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return [lines[start : start + LINES_OF_A_READ] for start in range(0, len(lines), LINES_OF_A_READ)]


def write_samples(folder: Path) -> None:
    """The demo's real reads, a folder for each sample."""
    for mate, source in enumerate(READS, 1):
        reads = records(source)
        for sample, tiles in TILES.items():
            chosen = ["\n".join(read) + "\n" for read in reads if int(read[0].split("_")[3]) in tiles]
            (folder / sample).mkdir(parents=True, exist_ok=True)
            (folder / sample / f"{sample}_{mate}.fastq.gz").write_bytes(gzip.compress("".join(chosen).encode()))


def files_below(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_hello_world_grown_up(tmp_path: Path) -> None:
    out = tmp_path / "out"

    ended = run("hello.py", f"file://{out}", "--post", str(tmp_path / "post-office"))

    hand = by_hand(
        tmp_path / "hand",
        """
        sign() { echo "Hello, $2!" > $1; (cat $1; echo "    -- scitq, with $(cat $1 | wc -w) words"); }
        sign ada Ada; sign emilie Émilie; sign grace "Grace Hopper"; sign zoe Zoë
        """,
    )
    assert (out / "letter" / "letter.txt").read_text() == hand
    assert hand in ended.stdout
    assert "Last step declared: one letter\n" in ended.stdout
    assert "On the side: bound\n" in ended.stdout
    assert "Greetings: 4\n" in ended.stdout
    assert [line for line in ended.stdout.splitlines() if line.startswith("post #")] == [
        f"post #{n} succeeded" for n in (1, 2, 3, 4)
    ]
    assert sorted(path.name for path in (out / "post").rglob("*.gz")) == [
        f"{id}.txt.gz" for id in ("ada", "emilie", "grace", "zoe")
    ]
    with scitq.open(drive=False) as q:
        tries = [str(one.cause) for task in q.tasks(batch="hello.post") for one in task.executions]
        assert Counter(tries)["failed (exit 7)"] >= 1, tries
        assert len(q.tasks(status=TaskState.SUCCEEDED)) == 13


@pytest.mark.slow
@pytest.mark.servers
def test_quality_control(tmp_path: Path) -> None:
    raw, out, hand = tmp_path / "raw", tmp_path / "out", tmp_path / "hand"
    write_samples(raw)
    by_hand(
        tmp_path / "index",
        'zcat "$REFERENCE" | head -n 8 > host.fa; bowtie2-build -q host.fa host; tar czf ../host.tgz host.*.bt2',
        REFERENCE=REFERENCE,
    )

    ended = run("qc.py", f"file://{raw}", f"file://{tmp_path}/host.tgz", f"file://{out}", "--depth", "60")

    for sample in TILES:
        by_hand(
            hand / sample,
            """
            mkdir fastp hostfilter seqtk
            fastp --in1 $RAW/${s}_1.fastq.gz --in2 $RAW/${s}_2.fastq.gz --out1 fastp/${s}_1.fastq.gz \\
                --out2 fastp/${s}_2.fastq.gz --length_required 50 --cut_tail --json json --html html --thread 1
            bowtie2 -p 1 -x $INDEX/host -1 fastp/${s}_1.fastq.gz -2 fastp/${s}_2.fastq.gz > sam
            samtools fastq -n -f 12 -F 256 -1 hostfilter/${s}_1.fastq.gz -2 hostfilter/${s}_2.fastq.gz \\
                -0 /dev/null -s /dev/null sam
            for r in 1 2; do seqtk sample -s42 hostfilter/${s}_$r.fastq.gz 60 | gzip -n > seqtk/${s}_$r.fastq.gz; done
            """,
            RAW=raw / sample,
            INDEX=tmp_path / "index",
            s=sample,
        )
        for step in ("fastp", "hostfilter", "seqtk"):
            for mate in (1, 2):
                name = f"{sample}_{mate}.fastq.gz"
                assert records(out / sample / step / name) == records(hand / sample / step / name), (sample, step)
        assert (
            0
            < len(records(hand / sample / "hostfilter" / f"{sample}_1.fastq.gz"))
            < len(records(hand / sample / "fastp" / f"{sample}_1.fastq.gz"))
        ), "some reads are the host's, and some are not"
    expected = []
    for sample in sorted(TILES):
        mates = [records(hand / sample / "seqtk" / f"{sample}_{mate}.fastq.gz") for mate in (1, 2)]
        expected.append(f"{sample} {len(mates[0])} {sum(len(read[1]) for reads in mates for read in reads)} ")
    table = (out / "stats" / "stats.txt").read_text().splitlines()
    assert [line.rsplit(" ", 1)[0] + " " for line in table] == expected
    assert all(int(line.rsplit(" ", 1)[1]) > 0 for line in table), "each has its report"
    assert "3 samples: early, late, middle\n" in ended.stdout
    assert "\n".join(table) in ended.stdout
    assert (tmp_path / "stats" / "stats.txt").read_text().splitlines() == table, "brought here"
    with scitq.open(drive=False) as q:
        assert list(q.tasks()) == [], "clean() takes what succeeded out of the file"


def test_profiles_of_samples_and_their_merge(tmp_path: Path) -> None:
    raw, out = tmp_path / "raw", tmp_path / "out"
    write_samples(raw)
    (tmp_path / "profiler").mkdir()
    program = """
    [ "$1" != middle ] || [ -e MARK ] || { touch MARK; echo "the table is being copied" >&2; exit 3; }
    [ "$2" -ge 1 ] || exit 4
    awk -v sample=$1 'NR % 4 == 2 { reads++; bases += length($0); gc += gsub(/[GC]/, "") }
        END { printf "%s\\t%d\\t%d\\t%.3f\\n", sample, reads, bases, gc / bases }'
    """
    (tmp_path / "profiler" / "profile.sh").write_text(program.replace("MARK", str(tmp_path / "mark")))
    with tarfile.open(tmp_path / "profiler.tgz", "w:gz") as tar:
        tar.add(tmp_path / "profiler", "profiler")

    ended = run("profiles.py", f"file://{raw}", f"file://{tmp_path}/profiler.tgz", f"file://{out}")

    hand = by_hand(
        tmp_path / "hand",
        "for s in early late middle; do zcat $RAW/$s/*.gz | sh $PROFILER $s 1; done | sort",
        RAW=raw,
        PROFILER=tmp_path / "profiler" / "profile.sh",
    )
    assert (out / "merged" / "merged.tsv").read_text() == hand
    assert (tmp_path / "merged" / "merged.tsv").read_text() == hand
    assert ended.stdout.endswith(hand)
    assert [line for line in ended.stdout.splitlines() if line.startswith("profile ")] == [
        f"profile {sample} succeeded" for sample in sorted(TILES)
    ]
    assert "3 tasks created, the first is 1\n" in ended.stdout
    assert "join says" in ended.stdout
    with scitq.open(drive=False) as q:
        assert [str(one.cause) for one in q.task("profile middle").executions] == ["failed (exit 3)", "succeeded"]


def test_a_tour_of_the_library_in_both_styles(tmp_path: Path) -> None:
    ended = run("styles.py", f"file://{tmp_path}/out")

    total = by_hand(tmp_path / "hand", "(echo aaa; echo bbbb; echo ccc) | sort -r")
    assert (tmp_path / "out" / "total" / "total.txt").read_text() == total
    assert (tmp_path / "out" / "a" / "a.txt").read_text() == "aaaaa\n", "run once more with another command"
    said = ended.stdout.splitlines()
    assert said[:3] == [
        "recruiters: [('letters', 1, 2)]",
        "stopped: ['pending', 'pending', 'pending']",
        "total is waiting",
    ]
    assert "make a succeeded 0 'made a\\n' 'really\\n'" in said
    assert "make b succeeded 0 'made b again\\n' 'really\\n'" in said
    assert said.count("  from the 6th character: 'a\\n'") == 1
    assert said.count("  from the 6th character: 'b again\\n'") == 1
    assert f"total printed {len(total)} bytes" in said
    assert "worker running True local" in said
    assert "prefetch is 3" in said
    assert "executions of the first: 2" in said
    assert "broken, after 2 tries" in said
    assert said[-2:] == ["left: 4 tasks, 0 recruiters", "left: 0 tasks"]


def test_a_workflow_that_uses_all_of_it(tmp_path: Path) -> None:
    library = tmp_path / "library"
    (library / "books").mkdir(parents=True)
    (library / "books" / "gpl.txt").write_bytes((ROOT / "scitq" / "demo" / "data" / "GPL-2").read_bytes())
    (library / "books" / "mit.txt").write_bytes((ROOT / "LICENSE").read_bytes())

    ended = run("grown.py", f"file://{library}", "gpl", "mit")

    hand = by_hand(
        tmp_path / "hand",
        """
        for b in gpl mit; do
            tr -cs 'A-Za-z' '\\n' < $BOOKS/$b.txt | awk 'NF { print tolower($1) }' > $b.words
            awk -v b=$b '{ print b, NR, length($0) }' $BOOKS/$b.txt > $b.lines
        done
        sort gpl.words mit.words | uniq -c | sort -k1,1nr -k2 | head -n 5
        sort -k3,3nr -k1,1 -k2,2n gpl.lines mit.lines | head -n 1
        """,
        BOOKS=library / "books",
    )
    assert (library / "final" / "final.txt").read_text() == hand
    assert f"final lines: {len(hand.splitlines())}\n" in ended.stdout
    for book in ("gpl", "mit"):
        words = (tmp_path / "hand" / f"{book}.words").read_text().split()
        found = sum(len(word) > 6 for word in words)
        assert f"{book}: {found} long words\n" in ended.stdout
        assert (library / "count" / book / "count.txt").read_text() == f"{book} {found} {found * 0.5}\n"
        assert (library / "cut" / book / "words" / f"{book}.words").read_text().split() == words
        assert f"cut {book}" in (tmp_path / "logs" / f"cut-{book}_output.log").read_text()
        assert len(list((tmp_path / "all").rglob(f"{book}.words"))) == 1, "download() brings each output"
    assert next((tmp_path / "all").rglob("final.txt")).read_text() == hand
    assert next((tmp_path / "only").rglob("frequent.txt")).read_text() == "".join(hand.splitlines(keepends=True)[:5])
    with scitq.open(drive=False) as q:
        assert list(q.tasks()) == [], "clean() takes what succeeded out of the file"


def test_scripts_are_what_users_had() -> None:
    """Long enough to be real, and importing what version 1.3 had, under its names."""
    for script in sorted(SCRIPTS.glob("*.py")):
        lines = script.read_text(encoding="utf-8").splitlines()
        assert len(lines) >= 50, script.name
        ours = [line for line in lines if line.startswith(("import scitq", "from scitq"))]
        assert ours
        for line in ours:
            assert line.split()[1] in ("scitq", "scitq.fetch", "scitq.lib", "scitq.path", "scitq.workflow"), line
