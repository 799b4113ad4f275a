"""Resources: one download for all who want it, links for each, nothing stale, nothing changed, nothing that stays for ever."""

from __future__ import annotations

import io
import json
import os
import signal
import stat
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from scitq.remote import local
from tests.fetch.web import WebServer, wait_for
from tests.remote.client import Driver

ROUNDS = os.environ.get("SCITQ_ROUNDS", "20")
SIZE_BYTES = 1 << (20 if ROUNDS.isdigit() and int(ROUNDS) < 100 else 30)
"""Of what is shared by many: a gigabyte in the campaign."""


def gets(web: WebServer, path: str) -> int:
    """How often it was downloaded, at least in part."""
    return len([request for request in web.requests if request[:2] == ("GET", path)])


def data_of(root: Path) -> Path:
    """The data of the one version that is in the cache."""
    (entry,) = (root / "cache").iterdir()
    return entry / "data"


def is_released(root: Path) -> bool:
    return not os.listdir(root / "stage") and not os.listdir(root / "trash")


def test_many_tasks_share_one_download_and_no_copy_is_made(
    driver: Driver, root: Path, web: WebServer, tmp_path: Path
) -> None:
    data = os.urandom(1 << 20) + bytes(SIZE_BYTES - (1 << 20))
    web.add("/genome.fa", data, stalls=[SIZE_BYTES // 2])
    show = f"while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done; stat -c '%h %a' $RESOURCE/genome.fa; wc -c < $RESOURCE/genome.fa"
    driver.say({"slots": 50})
    driver.say(*({"order": number, "script": show, "resource": [f"{web.url}/genome.fa"]} for number in range(50)))
    wait_for(web.stalled.is_set)
    os.kill(driver.held()["pid"], signal.SIGKILL)  # in the middle: the next agent goes on with what has come
    driver.close()
    local.ensure(root)
    web.release.set()
    driver.until(lambda: sum(line["k"] == "start" for line in driver.lines) == 50)
    (tmp_path / "gate").touch()
    lines = [driver.exit_of(number) for number in range(50)]
    # One link is the cache's, the others are those of tasks that have not ended yet.
    assert {line["o"].split("\n")[0] for line in lines} <= {f"{count} 444" for count in range(2, 52)}
    assert {line["o"].split("\n")[1] for line in lines} == {str(SIZE_BYTES)}
    assert web.sent_bytes < 2 * len(data) and gets(web, "/genome.fa") == 2
    assert (data_of(root) / "genome.fa").read_bytes() == data
    wait_for(lambda: is_released(root))
    wait_for(
        lambda: (data_of(root) / "genome.fa").stat().st_nlink == 1
    )  # folders of the last tasks go when there is time


def test_it_is_still_there_after_a_restart_and_asked_about_once_for_each(
    driver: Driver, root: Path, web: WebServer
) -> None:
    web.add("/x", b"x")
    assert driver.script(1, "cat $RESOURCE/x", resource=[f"{web.url}/x"])["o"] == "x"
    driver.close()
    local.stop(root)
    local.ensure(root)
    driver.say({"slots": 1})
    assert driver.script(2, "cat $RESOURCE/x", resource=[f"{web.url}/x"])["o"] == "x"
    assert gets(web, "/x") == 1 and len(web.requests) == 3


@pytest.mark.promise("data 11.18", "data 11.29")
def test_a_source_that_changed_is_fetched_anew_and_the_old_one_goes(
    driver: Driver, root: Path, web: WebServer, tmp_path: Path
) -> None:
    web.add("/x", b"old")
    driver.say({"order": 1, "resource": [f"{web.url}/x"],
                "script": f"touch {tmp_path}/on; while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done; cat $RESOURCE/x"})  # fmt: skip
    wait_for((tmp_path / "on").exists)
    web.add("/x", b"new")
    assert driver.script(2, "cat $RESOURCE/x", resource=[f"{web.url}/x"])["o"] == "new"
    wait_for(lambda: len(os.listdir(root / "cache")) == 1)
    (tmp_path / "gate").touch()
    assert driver.exit_of(1)["o"] == "old"  # who has it keeps it


@pytest.mark.promise("data 11.18")
@pytest.mark.parametrize("how", ["size", "date", "nothing"])
def test_without_a_checksum_size_and_date_decide_and_without_those_it_is_not_kept(
    driver: Driver, web: WebServer, how: str
) -> None:
    dates = {"modified_s": None} if how == "nothing" else {}
    web.add("/x", b"old", etag=None, **dates)
    assert driver.script(1, "cat $RESOURCE/x", resource=[f"{web.url}/x"])["o"] == "old"
    web.add("/x", b"newer" if how == "size" else b"new", etag=None, **({"modified_s": 1_700_000_001.0} | dates))
    assert driver.script(2, "cat $RESOURCE/x", resource=[f"{web.url}/x"])["o"].startswith("new")
    assert driver.script(3, "cat $RESOURCE/x", resource=[f"{web.url}/x"])["o"].startswith("new")
    assert gets(web, "/x") == (3 if how == "nothing" else 2)


@pytest.mark.servers
def test_a_folder_is_another_one_when_anything_in_it_is(driver: Driver, root: Path, tmp_path: Path) -> None:
    (tmp_path / "there" / "sub").mkdir(parents=True)
    (tmp_path / "there" / "sub" / "x").write_text("old")
    driver.say({"remotes": {"config": {"far": {"type": "alias", "remote": str(tmp_path)}}}})
    order = {"resource": ["far://there|mv:db"], "remotes": ["far"]}
    assert driver.script(1, "cat $RESOURCE/db/sub/x", **order)["o"] == "old"
    inode = (data_of(root) / "db" / "sub" / "x").stat().st_ino
    assert driver.script(2, "cat $RESOURCE/db/sub/x; stat -c %i $RESOURCE/db/sub/x", **order)["o"] == f"old{inode}\n"
    (tmp_path / "there" / "sub" / "y").write_text("more")
    assert driver.script(3, "cat $RESOURCE/db/sub/*", **order)["o"] == "oldmore"


def archive() -> bytes:
    """A tar with a folder, a file, a link to it and a hard link."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        member = tarfile.TarInfo("sub/x")
        member.size = 2
        tar.addfile(member, io.BytesIO(b"x\n"))
        for name, kind in (("sub/soft", tarfile.SYMTYPE), ("sub/hard", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "x" if kind == tarfile.SYMTYPE else "sub/x"
            tar.addfile(member)
    return raw.getvalue()


def test_an_archive_is_unpacked_once_and_where_names_meet_the_later_one_is_seen(
    driver: Driver, root: Path, tmp_path: Path, web: WebServer
) -> None:
    web.add("/db.tar.gz", archive())
    (tmp_path / "x").write_text("later\n")
    tar, other = f"{web.url}/db.tar.gz|untar", f"{tmp_path}/x|mv:sub"
    show = "cd $RESOURCE; find . | sort; cat sub/x sub/hard sub/soft"
    names = ".\n./sub\n./sub/hard\n./sub/soft\n./sub/x\n"
    assert driver.script(1, show, resource=[tar])["o"] == names + "x\nx\nx\n"
    assert driver.script(2, show, resource=[tar, other])["o"] == names + "later\nx\nlater\n"
    assert driver.script(3, show, resource=[other, tar])["o"] == names + "x\nx\nx\n"
    assert gets(web, "/db.tar.gz") == 1
    assert (tmp_path / "x").read_text() == "later\n"


def test_a_resource_that_a_task_changed_is_dropped_and_all_who_had_it_are_told(
    driver: Driver, root: Path, tmp_path: Path, web: WebServer
) -> None:
    web.add("/x", b"good\n")
    order = {"resource": [f"{web.url}/x"]}
    driver.say(
        {"order": 1, **order, "script": f"touch {tmp_path}/on; while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done"}
    )
    wait_for((tmp_path / "on").exists)
    driver.script(2, "chmod u+w $RESOURCE/x; echo bad >> $RESOURCE/x", **order)
    for execution in (1, 2):
        assert f"{web.url}/x" in driver.seen("note", execution)["text"]
    assert driver.script(3, "cat $RESOURCE/x; rm $RESOURCE/x; echo mine > $RESOURCE/x", **order)["o"] == "good\n"
    assert driver.script(4, "cat $RESOURCE/x", **order)["o"] == "good\n"
    assert gets(web, "/x") == 2
    (tmp_path / "gate").touch()
    driver.exit_of(1)
    wait_for(lambda: is_released(root))
    driver.poll(0.1)
    assert sorted(line["id"] for line in driver.lines if line["k"] == "note") == [1, 2]


def test_a_plain_path_that_a_task_changed_in_place_is_told_of(driver: Driver, tmp_path: Path) -> None:
    """It is linked, not copied: the file itself is another one now. One that is replaced is not."""
    (tmp_path / "d").mkdir()
    for name in ("x", "y", "z"):
        (tmp_path / "d" / name).write_text("good\n")
    order = {"resource": [f"{tmp_path}/d/"]}
    driver.script(1, "cat $RESOURCE/x; rm $RESOURCE/y; echo mine > $RESOURCE/y", **order)
    wait_for(lambda: is_released(driver.root))  # it is looked at only then
    driver.script(2, "echo bad >> $RESOURCE/x", **order)
    note = driver.seen("note", 2)["text"]
    assert f"{tmp_path}/d/x was changed while this task had it as a resource" in note and "linked, not copied" in note
    driver.script(3, "echo worse >> $INPUT/x", input=[f"{tmp_path}/d/x"])  # an input is the task's
    (tmp_path / "new").write_text("replaced\n")
    driver.script(4, f"mv {tmp_path}/new {tmp_path}/d/z", **order)
    wait_for(lambda: is_released(driver.root))
    driver.poll(0.1)
    assert [line["id"] for line in driver.lines if line["k"] == "note"] == [2]
    assert (tmp_path / "d" / "y").read_text() == "good\n"


def test_changed_under_a_killed_agent_the_next_one_notices(
    driver: Driver, root: Path, tmp_path: Path, web: WebServer
) -> None:
    web.add("/x", b"good\n")
    wait = f"touch {tmp_path}/on; while [ ! -e {tmp_path}/gate ]; do sleep 0.02; done; "
    driver.say(
        {"order": 1, "resource": [f"{web.url}/x"], "script": wait + "chmod u+w $RESOURCE/x; echo bad >> $RESOURCE/x"}
    )
    wait_for((tmp_path / "on").exists)
    os.kill(driver.held()["pid"], signal.SIGKILL)
    driver.close()
    (tmp_path / "gate").touch()
    wait_for(lambda: (data_of(root) / "x").stat().st_size > 5)
    local.ensure(root)
    assert driver.seen("note", 1)
    assert driver.script(2, "cat $RESOURCE/x", resource=[f"{web.url}/x"])["o"] == "good\n"


def test_one_who_was_given_up_does_not_take_the_download_from_the_others(
    driver: Driver, root: Path, web: WebServer
) -> None:
    web.add("/x", b"x" * 100, stalls=[50])
    driver.say({"order": 1, "script": "true", "resource": [f"{web.url}/x"]})
    wait_for(web.stalled.is_set)
    driver.say({"order": 2, "script": "cat $RESOURCE/x", "resource": [f"{web.url}/x"]})
    driver.say({"order": 3, "script": "cat $RESOURCE/x", "resource": [f"{web.url}/x"], "stage_timeout": 0.1})
    assert driver.exit_of(3)["why"] == "stage_timeout"
    driver.say({"cancel": 1})
    assert driver.exit_of(1)["why"] == "cancel"
    web.release.set()
    assert driver.exit_of(2)["o"] == "x" * 100
    web.add("/y", b"x" * 100, stalls=[50])
    web.stalled.clear()
    web.release.clear()
    driver.say(*({"order": number, "script": "true", "resource": [f"{web.url}/y"]} for number in (4, 5)))
    wait_for(web.stalled.is_set)
    driver.say({"cancel": 4}, {"cancel": 5})
    wait_for(lambda: web.at_once == 0 or is_released(root))
    wait_for(lambda: is_released(root))


def test_who_waits_for_a_download_that_fails_fails_with_it(driver: Driver, web: WebServer) -> None:
    web.add("/x", b"x" * 100)
    driver.say(*({"order": number, "script": "true", "resource": [f"{web.url}/none"]} for number in range(10)))
    for number in range(10):
        assert driver.exit_of(number)["error"] == "NotFound"
    assert driver.script(11, "true", resource=[f"{web.url}/x"])["code"] == 0


@pytest.mark.promise("data 11.23")
def test_what_a_killed_agent_left_half_is_deleted_and_locks_nobody_out(
    driver: Driver, root: Path, web: WebServer
) -> None:
    web.add("/x", b"x" * 100, stalls=[50])
    driver.say({"order": 1, "script": "true", "resource": [f"{web.url}/x"]})
    wait_for(web.stalled.is_set)
    os.kill(driver.held()["pid"], signal.SIGKILL)
    driver.close()
    local.ensure(root)
    driver.say({"recall": 1})
    driver.exit_of(1)
    os.kill(driver.held()["pid"], signal.SIGKILL)  # what the second agent had kept for it is nobody's now
    driver.close()
    local.ensure(root)
    web.add("/y", b"y")
    assert driver.script(2, "cat $RESOURCE/y", resource=[f"{web.url}/y"])["o"] == "y"
    wait_for(lambda: is_released(root))
    wait_for(lambda: [path.name.startswith("new-") for path in (root / "cache").iterdir()] == [False])
    mode = (data_of(root) / "y").stat().st_mode
    assert stat.S_IMODE(mode) == 0o444


@pytest.mark.promise("data 11.28", "core 11.14")
def test_when_the_disk_is_short_the_least_recently_used_goes_and_what_a_task_has_stays(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", sys.executable, "-m", "tests.remote.small", tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["cached"] == ["a", "a b", "a b c", "a c d", "c e", "c e", "c g", "c h"], found
    assert (found["too much"]["error"], found["too much"]["code"]) == ("NoSpace", None)
    assert "29,360,128 bytes do not fit" in found["too much"]["note"] and "in use" in found["too much"]["note"]
    assert found["unknown"]["o"] == f"{14 << 20}\n" and found["after failure"]["code"] == 0
    assert found["left"] == ["command", "err", "out", "output"]
    assert found["had it all the time"]["o"] == f"{6 << 20}\n"
