"""The make-believe cloud: what it keeps, what goes wrong on script, what it bills; its machines are real agents."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.errors import (
    AgentFailed,
    AmbiguousCreate,
    BadRequest,
    CapacityUnavailable,
    PriceTooLow,
    ProviderDown,
    ProviderLogin,
    QuotaExceeded,
    RateLimited,
)
from scitq.remote import local
from scitq.remote.agent import starting
from scitq.remote.providers import load
from scitq.remote.providers.base import EVICTION_NOTICE, SHUTDOWN, Context
from scitq.remote.providers.fake import Cloud, Fake
from tests.remote.providers.rents import GIB, STORE, request, the_offer


@pytest.fixture
def cloud(tmp_path: Path) -> Cloud:
    """One that sells two flavors in the north."""
    cloud = Cloud(tmp_path / "cloud", bare=True)
    cloud.sell("north", "std-2", 0.1, cpu=2, ram=8 * GIB, billed_s=60)
    cloud.sell("north", "std-2", 0.03, market="spot", eviction=4.0)
    cloud.sell("island", "std-4", 0.3, cpu=4, ram=16 * GIB, billed_s=3600)
    return cloud


@pytest.fixture
def fake(cloud: Cloud) -> Iterator[Fake]:
    """It, as a provider."""
    fake = Fake("dream", cloud)
    yield fake
    for one in fake.instances():
        fake.delete(one)
    fake.close()


def test_another_process_that_is_killed_leaves_a_cloud_that_knows_what_it_did(cloud: Cloud, fake: Fake) -> None:
    program = (
        "import os, signal; from scitq.remote.providers.fake import Cloud, Fake; from tests.remote.providers.rents import *;"
        f"fake = Fake('dream', Cloud({str(cloud.folder)!r})); fake.create(request(fake, the_offer(fake)));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(root)}, check=False)

    [found] = fake.find("north", f"scitq-{STORE}-aaaabbbb")

    assert (found.code, found.store, found.state) == ("aaaabbbb", STORE, "running")
    assert fake.create(request(fake, the_offer(fake))).id == found.id
    assert len(cloud.ledger()) == 1


def test_time_is_billed_from_the_acceptance_on_in_pieces(cloud: Cloud, fake: Fake) -> None:
    first = fake.create(request(fake, the_offer(fake)))
    fake.create(request(fake, the_offer(fake, "std-4", "island"), "ccccdddd"))
    cloud.advance(90)
    fake.delete(first)
    cloud.advance(3600)

    one, other = cloud.ledger()

    assert (one.seconds, round(one.amount, 6), one.request) == (120, round(0.1 * 120 / 3600, 6), 1)
    assert (other.seconds, round(other.amount, 6), other.ended_ms) == (7200, 0.6, None)
    assert cloud.billed() == {"EUR": pytest.approx(one.amount + other.amount)}


def test_prices_stock_and_quotas_are_what_they_are_now(cloud: Cloud, fake: Fake) -> None:
    cloud.quota("cores", region="north", limit=8, others=5)
    cloud.stock(1, region="island")
    cloud.price(factor=2, market="spot")
    cloud.at(60, "price", price=0.5, flavor="std-4")

    fake.create(request(fake, the_offer(fake), "ccccdddd"))
    fake.create(request(fake, the_offer(fake, "std-4", "island")))
    cloud.advance(61)

    with pytest.raises(
        QuotaExceeded, match="dream north std-2 ondemand: it lets this account have 8 of cores"
    ) as refused:
        fake.create(request(fake, the_offer(fake)))
    assert refused.value.parts["used"] == 7 and refused.value.parts["required"] == 2
    assert fake.quotas("north")[0].used == 7
    with pytest.raises(CapacityUnavailable):
        fake.create(request(fake, the_offer(fake, "std-4", "island"), "eeeeffff"))
    assert the_offer(fake, "std-4", "island").price == 0.5
    spot = the_offer(fake, market="spot")
    assert (spot.price, spot.eviction) == (0.06, 4.0)
    with pytest.raises(PriceTooLow):
        fake.create(request(fake, spot, "eeeeffff", max_price=0.05))


def test_faults_come_as_the_script_says_and_are_used_up(cloud: Cloud, fake: Fake) -> None:
    asked = request(fake, the_offer(fake))
    cloud.fail("create", "lost-asking")
    cloud.fail("create", "lost", skip=1)
    cloud.fail("instances", "rate", value=7)
    cloud.fail("*", "login", for_s=3600, region="island")

    with pytest.raises(AmbiguousCreate):
        fake.create(asked)
    assert fake.find("north", asked.name) == []
    with pytest.raises(AmbiguousCreate):
        fake.create(asked)
    assert len(fake.find("north", asked.name)) == 1
    with pytest.raises(RateLimited) as limited:
        fake.instances()
    assert limited.value.retry_after_s == 7
    with pytest.raises(ProviderLogin):
        fake.quotas("island")
    cloud.advance(3601)
    assert fake.quotas("island") == []
    with pytest.raises(BadRequest, match="there is no fault 'rain' of the call 'create'"):
        cloud.fail("create", "rain")


def test_what_goes_wrong_with_machines(cloud: Cloud, fake: Fake) -> None:
    cloud.fail("create", "duplicate", name=f"scitq-{STORE}-aaaabbbb")
    cloud.fail("create", "error", name=f"scitq-{STORE}-ccccdddd")
    cloud.fail("create", "hidden", value=60, name=f"scitq-{STORE}-eeeeffff")
    cloud.fail("create", "leave", name=f"scitq-{STORE}-gggghhhh")
    cloud.fail("create", "deaf", value=1, name=f"scitq-{STORE}-iiiijjjj")
    made = {code: fake.create(request(fake, the_offer(fake), code))
            for code in ("aaaabbbb", "ccccdddd", "eeeeffff", "gggghhhh", "iiiijjjj")}  # fmt: skip

    assert len(fake.find("north", made["aaaabbbb"].name)) == 2
    assert made["ccccdddd"].state == "error"
    assert fake.find("north", made["eeeeffff"].name) == []
    cloud.advance(61)
    assert len(fake.find("north", made["eeeeffff"].name)) == 1
    fake.delete(made["gggghhhh"])
    assert {one.kind for one in fake.sweep(STORE, set())} == {"disk", "ip"}
    assert fake.sweep("another000", set()) == []
    for one in fake.sweep(STORE, set()):
        fake.delete_leftover(one)
    assert cloud.things() == []
    fake.delete(made["iiiijjjj"])
    assert fake.get("north", made["iiiijjjj"].id) is not None
    fake.delete(made["iiiijjjj"])
    assert fake.get("north", made["iiiijjjj"].id) is None
    cloud.vanish("ccccdddd")
    assert fake.get("north", made["ccccdddd"].id) is None


def test_machines_take_time_to_boot_and_to_go_and_end_when_they_expire(tmp_path: Path) -> None:
    cloud = Cloud(tmp_path / "slow", boot_ms=30_000, delete_ms=60_000)
    fake = Fake("slow", cloud)
    first = fake.create(request(fake, the_offer(fake)))
    second = fake.create(request(fake, the_offer(fake), "ccccdddd", expires_ms=cloud.now_ms() + 100_000))
    assert (first.state, first.reach) == ("creating", None)
    cloud.advance(31)
    running = fake.get("north", first.id)
    assert running is not None and running.state == "running" and running.reach is not None
    fake.delete(first)
    deleting = fake.get("north", first.id)
    assert deleting is not None and deleting.state == "deleting"
    cloud.advance(100)

    assert fake.instances() == []
    assert {bill.code: bill.seconds for bill in cloud.ledger()}["ccccdddd"] == 100
    assert second.expires_ms is not None
    fake.close()


def test_a_machine_is_an_agent_that_is_told_before_it_is_taken_back(cloud: Cloud, fake: Fake) -> None:
    made = fake.create(request(fake, the_offer(fake, market="spot")))
    assert made.reach is not None
    place = Path(made.reach.folder)
    local.ensure(place)
    cloud.evict("aaaabbbb", notice_s=3600)

    assert '"at": ' in (place / EVICTION_NOTICE).read_text()
    assert starting.answers(str(place))

    cloud.advance(3601)

    assert [one.state for one in fake.instances()] == ["evicted"]
    assert not starting.answers(str(place))
    with pytest.raises(AgentFailed, match="cannot be made"):
        local.ensure(place)  # nobody brings it back
    bill = cloud.ledger()[0]
    fake.delete(made)
    cloud.advance(60)
    assert fake.instances() == [] and cloud.ledger()[0] == bill


def test_a_machine_goes_while_nobody_asks_when_its_time_has_come(cloud: Cloud, fake: Fake) -> None:
    made = fake.create(request(fake, the_offer(fake)))
    other = fake.create(request(fake, the_offer(fake), "ccccdddd"))
    assert made.reach is not None and other.reach is not None
    place = Path(made.reach.folder)
    local.ensure(place)
    Path(other.reach.folder).mkdir(parents=True)
    (Path(other.reach.folder) / SHUTDOWN).touch()
    cloud.evict("aaaabbbb", notice_s=0.2)

    deadline = time.monotonic() + 30
    while place.is_dir() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [one.state for one in fake.instances()] == ["evicted"]  # the other one shut itself down


def test_a_provider_that_is_down_is_told_of_by_its_check(cloud: Cloud, fake: Fake) -> None:
    cloud.fail("*", "down", times=2)
    with pytest.raises(ProviderDown):
        fake.offers()
    assert [problem.severity for problem in fake.check()] == ["error"]
    assert fake.check() == []


def test_settings_make_a_cloud_and_say_how_long_things_take(tmp_path: Path) -> None:
    settings = {
        "kind": "fake",
        "boot_s": 5,
        "script": [{"call": "offers", "fault": "rate", "for_s": 3600, "value": 9.0}],
    }
    context = Context(str(tmp_path / "cloud"))
    for boot_s in (5, 7):
        fake = load("dream", {**settings, "boot_s": boot_s}, context)
        with pytest.raises(RateLimited):
            fake.offers()
        fake.close()
    cloud = Cloud(tmp_path / "cloud")
    with cloud.open() as world:
        assert (world.boot_ms, len(world.script)) == (7000, 1)
    with pytest.raises(BadRequest, match="there is no fault 'rain'"):
        load(
            "dream", {"kind": "fake", "script": [{"call": "create", "fault": "rain"}]}, Context(str(tmp_path / "other"))
        )
