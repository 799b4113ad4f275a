"""What a new start of a workflow's script would do, and why: only the script knows what it declares, so it is asked, in a process of
its own and with `scitq run --plan`, which starts nothing. By a button: a script may do more than declare."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.hints import command_for
from scitq.leaving import environ
from scitq.saying import duration
from scitq.shell import facts
from scitq.shell.web import page
from scitq.store import workflows

# So long a script may take to declare.
LIMIT_S = 60.0
_LINES = 10
_COUNTS = ("new", "rerun", "keep", "running", "vanished", "later")


def unknown(script: str | None) -> str | None:
    """Why nobody can be asked; None: somebody can."""
    if not script:
        return "it was not declared by a script (in a notebook, say)."
    if not os.path.isfile(script):
        return f"its script, {script}, is not there any more."
    return None


def show(request: Request) -> Response:
    """Ask, and show the answer."""
    here, name = page.engine(request), page.field(request, "name")
    script = workflows.get(here._reader(), name).script
    why_not = unknown(script)
    if why_not is not None or script is None:
        raise BadInput(f"What a new start of {name} would do is not known here: {why_not}")
    found = _asked(here, script)
    return page.render(
        request, "plan.html", name=name, found=found, steps=found["steps"], script=script, folder=str(here.path.parent),
        columns=[word for word in _COUNTS if word in _COUNTS[:3] or any(step[word] for step in found["steps"])],
        runs=sum(step["new"] + step["rerun"] for step in found["steps"]),
        same=command_for(here, f"run --plan {facts.quoted(script)}"),
    )  # fmt: skip


def _asked(here: Engine, script: str) -> dict[str, Any]:
    """The script's answer.

    Raises:
        BadInput: it does not end, ends badly, or declares nothing.
    """
    words = [sys.executable, "-P", "-m", "scitq", "--json", "--file", str(here.path), "run", "--plan", script]
    process = subprocess.Popen(
        words, cwd=here.path.parent, env=environ(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True,
    )  # fmt: skip
    try:
        told, errors = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        raise BadInput(f"{script} has not declared its workflow within {duration(LIMIT_S)}; it was stopped.") from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    if process.returncode:
        said = "\n".join(errors.decode(errors="replace").strip().splitlines()[-_LINES:])
        raise BadInput(f"{script} ended with exit code {process.returncode}: {said or 'nothing said'}")
    with contextlib.suppress(ValueError):
        found = json.loads(told)
        if isinstance(found, dict) and "steps" in found:
            return found
    raise BadInput(f"{script} declares no workflow when it is run without arguments.")


ROUTES = [Route("/workflow/plan", show, methods=["POST"])]
