"""Where boxes of a graph go, and what commands have in common: pure, so tried on many."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from scitq.workflow.reportcommand import PATTERNS, Patterns
from scitq.workflow.reportfacts import axis_of
from scitq.workflow.reportgraph import fitted
from scitq.workflow.reportlayout import _apart, place


def test_edges_lead_from_earlier_layers_to_later_ones_and_boxes_do_not_overlap() -> None:
    chance = random.Random(11)
    for _ in range(150):
        count = chance.randint(1, 40)
        nodes = list(range(1, count + 1))
        edges = [(a, b) for a in nodes for b in nodes if a < b and chance.random() < 2 / count]

        placed = place(nodes, edges)

        assert set(placed.layer) == set(placed.across) == set(nodes) and not placed.back
        assert all(placed.layer[a] < placed.layer[b] for a, b in edges) and set(placed.ways) == set(edges)
        assert min(placed.layer.values()) == 0
        for layer in range(placed.layers):
            across = sorted(placed.across[node] for node in nodes if placed.layer[node] == layer)
            assert all(b - a > 0.999 for a, b in pairwise(across))
        for (a, b), way in placed.ways.items():
            assert way[0] == (placed.layer[a], placed.across[a]) and way[-1] == (placed.layer[b], placed.across[b])


def test_a_circle_of_steps_is_drawn_with_one_edge_back() -> None:
    placed = place([1, 2, 3], [(1, 2), (2, 3), (3, 1), (2, 2)])

    assert placed.back == {(3, 1)} and placed.layer == {1: 0, 2: 1, 3: 2}
    assert placed.ways[3, 1][0][0] == 2 and placed.ways[3, 1][-1][0] == 0


def test_a_chain_is_straight_and_a_fan_is_even() -> None:
    chain = place([1, 2, 3], [(1, 2), (2, 3)])
    fan = place([1, 2, 3, 4], [(1, 4), (2, 4), (3, 4)])

    assert len(set(chain.across.values())) == 1
    assert [fan.across[node] for node in (1, 2, 3, 4)] == [0, 1, 2, 1]


def test_a_thousand_steps_with_long_edges_are_placed() -> None:
    nodes = list(range(1, 1001))
    edges = [(node, node + 1) for node in nodes[:-1]] + [(1, node) for node in nodes[5:]]

    placed = place(nodes, edges)

    assert placed.layers == 1000


def test_places_are_the_nearest_that_are_apart() -> None:
    assert _apart([0, 0, 0], [1, 1, 1]) == pytest.approx([-1, 0, 1])
    assert _apart([0, 5, 5.2], [1, 1, 1]) == pytest.approx([0, 4.6, 5.6])
    assert _apart([3, 3], [1, 0.4]) == pytest.approx([2.65, 3.35])
    assert _apart([], []) == []


def test_long_edges_to_one_box_pass_the_layers_between_together() -> None:
    first, second, third, last = [1, 2, 3], [4, 5, 6], [7, 8, 9], 10
    chains = [*zip(first, second, strict=True), *zip(second, third, strict=True)]

    placed = place([*first, *second, *third, last], [*chains, *((node, last) for node in (*first, *third))])

    assert len({tuple(placed.ways[node, last][1:]) for node in first}) == 1
    assert all(len(placed.ways[node, last]) == 4 for node in first)


def test_commands_that_differ_in_names_are_one_pattern() -> None:
    patterns = Patterns()
    for number in range(5000):
        patterns.add(f"fastp -i $INPUT/s{number}_1.fq.gz -o $OUTPUT/s{number}.fq.gz --seed {number * 7}", f"s{number}")

    (only,) = patterns.known

    assert only.count == 5000 and not patterns.others and not only.is_exact
    assert only.text == "fastp -i $INPUT/{…}.fq.gz -o $OUTPUT/{name}.fq.gz --seed {…}"
    assert only.first == "fastp -i $INPUT/s0_1.fq.gz -o $OUTPUT/s0.fq.gz --seed 0"


def test_commands_that_have_nothing_in_common_are_told_apart_and_their_number_is_bounded() -> None:
    patterns = Patterns()
    words = ["sort", "uniq", "cut", "tr", "sed", "awk", "grep", "head", "tail", "wc", "rev", "fold"]
    for word in words:
        patterns.add(f"{word} --{word} {word}.{word}", None)

    assert len(patterns.known) == PATTERNS and patterns.others == len(words) - PATTERNS
    assert all(one.is_exact and one.text == one.first for one in patterns.known)


def test_a_name_that_is_part_of_another_word_is_left_alone() -> None:
    patterns = Patterns()
    patterns.add("cat data10 a1 a1.txt", "a1")
    patterns.add("cat data10 b2 b2.txt", "b2")

    assert [one.text for one in patterns.known] == ["cat data10 {name} {name}.txt"]


def test_time_in_which_nothing_ran_is_left_out_of_the_axis() -> None:
    day = 86_400_000
    axis = axis_of([(0, 60_000), (61_000, 120_000), (day, day + 120_000)])

    assert axis.parts == ((0, 120_000), (day, day + 120_000)) and axis.length_ms == 240_000
    assert [axis.place(at) for at in (-5, 0, 60_000, 120_000, day, day + 60_000, 2 * day)] == [
        0,
        0,
        0.25,
        0.5,
        0.5,
        0.75,
        1,
    ]
    assert axis.cuts == [(0.5, day - 120_000)]
    assert axis_of([]).place(7) == 0 and axis_of([(5, 5)]).length_ms == 1


def test_texts_are_cut_by_the_columns_they_take() -> None:
    assert fitted("align", 17) == "align"
    assert fitted("a" * 30, 10) == "a" * 9 + "…"
    assert fitted("試料の配列を揃える", 10) == "試料の配…"
    assert fitted("bad\x1b]0;title\x07", 40) == r"bad\x1b]0;title\x07"
