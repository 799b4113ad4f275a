"""The agent as one file: a reproducible zip of the modules that travel, named by its SHA-256.

Built on the laptop, cached in the user's cache folder, checked at use. Sending it to a worker is `bootstrap`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
import marshal
import os
import tempfile
import zipfile
from pathlib import Path

from scitq.fetch import TRAVELS as DATA_MODULES

TRAVELS = tuple(
    f"scitq/remote/agent/{name}.py"
    for name in (
        "__init__", "__main__", "address", "agent", "blobs", "cache", "cgroups", "channel", "collect",
        "commands", "conditions", "container", "containers", "contents", "dockerapi", "dockerrun", "endings",
        "engines", "entered", "fence", "folders", "hierarchies", "http", "images", "joins", "journal", "keeper",
        "keeperlink", "kept", "lease", "leftovers", "limits", "lines", "links", "machine", "manifest", "orders",
        "outputs", "parcels", "pieces", "podmanrun", "polite", "probe", "processes", "publish", "pulling",
        "reader", "recovery", "registries", "remotes", "rented", "returns", "rooms", "root", "sandbox", "slots", "spawn", "stagein",
        "staging", "stagings", "starting", "stores", "strays", "task", "tasks", "token", "trial", "whole",
    )
)  # fmt: skip
"""The agent's modules, as paths inside the zip. They import the standard library, each other, and of what follows when
there is data to be moved."""

DATA = (*(f"scitq/fetch/{name}.py" for name in DATA_MODULES), "scitq/errors.py")
"""What moves data; loaded by an agent that has some to move."""

_PARENTS = ("scitq/__init__.py", "scitq/remote/__init__.py")
_MAIN = b"import sys\n\nfrom scitq.remote.agent.__main__ import main\n\nsys.exit(main(sys.argv[1:]))\n"
_PACKAGE = Path(__file__).resolve().parent.parent

_portable: tuple[tuple[tuple[int, int], ...], bytes] | None = None
_known: tuple[tuple[tuple[int, int], ...], Path, str] | None = None


def build() -> bytes:
    """The zip's bytes: the same for the same sources and the same version of Python."""
    sources = _sources()
    members = dict(sources)
    for name, source in sources.items():
        # Beside its source, so that this Python need not compile at each start; another version ignores it.
        members[name + "c"] = _compiled(name, source)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), members[name])
    return buffer.getvalue()


def portable() -> tuple[bytes, str]:
    """The bundle for another machine, small and for any version of Python, and its SHA-256."""
    global _portable
    stamp = _stamp()
    if _portable is None or _portable[0] != stamp:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
            for name, source in sorted(_sources().items()):
                member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                member.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(member, source)
        _portable = (stamp, buffer.getvalue())
    data = _portable[1]
    return data, hashlib.sha256(data).hexdigest()


def _sources() -> dict[str, bytes]:
    sources = {"__main__.py": _MAIN, **dict.fromkeys(_PARENTS, b"")}
    for name in (*TRAVELS, *DATA):
        sources[name] = (_PACKAGE.parent / name).read_bytes()
    return sources


def _compiled(name: str, source: bytes) -> bytes:
    """A .pyc that is used without looking at the source (PEP 552, unchecked hash)."""
    code = compile(source, name, "exec", dont_inherit=True, optimize=0)
    flags = (0b01).to_bytes(4, "little")
    # Version 2 writes no back references: which there are depends on what else this process has in memory.
    return importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source) + marshal.dumps(code, 2)


def bundle() -> tuple[Path, str]:
    """The bundle's file and its SHA-256; built when the cache has none for these sources."""
    global _known
    stamp = _stamp()
    if _known is not None and _known[0] == stamp and is_whole(_known[1], _known[2]):
        return _known[1], _known[2]
    folder = _cache_folder()
    inputs = repr((stamp, _PACKAGE, importlib.util.MAGIC_NUMBER)).encode()
    index = folder / f"sources-{hashlib.sha256(inputs).hexdigest()[:32]}"
    digest = _read(index)
    path = folder / f"agent-{digest}.pyz"
    if not digest or not is_whole(path, digest):
        data = build()
        digest = hashlib.sha256(data).hexdigest()
        path = folder / f"agent-{digest}.pyz"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        store(path, data)
        store(index, digest.encode())
    _known = (stamp, path, digest)
    return path, digest


def _stamp() -> tuple[tuple[int, int], ...]:
    """What changes when a source changes; cheaper than reading them all."""
    found = [os.stat(_PACKAGE.parent / name) for name in (*TRAVELS, *DATA, "scitq/remote/bundle.py")]
    return tuple((each.st_mtime_ns, each.st_size) for each in found)


def _cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "scitq"


def _read(index: Path) -> str:
    try:
        return index.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def is_whole(path: Path, digest: str) -> bool:
    """Whether the file is there and has that SHA-256."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except OSError:
        return False


def store(path: Path, data: bytes) -> None:
    """Write a private file, whole or not at all."""
    handle, fresh = tempfile.mkstemp(dir=path.parent, prefix=".agent-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(fresh, path)
    except BaseException:
        os.unlink(fresh)
        raise
