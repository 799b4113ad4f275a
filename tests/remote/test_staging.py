"""Inputs and resources are there before a task starts, whole, or it says why not."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import queue
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from scitq.fetch.uri import of_path
from scitq.remote import local
from scitq.remote.agent.kept import Kept
from scitq.remote.agent.staging import Staging
from tests.fetch.web import WebServer, wait_for
from tests.remote.client import Driver, below, content

SHOW = "cd $INPUT; find . -type f -o -type l | sort; find . -type f -o -type l | sort | xargs cat"


def refused(driver: Driver, execution: object, **order: object) -> tuple[str, str]:
    """What an execution that cannot be staged says: the kind of error, and its note."""
    line = driver.script(execution, "touch $OUTPUT/ran; echo ran", **order)
    assert (line["why"], line["code"], line["o"]) == ("stage_in", None, ""), line
    return line["error"], line["note"]


def test_a_plain_file_is_linked_and_not_copied(driver: Driver, tmp_path: Path) -> None:
    source = tmp_path / "a b.txt"
    source.write_text("one\n")
    line = driver.script(1, 'cat "$INPUT/a b.txt"; stat -Lc %i $INPUT/*', input=[str(source)])
    assert line["o"] == f"one\n{source.stat().st_ino}\n"


def test_a_task_that_could_not_start_leaves_nothing_to_the_next(driver: Driver, tmp_path: Path) -> None:
    source = tmp_path / "a.txt"
    source.write_text("a")
    for execution in (1, 2, 3):  # more than there are slots
        assert driver.run(execution, "no-such-program", input=[str(source)], resource=[str(source)])["code"] == 127
    for execution in (4, 5, 6):
        assert driver.script(execution, "ls $INPUT $RESOURCE | grep a.txt", cap=100)["o"] == ""
    assert driver.script(7, "ls $INPUT", input=[str(source)])["o"] == "a.txt\n"


def test_another_file_system_gets_a_symbolic_link(driver: Driver, tmp_path: Path) -> None:
    line = driver.script(1, "readlink $INPUT/version; grep -q . $INPUT/version", input=["/proc/version"])
    assert (line["code"], line["o"]) == (0, "/proc/version\n")


def test_a_folder_is_made_again_with_links_in_it(driver: Driver, tmp_path: Path) -> None:
    source = tmp_path / "data"
    (source / "sub" / "empty").mkdir(parents=True)
    (source / "sub" / "x").write_text("x\n")
    (source / "link").symlink_to("sub/x")
    (source / "nothing").symlink_to("nowhere")
    (source / ".scitq-manifest.json").write_text("{}")
    os.mkfifo(source / "pipe")
    line = driver.script(1, "cd $INPUT; find . | sort; stat -c %i link; touch sub/new", input=[str(source)])
    names = [".", "./link", "./sub", "./sub/empty", "./sub/x"]
    assert line["o"].split() == [*names, str((source / "sub" / "x").stat().st_ino)]
    assert sorted(path.name for path in (source / "sub").iterdir()) == ["empty", "x"]


def test_a_glob_stands_for_what_matches_now(driver: Driver, tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz", "c.txt", "d[1].gz"):
        (tmp_path / name).write_text(name)
    assert driver.script(1, "ls $INPUT", input=[f"{tmp_path}/*.gz"])["o"] == "a.gz\nb.gz\nd[1].gz\n"
    assert driver.script(2, "ls $INPUT", input=[f"{tmp_path}/d[1].gz"])["o"] == "d[1].gz\n"
    assert refused(driver, 3, input=[f"{tmp_path}/*.zip"])[0] == "NotFound"


def test_several_inputs_are_joined_and_actions_are_carried_out(driver: Driver, tmp_path: Path, web: WebServer) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / folder).write_text(f"{folder}\n")
    web.add("/far.txt", b"far\n")
    inputs = [f"{tmp_path}/one", f"{tmp_path}/two", f"{web.url}/far.txt|mv:sub", f"{tmp_path}/one/sub/one|mv:a|mv:b"]
    line = driver.script(1, SHOW, input=inputs)
    assert line["o"] == "./b/a/one\n./sub/far.txt\n./sub/one\n./sub/two\none\nfar\none\ntwo\n"
    assert driver.seen("stage", 1)["at"] > 0
    assert [each["k"] for each in driver.lines if each.get("id") == 1][:2] == ["stage", "start"]


ODD = [
    "a b",
    "it's",
    "$(touch x)",
    'q"q',
    "ünï",
    "-dash",
    "`id`",
    "a;b&c",
    "50%",
    "#x",
    "?y*",
    "[z]",
    "back\\slash",
    "new\nline",
]


@pytest.mark.promise("data 11.21")
def test_names_of_any_kind_arrive_as_they_are(driver: Driver, tmp_path: Path, web: WebServer) -> None:
    source = tmp_path / "odd [names] $(x)"
    source.mkdir()
    names = [*map(os.fsencode, ODD), b"caf\xe9"]
    for name in names:
        Path(os.fsdecode(os.fsencode(source) + b"/" + name)).write_bytes(name)
        web.add("/" + os.fsdecode(name), name)
    look = "import os; print(sorted(os.listdir(os.fsencode(os.environ['INPUT']))))"
    many = [str(of_path(source / os.fsdecode(name))) for name in names]
    far = [f"{web.url}/{quote(name)}|mv:far" for name in names[:10]]
    for number, inputs in enumerate([[str(of_path(source))], many, [f"{glob.escape(str(source))}/*"]]):
        line = driver.run(number, sys.executable, "-c", look, input=inputs)
        assert line["o"] == f"{sorted(names)}\n", inputs
    line = driver.run(9, sys.executable, "-c", look.replace("'INPUT'", "'RESOURCE'"), resource=[*many, *far])
    assert line["o"] == f"{sorted([*names, b'far'])}\n"
    assert not [place for place in (tmp_path, tmp_path / "worker", Path.cwd()) if (place / "x").exists()]


@pytest.mark.promise("data 11.17")
def test_two_inputs_of_one_name_are_refused_with_both_named(driver: Driver, tmp_path: Path, web: WebServer) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x").write_text(folder)
    web.add("/x", b"far")
    for number, pair in enumerate(
        [
            [f"{tmp_path}/one/x", f"{tmp_path}/two/x"],
            [f"{tmp_path}/one", f"{tmp_path}/two/x"],
            [f"{web.url}/x", f"{tmp_path}/two"],
            [f"{web.url}/x", f"{web.url}/x?again"],
            [f"{tmp_path}/one/x|mv:x", f"{tmp_path}/two/x"],
        ]
    ):
        error, note = refused(driver, number, input=pair)
        assert error == "Collision" and pair[0] in note and pair[1] in note
    assert driver.script(9, SHOW, input=[f"{tmp_path}/one/x", f"{tmp_path}/two/x|mv:2"])["o"] == "./2/x\n./x\ntwoone"


@pytest.mark.promise("data 11.26")
def test_what_is_missing_or_makes_no_sense_is_told_and_nothing_runs(
    driver: Driver, root: Path, tmp_path: Path, web: WebServer
) -> None:
    (tmp_path / "bad.tar").write_bytes(b"no archive at all")
    for number, (address, error) in enumerate(
        [
            (f"{tmp_path}/nothing", "NotFound"),
            (f"{web.url}/nothing", "NotFound"),
            ("relative/path", "BadURI"),
            (f"{web.url}/x|explode", "BadURI"),
            (f"{web.url}/x|mv:../..", "EscapesFolder"),
            (f"{tmp_path}/bad.tar|untar", "BadArchive"),
            ("run+fastq://ERR1", "Unsupported"),
            ("/dev/null", "Unsupported"),
        ]
    ):
        found, note = refused(driver, number, input=[address])
        assert found == error and note, (address, found, note)
    assert len([request for request in web.requests if request[1] == "/nothing"]) == 1  # for good: not asked again
    wait_for(lambda: not os.listdir(root / "stage"))


BAD: list[dict[str, Any]] = [
    {"input": "/x"},
    {"resource": [1]},
    {"input": ["a\0b"]},
    {"input": ["/x"], "stage_timeout": "1"},
]


def test_what_is_no_list_of_texts_is_refused(driver: Driver) -> None:
    for number, order in enumerate(BAD):
        line = driver.script(number, "true", **order)
        assert (line["why"], line["code"]) == ("spawn", 126), line


def test_orders_without_data_pass_those_that_are_staged(driver: Driver, root: Path, web: WebServer) -> None:
    web.add("/slow", b"x" * 100, stalls=[50, 50])
    driver.say({"order": 1, "script": "cat $INPUT/slow", "input": [f"{web.url}/slow"]})
    wait_for(web.stalled.is_set)
    assert driver.held()["held"] == {"1": "staging"}
    assert driver.script(2, "echo passed")["o"] == "passed\n"
    assert driver.ask("GET", "/stats").json()["staging"] == {"1": [50, 100]}
    assert driver.ask("GET", "/output/1/out").body == b""
    web.release.set()
    assert driver.exit_of(1)["o"] == "x" * 100


@pytest.mark.promise("data 11.24")
@pytest.mark.parametrize("how", ["cancel", "recall", "stop"])
def test_given_up_while_a_download_stands_still_it_ends_in_a_moment(
    driver: Driver, root: Path, web: WebServer, how: str
) -> None:
    web.add("/slow", b"x" * 100, stalls=[50])
    driver.say({"order": 1, "script": "echo ran", "input": [f"{web.url}/slow"]})
    wait_for(web.stalled.is_set)
    driver.say({"stop": "now"} if how == "stop" else {how: 1})
    if how == "stop":
        local.stop(root)
        local.ensure(root)
        driver.close()
    line = driver.exit_of(1)
    assert (line["why"], line["code"]) == ({"stop": "unstarted"}.get(how, how), None)
    wait_for(lambda: not os.listdir(root / "stage"))
    assert not web.release.is_set()


@pytest.mark.promise("data 11.25")
def test_its_time_for_staging_is_its_own_and_over_when_it_is_over(driver: Driver, root: Path, web: WebServer) -> None:
    for number in range(5):
        web.add(f"/slow{number}", b"x" * 100, stalls=[50])
    for number in range(4):
        driver.say({"order": number, "script": "true", "input": [f"{web.url}/slow{number}"]})
    wait_for(lambda: web.at_once == 4)
    # The fifth waits for a place: that time is not counted.
    driver.say({"order": 4, "script": "true", "input": [f"{web.url}/slow4"], "stage_timeout": 0.2})
    driver.say({"order": 5, "script": "true", "input": [f"{web.url}/slow4"], "stage_timeout": 0})
    driver.poll(1)
    assert not driver.exits
    driver.say({"cancel": 0})
    for number in (4, 5):
        line = driver.exit_of(number)
        assert (line["why"], line["error"], line["code"]) == ("stage_timeout", "TimedOut", None)
    driver.say(*({"cancel": number} for number in range(1, 4)))
    wait_for(lambda: not os.listdir(root / "stage"))


@pytest.mark.promise("lessons 3.5.3")
@pytest.mark.parametrize("who", ["agent", "keeper", "both"])
def test_killed_in_the_middle_of_a_stage_in_the_next_one_finishes_it(
    driver: Driver, root: Path, web: WebServer, tmp_path: Path, who: str
) -> None:
    data = os.urandom(3 << 20)
    web.add("/first", b"first")
    web.add("/large", data, stalls=[2 << 20])
    driver.say({"order": 1, "script": f"echo >> {tmp_path}/ran; find $INPUT | wc -l; cat $INPUT/large | md5sum", "grace": 1,
                "input": [f"{web.url}/first", f"{web.url}/large"]})  # fmt: skip
    wait_for(web.stalled.is_set)
    # The server has sent what it will; some of it must have been written down to be of use to the next agent.
    wait_for(lambda: any(path.stat().st_size for path in (root / "stage" / "1").rglob(".scitq-*.part")))
    held = driver.held()
    for pid in [held["pid"]] * (who != "keeper") + [held["keeper"]] * (who != "agent"):
        os.kill(pid, signal.SIGKILL)
    driver.close()
    local.ensure(root)
    web.release.set()

    line = driver.exit_of(1)
    assert line["o"] == f"3\n{hashlib.md5(data).hexdigest()}  -\n"
    assert (tmp_path / "ran").read_text() == "\n"
    assert [each["k"] for each in driver.lines if each.get("id") == 1] == ["stage", "start", "pid", "exit"]
    asked = [request for request in web.requests if request[1] == "/large"]
    assert [each for each in web.requests if each[1] == "/first"] == [("GET", "/first", None)]
    if who == "agent":
        assert asked[-1][2] is not None  # it went on where the killed one was


def test_killed_before_it_noted_that_an_action_was_done_the_next_one_does_it_again(
    driver: Driver, root: Path, web: WebServer
) -> None:
    web.add("/far", b"far\n")
    for name, text in (("sub/far", "far\n"), (".scitq-0123456789abcdef.01234567.work/far", "f")):
        left = root / "stage" / "5" / "input.part" / "0" / name
        left.parent.mkdir(parents=True)
        left.write_text(text)
    line = driver.script(5, SHOW, input=[f"{web.url}/far|mv:sub"])
    assert (line["code"], line["o"]) == (0, "./sub/far\nfar\n")


def test_the_task_may_be_recalled_as_long_as_it_has_not_started(driver: Driver, root: Path, tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    driver.say({"slots": 0}, {"order": 1, "script": "true", "input": [f"{tmp_path}/x"]})
    wait_for(lambda: driver.held()["held"] == {"1": "queued"})
    assert (root / "stage" / "1" / "ready").exists()
    driver.say({"recall": 1})
    assert driver.exit_of(1)["why"] == "recall"
    wait_for(lambda: not os.listdir(root / "stage"))


def test_what_was_staged_outlives_keeper_and_agent(driver: Driver, root: Path, web: WebServer) -> None:
    web.add("/x", b"x")
    driver.say({"slots": 0}, {"order": 1, "script": "cat $INPUT/x", "input": [f"{web.url}/x"]})
    wait_for(lambda: driver.held()["held"] == {"1": "queued"})
    held = driver.held()
    for pid in (held["pid"], held["keeper"]):
        os.kill(pid, signal.SIGKILL)
    driver.close()
    local.ensure(root)
    driver.say({"slots": 1})
    assert driver.exit_of(1)["o"] == "x"
    assert len(web.requests) == 1
    wait_for(lambda: not os.listdir(root / "stage"))


def test_an_agent_stays_while_something_is_staged(root: Path, web: WebServer) -> None:
    web.add("/slow", b"x" * 100, stalls=[50, 50])
    local.ensure(root, linger=0.1)
    driver = Driver(root)
    driver.say({"order": 1, "script": "cat $INPUT/slow", "input": [f"{web.url}/slow"]})
    wait_for(web.stalled.is_set)
    pid = driver.held()["pid"]
    log = root / "agent.log"
    driver.close()
    # It asks its keeper each time whether anything is held: nothing else is written meanwhile.
    os.kill(pid, 0)
    web.release.set()
    local.ensure(root, linger=0.1)
    assert driver.exit_of(1)["o"] == "x" * 100
    driver.close()
    assert "died" not in log.read_text()


SECRET = "TopSecret4711"


def secrets_file(root: Path) -> Path:
    """Where the storage configuration of that agent is."""
    from scitq.remote.agent.remotes import Remotes

    found = Remotes(str(root)).path
    assert found is not None
    return Path(found)


@pytest.mark.promise("data 11.2")
@pytest.mark.servers
def test_storages_are_told_to_a_worker_and_forgotten_when_it_ends(driver: Driver, root: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "x").write_text("far\n")
    order = {"order": 1, "script": "cat $INPUT/x", "input": ["store://x"], "remotes": ["store"]}
    driver.say({"remotes": {"config": {"other": {"type": "local", "pass": SECRET}}, "rclone": None}}, order)
    driver.poll(0.2)
    assert driver.held()["held"] == {"1": "staging"}
    driver.say({"remotes": {"config": {"store": {"type": "alias", "remote": str(tmp_path / "there")}}}})
    assert driver.exit_of(1)["o"] == "far\n"
    file = secrets_file(root)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert SECRET in file.read_text() and root not in file.parents
    local.stop(root)
    assert not file.exists() and not file.parent.exists()
    for path in below(root):
        assert SECRET.encode() not in content(path), path


def test_a_configuration_that_makes_no_sense_is_refused_without_its_secrets(driver: Driver) -> None:
    bad: list[Any] = [["x"], {"config": {"a]b": {}}}, {"config": {"a": {"pass": f"{SECRET}\n[b]"}}}, {"rclone": "x"}]
    for said in bad:
        reply = driver.ask("POST", "/commands", json.dumps({"remotes": said}).encode())
        assert reply.status == 400 and SECRET.encode() not in reply.body


@pytest.mark.servers
def test_a_killed_agent_leaves_the_storages_to_the_next(driver: Driver, root: Path, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("far\n")
    driver.say({"remotes": {"config": {"store": {"type": "alias", "remote": str(tmp_path)}}}})
    os.kill(driver.held()["pid"], signal.SIGKILL)
    driver.close()
    local.ensure(root)
    assert driver.script(1, "cat $INPUT/x", input=["store://x"], remotes=["store"])["o"] == "far\n"


def running_with(mark: bytes) -> dict[int, bytes]:
    """The processes that carry this in their environment, with their command lines."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark in (entry / "environ").read_bytes().split(b"\0"):
                found[int(entry.name)] = (entry / "cmdline").read_bytes()
    return {pid: command for pid, command in found.items() if command}


