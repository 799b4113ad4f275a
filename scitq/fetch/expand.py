"""Globs in addresses: which files they stand for now."""

from __future__ import annotations

import re
from dataclasses import replace

from scitq.fetch.entry import Entry
from scitq.fetch.errors import NotFound
from scitq.fetch.patterns import expression, segment
from scitq.fetch.settings import Settings
from scitq.fetch.transport import Transport
from scitq.fetch.uri import Address, parse

_GLOB = re.compile(r"[*?\[]")


def expand(address: Address, transport: Transport, settings: Settings) -> list[Entry]:
    """The files and folders that match, sorted by name; NotFound when nothing does. Folders are listed level by level."""
    top, patterns = _split(address)
    found = sorted(_below(top, patterns, transport, settings), key=lambda entry: entry.name)
    if not found:
        raise NotFound(f"{address.shown}: nothing matches.", uri=address.shown, phase="list")
    return found


def _split(address: Address) -> tuple[Address, list[str]]:
    """The folder above the first segment with a pattern, and the segments from there on."""
    lead = "/" if address.path.startswith("/") else ""
    parts = [part for part in address.path.split("/") if part]
    first = next(index for index, part in enumerate(parts) if _GLOB.search(part))
    path = lead + "/".join(parts[:first])
    return replace(address, path=path or ("." if address.is_local else ""), actions=()), parts[first:]


def _below(folder: Address, patterns: list[str], transport: Transport, settings: Settings) -> list[Entry]:
    pattern, rest = patterns[0], patterns[1:]
    try:
        if "**" in pattern:
            whole = re.compile(expression("/".join(patterns), braces=False) + r"/?\Z", re.DOTALL)
            rows = transport.entries(folder, settings, recursive=True, md5=False)
            return [row for row in rows if not row.is_dir and whole.match(row.rel_name)]
        fits = segment(pattern)
        rows = transport.entries(folder, settings, recursive=False, md5=False)
        here = [row for row in rows if fits(row.rel_name.rstrip("/"))]
    except NotFound:
        return []
    if not rest:
        return here
    found: list[Entry] = []
    for row in here:
        if row.is_dir and not _GLOB.search("".join(rest)):
            below = folder.join(row.rel_name.rstrip("/"), *rest)
            try:
                found.append(transport.info(below, settings))
            except NotFound:
                continue
        elif row.is_dir:
            found += _below(folder.join(row.rel_name.rstrip("/")), rest, transport, settings)
    return found


def address_of(row: Entry) -> Address:
    """The address of a row."""
    return parse(row.name)
