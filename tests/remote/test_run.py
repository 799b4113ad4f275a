"""Running what is ordered: argument lists, scripts, environment, folders, and input meant to break things."""

from __future__ import annotations

import hashlib
import os
import signal
from pathlib import Path

import pytest

from tests.remote.client import Driver

NASTY = "a b\tc\n'\"`$(echo no)\\ *? \u00e9\U0001f9ec -- ; & | > < ~ # !"


def test_a_program_ends_with_its_output_and_code(driver: Driver) -> None:
    line = driver.run(1, "/bin/sh", "-c", "echo out; echo err >&2; exit 3")
    assert (line["code"], line["sig"], line["why"]) == (3, None, None)
    assert (line["o"], line["e"], line["on"], line["en"]) == ("out\n", "err\n", 4, 4)
    assert line["kept"] is line["collect"] is False
    assert line["run"] > 0 and line["u"] >= 0 and line["s"] >= 0 and line["rss"] > 0


def test_arguments_arrive_as_they_were_given(driver: Driver) -> None:
    driver.run(1, "printf", "%s|", "", "-n", "--", NASTY, "*", "a\\nb")
    assert driver.output(1).decode() == f"|-n|--|{NASTY}|*|a\\nb|"


def test_bytes_that_are_no_text_pass_through_arguments_and_scripts(driver: Driver) -> None:
    driver.run(1, "printf", "%s", os.fsdecode(b"\xff\xfe\x80"))
    driver.script(2, "printf '%s' '" + os.fsdecode(b"\xe9\xff") + "'")
    driver.run(3, "printenv", "ODD", env={"ODD": os.fsdecode(b"\xc3\x28")})
    assert (driver.output(1), driver.output(2), driver.output(3)) == (b"\xff\xfe\x80", b"\xe9\xff", b"\xc3\x28\n")


def test_a_script_runs_as_a_file_that_begins_with_the_users_text(driver: Driver) -> None:
    text = f'cat "$0"\nexit 7\n{NASTY}'
    line = driver.script(1, text)
    assert line["code"] == 7
    assert driver.output(1).decode() == text


def test_a_script_runs_in_the_shell_that_was_asked_for(driver: Driver) -> None:
    driver.script(1, 'a=(x y); echo "${a[1]}"', shell="bash")
    driver.script(2, 'echo "$0" | grep -c command', shell=True)
    driver.script(3, "import sys; print(len(sys.argv))", shell="python3")
    assert [driver.output(n) for n in (1, 2, 3)] == [b"y\n", b"1\n", b"1\n"]


def test_a_shorter_script_leaves_nothing_of_a_longer_one(driver: Driver) -> None:
    driver.say({"slots": 1})
    driver.script(1, "echo long # " + "x" * 100_000)
    driver.script(2, "echo short")
    assert driver.output(2) == b"short\n"


def test_the_environment_is_base_then_users_then_ours(driver: Driver, root: Path) -> None:
    base = {"PATH": "/usr/bin:/bin", "A": "base", "B": "base", "LANG": "C"}
    driver.run(5, "env", task="t/9", base=base, env={"B": "user", "CPU": "user", "Z": NASTY.replace("\n", "")}, cpu=7)
    got = dict(line.split("=", 1) for line in driver.output(5).decode().splitlines())
    slot = Path(got["OUTPUT"]).parent
    assert slot.parent == root.resolve() / "slot"
    assert (got["A"], got["B"], got["CPU"], got["LANG"]) == ("base", "user", "7", "C")
    assert (got["SCITQ_TASK"], got["SCITQ_EXECUTION"], got["SCITQ_JOURNAL"]) == ("t/9", "5", driver.journal)
    assert [got[name] for name in ("INPUT", "TEMP", "RESOURCE")] == [
        str(slot / x) for x in ("input", "temp", "resource")
    ]
    assert got["HOME"] and got["PATH"] == "/usr/bin:/bin"


