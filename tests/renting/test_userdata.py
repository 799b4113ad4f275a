"""What machines are given before they start, when several are deployed at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scitq.remote.providers.userdata import driver_key, pin


def test_machines_that_are_deployed_at_the_same_time_share_one_key_and_one_file_of_known_hosts(tmp_path: Path) -> None:
    known = tmp_path / "ssh" / "known_hosts"
    with ThreadPoolExecutor(8) as pool:
        keys = list(pool.map(lambda _: driver_key(tmp_path / "ssh", "scitq"), range(8)))
        list(pool.map(lambda n: pin(known, (f"host{n}",), (f"ssh-ed25519 KEY{n}",)), range(32)))
    assert len({public for _, public in keys}) == 1
    assert len(known.read_text().splitlines()) == 32
