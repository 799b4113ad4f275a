"""Which hosts are believed to be themselves, and who is let in there: each refusal says what to try."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.errors import BadInput, HostKeyChanged, HostKeyUnknown, HostLoginRefused, HostUnreachable
from scitq.remote import hostkeys, ssh, sshconfig, sshlogin
from scitq.remote.hostkeys import HostKey
from scitq.remote.ssh import SshRoute
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host
from tests.hosts.system import run

KEY = "AAAAC3NzaC1lZDI1NTE5AAAAIHVtiOLbMSEMY5CDiX9D2UbyFgTQXfZxaZ7Lju6hBWoA"
OTHER = "AAAAC3NzaC1lZDI1NTE5AAAAIDVtiOLbMSEMY5CDiX9D2UbyFgTQXfZxaZ7Lju6hBWoB"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this test's own, with no SSH agent."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(mode=0o700, parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / ".config"))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    monkeypatch.setattr(sshlogin, "_passphrases", {})
    return folder


def configure(cloud: Cloud, home: Path, *hosts: Host, **more: str) -> None:
    """What the user has in ~/.ssh/config, where no host is known."""
    told = {"UserKnownHostsFile": str(home / ".ssh" / "known_hosts"), **more}
    (home / ".ssh" / "config").write_text("".join(cloud.configuration(host, **told) for host in hosts))


def route(host: Host | str, **how: object) -> SshRoute:
    address = host if isinstance(host, str) else host.name
    return SshRoute(address, **{"file_id": "file", "worker": "w1", "key": "5a" * 32, **how})  # type: ignore[arg-type]


def ensured(way: SshRoute) -> str:
    try:
        way.ensure()
        return way.how
    finally:
        way.close()


# --- files ----------------------------------------------------------------------------------------------------------------


def test_known_hosts_is_read_as_ssh_reads_it(tmp_path: Path, home: Path) -> None:
    file = tmp_path / "known"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key")
    kind, real, _ = (tmp_path / "key.pub").read_text().split()
    file.write_text(
        f"# a comment\n\n*.example.org,!bad.example.org ssh-ed25519 {KEY} comment\n[node]:2222 ssh-ed25519 {KEY}\n"
        f"@revoked * ssh-ed25519 {OTHER}\n@cert-authority * ssh-ed25519 {KEY}\nbroken\nnode ssh-rsa !!!\n"
    )
    hashed = tmp_path / "hashed"
    hashed.write_text(f"secret {kind} {real}\n")
    run("ssh-keygen", "-q", "-H", "-f", hashed)
    assert "secret" not in hashed.read_text()
    file.write_text(file.read_text() + hashed.read_text())

    def found(name: str) -> list[tuple[str, bool]]:
        return [(each.key.key, each.is_revoked) for each in hostkeys.find(name, [file, tmp_path / "none"])]

    assert found("a.example.org") == [(KEY, False), (OTHER, True)]
    assert found("bad.example.org") == found("node") == [(OTHER, True)]
    assert found(hostkeys.name_of("node", 2222)) == [(KEY, False), (OTHER, True)]
    assert found("secret") == [(OTHER, True), (real, False)]
    assert HostKey(kind, real).fingerprint in run("ssh-keygen", "-lf", tmp_path / "key.pub").stdout


def test_what_is_accepted_is_private_and_replaces_what_was(home: Path) -> None:
    hostkeys.accept("a", [HostKey("ssh-ed25519", KEY)])
    hostkeys.accept("b", [HostKey("ssh-ed25519", KEY), HostKey("ssh-rsa", KEY)])
    file = hostkeys.accept("a", [HostKey("ssh-ed25519", OTHER)])

    assert file == home / ".config" / "scitq" / "known_hosts"
    assert [each.key.key for each in hostkeys.find("a", [])] == [OTHER]
    assert len(hostkeys.find("b", [])) == 2
    assert file.stat().st_mode & 0o777 == 0o600
    run("ssh-keygen", "-F", "a", "-f", file)


def test_the_users_own_configuration_says_how(home: Path) -> None:
    (home / ".ssh" / "config").write_text(
        "Include more\nHost gpu\n  HostName 10.0.0.9\n  User alice\n  Port 2200\n  ProxyJump gate,inner\n  HostKeyAlias g\n"
        "  IdentityFile ~/.ssh/special\n  IdentitiesOnly yes\n  ConnectTimeout 7\n"
    )
    (home / ".ssh" / "more").write_text("Host gate\n  HostName gate.example.org\n  User bob\n")
    found = sshconfig.look_up("gpu")

    assert (found.host, found.user, found.port, found.key_name) == ("10.0.0.9", "alice", 2200, "g")
    assert found.keys == (home / ".ssh" / "special",) and found.only_keys and found.timeout_s == 7
    assert [(each.host, each.user) for each in found.jumps][:1] == [("gate.example.org", "bob")]
    assert home / ".ssh" / "known_hosts" in found.known_hosts
    assert str(found) == "gpu (alice@10.0.0.9 port 2200)"
    other = sshconfig.look_up("carol@gpu:22")
    assert (other.user, other.port) == ("carol", 22)
    assert sshconfig.split("ssh://me@[::1]:22/") == ("me", "::1", 22)


@pytest.mark.parametrize("address", ["", "-oProxyCommand=x", "a b", "a:99999", "me@", "a/b", "a;b\n"])
def test_what_is_no_address_is_refused(home: Path, address: str) -> None:
    with pytest.raises(BadInput, match="is no host"):
        sshconfig.look_up(address)


def test_a_configuration_that_cannot_be_read_is_told(home: Path) -> None:
    (home / ".ssh" / "config").write_text("Host a\n  Nonsense yes\n")
    with pytest.raises(BadInput, match=r"configuration cannot be used.*onsense"):
        sshconfig.look_up("a")


# --- keys of hosts --------------------------------------------------------------------------------------------------------


@pytest.mark.servers
@pytest.mark.promise("core 11.4")
def test_an_unknown_key_is_refused_until_it_is_accepted_and_a_changed_one_for_good(
    cloud: Cloud, host: Host, home: Path
) -> None:
    configure(cloud, home, host)
    shown = HostKey(*host.key.split())
    with pytest.raises(HostKeyUnknown, match=f"scitq worker trust {host.name}") as unknown:
        route(host).ensure()
    assert shown.fingerprint in str(unknown.value) and not host.processes(".pyz")

    name, key, problem = ssh.trust(host.name)
    assert (name, key) == (host.ip, shown) and isinstance(problem, HostKeyUnknown)
    hostkeys.accept(name, [key])
    assert ssh.trust(host.name)[2] is None
    assert ensured(route(host)) == "socket"

    host.run("rm /etc/ssh/host_key*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/host_key")
    host.reboot()
    with pytest.raises(HostKeyChanged, match=r"another key.*scitq worker trust"):
        route(host).ensure()
    (home / ".ssh" / "known_hosts").write_text(f"{host.ip} {host.key}\n")
    hostkeys.own_file().unlink()
    with pytest.raises(HostKeyChanged, match=f"ssh-keygen -R '{host.ip}'"):
        route(host).ensure()
    _name, key, problem = ssh.trust(host.name)
    assert isinstance(problem, HostKeyChanged)
    (home / ".ssh" / "known_hosts").write_text(f"@revoked * {key.kind} {key.key}\n{host.ip} {key.kind} {key.key}\n")
    with pytest.raises(HostKeyChanged, match="was revoked"):
        route(host).ensure()


@pytest.mark.servers
def test_of_several_keys_of_a_host_the_known_one_is_asked_for(cloud: Cloud, home: Path) -> None:
    host = cloud.boot(
        sshd="HostKey /etc/ssh/rsa_key\n",
        at_boot="[ -e /etc/ssh/rsa_key ] || ssh-keygen -q -t rsa -b 2048 -N '' -f /etc/ssh/rsa_key",
    )
    configure(cloud, home, host)
    kind, key, *_ = host.said("cat /etc/ssh/rsa_key.pub").split()
    hostkeys.accept(host.ip, [HostKey(kind, key)])
    assert ensured(route(host)) == "socket"
    cloud.delete(host)


@pytest.mark.servers
def test_every_host_on_the_way_must_be_known_and_the_way_is_gone(cloud: Cloud, host: Host, home: Path) -> None:
    gate = cloud.boot()
    host.run(f"iptables -A INPUT -p tcp --dport 22 ! -s {gate.ip} -j DROP")
    configure(cloud, home, gate, host)
    config = home / ".ssh" / "config"
    config.write_text(config.read_text() + f"    ProxyJump {gate.name}\n")
    with pytest.raises(HostKeyUnknown, match=f"^{gate.name} "):
        route(host).ensure()
    hostkeys.accept(gate.ip, [HostKey(*gate.key.split())])
    with pytest.raises(HostKeyUnknown, match=f"^{host.name} "):
        route(host).ensure()
    hostkeys.accept(*ssh.trust(host.name)[:1], [ssh.trust(host.name)[1]])
    assert ensured(route(host)) == "socket"
    config.write_text(config.read_text().replace("ProxyJump", f"ProxyCommand ssh -F {config} -W %h:%p"))
    (home / ".ssh" / "known_hosts").write_text(hostkeys.own_file().read_text())  # for ssh itself
    assert ensured(route(host)) == "socket"
    cloud.delete(gate)


# --- logging in -----------------------------------------------------------------------------------------------------------


@pytest.mark.servers
def test_who_is_not_let_in_is_told_what_to_try(cloud: Cloud, home: Path) -> None:
    host = cloud.boot(user="alice", sshd="PasswordAuthentication no\n")
    known = {"UserKnownHostsFile": str(cloud.folder / "known_hosts")}
    configure(cloud, home, host, **known)
    with pytest.raises(HostLoginRefused, match=r"does not let nobody in with .*id_ed25519.*right user.*ssh-copy-id"):
        route(f"nobody@{host.name}").ensure()
    configure(cloud, home, host, IdentityFile="~/.ssh/none", **known)
    with pytest.raises(HostLoginRefused, match=r"you have no SSH key.*ssh-keygen"):
        route(host).ensure()
    cloud.delete(host)


@pytest.mark.servers
def test_a_host_that_takes_passwords_only_says_so(cloud: Cloud, home: Path) -> None:
    host = cloud.boot(sshd="PubkeyAuthentication no\nPasswordAuthentication yes\n")
    configure(cloud, home, host, UserKnownHostsFile=str(cloud.folder / "known_hosts"))
    with pytest.raises(HostLoginRefused, match=r"by password only.*ssh-copy-id"):
        route(host).ensure()
    cloud.delete(host)


@pytest.mark.servers
def test_a_passphrase_is_asked_for_once_and_never_without_somebody_to_ask(cloud: Cloud, host: Host, home: Path) -> None:
    key = home / ".ssh" / "locked"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", key)
    host.run(f"echo '{key.with_suffix('.pub').read_text().strip()}' >> ~/.ssh/authorized_keys")
    configure(cloud, home, host, UserKnownHostsFile=str(cloud.folder / "known_hosts"), IdentityFile=str(key))
    with pytest.raises(HostLoginRefused, match=r"locked by a passphrase.*ssh-add"):
        route(host).ensure()
    asked: list[str] = []

    def answer(question: str) -> str:
        asked.append(question)
        return "wrong" if len(asked) == 1 else "open sesame"

    assert ensured(route(host, ask=answer)) == "socket"
    assert asked == [f"Passphrase of {key}"] * 2
    assert ensured(route(host)) == "socket"


@pytest.fixture
def ssh_agent(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An SSH agent of this test's own."""
    program = subprocess.Popen(["ssh-agent", "-D", "-a", str(home / "agent")], stdout=subprocess.DEVNULL)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(home / "agent"))
    from tests.hosts.system import until

    until("the SSH agent", lambda: run("ssh-add", "-l", is_checked=False).returncode == 1)
    yield
    program.terminate()
    program.wait()


