"""How transfers are to behave: one frozen value, passed down to everything that moves data."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field

from scitq.fetch.progress import Report
from scitq.fetch.retry import Cancel, Policy

GIB = 1024**3


def _silent(message: str) -> None:
    """A warning that nobody asked to hear."""


@dataclass(frozen=True)
class Settings:
    """What a transfer may do. The defaults suit a person; an agent gives its own."""

    cancel: Cancel = field(default_factory=Cancel)
    report: Report | None = None
    warn: Callable[[str], None] = _silent
    retry: Policy = field(default_factory=Policy)
    stall_timeout_s: float = 300.0  # without a byte
    connect_timeout_s: float = 30.0
    timeout_s: float | None = None  # for the whole of one file; none by default: a slow line is no error
    timeout_s_per_gib: float = 0.0  # on top of timeout_s
    overwrite: bool = True  # of single files at the destination
    parallel: int = 4  # files at once
    reserve_bytes: int = 0  # what must stay free on the disk
    md5: bool = False  # compute the MD5 of what passes, where the source does not say it
    aria2_connections: int = 5
    rclone_config: str | None = None  # a path; None: what rclone itself would use for this user, looked up at each use
    rclone_program: str | None = None
    rclone_options: tuple[str, ...] = ()  # more of rclone's options, one word each

    def total_s(self, size: int | None) -> float | None:
        """How long one file of that size may take."""
        return None if self.timeout_s is None else self.timeout_s + self.timeout_s_per_gib * (size or 0) / GIB

    def rclone_config_path(self) -> str:
        """The configuration to name to rclone. Environment and home are read when asked, and never changed."""
        if self.rclone_config is not None:
            return self.rclone_config
        if named := os.environ.get("RCLONE_CONFIG"):
            return named
        home = os.path.expanduser("~")
        base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
        usual = os.path.join(base, "rclone", "rclone.conf")
        old = os.path.join(home, ".rclone.conf")
        return old if not os.path.exists(usual) and os.path.exists(old) else usual
