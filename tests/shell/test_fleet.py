"""Workers elsewhere at the command line: what is said, asked and refused. (Real hosts: tests/hosts.)"""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from scitq.shell.fleet import ssh_words
from scitq.states import WorkerState
from scitq.worker import WorkerId, WorkerRow
from tests.shell.conftest import Lab


def test_a_worker_is_written_down_shown_changed_and_deleted_though_nobody_drives(lab: Lab) -> None:
    said = lab.out(
        "-f",
        "lab.scitq",
        "worker",
        "add",
        "me@127.0.0.1:1",
        "-n",
        "far",
        "-b",
        "qc",
        "--hours",
        "22:00-7:00",
        "--no-wait",
    )
    assert said == "far: to be prepared.\n"
    assert lab.json("worker", "list")[0]["settings"] == {"hours": "22:00-07:00", "slots_as_cpus": True}
    shown = lab.out("worker", "show", "far")
    assert "reached at  me@127.0.0.1:1" in shown
    assert "may go to others after 60 min" in shown
    lab.scitq("worker", "update", "far", "--lost-after", "60", "--hours", "auto", "-C", "3", "-b", "")
    [row] = lab.json("worker", "list")
    assert (row["settings"], row["concurrency"], row["batch"]) == ({"lost_after": 60}, 3, None)
    assert lab.json("job", "list")[0]["kind"] == "prepare"
    assert "prepare far, pending" in lab.out("job", "show", "1")
    refused = lab.scitq("worker", "delete", "far", code=2).stderr.decode()
    assert "is deleted" in refused
    assert "--yes" in refused
    lab.scitq("worker", "delete", "far", "--yes")
    assert [row["name"] for row in lab.json("worker", "list")] == ["local"]


def test_what_cannot_be_said_of_a_worker_is_refused_in_a_sentence(lab: Lab) -> None:
    for words, code, message in (
        (["add", "a b"], 1, "is not a host"),
        (["add", "h", "--hours", "soon"], 1, "22:00-07:00"),
        (["add", "h", "--lost-after", "soon"], 2, "number or auto"),
        (["add", "h", "i", "--name", "x"], 1, "--name is for one host"),
        (["shell", "nobody"], 1, "no worker 'nobody'"),
        (["pause"], 2, "which worker?"),
    ):
        assert message in lab.scitq("-f", "lab.scitq", "worker", *words, code=code).stderr.decode()


@pytest.mark.sampled
def test_a_host_that_is_not_there_is_told_and_nothing_hangs(lab: Lab) -> None:
    ended = lab.scitq("-f", "lab.scitq", "worker", "add", "127.0.0.1:1", code=1)
    assert "cannot be connected to (Connection refused)" in ended.stderr.decode()
    [row] = [row for row in lab.json("worker", "list") if row["kind"] == "ssh"]
    assert row["state"] == "failed"


def test_the_login_to_a_host_is_its_users_own(tmp_path: object) -> None:
    row = SimpleNamespace(**{"address": "me@atlas:2222", "link": {"root": "/home/me/.scitq/it's"}})
    words = ssh_words(row)  # type: ignore[arg-type]
    assert words[0] == "ssh"
    assert words[-5:-1] == ["-p", "2222", "-t", "me@atlas"]
    assert words[-1].startswith("cd '/home/me/.scitq/it'\"'\"'s'")
    plain = WorkerRow(
        WorkerId(1), "a", "ssh", WorkerState.READY, None, 1, None, {}, None, None, 0, 0, None, address="atlas"
    )
    assert ssh_words(plain)[-1] == "atlas"
