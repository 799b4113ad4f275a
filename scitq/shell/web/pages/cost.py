"""The page of costs: what machines did for whom, and for how long they had nothing to do."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scitq import money
from scitq.shell.web import page, spending

# So many batches, workflows and workers are listed, those with the most first.
LISTED = 200
# By what amounts are told.
BY = ("workflow", "batch", "worker", "day")


def show(request: Request) -> Response:
    """The page; while the sum is being made for the first time, how far that is."""
    here = page.engine(request)
    bill, share = spending.adding(here).look()
    spent = here.spending()
    money_of = [(by, here.cost(by)) for by in BY] if spent else []
    return page.render(
        request, "cost.html", topics="", bill=bill, share=share, listed=LISTED, spent=spent, money_of=money_of, said=money.said,
        limits=here.limits(),
    )  # fmt: skip


ROUTES = [Route("/cost", show)]
