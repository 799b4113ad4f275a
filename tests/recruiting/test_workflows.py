"""Workflows that rent their machines: what is planned, what is done, what is left (nothing)."""

from __future__ import annotations

from scitq.offers import RentalState
from scitq.workflow.workflow import Workflow
from tests.renting.conftest import Opener
from tests.renting.dream import Dream, until


def test_a_workflow_with_a_provider_and_a_flavor_starts_from_nothing_and_leaves_nothing(
    dream: Dream, open_engine: Opener
) -> None:
    engine = open_engine()
    engine.flavor_refresh()

    def script() -> Workflow:
        wf = Workflow(
            "qc",
            provider="dream",
            flavor="std-2",
            shell=True,
            engine=engine,
            rounds=2,
            idle_timeout=1,
            max_step_workers=3,
        )
        for number in range(4):
            wf.step("trim", f"echo {number} > $OUTPUT/{number}", name=f"t{number}")
        wf.step("join", "cat $INPUT/*", name="all", input=wf["trim"].gather("output"))
        return wf

    planned = script().plan()
    assert planned.notes == [
        "trim: 1 machine such as std-2 in north (dream), 0.1 EUR an hour each, less what other workers do",
        "join: 1 machine such as std-2 in north (dream), 0.1 EUR an hour each, less what other workers do",
        "No more than 10 rented machines at once for all steps together (max_workflow_workers).",
    ]
    wf = script()
    assert wf.run()
    assert wf["join"][0].stdout() == "0\n1\n2\n3\n"
    assert {task.executions[-1].worker for task in wf.tasks} == {
        row.name for row in engine.workers() if row.name != "local"
    }
    until(lambda: all(one.state is RentalState.GONE for one in engine.rentals(every=True)))
    assert len(engine.rentals(every=True)) == 1, "the second step took over the machine of the first"
    assert dream.cloud.machines() == [] and engine.check() == []
