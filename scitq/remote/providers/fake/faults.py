"""What goes wrong in the make-believe cloud, on script. Which calls there are: the methods of `Provider`; `*` is any.

Before anything is done: `down`, `login`, `permission`, `rate`, `request`, `quota`, `stock`, `unsold`, `unsupported`, `price`,
`slow` (value: seconds), `lost-asking` (a create that never arrived, and nobody knows).
Instead of or after it: `lost` (done, but the answer is lost), `duplicate` (a create makes two, and one of them is answered),
`deaf` (a delete is accepted and comes to nothing).
To the machine that a create makes: `error` (it does not boot), `boot` (value: seconds longer), `vanish` and `evict` (value: after so
many seconds), `hidden` (value: for so many seconds no list shows it), `leave` (a disk and an address stay behind), `deaf` (value:
so many deletes come to nothing).
"""

from __future__ import annotations

from typing import Any, NoReturn

from scitq.errors import (
    AmbiguousCreate,
    BadRequest,
    CapacityUnavailable,
    FlavorUnavailable,
    FlavorUnsupported,
    PermissionDenied,
    PriceTooLow,
    ProviderDown,
    ProviderError,
    ProviderLogin,
    QuotaExceeded,
    RateLimited,
)
from scitq.remote.providers.fake.world import Fault, World

CALLS = (
    "check", "regions", "offers", "quotas", "image", "create", "get", "find", "instances", "delete", "sweep", "delete_leftover",
    "allow_from",
)  # fmt: skip
_ERRORS: dict[str, tuple[type[ProviderError], str, str]] = {
    "down": (ProviderDown, "ServiceUnavailable", "does not answer; nothing was asked"),
    "login": (ProviderLogin, "InvalidCredentials", "does not accept the credentials, or they are over. Renew them"),
    "permission": (PermissionDenied, "Forbidden", "does not let this account do that. Grant it the right fake:{call}"),
    "rate": (RateLimited, "TooManyRequests", "was asked too often"),
    "request": (BadRequest, "InvalidRequest", "cannot make sense of what it was asked"),
    "quota": (QuotaExceeded, "QuotaExceeded", "lets this account have no more"),
    "stock": (CapacityUnavailable, "OutOfStock", "has none of that flavor now"),
    "unsold": (FlavorUnavailable, "NotForSale", "does not sell that flavor to this account"),
    "unsupported": (FlavorUnsupported, "FlavorImageMismatch", "cannot start that image on that flavor"),
    "price": (PriceTooLow, "SpotPriceTooLow", "asks for more than was allowed"),
    "lost-asking": (AmbiguousCreate, "ConnectionReset", "was asked, and the connection broke"),
}
LATER = ("lost", "duplicate", "deaf")
OF_MACHINES = ("error", "boot", "vanish", "evict", "hidden", "leave", "deaf")
FAULTS = tuple(dict.fromkeys((*_ERRORS, "slow", *LATER, *OF_MACHINES)))


def check(call: str, fault: str) -> None:
    """Raises BadRequest for a call or a fault that there is not."""
    if call not in ("*", *CALLS) or fault not in FAULTS:
        raise BadRequest(f"there is no fault {fault!r} of the call {call!r}.")


def take(world: World, call: str, about: dict[str, str]) -> list[Fault]:
    """What goes wrong with a call. Each is used up by it, also if its caller dies over it."""
    now = world.now_ms()
    found = []
    for fault in world.script:
        if fault.call not in ("*", call) or any(getattr(fault, key) not in ("", value) for key, value in about.items()):
            continue
        if fault.times == 0 or (fault.until_ms is not None and now >= fault.until_ms):
            continue
        if fault.skip > 0:
            fault.skip -= 1
            continue
        fault.times -= fault.times > 0
        found.append(fault)
    world.script = [fault for fault in world.script if fault.times != 0 and (fault.until_ms or now + 1) > now]
    return found


def refuse(provider: str, call: str, about: dict[str, str], faults: list[Fault]) -> None:
    """Raise what a script says instead of doing anything."""
    for fault in faults:
        if fault.fault in _ERRORS:
            error, code, text = _ERRORS[fault.fault]
            more: dict[str, Any] = {"retry_after_s": fault.value or 5.0} if error is RateLimited else {}
            if error is QuotaExceeded:
                more = {"family": "cores", "limit": 0, "used": 0, "required": 1}
            fail(provider, error, code, text.format(call=call), about, **more)


def fail(
    provider: str, error: type[ProviderError], code: str, text: str, about: dict[str, str], **more: Any
) -> NoReturn:
    """Raise an error with all that is known."""
    where = " ".join(about[key] for key in ("region", "flavor", "market") if about.get(key))
    said = f"{provider}{' ' + where if where else ''}: it {text} ({code})."
    known = {key: about[key] for key in ("region", "flavor", "market") if about.get(key)}
    raise error(said, provider=provider, code=code, **known, **more)
