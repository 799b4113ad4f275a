"""`scitq up` and `scitq down`: driving in a terminal, left behind, and stopping with what runs."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import time

import pytest

import scitq
from tests.shell.conftest import Lab
from tests.shell.here import Place
from tests.shell.tmux import Terminal


def queue(lab: Lab, *scripts: str) -> None:
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        for script in scripts:
            engine.submit(script, shell=True)


def states(lab: Lab) -> list[str]:
    return [task["status"] for task in lab.json("task", "list")]


def test_until_done_runs_all_and_tells_how_it_went(lab: Lab) -> None:
    queue(lab, "true", "true")
    good = lab.scitq("up", "--until-done")
    queue(lab, "false")
    bad = lab.scitq("up", "--until-done", code=1)

    assert b"Everything is done: 2 succeeded." in good.stderr
    assert b"Nothing more can be done: 2 succeeded, 1 failed." in bad.stderr


def test_until_done_does_not_wait_for_what_is_paused(place: Place) -> None:
    lab = place.lab
    queue(lab, "true", "true", "sleep 600")
    place.run("scitq launch -n after -R 2 true")
    place.run("scitq launch -n 'trim s01' -b trim true")
    place.run("scitq task pause 2")
    place.run("scitq batch pause trim")
    driving = lab.start("up", "--until-done")
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        engine._wait_for(lambda: engine.task(3).status != "running", 60, "task 3")
        engine.task(3).pause()  # is suspended, at the worker

        out, err = driving.communicate(timeout=60)
        again = place.run("scitq up --until-done --json")

        assert (driving.returncode, out, again.code) == (3, b"", 3)
        assert b"Nothing more goes on by itself: 1 running, 1 pending, 1 waiting, 1 paused, 1 succeeded." in err
        assert b" is paused: scitq task resume 2\nBatch trim is stopped: scitq batch go trim\n" in err
        assert (
            b"1 task is suspended: scitq task resume --where \"state='running'\"\nThen: scitq up --until-done\n" in err
        )
        assert json.loads(again.out)["held"] == {"paused": 1, "suspended": 1, "batches": ["trim"]}
        place.run("scitq task resume 2 3")
        place.run("scitq task cancel 3")
        place.run("scitq batch go trim")
        assert place.run("scitq up --until-done").code == 0
        ends = [engine.task(number).status for number in range(1, 6)]
        assert ends == ["succeeded", "succeeded", "cancelled", "succeeded", "succeeded"]


def test_driver_left_behind_drives_until_it_is_asked_to_stop(lab: Lab) -> None:
    queue(lab, "echo one")
    started = lab.json("up", "--detach")
    log = lab.folder / "lab.scitq.d" / "driver.log"

    assert started["started"] and os.getsid(started["pid"]) == started["pid"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    again = lab.json("up", "--detach")
    assert (again["started"], again["pid"]) == (False, started["pid"])
    assert f"pid {started['pid']}" in lab.out("status")
    lab.scitq("task", "output", "-f", "1")
    assert states(lab) == ["succeeded"]

    down = lab.json("down")
    assert down["stopped"] == started["pid"] and down["driver"] is None
    assert "nobody drives" in lab.out("status")
    deadline = time.monotonic() + 30  # it lets go of the file before it says its last word
    while "stopped by scitq down" not in log.read_text(encoding="utf-8"):
        assert time.monotonic() < deadline, log.read_text(encoding="utf-8")
        time.sleep(0.02)


def another_machine_drives(lab: Lab, *, seen_s_ago: float) -> None:
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        seen = int(1000 * (time.time() - seen_s_ago))
        sql = (
            "update lead set epoch = 7, pid = 1, host = 'nuc', machine = 'other', boot = 'other', started = 1, seen = ?"
        )
        engine._write(lambda db: db.execute(sql, (seen,)))


def test_file_that_another_machine_drives_is_taken_over_on_ones_word(lab: Lab) -> None:
    queue(lab, "true")
    another_machine_drives(lab, seen_s_ago=5)

    assert re.search(r"on nuc, seen \d+ s ago\). If it is not: scitq up --take-over", lab.out("up"))
    assert b"is driven by another machine (nuc" in lab.scitq("up", "--until-done", code=1).stderr
    assert states(lab) == ["pending"]
    lab.scitq("up", "--until-done", "--take-over")
    assert states(lab) == ["succeeded"]

    another_machine_drives(lab, seen_s_ago=5)
    assert lab.json("up", "--detach")["started"] is False
    started = lab.json("up", "--detach", "--take-over")
    assert started["started"]
    assert lab.json("up", "--take-over") == {"pid": started["pid"], "driving": True, "started": False}


def test_driver_that_was_stopped_is_told_of_and_taken_over_on_ones_word(lab: Lab) -> None:
    queue(lab, "true")
    old = lab.start("up")
    wait_for_state(lab, "succeeded")
    os.kill(old.pid, signal.SIGSTOP)
    queue(lab, "echo done")

    who = f"(pid {old.pid}, this machine, stopped)"
    assert who in lab.out("status")
    said = lab.out("up")
    assert f"{who}. But it does nothing. Let it go on (kill -CONT {old.pid}), end it (kill -9 {old.pid})" in said
    assert said.endswith("or drive in its place: scitq up --take-over\n")
    assert "but does nothing. Let it go on" in lab.out("task", "why", "2")
    waiting = lab.start("run", "echo", "me too")
    assert waiting.stderr is not None
    told = waiting.stderr.readline().decode()
    assert f"stopped), which does nothing, so nothing happens. Let it go on (kill -CONT {old.pid})" in told

    started = lab.json("up", "--detach", "--take-over")
    assert started["started"]
    out, _ = waiting.communicate(timeout=60)
    assert (out, waiting.returncode) == (b"me too\n", 0)
    os.kill(old.pid, signal.SIGCONT)
    _, told_old = old.communicate(timeout=60)
    assert "another driver has taken over lab.scitq; this one writes nothing more" in told_old.decode()
    assert old.returncode == 1
    assert lab.json("up") == {"pid": started["pid"], "driving": True, "started": False}
    assert states(lab) == ["succeeded"] * 3


def test_machine_that_is_silent_for_long_keeps_nobody_from_driving(lab: Lab) -> None:
    queue(lab, "true")
    another_machine_drives(lab, seen_s_ago=3600)

    assert "nobody drives" in lab.out("status")
    lab.scitq("up", "--until-done")
    assert states(lab) == ["succeeded"]


def test_down_without_a_driver_says_so(lab: Lab) -> None:
    queue(lab, "sleep 60")

    assert lab.out("down") == "Nobody drives lab.scitq. 1 task stays queued. To go on: scitq up\n"


def test_down_leaves_what_runs_and_up_brings_it_home(lab: Lab) -> None:
    queue(lab, "while ! test -e go; do sleep 0.05; done; echo home")
    lab.scitq("up", "--detach")
    wait_for_state(lab, "running")
    down = lab.out("down")
    (lab.folder / "go").touch()
    up = lab.scitq("up", "--until-done")

    assert "1 task goes on at the workers" in down
    assert b"1 task came home (1 succeeded, 0 failed)" in up.stderr
    assert lab.out("task", "output", "1") == "home\n"


def test_down_wait_lets_what_runs_end_and_starts_nothing_more(lab: Lab) -> None:
    queue(lab, *["sleep 1"] * 40)
    lab.scitq("up", "--detach")
    wait_for_state(lab, "running")
    lab.scitq("down", "--wait")

    found = states(lab)
    assert set(found) == {"succeeded", "pending"}
    assert lab.json("worker", "list")[0]["state"] == "ready"


def test_down_cancel_cancels_what_runs_only(lab: Lab) -> None:
    queue(lab, *["sleep 60"] * 40)
    lab.scitq("up", "--detach")
    wait_for_state(lab, "running")
    lab.scitq("down", "--cancel")

    found = states(lab)
    assert set(found) == {"cancelled", "pending"}
    assert found.count("pending") > 20


def test_down_stops_an_up_in_a_terminal(lab: Lab) -> None:
    child = lab.start("-f", "lab.scitq", "up")
    assert child.stderr is not None
    while b"Driving" not in child.stderr.readline():
        pass
    lab.scitq("down")

    _, errors = child.communicate(timeout=30)
    assert child.returncode == 0
    assert b"stopped by scitq down" in errors


def test_up_ends_in_order_when_asked_to(lab: Lab) -> None:
    child = lab.start("-f", "lab.scitq", "up")
    assert child.stderr is not None
    while b"Driving" not in child.stderr.readline():
        pass
    child.send_signal(signal.SIGTERM)

    _, errors = child.communicate(timeout=30)
    assert child.returncode == 0
    assert b"Asked to end." in errors


# --- in a terminal --------------------------------------------------------------------------------------------------------------


def test_up_shows_where_it_is_and_ctrl_c_leaves_the_rest(terminal: Terminal, lab: Lab) -> None:
    queue(lab, *["sleep 60"] * 40)
    terminal.type("scitq up; echo code $?")
    terminal.wait_for(r"^lab\.scitq · .*[1-9] running")
    terminal.press("C-c")
    screen = terminal.wait_for("^code 130$")

    assert "stay queued" in screen and "To go on: scitq up" in screen
    assert {"running", "pending"} <= set(states(lab))


def test_up_and_ctrl_c_twice_cancels_all_of_it(terminal: Terminal, lab: Lab) -> None:
    queue(lab, *["sleep 60"] * 5)
    lab.scitq("launch", "-R", "1", "true")
    terminal.type("scitq up; echo code $?")
    terminal.wait_for(r"^lab\.scitq · .*[1-9] running")
    terminal.press("C-c")
    terminal.wait_for("Ctrl-C again")
    terminal.press("C-c")
    terminal.wait_for("^code 130$")

    assert states(lab) == ["cancelled"] * 6


def test_up_says_that_it_is_driven_already(terminal: Terminal, lab: Lab) -> None:
    terminal.type("scitq -f lab.scitq up --detach")
    terminal.wait_for("driven by pid")
    terminal.type("scitq up")
    terminal.wait_for("is driven already")


def wait_for_state(lab: Lab, state: str) -> None:
    """Until some task is in this state."""
    deadline = time.monotonic() + 20
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        while not engine.tasks(status=state):
            assert time.monotonic() < deadline, engine.counts()
            time.sleep(0.02)


@pytest.mark.parametrize("flag", ["--wait", "--cancel"])
def test_down_works_when_nobody_drives(lab: Lab, flag: str) -> None:
    child = lab.start("-f", "lab.scitq", "run", "--shell", f"echo begun; sleep {2 if flag == '--wait' else 600}")
    assert child.stdout is not None and child.stdout.readline() == b"begun\n"
    child.send_signal(signal.SIGTERM)
    child.communicate(timeout=30)

    lab.scitq("down", flag)

    assert states(lab) == ["succeeded" if flag == "--wait" else "cancelled"]
