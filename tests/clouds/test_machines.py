"""Machines of the make-believe cloud that are SSH hosts, and hosts that are lent: what travels to them, and what is left."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scitq.remote.providers import load
from scitq.remote.providers.base import EVICTION_NOTICE, NOTICE_FOLDER, Context, Instance
from scitq.remote.providers.fake import Cloud as FakeCloud
from scitq.remote.providers.fake import Fake
from scitq.remote.ssh import SshRoute
from tests.clouds.hypervisor import machines, until_off
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host
from tests.remote.providers.rents import request, the_offer

pytestmark = pytest.mark.servers
WAIT_S = 60.0


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, f"not so: {what}"
        time.sleep(0.05)


def key_pair(folder: Path, name: str) -> tuple[Path, str]:
    path = folder / name
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True)
    return path, path.with_suffix(".pub").read_text().strip()


def test_a_rented_host_has_the_key_that_it_was_given_and_lets_in_who_rented_it(cloud: Cloud, tmp_path: Path) -> None:
    host_key, host_public = key_pair(tmp_path, "host")
    user_key, user_public = key_pair(tmp_path, "user")
    books = FakeCloud(tmp_path / "dream", machines_are="hosts")
    fake = Fake("dream", books)
    told = {"ssh_keys": {"ed25519_private": host_key.read_text(), "ed25519_public": host_public}}
    with machines(books, cloud) as hypervisor:
        asked = request(
            fake, the_offer(fake), ssh_public_key=user_public, user_data="#cloud-config\n" + json.dumps(told)
        )
        made = fake.create(asked)
        plain = fake.create(request(fake, the_offer(fake), "ccccdddd", ssh_public_key=user_public))
        until(lambda: all(one.state == "running" for one in fake.instances()), "both run")
        reach = _running(fake, made).reach
        assert reach is not None and (reach.how, reach.user, reach.host_keys) == ("ssh", "root", ())
        known = tmp_path / "known_hosts"
        known.write_text(f"{reach.host} {host_public}\n")
        words = ["ssh", "-F", "none", "-i", str(user_key), "-o", f"UserKnownHostsFile={known}",
                 "-o", "StrictHostKeyChecking=yes", f"root@{reach.host}", "hostname"]  # fmt: skip
        said = subprocess.run(words, capture_output=True, text=True, check=False)
        assert said.stdout.strip() == hypervisor.host(made.id).name, said
        other = _running(fake, plain).reach
        assert other is not None and other.host_keys == (hypervisor.host(plain.id).key,)

        books.evict(made.code or "", notice_s=3600)
        there = hypervisor.host(made.id)
        notice = f"cat {NOTICE_FOLDER}/{EVICTION_NOTICE} 2>/dev/null || true"
        until(lambda: "back" in there.said(notice), "it is told")
        books.advance(3601)
        fake.delete(plain)
        until_off(books)

        assert not there.is_running
        assert [one.state for one in fake.instances()] == ["evicted"]
        fake.delete(made)
        assert fake.instances() == []
        assert all(bill.ended_ms is not None for bill in books.ledger())
    fake.close()


def _running(fake: Fake, one: Instance) -> Instance:
    found = fake.get(one.region, one.id)
    assert found is not None
    return found


def test_a_host_is_lent_and_given_back_as_it_was(host: Host, tmp_path: Path) -> None:
    pool = load("lab", {"kind": "ssh", "hosts": [{"host": host.name, "slots": 2}]}, Context(str(tmp_path / "lab")))
    assert pool.check() == []
    [offer] = pool.offers()
    assert (offer.flavor.name, offer.available) == (host.name, 2) and offer.flavor.ram > 1 << 28
    made = pool.create(request(pool, offer))
    reach = made.reach
    assert reach is not None and reach.folder.startswith("/root/.scitq/leases/slot-0/")
    route = SshRoute(reach.host, file_id="ffff", worker="w", key="00" * 16, folder=reach.folder)
    route.ensure()
    assert host.processes(reach.folder)
    route.close()

    pool.delete(made)

    assert host.processes(reach.folder) == []
    assert host.said("ls -A /root/.scitq/leases") == "lock"
    assert [one.available for one in pool.offers()] == [2]
    host.cut("reset")
    assert [one.available for one in pool.offers()] == [0]
    assert [problem.severity for problem in pool.check()] == ["error"]
