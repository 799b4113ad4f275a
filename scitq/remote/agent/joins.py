"""Several sources in one folder of a task: two that would write the same file are refused where they may not replace each other."""

from __future__ import annotations

import os

from scitq.fetch.errors import Collision
from scitq.fetch.files import remove
from scitq.fetch.uri import Address


def check_names(addresses: list[Address]) -> None:
    """Before anything travels: files of the web say their names, and so do addresses that are given twice."""
    seen: dict[str, Address] = {}
    for address in addresses:
        names = [str(address)]
        if address.proto in ("http", "https") and not address.actions:
            names.append(address.name)
        for name in names:
            if name in seen:
                raise _collision(seen[name], address, address.name or str(address))
            seen[name] = address


def _collision(first: Address, second: Address, name: str) -> Collision:
    return Collision(
        f"{first.shown} and {second.shown} would both become {name}. Give one of them a folder of its own with |mv:.",
        uri=second.shown, phase="get",
    )  # fmt: skip


def join(folder: str, below: str, address: Address, owners: dict[str, Address], may_replace: bool) -> None:
    """Note what is in a folder that arrived; Collision when an earlier one has it too. Folders are joined."""
    for entry in os.scandir(folder):
        name = below + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        mark = f"{name}/" if is_folder else name
        if not may_replace and (
            (not is_folder and (name in owners or f"{name}/" in owners)) or (is_folder and name in owners)
        ):
            raise _collision(owners.get(name) or owners[f"{name}/"], address, name)
        owners.setdefault(mark, address)
        if is_folder:
            join(entry.path, f"{name}/", address, owners, may_replace)


def move(source: str, folder: str) -> None:
    """Everything in `source` into `folder`; what is there already is replaced, but for folders, which are joined."""
    try:
        entries = list(os.scandir(source))
    except FileNotFoundError:
        return  # moved before, by an agent that was killed then
    for entry in entries:
        target = os.path.join(folder, entry.name)
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder and os.path.isdir(target) and not os.path.islink(target):
            move(entry.path, target)
            continue
        if os.path.lexists(target) and (is_folder or os.path.isdir(target)):
            remove(target)
        os.rename(entry.path, target)
