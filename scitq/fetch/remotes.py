"""Facts about the rclone installation of this machine, by rclone-python. Never on a worker.

That package builds shell strings: a path such as `$(touch x)` was executed when tried. So its functions are called here,
nowhere else, and with nothing that anybody could have typed: which version, is it there, which remotes. Everything that
carries an address, a path or an option goes through `scitq.fetch.rclone`, which uses argument lists.
"""

from __future__ import annotations

import contextlib
import logging

from scitq.fetch.errors import ToolMissing
from scitq.fetch.rclonerun import GET_IT


def is_installed() -> bool:
    """Whether there is an rclone on PATH."""
    from rclone_python import rclone

    return rclone.is_installed() is True


def version() -> str:
    """Which one, such as `v1.75.2`."""
    from rclone_python import rclone

    return str(_asked(rclone.version))


def remote_names() -> tuple[str, ...]:
    """The remotes of the configuration that rclone finds by itself, which is this user's."""
    from rclone_python import rclone

    names = _asked(rclone.get_remotes)
    return tuple(str(name).rstrip(":") for name in names) if isinstance(names, list) else ()


def _asked(question: object) -> object:
    """Its answer; what it says when there is no rclone is ours."""
    assert callable(question)
    if not is_installed():
        raise ToolMissing(f"rclone is not on PATH. {GET_IT}", phase="start", program="rclone")
    with contextlib.ExitStack() as quiet:
        logger = logging.getLogger("rclone_python")
        quiet.callback(logger.setLevel, logger.level)
        logger.setLevel(logging.CRITICAL)
        return question()
