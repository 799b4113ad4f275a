"""What providers sell, as it was last read: offers, quotas, what is not to be tried for a while, and when each was asked.

Every function runs inside a transaction of the caller's (or on a reader). What follows from the rows is `ranking`; who reads them from
providers, and when, is `scitq.catalogue`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import apsw

from scitq.offers import RENTED, Flavor, Hold, Observed, Offer, Quota
from scitq.store import costs, query

_VERSION = "catalogue"
_OFFER = """spec, region, market, zones, price, currency, billed_s, minimum_s, eviction, eviction_known, available, reason, fetched,
  score"""
# How machines fared longer ago tells nothing of how they will.
SEEN_MS = 60 * 86_400_000
LEARNED = "learned"
"""The limit of a quota that a provider told only when it refused something."""


@dataclass(frozen=True)
class Read:
    """When something (`offers`, `quotas`) of a provider was last read. `fetched_ms` None: never. `problem`: why it could not be when
    it was last tried; it is not tried again before `again_ms`."""

    provider: str
    what: str
    region: str = ""
    fetched_ms: int | None = None
    tried_ms: int = 0
    again_ms: int = 0
    failures: int = 0
    problem: str | None = None

    @property
    def has_answered(self) -> bool:
        """When it was last tried it was read, though some of it may have made no sense."""
        return self.fetched_ms is not None and self.fetched_ms == self.tried_ms


def version(db: apsw.Connection) -> int:
    """A number that grows whenever offers, quotas or holds change."""
    found = query.row(db, "select v from meta where k = ?", (_VERSION,))
    return 0 if found is None else int(found[0])


def _changed(db: apsw.Connection) -> None:
    db.execute("insert into meta(k, v) values (?, 1) on conflict(k) do update set v = v + 1", (_VERSION,))


# --- offers -----------------------------------------------------------------------------------------------------------------------


def put_offers(
    db: apsw.Connection, now_ms: int, provider: str, offers: Iterable[Offer], regions: Iterable[str] | None = None
) -> None:
    """What a provider sells now (in those regions; None: everywhere) in the place of what it sold. Rows that stay the same but for
    their age are not written again: a catalogue is large, and nearly always as it was."""
    where, values = "provider = ?", [provider]
    if regions is not None:
        values += sorted(set(regions))
        where += f" and region in ({', '.join('?' for _ in values[1:])})"
    specs: dict[int, int] = {}
    kept: dict[int, Flavor] = {}  # so that their ids stay theirs
    wanted: dict[tuple[str, str, str], tuple[Any, ...]] = {}
    for one in offers:
        flavor = one.flavor
        if id(flavor) not in specs:
            specs[id(flavor)], kept[id(flavor)] = _spec(db, flavor), flavor
        wanted[one.region, flavor.name, one.market] = (
            specs[id(flavor)], one.price, one.currency, one.billed_s, one.minimum_s, one.eviction, int(one.eviction_known),
            one.available, one.reason, " ".join(one.zones), one.score,
        )  # fmt: skip
    there = {
        (row[0], row[1], row[2]): row[3:]
        for row in query.rows(
            db,
            f"""select region, flavor, market, spec, price, currency, billed_s, minimum_s, eviction, eviction_known, available, reason,
            zones, score from offer where {where}""",
            tuple(values),
        )
    }
    db.executemany(
        "delete from offer where provider = ? and region = ? and flavor = ? and market = ?",
        [(provider, *key) for key in there.keys() - wanted.keys()],
    )
    db.executemany(
        """insert or replace into offer(provider, region, flavor, market, spec, price, currency, billed_s, minimum_s, eviction,
        eviction_known, available, reason, zones, score, fetched) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        [(provider, *key, *row, now_ms) for key, row in wanted.items() if there.get(key) != row],
    )
    db.execute(
        "delete from flavor where provider = ? and not exists(select 1 from offer where spec = flavor.id)", (provider,)
    )
    # What runs on a spot market costs what that costs now.
    costs.follow_prices(db, now_ms)
    _changed(db)


def _spec(db: apsw.Connection, flavor: Flavor) -> int:
    data = flavor.plain()
    row = (
        flavor.provider,
        flavor.name,
        query.compact({key: data[key] for key in data if key not in ("provider", "name")}),
    )
    found = query.row(db, "select id from flavor where provider = ? and name = ? and data = ?", row)
    if found is None:
        found = query.one(db, "insert into flavor(provider, name, data) values (?, ?, ?) returning id", row)
    return int(found[0])


