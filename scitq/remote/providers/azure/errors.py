"""What Azure refuses, as errors of scitq. Codes and texts decide, never the classes of the SDK: a refusal for want of quota is a 409 as
well as a conflict is. The codes are those of Azure Resource Manager and Compute (learn.microsoft.com, "Troubleshoot common Azure
deployment errors")."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)

from scitq.errors import (
    AmbiguousCreate,
    BadRequest,
    CapacityUnavailable,
    FlavorUnavailable,
    FlavorUnsupported,
    MachineNameTaken,
    MachineNotFound,
    PermissionDenied,
    PriceTooLow,
    ProviderDown,
    ProviderError,
    ProviderLogin,
    QuotaExceeded,
    RateLimited,
)


@dataclass(frozen=True)
class Row:
    """One refusal: its code (a pattern for all of it), what its text has to hold, and what it is."""

    code: str
    error: type[ProviderError]
    text: str = ""
    spot: type[ProviderError] | None = None
    """What it is on the spot market, if something else."""


_QUOTA = r"quota|LowPriorityCores"
TABLE: tuple[Row, ...] = (
    Row("OperationNotAllowed", RateLimited, r"too many requests"),
    Row("OperationNotAllowed", QuotaExceeded, _QUOTA),
    Row(r"QuotaExceeded|ResourceQuotaExceeded|\w*PublicIPCountLimitReached", QuotaExceeded),
    Row("SkuNotAvailable", FlavorUnavailable, spot=CapacityUnavailable),
    Row(
        "AllocationFailed|ZonalAllocationFailed|OverconstrainedAllocationRequest|OverconstrainedZonalAllocationRequest",
        CapacityUnavailable,
    ),
    Row("SpotPriceGreaterThanProvidedMaxPrice", PriceTooLow),
    Row("AzureSpotFeatureNotEnabledForSubscription|AzureSpotIsNotSupportedForThisVMSize", FlavorUnavailable),
    Row(
        "BadRequest|InvalidParameter",
        FlavorUnsupported,
        r"security type|Hypervisor Generation|is not supported for creation of VMs|disk controller",
    ),
    Row("AuthorizationFailed|LinkedAuthorizationFailed|RequestDisallowedByPolicy", PermissionDenied),
    Row(r"InvalidAuthenticationToken\w*|ExpiredAuthenticationToken|AuthenticationFailed", ProviderLogin),
    Row("SubscriptionNotFound|DisabledSubscription|ReadOnlyDisabledSubscription", ProviderLogin),
    Row(r"MissingSubscriptionRegistration|MarketplacePurchaseEligibilityFailed", BadRequest),
    Row("TooManyRequests|SubscriptionRequestsThrottled", RateLimited),
    # The group went with its last machine, or is being made: the next try makes it.
    Row("ResourceGroupNotFound|ResourceGroupBeingDeleted", ProviderDown),
    Row("ResourceNotFound|NotFound|ParentResourceNotFound", MachineNotFound),
    Row("PreconditionFailed", MachineNameTaken),
    Row("Conflict|AnotherOperationInProgress|RetryableError|NicReservedForAnotherVm|OperationPreempted", ProviderDown),
)
_BY_STATUS: dict[int, type[ProviderError]] = {
    401: ProviderLogin, 403: PermissionDenied, 404: MachineNotFound, 408: ProviderDown, 409: ProviderDown, 412: MachineNameTaken,
    429: RateLimited,
}  # fmt: skip
_FIGURES = re.compile(r"Current Limit: (\d+), Current Usage: (\d+), Additional Required: (\d+)", re.IGNORECASE)
# What the names of limits hold that stand in a refusal's text, and the limit that it is.
_LIMITS = (
    ("lowprioritycores", "lowprioritycores"),
    ("total regional cores", "cores"),
    ("publicip", "public-ips"),
)
_RETRY_S = 10.0


def typed(
    provider: str,
    problem: BaseException,
    *,
    region: str = "",
    flavor: str = "",
    market: str = "",
    is_create: bool = False,
) -> ProviderError:
    """What a call of the SDK ended with, as an error of scitq. `is_create`: a machine may exist though its answer was lost."""
    where = {name: value for name, value in (("region", region), ("flavor", flavor), ("market", market)) if value}
    about = _about(provider, where)
    if isinstance(problem, HttpResponseError) and problem.response is not None:
        headers: Mapping[str, str] = getattr(problem.response, "headers", None) or {}
        return refusal(provider, _said(problem), problem.status_code or 0, where, headers=headers, is_create=is_create)
    if isinstance(problem, ClientAuthenticationError):
        text = f"{about}: Azure lets nobody in: {_short(problem)} Log in with `az login`, or set AZURE_CLIENT_ID and its like."
        return ProviderLogin(text, provider=provider, **where)
    if isinstance(problem, ServiceRequestError):
        return ProviderDown(f"{about}: Azure cannot be reached: {_short(problem)}", provider=provider, **where)
    if isinstance(problem, ServiceResponseError) and is_create:
        text = f"{about}: whether Azure makes the machine is not known: {_short(problem)}"
        return AmbiguousCreate(text, provider=provider, **where)
    return ProviderDown(f"{about}: Azure did not answer: {_short(problem)}", provider=provider, **where)


def refusal(
    provider: str,
    said: list[tuple[str, str]],
    status: int,
    where: Mapping[str, str],
    *,
    headers: Mapping[str, str] | None = None,
    is_create: bool = False,
) -> ProviderError:
    """What Azure said, the outermost code and text first, as an error. `status`: of HTTP; 200 for an operation that failed later."""
    kind: type[ProviderError] | None = None
    code, text = said[-1]
    for each_code, each_text in reversed(said):
        if (kind := _kind(each_code, each_text, where.get("market", ""))) is not None:
            code, text = each_code, each_text
            break
    if kind is None:
        kind = _BY_STATUS.get(status)
    if kind is None:
        kind = (AmbiguousCreate if is_create else ProviderDown) if status >= 500 else BadRequest
    headers = headers or {}
    more: dict[str, Any] = dict(where)
    if kind is RateLimited:
        more["retry_after_s"] = _retry_after_s(headers)
    elif kind is QuotaExceeded:
        more |= _figures(text)
    elif kind is ProviderLogin:
        text += ". Log in again: az login"
    if request := headers.get("x-ms-request-id"):
        more["request_id"] = request
    return kind(
        f"{_about(provider, where)}: {text} ({code or status}).", provider=provider, code=code or str(status), **more
    )


def _about(provider: str, where: Mapping[str, str]) -> str:
    return " ".join([provider, *where.values()])


def _kind(code: str, text: str, market: str) -> type[ProviderError] | None:
    for row in TABLE:
        if re.fullmatch(row.code, code, re.IGNORECASE) and re.search(row.text, text, re.IGNORECASE):
            return row.spot if row.spot is not None and market == "spot" else row.error
    return None


def _said(problem: HttpResponseError) -> list[tuple[str, str]]:
    return said_in(problem.error) or [("", _short(problem))]


def said_in(error: Any) -> list[tuple[str, str]]:
    """Codes and texts of a refusal, the outermost first: it may be wrapped in what merely says that something failed."""
    found: list[tuple[str, str]] = []
    todo = [error] if error else []
    while todo:
        one = todo.pop(0)
        code, text, inner = (
            (one.get("code"), one.get("message"), one.get("details"))
            if isinstance(one, dict)
            else (one.code, one.message, one.details)
        )
        found.append((str(code or ""), " ".join(str(text or "").split())[:600].rstrip(".")))
        todo += list(inner or ())
    return found


def _figures(text: str) -> dict[str, Any]:
    plain = text.lower().replace(" ", "")
    family = next((name for part, name in _LIMITS if part.replace(" ", "") in plain), "")
    if not family and (found := re.search(r"(\w+Family) Cores", text, re.IGNORECASE)):
        family = found[1].lower()
    figures = _FIGURES.search(text)
    if figures is None:
        return {"family": family or "public-ips" if "publicip" in plain else family}
    limit, used, required = (float(figure) for figure in figures.groups())
    return {"family": family, "limit": limit, "used": used, "required": required}


def _retry_after_s(headers: Mapping[str, str]) -> float:
    try:
        return float(headers["Retry-After"])
    except (KeyError, ValueError):
        return _RETRY_S


def _short(problem: BaseException) -> str:
    return " ".join(str(getattr(problem, "message", None) or problem).split())[:400]
