"""The data of a run as entities of a research object: files and folders by their addresses, with sizes and checksums; images.

Pure but for looking up what inputs were when they were read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from scitq.addresses import parents_of
from scitq.container import take_apart
from scitq.errors import BadInput
from scitq.store import manifests, reporting
from scitq.store.reporting import Row
from scitq.task import Spec
from scitq.workflow.reportfacts import File, Image
from scitq.workflow.reportgather import shown

if TYPE_CHECKING:
    import apsw

Entity = dict[str, Any]
_SAFE = "/:@!$&'()*+,;=~"
_DOCKER = "https://w3id.org/ro/terms/workflow-run#DockerImage"
_GLOB = re.compile(r"[*?\[]")


def ref(id: str) -> dict[str, str]:
    """A reference."""
    return {"@id": id}


def uri_of(address: str) -> str:
    """An address as an identifier: percent-encoded, a path of this machine as `file://…`."""
    raw = address.encode(errors="surrogateescape")
    if re.match(r"https?://", address):
        return quote(raw, safe=_SAFE + "?%#[]")
    return quote(f"file://{address}".encode(errors="surrogateescape") if address.startswith("/") else raw, safe=_SAFE)


def image_entity(id: str, image: Image) -> Entity:
    """A container image, with the digest of what ran."""
    entity: Entity = {"@id": id, "@type": "ContainerImage", "additionalType": ref(_DOCKER), "name": image.name}
    try:
        apart = take_apart(image.name)
    except BadInput:
        return entity
    entity |= {"registry": apart.registry, "name": apart.repository, "tag": apart.tag or "latest"}
    digest = (image.bits or "").rpartition("@")[2] if image.bits else apart.digest
    if digest and digest.startswith("sha256:") and "@" in (image.bits or image.name):
        entity["sha256"] = digest.removeprefix("sha256:")
    elif image.bits:
        entity["description"] = f"What ran was {image.bits}, known on its machine only."
    return entity


class Data:
    """Files and folders that executions read and left, each described once. `top`: what no folder of them holds."""

    def __init__(self, db: apsw.Connection, checksums: Mapping[tuple[str, str, str | None], str]) -> None:
        self._db, self._checksums = db, checksums
        self._open: list[Entity] = []
        self._known: dict[str, None] = {}
        self._left: dict[int, str] = {}
        self.top: dict[str, None] = {}
        self.collections: dict[str, None] = {}
        self.from_outside: list[str] = []

    def settled(self) -> Iterator[Entity]:
        """The entities that came up since the last time."""
        entities, self._open = self._open, []
        yield from entities

    def of_execution(self, row: Row, spec: Spec) -> tuple[list[str], list[str]]:
        """What an execution read and what it left, by their ids. `from_outside` is then what no task of ours made."""
        self.from_outside = []
        used: dict[str, None] = {}
        if row.parts is not None:
            for sources in json.loads(row.parts):
                for address, _, digest in sources:
                    used.update(dict.fromkeys(self._source(address, digest)))
        else:
            for address in (*spec.input, *spec.resource):
                used.update(dict.fromkeys(self._source(shown(address).partition("|")[0], None)))
        left: list[str] = []
        if row.address is not None:
            files = [
                File(name, size, f"md5:{md5}" if md5 else None) for name, size, md5 in json.loads(row.files or "[]")
            ]
            address = shown(manifests._named(row.address))
            if files:
                left = [self._folder(address, files)]
                self._left[row.task] = left[0]
        return list(used), left

    def _source(self, address: str, digest: str | None) -> list[str]:
        made_by = parents_of([address])
        if made_by:
            return [self._left[task] for task in made_by if task in self._left]
        found = None if digest is None else reporting.files_behind(self._db, digest)
        files = None if found is None else [self._summed(address, File(*file)) for file in found]
        id = self._outside(address, files)
        self.from_outside.append(id)
        return [id]

    def _summed(self, address: str, file: File) -> File:
        digest = self._checksums.get((address, file.name, file.mark))
        return file if digest is None else file._replace(mark=f"sha256:{digest}")

    def _outside(self, address: str, files: Sequence[File] | None) -> str:
        if _GLOB.search(address) and not re.match(r"https?://", address):
            return self._collection(address, files or [])
        if files is None:
            return (
                self._folder(address, [])
                if address.endswith("/")
                else self._file(address, File(_last(address), None, None), is_top=True)
            )
        if len(files) == 1 and files[0].name == _last(address):
            return self._file(address, files[0], is_top=True)
        return self._folder(address, files)

    def _file(self, address: str, file: File, *, is_top: bool = False) -> str:
        id = uri_of(address)
        if is_top:
            self.top[id] = None
        if id in self._known:
            return id
        self._known[id] = None
        entity: Entity = {"@id": id, "@type": "File", "name": _printable(file.name)}
        if file.size is not None:
            entity["contentSize"] = str(file.size)
        if file.checksum is not None:
            kind, value = file.checksum
            entity[kind] = value
        elif file.mark is not None:
            entity["version"] = _printable(file.mark)
        self._open.append(entity)
        return id

    def _folder(self, address: str, files: Sequence[File]) -> str:
        base = address.rstrip("/")
        id = uri_of(base) + "/"
        self.top[id] = None
        if id not in self._known:
            self._known[id] = None
            parts = [self._file(f"{base}/{file.name}", file) for file in files]
            self._open.append(
                {"@id": id, "@type": "Dataset", "name": _printable(_last(base)), "hasPart": [ref(one) for one in parts]}
            )
        return id

    def _collection(self, address: str, files: Sequence[File]) -> str:
        """What a pattern meant: files that need not be all of a folder."""
        id = f"#files/{quote(address.encode(errors='surrogateescape'), safe='')}"
        if id not in self._known:
            self._known[id] = None
            self.collections[id] = None
            base = _GLOB.split(address)[0].rpartition("/")[0]
            parts = [self._file(f"{base}/{file.name}", file, is_top=True) for file in files]
            self._open.append(
                {"@id": id, "@type": "Collection", "name": _printable(address), "hasPart": [ref(one) for one in parts]}
            )
        return id


def _last(address: str) -> str:
    return address.rstrip("/").rpartition("/")[2] or address


def _printable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()
