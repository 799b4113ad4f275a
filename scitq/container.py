"""The container of a task as values: the name of its image, and the words for the engine's command line.

Pure text. Running them is the agent's (`remote.agent`), asking a registry is `remote.images`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from scitq.errors import BadInput

ENGINES = ("docker", "podman", "apptainer", "singularity")
DOCKER_HUB = "docker.io"
# A request for all GPUs of a worker, whatever their number.
ALL_GPUS = -1

_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[a-z0-9]+(?:[+._-][a-z0-9]+)*:[0-9a-fA-F]{32,}")
_LENGTH = 255

# Options that say again, or against, what scitq itself says of each container.
_OURS = {
    "--name": "scitq names its containers, so as to find them again",
    "--rm": "scitq removes a container once its end is on record",
    "--detach": "scitq stays with the container until its end",
    "--attach": "scitq itself reads what it writes",
    "--interactive": "nobody is there to type",
    "--tty": "there is no terminal",
    "--cidfile": "scitq finds its containers by their names",
    "--restart": "scitq tries again by itself: retry=",
    "--pull": "scitq sees to it that all tries run the same image",
    "--log-driver": "scitq reads what it writes",
    "--log-opt": "scitq reads what it writes",
    "--sig-proxy": "scitq itself ends what has to end",
    "--env-file": "the file would be looked for on the worker: env= gives variables",
}
_OURS_SHORT = {"d": "--detach", "a": "--attach", "i": "--interactive", "t": "--tty"}
# The one-letter options of docker and podman that come without a value: others of such letters may stand behind them.
_ALONE = frozenset("ditPq")


class Image(NamedTuple):
    """The name of an image, taken apart. `registry` is a host (`docker.io` when none was given), `tag` is None for `latest`."""

    registry: str
    repository: str
    tag: str | None
    digest: str | None


def check_image(name: str, value: Any) -> str:
    """The name of an image, checked; `docker://` before it, as apptainer has it, goes.

    Raises:
        BadInput: it is none.
    """
    if not isinstance(value, str):
        raise BadInput(f"{name} must be the name of an image, such as 'ubuntu:24.04', not {type(value).__name__}.")
    text = value.removeprefix("docker://")
    take_apart(text, name)
    return text


def take_apart(text: str, name: str = "container") -> Image:
    """What the name of an image says.

    Raises:
        BadInput: it is none.
    """
    rest, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise _no_image(name, text, f"{digest!r} is no digest (such as sha256: and 64 hexadecimal digits)")
    front, slash, back = rest.rpartition("/")
    last, colon, tag = back.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _no_image(name, text, f"{tag!r} cannot be a tag")
    path = f"{front}{slash}{last}"
    host, slash, below = path.partition("/")
    if slash and ("." in host or ":" in host or host == "localhost" or host != host.lower()):
        if not _HOST.fullmatch(host):
            raise _no_image(name, text, f"{host!r} cannot be a registry")
        path = below
    else:
        host = DOCKER_HUB
    if host == "index.docker.io":
        host = DOCKER_HUB
    for part in path.split("/"):
        if not _PART.fullmatch(part):
            hint = "lower-case letters, digits and . _ - between them"
            raise _no_image(name, text, f"{part!r} is not made of {hint}" if part else "a part of it is empty")
    if len(path) > _LENGTH:
        raise _no_image(name, text, f"it is longer than {_LENGTH} characters")
    if host == DOCKER_HUB and "/" not in path:
        path = f"library/{path}"
    return Image(host, path, tag or None, digest or None)


def _no_image(name: str, text: str, problem: str) -> BadInput:
    return BadInput(
        f"{name}={text!r:.200} is not the name of an image: {problem}. An image is named as in 'ubuntu:24.04'."
    )


def check_options(name: str, value: Any) -> list[str]:
    """Options for the engine's command line as words; a text is split as a shell would, no shell runs.

    Raises:
        BadInput: they are no words, or say what scitq itself has to say.
    """
    if isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError as problem:
            raise BadInput(
                f"{name}={value!r:.200} cannot be split into words ({problem}). Close the quote, or pass a list."
            ) from None
    elif isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        words = [_word(name, word) for word in value]
    else:
        raise BadInput(f"{name} must be a text or a list of words, not {type(value).__name__}.")
    if any("\0" in word for word in words):
        raise BadInput(f"{name}: a word holds a NUL byte; no program can be given one.")
    if words and not words[0].startswith("-"):
        raise BadInput(
            f"{name}: {words[0]!r} is no option. The image is given with container=, its command as the task's."
        )
    for word in words:
        if word in ("-", "--"):
            raise BadInput(f"{name}: {word!r} ends the options; leave it out.")
        for option in _named(word):
            if option in _OURS:
                raise BadInput(f"{name}: {word} cannot be given: {_OURS[option]}. Leave it out.")
    return words


def _word(name: str, word: Any) -> str:
    if isinstance(word, int | float) and not isinstance(word, bool):
        return str(word)
    text = word.__fspath__() if hasattr(word, "__fspath__") else word
    if not isinstance(text, str):
        raise BadInput(f"{name}: a word must be text, a path or a number, not {type(word).__name__}.")
    return text


def _named(word: str) -> Iterator[str]:
    """The options that a word may be, by their long names."""
    if word.startswith("--"):
        yield word.partition("=")[0]
        return
    if word.startswith("-"):
        for letter in word[1:]:
            yield _OURS_SHORT.get(letter, letter)
            if letter not in _ALONE:  # what follows is its value
                return


def gpus_asked(options: Sequence[str]) -> int | None:
    """How many GPUs `--gpus …` (or `--nv`, `--rocm`: all) asks for; `ALL_GPUS` for all of them, None for no word of it."""
    for at, word in enumerate(options):
        name, equals, value = word.partition("=")
        if name in ("--nv", "--rocm"):
            return ALL_GPUS
        if name == "--gpus":
            return _gpus(value if equals else options[at + 1] if at + 1 < len(options) else "")
    return None


def _gpus(value: str) -> int:
    """The number in docker's word: `all`, `2`, `count=2`, `device=0,3`, `"device=0,3"`, with `capabilities=…` beside it."""
    text = value.strip("\"'")
    if text.isdecimal():
        return int(text)
    count = re.search(r"(?:^|,)count=([0-9]+)(?:,|$)", text)
    if count:
        return int(count[1])
    devices = re.search(r"(?:^|[,\"])device=([^\"]*)", text)
    if devices:
        return len([one for one in devices[1].split(",") if one and "=" not in one]) or ALL_GPUS
    return ALL_GPUS
