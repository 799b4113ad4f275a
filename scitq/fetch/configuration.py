"""The rclone configuration of this machine: which remotes there are, what is said of one, and bringing in another's.

Never on a worker: a worker is given the sections that its tasks name, and nothing else. What is read here are secrets: they
go into no log, no error and no command line. Only `install` changes the user's configuration, and only when it is called.
"""

from __future__ import annotations

import configparser
import contextlib
import json
import os
import re
import threading
import time
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from scitq.fetch.errors import BadURI, FetchError, NotFound
from scitq.fetch.rclone import remote_names
from scitq.fetch.rclonerun import Run, unknown
from scitq.fetch.settings import Settings
from scitq.fetch.uri import Address

Sections = dict[str, dict[str, str]]
# What may be shown of a section; everything else might be a secret, in some backend or other.
_SHOWN = frozenset({
    "type", "provider", "endpoint", "region", "location_constraint", "acl", "storage_class", "account", "url",
    "vendor", "host", "port", "user", "remote", "remotes", "upstreams", "env_auth", "force_path_style",
    "no_check_bucket", "shell_type", "disable_hashcheck", "use_emulator", "project_number", "bucket_policy_only",
    "team_drive", "root_folder_id", "drive_type", "auth", "auth_url", "tenant", "domain", "tenant_domain",
    "storage_url", "chunk_size", "upload_cutoff", "filename_encryption", "directory_name_encryption", "explicit_tls",
    "tls", "scope", "directory_markers", "hard_delete",
})  # fmt: skip
_OTHER = re.compile(r"(?:^|[\s,\"'])([A-Za-z0-9_][A-Za-z0-9_.+@ -]*):")

_gate = threading.Lock()
_known: dict[str, tuple[Stamp, tuple[str, ...]]] = {}


class Stamp(NamedTuple):
    """What tells one state of the configuration from another: the file's, and what the environment says of remotes."""

    path: str
    modified_ns: int
    size: int
    environment: int


def stamp(settings: Settings | None = None) -> Stamp:
    """The configuration as it is now."""
    path = (settings or Settings()).rclone_config_path()
    said = hash(tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("RCLONE_"))))
    try:
        found = os.stat(path)
    except OSError:
        return Stamp(path, 0, 0, said)
    return Stamp(path, found.st_mtime_ns, found.st_size, said)


def names(settings: Settings | None = None) -> tuple[str, ...]:
    """The remotes that there are. rclone is asked once for each state of the configuration."""
    used = settings or Settings()
    now = stamp(used)
    with _gate:  # ten threads that submit ask once
        known = _known.get(now.path)
        if known is None or known[0] != now:
            known = _known[now.path] = (now, remote_names(used))
    return known[1]


def check(address: Address, settings: Settings | None = None) -> None:
    """Raise RemoteUnknown unless the remote of an address is configured."""
    there = names(settings)
    if address.remote is not None and address.remote not in there:
        raise unknown(address, settings or Settings(), there)


def sections(wanted: Iterable[str], settings: Settings | None = None) -> Sections:
    """What the configuration says of these remotes, and of those that they stand on (an alias, a crypt, a union)."""
    return closure(wanted, _dump(settings or Settings()))


def closure(wanted: Iterable[str], everything: Sections) -> Sections:
    """These sections, and those that they stand on."""
    found: Sections = {}
    left = list(wanted)
    while left:
        name = left.pop()
        if name in found or name not in everything:
            continue
        found[name] = everything[name]
        left += [other for value in found[name].values() for other in _OTHER.findall(value) if other in everything]
    return found


def _dump(settings: Settings) -> Sections:
    said = Run(settings, None, "info").answer("config", [], ["dump"], mark=False)
    told = json.loads(said or b"{}")
    found = {str(name): {str(key): str(value) for key, value in keys.items()} for name, keys in told.items()}
    # (A value of several lines, which only the environment can hold, cannot stand in a worker's file.)
    # What the environment says counts more; rclone writes names in capitals there, and _ for what is no letter.
    for name in names(settings):
        prefix = f"RCLONE_CONFIG_{re.sub('[^A-Z0-9]', '_', name.upper())}_"
        more = {
            key[len(prefix) :].lower(): value
            for key, value in os.environ.items()
            if key.startswith(prefix) and not set(value) & set("\n\r")
        }
        if more:
            found[name] = {**found.get(name, {}), **more}
    return found


