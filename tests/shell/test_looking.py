"""`status`, `worker`, `batch`, `journal`, `check`, `backup`."""

from __future__ import annotations

import re
import signal
import sqlite3
import time
from pathlib import Path

import pytest

import scitq
from scitq.store import workers
from tests.shell.conftest import Lab


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three equal failures, one success, one blocked, one pending."""
    lab = Lab(tmp_path_factory.mktemp("ended"))
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        bad = engine.submit_many([["false"]] * 3, batch="align")
        engine.submit(["true"], name="fine")
        engine.submit(["true"], requires=bad)
    lab.scitq("up", "--until-done", code=1)
    lab.scitq("launch", "true")
    lab.clean_up()
    with scitq.open(lab.folder / "lab.scitq", drive=False) as engine:
        stats = {
            "load": 0.5,
            "cpu": 0.25,
            "memory": 8e9,
            "memory_free": 2e9,
            "disk": 1e12,
            "disk_free": 3e11,
            "running": 1,
        }
        engine._write(lambda db: workers.measure(db, engine.workers()[0].id, {"at": 1_700_000_000_000, **stats}))
    return lab.folder


@pytest.fixture
def busy(lab: Lab, ended: Path) -> Lab:
    """A lab with those."""
    return lab.copy(ended)


def test_status_says_who_drives_what_runs_and_what_needs_you(busy: Lab) -> None:
    first, *others = busy.out("status").splitlines()

    assert re.fullmatch(
        r"lab\.scitq · nobody drives · 1 worker · 1 pending, 1 succeeded, 3 failed, 1 blocked · 4/min", first
    )
    assert re.match(
        r"2 notices: task [123] 'false' failed \(exit 1\) \(3 equal failures\)\. scitq task show [123]", others[0]
    )
    assert "1 task is blocked" in others[1]
    assert others[-1] == "To go on: scitq up"


def kinds_of(lab: Lab) -> list[str]:
    return [notice["kind"] for notice in lab.json("status")["notices"]]


def test_status_tells_of_requests_in_vain_and_of_halted_batches(lab: Lab) -> None:
    driver = lab.start("-f", "lab.scitq", "run", "--cpus", "1000", "-b", "large", "true")
    deadline = time.monotonic() + 30
    while not (lab.folder / "lab.scitq").exists() or "in-vain" not in kinds_of(lab):
        assert time.monotonic() < deadline
    lab.scitq("batch", "set", "held", "--retry", "0")
    lab.scitq("batch", "pause", "held")
    lab.scitq("launch", "-b", "held", "true")

    text = lab.out("status")
    assert re.search(r"task 1 waits in vain: no worker has 1000 CPUs: local has .*\. scitq task why 1", text)
    assert "batch held is paused: 1 task queued. scitq batch go held" in text
    found = {notice["kind"]: notice["about"] for notice in lab.json("status")["notices"]}
    assert found["in-vain"] == {"in_vain": 1, "task": 1}
    assert found["halted"] == {"batch": "held", "state": "paused", "queued": 1}
    lab.scitq("task", "update", "1", "--cpus", "1")
    driver.communicate(timeout=30)
    assert driver.returncode == 0
    assert "in vain" not in lab.out("status")


def test_status_as_data(busy: Lab) -> None:
    found = busy.json("status")

    assert found["driver"] is None
    assert found["counts"]["failed"] == 3 and found["counts"]["running"] == 0
    assert [notice["kind"] for notice in found["notices"]] == ["driver", "failures", "blocked"]
    assert found["notices"][1]["about"]["equal"] == 3
    assert found["workers"][0]["name"] == "local"


def test_commands_that_are_suggested_work_from_where_one_is(busy: Lab) -> None:
    elsewhere = busy.scitq("-f", str(busy.folder / "lab.scitq"), "status", cwd="/").stdout.decode()

    assert f"scitq -f {busy.folder}/lab.scitq up" in elsewhere or "lab.scitq up" in elsewhere.splitlines()[-1]


def test_worker_list_and_update(busy: Lab) -> None:
    assert busy.json("worker", "list")[0]["python"]
    said = busy.scitq("worker", "update", "local", "-C", "7", "-p", "3")
    assert b"local runs 7 tasks at once" in said.stdout
    found = busy.json("worker", "list")[0]
    assert (found["concurrency"], found["prefetch"]) == (7, 3)
    busy.scitq("worker", "update", "-n", "local", "-p", "auto")
    assert busy.json("worker", "list")[0]["prefetch"] == "auto"

    told = busy.out("worker", "update", "local", "--cpus", "5000", "--memory", "64G", "--gpus", "0,3")
    assert "For tasks that ask it has 5000 CPUs, 64 GB, 2 GPUs." in told
    found = busy.json("worker", "list")[0]
    assert (found["cpus"], found["memory"], found["gpus"], found["holds"]) == (5000.0, 64_000_000_000, ["0", "3"], 0)
    first = busy.out("worker", "list").splitlines()[1].split()
    assert first[:8] == ["local", "ready", "0/7", "auto", "5000", "64", "GB", "0/2"]
    busy.scitq("worker", "update", "local", "--gpus", "1")
    assert busy.json("worker", "list")[0]["gpus"] == ["0"]
    assert b"memory must be" in busy.scitq("worker", "update", "local", "--memory", "lots", code=1).stderr

    assert b"a number or auto" in busy.scitq("worker", "update", "local", "--cpus", "some", code=2).stderr
    busy.scitq("worker", "update", "local", "--cpus", "auto", "--memory", "auto", "--gpus", "auto")
    found = busy.json("worker", "list")[0]
    assert found["cpus"] < 1000 and found["memory"] != 64_000_000_000

    told = busy.out("worker", "update", "local", "--limits", "off")
    assert "Tasks are not held to what they ask for: switched off." in told
    found = busy.json("worker", "list")[0]
    assert (found["limits"], found["limits_reason"]) == ([], "switched off")
    busy.scitq("worker", "update", "local", "--limits", "on")
    assert busy.json("worker", "list")[0]["limits_reason"] != "switched off"
    assert b"on or off" in busy.scitq("worker", "update", "local", "--limits", "maybe", code=2).stderr

    assert b"no worker 'nope'" in busy.scitq("worker", "update", "nope", "-C", "1", code=1).stderr
    assert b"a number or auto" in busy.scitq("worker", "update", "local", "-p", "many", code=2).stderr
    assert b"nothing to change" in busy.scitq("worker", "update", "local", code=2).stderr


def test_worker_show_tells_what_it_is_how_busy_and_what_it_has_done(busy: Lab) -> None:
    found = busy.json("worker", "show", "local")
    assert found["work"]["outcomes"] == {"succeeded": 1, "failed": 3}
    assert found["work"]["mean_run_s"] == pytest.approx(found["work"]["run_s"] / 4, abs=1e-5)
    assert found["work"]["cpu_s"] > 0 and found["work"]["written_bytes"] >= 0
    assert (found["stats"]["disk_free"], found["stats"]["at"]) == (300_000_000_000, "2023-11-14T22:13:20.000Z")
    assert len(found["limits"]) == 2 or found["limits_reason"]

    lines = {line[:12].strip(): line[12:] for line in busy.out("worker", "show", "local").splitlines()[1:]}
    assert lines["state"] == "ready" and lines["slots"].startswith("0 of ")
    assert (
        "held to" in lines["tasks are"] and lines["memory"] == "2.0 GB of 8.0 GB free" and "B read" in lines["disk I/O"]
    )
    assert lines["has run"].startswith("1 succeeded, 3 failed, in ")
    head, row = busy.out("worker", "list").splitlines()
    assert head.split() == [
        "name",
        "state",
        "slots",
        "prefetch",
        "cpus",
        "memory",
        "gpus",
        "load",
        "free",
        "disk",
        "free",
    ]
    assert "held to" in busy.out("worker", "list", "--long") and row.split()[0] == "local"

    assert row.split()[-5:] == ["0.50", "2.0", "GB", "300", "GB"] and re.match(
        r"0\.50, 25% of its CPUs busy", lines["load"]
    )
    sql = "select load, cpu_use, memory_free, disk_free, measured from workers"
    assert busy.json("sql", sql)[0]["measured"] == 1_700_000_000.0
    assert b"which worker?" in busy.scitq("worker", "show", code=2).stderr
    assert b"no worker 'nope'" in busy.scitq("worker", "show", "nope", code=1).stderr


def test_batches(busy: Lab) -> None:
    found = {row["batch"]: row for row in busy.json("batch", "list")}

    assert (found["align"]["tasks"], found["align"]["failed"]) == (3, 3)
    assert (found["default"]["succeeded"], found["default"]["queued"], found["default"]["blocked"]) == (1, 1, 1)
    assert busy.out("batch", "list").splitlines()[0].split()[0] == "batch"


def test_journal(busy: Lab) -> None:
    entries = busy.json("journal", "--since", "0")

    assert [entry["id"] for entry in entries] == list(range(1, len(entries) + 1))
    assert any(entry["to"] == "succeeded" and "fine" in entry["what"] for entry in entries)
    assert len(busy.json("journal", "-n", "3")) == 3
    assert busy.json("journal", "-n", "3")[-1] == entries[-1]


def test_journal_follows(lab: Lab) -> None:
    lab.scitq("-f", "lab.scitq", "launch", "true")
    child = lab.start("journal", "-f", "-n", "0")
    again = lab.start("--json", "journal", "-f", "--since", "0")
    assert again.stdout is not None and b"submitted" in again.stdout.readline()
    lab.scitq("launch", "-n", "second", "true")
    assert child.stdout is not None
    # Whether it had begun to look before the task came is not known; both tell of the next one.
    assert b"second" in again.stdout.readline()
    for process in (child, again):
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
        assert (process.returncode, errors) == (130, b"")


def test_check_finds_nothing_in_a_sound_file(busy: Lab) -> None:
    assert "lab.scitq is sound: 6 tasks" in busy.out("check")
    assert busy.json("check")["problems"] == []


def test_check_of_a_broken_file_ends_badly(busy: Lab) -> None:
    db = sqlite3.connect(busy.folder / "lab.scitq")
    db.execute("update counter set n = n + 1")
    db.commit()
    db.close()

    assert busy.scitq("check", code=1).stdout
    assert busy.json("check", code=1)["problems"]


def test_backup_is_whole_and_overwrites_nothing(busy: Lab) -> None:
    said = busy.out("backup", "copy.bak")
    again = busy.scitq("backup", "copy.bak", code=1)

    assert "copy.bak" in said
    assert b"exists already" in again.stderr
    assert len(busy.json("-f", "copy.bak", "task", "list")) == 6
