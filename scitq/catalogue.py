"""Providers are asked what they sell, and what is left of quotas: when it is too old for its use, in threads that keep nobody waiting.

What they answer is checked and written into the file (`store.catalogue`), where it stays, with its age, while a provider cannot be
asked. What follows from it is `ranking`; from whom machines are rented, `renting`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from scitq import config
from scitq.appraising import left_of
from scitq.errors import BadRequest, Closed, ProviderError, RateLimited, ScitqError, Transient
from scitq.offers import MARKETS, Flavor, Offer, Quota
from scitq.ranking import Known, Volume
from scitq.saying import clean
from scitq.store import catalogue
from scitq.store.catalogue import Read

if TYPE_CHECKING:
    import apsw

    from scitq.remote.providers.base import Provider
    from scitq.store.connection import Store

log = logging.getLogger("scitq")

Settings = Mapping[str, Mapping[str, Any]]
OFFERS, QUOTAS = "offers", "quotas"
# So old it may be when a machine is about to be rented; where prices move by themselves; and else.
STOCK_S, SPOT_S, LIST_S = 120, 1800, 43_200
# After a failure it is asked again in so many seconds, then in twice as many, and so on; if nothing but its user helps, in the last.
AGAIN_S, LONGEST_S, REFUSED_S = 15, 600, 300
# So many providers, or regions, are asked at the same time.
AT_ONCE = 8
# What is rented where nothing is said, of kinds where that is the usual way.
MARKETS_OF = {"azure": "spot"}


def is_fresh(read: Read, now_ms: int, age_s: float) -> bool:
    """Whether what is in the file is young enough, or has to do since it was just asked for in vain."""
    if now_ms < read.again_ms:
        return True
    # Another thread may have read it since this moment; one far ahead is of a clock that was set back.
    return read.fetched_ms is not None and abs(now_ms - read.fetched_ms) < age_s * 1000


class Catalogue:
    """Asks providers for one engine. Safe to use from any thread. `configured` gives the settings of each, by name."""

    def __init__(
        self,
        store: Store,
        configured: Callable[[], Settings] | None = None,
        load: Callable[[str, Mapping[str, Any]], Provider] | None = None,
    ) -> None:
        self._store = store
        self._configured, self._load = configured or _configured, load or self._loaded
        self._gate = threading.Lock()
        self._busy: set[tuple[str, str, str]] = set()
        self._room = threading.BoundedSemaphore(AT_ONCE)
        self._is_over = False
        # By name: what it was made from, and the provider.
        self._providers: dict[str, tuple[str, Provider]] = {}
        self._loading = threading.Lock()

    def close(self) -> None:
        """Begin nothing more. What is being asked is left to itself."""
        self._is_over = True
        with self._loading:
            for _, provider in self._providers.values():
                with contextlib.suppress(Exception):
                    provider.close()
            self._providers.clear()

    def configured(self) -> Settings:
        """The settings of the providers that there are."""
        return self._configured()

    def provider(self, name: str) -> Provider:
        """The provider of a name.

        Raises:
            BadRequest: there is none, or it cannot be loaded.
        """
        settings = self._configured()
        if name not in settings:
            raise BadRequest(
                f"there is no provider {name!r} in the settings (there are: {', '.join(settings) or 'none'})."
            )
        made_from = json.dumps(settings[name], sort_keys=True, default=str)
        with self._loading:
            there = self._providers.get(name)
            if there is None or there[0] != made_from:
                self._providers[name] = there = (made_from, self._load(name, settings[name]))
            return there[1]

    def _loaded(self, name: str, settings: Mapping[str, Any]) -> Provider:
        from scitq.remote import providers

        return providers.load(name, settings, providers.context(self._store.side, name, settings))

    def want(self, read: Read, now_ms: int, age_s: float) -> bool:
        """Whether that is young enough. If not, somebody goes and asks, and the file's bell rings when he is back."""
        if is_fresh(read, now_ms, age_s):
            return True
        key = (read.provider, read.what, read.region)
        with self._gate:
            if self._is_over or key in self._busy:
                return False
            self._busy.add(key)
        threading.Thread(target=self._ask, args=key, name="scitq-catalogue", daemon=True).start()
        return False

    def _ask(self, provider: str, what: str, region: str) -> None:
        try:
            with self._room:
                if not self._is_over:
                    self.refresh(provider, what, region)
        except Closed:
            pass
        except Exception:
            log.exception("%s of %s could not be read", what, provider)
        finally:
            with self._gate:
                self._busy.discard((provider, what, region))

    def refresh(self, provider: str, what: str = OFFERS, region: str = "") -> Read:
        """Ask now, and wait for the answer; how that went. What cannot be asked keeps what was read before."""
        found: list[Offer] = []
        quotas: list[Quota] = []
        problem = None
        try:
            source = self.provider(provider)
            if what == OFFERS:
                found, problem = checked(provider, source.offers([region] if region else None))
            else:
                quotas = [one for one in source.quotas(region) if is_quota(one)]
        except Exception as error:
            if not isinstance(error, ScitqError):
                log.debug("%s of %s", what, provider, exc_info=error)
            return self._failed(provider, what, region, error)
        now = _now_ms()

        def write(db: Any) -> None:
            if what == OFFERS:
                catalogue.put_offers(db, now, provider, found, [region] if region else None)
                catalogue.note_read(db, now, provider, what, region, problem)
            else:
                catalogue.put_quotas(db, now, provider, region, quotas)
                catalogue.note_read(db, now, provider, what, region)

        self._store.write(write)
        return Read(provider, what, region, now, now, problem=problem)

    def _failed(self, provider: str, what: str, region: str, error: Exception) -> Read:
        now = _now_ms()
        said = str(error) if isinstance(error, ScitqError) else f"{type(error).__name__}: {error}"
        problem = clean(said)[:500]

        def write(db: Any) -> Read:
            before = catalogue.read(db, provider, what, region)
            catalogue.note_failure(db, now, provider, what, region, problem, now + wait_ms(error, before.failures))
            return catalogue.read(db, provider, what, region)

        return self._store.write(write)


