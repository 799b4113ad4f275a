"""`worker deploy`, `cloud list|reap`, `job show -f|retry|cancel`, by a person at a make-believe cloud."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from scitq.engine import Engine
from scitq.remote.providers.fake import Cloud, Fake
from scitq.shell import cli
from tests.shell.here import unchanged


class Lab:
    """A folder with a state file, and a cloud that is configured. Commands run in this process."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.file, self.capture = folder / "lab.scitq", capture
        self.cloud = Cloud(folder / "cloud", bare=True)
        self.cloud.sell("north", "std-2", 0.1, cpu=2, ram=8 << 30)
        self.cloud.sell("south", "std-2", 0.125)
        with Engine(self.file, drive=False):
            pass

    def run(self, *words: str, code: int = 0) -> str:
        """What a command says, on both streams."""
        return "".join(self._run(words, code))

    def json(self, *words: str, code: int = 0) -> Any:
        """The same with --json."""
        return json.loads(self._run((*words, "--json"), code)[0])

    def _run(self, words: Sequence[str], code: int) -> tuple[str, str]:
        self.capture.readouterr()
        with unchanged():
            found = cli.run(cli.program(), ["--file", str(self.file), *words], "scitq")
        said = self.capture.readouterr()
        assert found == code, said
        return said.out, said.err


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Lab]:
    """One."""
    monkeypatch.setenv("SCITQ_RENTING_PACE", "0.02")
    config = tmp_path / "config.toml"
    config.write_text(f'[providers.dream]\nkind = "fake"\nfolder = "{tmp_path / "cloud"}"\n')
    monkeypatch.setenv("SCITQ_CONFIG", str(config))
    found = Lab(tmp_path, capfd)
    yield found
    found.cloud.heal()
    fake = Fake("dream", found.cloud)
    for one in fake.instances():
        fake.delete(one)
    fake.close()


def test_machines_are_deployed_listed_and_deleted(place: Lab) -> None:
    said = place.run("worker", "deploy", "-f", "auto:cpu>=2", "-N", "2", "--name", "w", code=2)
    assert "2 x std-2 (dream north, ondemand): 0.10 €/h each, 0.20 €/h in all" in said and "--yes" in said
    assert place.cloud.machines() == [] and "Nothing is rented." in place.run("cloud", "list")

    said = place.run("worker", "deploy", "-f", "std-2", "-r", "north", "-P", "dream", "-C", "1", "--name", "w", "--yes")
    assert "w: ready in" in said and "1 machine is rented, for 0.10 €/h." in said
    [machine] = place.cloud.machines()
    assert machine.region == "north"
    [row] = place.json("cloud", "list")
    assert (row["worker"], row["state"], row["id"], row["price"], row["known"]) == (
        "w",
        "running",
        machine.id,
        0.1,
        True,
    )
    assert place.json("cloud", "list", "--all")[0]["id"] == machine.id
    [job] = place.json("job", "list")
    assert (job["kind"], job["state"]) == ("deploy", "succeeded")
    assert "accepted by dream" in place.run("job", "show", str(job["id"]))
    assert "1 there" in place.run("cloud", "reap")

    assert "its machine (dream north std-2) is deleted" in place.run("worker", "delete", "w", "--yes")
    assert place.cloud.machines() == []
    assert "The last machine, w, was gone at" in place.run("cloud", "list")


def test_what_fails_says_why_and_is_tried_again_or_taken_back(place: Lab) -> None:
    place.cloud.fail("create", "unsold", times=-1)
    said = place.run("worker", "deploy", "-f", "std-2", "--name", "w", "--yes", code=1)
    assert "does not sell that flavor" in said and "No other offer is left to try" in said
    [job] = place.json("job", "list")
    assert job["state"] == "failed"

    place.cloud.heal()
    again = place.json("job", "retry", str(job["id"]), "--no-wait")
    assert (again["kind"], again["state"], again["worker"]) == ("deploy", "pending", "w")
    assert place.json("job", "cancel", str(again["id"]))["state"] == "cancelled"
    assert "only what failed" in place.run("job", "retry", str(again["id"]), code=1)
    assert place.run("job", "show", "-f", str(again["id"])).startswith(f"job {again['id']}: deploy")

    assert "nothing that is sold fits" in place.run("worker", "deploy", "-f", "auto:cpu>=200", "--yes", code=1)
    assert place.cloud.ledger() == []


def test_machines_of_another_file_are_shown_and_deleted_only_when_that_is_named(place: Lab, tmp_path: Path) -> None:
    with Engine(tmp_path / "other.scitq") as other:
        other.worker_deploy("std-2", name="theirs")
        other.worker_ready("theirs", timeout=60)
    [row] = place.json("cloud", "list", "--all")
    assert (row["known"], row["worker"], row["project"]) == (False, None, "other")

    place.run("cloud", "reap")
    assert len(place.cloud.machines()) == 1
    place.run("cloud", "reap", "--store", row["file"], "--yes")

    assert place.cloud.machines() == []
