"""Images come once, as part of staging: from a registry with a password, with what is said of one that cannot be had."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.remote.agent.pulling import _auth
from scitq.remote.agent.registries import Registries
from scitq.remote.agent.remotes import BadRemotes
from tests.containers import IMAGE, PASSWORD, Dockerd, Engine, Registry
from tests.remote.client import Driver, below, content

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry with a password."""
    registry = Registry(tmp_path_factory.mktemp("registry"))
    yield registry
    registry.close()


@pytest.fixture(scope="module")
def image(registry: Registry, dockerd_server: Dockerd) -> str:
    """An image that only those who log in can have."""
    registry.push(dockerd_server, IMAGE, "lab/tools:1")
    return f"{registry.host}/lab/tools:1"


@pytest.fixture(autouse=True)
def forgotten(image: str, containers: Engine) -> Iterator[None]:
    """No test finds the image there."""
    containers.run("rmi", "-f", image, is_checked=False)
    yield
    containers.run("rmi", "-f", image, is_checked=False)


def test_an_image_is_pulled_once_for_all_with_the_login_that_was_told(
    containers: Engine, driver: Driver, registry: Registry, image: str
) -> None:
    pulls = registry.log().count("GET /v2/lab/tools/blobs")
    driver.say({"slots": 6})
    for number in range(1, 6):
        driver.say(
            {"order": number, "task": 1, "argv": ["true"], "image": image, "registry": registry.host, "login": True}
        )
    assert set(driver.held()["held"].values()) == {"staging"}  # they wait for the login
    driver.say({"registries": {"config": registry.auth, "insecure": [registry.host]}})

    digest = None
    for number in range(1, 6):
        line = driver.exit_of(number)
        assert (line["code"], line["why"]) == (0, None), line
        digest = line["image"]["digest"]
        assert digest.startswith(f"{registry.host}/lab/tools@sha256:")
    # One layer and one configuration, whatever the number of tasks.
    assert registry.log().count("GET /v2/lab/tools/blobs") - pulls <= 2
    # What ran can be had again by its digest.
    line = driver.run(7, "true", image=digest, registry=registry.host, login=True)
    assert line["image"]["digest"] == digest
    # The password is nowhere but in the file in memory.
    assert [path for path in below(driver.root) if PASSWORD.encode() in content(path)] == []


def test_without_a_login_it_is_denied_for_good(
    containers: Engine, driver: Driver, registry: Registry, image: str
) -> None:
    driver.say({"registries": {"insecure": [registry.host]}})
    line = driver.run(1, "true", image=image, registry=registry.host)

    assert (line["why"], line["error"], line["final"]) == ("stage_in", "AccessDenied", True)
    assert "docker login" in line["note"]


def test_an_image_that_is_not_there_is_one_clear_error(
    containers: Engine, driver: Driver, registry: Registry, image: str
) -> None:
    driver.say({"registries": {"config": registry.auth, "insecure": [registry.host]}})
    line = driver.run(1, "true", image=f"{registry.host}/lab/nothing:1", registry=registry.host, login=True)

    assert (line["why"], line["error"], line["final"]) == ("stage_in", "NotFound", True)
    assert line["note"].startswith(f"{registry.host}/lab/nothing:1: there is no such image")


def test_a_login_that_is_none_is_refused_without_being_repeated(driver: Driver, containers: Engine) -> None:
    said = {"registries": {"config": {"host:1": {"auth": "???secret???"}}}}
    reply = driver.ask("POST", "/commands", json.dumps(said).encode())

    assert reply.status == 400
    assert b"host:1" in reply.body
    assert b"secret" not in reply.body


def test_the_login_is_gone_with_the_agent(containers: Engine, driver: Driver, registry: Registry) -> None:
    from scitq.remote import local
    from scitq.remote.agent.remotes import places

    driver.say({"registries": {"config": registry.auth}})
    (folder,) = [Path(place) for place in places(str(driver.root)) if (Path(place) / "config.json").exists()]
    assert (folder / "config.json").stat().st_mode & 0o777 == 0o600
    driver.close()
    local.stop(driver.root)
    assert not folder.exists()


def test_who_has_no_login_is_told_of_and_waits_for_none(
    containers: Engine, driver: Driver, registry: Registry, image: str
) -> None:
    """As for everybody whose docker configuration names a credential helper that knows nothing of this registry."""
    driver.say({"registries": {"config": {registry.host: {}}, "insecure": [registry.host]}})
    line = driver.run(1, "true", image=image, registry=registry.host, login=True)

    assert (line["why"], line["error"], line["final"]) == ("stage_in", "AccessDenied", True)


def test_an_identity_token_is_told_as_one_and_outlives_the_agent(tmp_path: Path) -> None:
    said = {"az.example": {"auth": base64.b64encode(b"someone:").decode(), "identitytoken": "long-lived"}, "b": {}}
    for told in (said, {}):
        registries = Registries(str(tmp_path))
        registries.take({"config": told})
        login = registries.login("az.example")
        assert login == ("az.example", "someone", "long-lived", True)
        assert json.loads(base64.urlsafe_b64decode(_auth(login))) == {
            "serveraddress": "az.example", "identitytoken": "long-lived",
        }  # fmt: skip
        assert registries.has({"login": True, "registry": "b"}) and registries.login("b") is None
    registries.forget()


@pytest.mark.parametrize(
    "entry", [{"auth": "eA=="}, {"identitytoken": "x"}, {"auth": 1}, {"auth": "eDp5", "more": ""}, []]
)
def test_an_entry_that_is_no_login_is_refused(tmp_path: Path, entry: object) -> None:
    with pytest.raises(BadRemotes, match="the login of b is none"):
        Registries(str(tmp_path)).take({"config": {"b": entry}})
