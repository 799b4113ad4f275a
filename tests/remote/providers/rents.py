"""A cloud and what is asked of it, for tests of providers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scitq.offers import Offer
from scitq.remote.providers.base import CreateRequest, Provider

GIB = 1 << 30
STORE = "k3v9q2mxab"


def request(provider: Provider, offer: Offer, code: str = "aaaabbbb", **more: Any) -> CreateRequest:
    """What an engine would ask for."""
    image = provider.image(offer.region, offer.flavor)
    asked = CreateRequest(code, f"scitq-{STORE}-{code}", STORE, "lab", offer, image, image.user, "ssh-ed25519 AAAA", "")
    return replace(asked, **more)


def the_offer(provider: Provider, flavor: str = "std-2", region: str = "north", market: str = "ondemand") -> Offer:
    """One that is sold."""
    return next(one for one in provider.offers() if one.key == (provider.name, region, flavor, market))
