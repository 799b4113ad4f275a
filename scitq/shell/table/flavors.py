"""What could be rented."""

from __future__ import annotations

from scitq.shell.table.rows import Argument, Command, Option
from scitq.shell.table.words import NO_HEAD

_WHERE = (
    Option(("-P", "--provider"), "Only what this one sells.", metavar="NAME", takes="provider"),
    Option(("-r", "--region"), "Only there; % stands for anything: GRA%.", metavar="REGION", takes="region"),
)
_CONCURRENCY = Option(
    ("-C", "--concurrency"), "Tasks at once on one machine; as many as it has CPUs if not given.", "whole", metavar="N"
)

FLAVORS: tuple[Command, ...] = (
    Command(
        "flavor list", "flavors:listed",
        """What could be rented, best first, by what an hour of one task's slot is expected to cost.

        FILTERS is a name (% stands for anything), or says what is needed: 'cpu>=8:ram>=32:disk>=400'. Items: cpu, ram, disk, gpumem
        (GB, or with a unit), gpu, price, eviction (% an hour), tags (G: GPU, M: metal, N: NVMe), name, region, zone, provider, arch,
        market. Compared by == != >= <= > <, texts by ~ and !~ with %, tags by # and !#.""",
        (
            Argument("filters", required=False, metavar="FILTERS", takes="flavor"),
            *_WHERE,
            Option(("-m", "--market"), "Only there: ondemand, spot, or any; as is configured for the provider if not given.",
                   metavar="MARKET", takes="words:ondemand,spot,any"),
            Option(("--max-price",), "At most so much an hour.", "number", metavar="PRICE"),
            _CONCURRENCY,
            Option(("-x", "--excluded"), "Also what does not do, and why.", "flag"),
            Option(("-n", "--limit"), "At most so many; 10 if not given, 0: all.", "whole", default=10, metavar="N"),
            Option(("-L", "--long"), "More columns, nothing cut.", "flag"),
            NO_HEAD,
            Option(("--protofilters",), "FILTERS, in scitq 1.", metavar="FILTERS", hidden=True, takes="flavor"),
            Option(("--min-cpu",), "In scitq 1: cpu>=.", "number", metavar="N", hidden=True),
            Option(("--min-ram",), "In scitq 1: ram>=.", "number", metavar="GB", hidden=True),
            Option(("--min-disk",), "In scitq 1: disk>=.", "number", metavar="GB", hidden=True),
            Option(("--max-eviction",), "Taken back at most so often, in % an hour; 5 if not given.", "number", metavar="N"),
        ),
        file="made",
        examples=(
            "scitq flavor list",
            "scitq flavor list 'cpu>=8:ram>=32' --excluded --limit 5",
            "scitq flavor list 'auto:market==spot' --provider rehearsal --region north",
        ),
        schema="flavors", aliases=("ls",),
    ),
    Command(
        "flavor show", "flavors:show", "A flavor: what it has, where it is sold, at what price, and how many there are.",
        (Argument("flavor", metavar="NAME", takes="flavor"), *_WHERE[:1]),
        file="made",
        examples=("scitq flavor show std-8",),
        schema="flavor",
    ),
    Command(
        "flavor refresh", "flavors:refresh", "Ask providers now what they sell. Else it is asked when it is too old for its use.",
        _WHERE[:1],
        file="made",
        examples=("scitq flavor refresh",),
        schema="catalogue",
    ),
)  # fmt: skip