def test_without_a_base_there_is_a_sane_one(driver: Driver) -> None:
    driver.run(1, "sh", "-c", 'echo "${PATH:+p}${HOME:+h}${LANG:+l}${CPU:+c}"')
    assert driver.output(1) == b"phlc\n"


def test_the_users_environment_wins_over_the_own_base(driver: Driver) -> None:
    driver.run(1, "/bin/sh", "-c", 'echo "$HOME $PATH"', env={"HOME": "/elsewhere", "PATH": "/only"})
    assert driver.output(1) == b"/elsewhere /only\n"


def test_a_task_runs_in_its_slot_or_where_it_was_told(driver: Driver, tmp_path: Path) -> None:
    folder = tmp_path / "with space"
    folder.mkdir()
    (folder / "tool").write_text("#!/bin/sh\npwd\n")
    (folder / "tool").chmod(0o755)
    driver.run(1, "pwd")
    driver.run(2, "./tool", cwd=str(folder))
    driver.run(3, "pwd")
    assert driver.output(1).decode().endswith("/work\n")
    assert driver.output(2).decode() == f"{folder}\n"
    assert driver.output(3).decode().endswith("/work\n")


@pytest.mark.parametrize(
    ("order", "code", "says"),
    [
        ({"argv": ["no-such-program"]}, 127, "no-such-program: not found on this worker's PATH"),
        ({"argv": ["/no/such/program"]}, 127, "no such program"),
        ({"argv": ["/etc/passwd"]}, 126, "Permission denied"),
        ({"argv": ["/tmp"]}, 126, "Permission denied"),
        ({"argv": ["true"], "cwd": "/no/such/folder"}, 126, "/no/such/folder: cannot run there"),
        ({"argv": ["true"], "env": {"PATH": "/nowhere"}}, 127, "/nowhere"),
        ({"argv": ["true", "x" * (3 << 20)]}, 126, "longer than the system allows"),
        ({"script": "true", "shell": "no-such-shell"}, 127, "no-such-shell"),
    ],
)
def test_what_cannot_be_started_is_recorded_with_the_reason(driver: Driver, order: dict, code: int, says: str) -> None:
    driver.say({"order": 1, "task": 1, **order}, {"order": 2, "task": 2, "argv": ["echo", "next"]})
    line = driver.exit_of(1)
    assert (line["code"], line["why"]) == (code, "spawn")
    assert says in line["note"]
    assert driver.exit_of(2)["code"] == 0


def test_a_file_that_is_no_program_is_recorded(driver: Driver, tmp_path: Path) -> None:
    odd = tmp_path / "odd"
    odd.write_bytes(b"\x7fnot an executable\n")
    odd.chmod(0o755)
    unusable = tmp_path / "plain"
    unusable.write_text("x")
    assert "interpreter" in driver.run(1, str(odd))["note"]
    assert "chmod +x" in driver.run(2, "plain", env={"PATH": str(tmp_path)})["note"]


def test_death_by_a_signal_is_told_as_one(driver: Driver) -> None:
    assert driver.script(1, "kill -SEGV $$")["sig"] == signal.SIGSEGV
    assert driver.script(2, "kill -KILL $$")["sig"] == signal.SIGKILL
    line = driver.script(3, "exit 137")
    assert (line["code"], line["sig"]) == (137, None)


def test_signals_are_at_their_defaults_in_a_task(driver: Driver) -> None:
    driver.run(1, "sh", "-c", "grep -E '^Sig(Ign|Blk)' /proc/self/status")
    masks = [int(line.split()[1], 16) for line in driver.output(1).decode().splitlines()]
    assert [mask & 0x7FFFFFFF for mask in masks] == [0, 0]  # 32 and 33 are the C library's own
    driver.script(2, "yes | head -1; exit 0", shell="bash")
    assert driver.output(2) == b"y\n"


