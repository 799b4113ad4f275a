"""Container images on this machine: which engine there is, an image made present once for all who want it, its digest.

Blocking work, done in the threads of staging. What is told of an image: the `engine`, its `id`, its `digest` as the
registry has it (null for one that was built here), and for ourselves the `socket` of the daemon or the `file` it is in.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from scitq.fetch.errors import AccessDenied, Cancelled, FetchError, NotFound, Throttled
from scitq.fetch.retry import Policy, retrying
from scitq.remote.agent import engines
from scitq.remote.agent.cache import Coming
from scitq.remote.agent.dockerapi import Api, Away
from scitq.remote.agent.pulling import file_folder, pull_by_daemon, pull_by_program

if TYPE_CHECKING:
    from scitq.fetch.settings import Settings
    from scitq.remote.agent.registries import Registries
    from scitq.remote.agent.staging import Job

SETTING = "SCITQ_CONTAINER_ENGINE"
ANSWER_S = 30.0
ABSENT_S = 30.0
"""For how long it is believed that no engine answers."""


class NoEngine(FetchError):
    """No container engine answers on this worker."""


class EngineFailed(FetchError):
    """The engine is there, and does not do what it is for."""


class Images:
    """All images that executions of this worker want."""

    def __init__(self, root: str, registries: Registries, woken: Callable[[str, FetchError | None], None]) -> None:
        self.root = root
        self.registries = registries
        self.woken = woken
        self.coming: set[str] = set()
        """What some thread is pulling, by name as others wait for it."""
        self._engines: dict[str, dict[str, Any]] = {}
        self._absent: dict[str, tuple[float, str]] = {}
        self._lock = threading.Lock()

    def present(self, job: Job, settings: Settings) -> dict[str, Any]:
        """The image of an execution, made present. Coming: another thread is at it."""
        ask = job.ask
        engine = self._engine(ask.get("engine") or os.environ.get(SETTING))
        platform = _platform(ask.get("options") or [])
        if (found := self._find(engine, ask["image"], platform)) is not None:
            return found
        name = f"image {engine['engine']} {ask['image']} {platform or ''}"
        with self._lock:
            if name in self.coming:
                raise Coming(name)
            self.coming.add(name)
        failure: FetchError | None = None
        try:
            if (found := self._find(engine, ask["image"], platform)) is not None:
                return found  # it came between the two looks
            self._pull(engine, ask, platform, job, settings)
            if (found := self._find(engine, ask["image"], platform)) is None:
                raise EngineFailed(
                    f"{ask['image']}: {engine['engine']} has pulled it and does not have it.",
                    uri=ask["image"],
                    phase="get",
                )
            return found
        except Cancelled:
            raise  # the others begin anew
        except FetchError as error:
            error.more = {"final": True} if isinstance(error, (NotFound, AccessDenied)) else {}  # type: ignore[attr-defined]
            failure = error
            raise
        finally:
            with self._lock:
                self.coming.discard(name)
            self.woken(name, failure)

    # Engines.

    def _engine(self, wanted: str | None) -> dict[str, Any]:
        with self._lock:
            key = wanted or ""
            if key in self._engines:
                return self._engines[key]
            at, why = self._absent.get(key, (float("-inf"), ""))
            if time.monotonic() - at > ABSENT_S:
                found, why = choose(wanted)
                if found is not None:
                    self._engines[key] = found
                    return found
                self._absent[key] = time.monotonic(), why
        raise NoEngine(why, uri="", phase="get")

    def _find(self, engine: dict[str, Any], image: str, platform: str | None) -> dict[str, Any] | None:
        """An image that is here already."""
        if engine["engine"] in engines.BIN:
            return self._find_file(engine, image)
        said = _by_daemon(engine, image) if engine["engine"] == "docker" else _by_program(engine, image)
        if said is None:
            return None
        if isinstance(said, str):
            with self._lock:
                self._engines.clear()  # look again which engine answers
            raise EngineFailed(f"{engine['engine']} does not work on this worker: {said}", uri=image, phase="get")
        if platform and platform.split("/")[1:2] not in ([], [said.get("Architecture")]):
            return None
        identity = said["Id"] if ":" in said["Id"] else f"sha256:{said['Id']}"  # podman leaves that out
        return {**engine, "id": identity, "digest": _digest_of(image, said.get("RepoDigests") or [])}

    def _find_file(self, engine: dict[str, Any], image: str) -> dict[str, Any] | None:
        if image.startswith("/") and os.path.exists(image):
            return {**engine, "id": image, "digest": None, "file": image}
        folder = file_folder(self.root, image)
        try:
            with open(os.path.join(folder, "id"), encoding="ascii") as file:
                identity = file.read().strip()
        except OSError:
            return None
        digest = image if "@" in image else None
        return {**engine, "id": identity, "digest": digest, "file": os.path.join(folder, "image.sif")}

    # Pulling.

    def _pull(
        self, engine: dict[str, Any], ask: dict[str, Any], platform: str | None, job: Job, settings: Settings
    ) -> None:
        image, login = ask["image"], self.registries.login(ask.get("registry"))

        def report(done: int, total: int | None) -> None:
            job.sizes[f"image {image}"] = done, total

        def once() -> None:
            settings.cancel.check(image, "get")
            if engine["engine"] == "docker":
                pull_by_daemon(Api(engine["socket"]), image, platform, login, report, settings.cancel)
            else:
                pull_by_program(
                    engine["engine"], image, platform, self.registries, ask.get("registry"), self.root, settings.cancel
                )

        while True:
            try:
                retrying(once, settings.retry, settings.cancel)
                return
            except Throttled as error:
                # A limit of the registry for a time: hours, perhaps. Its own time limit ends the waiting, if it has one.
                job.say(f"{error} Waiting; the limit of time for staging is stage_in_timeout=.")
                if settings.cancel.wait(LIMITED.wait_s(job.waits, error.retry_after_s)):
                    raise Cancelled(f"{image}: cancelled.", uri=image, phase="get") from error
                job.waits += 1


LIMITED = Policy(first_wait_s=30.0, longest_wait_s=900.0)


def _by_daemon(engine: dict[str, Any], image: str) -> dict[str, Any] | str | None:
    """What a Docker daemon says of an image; None when it has none of that name, a text when it does not work."""
    try:
        answer = Api(engine["socket"]).ask("GET", f"/images/{quote(image)}/json")
    except Away as error:
        return str(error)
    if answer.status == 404:
        return None
    return answer.said if answer.status == 200 else answer.message


def _by_program(engine: dict[str, Any], image: str) -> dict[str, Any] | str | None:
    """The same of podman."""
    code, out, err = run([engine["engine"], "image", "inspect", image])
    if code:
        low = err.lower()
        return None if "no such image" in low or "image not known" in low or "no such object" in low else last(err)
    (said,) = json.loads(out)
    found: dict[str, Any] = said
    return found


def remove_container(image: dict[str, Any], name: str, *, is_over: bool = True) -> None:
    """Remove a container. `is_over`: its end is on record, whatever it does; else only one that does not run.

    EngineFailed when the engine does not do it now.
    """
    engine = image["engine"]
    if engine == "docker":
        until = time.monotonic() + ANSWER_S
        try:
            while True:
                answer = Api(image["socket"]).ask("DELETE", f"/containers/{name}?v=1{'&force=1' if is_over else ''}")
                if answer.status in (204, 404):
                    return
                # Another thread of ours, or an agent before this one, has asked for it already.
                if not (answer.status == 409 and "in progress" in answer.message) or time.monotonic() > until:
                    raise EngineFailed(f"{name}: cannot be removed: {answer.message}")
                time.sleep(0.02)
        except Away as error:
            raise EngineFailed(f"{name}: cannot be removed: {error}") from error
    elif engine == "podman":
        force = ["--force", "--time", "0"] if is_over else []
        code, _, err = run([engine, "rm", *force, "--volumes", "--ignore", name])
        if code:
            raise EngineFailed(f"{name}: cannot be removed: {last(err)}")


def run(words: list[str], env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Run one of the engine's programs; its exit code and what it wrote."""
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, timeout=ANSWER_S, env=env, check=False
        )
    except subprocess.TimeoutExpired:
        return 125, "", f"{words[0]} did not answer within {ANSWER_S:.0f} s"
    except OSError as error:
        return 125, "", f"{words[0]}: {error.strerror}"
    return done.returncode, done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")


