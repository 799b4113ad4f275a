"""What rented machines cost, and may cost."""

from __future__ import annotations

from scitq.shell.table.rows import Argument, Command, Option
from scitq.shell.table.words import NO_HEAD

_BY = "worker,batch,step,workflow,task,flavor,region,provider,day"

MONEY: tuple[Command, ...] = (
    Command(
        "cost", "costs:cost",
        """What rented machines have cost until now, by their prices; of it, what was idle, and what went to tries that failed.

        What was idle counts for the batch that rented the machine. Amounts of different currencies are never added.""",
        (
            Option(("--by",), "For each worker, batch, workflow, task, flavor, region, provider or day.", metavar="WHAT",
                   takes=f"words:{_BY}"),
            NO_HEAD,
        ),
        reads=True, examples=("scitq cost", "scitq cost --by batch"), schema="costs",
    ),
    Command(
        "cloud cost", "costs:of_machines", "What each machine that was rented has cost: cost --by worker.", (NO_HEAD,),
        reads=True, examples=("scitq cloud cost",), schema="costs",
    ),
    Command(
        "max-cost", "costs:limit",
        """How much the machines of this file, a batch or a workflow may cost: 15, '15 EUR', or none. Without AMOUNT, what is limited.

        Nothing is rented that could pass it; when it is reached, machines are let go once their tasks are done.""",
        (
            Argument("amount", required=False, metavar="AMOUNT"),
            Option(("-b", "--batch"), "Of this batch.", metavar="BATCH", takes="batch"),
            Option(("-w", "--workflow"), "Of this workflow.", metavar="NAME", takes="workflow"),
        ),
        file="made", examples=("scitq max-cost 15", "scitq max-cost --workflow qc '7.50 EUR'", "scitq max-cost"), schema="limits",
    ),
)  # fmt: skip
