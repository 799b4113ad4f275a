"""A worker on another host: its agent is put there, started and reached over one SSH connection, whatever the sshd allows."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from scitq.errors import HostUnfit, LinkBroken
from scitq.remote.bootstrap import Step
from scitq.remote.orders import to_bytes
from scitq.remote.ssh import SshRoute
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host
from tests.hosts.system import until

pytestmark = pytest.mark.servers

KEY = "5a" * 32
BOB = "id bob > /dev/null 2>&1 || useradd -m -s /bin/bash -p '*' bob"
Routes = Callable[..., SshRoute]


@pytest.fixture
def routes() -> Iterator[Routes]:
    """Routes to hosts, closed at the end."""
    made: list[SshRoute] = []

    def route(host: Host | str, **how: Any) -> SshRoute:
        address = host if isinstance(host, str) else host.name
        made.append(SshRoute(address, **{"file_id": "file", "worker": "w1", "key": KEY, **how}))
        return made[-1]

    yield route
    for each in made:
        each.close()


def stats(route: SshRoute) -> dict[str, Any]:
    """The agent's word, over a stream of its own."""
    stream = route.stream()
    try:
        answer = stream.ask("GET", "/ping")
        assert answer.status == 200, answer
        return answer.json()
    finally:
        stream.close()


def test_a_bare_host_becomes_a_worker_and_a_second_time_nothing_is_done(host: Host, routes: Routes) -> None:
    steps: list[Step] = []
    first = routes(host, note=steps.append)
    first.ensure()

    assert [step.name for step in steps] == ["connect", "probe", "push", "start", "smoke", "answer"]
    assert first.link["how"] == "socket" and first.root == "/root/.scitq/file/w1"
    assert (
        host.said(f"ls -d {first.root}/trial 2>/dev/null || echo none") == "none"
    )  # of the first task nothing is left
    assert host.said(f"stat -c %a {first.root} {first.root}/agent.sock {first.root}/token").split() == [
        "700",
        "600",
        "600",
    ]
    pid = stats(first)["pid"]
    first.close()
    with pytest.raises(LinkBroken):
        first.stream()

    steps.clear()
    again = routes(host, note=steps.append)
    again.ensure()
    assert [step.name for step in steps] == ["connect", "probe", "start", "answer"]
    known = routes(host, note=steps.append, root=first.root)
    known.ensure()
    assert [step.name for step in steps[4:]] == ["connect"]
    assert stats(again)["pid"] == stats(known)["pid"] == pid
    assert len(host.processes(" agent --root")) == 1


def test_the_agent_outlives_the_connection_and_is_removed_without_a_trace(host: Host, routes: Routes) -> None:
    route = routes(host)
    route.ensure()
    pid = stats(route)["pid"]
    host.run("pkill -9 -f '^sshd: root'")
    route.ensure()
    assert stats(route)["pid"] == pid

    route.remove()
    assert not host.processes(".pyz")
    assert host.run("ls /root/.scitq/file/w1", is_checked=False).returncode != 0


@pytest.mark.parametrize(
    ("sshd", "how"),
    [
        ("AllowTcpForwarding no", "dial"),  # to OpenSSH that forbids sockets, too
        ("AllowStreamLocalForwarding no", "dial"),
        ("AllowStreamLocalForwarding no\nAllowTcpForwarding no", "dial"),
        ("AllowStreamLocalForwarding no\nAllowTcpForwarding no\nMaxSessions 1", "dial"),
    ],
)
def test_the_way_that_the_server_allows_is_taken(cloud: Cloud, routes: Routes, sshd: str, how: str) -> None:
    host = cloud.boot(sshd=sshd + "\n")
    route = routes(host)
    route.ensure()

    assert route.how == how
    streams = [route.stream() for _ in range(4)]
    for stream in streams:
        stream.queue("GET", "/held")
    for stream in streams:
        assert stream.ask("GET", "/ping").status == 200
        stream.close()
    route.close()
    cloud.delete(host)


@pytest.mark.parametrize("how", ["socket", "dial", "port"])
def test_the_bytes_are_plain_http_for_any_client(host: Host, routes: Routes, how: str) -> None:
    route = routes(host, how=how)
    route.ensure()
    client = http.client.HTTPConnection("agent")
    client.sock = route.connect()
    for _ in range(3):
        client.request("GET", "/stats", headers={"Authorization": route._headers.split(": ")[1].strip()})
        answer = client.getresponse()
        assert answer.status == 200 and json.loads(answer.read())["memory"] > 0
    client.request("GET", "/stats")
    assert client.getresponse().status == 401
    client.close()


@pytest.mark.promise("core 11.1")
def test_another_user_of_the_host_gets_no_answer_and_sees_nothing(cloud: Cloud, routes: Routes) -> None:
    host = cloud.boot(user="alice", at_boot=BOB)
    route = routes(host, how="port")
    route.ensure()

    def as_bob(command: str) -> str:
        done = host.run(f"su bob -s /bin/sh -c '{command}'", is_checked=False)
        return done.stdout + done.stderr

    assert route.root == "/home/alice/.scitq/file/w1"
    program = f'import socket; socket.socket(socket.AF_UNIX).connect("{route.root}/agent.sock")'
    assert "Permission denied" in as_bob(f"python3 -c {json.dumps(program)}") or "PermissionError" in as_bob("true")
    asked = f'import urllib.request as r; r.urlopen("http://127.0.0.1:{route._port}/held")'
    assert "401" in as_bob(f"python3 -c {json.dumps(asked)}")
    assert "Permission denied" in as_bob(f"cat {route.root}/token")
    assert "Permission denied" in as_bob(f"ls {route.root}")
    pid = stats(route)["pid"]
    assert "Permission denied" in as_bob(f"cat /proc/{pid}/environ")
    order = {"order": 1, "script": "echo data > $OUTPUT/made; exec sleep 600", "env": {"PASSWORD": "geheim"}}
    with contextlib.closing(route.stream()) as stream:
        assert stream.ask("POST", "/commands", to_bytes([order])).status == 200
    task = until("the task", lambda: host.said("pgrep -x sleep || true"))
    assert "PASSWORD=geheim" in host.said(f"tr '\\0' '\\n' < /proc/{task}/environ")
    assert "Permission denied" in as_bob(f"cat /proc/{task}/environ")
    assert "Permission denied" in as_bob(f"ls /proc/{task}/cwd/ /proc/{task}/fd")
    assert "Permission denied" in as_bob(f"cat {route.root}/slot/0/output/made")
    assert "geheim" not in as_bob("ps axwwe")
    route.stop()
    assert route._token not in host.said("cat /proc/[0-9]*/cmdline /home/alice/.scitq/file/w1/agent.log | tr '\\0' ' '")
    cloud.delete(host)


def test_a_host_that_does_not_run_what_it_is_asked_says_so(cloud: Cloud, routes: Routes) -> None:
    host = cloud.boot(sshd="ForceCommand echo this account is for backups only\n")
    with pytest.raises(HostUnfit, match=r"does not run what it is asked.*backups only"):
        routes(host).ensure()
    cloud.delete(host)
