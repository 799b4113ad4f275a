"""`scitq cache`: what there is to take, what a key is made of, and taking it no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.shell.conftest import Lab


@pytest.fixture
def full(lab: Lab, tmp_path: Path) -> Lab:
    """A file with a task that was taken once, and one that differs."""
    (lab.folder / "in.txt").write_text("data\n")
    for word in ("one", "one", "two"):
        data = ["-i", "in.txt", "--env", f"WORD={word}"]
        lab.scitq("-f", "lab.scitq", "run", "--use-cache", *data, "--shell", "echo x > $OUTPUT/file; echo $WORD")
    return lab


def test_cache_list_tells_age_size_and_use(full: Lab) -> None:
    rows = {row["task"]: row for row in full.json("cache", "list")}

    assert {number: row["used"] for number, row in rows.items()} == {1: 1, 2: 0}
    assert (rows[1]["files"], rows[1]["bytes"], rows[1]["kept"]) == (1, 2, False)
    assert "no results" not in full.scitq("cache", "list").stdout.decode()
    assert full.json("cache", "list", "--older-than", "1") == []


def test_cache_explain_tells_the_parts_of_a_key_and_what_differs(full: Lab) -> None:
    one = full.json("cache", "explain", "1")
    assert one["env"] == {"WORD": "one"}
    assert one["input"][0]["told_by"] == "size and time"
    assert [file["name"] for file in one["input"][0]["files"]] == ["in.txt"]
    two = full.json("cache", "explain", "1", "3")
    assert two["differences"] == [{"what": "env WORD", "old": "one", "new": "two"}]
    assert b"1 and 2 are equal" in full.scitq("cache", "explain", "1", "2").stdout


def test_cache_forget_asks_and_says_how_much(full: Lab) -> None:
    assert b"--yes" in full.scitq("cache", "forget", "--all", code=2).stderr
    assert full.json("cache", "forget", "1", "--yes") == {"forgotten": 1, "matched": 1}
    assert b"which results?" in full.scitq("cache", "forget", code=2).stderr
    assert [row["task"] for row in full.json("cache", "list")] == [2]


def test_task_delete_keeps_the_result_when_asked(full: Lab) -> None:
    full.scitq("task", "delete", "1", "2", "--keep-cache", "--yes")

    assert {row["task"]: row["kept"] for row in full.json("cache", "list")}.get(1) is True
    full.scitq("run", "--use-cache", "-i", "in.txt", "-e", "WORD=one", "--shell", "echo x > $OUTPUT/file; echo $WORD")
    assert "reused from execution" in full.json("task", "show", "4")["why"]
