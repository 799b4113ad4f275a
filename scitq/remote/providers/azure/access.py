"""Rights: what the driver does in a subscription, and what is missing of it. `role.json` is the role that has exactly these:

az role definition create --role-definition role.json
az role assignment create --assignee WHO --role "scitq" --scope /subscriptions/ID
"""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from scitq.remote.providers.base import Problem

LOGIN = "Log in with `az login`, or set AZURE_TENANT_ID, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET; then try again."
PERMISSIONS = "/providers/Microsoft.Authorization/permissions?api-version=2022-04-01"
NAMESPACES = ("Microsoft.Compute", "Microsoft.Network")


def actions() -> list[str]:
    """All that the driver does."""
    text = resources.files(__package__).joinpath("role.json").read_text(encoding="utf-8")
    return list(json.loads(text)["Actions"])


def may(action: str, granted: Iterable[Mapping[str, Any]]) -> bool:
    """Whether one of the grants allows it: what it excludes, another may include."""
    return any(
        any(_fits(action, one) for one in grant.get("actions") or ())
        and not any(_fits(action, one) for one in grant.get("notActions") or ())
        for grant in granted
    )


def _fits(action: str, pattern: str) -> bool:
    return fnmatch.fnmatchcase(action.lower(), pattern.lower())


def problems(provider: str, scope: str, granted: list[Mapping[str, Any]], states: Mapping[str, str]) -> list[Problem]:
    """What is missing, each with what grants it."""
    missing = [one for one in actions() if not may(one, granted)]
    found = []
    if missing:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        fix = f"az role assignment create --assignee YOU --role Contributor --scope {scope} (docs/howto/azure.md has a smaller role)"
        found.append(Problem("error", f"provider {provider}: the right to {shown} is missing in {scope}.", fix))
    for namespace, state in states.items():
        if state.lower() != "registered":
            text = f"provider {provider}: {namespace} is not registered for this subscription ({state or 'unknown'})."
            found.append(Problem("error", text, f"az provider register --namespace {namespace}"))
    return found
