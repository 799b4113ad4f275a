"""Protofilters: `auto:cpu>=32:ram>=128:disk>=400` says which machine will do. Parsed and evaluated here and nowhere else.

Pure. The same evaluator answers which offer to rent and which worker to take over. A flavor is a name, or a protofilter:
`auto` alone or `auto:` and filters with `:` between them, which must all be met. A filter is an item, a comparator and a value:

    cpu                      == != >= <= > <     a number
    ram disk gpumem          == != >= <= > <     an amount: GB, or with a unit (64G, 512MiB, 1.5T); gpumem is that of one GPU
    cost, price              == != >= <= > <     a number, per hour
    eviction                 == != >= <= > <     a number, per cent per hour
    gpu                      == != >= <= > <     how many; or == != ~ !~ and a model
    name region zone         == != ~ !~          a text; with ~ (like) % stands for anything, in either case of letters
    provider arch            == != ~ !~          the same; arch is x86_64 or arm64
    market                   == !=               spot or ondemand
    tags                     # !# == != ~ !~     letters: G (GPU), M (bare metal), N (NVMe); # has all of them, !# has none of them

`ram>=128` is met from 97 % of it on: vendors call 128 what is 125.8 to their own programs. What nothing is said of, a search for
offers sees to: few evictions, no bare metal, no GPU, x86_64 (`with_implied`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from scitq.errors import BadInput, BadProtofilter
from scitq.offers import Offer

AUTO = "auto"
# What is looked for when nothing is said of evictions (per cent per hour), of tags, of the kind of CPU.
MAX_EVICTION = 5.0
METAL, GPU = "M", "G"
ARCH = "x86_64"
# From this share of the memory that is asked for on it is enough.
NEARLY = 0.97

_NUMERIC = ("==", "!=", ">=", "<=", ">", "<")
_LIKE = ("==", "!=", "~", "!~")
_ALLOWED: dict[str, tuple[str, ...]] = {
    "cpu": _NUMERIC, "ram": _NUMERIC, "disk": _NUMERIC, "gpumem": _NUMERIC, "cost": _NUMERIC, "price": _NUMERIC,
    "eviction": _NUMERIC, "gpu": (*_NUMERIC, "~", "!~"), "name": _LIKE, "region": _LIKE, "zone": _LIKE, "provider": _LIKE,
    "arch": _LIKE, "market": ("==", "!="), "tags": ("#", "!#", *_LIKE),
}  # fmt: skip
ITEMS = tuple(_ALLOWED)
# What is said when a filter is not met that nobody wrote.
_IMPLIED = {
    "eviction": "it is taken back too often ({has} % an hour): say eviction<= and how much may be",
    "M": "it is bare metal, which was not asked for: tags#M or tags~%",
    "G": "it has a GPU, which was not asked for: gpu>=1 or tags#G",
    "arch": "its CPUs are {has}, which was not asked for: arch=={has}",
}
_BYTES = frozenset({"ram", "disk", "gpumem"})
_MARKETS = ("spot", "ondemand")
_COMPARATORS = ("==", "!=", ">=", "<=", "!~", "!#", ">", "<", "~", "#")
_PIECE = re.compile(r"(?P<item>[A-Za-z]*)(?P<gap>\s*)(?P<rest>.*)", re.DOTALL)
_NUMBER = re.compile(r"[0-9]+(?:\.[0-9]*)?|\.[0-9]+")
_TEXT = re.compile(r"[\w.%/+-]+")
_UNITS = {
    "": 10**9,
    **{unit: 10 ** (3 * n) for n, unit in enumerate("kmgt", 1)},
    **{f"{unit}i": 2 ** (10 * n) for n, unit in enumerate("kmgt", 1)},
}


@dataclass(frozen=True)
class Filter:
    """One filter. `value` is a number (bytes for amounts) or a text; `text` is what was written, from `column` on, or what is
    implied (column 0)."""

    item: str
    comparator: str
    value: float | str
    text: str
    column: int = 0

    @property
    def is_implied(self) -> bool:
        """Nobody wrote it."""
        return self.column == 0

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Machine:
    """What filters are compared with: an offer, or a worker. None: not known, which meets no filter but a negative one.

    `flavors` are the names it answers to as a flavor, `names` all that it is called. Amounts are in bytes.
    """

    flavors: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    cpu: float | None = None
    ram: int | None = None
    disk: int | None = None
    gpu: float | None = None
    gpumem: int | None = None
    models: tuple[str, ...] = ()
    tags: frozenset[str] = frozenset()
    region: str | None = None
    zones: tuple[str, ...] = ()
    provider: str | None = None
    arch: str | None = None
    market: str | None = None
    cost: float | None = None
    eviction: float | None = None


def machine_of(offer: Offer, *names: str) -> Machine:
    """An offer as filters see it; or the worker of those names that it became: it is the same machine."""
    flavor, gpu = offer.flavor, offer.flavor.gpu
    return Machine(
        flavors=(flavor.name,), names=(flavor.name, *names), cpu=flavor.cpu, ram=flavor.ram, disk=offer.disk,
        gpu=0 if gpu is None else gpu.count, gpumem=None if gpu is None else gpu.memory, models=() if gpu is None else (gpu.model,),
        tags=frozenset(flavor.tags), region=offer.region, zones=offer.zones, provider=flavor.provider, arch=flavor.arch,
        market=offer.market, cost=offer.price, eviction=offer.eviction,
    )  # fmt: skip


# --- reading ----------------------------------------------------------------------------------------------------------------------


def is_protofilter(flavor: str) -> bool:
    """Whether a flavor is to be looked for, and not a name."""
    return flavor == AUTO or flavor.startswith(AUTO + ":")


@lru_cache(maxsize=1024)
def parse(text: str, *, with_auto: bool = True) -> tuple[Filter, ...]:
    """The filters of a protofilter; without `with_auto`, of filters alone.

    Raises:
        BadProtofilter: it makes no sense; the error says where.
    """
    if with_auto and text == AUTO:
        return ()
    if with_auto and not text.startswith(AUTO + ":"):
        _refuse(text, 1 + (len(AUTO) if text.startswith(AUTO) else 0), "it begins with auto: (or is auto alone)")
    found, column = [], 1 + (len(AUTO) + 1 if with_auto else 0)
    for piece in text[column - 1 :].split(":"):
        found.append(_filter(text, piece, column))
        column += len(piece) + 1
    return tuple(found)


def flavor_of(value: Any) -> str:
    """A flavor, checked: a name, or a protofilter.

    Raises:
        BadInput: it is neither; a BadProtofilter says where.
    """
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise BadInput(f"flavor must be a name such as 'local', or a protofilter such as 'auto:cpu>=8', not {value!r}.")
    text = value.strip()
    if text.startswith(AUTO):
        parse(text)
    return text


def _filter(text: str, piece: str, column: int) -> Filter:
    """One filter; `column` is where its piece begins in the text."""
    body = piece.lstrip()
    column += len(piece) - len(body)
    body = body.rstrip()
    if not body:
        _refuse(text, column, "a filter such as cpu>=8 is missing")
    match = _PIECE.fullmatch(body)
    assert match is not None
    item, rest = match["item"].lower(), match["rest"]
    if item not in _ALLOWED:
        _refuse(text, column, f"{match['item'] or body!r} is nothing to ask for (there are {', '.join(ITEMS)})")
    after = column + len(match["item"]) + len(match["gap"])
    comparator = next((one for one in _COMPARATORS if rest.startswith(one)), None)
    if comparator is None:
        hint = "for 'equal' write ==" if rest.startswith("=") else f"of {item} it may be {' '.join(_ALLOWED[item])}"
        _refuse(text, after, f"a comparator is missing: {hint}")
    if comparator not in _ALLOWED[item]:
        _refuse(text, after, f"{item} is compared by {' '.join(_ALLOWED[item])}, not by {comparator}")
    written = rest[len(comparator) :]
    at = after + len(comparator) + len(written) - len(written.lstrip())
    value = _value(text, item, comparator, written.strip(), at)
    return Filter(item, comparator, value, f"{item}{comparator}{written.strip()}", column)


def _value(text: str, item: str, comparator: str, written: str, at: int) -> float | str:
    if not written:
        _refuse(text, at, f"what {item} is compared with is missing")
    if item in _BYTES:
        match = re.fullmatch(r"([0-9.]+)\s*([kmgt]?i?)b?", written.lower())
        if match is None or not _NUMBER.fullmatch(match[1]) or match[2] not in _UNITS:
            _refuse(text, at, f"{item} is an amount in GB, or one such as 64G or 512MiB, not {written!r}")
        return float(match[1]) * float(_UNITS[match[2]])
    is_text = _ALLOWED[item] is not _NUMERIC and (
        item != "gpu" or comparator in ("~", "!~") or (comparator in ("==", "!=") and not _NUMBER.fullmatch(written))
    )
    if not is_text:
        number = written.removesuffix("%") if item == "eviction" else written
        if not _NUMBER.fullmatch(number):
            _refuse(text, at, f"{item} is a number, not {written!r}")
        return float(number)
    wrong = next((n for n, letter in enumerate(written) if not _TEXT.fullmatch(letter)), None)
    if wrong is not None:
        _refuse(text, at + wrong, f"{written[wrong]!r} cannot be part of a value")
    if item == "market" and written not in _MARKETS:
        _refuse(text, at, f"market is {' or '.join(_MARKETS)}, not {written!r}")
    if comparator in ("#", "!#") and not written.isalpha():
        _refuse(text, at, f"tags are letters such as GN, not {written!r}")
    return written


def _refuse(text: str, column: int, what: str) -> NoReturn:
    raise BadProtofilter(f"{text!r} is no protofilter: at column {column}, {what}.", text=text, column=column)


# --- asking -----------------------------------------------------------------------------------------------------------------------


def suits(flavor: str | None, machine: Machine) -> bool:
    """Whether a machine is of a flavor; None is any."""
    if flavor is None:
        return True
    if is_protofilter(flavor):
        return all(is_met(one, machine) for one in parse(flavor))
    return flavor in machine.flavors


def with_implied(
    filters: Sequence[Filter], *, max_eviction: float = MAX_EVICTION, may_have_gpu: bool = False
) -> tuple[Filter, ...]:
    """The filters of a search for offers: few evictions, no bare metal, no GPU, and the usual kind of CPU, unless something is said
    of those. `may_have_gpu`: GPUs are asked for elsewhere."""
    asked = {one.item for one in filters}
    more = []
    if "eviction" not in asked:
        more.append(Filter("eviction", "<=", float(max_eviction), f"eviction<={max_eviction:g}"))
    if "tags" not in asked:
        more.append(Filter("tags", "!#", METAL, f"tags!#{METAL}"))
    if not may_have_gpu and not asked & {"gpu", "gpumem"} and not any(map(_speaks_of_gpus, filters)):
        more.append(Filter("tags", "!#", GPU, f"tags!#{GPU}"))
    if "arch" not in asked:
        more.append(Filter("arch", "==", ARCH, f"arch=={ARCH}"))
    return (*filters, *more)


def _speaks_of_gpus(one: Filter) -> bool:
    return one.item == "tags" and any(letter in str(one.value) for letter in (GPU, "%"))


def unmet(filters: Sequence[Filter], machine: Machine) -> list[Filter]:
    """The filters that a machine does not meet."""
    return [one for one in filters if not is_met(one, machine)]


def is_met(one: Filter, machine: Machine) -> bool:
    """Whether a machine meets a filter."""
    if one.item == "tags":
        return _tags_met(one, machine.tags)
    if isinstance(one.value, float):
        has = value_of(one.item, machine)
        asked = one.value * NEARLY if (one.item, one.comparator) == ("ram", ">=") else one.value
        return has is not None and _compares(float(has), one.comparator, asked)
    texts = _texts(one.item, machine)
    has_pattern = one.comparator in ("~", "!~")
    found = any(is_like(text, one.value) if has_pattern else text == one.value for text in texts)
    return not found if one.comparator.startswith("!") else found


def value_of(item: str, machine: Machine) -> Any:
    """What a machine has of an item; None: not known, or nothing."""
    if item in ("name", "zone"):
        return (machine.names if item == "name" else machine.zones) or None
    return getattr(machine, "cost" if item == "price" else item)


def reason(one: Filter, machine: Machine) -> str | None:
    """Why a machine does not meet a filter, in a sentence; None when it does."""
    if is_met(one, machine):
        return None
    has = told(one.item, machine)
    if one.is_implied:
        return _IMPLIED[str(one.value) if one.item == "tags" else one.item].format(has=has)
    return f"{one} is not met: {'its name is' if one.item == 'name' else 'it has'} {has}"


def told(item: str, machine: Machine) -> str:
    """The same in words: `8`, `64 GB`, `not known`."""
    has = value_of(item, machine)
    if has is None:
        return "not known"
    if item in _BYTES:
        return f"{has / 1e9:.4g} GB"
    if isinstance(has, float | int):
        return f"{has:g}"
    return (
        "".join(sorted(has)) or "none"
        if isinstance(has, frozenset)
        else ", ".join([has] if isinstance(has, str) else has)
    )


def _texts(item: str, machine: Machine) -> tuple[str, ...]:
    if item == "name":
        return machine.names
    if item == "zone":
        return machine.zones
    if item == "gpu":
        return machine.models
    has = getattr(machine, item)
    return () if has is None else (has,)


def _tags_met(one: Filter, tags: frozenset[str]) -> bool:
    asked = str(one.value)
    if one.comparator == "#":
        return tags >= set(asked)
    if one.comparator == "!#":
        return not tags & set(asked)
    text = "".join(sorted(tags))
    found = is_like(text, asked) if "~" in one.comparator else tags == set(asked)
    return not found if one.comparator.startswith("!") else found


def _compares(has: float, comparator: str, asked: float) -> bool:
    match comparator:
        case "==":
            return has == asked
        case "!=":
            return has != asked
        case ">=":
            return has >= asked
        case "<=":
            return has <= asked
        case ">":
            return has > asked
        case _:
            return has < asked


def named(text: str, wanted: str) -> bool:
    """Whether a text is what is wanted, which may be a pattern."""
    return is_like(text, wanted) if "%" in wanted else text == wanted


def is_like(text: str, pattern: str) -> bool:
    """Whether a text is like a pattern, in which `%` stands for anything; upper and lower case are the same."""
    expression = ".*".join(re.escape(part) for part in pattern.split("%"))
    return re.fullmatch(expression, text, re.IGNORECASE | re.DOTALL) is not None