def masked(section: Mapping[str, str]) -> dict[str, str]:
    """A section for people: what may be a secret is not shown."""
    shown = {}
    for key, value in section.items():
        # A URL may hold a password.
        is_plain = key in _SHOWN and "@" not in value and "?" not in value
        shown[key] = value if is_plain or not value else "***"
    return shown


def check_each(settings: Settings | None = None) -> dict[str, FetchError | None]:
    """Whether each remote can be listed: None, or what is wrong."""
    from scitq.fetch.transfer import list_content

    used = settings or Settings()
    found: dict[str, FetchError | None] = {}
    for name in names(used):
        try:
            list_content(Address(name, (), ""), no_rec=True, settings=used)
            found[name] = None
        except FetchError as problem:
            found[name] = problem
    return found


class Merge(NamedTuple):
    """What bringing a file into the user's configuration would do."""

    source: str
    target: str
    new: list[str]
    changed: list[str]
    same: list[str]


def compare(source: str, settings: Settings | None = None) -> Merge:
    """What `install` would do.

    Raises:
        NotFound, BadURI: there is no such file, or it is no rclone configuration.
    """
    target = (settings or Settings()).rclone_config_path()
    theirs, ours = _read(source, must_exist=True), _read(target, must_exist=False)
    if not theirs.sections():
        raise BadURI(f"{source}: there is no remote in it.", uri=source, phase="parse")
    merge = Merge(source, target, [], [], [])
    for name in theirs.sections():
        if not ours.has_section(name):
            merge.new.append(name)
        else:
            (merge.same if dict(theirs[name]) == dict(ours[name]) else merge.changed).append(name)
    return merge


def install(source: str, settings: Settings | None = None) -> str | None:
    """Merge a file's remotes into the user's configuration, whole or not at all; returns where the old one is kept."""
    target = compare(source, settings).target
    theirs, ours = _read(source, must_exist=True), _read(target, must_exist=False)
    for name in theirs.sections():
        ours[name] = theirs[name]
    folder = os.path.dirname(target)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    backup = None
    real = os.path.realpath(target)  # a link stays one
    if os.path.exists(real):
        backup = f"{target}.{time.strftime('%Y%m%d-%H%M%S')}.{os.urandom(2).hex()}"
        with open(real, "rb") as file:
            _write(backup, file.read())
    part = f"{real}.{os.urandom(4).hex()}.part"
    text = _Text()
    ours.write(text)
    try:
        _write(part, "".join(text.parts).encode("utf-8", "surrogateescape"))
        os.replace(part, real)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
    return backup


class _Text:
    """What configparser writes to."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def write(self, text: str) -> None:
        self.parts.append(text)


def _write(path: str, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _read(path: str, *, must_exist: bool) -> Any:
    parser = configparser.RawConfigParser(
        delimiters=("=",), comment_prefixes=("#", ";"), strict=False, default_section="\0", interpolation=None
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except FileNotFoundError:
        if must_exist:
            raise NotFound(f"{path}: there is no such file.", uri=path, phase="parse") from None
        return parser
    except OSError as error:
        raise BadURI(f"{path}: {error.strerror}.", uri=path, phase="parse") from None
    if "RCLONE_ENCRYPT_V0" in text[:1000]:
        raise BadURI(
            f"{path}: it is encrypted; put the remotes together with `rclone config` itself.", uri=path, phase="parse"
        )
    try:
        parser.read_string(text)
    except configparser.Error as error:
        # Its message would repeat the line, which may be a secret.
        line = getattr(error, "lineno", None) or next((number for number, _ in getattr(error, "errors", ())), "?")
        raise BadURI(f"{path}: line {line} is no part of an rclone configuration.", uri=path, phase="parse") from None
    return parser


__all__ = [
    "Merge",
    "Sections",
    "Stamp",
    "check",
    "check_each",
    "closure",
    "compare",
    "install",
    "masked",
    "names",
    "sections",
    "stamp",
]
