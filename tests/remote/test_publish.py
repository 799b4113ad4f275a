"""Bringing outputs home, without an agent around it: what may be there, what must not be touched, what arrives."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scitq.fetch.errors import (
    BadURI,
    Collision,
    EscapesFolder,
    FetchError,
    NotFound,
    Unsupported,
)
from scitq.fetch.settings import Settings
from scitq.remote.agent import publish, whole
from scitq.remote.agent.manifest import NAME, Manifest, parse
from scitq.remote.agent.publish import Brought
from tests.fetch.servers import Storages

pytestmark = pytest.mark.servers

OWNER = "file:1"
ODD = [
    "a b",
    "it's",
    "$(touch x)",
    "ünï",
    "-dash",
    'q"q',
    "b|ar",
    "`id`",
    "a;b&c",
    "50%",
    "#x",
    " lead",
    "back\\slash",
    "zero",
]


class Ended:
    """An execution that has ended on a worker, and where its output goes."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.root, self.settings = folder, settings
        (folder / "trash").mkdir(parents=True)

    def output(self, execution: int = 1) -> Path:
        found = self.root / "exec" / str(execution) / "output"
        found.mkdir(parents=True, exist_ok=True)
        return found

    def make(self, files: dict[str, bytes], execution: int = 1) -> None:
        for name, data in files.items():
            path = os.path.join(os.fsencode(self.output(execution)), os.fsencode(name))
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)

    def bring(self, to: str | Path, execution: int = 1, owner: str = OWNER, **more: Any) -> Brought:
        self.output(execution)
        owed = {"id": execution, "output": str(to), "owner": owner, **more}
        return publish.bring(str(self.root), owed, str(execution), self.settings)


@pytest.fixture
def ended(tmp_path: Path, settings: Settings, store: Storages) -> Ended:
    """One that has made nothing yet."""
    return Ended(tmp_path / "worker", replace(settings, rclone_config=str(store.config)))


