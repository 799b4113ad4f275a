"""The arguments of `Workflow` and of `Workflow.step`: what a step inherits, and what its recruiters are told.

Names and defaults are version 1's. A step that is given None has none, whatever its workflow says; only what is not given at all
is inherited.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from scitq import recruiting


class _Inherit:
    """The default of arguments that a step takes from its workflow."""

    def __repr__(self) -> str:
        return "inherited"


INHERIT: Final[Any] = _Inherit()

# What a task is told, by the names of `Engine.submit`.
OF_TASKS = (
    "shell", "retry", "container", "container_options", "stage_in_timeout", "run_timeout", "use_cache", "cpus", "memory", "gpus",
    "priority", "tags", "env", "retry_delay", "retry_memory", "retry_timeout", "overwrite", "keep_failed", "skip_if_exists",
)  # fmt: skip
# What a recruiter is told.
OF_RECRUITERS = (
    "provider", "region", "flavor", "concurrency", "prefetch", "maximum_workers", "tasks_per_worker", "rounds", "minimum_tasks",
    "market", "max_price", "patience", "idle_timeout",
)  # fmt: skip


@dataclass(frozen=True)
class Recruiting:
    """What the first call of a step says of the workers that are to serve it. None: nothing in particular."""

    provider: str | None = None
    region: str | None = None
    flavor: str | None = None
    concurrency: int | None = None
    prefetch: int | None = None
    maximum_workers: int | None = None
    tasks_per_worker: int | None = None
    rounds: int | None = None
    minimum_tasks: int | None = None
    market: str | None = None
    max_price: float | None = None
    patience: float | None = None
    idle_timeout: float | None = None

    @property
    def is_rented(self) -> bool:
        """Whether machines may be rented for it; otherwise it makes do with workers that there are."""
        return self.provider is not None and self.region is not None

    @property
    def says_nothing(self) -> bool:
        """Whether any worker is right: then the batch is served as one without recruiters."""
        return all(
            value is None
            for value in (self.provider, self.flavor, self.concurrency, self.prefetch, self.maximum_workers)
        )

    @property
    def tasks_each(self) -> int | None:
        """How many tasks one worker is got for: what was said, else concurrency times rounds."""
        if self.tasks_per_worker is not None:
            return self.tasks_per_worker
        return None if self.concurrency is None else max(1, self.concurrency * (self.rounds or 1))


def recruiting_of(given: Mapping[str, Any]) -> Recruiting:
    """What is said of workers, checked.

    Raises:
        BadInput: it makes no sense.
    """
    fields: dict[str, Any] = {}
    for name in OF_RECRUITERS:
        value = given.get(name)
        if value is None:
            continue
        fields |= recruiting.checked({name: value})
    return Recruiting(**fields)


def task_arguments(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of tasks, as `Engine.submit` takes it; what says nothing is left out."""
    said = {name: given[name] for name in OF_TASKS if given.get(name) is not None}
    # Version 1's defaults are no wish to the contrary of a batch's or the engine's.
    for name, nothing in (("shell", False), ("use_cache", False), ("container_options", "")):
        if name in said and said[name] == nothing:
            del said[name]
    return said
