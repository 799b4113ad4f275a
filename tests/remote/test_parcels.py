"""Files of the submitting machine come to a worker by content: once, in pieces, verified, and tasks wait for them."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from pathlib import Path
from typing import Any

import pytest

from scitq.remote import local
from scitq.remote.agent.parcels import BadParcels, Parcels
from tests.remote.client import DEADLINE_S, Driver, Reply

SHOW = "cd $INPUT; find . -type f | sort; find . -type f | sort | xargs cat"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def rows_of(files: dict[str, bytes]) -> list[list[Any]]:
    return [[name, len(data), "" if name.endswith("/") else sha(data)] for name, data in files.items()]


def key_of(rows: list[list[Any]]) -> str:
    return sha(json.dumps(rows).encode())


def announce(driver: Driver, name: str, tail: str, rows: list[list[Any]], base: str = "/home/me") -> None:
    """Say what a parcel holds."""
    driver.say({"parcels": {name: {"list": key_of(rows), "base": base, "tail": tail}}, "lists": {key_of(rows): rows}})


def piece(driver: Driver, data: bytes, start: int = 0, end: int | None = None, **more: Any) -> Reply:
    """Send a part of a file."""
    path = f"/blobs/{more.pop('sha', sha(data))}?from={start}&size={len(data)}&mtime={more.pop('mtime', 10**18)}"
    return driver.ask("PUT", path, data[start:end], more.pop("headers", None))


def send(driver: Driver, *all_data: bytes) -> None:
    """Send whole files."""
    for data in all_data:
        assert piece(driver, data).json() == {"here": -1}


def wanted(driver: Driver, *names: str) -> dict[str, int]:
    found: dict[str, int] = driver.ask("POST", "/blobs", json.dumps({"want": names}).encode()).json()
    return found


def order(driver: Driver, execution: int, script: str, **more: Any) -> None:
    driver.say({"order": execution, "task": str(execution), "script": script, **more})


def entry(execution: int, uri: str, number: int = 0) -> dict[str, str]:
    return {"uri": uri, "parcel": f"{execution}.{number}"}


def test_a_task_waits_until_the_word_and_the_bytes_are_there(driver: Driver) -> None:
    order(driver, 1, "ls -l $INPUT/a.txt | cut -c 1-10; cat $INPUT/a.txt", input=[entry(1, "/home/me/a.txt")])
    driver.seen("stage", 1)
    assert driver.held()["held"] == {"1": "staging"}
    announce(driver, "1.0", "a.txt", rows_of({"a.txt": b"one\n"}))
    assert driver.ask("GET", "/stats").json()["staging"] == {"1": [0, 4]}
    send(driver, b"one\n")
    assert driver.exit_of(1)["o"] == "-r--r--r--\none\n"


def test_what_a_parcel_stands_for_is_what_the_path_stood_for(driver: Driver) -> None:
    folder = {"data/sub/x": b"x\n", "data/sub/empty/": b"", "data/y": b"y\n"}
    several = {"run1/a.gz": b"a", "run2/b.gz": b"b"}
    inputs = [entry(1, "/home/me/data/"), entry(1, "/home/me/run*/*.gz|mv:runs", 1), entry(1, "/home/me/[1].txt", 2)]
    order(driver, 1, SHOW + "; ls sub/empty; stat -c %Y y", input=inputs)
    announce(driver, "1.0", "data/", rows_of(folder))
    announce(driver, "1.1", "run*/*.gz", rows_of(several))
    announce(driver, "1.2", "[1].txt", rows_of({"[1].txt": b"odd\n"}))
    send(driver, b"x\n", b"y\n", b"a", b"b", b"odd\n")
    line = driver.exit_of(1)
    names = ["./[1].txt", "./runs/a.gz", "./runs/b.gz", "./sub/x", "./y"]
    assert line["o"] == "\n".join(names) + "\nodd\nabx\ny\n1000000000\n", line


def test_actions_are_carried_out_on_what_came(driver: Driver, tmp_path: Path) -> None:
    (tmp_path / "ref.fa").write_text("ACGT\n")
    with tarfile.open(tmp_path / "ref.tgz", "w:gz") as tar:
        tar.add(tmp_path / "ref.fa", "ref.fa")
    packed = (tmp_path / "ref.tgz").read_bytes()
    for execution in (1, 2):
        uri = "/home/me/ref.tgz|untar"
        what = {"input": [entry(execution, uri)], "resource": [entry(execution, uri, 1)]}
        order(
            driver,
            execution,
            "cat $INPUT/ref.fa $RESOURCE/ref.fa; stat -c %i $RESOURCE/ref.fa; echo >> $INPUT/ref.fa",
            **what,
        )
        for number in (0, 1):
            announce(driver, f"{execution}.{number}", "ref.tgz", rows_of({"ref.tgz": packed}))
    send(driver, packed)
    texts = [driver.exit_of(execution)["o"] for execution in (1, 2)]
    assert (
        texts[0].startswith("ACGT\nACGT\n") and texts[0] == texts[1]
    )  # unpacked once as a resource, an input is its own


def test_a_file_is_here_once_however_many_tasks_and_names_it_has(driver: Driver, root: Path) -> None:
    data = random.Random(1).randbytes(100_000)
    for execution in range(1, 6):
        kind = ("input", "resource")[execution % 2]
        order(
            driver, execution, "stat -c %i $INPUT/* $RESOURCE/* 2>&-; true", **{kind: [entry(execution, "/home/me/f")]}
        )
        name = f"f{execution % 3}"
        announce(driver, f"{execution}.0", name, rows_of({name: data}))
    send(driver, data)
    assert len({driver.exit_of(execution)["o"] for execution in range(1, 6)}) == 1
    assert wanted(driver, sha(data), sha(b"other")) == {sha(data): -1, sha(b"other"): 0}
    assert len(os.listdir(root / "blobs")) == 1


def test_what_may_be_run_may_be_run(driver: Driver) -> None:
    program = b"#!/bin/sh\necho ran\n"
    rows = [["tool", len(program), sha(program), "x"], ["text", len(program), sha(program)]]
    order(driver, 1, "$INPUT/tool; test -x $INPUT/text || echo not", input=[entry(1, "/home/me/bin/")])
    announce(driver, "1.0", "bin/", [[f"bin/{name}", *more] for name, *more in rows])
    send(driver, program)
    assert driver.exit_of(1)["o"] == "ran\nnot\n" or os.getuid() == 0  # root may run what has no such right


def test_it_goes_on_where_it_stopped_also_for_another_agent(driver: Driver, root: Path) -> None:
    data = random.Random(2).randbytes(3_000_000)
    assert piece(driver, data, 0, 1_000_000).json() == {"here": 1_000_000}
    assert piece(driver, data, 0, 1_000_000).json() == {"here": 1_000_000}  # said twice
    assert piece(driver, data, 2_000_000).json() == {"here": 1_000_000}  # there would be a hole
    pid = driver.ask("GET", "/ping").json()["pid"]
    os.kill(pid, signal.SIGKILL)
    driver.close()
    local.ensure(root)
    assert wanted(driver, sha(data)) == {sha(data): 1_000_000}
    assert piece(driver, data, 1_000_000).json() == {"here": -1}


def test_pieces_may_come_deflated_and_in_a_row_without_waiting(driver: Driver) -> None:
    data = b"".join(b"line %d of a text that shrinks\n" % number for number in range(100_000))
    driver.ask("GET", "/ping")
    assert driver.http is not None
    starts = range(0, len(data), 500_000)
    for start in starts:
        body = zlib.compress(data[start : start + 500_000], 1)
        path = f"/blobs/{sha(data)}?from={start}&size={len(data)}"
        driver.http.send("PUT", path, body, {"Content-Encoding": "deflate"})
    heres = [driver.http.receive().json()["here"] for _ in starts]
    assert heres == [*starts[1:], -1]


def test_what_is_not_what_it_says_is_not_kept(driver: Driver, root: Path) -> None:
    reply = piece(driver, b"what came", sha=sha(b"announced"))
    assert reply.status == 422 and os.listdir(root / "blobs") == []
    reply = piece(driver, b"garbage", headers={"Content-Encoding": "deflate"})
    assert reply.status == 400
    assert piece(driver, b"x", headers={"Content-Encoding": "br"}).status == 415
    assert driver.ask("PUT", f"/blobs/{sha(b'x')}?from=0&size=1", b"xyz").status == 400
    assert driver.ask("PUT", "/blobs/../../x?from=0&size=1", b"x").status == 404
    assert driver.ask("POST", "/blobs", b'{"want": ["../x"]}').status == 400
    assert driver.ask("POST", "/blobs", b"[").status == 400
    assert driver.ask("POST", "/commands", b'{"parcels": 1}').status == 400


@pytest.mark.parametrize(
    "said",
    [
        {"1.0": {"list": "0" * 64, "base": "/", "tail": "../x"}},
        {"1.0": {"list": "../x", "base": "/", "tail": "x"}},
        {"../x.0": {"list": "0" * 64, "base": "/", "tail": "x"}},
        {"1.0": 1},
        [],
    ],
)
def test_a_word_on_parcels_that_makes_no_sense_is_refused(tmp_path: Path, said: Any) -> None:
    with pytest.raises(BadParcels):
        Parcels(str(tmp_path), lambda: None).take(said, {})


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "a//b", ".", "x\0y"])
def test_no_list_leads_out_of_its_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadParcels):
        Parcels(str(tmp_path), lambda: None).take({}, {"0" * 64: [[name, 1, sha(b"x")]]})
    assert os.listdir(tmp_path / "parcels") == ["of"]


def test_what_the_driver_cannot_read_fails_with_its_reason(driver: Driver) -> None:
    order(driver, 1, "true", input=[entry(1, "/home/me/gone")])
    driver.say({"parcels": {"1.0": {"error": "NotFound", "note": "/home/me/gone: is not there."}}})
    line = driver.exit_of(1)
    assert (line["why"], line["error"], line["note"]) == ("stage_in", "NotFound", "/home/me/gone: is not there.")


def test_two_inputs_of_one_name_are_refused_by_the_names_they_have_at_home(driver: Driver) -> None:
    order(driver, 1, "true", input=[entry(1, "/home/me/one/x"), entry(1, "/home/me/two/x", 1)])
    announce(driver, "1.0", "x", rows_of({"x": b"1"}), base="/home/me/one")
    announce(driver, "1.1", "x", rows_of({"x": b"2"}), base="/home/me/two")
    send(driver, b"1", b"2")
    line = driver.exit_of(1)
    assert line["error"] == "Collision" and "/home/me/one/x and /home/me/two/x would both become x" in line["note"]


def test_a_file_that_a_task_has_changed_is_not_given_to_another(driver: Driver, root: Path) -> None:
    order(driver, 1, "chmod +w $INPUT/f; echo more >> $INPUT/f", input=[entry(1, "/home/me/f")])
    announce(driver, "1.0", "f", rows_of({"f": b"text\n"}))
    send(driver, b"text\n")
    driver.exit_of(1)
    assert "/home/me/f: was changed" in driver.seen("note", 1)["text"]
    assert wanted(driver, sha(b"text\n")) == {sha(b"text\n"): 0}
    order(driver, 2, "cat $INPUT/f; touch $INPUT/f", input=[entry(2, "/home/me/f")])
    announce(driver, "2.0", "f", rows_of({"f": b"text\n"}))
    send(driver, b"text\n")
    assert driver.exit_of(2)["o"] == "text\n"
    order(driver, 3, "cat $INPUT/f", input=[entry(3, "/home/me/f")])
    announce(driver, "3.0", "f", rows_of({"f": b"text\n"}))
    assert driver.exit_of(3)["o"] == "text\n"  # it was only touched: nothing has to come again


def test_what_came_outlives_agent_and_keeper_and_its_tasks_need_no_driver(driver: Driver, root: Path) -> None:
    order(driver, 1, "sleep 60")
    order(driver, 2, "sleep 60")
    order(driver, 3, "cat $INPUT/f", input=[entry(3, "/home/me/f")])
    announce(driver, "3.0", "f", rows_of({"f": b"text\n"}))
    driver.seen("stage", 3)
    for pid in (driver.ask("GET", "/ping").json()["pid"], driver.held()["keeper"]):
        os.kill(pid, signal.SIGKILL)
    driver.close()
    local.ensure(root)
    send(driver, b"text\n")
    driver.say({"cancel": 1}, {"cancel": 2})
    assert driver.exit_of(3)["o"] == "text\n"
    until(lambda: os.listdir(root / "parcels" / "of") == [])


def test_what_nobody_wants_gives_way_and_what_is_wanted_stays(driver: Driver, root: Path) -> None:
    for number in (1, 2, 3):
        order(driver, number, "cat $INPUT/f", input=[entry(number, "/home/me/f")])
        announce(driver, f"{number}.0", "f", rows_of({"f": b"%d" % number, "both": b"both"}))
        send(driver, b"%d" % number, b"both")
        driver.exit_of(number)
    until(lambda: os.listdir(root / "parcels" / "of") == [])
    driver.close()
    local.stop(root)
    parcels = Parcels(str(root), lambda: None)
    parcels.take({"7.0": {"list": key_of(rows_of({"f": b"3", "both": b"both"})), "base": "/", "tail": "f"}}, {})
    assert parcels.spare_bytes({"7"}) == 2
    assert parcels.evict({"7"})
    assert sorted(parcels.blobs.whole) == sorted([sha(b"2"), sha(b"3"), sha(b"both")])
    assert parcels.evict({"7"})
    assert not parcels.evict({"7"})
    assert sorted(parcels.blobs.whole) == sorted([sha(b"3"), sha(b"both")])
    parcels.over("7")
    assert parcels.evict({"7"}) and not parcels.blobs.whole and os.listdir(root / "blobs") == []


def until(done: Any) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_on_a_small_disk_what_nobody_wants_makes_room_and_what_can_never_fit_makes_nothing_go(tmp_path: Path) -> None:
    ended = subprocess.run(
        ["unshare", "--map-root-user", "--mount", sys.executable, "-m", "tests.remote.small_parcels", tmp_path],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert found["said"] == [f"{size << 20}\n" for size in (8, 8, 12, 8)]
    assert found["here"] == [[1], [1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]
    assert found["answers"] == [200, 200, 200, 200, 507]
    assert found["refused"] == ["stage_in", "NoSpace"]