def offers(db: apsw.Connection, provider: str | None = None, flavor: str | None = None) -> list[Offer]:
    """The offers as they were last read (of one provider, of one flavor); each flavor is one object."""
    flavors = {
        number: Flavor.of({"provider": of, "name": name, **json.loads(data)})
        for number, of, name, data in query.rows(
            db,
            "select id, provider, name, data from flavor where provider = coalesce(?, provider) and name = coalesce(?, name)",
            (provider, flavor),
        )
    }
    rows = query.rows(
        db,
        f"""select {_OFFER} from offer where provider = coalesce(?, provider) and flavor = coalesce(?, flavor)
        order by provider, region, flavor, market""",
        (provider, flavor),
    )
    zones: dict[str, tuple[str, ...]] = {}
    return [
        Offer(
            flavors[spec], region, market, zones.setdefault(text, tuple(text.split())), price, currency, billed_s, minimum_s,
            eviction, bool(is_known), available, reason, fetched, 0, score,
        )
        for spec, region, market, text, price, currency, billed_s, minimum_s, eviction, is_known, available, reason, fetched, score
        in rows
    ]  # fmt: skip


def offer(db: apsw.Connection, key: tuple[str, str, str, str]) -> Offer | None:
    """One offer, by provider, region, flavor and market."""
    return next((one for one in offers(db, key[0], key[2]) if one.key == key), None)


# --- quotas -----------------------------------------------------------------------------------------------------------------------


def put_quotas(db: apsw.Connection, now_ms: int, provider: str, region: str, quotas: Iterable[Quota]) -> None:
    """The quotas of a region in the place of those that were read before."""
    db.execute("delete from quota where provider = ? and region = ? and own = ''", (provider, region))
    db.executemany(
        "insert or replace into quota(provider, region, family, unit, most, used, fetched) values (?, ?, ?, ?, ?, ?, ?)",
        [(provider, region, one.family, one.unit, one.limit, one.used, now_ms) for one in quotas],
    )
    _changed(db)


def learn_quota(db: apsw.Connection, now_ms: int, provider: str, region: str, family: str, limit: float) -> None:
    """A provider has refused something because of a limit that it names, and may not tell otherwise."""
    db.execute(
        """insert or replace into quota(provider, region, family, unit, most, used, fetched, own)
        values (?, ?, ?, 'vcpu', ?, null, ?, ?)""",
        (provider, region, family, limit, now_ms, LEARNED),
    )
    _changed(db)


def quotas(db: apsw.Connection, provider: str | None = None) -> list[Quota]:
    """The quotas as they were last read. One that was learned counts where the provider tells none of that family."""
    rows = query.rows(
        db,
        """select provider, region, family, unit, most, used, fetched from quota as one where provider = coalesce(?, provider)
        and (own = '' or not exists(select 1 from quota as two where two.provider = one.provider and two.region = one.region
          and two.family = one.family and own = '')) order by provider, region, family""",
        (provider,),
    )
    return [Quota(*row) for row in rows]


# --- holds ------------------------------------------------------------------------------------------------------------------------


def put_hold(db: apsw.Connection, hold: Hold) -> None:
    """Something is not to be tried for a while. One that lasts longer already stays."""
    db.execute(
        """insert into hold(provider, region, flavor, market, until, reason, code) values (?, ?, ?, ?, ?, ?, ?)
        on conflict do update set until = excluded.until, reason = excluded.reason, code = excluded.code where until < excluded.until""",
        (hold.provider, hold.region or "", hold.flavor or "", hold.market or "", hold.until_ms, hold.reason, hold.code),
    )
    _changed(db)


def holds(db: apsw.Connection, now_ms: int) -> list[Hold]:
    """What is not to be tried now."""
    rows = query.rows(
        db,
        """select provider, nullif(region, ''), nullif(flavor, ''), nullif(market, ''), until, reason, code from hold where until > ?
        order by provider, region, flavor, market""",
        (now_ms,),
    )
    return [Hold(*row) for row in rows]


