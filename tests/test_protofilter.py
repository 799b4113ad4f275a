"""Protofilters: what they mean, and what is said of those that mean nothing."""

from __future__ import annotations

import operator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq.errors import BadInput, BadProtofilter
from scitq.protofilter import ITEMS, Machine, flavor_of, parse, suits, told, unmet, with_implied

BIG = Machine(
    flavors=("b3-64",), names=("b3-64", "node1"), cpu=16, ram=64 * 10**9, disk=400 * 10**9, gpu=2, gpumem=80 * 10**9,
    models=("NVIDIA A100", "NVIDIA A100"), tags=frozenset("GN"), region="GRA11", provider="ovh", market="spot", cost=0.5, eviction=5,
    zones=("a", "b"), arch="x86_64",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "is_so"),
    [
        ("auto", True), ("auto:cpu>=16", True), ("auto:cpu>16", False), ("auto:cpu==16:ram>=64", True), ("auto:cpu!=16", False),
        ("auto:cpu<=20", True), ("auto:cpu<16", False), ("auto:ram>=64G", True), ("auto:ram>=64GiB", False), ("auto:ram>64", False),
        ("auto:ram>=0.06T", True), ("auto:ram>=64000MB", True), ("auto:disk>=400:disk<1T", True), ("auto:gpumem>=80", True),
        ("auto:gpu>=2", True), ("auto:gpu==1", False), ("auto:gpu~%A100%", True), ("auto:gpu!~%a100%", False), ("auto:gpu==V100", False),
        ("auto:region~GRA%", True), ("auto:region~gra%", True), ("auto:region==GRA", False), ("auto:region!=GRA9", True),
        ("auto:region!~GRA%", False), ("auto:region~RA%", False), ("auto:provider==ovh", True), ("auto:name==node1", True),
        ("auto:name~b3-%", True), ("auto:name!~%node%", False), ("auto:tags#G", True), ("auto:tags#GN", True), ("auto:tags#GM", False),
        ("auto:tags!#M", True), ("auto:tags!#MN", False), ("auto:tags==NG", True), ("auto:tags~%", True), ("auto:tags!=G", True),
        ("auto:cost<.6", True), ("auto:price<0.5", False), ("auto:eviction<=5", True), ("auto:eviction<5%", False),
        ("auto:market==spot", True), ("auto:market==ondemand", False), ("b3-64", True), ("node1", False), ("b3", False),
        ("auto: cpu >= 16 : region == GRA11", True), ("auto:arch==x86_64", True), ("auto:arch!=x86_64", False), ("auto:arch~ARM%", False),
        ("auto:zone==b", True), ("auto:zone~%c", False), ("auto:zone!=a", False), ("auto:gpu>=1.5", True),
    ],
)  # fmt: skip
def test_what_filters_mean(text: str, is_so: bool) -> None:
    assert suits(flavor_of(text), BIG) is is_so


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("auto:", 6, "missing"), ("auto:cpu>=8:", 13, "missing"), ("auto::cpu>=8", 6, "missing"), ("automatic", 5, "begins with auto:"),
        ("auto:cores>=8", 6, "'cores' is nothing to ask for"), ("auto:cpu=3", 9, "write =="), ("auto:cpu", 9, "comparator is missing"),
        ("auto:cpu~3", 9, "not by ~"), ("auto:cpu>=", 11, "is missing"), ("auto:cpu>=abc", 11, "is a number"),
        ("auto:ram>=abc", 11, "an amount"), ("auto:cpu>=1:ram>=6X", 18, "an amount"), ("auto:cpu>>3", 10, "is a number"),
        ("auto:region>=a", 12, "not by >="), ("auto:region==a b", 15, "' ' cannot"), ("auto:region~'x'", 13, "cannot be part"),
        ("auto:market==cheap", 14, "spot or ondemand"), ("auto:tags#3", 11, "letters"), ("auto:3>=cpu", 6, "nothing to ask for"),
        ("auto:cost<1.2.3", 11, "is a number"), ("auto:ram>=1.2.3G", 11, "an amount"),
    ],
)  # fmt: skip
def test_a_mistake_is_pointed_at(text: str, column: int, said: str) -> None:
    with pytest.raises(BadProtofilter) as caught:
        flavor_of(text)
    assert (caught.value.parts["column"], caught.value.parts["text"]) == (column, text)
    assert said in str(caught.value)
    assert f"at column {column}," in str(caught.value)