def wait_ms(error: Exception, failures: int) -> int:
    """For how long it is not asked again after a failure, when there were so many before."""
    if isinstance(error, RateLimited):
        return int(1000 * min(LONGEST_S, max(1.0, error.retry_after_s)))
    if isinstance(error, ProviderError) and not isinstance(error, Transient):
        return 1000 * REFUSED_S
    return int(1000 * min(LONGEST_S, AGAIN_S * 2 ** min(failures, 10)))


def refresh_all(reader: Catalogue, wanted: Sequence[tuple[str, str, str]], timeout_s: float) -> list[Read]:
    """Ask several things at the same time: how it went with those that have answered in time.

    Raises:
        StateFileError: what was answered cannot be written down.
    """
    found: list[Read] = []
    errors: list[ScitqError] = []
    gate = threading.Lock()

    def ask(provider: str, what: str, region: str) -> None:
        try:
            with reader._room:
                read = reader.refresh(provider, what, region)
        except ScitqError as error:
            errors.append(error)
        else:
            with gate:
                found.append(read)

    threads = [threading.Thread(target=ask, args=key, name="scitq-catalogue", daemon=True) for key in wanted]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + timeout_s
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    if errors:
        raise errors[0]
    with gate:
        return sorted(found, key=lambda one: (one.provider, one.what, one.region))


# --- what providers answer --------------------------------------------------------------------------------------------------------