@pytest.mark.servers
def test_programs_that_a_killed_agent_left_are_ended_by_the_next_and_no_others(
    driver: Driver, root: Path, web: WebServer, tmp_path: Path
) -> None:
    web.add("/slow", b"x" * 100, stalls=[50])
    other = tmp_path / "rclone"
    other.symlink_to("/bin/sleep")
    mark = f"SCITQ_TRANSFERS={root}".encode()
    bystander = subprocess.Popen([other, "60"], env={"SCITQ_TRANSFERS": f"{root}x"})
    try:
        driver.say({"remotes": {"config": {"far": {"type": "http", "url": web.url}}}})
        driver.say({"order": 1, "script": "cat $INPUT/slow", "input": ["far://slow"], "remotes": ["far"]})
        wait_for(web.stalled.is_set)
        os.kill(driver.held()["pid"], signal.SIGKILL)
        driver.close()
        (left,) = running_with(mark).items()
        assert b"rclone" in left[1]
        local.ensure(root)
        assert left[0] not in running_with(mark)
        web.release.set()
        assert driver.exit_of(1)["o"] == "x" * 100
        assert bystander.poll() is None
        local.stop(root)
        assert not running_with(mark) and not (root / "transfers").exists()
    finally:
        bystander.kill()
        bystander.wait()