def test_a_flavor_is_a_line_of_text() -> None:
    for value in ("", "  ", None, 3, "a\nb"):
        with pytest.raises(BadInput):
            flavor_of(value)
    assert flavor_of(" local ") == "local"


def test_filters_may_stand_without_auto_where_nothing_else_can_be_meant() -> None:
    assert [str(one) for one in parse("cpu>=8:tags#G", with_auto=False)] == ["cpu>=8", "tags#G"]


def test_a_search_avoids_evictions_metal_gpus_and_other_cpus_unless_it_speaks_of_them() -> None:
    plain = Machine(cpu=8, eviction=0, arch="x86_64")
    metal, shaky = replace(plain, tags=frozenset("M")), replace(plain, eviction=20)
    graphic, arm = replace(plain, tags=frozenset("G"), gpu=1, gpumem=40 * 10**9), replace(plain, arch="arm64")
    for text, machine, is_so in (
        ("cpu>=8", plain, True),
        ("cpu>=8", metal, False), ("cpu>=8:tags~%", metal, True), ("cpu>=8:tags#M", metal, True),
        ("cpu>=8", shaky, False), ("cpu>=8:eviction>=0", shaky, True),
        ("cpu>=8", graphic, False), ("tags#N", graphic, False), ("tags#G", graphic, True), ("tags~%", graphic, True),
        ("gpu>=1", graphic, True), ("gpumem>=40", graphic, True), ("tags!#M", graphic, False),
        ("cpu>=8", arm, False), ("arch~%", arm, True), ("arch==arm64", arm, True),
    ):  # fmt: skip
        assert (not unmet(with_implied(parse(text, with_auto=False)), machine)) is is_so, text
    assert not unmet(with_implied((), max_eviction=20, may_have_gpu=True), replace(graphic, eviction=20))
    assert [one.is_implied for one in with_implied(parse("auto:cpu>=8"))] == [False, True, True, True, True]


def test_nearly_all_of_the_memory_that_is_asked_for_is_enough() -> None:
    """Vendors call 128 what is 125.8 to their own programs."""
    real = replace(BIG, ram=int(125.8e9))
    for text, is_so in (
        ("ram>=128", True),
        ("ram>=130", False),
        ("ram>126", False),
        ("ram==128", False),
        ("ram<=126", True),
    ):
        assert suits(f"auto:{text}", real) is is_so, text


@pytest.mark.promise("core 11.10")
def test_bare_auto_suits_any_machine_and_like_means_the_same_in_search_and_in_recycling() -> None:
    assert suits("auto", Machine())
    assert suits("auto:region~%11", BIG), "no mere prefix"
    assert suits("auto:tags!#MX", BIG)
    assert not suits("auto:tags!#MN", BIG), "none of the letters, not: not all of them"


def test_what_is_not_known_meets_no_filter_but_a_negative_one() -> None:
    unknown = Machine()
    for item in ITEMS:
        comparator = "#" if item == "tags" else "=="
        value = (
            "spot"
            if item == "market"
            else "G"
            if item in ("tags", "region", "zone", "provider", "arch", "name")
            else "0"
        )
        assert not suits(f"auto:{item}{comparator}{value}", unknown), item
    assert suits("auto:region!=GRA:region!~G%:tags!#M", unknown)


def test_what_a_machine_has_is_told_in_words() -> None:
    assert [told(item, BIG) for item in ("cpu", "ram", "tags", "name", "region", "price")] == [
        "16", "64 GB", "GN", "b3-64, node1", "GRA11", "0.5",
    ]  # fmt: skip
    assert told("cpu", Machine()) == "not known"


_OPERATORS: dict[str, Any] = {
    "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip


@given(
    st.sampled_from(["cpu", "cost", "eviction", "gpu"]), st.sampled_from(sorted(_OPERATORS)), st.integers(0, 40), st.integers(0, 40)
)  # fmt: skip
def test_numbers_compare_as_numbers(item: str, comparator: str, asked: int, has: int) -> None:
    machine = Machine(**{item: has})  # type: ignore[arg-type]
    assert suits(f"auto:{item}{comparator}{asked}", machine) is bool(_OPERATORS[comparator](has, asked))


@given(st.text(max_size=40))
def test_no_text_does_more_than_be_refused(text: str) -> None:
    try:
        found = flavor_of("auto:" + text)
    except BadProtofilter as problem:
        assert 1 <= problem.parts["column"] <= len(text) + 6
    except BadInput:
        assert not ("auto:" + text).isprintable()
    else:
        assert suits(found, BIG) in (True, False)
