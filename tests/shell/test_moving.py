"""A file that moves to an always-on host and back, as its user sees it. The host is a folder here, behind a false `ssh`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import scitq
from scitq.errors import BadInput, StateFileElsewhere
from scitq.remote import login
from scitq.shell.forwarding import words_of
from scitq.shell.table import COMMANDS, Argument, Option
from tests.shell.conftest import Lab

SSH = """#!/bin/sh
while :; do case $1 in -o|-O) shift 2;; -t) shift;; *) break;; esac; done
[ -e "$AWAY/down" ] && { echo "ssh: connect to host $1 port 22: No route to host" >&2; exit 255; }
[ -n "$2" ] || exit 0
[ -e "$AWAY/noisy" ] && echo "Welcome to $1" && echo '{"mail": 1}'
echo "$2" >> "$AWAY/asked"
HOME=$AWAY; export HOME; cd && exec sh -c "$2"
"""


class Away:
    """The host of these tests, which ssh calls `nuc`."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.home = lab.folder / "away"
        self.home.mkdir()
        ssh = lab.folder / "ssh"
        ssh.write_text(SSH)
        ssh.chmod(0o755)
        (lab.folder / "lab.scitq").touch()  # an empty one is made a state file
        lab.environ |= {"SCITQ_SSH": str(ssh), "AWAY": str(self.home)}
        lab.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{lab.environ['PATH']}"
        self.file = self.home / "scitq/lab/lab.scitq"

    def scitq(self, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[bytes]:
        """On the host itself."""
        return self.lab.scitq("-f", str(self.file), *words, code=code)


@pytest.fixture
def away(lab: Lab) -> Away:
    return Away(lab)


@pytest.mark.sampled
def test_a_file_goes_to_a_host_is_used_from_here_and_comes_back(lab: Lab, away: Away) -> None:
    (away.home / "noisy").touch()
    lab.scitq("run", "--shell", "--", "seq 20000; echo kept > $OUTPUT/kept")
    said = lab.scitq("promote", "nuc")
    assert f"lab.scitq is driven on nuc ({away.file})" in said.stdout.decode()
    (away.home / "noisy").unlink()
    private = away.file.with_name("lab.scitq.d") / "rclone.conf"
    private.touch()
    # What went along.
    side = away.file.with_name("lab.scitq.d")
    assert (side / "outputs/1/kept").read_text() == "kept\n"
    assert oct(away.file.stat().st_mode & 0o777) == "0o600" and oct(side.stat().st_mode & 0o777) == "0o700"
    # Commands go there.
    status = lab.json("status")
    assert status["file"] == str(away.file) and status["driver"] is not None
    assert (
        lab.scitq("run", "--shell", "--", "echo \"$HOME\" 'a  b'; exit 7", code=7).stdout.decode().endswith(" a  b\n")
    )
    assert lab.out("task", "output", "1").splitlines()[-1] == "20000"
    lab.scitq("launch", "--shell", "-n", "left", "--", "echo there > $OUTPUT/there")
    lab.scitq("launch", "-R", "left", "-n", "last", "true")
    # Here it is only read.
    with scitq.open("lab.scitq") as engine:
        assert len(engine.rows()) == 1
        with pytest.raises(StateFileElsewhere, match=r"is driven on nuc since .* scitq demote brings it back"):
            engine.submit("true")
    (away.home / "down").touch()
    offline = lab.scitq("task", "list")
    assert b"nuc cannot be reached: this is lab.scitq as it was when it left" in offline.stderr
    assert b"left" not in offline.stdout
    assert b"is done there or not at all" in lab.scitq("launch", "true", code=255).stderr
    (away.home / "down").unlink()
    assert b"is driven on nuc" in lab.scitq("promote", "other", code=1).stderr
    away.scitq("up", "--until-done")
    # And back.
    assert "is back from nuc" in lab.out("demote")
    assert not private.exists()
    states = {row["name"]: row["status"] for row in lab.json("task", "list")}
    assert (states["left"], states["last"]) == ("succeeded", "succeeded")
    [left] = [row for row in lab.json("task", "list") if row["name"] == "left"]
    assert (lab.folder / f"lab.scitq.d/outputs/{left['id']}/there").read_text() == "there\n"
    assert b"was taken to" in away.scitq("up", code=1).stderr
    lab.scitq("run", "true")


def test_what_would_be_missed_there_is_listed_and_the_file_stays(lab: Lab, away: Away) -> None:
    Path("reads.fq").touch()
    lab.scitq("launch", "-n", "reads", "--input", "reads.fq", "true")
    said = lab.scitq("promote", "nuc", code=1).stderr.decode()
    assert f"1 unfinished task names files of this machine, which are not there (1: {lab.folder}/reads.fq)" in said
    assert "--force" in said and not away.file.exists()
    with scitq.open("lab.scitq") as engine:
        task = engine.submit("until [ -e go ]; do sleep 0.05; done", shell=True, name="runs")
        engine.task(1).cancel()
        while task.state.word != "running":
            engine._changes.wait(engine._changes.count, 0.1)
        said = lab.scitq("promote", "nuc", code=1).stderr.decode()
        assert f"1 task is ({task.id} 'runs') at the worker of this machine" in said
        Path("go").touch()
        engine.wait_all(60)
    assert not away.file.exists()


@pytest.mark.sampled
def test_a_host_that_cannot_be_had_is_one_sentence(lab: Lab, away: Away) -> None:
    lab.scitq("launch", "true")
    (away.home / "down").touch()
    said = lab.scitq("promote", "nuc", code=1).stderr.decode()
    assert "nuc cannot be reached: ssh: connect to host nuc port 22: No route to host. Try: ssh nuc" in said
    (away.home / "down").unlink()
    for host in ("-oProxyCommand=touch evil", "a b", "", "a\nb"):
        with pytest.raises(BadInput, match="is no host"):
            login.check(host)
    assert b"is no Python 3.11 or later" in lab.scitq("promote", "nuc", "--python", "/bin/false", code=1).stderr
    lab.scitq("launch", "true")
    other = away.home / "scitq/lab"
    other.mkdir(parents=True)
    lab.scitq("-f", str(other / "lab.scitq"), "launch", "true")
    assert b"is another state file; give another folder with --folder" in lab.scitq("promote", "nuc", code=1).stderr


@pytest.mark.servers
@pytest.mark.sampled
def test_storages_that_tasks_name_are_known_there_and_no_others(lab: Lab, away: Away) -> None:
    config = Path(lab.environ["XDG_CONFIG_HOME"]) / "rclone" / "rclone.conf"
    before = config.read_bytes() if config.exists() else None
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text("[disk]\ntype = alias\nremote = /srv\nsecret = hush\n\n[other]\ntype = alias\nremote = /\n")
    try:
        lab.scitq("launch", "--input", "disk://reads/x.fq", "true")
        lab.scitq("task", "pause", "1", "-y")
        lab.scitq("promote", "nuc")
        private = away.file.with_name("lab.scitq.d") / "rclone.conf"
        told = set(private.read_text().split("\n")) - {""}
        assert told == {"[disk]", "type = alias", "remote = /srv", "secret = hush"}
        assert oct(private.stat().st_mode & 0o777) == "0o600"
        assert "hush" not in (away.home / "asked").read_text()
        assert b"hush" not in away.file.read_bytes()
    finally:
        config.unlink() if before is None else config.write_bytes(before)


def test_what_is_passed_on_is_what_was_typed() -> None:
    """Every option and argument of every command, with values that a shell would take apart."""
    from scitq.shell import cli

    nasty = "a b'\"$(touch evil)\\-x"
    for row in COMMANDS:
        if row.file == "none":
            continue
        given: dict[str, object] = {}
        for one in row.parameters:
            if isinstance(one, Argument):
                given[one.name] = (nasty, "-x") if one.many else 3 if one.is_whole else nasty
            elif isinstance(one, Option):
                kinds = {
                    "whole": 3,
                    "number": 2.5,
                    "seconds": 1.5,
                    "flag": True,
                    "pair": f"NAME={nasty}",
                    "two": (nasty, "-x"),
                }
                value = kinds.get(one.kind, nasty)
                given[one.name] = (value, value) if one.many else value
        command = cli.command(row)
        context = command.make_context(row.path, words_of(row, given))
        again = {key: value for key, value in context.params.items() if not key.startswith("_")}
        assert again == given, row.path
        assert json.dumps(given)
