"""Plain Python that chains tasks: `Workflow`, its steps, and what scripts written for version 1 import from here.

The public names are loaded on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scitq.errors import BatchGathered, WorkflowBusy, WorkflowFailed, WorkflowLeft
    from scitq.workflow.code import remote, shell_code
    from scitq.workflow.workflow import Workflow

_HOMES = {
    "Workflow": "scitq.workflow.workflow",
    "shell_code": "scitq.workflow.code",
    "remote": "scitq.workflow.code",
    "WorkflowFailed": "scitq.errors",
    "WorkflowBusy": "scitq.errors",
    "WorkflowLeft": "scitq.errors",
    "BatchGathered": "scitq.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'scitq.workflow' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


__all__ = ["BatchGathered", "Workflow", "WorkflowBusy", "WorkflowFailed", "WorkflowLeft", "remote", "shell_code"]
