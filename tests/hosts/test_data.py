"""Data of this machine and a real host: sent and brought home through SSH, over a line that breaks."""

from __future__ import annotations

import hashlib
import random
import threading
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.fingerprints import File
from scitq.sending import Line
from scitq.states import WorkerState
from tests.engine.conftest import sound
from tests.engine.test_engine import WAIT_S, until
from tests.hosts.host import Host
from tests.hosts.test_fleet import engine

__all__ = ["engine"]

pytestmark = pytest.mark.servers


def test_a_file_crosses_once_though_the_line_breaks_and_what_is_made_of_it_comes_home(
    engine: Engine, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.sending.PIECE_BYTES", 1 << 20)
    data = random.Random(9).randbytes(20 << 20)
    (tmp_path / "big").write_bytes(data)
    engine.worker_add(host.name, concurrency=4)
    engine.worker_ready(host.name, WAIT_S)
    pieces: list[int] = []
    is_cut = threading.Event()
    read = Line._read

    def cut(self: Line, handle: int, file: File, start: int, count: int) -> bytes:
        pieces.append(start)
        if len(pieces) == 19:
            host.cut("reset")
            is_cut.set()
        return read(self, handle, file, start, count)

    monkeypatch.setattr(Line, "_read", cut)
    made = "sha256sum < $INPUT/big; cp $INPUT/big $OUTPUT/copy; mkdir $OUTPUT/sub; echo small > $OUTPUT/sub/small"
    task = engine.submit(made, shell=True, input=tmp_path / "big", output=tmp_path / "place")
    others = [engine.submit("sha256sum < $RESOURCE/big", shell=True, resource=tmp_path / "big") for _ in range(3)]
    assert is_cut.wait(WAIT_S)
    until(lambda: engine.worker(host.name).state is WorkerState.UNREACHABLE, "it is missed")
    host.heal()
    for each in (task, *others):
        assert each.result(60).stdout.split()[0] == hashlib.sha256(data).hexdigest()
    # What was on its way may have to go again: that is no more than a window, and what the line itself held.
    assert len(pieces) <= 20 + 19
    assert (tmp_path / "place" / "copy").read_bytes() == data
    assert (tmp_path / "place" / "sub" / "small").read_text() == "small\n"
    sound(engine)


def test_rclone_goes_to_a_host_that_has_none_when_a_task_needs_it(
    engine: Engine, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rclone.conf").write_text("[there]\ntype = alias\nremote = /root/storage\n")
    monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
    host.run("mkdir /root/storage; echo data > /root/storage/in")
    engine.worker_add(host.name, concurrency=2)
    row = engine.worker_ready(host.name, WAIT_S)
    brought = f"{Path(row.link['root']).parents[1]}/bin/rclone"
    assert engine.submit("true").result(60).exit_code == 0
    assert host.said(f"ls {brought} 2>/dev/null || echo none") == "none"  # nobody has needed it
    tasks = [
        engine.submit("cp $INPUT/in $OUTPUT/", shell=True, input="there://in", output=f"there://out{n}") for n in (1, 2)
    ]
    for task in tasks:
        task.result(120)
    assert host.said("cat /root/storage/out1/in /root/storage/out2/in") == "data\ndata"
    assert "rclone" in host.said(f"{brought} version")
    sound(engine)
