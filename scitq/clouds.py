"""What is rented, for people who look: as the file knows it, or as providers tell it, of whichever file."""

from __future__ import annotations

import time
from dataclasses import dataclass

from scitq.offers import RentalState
from scitq.remote import providers
from scitq.remote.providers import points
from scitq.remote.providers.base import Instance
from scitq.store import manifests, query, rentals
from scitq.store.connection import Store


@dataclass(frozen=True)
class Machine:
    """A machine at a provider. `store` is the id of the state file that it belongs to; `is_known`: this one has it in its rows.
    `price` is per hour, None where it is not known. `since_ms`: from when on it is paid for."""

    provider: str
    region: str
    id: str | None
    name: str
    state: str
    flavor: str | None
    market: str | None
    store: str
    worker: str | None = None
    price: float | None = None
    currency: str = ""
    since_ms: int | None = None
    expires_ms: int | None = None
    project: str | None = None
    is_known: bool = True
    detail: str = ""

    @property
    def age_s(self) -> float | None:
        """How long it has been paid for."""
        return None if self.since_ms is None else max(0.0, time.time() - self.since_ms / 1000)


def machines(store: Store, *, every: bool = False) -> list[Machine]:
    """Those that the file knows and that are there still, or may be; with `every`, what providers have.

    Raises:
        ProviderError: one cannot be asked.
    """
    db = store.reader()
    file_id = manifests.file_id(db)
    names = {int(row[0]): str(row[1]) for row in query.rows(db, "select id, name from worker where kind = 'rented'")}
    known: dict[str, Machine] = {}
    for one in rentals.all_of(db, 1 << 30) if every else rentals.open_ones(db):
        known[one.code] = Machine(
            one.provider, one.region, one.cloud_id, rentals.machine_name(file_id, one.code), one.state.word, one.flavor, one.market,
            file_id, names.get(int(one.worker)), one.price, one.currency, one.accepted_ms, one.expires_ms, store.path.stem,
            detail=one.detail,
        )  # fmt: skip
    if not every:
        return list(known.values())
    found = [
        _as_told(instance, known.get(instance.code or "") if instance.store == file_id else None)
        for name, settings in providers.configured().items()
        for instance in _instances(store, name, settings)
    ]
    there = {each.name for each in found}
    waiting = [one for one in known.values() if one.state != RentalState.GONE.word and one.name not in there]
    return [*found, *waiting]


def _instances(store: Store, name: str, settings: dict[str, object]) -> list[Instance]:
    provider = providers.load(name, settings, providers.context(store.side, name, settings))
    try:
        with points.crossing("instances"):
            return [each for each in provider.instances() if each.state != "gone"]
    finally:
        provider.close()


def _as_told(told: Instance, known: Machine | None) -> Machine:
    is_ours = known is not None and known.id in (None, told.id)
    price, currency, worker = (known.price, known.currency, known.worker) if known is not None else (None, "", None)
    return Machine(
        told.provider, told.region, told.id, told.name, told.state, told.flavor, told.market, told.store or "",
        worker if is_ours else None, price, currency, told.created_ms, told.expires_ms, told.project, is_ours, told.detail,
    )  # fmt: skip