@pytest.fixture
def local_ended(tmp_path: Path, settings: Settings) -> Ended:
    """The same, without any server."""
    return Ended(tmp_path / "worker", settings)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but the manifest."""
    found = {}
    for top, _, names in os.walk(os.fsencode(folder)):
        for name in names:
            path = os.path.join(top, name)
            with open(path, "rb") as file:
                found[os.fsdecode(os.path.relpath(path, os.fsencode(folder)))] = file.read()
    found.pop(NAME, None)
    return found


def rows(files: dict[str, bytes]) -> list[tuple[str, int, str]]:
    return sorted((name, len(data), hashlib.md5(data).hexdigest()) for name, data in files.items())


def manifest_in(folder: Path) -> Manifest:
    found = parse((folder / NAME).read_bytes())
    assert found is not None
    return found


FILES = {"a": b"1", "d/deep/b": b"22", "empty": b""}


# A folder of this machine.


def test_an_input_moved_to_the_output_arrives_as_a_file_of_its_own(local_ended: Ended, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_text("mine")
    source.chmod(0o640)
    for number, name in enumerate(["moved", "d/moved"], 1):
        local_ended.make({"other": b"1"}, number)
        target = local_ended.output(number) / name
        target.parent.mkdir(exist_ok=True)
        os.link(source, target)
        if number == 2:  # file by file
            (tmp_path / f"place{number}").mkdir()
            (tmp_path / f"place{number}" / "theirs").touch()
        local_ended.bring(tmp_path / f"place{number}", number, overwrite=True)
        place = tmp_path / f"place{number}" / name
        assert place.read_text() == "mine" and place.stat().st_ino != source.stat().st_ino
    assert source.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("there", ["absent", "empty", "link"])
@pytest.mark.promise("data 11.14")
def test_a_path_gets_the_whole_folder_and_its_manifest(local_ended: Ended, tmp_path: Path, there: str) -> None:
    place = tmp_path / "to" / "place"
    if there != "absent":
        place.mkdir(parents=True)
    target = place
    if there == "link":
        target = tmp_path / "link"
        target.symlink_to(place)
    local_ended.make(FILES)
    (local_ended.output() / "hollow").mkdir()

    brought = local_ended.bring(target)

    assert tree(place) == FILES and (place / "hollow").is_dir()
    assert sorted(brought.files) == rows(FILES)
    assert manifest_in(place) == Manifest(OWNER, 1, True, brought.files)
    assert [each.name for each in place.parent.iterdir()] == ["place"]
    assert target.is_symlink() == (there == "link")


def test_an_execution_that_left_nothing_leaves_a_manifest_that_says_so(local_ended: Ended, tmp_path: Path) -> None:
    assert local_ended.bring(tmp_path / "place").files == []
    assert manifest_in(tmp_path / "place").is_complete
    os.rmdir(local_ended.output(2))
    owed = {"id": 2, "output": str(tmp_path / "gone"), "owner": OWNER}
    assert publish.bring(str(local_ended.root), owed, "2", local_ended.settings).files == []


def test_others_may_read_what_arrives_where_they_may_read_what_is_beside_it(local_ended: Ended, tmp_path: Path) -> None:
    local_ended.make({"a": b"", "run.sh": b""})
    os.chmod(local_ended.output() / "a", 0o600)
    os.chmod(local_ended.output() / "run.sh", 0o700)
    (tmp_path / "to").mkdir()
    os.chmod(tmp_path / "to", 0o2750)

    local_ended.bring(tmp_path / "to" / "place")

    found = {each.name: each.stat().st_mode & 0o777 for each in [*(tmp_path / "to" / "place").iterdir()]}
    assert found == {"a": 0o640, "run.sh": 0o750, NAME: 0o640}


@pytest.mark.promise("data 11.19")
def test_somebody_elses_files_are_refused_and_left_alone(local_ended: Ended, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    (place / "theirs").write_text("theirs")
    local_ended.make(FILES)
    goes = {"output": str(place), "owner": OWNER}

    for call in (lambda: local_ended.bring(place), lambda: publish.check_target(goes, 1, local_ended.settings)):
        with pytest.raises(Collision, match=r"place: it holds files that no task .* overwrite=True"):
            call()

    assert tree(place) == {"theirs": b"theirs"} and not (place / NAME).exists()
    assert tree(local_ended.output()) == FILES


def test_an_output_that_is_a_file_is_refused(local_ended: Ended, tmp_path: Path) -> None:
    (tmp_path / "place").write_text("theirs")
    with pytest.raises(FetchError, match="place"):
        local_ended.bring(tmp_path / "place", overwrite=True)
    assert (tmp_path / "place").read_text() == "theirs"


@pytest.mark.parametrize("damaged", [b"", b"{}", b'{"scitq":1', b"[[]]", b'{"scitq":2,"owner":"file:1"}'])
def test_a_manifest_that_makes_no_sense_is_somebody_elses_file(
    local_ended: Ended, tmp_path: Path, damaged: bytes
) -> None:
    (tmp_path / "place").mkdir()
    (tmp_path / "place" / NAME).write_bytes(damaged)
    with pytest.raises(Collision):
        local_ended.bring(tmp_path / "place")


def test_overwrite_keeps_other_files_and_replaces_same_names(local_ended: Ended, tmp_path: Path) -> None:
    place = tmp_path / "place"
    (place / "d").mkdir(parents=True)
    (place / "theirs").write_text("theirs")
    (place / "a").write_text("old")
    (place / "d" / "theirs").write_text("too")
    local_ended.make(FILES)

    brought = local_ended.bring(place, overwrite=True)

    assert tree(place) == {**FILES, "theirs": b"theirs", "d/theirs": b"too"}
    assert manifest_in(place) == Manifest(OWNER, 1, True, brought.files) and sorted(brought.files) == rows(FILES)


def test_the_same_task_takes_the_place_of_what_it_wrote_before(local_ended: Ended, tmp_path: Path) -> None:
    place = tmp_path / "place"
    local_ended.make({"old": b"1", "both": b"1"}, 1)
    local_ended.bring(place, 1)
    local_ended.make({"both": b"2", "new": b"2"}, 2)
    publish.check_target({"output": str(place), "owner": OWNER}, 2, local_ended.settings)
    with pytest.raises(Collision, match="the output of task 1 is there"):
        publish.check_target({"output": str(place), "owner": "file:2"}, 3, local_ended.settings)

    local_ended.bring(place, 2)

    assert tree(place) == {"both": b"2", "new": b"2"} and manifest_in(place).execution == 2
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_what_a_person_added_to_an_output_stays_when_the_task_is_run_again(local_ended: Ended, tmp_path: Path) -> None:
    place = tmp_path / "place"
    local_ended.make({"old": b"1", "d/old": b"1"}, 1)
    local_ended.bring(place, 1)
    (place / "notes").write_text("mine")
    local_ended.make({"new": b"2"}, 2)

    local_ended.bring(place, 2)

    assert tree(place) == {"new": b"2", "notes": b"mine"}
    assert not (place / "d").exists()


def test_what_was_brought_before_is_not_brought_again(local_ended: Ended, tmp_path: Path) -> None:
    local_ended.make(FILES)
    first = local_ended.bring(tmp_path / "place")
    (local_ended.output() / "late").write_text("after the end")
    again = local_ended.bring(tmp_path / "place")
    assert sorted(again.files) == sorted(first.files) and tree(tmp_path / "place") == FILES


def test_somebody_who_comes_between_looking_and_placing_loses_nothing(
    local_ended: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "place"
    local_ended.make({"a": b"1"}, 1)
    local_ended.bring(place, 1)
    local_ended.make({"a": b"2"}, 2)
    dress = whole._dress

    def other(*args: Any) -> None:
        dress(*args)
        (place / "theirs").write_text("theirs")

    monkeypatch.setattr(whole, "_dress", other)
    with pytest.raises(Collision, match="meanwhile"):
        local_ended.bring(place, 2)
    assert tree(place) == {"a": b"1", "theirs": b"theirs"} and manifest_in(place).execution == 1
    assert tree(local_ended.output(2)) == {"a": b"2"}  # and can be brought again
    monkeypatch.undo()
    local_ended.bring(place, 2)
    assert tree(place) == {"a": b"2", "theirs": b"theirs"}


@pytest.mark.parametrize("number", [1, 13, 16])
def test_a_place_that_cannot_be_replaced_is_filled(
    local_ended: Ended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A mount point, or a folder in somebody else's."""
    place = tmp_path / "place"
    place.mkdir()
    local_ended.make(FILES)
    rename = os.rename

    def refuse(source: str, target: str) -> None:
        if os.fspath(target) == str(place) or (
            ".scitq-" in os.path.basename(target) and os.path.dirname(target) == str(tmp_path)
        ):
            raise OSError(number, os.strerror(number), target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", refuse)
    brought = local_ended.bring(place)
    assert tree(place) == FILES and sorted(brought.files) == rows(FILES) and manifest_in(place).is_complete
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


@pytest.mark.promise("data 11.21")
def test_any_name_that_a_file_can_have_arrives_in_a_folder_here(local_ended: Ended, tmp_path: Path) -> None:
    files = {
        **{name: name.encode() for name in ODD},
        "d e/ü": b"x",
        "line\nbreak": b"x",
        "\udcff\udcfe": b"x",
        "ctl\x01": b"x",
    }
    local_ended.make(files)
    brought = local_ended.bring(tmp_path / "place")
    assert tree(tmp_path / "place") == files and sorted(brought.files) == rows(files)
    assert json.loads(json.dumps(brought.files)) == [list(row) for row in manifest_in(tmp_path / "place").files]


# Links, and what is no file.


@pytest.mark.parametrize("to", ["path", "side folder", "piece by piece", "remote"])
def test_links_inside_are_followed(ended: Ended, tmp_path: Path, to: str) -> None:
    output = ended.output()
    ended.make({"d/a": b"1"})
    (output / "b").symlink_to("d/a")
    (output / "again").symlink_to(ended.root / "slot" / "0" / "output" / "b")  # as the task saw its own folder
    (output / "e").symlink_to("d")
    place = tmp_path / "loc" / "place"
    place.mkdir(parents=True)
    expected = {"d/a": b"1", "b": b"1", "again": b"1", "e/a": b"1"}
    if to == "side folder":
        owed = {"id": 1, "deliver": str(place)}
        brought = publish.bring(str(ended.root), owed, "1", ended.settings)
    elif to == "remote":
        (tmp_path / "rclone.conf").write_text(f"[here]\ntype = alias\nremote = {tmp_path}/loc\n")
        ended.settings = replace(ended.settings, rclone_config=str(tmp_path / "rclone.conf"))
        brought = ended.bring("here://place")
    elif to == "piece by piece":
        (place / "theirs").touch()
        expected["theirs"] = b""
        brought = ended.bring(place, overwrite=True)
    else:
        brought = ended.bring(place)
    assert tree(place) == expected and not any(each.is_symlink() for each in place.rglob("*"))
    expected.pop("theirs", None)
    assert sorted(brought.files) == rows(expected)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.getcwd()
        os.chdir(path.parent)  # the name of a socket may not be long
        listener.bind(path.name)
        os.chdir(here)


REFUSED: dict[str, tuple[Callable[[Path], Any], type[FetchError], str]] = {
    "socket": (_socket, Unsupported, "odd is a socket"),
    "pipe": (os.mkfifo, Unsupported, "odd is a pipe"),
    "outside": (
        lambda path: path.symlink_to("/etc/passwd"),
        EscapesFolder,
        "odd: a link to /etc/passwd, which is not in",
    ),
    "above": (lambda path: path.symlink_to("../../../1"), EscapesFolder, "odd: a link to ../../../1, which is not in"),
    "other slot": (
        lambda path: path.symlink_to(path.parents[3] / "slot" / "0" / "temp"),
        EscapesFolder,
        "which is not in",
    ),
    "nothing": (lambda path: path.symlink_to("absent"), NotFound, "odd: a link to absent, which is not there"),
    "itself": (lambda path: path.symlink_to("odd"), Unsupported, "odd: links that lead to one another"),
    "loop": (lambda path: path.symlink_to("."), Unsupported, "odd: a link to a folder that it is in"),
    "our name": (lambda path: (path.parent / NAME).touch(), Collision, "manifest.*Choose another"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_result_is_refused_before_anything_is_published(
    local_ended: Ended, tmp_path: Path, what: str
) -> None:
    make, kind, said = REFUSED[what]
    local_ended.make({"a": b"1"})
    make(local_ended.output() / "odd")
    place = tmp_path / "place"
    for owed in ({"id": 1, "output": str(place), "owner": OWNER}, {"id": 1, "deliver": str(place)}):
        with pytest.raises(kind, match=said):
            publish.bring(str(local_ended.root), owed, "1", local_ended.settings)
        assert not place.exists()
    assert (local_ended.output() / "a").read_bytes() == b"1"


def test_of_a_failure_what_can_be_brought_is_brought(local_ended: Ended, tmp_path: Path) -> None:
    local_ended.make({"a": b"1"})
    os.mkfifo(local_ended.output() / "pipe")
    for owed in (
        {"id": 1, "output": str(tmp_path / "x.failed" / "1"), "owner": OWNER, "failed": True},
        {"id": 1, "deliver": str(tmp_path / "y.failed" / "1"), "failed": True},
    ):
        local_ended.make({"a": b"1"})
        brought = publish.bring(str(local_ended.root), owed, "1", local_ended.settings)
        assert [row[0] for row in brought.files] == ["a"]
    assert tree(tmp_path / "x.failed" / "1") == tree(tmp_path / "y.failed" / "1") == {"a": b"1"}


def test_an_output_folder_that_is_a_link_is_refused(local_ended: Ended, tmp_path: Path) -> None:
    os.rmdir(local_ended.output())
    os.symlink("/etc", local_ended.root / "exec" / "1" / "output")
    with pytest.raises(Unsupported, match="no folder any more"):
        publish.bring(str(local_ended.root), {"id": 1, "output": str(tmp_path / "x")}, "1", local_ended.settings)


@pytest.mark.parametrize(
    ("output", "kind"),
    [("s3://b/x|gunzip", BadURI), ("relative/path", BadURI), ("http://127.0.0.1/x", Unsupported), ("/", FetchError)],
)
def test_an_address_that_can_be_no_output_is_refused(local_ended: Ended, output: str, kind: type[Exception]) -> None:
    local_ended.make(FILES)
    with pytest.raises(kind):
        local_ended.bring(output)
    assert tree(local_ended.output()) == FILES
