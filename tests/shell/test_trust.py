"""`scitq worker trust`: a host's key is accepted by a person, not by the way."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hosts.cloud import Cloud
from tests.hosts.host import Host
from tests.hosts.system import run
from tests.shell.conftest import Lab
from tests.shell.tmux import Terminal

pytestmark = pytest.mark.servers


@pytest.fixture
def stranger(cloud: Cloud, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    """A host that nobody here knows."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh" / "config").write_text(cloud.configuration(host, UserKnownHostsFile=str(tmp_path / "known")))
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    return host


def test_a_key_is_shown_and_accepted_when_its_reader_says_so(stranger: Host, lab: Lab, terminal: Terminal) -> None:
    terminal.type(f"scitq worker trust {stranger.name}")
    screen = terminal.wait_for("Accept this key")
    fingerprint = stranger.said("ssh-keygen -lf /etc/ssh/host_key.pub").split()[1]
    assert fingerprint in screen.replace("\n", "")
    terminal.type("n")
    terminal.wait_for("Nothing was done")
    terminal.type(f"scitq worker trust {stranger.name}")
    terminal.wait_for(r"Accept this key[\s\S]*Accept this key")
    terminal.type("y")
    terminal.wait_for("is accepted, in")
    assert "accepted already" in lab.out("worker", "trust", stranger.name)


def test_without_a_terminal_it_is_accepted_only_with_yes(stranger: Host, lab: Lab) -> None:
    refused = lab.scitq("worker", "trust", stranger.name, code=2)
    assert b"ED25519 SHA256:" in refused.stderr and b"--yes" in refused.stderr
    done = lab.json("worker", "trust", stranger.name, "--yes")
    assert done["done"] and done["name"] == stranger.ip and done["fingerprint"].startswith("SHA256:")
    assert not lab.json("worker", "trust", stranger.name)["done"]
    assert (
        b"is no host"
        in lab.scitq("worker", "trust", "-x y", code=None).stderr
        + lab.scitq("worker", "trust", "x y", code=None).stderr
    )


def test_a_host_is_added_after_questions_about_its_key_and_ones_own(
    stranger: Host, lab: Lab, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home = tmp_path / "home"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", home / ".ssh" / "own")
    stranger.run(f"echo '{(home / '.ssh' / 'own.pub').read_text().strip()}' > ~/.ssh/authorized_keys")
    config = home / ".ssh" / "config"
    config.write_text(
        "".join(
            line if "IdentityFile" not in line else f"    IdentityFile {home}/.ssh/own\n"
            for line in config.read_text().splitlines(keepends=True)
        )
    )
    terminal: Terminal = request.getfixturevalue("terminal")
    terminal.type(f"scitq worker add {stranger.name}")
    terminal.wait_for("Accept it")
    terminal.type("y")
    terminal.wait_for("Passphrase of")
    terminal.type("open sesame")
    screen = terminal.wait_for(r"ready in \d")
    assert "open sesame" not in screen
    lab.scitq("worker", "delete", stranger.name, "--yes", "--force")
