"""What could be rented, on the command line: the table, why the rest would not do, how old it is; and what the shell proposes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from scitq.engine import Engine
from scitq.remote.providers.fake import Cloud
from scitq.shell.completing import candidates
from tests.shell import prepared
from tests.shell.here import Place


@pytest.fixture(autouse=True)
def file(place: Place) -> Path:
    """The settings: a provider, rehearsal."""
    return prepared.settings(place.lab.folder / "config.toml")


def listed(place: Place, words: str = "") -> list[dict[str, Any]]:
    found = place.run(f"scitq flavor list {words}", "--json")
    assert found.code == 0, found
    rows: list[dict[str, Any]] = json.loads(found.out)
    return rows


def test_what_would_do_is_listed_best_first_and_what_would_not_with_its_reason(place: Place) -> None:
    found = place.run("scitq flavor list 'cpu>=8:ram>=32' -n 3 --excluded")

    head, *lines = found.out.splitlines()
    assert head.split() == [
        "flavor",
        "region",
        "cpu",
        "ram",
        "disk",
        "market",
        "price/h",
        "slot/h,",
        "or",
        "why",
        "not",
    ]
    assert lines[0].split() == [
        "std-8",
        "north",
        "8",
        "34",
        "GB",
        "100",
        "GB",
        "ondemand",
        "0.32",
        "EUR",
        "0.0413",
        "EUR,",
        "16",
        "free",
    ]
    assert len(lines) == 6 and all("ondemand is configured" in line for line in lines[3:])
    assert "more would do: --limit 0" in found.err and "would not do" in found.err

    rows = listed(place, "cpu>=8:ram>=32 --limit 0")
    assert [row["place"] for row in rows] == list(range(1, len(rows) + 1))
    assert [row["cost"] for row in rows] == sorted(row["cost"] for row in rows)
    assert all(row["cpu"] >= 8 and row["ram"] >= 32e9 * 0.97 and row["excluded"] is None for row in rows)


def test_the_letters_of_scitq_1_mean_what_they_meant(place: Place) -> None:
    asked = "--min-cpu 8 --min-ram 100 --min-disk 200 -r north -P rehearsal --limit 0"
    assert {row["flavor"] for row in listed(place, asked)} == {"mem-16", "std-32"}
    assert {row["flavor"] for row in listed(place, "--protofilters cpu>=8:tags#M")} == {"metal-32"}
    spot = listed(place, "auto:market==spot --max-eviction 1")
    assert [row["place"] for row in spot] == [None] * 10
    assert any("taken back too often (2 % an hour)" in row["excluded"] for row in spot)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("'cpu=8'", 1, "at column 4, a comparator is missing: for 'equal' write =="),
        ("--market cheap", 2, "--market takes ondemand, spot or any, not 'cheap'"),
        ("cpu>=1 --protofilters cpu>=2", 2, "--protofilters is FILTERS"),
    ],
)
def test_mistakes_are_told_in_a_sentence(place: Place, words: str, code: int, said: str) -> None:
    found = place.run(f"scitq flavor list {words}")
    assert found.code == code and said in found.err


def test_nothing_that_would_do_is_explained(place: Place) -> None:
    found = place.run("scitq flavor list cpu>=1000 -n 2")
    assert found.code == 0 and "Nothing would do. Mostly: " in found.err
    assert "cpu>=1000 is not met: it has" in found.out


def test_a_flavor_is_shown_with_every_place_where_it_is_sold(place: Place) -> None:
    found = place.run("scitq flavor show gpu-8")
    assert (
        found.out.splitlines()[0]
        == "gpu-8 of rehearsal: 8 CPUs, 34.36 GB of memory, 100 GB of disk, 1 L4 with 25.77 GB each, x86_64"
    )
    assert {tuple(line.split()[1:3]) for line in found.out.splitlines()[3:]} == {
        ("north", "ondemand"), ("south", "ondemand"), ("north", "spot"), ("south", "spot"),
    }  # fmt: skip
    none = place.run("scitq flavor show gpu-9")
    assert none.code == 1 and "nobody sells a flavor 'gpu-9'" in none.err


def test_without_a_network_what_was_read_is_shown_with_its_age(place: Place) -> None:
    before = listed(place)
    cloud = Cloud(next(place.lab.folder.glob("*.scitq.d")) / "clouds" / "rehearsal")
    cloud.fail(call="offers", fault="down", times=-1)

    asked = place.run("scitq flavor refresh")
    assert asked.code == 1 and "failed" in asked.out
    assert listed(place) == before
    assert "(what it sold " in place.run("scitq flavor list").err


def test_nobody_configured_is_said(place: Place, file: Path) -> None:
    file.write_text("", encoding="utf-8")
    assert "No provider is configured" in place.run("scitq flavor list").err
    assert "no provider is configured" in place.run("scitq flavor refresh").err


def test_the_shell_proposes_flavors_regions_and_providers(place: Place) -> None:
    place.run("scitq flavor refresh")
    with Engine(place.lab.folder / "scitq.scitq", drive=False) as engine:

        def proposed(*words: str) -> dict[str, str]:
            return {one.text: one.help for one in candidates(engine, words[:-1], words[-1])}

        told = proposed("flavor", "show", "std-")
        assert set(told) == {"std-2", "std-4", "std-8", "std-16", "std-32"}
        assert told["std-8"].startswith("8 CPUs, 34.4 GB, disk 100 GB, from 0.112 EUR/h")
        assert "north" in told["std-8"] and "L4" in proposed("flavor", "show", "gpu")["gpu-8"]
        assert proposed("flavor", "list", "--region", "") == dict.fromkeys(("island", "north", "south"), "rehearsal")
        assert proposed("flavor", "list", "-P", "r") == {"rehearsal": "fake"}
        assert set(proposed("flavor", "list", "--market", "")) == {"ondemand", "spot", "any"}
        assert "auto:" in proposed("flavor", "list", "au")