def test_nothing_of_the_keeper_is_open_in_a_task(driver: Driver) -> None:
    driver.run(1, "sh", "-c", "ls -l /proc/self/fd; cat; readlink /proc/$$/fd/0")
    lines = driver.output(1).decode().splitlines()
    assert len([line for line in lines if "->" in line]) == 4  # 0, 1, 2 and the folder that ls reads
    assert lines[-1] == "/dev/null"


def test_a_line_of_a_megabyte_arrives_whole(driver: Driver) -> None:
    driver.run(1, "python3", "-c", "print('x' * (1 << 20))")
    assert driver.exits["1"]["o"] is None
    assert driver.output(1) == b"x" * (1 << 20) + b"\n"


def test_a_million_lines_arrive_whole(driver: Driver) -> None:
    driver.run(1, "seq", "1000000")
    expected = "".join(f"{number}\n" for number in range(1, 1_000_001)).encode()
    assert hashlib.sha256(driver.output(1)).digest() == hashlib.sha256(expected).digest()


@pytest.mark.parametrize("size", [1000, 16384, 16385, 300_000])
def test_binary_output_arrives_byte_for_byte(driver: Driver, tmp_path: Path, size: int) -> None:
    data = (bytes(range(256)) + os.urandom(size))[:size]
    (tmp_path / "data").write_bytes(data)
    driver.run(1, "sh", "-c", 'cat "$0"; cat "$0" >&2', str(tmp_path / "data"))
    assert (driver.exits["1"]["on"], driver.exits["1"]["en"]) == (size, size)
    assert driver.output(1) == driver.output(1, "err") == data


def test_names_may_be_texts_and_hold_odd_task_names(driver: Driver) -> None:
    line = driver.run("e-1.a_b", "printenv", "SCITQ_TASK", task="a name/with slash \u00e9")
    assert line["id"] == "e-1.a_b"
    assert driver.output("e-1.a_b").decode() == "a name/with slash \u00e9\n"


def test_tasks_run_at_once_up_to_the_slots_and_start_in_order(driver: Driver, tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = f'echo "+$SCITQ_EXECUTION" >> {log}; sleep 0.05; echo "-$SCITQ_EXECUTION" >> {log}'
    driver.say(*({"order": n, "task": n, "script": text} for n in range(8)))
    driver.until(lambda: len(driver.exits) == 8)
    running = most = 0
    for line in log.read_text().splitlines():
        running += 1 if line[0] == "+" else -1
        most = max(most, running)
    assert most == 2
    assert [line["id"] for line in driver.lines if line["k"] == "start"] == list(range(8))


def test_slots_change_while_tasks_run(driver: Driver, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    text = f"while [ ! -e {gate} ]; do sleep 0.02; done"
    driver.say({"slots": 0}, *({"order": n, "task": n, "script": text} for n in range(4)))
    assert set(driver.held()["held"].values()) == {"queued"}
    driver.say({"slots": 3})
    driver.seen("start", 2)
    held = driver.held()
    assert sorted(held["held"].values()) == ["queued", "running", "running", "running"] and held["slots"] == 3
    driver.say({"slots": 1})
    gate.touch()
    driver.until(lambda: len(driver.exits) == 4)
    assert driver.held()["held"] == {}


@pytest.mark.promise("core 11.6")
def test_a_repeated_order_runs_once(driver: Driver, tmp_path: Path) -> None:
    log = tmp_path / "log"
    order = {"order": 1, "task": 1, "script": f"echo ran >> {log}; sleep 0.1"}
    driver.say(order, order)
    driver.seen("start", 1)
    driver.say(order)
    driver.exit_of(1)
    driver.say(order, {"order": 2, "task": 2, "argv": ["true"]})
    driver.exit_of(2)
    assert log.read_text() == "ran\n"
    assert [line["k"] for line in driver.lines if line.get("id") == 1 and line["k"] == "exit"] == ["exit"]
