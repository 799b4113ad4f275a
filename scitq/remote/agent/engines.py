"""Container engines, as command lines: how docker, podman, apptainer and singularity are told to run one execution.

Pure: lists of words, made of an order and of what staging found out. Nobody's shell ever sees them. What docker and
podman are told with `create` is followed by `container`; apptainer is no service: its program is the task's process.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

NAMES = ("docker", "podman", "apptainer", "singularity")
"""In this order they are asked whether they can be used."""
BIN = ("apptainer", "singularity")
COMMAND = "/command"
"""Where a script lies in its container."""
WORK_PLACE = "/work"
"""Where the work folder is for who enters what is left of an execution; the execution itself does not see it."""
PLACES = {"INPUT": "/input", "OUTPUT": "/output", "TEMP": "/temp", "RESOURCE": "/resource"}
LOG_CAPS = 8
"""How much an engine keeps of what a container wrote, in caps of one stream; it is read only after an accident."""

# docker's words for what apptainer calls otherwise; the second tells whether a value belongs to it.
_APPTAINER = {
    "--volume": "--bind", "-v": "--bind", "--workdir": "--pwd", "-w": "--pwd", "--env": "--env", "-e": "--env",
    "--hostname": "--hostname", "-h": "--hostname",
}  # fmt: skip


class Order(NamedTuple):
    """What is to be run, as an engine needs to know it."""

    name: str
    label: str
    image: str
    """What `create` is given: the id of an image that is there, or the file that it lies in."""
    argv: Sequence[str]
    is_script: bool
    """Whether `argv` is a shell alone: what it runs lies in the slot's command file."""
    options: Sequence[str]
    places: Mapping[str, str]
    """On this machine, by the names of `PLACES`."""
    command: str
    mounts: Sequence[str] = ()
    """Paths that links in its inputs lead to."""
    env: Mapping[str, str] = {}
    memory: float | None = None
    cpus: float | None = None
    gpus: Sequence[str] = ()
    cap: int = 1 << 30
    cwd: str | None = None
    nice: int = 0
    """How far it stands back."""


def cpu_shares(nice: int) -> int:
    """A container's weight for the CPUs: what the kernel gives a process that stands back so far, of 1024."""
    return max(2, round(1024 / 1.25**nice))


def create(engine: str, order: Order, env_file: str, in_environment: Sequence[str]) -> list[str]:
    """The command line of docker or podman that makes the container; it does not start it.

    Variables come from a file, and those that no line of a file can hold (`in_environment`) from the environment of
    the program: a value may be a secret, and anybody can read a command line.
    """
    options = list(order.options)
    words = [engine, "create", "--name", order.name, "--label", f"scitq.execution={order.label}", "--pull", "never"]
    words += _log(engine, order.cap)
    if not _says(options, "--privileged") and not _says_no_new_privileges(options):
        words += ["--security-opt", "no-new-privileges"]
    options, group = _take_group(options)
    user = "0:0" if engine == "podman" and os.getuid() else f"{os.getuid()}:{os.getgid()}"
    if not _says(options, "--user", "-u"):
        words += ["--user", f"{user.partition(':')[0]}:{group}" if group else user]
    elif group:
        words += ["--group-add", group]
    if order.memory is not None and not _says(options, "--memory", "-m"):
        words += ["--memory", f"{int(order.memory)}b", "--memory-swap", f"{int(order.memory)}b"]
    if order.cpus is not None and not _says(options, "--cpus"):
        words += ["--cpus", f"{order.cpus:g}"]
    # podman's containers are made by its program, and stand back as far as that does.
    if order.nice and engine == "docker" and not _says(options, "--cpu-shares", "-c"):
        words += ["--cpu-shares", str(cpu_shares(order.nice))]
    if engine == "podman":
        options = _podman_gpus(options)
    if order.gpus and not _says(options, "--gpus", "--device"):
        if engine == "podman":
            words += [word for gpu in order.gpus for word in ("--device", f"nvidia.com/gpu={gpu}")]
        else:
            words += ["--gpus", f'"device={",".join(order.gpus)}"']
    for source, target, mode in _mounts(order):
        words += ["--mount", _mount(source, target, mode)]
    words += ["--env-file", env_file]
    for name in in_environment:
        words += ["--env", name]
    if order.cwd is not None:
        words += ["--workdir", order.cwd]
    argv = list(order.argv)
    if order.is_script:
        if not _says(options, "--entrypoint"):
            words += ["--entrypoint", argv[0]]
            argv = [COMMAND]
        else:
            argv = [*argv, COMMAND]
    return [*words, *options, order.image, *argv]


