"""The user's logins for registries, from the configuration that `docker login` writes."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from scitq.errors import RegistryError
from scitq.remote import logins
from scitq.remote.logins import Login, for_agent, login_of, may_have

HELPER = """#!/bin/sh
read key
echo "$1 $key" >> "$(dirname "$0")/asked"
case $key in
  quay.example) echo '{"ServerURL":"quay.example","Username":"ann","Secret":"from the keyring"}' ;;
  token.example) echo '{"Username":"<token>","Secret":"long-lived"}' ;;
  odd.example) echo 'nonsense' ;;
  broken.example) echo 'keyring is locked s3cret'; exit 1 ;;
  *) echo 'credentials not found in native keychain'; exit 1 ;;
esac
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the configuration is, with a credential helper on PATH."""
    programs = tmp_path / "bin"
    programs.mkdir()
    helper = programs / "docker-credential-lab"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def write(folder: Path, **configuration: Any) -> None:
    """The configuration."""
    (folder / "config.json").write_text(json.dumps(configuration))


def auth(user: str, secret: str) -> dict[str, str]:
    """An entry as docker writes it."""
    return {"auth": base64.b64encode(f"{user}:{secret}".encode()).decode()}


def said(login: Login | None) -> tuple[str, str, bool] | None:
    """What a login holds."""
    return None if login is None else (login.user, login.secret, login.is_token)


def test_only_the_entry_of_the_registry_is_taken(folder: Path) -> None:
    write(folder, auths={"quay.example": auth("ann", "a:b"), "other.example": auth("bob", "c")})

    assert said(login_of("quay.example")) == ("ann", "a:b", False)
    assert login_of("third.example") is None
    assert (may_have("quay.example"), may_have("third.example")) == (True, False)
    assert for_agent("quay.example", login_of("quay.example")) == {"quay.example": auth("ann", "a:b")}
    assert for_agent("third.example", None) == {"third.example": {}}


def test_no_configuration_holds_no_login(folder: Path) -> None:
    assert login_of("docker.io") is None and not may_have("docker.io")


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "docker.io", "index.docker.io"])
def test_docker_hub_has_several_names(folder: Path, key: str) -> None:
    write(folder, auths={key: auth("ann", "x")})

    assert said(login_of("docker.io")) == ("ann", "x", False)
    assert set(for_agent("docker.io", login_of("docker.io"))) == {"docker.io", "https://index.docker.io/v1/"}


def test_a_registry_is_found_under_its_address_too(folder: Path) -> None:
    write(folder, auths={"https://quay.example/v2/": auth("ann", "x")})

    assert said(login_of("quay.example")) == ("ann", "x", False)


def test_helpers_are_asked_for_what_is_theirs(folder: Path) -> None:
    write(folder, credHelpers={"quay.example": "lab"}, auths={"quay.example": {}, "own.example": auth("me", "y")})

    assert said(login_of("quay.example")) == ("ann", "from the keyring", False)
    assert said(login_of("own.example")) == ("me", "y", False)
    assert may_have("quay.example") and not may_have("third.example")
    assert (folder / "bin/asked").read_text() == "get quay.example\n"


def test_a_store_for_all_is_asked_for_each(folder: Path) -> None:
    write(folder, credsStore="lab", auths={"own.example": auth("me", "y")})

    assert said(login_of("quay.example")) == ("ann", "from the keyring", False)
    assert said(login_of("token.example")) == ("<token>", "long-lived", True)
    assert said(login_of("own.example")) == ("me", "y", False)
    assert login_of("third.example") is None and may_have("third.example")
    token = login_of("token.example")
    assert token is not None and token.entry()["identitytoken"] == "long-lived"


@pytest.mark.parametrize(
    ("configuration", "problem"),
    [
        ("{", "not what docker login writes"),
        ('{"auths": []}', "not what docker login writes"),
        ('{"auths": {"quay.example": {"auth": "%%%"}}}', "damaged: docker login quay.example"),
        ('{"credsStore": "none-of-that-name"}', "docker-credential-none-of-that-name, which is not on PATH"),
        ('{"credsStore": "../bin/sh -c"}', "cannot be the name"),
    ],
)
def test_a_configuration_that_does_not_work_says_what_to_do(folder: Path, configuration: str, problem: str) -> None:
    (folder / "config.json").write_text(configuration)
    with pytest.raises(RegistryError, match=problem):
        login_of("quay.example")


def test_a_helper_that_fails_is_named_and_what_it_says_is_not_repeated(folder: Path) -> None:
    write(folder, credsStore="lab")

    for registry in ("broken.example", "odd.example"):
        with pytest.raises(RegistryError, match="docker-credential-lab") as failed:
            login_of(registry)
        assert "s3cret" not in str(failed.value) and "nonsense" not in str(failed.value)


def test_a_changed_configuration_is_seen(folder: Path) -> None:
    write(folder, auths={"quay.example": auth("ann", "old")})
    before = logins.stamp()
    assert said(login_of("quay.example")) == ("ann", "old", False)
    write(folder, auths={"quay.example": auth("ann", "newer")})

    assert logins.stamp() != before
    assert said(login_of("quay.example")) == ("ann", "newer", False)


def test_nothing_shows_a_secret_by_accident(folder: Path) -> None:
    write(folder, auths={"quay.example": auth("ann", "s3cret")})

    assert "s3cret" not in repr(login_of("quay.example")) and "ann" not in repr(login_of("quay.example"))


def test_registries_without_tls_are_those_of_this_machine_and_those_that_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(logins.INSECURE, "lab:5000, 10.0.0.1:5000")

    insecure = ["lab:5000", "10.0.0.1:5000", "127.0.0.1:5000", "localhost", "[::1]:80"]
    assert [logins.is_insecure(host) for host in insecure] == [True] * 5
    assert [logins.is_insecure(host) for host in ("lab", "docker.io", "127.evil.example")] == [False] * 3
