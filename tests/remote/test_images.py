"""What the name of an image stands for, by its registry. The registry is a small one in this process."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from scitq.errors import ImageNotFound, LoginRefused, RegistryError
from scitq.remote.images import digest_of, resolve
from scitq.remote.logins import Login
from tests.remote.registry import DIGEST, registry

ANN = Login("ann", "s3cret:x")


@pytest.fixture(autouse=True)
def nobody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No docker daemon, and no logins but those of the test."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))


def test_an_image_of_an_open_registry_is_known_by_its_digest() -> None:
    with registry() as lab:
        assert digest_of(f"{lab.host}/lab/tool:1.0") == f"{lab.host}/lab/tool@{DIGEST}"
        # Only asked about, not fetched.
        assert [(verb, permit) for verb, _, permit in lab.asked] == [("HEAD", "")]


def test_a_registry_that_does_not_say_the_digest_is_asked_for_the_list_itself() -> None:
    with registry() as lab:
        lab.says_digest = False
        assert digest_of(f"{lab.host}/lab/tool:1.0").endswith("@sha256:" + hashlib.sha256(b"{}").hexdigest())


@pytest.mark.parametrize("mode", ["basic", "bearer"])
def test_a_login_is_shown_where_it_is_wanted(mode: str) -> None:
    with registry(mode) as lab:
        assert digest_of(f"{lab.host}/lab/tool:1.0", ANN).endswith(DIGEST)
        with pytest.raises(LoginRefused, match="docker login 127") as refused:
            digest_of(f"{lab.host}/lab/tool:1.0", Login("ann", "guess"))
        with pytest.raises(LoginRefused, match=r"wants a login|refuses|refused"):
            digest_of(f"{lab.host}/lab/tool:1.0")
        assert resolve(f"{lab.host}/lab/tool:1.0", Login("ann", "guess")) is None
        assert "guess" not in str(refused.value) and "guess" not in repr(refused.value.parts)


def test_an_identity_token_is_exchanged() -> None:
    with registry("bearer") as lab:
        assert digest_of(f"{lab.host}/lab/tool:1.0", Login("<token>", "long-lived", is_token=True)).endswith(DIGEST)


def test_a_missing_image_a_busy_registry_and_no_registry_are_told_apart() -> None:
    with registry() as lab:
        with pytest.raises(ImageNotFound, match=r"there is no image 127.*lab/tool:2.0"):
            digest_of(f"{lab.host}/lab/tool:2.0")
        lab.mode = "busy"
        with pytest.raises(RegistryError, match="less often"):
            digest_of(f"{lab.host}/lab/tool:1.0")
        host = lab.host
    with pytest.raises(RegistryError, match=rf"the registry {host} cannot be asked: .*refused"):
        digest_of(f"{host}/lab/tool:1.0")
    assert resolve(f"{host}/lab/tool:1.0") is None


def test_an_image_that_is_pinned_already_is_not_asked_about() -> None:
    with registry() as lab:
        assert digest_of(f"{lab.host}/lab/tool:1.0@{DIGEST}") == f"{lab.host}/lab/tool@{DIGEST}"
        assert lab.asked == []


def test_a_login_goes_nowhere_without_tls_but_to_what_was_called_insecure(monkeypatch: pytest.MonkeyPatch) -> None:
    """On loopback, as here, everything goes; a realm elsewhere without TLS is refused."""
    with registry("bearer") as lab:
        lab.realm = "ftp://elsewhere/token"
        with pytest.raises(RegistryError, match="not safe"):
            digest_of(f"{lab.host}/lab/tool:1.0", ANN)
        assert all(not permit for _, _, permit in lab.asked)
