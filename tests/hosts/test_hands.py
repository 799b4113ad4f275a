"""What a person does with workers on real hosts at a terminal: logging in there, cleaning them, unlocking keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host
from tests.hosts.system import run, until
from tests.hosts.test_fleet import engine
from tests.shell.conftest import Lab, lab
from tests.shell.tmux import Terminal

__all__ = ["engine", "lab"]

pytestmark = [pytest.mark.servers, pytest.mark.sampled]

WAIT_S = 60.0
PASSPHRASE = "open sesame"


@pytest.fixture
def wide(lab: Lab, cloud: Cloud) -> Iterator[Terminal]:
    """A terminal of a size of its own, whose ssh knows the cloud's hosts, with `scitq` on PATH."""
    lab.environ["SCITQ_SSH"] = f"ssh -F {cloud.folder / 'ssh_config'}"
    found = Terminal(lab.folder, lab.environ, columns=111, rows=37)
    yield found
    found.close()


def test_the_shell_of_a_worker_is_a_login_at_this_terminal(lab: Lab, host: Host, wide: Terminal) -> None:
    lab.scitq("-f", "lab.scitq", "worker", "add", host.name)
    wide.type(f"python -m scitq worker shell {host.name}; echo it ended with $?")
    wide.wait_for(rf"root@{host.name}:.*# *$")
    wide.type("stty size; echo $PWD $((6*7))")
    screen = wide.wait_for(r"/root/\.scitq/\S+ 42$")
    assert re.search(r"^3[67] 111$", screen, re.MULTILINE), screen  # tmux may keep a line for itself
    wide.type("test -t 0 && exit 5")
    wide.wait_for(r"^it ended with 5$")
    lab.scitq("worker", "delete", host.name, "--yes")


def test_a_cleaned_worker_keeps_nothing_for_later(engine: Engine, host: Host, tmp_path: Path) -> None:
    engine.worker_add(host.name, concurrency=1)
    root = engine.worker_ready(host.name, WAIT_S).link["root"]
    (tmp_path / "genome").write_text("ACGT" * 1000)
    task = engine.submit("cat $RESOURCE/genome | wc -c", shell=True, resource=tmp_path / "genome")
    assert task.result(WAIT_S).stdout.strip() == "4000"
    failing = engine.submit("touch left; exit 1", shell=True)
    failing.wait(WAIT_S)
    kept = f"find {root}/blobs {root}/cache {root}/exec/*/work -type f 2>/dev/null | wc -l"
    until("something is kept there", lambda: int(host.said(kept)) >= 2)  # the resource, and what the failure left
    job = engine.worker_clean(host.name)
    until("the job", lambda: engine.job(job.id).ended_ms is not None)
    until("nothing is kept there", lambda: host.said(kept) == "0")
    again = engine.submit("cat $RESOURCE/genome | wc -c", shell=True, resource=tmp_path / "genome")
    assert again.result(WAIT_S).exit_code == 0


def test_a_passphrase_is_given_to_the_process_that_asks_and_the_next_one_says_what_it_lacks(
    lab: Lab, cloud: Cloud, host: Host
) -> None:
    home = lab.folder.parent / "person"
    (home / ".ssh").mkdir(parents=True)
    key = home / ".ssh" / "locked"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", PASSPHRASE, "-f", key)
    host.run(f"echo '{key.with_suffix('.pub').read_text().strip()}' > ~/.ssh/authorized_keys")
    (home / ".ssh" / "config").write_text(cloud.configuration(host, IdentityFile=str(key)))
    lab.environ |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home / ".config"), "XDG_CACHE_HOME": str(home / ".cache")}
    lab.environ.pop("SSH_AUTH_SOCK", None)
    terminal = Terminal(lab.folder, lab.environ)
    try:
        terminal.type(f"python -m scitq -f lab.scitq worker add {host.name} -C 1")
        terminal.wait_for(r"Passphrase of .*locked")
        terminal.type(PASSPHRASE)
        terminal.wait_for("ready in")
        terminal.wait_for(r"^\$ ?$")
        screen = terminal.screen()
        assert PASSPHRASE not in screen and screen.count("Passphrase of") == 1, screen
    finally:
        terminal.close()
    # Another process, with nobody at its terminal: it says what it lacks, once, however often it tries.
    driver = lab.start("up")
    said = "is locked by a passphrase, which nobody was there to give"
    until("what it lacks is written down", lambda: said in str(lab.json("worker", "show", host.name)["note"]))
    [row] = [row for row in lab.json("worker", "list") if row["name"] == host.name]
    assert "ssh-add" in row["note"]
    lab.scitq("down")
    _, errors = driver.communicate(timeout=WAIT_S)
    assert errors.decode().count(said) == 1, errors.decode()
    assert all(PASSPHRASE.encode() not in path.read_bytes() for path in lab.folder.rglob("*") if path.is_file())