def drop_holds(db: apsw.Connection, now_ms: int, provider: str | None = None) -> None:
    """Forget those that are over; with a provider, all of it: its check has passed, or its user wants another try."""
    db.execute("delete from hold where until <= ? or provider = ?", (now_ms, provider))
    _changed(db)


def regions(db: apsw.Connection, provider: str | None = None) -> list[str]:
    """The regions in which something is sold."""
    sql = "select distinct region from offer where provider = coalesce(?, provider) order by region"
    return [str(row[0]) for row in query.rows(db, sql, (provider,))]


def has_spot(db: apsw.Connection, provider: str) -> bool:
    """Whether a provider sells something on the market where prices move."""
    return bool(query.rows(db, "select 1 from offer where provider = ? and market = 'spot' limit 1", (provider,)))


def rented(db: apsw.Connection) -> list[tuple[Offer, int | None]]:
    """What this file has rented, or is asking for: each machine's offer, and since when the provider has it."""
    rows = query.rows(
        db,
        f"""select json_extract(data, '$.offer'), accepted from rental indexed by rental_open
        where state in ({",".join(str(int(state)) for state in sorted(RENTED))})""",
    )
    return [(Offer.of(json.loads(told)), accepted) for told, accepted in rows if told is not None]


# --- when -------------------------------------------------------------------------------------------------------------------------


def reads(db: apsw.Connection, provider: str | None = None) -> list[Read]:
    """When what was read, or tried."""
    rows = query.rows(
        db,
        """select provider, what, region, fetched, tried, again, failures, problem from catalogue where provider = coalesce(?, provider)
        order by provider, what, region""",
        (provider,),
    )
    return [Read(*row) for row in rows]


def read(db: apsw.Connection, provider: str, what: str, region: str = "") -> Read:
    """When one thing was."""
    found = [one for one in reads(db, provider) if (one.what, one.region) == (what, region)]
    return found[0] if found else Read(provider, what, region)


def note_read(
    db: apsw.Connection, now_ms: int, provider: str, what: str, region: str = "", problem: str | None = None
) -> None:
    """It was read just now. `problem`: what of it made no sense."""
    db.execute(
        "insert or replace into catalogue(provider, what, region, fetched, tried, problem) values (?, ?, ?, ?, ?, ?)",
        (provider, what, region, now_ms, now_ms, problem),
    )


def note_failure(
    db: apsw.Connection, now_ms: int, provider: str, what: str, region: str, problem: str, again_ms: int
) -> None:
    """It could not be read: what was read before stays, with its age."""
    db.execute(
        """insert into catalogue(provider, what, region, tried, again, failures, problem) values (?, ?, ?, ?, ?, 1, ?)
        on conflict do update set tried = excluded.tried, again = excluded.again, failures = failures + 1, problem = excluded.problem""",
        (provider, what, region, now_ms, again_ms, problem),
    )


def forget(db: apsw.Connection, keep: Iterable[str]) -> None:
    """Providers that are not configured any more sell nothing."""
    names = json.dumps(sorted(keep))
    gone = query.rows(
        db, "select distinct provider from catalogue where provider not in (select value from json_each(?))", (names,)
    )
    for (name,) in gone:
        for table in ("offer", "flavor", "quota", "catalogue"):
            db.execute(f"delete from {table} where provider = ?", (name,))
    if gone:
        _changed(db)


# --- what was seen ----------------------------------------------------------------------------------------------------------------


def history(
    db: apsw.Connection, since_ms: int = 0, *, now_ms: int | None = None
) -> dict[tuple[str, str, str, str], Observed]:
    """What became of machines, by provider, region, flavor and market. With `now_ms` only what is not too old, and those that run
    count, too."""
    since_ms = since_ms if now_ms is None else max(since_ms, now_ms - SEEN_MS)
    rows = query.rows(
        db,
        """select provider, region, flavor, market, sum(machine_s), sum(boots), sum(boot_s), sum(evictions), sum(failures) from (
          select provider, region, flavor, market, machine_s, boots, boot_s, evictions, failures from observed where hour >= ?1
          union all select provider, region, flavor, market, max(0, ?2 - running) / 1000.0, 0, 0, 0, 0 from rental
          where ended is null and running is not null and ?2 is not null)
        group by 1, 2, 3, 4""",
        (since_ms // 3_600_000, now_ms),
    )
    return {(row[0], row[1], row[2], row[3]): Observed(*row[4:]) for row in rows}
