"""`scitq doctor`: what it says of surroundings that are in order, broken, or do not answer."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from scitq.shell import checks
from scitq.shell.checks import Finding
from tests.shell.conftest import Lab

# The machine may be busy: what is shown here is what is found, not how soon.
PATIENT = ("--within", "60")


def programs(lab: Lab, **scripts: str) -> None:
    """Nothing is on PATH but these, and a shell."""
    folder = lab.folder / "bin"
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
    lab.environ["PATH"] = str(folder)


def found(lab: Lab, *words: str, code: int) -> dict[str, list[dict[str, Any]]]:
    """Its findings, by what they are about."""
    by: dict[str, list[dict[str, Any]]] = {}
    for one in lab.json("doctor", *PATIENT, *words, code=code):
        assert one.keys() == {"about", "status", "text", "todo"} and one["text"]
        by.setdefault(one["about"], []).append(one)
    return by


def one(findings: dict[str, list[dict[str, Any]]], about: str) -> tuple[str, str, str | None]:
    [line] = findings[about]
    return line["status"], line["text"], line["todo"]


def test_a_machine_with_nothing_is_told_what_to_install(lab: Lab) -> None:
    programs(lab)
    lab.environ |= {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    home = lab.folder / "home"
    (home / ".ssh").mkdir(parents=True)
    lab.environ["HOME"] = str(home)

    said = found(lab, code=0)

    assert one(said, "aria2")[2] == "if wanted: apt install aria2"
    assert "container=" in one(said, "containers")[1]
    assert one(said, "ssh keys")[2] == "ssh-keygen -t ed25519"
    assert one(said, "ssh")[0] == "advice"
    assert one(said, "terminal")[::2] == ("advice", "export LC_ALL=C.UTF-8")
    assert one(said, "state file")[1].startswith("none here yet")
    assert one(said, "python")[1].startswith(".".join(map(str, sys.version_info[:3])))
    assert os.listdir(lab.folder / "home") == [".ssh"]  # nothing was changed


def test_programs_that_refuse_are_told_of(lab: Lab) -> None:
    programs(
        lab,
        docker="echo 'permission denied while trying to connect to the Docker daemon socket' >&2; exit 1",
        ssh_add="echo 'The agent has no identities.'; exit 1",
        timedatectl="echo no",
    )
    lab.environ["SSH_AUTH_SOCK"] = "/nonexistent"
    lab.environ["USER"] = "ada"

    said = found(lab, code=0)

    assert one(said, "docker") == (
        "advice",
        "this user may not use it",
        "sudo usermod -aG docker ada, then log in again",
    )
    assert one(said, "ssh agent")[:2] == ("ok", "it holds no key")
    assert one(said, "clock")[2] == "timedatectl set-ntp true"


def test_what_stops_work_is_a_problem_and_ends_with_1(lab: Lab) -> None:
    home = lab.folder / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "id_ed25519").write_text("a key")
    (home / ".ssh" / "id_ed25519").chmod(0o644)
    (lab.folder / "config.toml").write_text(
        "colur = 1\n[hooks]\nbatch_end = ['/nonexistent']\n[notifications]\ndesktop = true\n"
    )
    (lab.folder / "lab.scitq").write_bytes(b"this is not SQLite, whatever it may be" * 100)
    programs(lab, rclone="echo broken >&2; exit 1")
    lab.environ |= {"HOME": str(home), "SCITQ_CONFIG": str(lab.folder / "config.toml")}

    said = found(lab, code=1)

    assert [(line["status"], line["todo"]) for line in said["ssh keys"]] == [
        ("problem", f"chmod 600 {home}/.ssh/id_ed25519"),
        ("ok", None),
    ]
    assert one(said, "settings")[1].endswith("config.toml:1: there is no key 'colur'; did you mean 'colour'?")
    assert one(said, "hooks")[1] == "hooks.batch_end: there is no program '/nonexistent'"
    assert one(said, "notifications")[0] == "problem"
    assert one(said, "state file")[0] == "problem" and "no state file" in one(said, "state file")[1]
    assert one(said, "rclone")[:2] == ("problem", f"{lab.folder}/bin/rclone broken")
    text = lab.scitq("doctor", *PATIENT, code=1)
    assert b"problems, " in text.stderr
    assert f"-> chmod 600 {home}/.ssh/id_ed25519" in text.stdout.decode()


def test_a_file_is_looked_at_with_its_driver_and_workers(lab: Lab) -> None:
    lab.scitq("-f", "lab.scitq", "run", "true")
    lab.scitq("run", "false", code=1)
    lab.scitq("launch", "true")

    said = found(lab, code=0)

    status, text, _ = one(said, "state file")
    assert status == "ok" and text.startswith(f"{lab.folder}/lab.scitq, ") and text.endswith("3 tasks, sound")
    assert one(said, "driver") == ("advice", "nobody drives, and 1 task not done", "scitq up")
    assert said["worker"][0]["text"].startswith("local is ready")
    assert one(said, "notices") == ("advice", "1 notice", "scitq notices")
    gone = lab.json("-f", "nowhere.scitq", "doctor", *PATIENT, code=1)
    assert [line["text"] for line in gone if line["status"] == "problem"] == ["there is no nowhere.scitq"]
    assert not (lab.folder / "nowhere.scitq").exists()


def test_storages_are_tried_when_asked(lab: Lab) -> None:
    dump = json.dumps({"good": {"type": "local"}, "bad": {"type": "s3", "secret_access_key": "hunter2"}})
    programs(
        lab,
        rclone=f"""case "$*" in
        version) echo "rclone v1.68.2";;
        *listremotes*) printf 'good:\\nbad:\\n';;
        *"config dump"*) echo '{dump}';;
        *) echo "2026/11/24 ERROR : bad: AccessDenied: 403 hunter2" >&2; exit 1;;
        esac""",
    )

    said = lab.scitq("--json", "doctor", "--remote-check", code=None).stdout.decode()

    assert "storages" in said and "hunter2" not in said.replace("403 hunter2", "")


def test_a_check_that_hangs_or_breaks_is_a_line_like_others() -> None:
    gate = threading.Event()

    def hangs(_: float) -> list[Finding]:
        gate.wait(60)
        return []

    def breaks(_: float) -> list[Finding]:
        raise RuntimeError("no such luck")

    lines = checks.together(
        [("slow", hangs), ("broken", breaks), ("fine", lambda _: [Finding("fine", "ok", "it is")])], within_s=0.5
    )
    gate.set()

    assert [(line.about, line.status) for line in lines] == [("slow", "advice"), ("broken", "problem"), ("fine", "ok")]
    assert lines[0].text == "did not answer within 0.5 s"
    assert lines[1].text == "cannot be looked at: RuntimeError: no such luck"


def test_a_program_that_does_not_answer_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\nexec /bin/sleep 600\n")
    (tmp_path / "docker").chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))

    first, *_ = checks.engines(0.2)

    assert (first.about, first.text) == ("docker", "it is here but cannot be used: does not answer within 0.2 s")


def test_little_room_is_advice_and_none_a_problem(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def room(free: int) -> str:
        block = os.statvfs_result((4096, 4096, 1 << 30, free // 4096, free // 4096, 0, 0, 0, 0, 255))
        monkeypatch.setattr("scitq.shell.checks.os.statvfs", lambda folder: block)
        return checks.disk("here", str(tmp_path)).status

    assert [room(10**6), room(10**9), room(10**12)] == ["problem", "advice", "ok"]


def test_few_open_files_and_a_clock_that_was_never_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda which: (256, 4096))
    assert [line.todo for line in checks.limits(1)] == ["ulimit -n 1024"]
    monkeypatch.setattr("scitq.shell.checks.time.time", lambda: 0.0)
    assert [line.status for line in checks.clock(1)] == ["problem"]