def execute(engine: str, order: Order, env: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The command line and the environment of apptainer or singularity: the process is the task itself.

    With an image's entry point as docker would have it: before the command, unless a script or `--entrypoint` say what is
    to be run.
    """
    options, entry = _for_apptainer(order.options)
    verb = "exec" if order.is_script or entry else "run"
    words = [engine, verb, "--contain", "--cleanenv", "--no-home"]
    words += ["--workdir", order.places["TEMP"]]
    if not _says(options, "--no-privs", "--add-caps", "--keep-privs", "--allow-setuid"):
        words.append("--no-privs")
    if order.gpus and not _says(options, "--nv", "--rocm", "--nvccli"):
        words.append("--nv")
    for source, target, mode in _mounts(order):
        words += ["--bind", f"{source}:{target}:{mode}"]
    if order.cwd is not None and not _says(options, "--pwd"):
        words += ["--pwd", order.cwd]
    argv = [*([entry] if entry else []), *order.argv, *([COMMAND] if order.is_script else [])]
    prefix = engine.upper()
    given = {f"{prefix}ENV_{name}": value for name, value in order.env.items()}
    return [*words, *options, order.image, *argv], {**env, **given}


def enter(
    engine: str, order: Order, script: Sequence[str], work: str, *, env_file: str, in_environment: Sequence[str],
    env: Mapping[str, str], has_terminal: bool,
) -> tuple[list[str], dict[str, str]]:  # fmt: skip
    """The command line and the environment of a container as an execution had it, in which `script` (words for its shell) is run
    instead. It sees the work folder too, and is gone when that has ended."""
    options = [*order.options, "--entrypoint", "/bin/sh"]
    inside = order._replace(argv=script, is_script=False, options=options)
    if engine in BIN:
        words, full = execute(engine, inside, env)
        return [*words[:2], "--bind", f"{work}:{WORK_PLACE}:rw", *words[2:]], full
    words = create(engine, inside, env_file, in_environment)
    more = ["--rm", "--interactive", *(["--tty"] if has_terminal else [])]
    return [engine, "run", *more, "--mount", _mount(work, WORK_PLACE, "rw"), *words[2:]], dict(env)


def _log(engine: str, cap: int) -> list[str]:
    """Where the engine keeps what a container writes: bytes as they are, so that they can be read again, and not without end."""
    most = f"{max(64, LOG_CAPS * cap >> 20)}m"
    if engine == "podman":
        return ["--log-driver", "k8s-file", "--log-opt", f"max-size={most}"]
    options = ("max-file=1", "compress=false", f"max-size={most}")
    return ["--log-driver", "local", *[word for option in options for word in ("--log-opt", option)]]


def _mounts(order: Order) -> list[tuple[str, str, str]]:
    """(here, there, mode) of all that a container sees of this machine."""
    found = [(order.places[name], PLACES[name], "ro" if name == "RESOURCE" else "rw") for name in PLACES]
    if order.is_script:
        found.append((order.command, COMMAND, "ro"))
    return found + [(path, path, "ro") for path in order.mounts]


def _mount(source: str, target: str, mode: str) -> str:
    """A value of --mount, which is a line of CSV."""
    fields = ["type=bind", f"source={source}", f"target={target}", *(["readonly"] if mode == "ro" else [])]
    return ",".join('"' + field.replace('"', '""') + '"' if set(field) & set(',"\n') else field for field in fields)


def _says(options: Sequence[str], *names: str) -> bool:
    """Whether one of these options is among the words."""
    for word in options:
        name = word.partition("=")[0]
        if name in names or (len(word) > 2 and word[:2] in names and word[1] != "-"):
            return True
    return False


def _says_no_new_privileges(options: Sequence[str]) -> bool:
    return any("no-new-privileges" in word for word in options)


def _take_group(options: Sequence[str]) -> tuple[list[str], str | None]:
    """Without `-g GROUP`, which no engine has: the group is part of the user."""
    left, group = [], None
    words = iter(options)
    for word in words:
        if word in ("-g", "--group"):
            group = next(words, None)
        elif word.startswith("--group="):
            group = word.partition("=")[2]
        else:
            left.append(word)
    return left, group


def _podman_gpus(options: Sequence[str]) -> list[str]:
    """docker's --gpus in podman's words, which knows devices by the names of CDI."""
    left: list[str] = []
    words = iter(options)
    for word in words:
        name, equals, value = word.partition("=")
        if name != "--gpus":
            left.append(word)
            continue
        value = (value if equals else next(words, "")).strip("\"'")
        devices = value.partition("device=")[2].split(",") if "device=" in value else ["all"]
        left += [each for gpu in devices for each in ("--device", f"nvidia.com/gpu={gpu}")]
    return left


def _for_apptainer(options: Sequence[str]) -> tuple[list[str], str | None]:
    """docker's words in apptainer's, others as they are; and the program that `--entrypoint` names."""
    left: list[str] = []
    entry = None
    words = iter(options)
    for word in words:
        name, equals, value = word.partition("=")
        if name == "--gpus":
            value = value if equals else next(words, "")
            left.append("--nv")
        elif name == "--entrypoint":
            entry = value if equals else next(words, "")
        elif name in ("--user", "-u", "--group", "-g"):
            value = value if equals else next(words, "")  # it runs as the worker's user, whatever is asked
        elif name == "--network":
            value = value if equals else next(words, "")
            left += ["--net", "--network", value] if value != "host" else []
        elif name in _APPTAINER:
            left += [_APPTAINER[name], value if equals else next(words, "")]
        else:
            left.append(word)
    return left, entry