def checked(provider: str, offers: Iterable[Offer]) -> tuple[list[Offer], str | None]:
    """The offers that make sense, and what is to be said of the others."""
    found, wrong = [], []
    for one in offers:
        fault = _fault(provider, one)
        if fault is None:
            found.append(one)
        else:
            wrong.append(fault)
    if not wrong:
        return found, None
    return found, clean(
        f"{len(wrong)} of {len(wrong) + len(found)} offers make no sense and are left out, such as {wrong[0]}"
    )[:500]


def _fault(provider: str, one: Any) -> str | None:
    """What is wrong with an offer, which may be anything: providers may be written by others."""
    if not isinstance(one, Offer) or not isinstance(one.flavor, Flavor):
        return f"{one!r:.80}, which is none"
    flavor: Any = one.flavor
    what = f"{flavor.name!s:.60} in {one.region!s:.60}"
    if flavor.provider != provider:
        return f"{what}, which is of {flavor.provider!r:.60}"
    texts: tuple[Any, ...] = (flavor.name, one.region, *one.zones)
    for text in texts:
        if not isinstance(text, str) or not text or not text.isprintable() or " " in text:
            return f"{what}: {text!r:.60} is no name"
    if one.market not in MARKETS:
        return f"{what}: its market is {one.market!r:.60}"
    amounts: list[Any] = [
        flavor.cpu,
        flavor.ram,
        flavor.root_disk,
        flavor.local_disk,
        one.billed_s,
        one.minimum_s,
        one.eviction,
    ]
    amounts += [] if one.price is None else [one.price]
    amounts += [] if one.available is None else [one.available]
    amounts += [] if flavor.gpu is None else [flavor.gpu.count, flavor.gpu.memory]
    if not all(isinstance(each, int | float) and math.isfinite(each) and each >= 0 for each in amounts):
        return f"{what}: an amount of it is no number of 0 or more"
    currency: Any = one.currency
    if not isinstance(currency, str) or not currency.isalpha():
        return f"{what}: its currency is {currency!r:.60}"
    return None


def is_quota(one: Any) -> bool:
    """Whether what a provider told of a quota makes sense."""
    if not isinstance(one, Quota):
        return False
    amounts: list[Any] = [each for each in (one.limit, one.used) if each is not None]
    return one.unit in ("vcpu", "instances", "bytes", "ip") and all(
        isinstance(each, int | float) and math.isfinite(each) for each in amounts
    )


# --- what is known when one chooses -----------------------------------------------------------------------------------------------


def known(db: apsw.Connection, now_ms: int, settings: Settings) -> Known:
    """What is known of providers beside what they sell: from the file, and from the user's settings."""
    rented = catalogue.rented(db)
    money = config.load()
    return Known(
        holds=catalogue.holds(db, now_ms),
        left=left_of(catalogue.quotas(db), rented), history=catalogue.history(db, now_ms=now_ms),
        markets={name: str(one.get("market") or MARKETS_OF.get(str(one.get("kind")), "ondemand")) for name, one in settings.items()},
        preferred={name: one["preferred_regions"] for name, one in settings.items() if one.get("preferred_regions")},
        volumes={
            name: Volume(int(one["largest_disk"]), float(one.get("disk_price") or 0))
            for name, one in settings.items() if one.get("largest_disk")
        },
        currency=money.get("money.currency") or None, rates=rates_of(money.get("money.rates")),
        providers=frozenset(settings),
    )  # fmt: skip


def rates_of(words: Iterable[str]) -> dict[str, float]:
    """`USD=0.92`, and others, as numbers; what makes no sense is left out."""
    found = {}
    for word in words:
        name, _, text = word.partition("=")
        with contextlib.suppress(ValueError):
            rate = float(text)
            if math.isfinite(rate) and rate > 0:
                found[name.strip().upper()] = rate
    return found


def list_age(db: apsw.Connection, provider: str) -> float:
    """How old what a provider sells may be when one only looks at it."""
    return SPOT_S if catalogue.has_spot(db, provider) else LIST_S


def _configured() -> Settings:
    from scitq.remote import providers

    return providers.configured()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
