"""Tasks with data on the command line: options, screens, and the rclone configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.store import manifests
from scitq.task import ExecutionId
from tests.engine.test_staging import EXIT, Told
from tests.shell.conftest import Lab

CONFIG = "[here]\ntype = alias\nremote = {folder}\n[s3]\ntype = s3\nsecret_access_key = geheim\n"


@pytest.fixture
def configured(lab: Lab) -> Lab:
    """With an rclone configuration."""
    (lab.folder / "bucket").mkdir()
    (lab.folder / "rclone.conf").write_text(CONFIG.format(folder=lab.folder / "bucket"))
    lab.environ["RCLONE_CONFIG"] = str(lab.folder / "rclone.conf")
    return lab


def test_run_with_data_and_what_the_screens_say_of_it(configured: Lab) -> None:
    lab = configured
    (lab.folder / "a b.txt").write_text("12345")
    first = lab.scitq(
        "-f", "lab.scitq", "run", "-i", "a b.txt", "-o", "here://out", "--shell", 'cat "$INPUT/a b.txt" > $OUTPUT/copy; cat $OUTPUT/copy'
    )  # fmt: skip
    assert first.stdout == b"12345"
    assert (lab.folder / "bucket" / "out" / "copy").read_text() == "12345"
    assert (
        lab.out("run", "-i", "task://1", "-r", "a b.txt|mv:ref", "--shell", "cat $INPUT/copy $RESOURCE/ref/*")
        == "12345" * 2
    )
    shown = lab.out("task", "show", "1")
    for part in (
        f"input       {lab.folder}/a b.txt",
        "output      here://out",
        "it left 1 file, 5 B, in here://out",
        "copy",
    ):
        assert part in shown
    said = lab.json("task", "show", "1")
    assert said["output"] == "here://out"
    assert [(file["name"], file["size"]) for file in said["executions"][-1]["files"]] == [("copy", 5)]
    assert lab.json("task", "show", "2")["resource"] == [f"{lab.folder}/a b.txt|mv:ref"]


def test_launch_update_and_batch_take_the_options(configured: Lab) -> None:
    lab = configured
    for name in ("x", "y"):
        (lab.folder / name).touch()
    options = ("--overwrite", "--skip-if-exists", "--no-keep-failed", "--download-timeout", "5")
    lab.scitq("-f", "lab.scitq", "launch", "-i", "x", "-i", "y", "-r", "x", "-o", "here://out", *options, "true")
    said = lab.json("task", "show", "1")
    assert said["input"] == [f"{lab.folder}/{name}" for name in ("x", "y")]
    assert (said["overwrite"], said["skip_if_exists"], said["keep_failed"], said["stage_in_timeout"]) == (
        True,
        True,
        False,
        5.0,
    )
    lab.scitq("task", "update", "1", "-j", "y", "-r", "", "-o", "", "--stage-in-timeout", "9")
    said = lab.json("task", "show", "1")
    assert (said["input"], said["resource"], said["output"], said["stage_in_timeout"]) == (
        [f"{lab.folder}/y"],
        [],
        None,
        9.0,
    )
    lab.scitq("batch", "set", "qc", "-r", "x", "--no-keep-failed")
    lab.scitq("launch", "-b", "qc", "true")
    assert lab.json("task", "show", "2")["resource"] == [f"{lab.folder}/x"]
    assert "resource" in lab.out("batch", "list")
    assert "there is nothing of that name" in lab.scitq("launch", "-i", "z", "true", code=1).stderr.decode()
    assert "no remote 'nowhere'" in lab.scitq("launch", "-o", "nowhere://x", "true", code=1).stderr.decode()
    said = lab.json("launch", "-t", "-i", "x", "true")
    assert said["input"] == [f"{lab.folder}/x"]


def test_why_and_show_tell_how_far_staging_is_and_what_a_worker_said(lab: Lab) -> None:
    told = Told(lab.folder / "lab.scitq")
    task, id = told.begin(input="https://host/x")
    # One that was queued before such addresses were refused.
    sign = "update task set spec = replace(spec, 'https://host/x', 'https://host/x?token=geheim')"
    told.engine._write(lambda db: db.execute(sign))
    told.say({"k": "stage", "id": id, "at": 1}, {"k": "note", "id": id, "text": "mind this"})
    told.show()
    stats = {"at": 0, "staging": {str(id): [1_500_000, 3_000_000]}}
    told.engine._write(lambda db: db.execute("update worker set stats = ?", (json.dumps(stats),)))
    assert "is staging: local fetches what it needs (1.5 of 3.0 MB" in task.why()
    shown = lab.out("task", "show", "1")
    assert "mind this" in shown
    assert "https://host/x?token=***" in shown
    assert "geheim" not in shown + json.dumps(lab.json("task", "show", "1")) + json.dumps(lab.json("task", "list"))
    assert "staging" in lab.out("task", "list")
    told.say({**EXIT, "id": id, "code": None, "why": "stage_in", "note": "host: no such host."})
    assert "failed (stage in): host: no such host." in lab.out("task", "list", "--failed")
    told.engine.close()


def test_many_files_are_not_all_shown(lab: Lab) -> None:
    with Engine(lab.folder / "lab.scitq", drive=False) as engine:
        task = engine.submit("true")
    told = Told(lab.folder / "lab.scitq")
    id = told.again(task)
    files = [[f"f{n}", 1000, None] for n in range(1200)]
    told.say({**EXIT, "id": id, "why": "exists", "to": "s3://b/o", "files": files})
    shown = lab.out("task", "show", "1")
    assert "it left 1,200 files, 1.2 MB, in s3://b/o" in shown
    assert "… and 1,190 more" in shown
    assert len(lab.json("task", "show", "1")["executions"][0]["files"]) == 1200
    assert manifests.of_execution(told.engine._reader(), ExecutionId(id)) is not None
    told.engine.close()


# --- the rclone configuration -----------------------------------------------------------------------------------------------


def test_remotes_are_shown_without_secrets_and_checked(configured: Lab) -> None:
    lab = configured
    shown = lab.scitq("config", "rclone", "--show")
    assert b"geheim" not in shown.stdout + shown.stderr
    assert "secret_access_key=***" in shown.stdout.decode()
    (lab.folder / "rclone.conf").write_text(f"[here]\ntype = alias\nremote = {lab.folder}/bucket\n")
    assert "can be listed" in lab.out("config", "rclone", "--check")
    (lab.folder / "rclone.conf").write_text(f"[here]\ntype = alias\nremote = {lab.folder}/absent\n")
    said = lab.json("config", "rclone", "--check", code=1)
    assert [(one["remote"], one["ok"], one["error"]) for one in said] == [("here", False, "NotFound")]


def test_a_configuration_is_installed_after_a_yes(configured: Lab) -> None:
    lab = configured
    (lab.folder / "new.conf").write_text("[dav]\ntype = webdav\npass = geheim2\n[s3]\ntype = s3\n")
    refused = lab.scitq("config", "rclone", "--install", "new.conf", code=2)
    assert b"new: dav; replaced: s3" in refused.stderr
    assert "dav" not in (lab.folder / "rclone.conf").read_text()
    done = lab.json("config", "rclone", "--install", "new.conf", "--yes")
    assert "[dav]" in (lab.folder / "rclone.conf").read_text()
    assert os.stat(lab.folder / "rclone.conf").st_mode & 0o777 == 0o600
    assert Path(done["backup"]).read_text() == CONFIG.format(folder=lab.folder / "bucket")
    again = lab.scitq("config", "rclone", "--install", "new.conf")
    assert b"has all of it already" in again.stdout
    assert b"no such file" in lab.scitq("config", "rclone", "--install", "absent", code=1).stderr
