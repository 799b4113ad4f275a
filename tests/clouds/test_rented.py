"""Rented machines that are SSH hosts: reached with this file's own key, known by a key that was made for them, ended by themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.offers import RentalState
from scitq.remote.providers.fake import Cloud as FakeCloud
from scitq.remote.providers.fake import Fake
from scitq.states import WorkerState
from scitq.store import workers
from tests.clouds.hypervisor import machines
from tests.hosts.cloud import Cloud
from tests.hosts.host import Host

pytestmark = [pytest.mark.servers, pytest.mark.usefixtures("workers_may_linger")]
WAIT_S = 90.0


def until(is_so: Callable[[], object], what: str) -> None:
    """Wait for something, not for ever."""
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, f"not so: {what}"
        time.sleep(0.05)


def test_a_rented_host_works_and_ends_by_itself_when_nobody_comes(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCITQ_RENTING_PACE", "0.05")
    config = tmp_path / "config.toml"
    config.write_text(f'[providers.dream]\nkind = "fake"\nfolder = "{tmp_path / "dream"}"\nmachines = "hosts"\n')
    monkeypatch.setenv("SCITQ_CONFIG", str(config))
    books = FakeCloud(tmp_path / "dream", machines_are="hosts", bare=True)
    books.sell("north", "std-2", 0.1, cpu=2, ram=8 << 30)
    fake = Fake("dream", books)
    offers = fake.offers()
    with machines(books, cloud), Engine(tmp_path / "lab.scitq") as engine:
        [row] = engine.worker_rent(offers, orphan_after=3600)
        # sshd's own configuration is not asked, nor is the user's: only what was made for this machine.
        assert engine.worker_ready(row.name, timeout=WAIT_S).state is WorkerState.READY
        [machine] = books.machines()
        assert engine.submit("hostname").result(timeout=WAIT_S).stdout.strip() != ""
        known = (engine.side / "ssh" / "known_hosts").read_text()
        assert machine.name in known and (engine.side / "ssh" / "id_ed25519").stat().st_mode & 0o777 == 0o600
        assert "PRIVATE" not in str(engine.rentals()[0])

        # Shorter than the pauses of a driver that has nothing to say, which nobody may ask for.
        engine._write(lambda db: workers.settle(db, row.id, {"orphan_after": 1}))
        until(lambda: not books.machines(), "nobody says anything, and it ends itself")
        until(lambda: engine.rentals(every=True)[0].state is RentalState.GONE, "it is known to be gone")
        assert engine.cloud_reap(timeout=WAIT_S).data["providers"]["dream"]["machines"] == 0
    fake.close()


def test_a_host_of_a_pool_works_as_its_settings_say_and_is_given_back(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCITQ_RENTING_PACE", "0.05")
    config = tmp_path / "config.toml"
    config.write_text(f'[providers.lab]\nkind = "ssh"\n[[providers.lab.hosts]]\nhost = "{host.name}"\nnice = 7\n')
    monkeypatch.setenv("SCITQ_CONFIG", str(config))
    with Engine(tmp_path / "lab.scitq") as engine:
        engine.flavor_refresh()
        engine.worker_deploy(provider="lab", concurrency=1, name="far", batch="far")
        assert engine.worker_ready("far", timeout=WAIT_S).settings["nice"] == 7
        said = engine.submit("hostname; nice", shell=True, batch="far").result(timeout=WAIT_S).stdout.split()
        assert said == [host.name, "7"]
        assert host.said("ls /root/.scitq/leases/slot-0/work").strip()
        with pytest.raises(BadInput):
            engine.worker_deploy(provider="lab", name="further", flavor="no-such-host")

        engine.worker_delete("far")

        until(lambda: engine.rentals(every=True)[0].state is RentalState.GONE, "it is given back")
        assert host.said("ls /root/.scitq/leases").split() == ["lock"]
        assert host.processes("/root/.scitq/leases") == []
