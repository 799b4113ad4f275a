"""Where the boxes of a graph go: layers by what comes after what, few crossings, boxes near their neighbours.

Pure geometry; drawing is `reportgraph`. The classic way for layered pictures: turn cycles, layer by the longest path, put
invisible boxes where an edge passes a layer, order layers by their neighbours' places, then move boxes towards those. Long edges
that come from, or lead to, the same box pass a layer together: a gather of many tasks is a bundle, not a curtain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

Node = int
Edge = tuple[int, int]

SWEEPS = 12
# Beyond so many invisible boxes long edges are drawn straight: a picture that full is not read edge by edge.
INVISIBLE = 4000
# How wide such a box is.
NARROW = 0.4


class Placed(NamedTuple):
    """A layered graph: of each box its layer and its place across, in units of one box; of each edge the places it passes.

    `back` are the edges that lead against the order of the layers.
    """

    layer: dict[Node, int]
    across: dict[Node, float]
    ways: dict[Edge, list[tuple[int, float]]]
    back: frozenset[Edge]

    @property
    def layers(self) -> int:
        """How many."""
        return max(self.layer.values(), default=-1) + 1

    @property
    def width(self) -> float:
        """From the first place across to the last, in boxes."""
        return max(self.across.values(), default=-1.0) + 1


def place(nodes: Sequence[Node], edges: Iterable[Edge]) -> Placed:
    """Place boxes, whose order is that in which they would be read if nothing else mattered."""
    known = set(nodes)
    wanted = list(dict.fromkeys((a, b) for a, b in edges if a in known and b in known and a != b))
    back = _back(nodes, wanted)
    forward = list(dict.fromkeys((b, a) if (a, b) in back else (a, b) for a, b in wanted))
    layer = _layers(nodes, forward)
    chains, inner = _chains(forward, layer)
    rows = _rows(nodes, layer, chains)
    neighbours = _neighbours(inner)
    for sweep in range(SWEEPS):
        _order(rows, neighbours, down=sweep % 2 == 0)
    across = _across(rows, neighbours, known)
    lowest = min((across[node] for node in nodes), default=0.0)
    across = {box: at - lowest for box, at in across.items()}
    ways = {}
    for a, b in wanted:
        key = (b, a) if (a, b) in back else (a, b)
        way = [(at, across[box]) for at, box in chains[key]]
        ways[a, b] = way[::-1] if (a, b) in back else way
    return Placed(layer, {node: across[node] for node in nodes}, ways, frozenset(back))


def _back(nodes: Sequence[Node], edges: Sequence[Edge]) -> set[Edge]:
    """Edges that close a circle, found by going through the graph without coming back to where one is on the way."""
    following: dict[Node, list[Node]] = {node: [] for node in nodes}
    for a, b in edges:
        following[a].append(b)
    done: set[Node] = set()
    back: set[Edge] = set()
    for start in nodes:
        if start in done:
            continue
        path, on_way = [(start, iter(following[start]))], {start}
        while path:
            node, rest = path[-1]
            for to in rest:
                if to in on_way:
                    back.add((node, to))
                elif to not in done:
                    path.append((to, iter(following[to])))
                    on_way.add(to)
                    break
            else:
                path.pop()
                on_way.discard(node)
                done.add(node)
    return back


def _layers(nodes: Sequence[Node], edges: Sequence[Edge]) -> dict[Node, int]:
    """Each as early as it can be; what nothing leads to, right before what it leads to."""
    following: dict[Node, list[Node]] = {node: [] for node in nodes}
    open_ = dict.fromkeys(nodes, 0)
    for a, b in edges:
        following[a].append(b)
        open_[b] += 1
    sources = [node for node in nodes if not open_[node]]
    layer = dict.fromkeys(nodes, 0)
    ready = list(sources)
    while ready:
        node = ready.pop()
        for to in following[node]:
            layer[to] = max(layer[to], layer[node] + 1)
            open_[to] -= 1
            if not open_[to]:
                ready.append(to)
    for node in sources:
        if following[node]:
            layer[node] = min(layer[to] for to in following[node]) - 1
    return layer


def _chains(edges: Sequence[Edge], layer: Mapping[Node, int]) -> tuple[dict[Edge, list[tuple[int, Node]]], list[Edge]]:
    """Of each edge the boxes it passes (invisible ones have numbers below zero), and the steps from layer to layer."""
    long = [(a, b) for a, b in edges if layer[b] - layer[a] > 1]
    leaving, coming = Counter(a for a, _ in long), Counter(b for _, b in long)
    total = sum(layer[b] - layer[a] - 1 for a, b in long)
    chains: dict[Edge, list[tuple[int, Node]]] = {}
    inner: dict[Edge, None] = {}
    invisible: dict[tuple[bool, Node, int], Node] = {}
    lowest = min([0, *layer])
    for a, b in edges:
        chain = [(layer[a], a)]
        together = coming[b] >= leaving[a]
        if total <= INVISIBLE:
            for at in range(layer[a] + 1, layer[b]):
                key = (together, b if together else a, at)
                chain.append((at, invisible.setdefault(key, lowest - len(invisible) - 1)))
        chain.append((layer[b], b))
        chains[a, b] = chain
        inner.update(dict.fromkeys((one[1], other[1]) for one, other in pairwise(chain)))
    return chains, list(inner)


def _rows(
    nodes: Sequence[Node], layer: Mapping[Node, int], chains: Mapping[Edge, Sequence[tuple[int, Node]]]
) -> list[list[Node]]:
    rows: list[list[Node]] = [[] for _ in range(max(layer.values(), default=-1) + 1)]
    for node in nodes:
        rows[layer[node]].append(node)
    for at, box in dict.fromkeys(passed for chain in chains.values() for passed in chain[1:-1]):
        rows[at].append(box)
    return rows


class _Neighbours(NamedTuple):
    before: dict[Node, list[Node]]
    after: dict[Node, list[Node]]


def _neighbours(edges: Sequence[Edge]) -> _Neighbours:
    found = _Neighbours({}, {})
    for a, b in edges:
        found.after.setdefault(a, []).append(b)
        found.before.setdefault(b, []).append(a)
    return found


def _order(rows: list[list[Node]], neighbours: _Neighbours, *, down: bool) -> None:
    """Sort each layer by the mean place of its neighbours in the one before (or after)."""
    sides = neighbours.before if down else neighbours.after
    sequence = range(1, len(rows)) if down else range(len(rows) - 2, -1, -1)
    for at in sequence:
        fixed = rows[at - 1 if down else at + 1]
        places = {box: place for place, box in enumerate(fixed)}
        here = {box: place for place, box in enumerate(rows[at])}

        def mean(box: Node, places: dict[Node, int] = places, here: dict[Node, int] = here) -> float:
            found = [places[one] for one in sides.get(box, ()) if one in places]
            return sum(found) / len(found) if found else here[box]

        rows[at].sort(key=mean)


def _across(rows: list[list[Node]], neighbours: _Neighbours, nodes: Container[Node]) -> dict[Node, float]:
    """Places across: each towards the mean of its neighbours, none nearer to the next than their widths allow."""
    across = {box: float(place) for row in rows for place, box in enumerate(row)}
    degree = {
        box: len(neighbours.before.get(box, ())) + len(neighbours.after.get(box, ())) for row in rows for box in row
    }
    widths = {box: 1.0 if box in nodes else NARROW for row in rows for box in row}
    for sweep in range(SWEEPS):
        for row in rows if sweep % 2 == 0 else reversed(rows):
            wanted = []
            for box in row:
                near = [*neighbours.before.get(box, ()), *neighbours.after.get(box, ())]
                # What many hang on pulls each of them but a little: chains stay straight.
                pulls = [1 / degree[one] for one in near]
                total = sum(pull * across[one] for pull, one in zip(pulls, near, strict=True))
                wanted.append(total / sum(pulls) if near else across[box])
            across.update(zip(row, _apart(wanted, [widths[box] for box in row]), strict=True))
    return across


def _apart(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """The places nearest to those wanted (by least squares) at which boxes of these widths stand in order without overlapping."""
    offsets = [0.0]
    for one, other in pairwise(widths):
        offsets.append(offsets[-1] + (one + other) / 2)
    blocks: list[tuple[float, int]] = []
    for at, offset in zip(wanted, offsets, strict=False):
        total, count = at - offset, 1
        while blocks and blocks[-1][0] / blocks[-1][1] >= total / count:
            before = blocks.pop()
            total, count = total + before[0], count + before[1]
        blocks.append((total, count))
    means = [total / count for total, count in blocks for _ in range(count)]
    return [mean + offset for mean, offset in zip(means, offsets, strict=False)]
