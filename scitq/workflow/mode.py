"""How the program that runs a script wants its workflows: set by `scitq run`, read by `Workflow`. A script alone changes nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scitq.workflow.plan import Plan
    from scitq.workflow.workflow import Workflow


class PlanShown(SystemExit):
    """Raised where a script would start its workflow, when only the plan was wanted: nothing after it is run."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(0)
        self.plan = plan


@dataclass
class Mode:
    """What was asked for on the command line."""

    plan_only: bool = False
    offers: bool = False
    """With the plan, what could be rented."""
    fresh: bool = False
    prune: bool = False
    debug: bool = False
    file: Path | None = None
    script: str | None = None
    made: list[Workflow] = field(default_factory=list)
    """The workflows that the script made: those that it only starts are run when it has ended."""
    is_set: bool = False


current = Mode()
