"""Slot folders are reused while untouched, and never let one task see or spoil another's files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.remote.client import Driver


@pytest.fixture(autouse=True)
def one_slot(driver: Driver) -> None:
    driver.say({"slots": 1})


def inode(root: Path) -> int:
    return (root / "slot" / "0").stat().st_ino


def test_an_untouched_slot_is_used_again(driver: Driver, root: Path) -> None:
    driver.run(1, "echo", "one")
    before = inode(root)
    for number in range(2, 6):
        driver.run(number, "echo", str(number))
    assert inode(root) == before
    assert [driver.output(n) for n in (1, 2, 5)] == [b"one\n", b"2\n", b"5\n"]
    assert list((root / "exec").iterdir()) == []


def test_a_slot_that_is_empty_again_is_used_again(driver: Driver, root: Path) -> None:
    driver.run(1, "true")
    before = inode(root)
    driver.script(2, "touch a $TEMP/b; rm a $TEMP/b; mkdir c; rmdir c")
    line = driver.script(3, "ls -A . $TEMP $INPUT $OUTPUT")
    assert inode(root) == before and not driver.exits["2"]["kept"] and not line["kept"]


@pytest.mark.parametrize(
    "touch",
    ["echo x > a", "echo x > $TEMP/a", "mkdir $INPUT/d", "echo x > $RESOURCE/a", "echo x > ../beside", "chmod 500 .",
     "chmod 0 $TEMP", "rm -rf $TEMP", "mv $TEMP ../other", "rm ../out", "rm ../err; mkfifo ../err",
     "rm -f ../command; mkfifo ../command", "rm ../out; ln -s /etc/passwd ../out"],
)  # fmt: skip
def test_a_touched_slot_is_given_up(driver: Driver, root: Path, touch: str) -> None:
    driver.run(1, "true")
    before = inode(root)
    line = driver.script(2, touch + "\nexit 1")
    assert line["kept"] and line["code"] == 1
    driver.script(3, "echo fresh; ls -A . $TEMP $INPUT $OUTPUT $RESOURCE | grep -v : | tr -d '\\n'; ls -A ..")
    assert inode(root) != before
    assert driver.output(3).decode().split() == ["fresh", "command", "err", "input", "out", "output", "resource", "temp",
                                                 "work"]  # fmt: skip


@pytest.mark.promise("core 11.14")
def test_a_failed_task_keeps_all_its_files_until_forgotten(driver: Driver, root: Path) -> None:
    driver.script(1, "echo data > result; echo t > $TEMP/t; echo o > $OUTPUT/o; echo said; exit 1")
    home = root / "exec" / "1"
    assert (home / "work" / "result").read_text() == "data\n"
    assert (home / "output" / "o").read_text() == "o\n"
    driver.say({"forget": [1], "keep_work": True})
    assert (home / "work" / "result").exists() and not (home / "out").exists()
    driver.say({"forget": [1]})
    assert not home.exists()


def test_a_successful_task_keeps_only_its_output(driver: Driver, root: Path) -> None:
    driver.script(1, "echo data > scratch; echo o > $OUTPUT/o; seq 10000")
    home = root / "exec" / "1"
    driver.until(lambda: not (home / "work").exists())
    assert (home / "output" / "o").read_text() == "o\n"
    assert len(driver.output(1).splitlines()) == 10000


@pytest.mark.promise("core 11.14")
def test_a_successful_task_that_left_only_scratch_leaves_nothing(driver: Driver, root: Path) -> None:
    driver.script(1, "echo data > scratch; mkdir locked; touch locked/x; chmod 0 locked; echo small")
    driver.until(lambda: not (root / "exec" / "1").exists())
    driver.until(lambda: not list((root / "trash").iterdir()))
    assert driver.output(1) == b"small\n"


def test_a_background_child_cannot_write_into_the_next_tasks_output(driver: Driver) -> None:
    driver.script(1, "(trap '' TERM; while :; do echo intruder; sleep 0.01; done) & echo main", grace=0.5)
    for number in range(2, 8):
        driver.script(number, f"sleep 0.05; echo {number}")
    assert [driver.output(number) for number in range(2, 8)] == [b"%d\n" % number for number in range(2, 8)]
    assert driver.output(1).startswith(b"main\n") or b"main" in driver.output(1)
    assert driver.exits["1"]["kept"]


def test_a_daemon_is_left_alone_and_keeps_its_folder(driver: Driver, root: Path, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    daemon = f"while [ ! -e {stop} ]; do echo daemon; sleep 0.01; done; echo bye > {tmp_path}/bye"
    line = driver.script(1, f"setsid sh -c '{daemon}' & echo main; sleep 0.05; exit 1")
    assert line["kept"] and (line["code"], line["why"]) == (1, None)
    for number in range(2, 6):
        driver.script(number, f"sleep 0.02; echo {number}")
        assert driver.output(number) == b"%d\n" % number
    stop.touch()
    driver.until(lambda: (tmp_path / "bye").exists())


def test_a_daemon_without_our_environment_is_noticed_too(driver: Driver, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    daemon = f"while [ ! -e {stop} ]; do echo daemon; sleep 0.01; done"
    line = driver.script(1, f"env -i PATH=$PATH setsid sh -c '{daemon}' & sleep 0.1; exit 1")
    assert line["kept"]
    assert driver.script(2, "sleep 0.05; echo 2")["o"] == "2\n"
    assert not driver.script(3, "echo 3")["kept"], "a known stranger spoils no later task"
    stop.touch()


def test_flags_that_a_task_sets_on_its_streams_end_with_it(driver: Driver) -> None:
    clear = "import fcntl, os; fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK); print('x' * 100)"
    driver.run(1, "python3", "-c", clear)
    driver.script(2, "echo a; echo b")
    assert driver.output(2) == b"a\nb\n"


def test_a_task_may_truncate_its_own_output(driver: Driver) -> None:
    driver.script(1, "echo before; echo after > /dev/stdout; echo end")
    assert driver.output(1) == b"after\nend\n"