MANIFEST = {"scitq": 1, "owner": "f:1", "execution": 1, "complete": True, "files": [["sub/x", 2, None]]}


def complete(place: Path) -> None:
    """An output that a task has left there."""
    (place / "sub").mkdir(parents=True)
    (place / "sub" / "x").write_text("x\n")
    (place / ".scitq-manifest.json").write_text(json.dumps(MANIFEST))


def test_a_complete_output_is_not_made_again_when_that_is_wanted(driver: Driver, tmp_path: Path) -> None:
    place = tmp_path / "place"
    complete(place)
    order = {"output": str(place), "owner": "f:1", "skip": True, "input": ["/no/such/file"]}
    line = driver.script(1, "touch $OUTPUT/ran", **order)
    assert (line["why"], line["code"], line["collect"]) == ("exists", 0, False)
    assert line["to"] == str(place) and line["files"] == [["sub/x", 2, None]]
    (place / "sub" / "x").write_text("cut")
    assert refused(driver, 2, **order)[0] == "NotFound"  # not whole: it would be made, if its input were there


def test_a_place_with_others_files_is_refused_before_anything_is_brought(
    driver: Driver, root: Path, tmp_path: Path, web: WebServer
) -> None:
    place = tmp_path / "place"
    complete(place)
    web.add("/x", b"x")
    inputs = [f"{web.url}/x"]
    error, note = refused(driver, 1, output=str(place), owner="f:2", input=inputs)
    assert error == "Collision" and str(place) in note and not web.requests
    assert driver.script(2, "cat $INPUT/x > $OUTPUT/y", output=str(place), owner="f:1", input=inputs)["code"] == 0
    assert driver.seen("collected", 2)["ok"]
    wait_for(lambda: not os.listdir(root / "stage"))


class Still:
    """Stands for an agent: nothing ever comes."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)


@pytest.mark.promise("data 11.22")
def test_who_waits_for_data_is_woken_and_never_looks(tmp_path: Path, web: WebServer) -> None:
    web.add("/x", b"x" * 100, stalls=[50])
    for name in ("stage", "cache", "trash"):
        (tmp_path / name).mkdir()
    came = queue.SimpleQueue()  # type: ignore[var-annotated]
    agent: Any = Still(tmp_path)
    said: list[dict[str, Any]] = []
    agent.later, agent.kept = came.put, Kept(str(tmp_path))
    agent.keeper = agent
    agent.tell = said.append
    staging = Staging(agent)
    staging.asked([{"id": number, "resource": [f"{web.url}/x"]} for number in range(6)])
    wait_for(web.stalled.is_set)
    while len([job for job in staging.jobs.values() if job.parked]) < 5:
        came.get(timeout=60)()
    assert staging.active == 1 and staging.due() == [] and came.empty()
    web.release.set()
    while len(said) < 6:
        came.get(timeout=60)()
    assert all(each["staged"]["ok"] for each in said)
    assert len([request for request in web.requests if request[0] == "GET"]) == 2  # one, and how it was resumed
