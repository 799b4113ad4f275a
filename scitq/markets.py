"""The engine's methods about what can be rented: flavors, where, at what price. What follows from that is `ranking`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from scitq import catalogue
from scitq.catalogue import OFFERS, QUOTAS, Catalogue
from scitq.errors import BadInput
from scitq.protofilter import AUTO, MAX_EVICTION, flavor_of, is_protofilter, parse
from scitq.ranking import Ranking, Wish, rank
from scitq.store import catalogue as rows
from scitq.store.catalogue import Read
from scitq.task import Need

if TYPE_CHECKING:
    import apsw

    from scitq.store.connection import Store

T = TypeVar("T")
# What filters are told by, where `auto:` may be left out: no name of a flavor has one of those.
_COMPARES = frozenset("=<>~#!:")


class Markets:
    """What an `Engine` can do about what is sold. A part of that class, not one of its own."""

    _market: Catalogue | None = None

    if TYPE_CHECKING:
        _store: Store

        def _reader(self) -> apsw.Connection: ...
        def _write(self, fn: Callable[[apsw.Connection], T]) -> T: ...

    @property
    def catalogue(self) -> Catalogue:
        """Who asks providers what they sell."""
        if self._market is None:
            self._market = Catalogue(self._store)
        return self._market

    def _leave_markets(self) -> None:
        if self._market is not None:
            self._market.close()

    def flavors(
        self,
        flavor: str | None = None,
        *,
        provider: str | None = None,
        region: str | None = None,
        market: str | None = None,
        max_price: float | None = None,
        max_eviction: float = MAX_EVICTION,
        concurrency: int | None = None,
        needs: Sequence[Need | None] = (),
    ) -> Ranking:
        """What could be rented, best first, as it was last read (`flavor_refresh`): `ranked`, and `excluded` with the reason of each.

        `flavor` is a name (`b3-%`: all that begin so), or a protofilter, whose `auto:` may be left out: `cpu>=8:ram>=32`. `provider`
        and `region` may be `auto`, or have %. `market` is `spot`, `ondemand` or `any`; what is configured for the provider if not given.
        `concurrency` is how many tasks one machine is to run at once (as many as it has CPUs): what one of those costs is compared.

        Raises:
            BadInput: something of it makes no sense; a BadProtofilter says where.
        """
        wish = Wish(
            asked(flavor), provider, region, market, max_price=max_price, max_eviction=max_eviction, concurrency=concurrency,
            needs=tuple(needs),
        )  # fmt: skip
        db, now = self._reader(), time.time_ns() // 1_000_000
        return rank(rows.offers(db), wish, catalogue.known(db, now, self.catalogue.configured()), now)

    def flavor_reads(self, provider: str | None = None) -> list[Read]:
        """When what providers sell was last read, and what was wrong then."""
        return [one for one in rows.reads(self._reader(), provider) if one.what == OFFERS and not one.region]

    def flavor_refresh(
        self, provider: str | None = None, *, timeout: float = 60.0, only_old: bool = False
    ) -> list[Read]:
        """Ask providers (or one) what they sell, and what is left of quotas; returns how that went. Who does not answer within
        `timeout` seconds keeps what was read before; what is known of providers that are not in the settings any more is forgotten.
        `only_old`: only those of which that was too long ago.

        Raises:
            BadInput: there is no provider of that name.
        """
        market = self.catalogue
        names = sorted(market.configured())
        if provider is not None and provider not in names:
            raise BadInput(
                f"there is no provider {provider!r} in the settings (there are: {', '.join(names) or 'none'}): scitq provider list"
            )
        if provider is None and not only_old and any(one.provider not in names for one in rows.reads(self._reader())):
            self._write(lambda db: rows.forget(db, names))
        deadline = time.monotonic() + timeout
        db, now = self._reader(), time.time_ns() // 1_000_000
        wanted = [
            (name, OFFERS, "") for name in ([provider] if provider is not None else names)
            if not only_old or not catalogue.is_fresh(rows.read(db, name, OFFERS), now, catalogue.list_age(db, name))
        ]  # fmt: skip
        found = catalogue.refresh_all(market, wanted, timeout)
        for name, what, _ in wanted:
            if all(one.provider != name for one in found):
                before = rows.read(self._reader(), name, what)
                found.append(Read(name, what, "", before.fetched_ms, now, problem=f"no answer within {timeout:g} s"))
        told = [one.provider for one in found if one.has_answered and market.provider(one.provider).caps.quotas]
        more = [(name, QUOTAS, region) for name in told for region in rows.regions(self._reader(), name)]
        return found + catalogue.refresh_all(market, more, max(1.0, deadline - time.monotonic()))


def asked(flavor: str | None) -> str | None:
    """A flavor or filters as they may be asked for, checked: with `auto:`, unless it is a name.

    Raises:
        BadInput: it makes no sense; a BadProtofilter says where.
    """
    if flavor is None or not flavor.strip() or flavor.strip() == AUTO:
        return None
    text = flavor.strip()
    if not is_protofilter(text) and _COMPARES & set(text):
        parse(text, with_auto=False)  # so that columns are those of what was written
        return f"{AUTO}:{text}"
    return flavor_of(text)
