"""scitq: a scientific task queue that lives inside your Python process.

    import scitq

    q = scitq.open("lab.scitq")
    task = q.submit("zcat sample.fastq.gz | wc -l", shell=True)
    print(task.result().stdout)

The public names below are loaded on first use, so that `import scitq` costs next to nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from scitq._version import VERSION as __version__

if TYPE_CHECKING:
    from scitq.engine import Engine, TaskList, open
    from scitq.errors import BadInput, ScitqError, TaskBlocked, TaskCancelled, TaskFailed
    from scitq.handle import Result, Task
    from scitq.states import TaskState

_HOMES = {
    "open": "scitq.engine",
    "Engine": "scitq.engine",
    "TaskList": "scitq.engine",
    "Task": "scitq.handle",
    "Result": "scitq.handle",
    "TaskState": "scitq.states",
    "ScitqError": "scitq.errors",
    "BadInput": "scitq.errors",
    "TaskFailed": "scitq.errors",
    "TaskCancelled": "scitq.errors",
    "TaskBlocked": "scitq.errors",
    # %load_ext scitq
    "load_ipython_extension": "scitq.shell.notebook",
    "unload_ipython_extension": "scitq.shell.notebook",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scitq' has no attribute {name!r}")
    if sys.platform not in ("linux", "darwin"):
        raise ImportError("scitq runs on Linux and macOS; on Windows, install it inside WSL 2.")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


__all__ = [
    "BadInput", "Engine", "Result", "ScitqError", "Task", "TaskBlocked", "TaskCancelled", "TaskFailed", "TaskList", "TaskState",
    "__version__", "open",
]  # fmt: skip
