"""A whole cloud for tests and rehearsals: everything of one but the money. Its machines are real agents.

The provider is `renting`, what its makers do to it `cloud`, what goes wrong `faults`; it is all kept in a folder (`world`), moves
on by itself (`weather`), and its machines are folders of this machine (`machines`), or hosts that somebody else boots.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scitq.remote.providers.base import Context
from scitq.remote.providers.fake import faults
from scitq.remote.providers.fake.cloud import Cloud as Cloud
from scitq.remote.providers.fake.renting import Fake as Fake
from scitq.remote.providers.fake.world import Fault

# Settings, and where the world has them.
_TAKES = {"boot_s": "boot_ms", "delete_s": "delete_ms", "notice_s": "notice_ms"}
_BORN = {"machines": "machines_are", "tags": "tags", "bare": "bare"}


def factory(name: str, settings: Mapping[str, Any], context: Context) -> Fake:
    """The provider of that name. `folder`: where the cloud is, else where this provider may keep files of its own.

    What its machines are and what goes wrong is for a cloud that is new; how long things take, for this one too.
    """
    takes = {field: int(settings[key] * 1000) for key, field in _TAKES.items() if key in settings}
    born: dict[str, Any] = {field: settings[key] for key, field in _BORN.items() if key in settings}
    now_ms = context.now_ms()
    for row in settings.get("script", ()):
        fault = dict(row)
        for_s = fault.pop("for_s", None)
        faults.check(fault["call"], fault["fault"])
        until_ms = {} if for_s is None else {"until_ms": now_ms + int(for_s * 1000), "times": -1}
        born.setdefault("script", []).append(Fault(**{**until_ms, **fault}))
    cloud = Cloud(settings.get("folder") or context.folder, **born)
    if takes:
        with cloud.open() as world:
            for field, value in takes.items():
                setattr(world, field, value)
    return Fake(name, cloud)
