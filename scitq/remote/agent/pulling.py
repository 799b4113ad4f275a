"""Pulling one image, by a Docker daemon or by a program; what an engine says when it cannot, as errors of ours."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from scitq.fetch.errors import (
    AccessDenied,
    Cancelled,
    FetchError,
    Interrupted,
    NoSpace,
    NotFound,
    Throttled,
    ToolMissing,
)
from scitq.remote.agent.dockerapi import Api, Away

if TYPE_CHECKING:
    from scitq.fetch.retry import Cancel
    from scitq.remote.agent.registries import Login, Registries

Report = Callable[[int, "int | None"], None]

_LIMITED = ("toomanyrequests", "too many requests", "rate limit")
_DENIED = (
    "unauthorized",
    "authentication required",
    "no basic auth",
    "denied",
    "incorrect username or password",
    "forbidden",
)
_ABSENT = ("manifest unknown", "not found", "name unknown", "does not exist", "no matching manifest", "no image found")
_FULL = ("no space left", "disk quota")
_NO_TLS = ("server gave http response to https client", "http: server gave http response")
_BAD_NAME = ("invalid reference",)


def of_message(engine: str, image: str, said: str) -> FetchError:
    """The error for what an engine says of a pull."""
    low, parts = _without_names(said, image), {"uri": image, "phase": "get"}
    said = said.strip()[:600]
    if any(sign in low for sign in _FULL):
        return NoSpace(f"{image}: no space left for it on this worker's disk ({engine}: {said}).", **parts)
    if any(sign in low for sign in _LIMITED):
        return Throttled(f"{image}: its registry asks to wait ({said}).", **parts)
    if any(sign in low for sign in _NO_TLS):
        host = image.partition("/")[0]
        return FetchError(
            f"{image}: {host} speaks no TLS. If it may be trusted, name it under insecure-registries in /etc/docker/daemon.json "
            f"of the worker ({engine}).", **parts,
        )  # fmt: skip
    if "pull access denied" in low or "repository does not exist" in low:
        return NotFound(
            f"{image}: its registry has no such image, or shows it only to those who log in. Look at the name; for a private "
            f"image, run docker login {image.partition('/')[0] if '/' in image else ''}".rstrip() + " on the laptop.", **parts,
        )  # fmt: skip
    if any(sign in low for sign in _ABSENT) and "no such host" not in low:
        return NotFound(f"{image}: there is no such image ({said}).", **parts)
    if any(sign in low for sign in _DENIED):
        return AccessDenied(
            f"{image}: its registry does not let us have it ({said}). Run docker login on the laptop, with a user who may.", **parts
        )  # fmt: skip
    if any(sign in low for sign in _BAD_NAME):
        return NotFound(f"{image}: that is not the name of an image ({said}).", **parts)
    return Interrupted(f"{image}: {engine} could not pull it: {said}", **parts)


def _without_names(said: str, image: str) -> str:
    """The words alone: a port, a digest or the name of a repository may look like any of them."""
    name = image.partition("@")[0]
    front, slash, back = name.rpartition("/")
    whole = f"{front}{slash}{back.partition(':')[0]}"
    host, _, path = whole.partition("/")
    text = said.lower()
    for part in sorted({image, name, whole, path, host, *whole.split("/")}, key=len, reverse=True):
        text = text.replace(part.lower(), " ") if len(part) > 2 else text
    return text


def pull_by_daemon(
    api: Api, image: str, platform: str | None, login: Login | None, report: Report, cancel: Cancel
) -> None:
    """Have a Docker daemon pull it; bytes are reported as it says them. Raises a FetchError."""
    name, tag = _name_and_tag(image)
    query = {"fromImage": name, "tag": tag, **({"platform": platform} if platform else {})}
    headers = {} if login is None else {"X-Registry-Auth": _auth(login)}
    layers: dict[str, tuple[int, int]] = {}
    try:
        answer = api.open("POST", f"/images/create?{urlencode(query)}", headers=headers, is_long=True)
        with answer.sock, cancel.waking(lambda: answer.sock.shutdown(2)):
            if answer.status != 200:
                raise of_message("docker", image, answer.whole().message)
            for said in answer.lines():
                if "errorDetail" in said or "error" in said:
                    raise of_message("docker", image, str(said.get("error") or said["errorDetail"].get("message")))
                _note(said, layers)
                known = sum(total for _, total in layers.values()) or None
                report(sum(done for done, _ in layers.values()), known)
    except Away as error:
        cancel.check(image, "get")
        raise Interrupted(
            f"{image}: the Docker daemon went away while it pulled it: {error}", uri=image, phase="get"
        ) from error
    cancel.check(image, "get")


def _note(said: dict[str, Any], layers: dict[str, tuple[int, int]]) -> None:
    """Of one line of a pull: how much of a layer has come."""
    detail, layer, status = said.get("progressDetail") or {}, said.get("id"), said.get("status", "")
    if layer and status == "Downloading" and detail.get("total"):
        layers[layer] = int(detail["current"]), int(detail["total"])
    elif layer in layers and status in ("Download complete", "Pull complete", "Extracting", "Verifying Checksum"):
        layers[layer] = layers[layer][1], layers[layer][1]


def _name_and_tag(image: str) -> tuple[str, str]:
    """Without a tag a daemon would pull all tags."""
    name, at, digest = image.partition("@")
    if at:
        front, slash, back = name.rpartition("/")
        return f"{front}{slash}{back.partition(':')[0]}", digest
    front, slash, back = name.rpartition("/")
    last, colon, tag = back.partition(":")
    return f"{front}{slash}{last}", tag if colon else "latest"


def _auth(login: Login) -> str:
    import base64
    import json

    said = {"serveraddress": login.host}
    said |= {"identitytoken": login.secret} if login.is_token else {"username": login.user, "password": login.secret}
    return base64.urlsafe_b64encode(json.dumps(said).encode()).decode()


def pull_by_program(
    engine: str,
    image: str,
    platform: str | None,
    registries: Registries,
    registry: str | None,
    root: str,
    cancel: Cancel,
) -> None:
    """Have podman or apptainer pull it. Raises a FetchError."""
    env = dict(os.environ)
    is_insecure = registries.is_insecure(registry)
    login = registries.login(registry)
    words = [engine, "pull"]
    if engine == "podman":
        words += [
            "--quiet",
            *(["--platform", platform] if platform else []),
            *(["--tls-verify=false"] if is_insecure else []),
        ]
        words += [*(["--authfile", str(registries.path)] if login else []), image]
        call(words, env, engine, image, cancel)
        return
    if login:
        env |= {f"{engine.upper()}_DOCKER_USERNAME": login.user, f"{engine.upper()}_DOCKER_PASSWORD": login.secret}
    folder = file_folder(root, image)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    fresh = os.path.join(folder, "fresh.sif")
    source = image if "://" in image else f"docker://{image}"
    call([*words, "--force", *(["--no-https"] if is_insecure else []), fresh, source], env, engine, image, cancel)
    identity = f"sha256:{_sha256(fresh)}"
    os.rename(fresh, os.path.join(folder, "image.sif"))
    with open(os.path.join(folder, "id.new"), "w", encoding="ascii") as file:
        file.write(identity)
    os.rename(os.path.join(folder, "id.new"), os.path.join(folder, "id"))  # last: with it the image is whole


def file_folder(root: str, image: str) -> str:
    """Where apptainer's file of an image lies."""
    name = "".join(
        character if character.isalnum() or character in "._-" else f"%{ord(character):x}" for character in image
    )
    return os.path.join(root, "images", name)


def call(words: list[str], env: dict[str, str], engine: str, image: str, cancel: Cancel) -> None:
    """Run a pull to its end, or until somebody asks to stop."""
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said, env=env, start_new_session=True
            )
        except OSError as error:
            raise ToolMissing(f"{engine}: {error.strerror}", uri=image, phase="get") from error
        with process, cancel.waking(process.kill):
            code = process.wait()
        if cancel.is_set:
            raise Cancelled(f"{image}: cancelled.", uri=image, phase="get")
        if code:
            said.seek(0)
            text = said.read(1 << 20).decode("utf-8", "replace")
            raise of_message(engine, image, " ".join(text.split())[-600:] or f"exit code {code}")


def _sha256(path: str) -> str:
    import hashlib

    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()
