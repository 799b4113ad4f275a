"""One edit of a command, made to others that are like it."""

from __future__ import annotations

import pytest

from scitq.workflow.rewording import Rewording

BEFORE = "fastp -i s00.fq -o s00.out"


@pytest.mark.parametrize(
    ("after", "other", "made"),
    [
        ("fastp --thread 4 -i s00.fq -o s00.out", "fastp -i s01.fq -o s01.out", "fastp --thread 4 -i s01.fq -o s01.out"),
        ("fastp -i s00.fq -o s00.out -q 20", "fastp -i s01.fq -o s01.gz", "fastp -i s01.fq -o s01.gz -q 20"),
        ("fastp2 -i s00.fq -o s00.out", "fastp -i s01.fq -o s01.out", "fastp2 -i s01.fq -o s01.out"),
        ("fastp -o s00.out", "fastp -i s01.fq -o s01.out", None),  # what tells it apart was taken away
        ("fastp -i s99.fq -o s99.out", "fastp -i s01.fq -o s01.out", None),  # changed here and there otherwise
        ("fastp -i s00.fq -o s00.out", "fastp -i s01.fq -o s01.out", "fastp -i s01.fq -o s01.out"),
        ("fastp --thread 4 -i s00.fq -o s00.out", "bowtie2 --very-fast x", None),
        ("fastp -q -i s00.fq -o s00.out", BEFORE, "fastp -q -i s00.fq -o s00.out"),
    ],
)  # fmt: skip
def test_a_change_is_made_to_what_is_like_it(after: str, other: str, made: str | None) -> None:
    assert Rewording(BEFORE, after).made_to(other) == made


def test_a_line_is_added_to_each_script() -> None:
    before = "set -e\ncp $INPUT/a.gz .\ngzip -d a.gz\n"
    change = Rewording(before, before.replace("gzip -d", "ls -l\ngzip -d"))
    assert (
        change.made_to("set -e\ncp $INPUT/b.gz .\ngzip -d b.gz\n") == "set -e\ncp $INPUT/b.gz .\nls -l\ngzip -d b.gz\n"
    )
    assert change.difference("set -e\ncp $INPUT/b.gz .\ngzip -d b.gz\n") == [
        "@@ -1,3 +1,4 @@", " set -e", " cp $INPUT/b.gz .", "+ls -l", " gzip -d b.gz",
    ]  # fmt: skip


def test_very_long_scripts_are_changed_only_where_they_are_equal() -> None:
    before = "echo word\n" * 5000
    change = Rewording(before, before + "echo more\n")
    assert change.made_to(before) == before + "echo more\n"
    assert change.made_to(before.replace("word", "other")) is None