def last(text: str) -> str:
    """The line that says it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:500] if lines else "it says nothing"


def choose(wanted: str | None) -> tuple[dict[str, Any] | None, str]:
    """The engine that is asked for, or the first that answers; else None and a sentence."""
    problems = []
    for name in (wanted,) if wanted else engines.NAMES:
        if name not in engines.NAMES:
            return None, f"{SETTING}={name}: no engine that scitq knows; it is one of {', '.join(engines.NAMES)}."
        if shutil.which(name) is None:
            if wanted:
                problems.append(f"{name} is not installed")
            continue
        if name in engines.BIN:
            return {"engine": name}, ""
        code, _, err = run(
            [name, "version", "--format", "{{.Server.Version}}" if name == "docker" else "{{.Client.Version}}"]
        )
        if code:
            problems.append(f"{name} does not answer: {last(err)}")
            continue
        if name == "podman":
            return {"engine": name}, ""
        if (socket := _socket()) is not None:
            return {"engine": name, "socket": socket}, ""
        problems.append("docker's daemon is not on this machine (DOCKER_HOST, or its context)")
    text = "; ".join(problems) or f"none of {', '.join(engines.NAMES)} is installed"
    return (
        None,
        f"This worker has no container engine: {text}. Install one, or start it, and see that its user may use it.",
    )


def _socket() -> str | None:
    """The Unix socket of the daemon that docker's program talks to."""
    host = os.environ.get("DOCKER_HOST", "")
    if not host:
        code, out, _ = run(["docker", "context", "inspect", "--format", "{{.Endpoints.docker.Host}}"])
        host = out.strip() if not code else "unix:///var/run/docker.sock"
    return host[len("unix://") :] if host.startswith("unix://") else None


def _platform(options: list[str]) -> str | None:
    """What --platform says."""
    for at, word in enumerate(options):
        name, equals, value = word.partition("=")
        if name == "--platform":
            return value if equals else options[at + 1] if at + 1 < len(options) else None
    return None


def _digest_of(image: str, digests: list[str]) -> str | None:
    """Of the digests of an image, by repository, the one under the name that was asked for."""
    repository = _repository(image)
    found = [each for each in digests if _repository(each) == repository]
    if "@" in image:
        found = [each for each in found if each.partition("@")[2] == image.partition("@")[2]] or found
    return found[0] if found else None


def _repository(image: str) -> str:
    name = image.partition("@")[0]
    front, slash, back = name.rpartition("/")
    name = f"{front}{slash}{back.partition(':')[0]}"
    for prefix in ("docker.io/", "index.docker.io/", "library/"):
        name = name[len(prefix) :] if name.startswith(prefix) else name
    return name