@pytest.mark.servers
def test_keys_of_the_ssh_agent_are_used(cloud: Cloud, host: Host, home: Path, ssh_agent: None) -> None:
    run("ssh-add", "-q", cloud.key)
    known = {"UserKnownHostsFile": str(cloud.folder / "known_hosts")}
    configure(cloud, home, host, IdentityFile="~/.ssh/none", IdentitiesOnly="no", **known)
    assert ensured(route(host)) == "socket"
    configure(cloud, home, host, IdentityFile="~/.ssh/none", **known)
    with pytest.raises(HostLoginRefused):
        route(host).ensure()


# --- networks -------------------------------------------------------------------------------------------------------------


@pytest.mark.servers
def test_what_cannot_be_reached_says_why(cloud: Cloud, host: Host, home: Path) -> None:
    configure(cloud, home, host, ConnectTimeout="1")
    with pytest.raises(HostUnreachable, match="no such name"):
        route("no-such-host.invalid").ensure()
    host.cut("reset")
    with pytest.raises(HostUnreachable, match="Is its sshd running"):
        route(host).ensure()
    host.cut()
    with pytest.raises(HostUnreachable, match="did not answer within 1 s"):
        route(host).ensure()
    host.heal()
    configure(cloud, home, host, ProxyCommand="sh -c 'echo the gate is shut >&2'")
    with pytest.raises(HostUnreachable, match="the gate is shut"):
        route(host).ensure()
