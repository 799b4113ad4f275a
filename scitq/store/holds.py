"""What a provider's refusal says of offers: which of them are not tried again for a while."""

from __future__ import annotations

from collections.abc import Sequence

import apsw

from scitq.errors import PermissionDenied, ProviderError, ProviderLogin, QuotaExceeded
from scitq.offers import Hold, Offer
from scitq.store import catalogue

# With wrong credentials nothing of a provider is tried for so long, or until it was checked.
LOGIN_S = 3600


def after(problem: ProviderError, offer: Offer, offers: Sequence[Offer], now_ms: int) -> list[Hold]:
    """What a refusal of an offer says of it, and of others of these."""
    provider = offer.flavor.provider
    if isinstance(problem, ProviderLogin | PermissionDenied):
        return [Hold(provider, None, None, None, now_ms + 1000 * LOGIN_S, str(problem), problem.code)]
    if not problem.hold_s:
        return []
    alike = [offer]
    if isinstance(problem, QuotaExceeded) and (family := problem.parts.get("family")):
        alike += [
            each for each in offers
            if (each.flavor.provider, each.region) == (provider, offer.region)
            and family in each.flavor.families.get(each.market, ())
        ]  # fmt: skip
    return [of_offer(each, now_ms, problem.hold_s, str(problem), problem.code) for each in alike]


def of_offer(offer: Offer, now_ms: int, seconds: float, reason: str, code: str = "") -> Hold:
    """One offer, for so long."""
    provider, region, flavor, market = offer.key
    return Hold(provider, region, flavor, market, now_ms + int(1000 * seconds), reason, code)


def refused(
    db: apsw.Connection, now_ms: int, problem: ProviderError, offer: Offer, offers: Sequence[Offer]
) -> list[Hold]:
    """Write down what a refusal says; what is held now, with that."""
    for hold in after(problem, offer, offers, now_ms):
        catalogue.put_hold(db, hold)
    limit = problem.parts.get("limit")
    if (
        isinstance(problem, QuotaExceeded)
        and problem.parts.get("family")
        and isinstance(limit, int | float)
        and limit > 0
    ):
        catalogue.learn_quota(
            db, now_ms, offer.flavor.provider, offer.region, str(problem.parts["family"]), float(limit)
        )
    return catalogue.holds(db, now_ms)


def release(db: apsw.Connection, provider: str) -> None:
    """What was held of a provider as a whole is tried again."""
    db.execute("delete from hold where provider = ? and region = '' and flavor = ''", (provider,))
