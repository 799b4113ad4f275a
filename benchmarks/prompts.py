"""(r) How long a key waits for the completion menu of the shell, with a million tasks in the file."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

from benchmarks.report import Section, at_most

# What was typed up to the cursor, and how many candidates there must be at least.
TYPED = {
    "a command": ("ta", 1),
    "an option": ("task list --", 5),
    "a task's name": ("task show align-77", 10),
    "a task's number": ("task show 7777", 10),
    "any task": ("task show ", 50),
    "a name that all share": ("task show sa", 1),
    "a batch": ("task list -b b", 10),
    "a condition": ("task relaunch --where \"batch='b3' and st", 2),
    "a name in a condition": ("task relaunch --where \"name='align-9", 50),
    "a query": ("sql select name, pe", 1),
}
BAR_MS = 50.0


def completion(rounds: int, quick: bool, folder: Path, peers: bool) -> Section:
    """The time of a menu, from the text before the cursor to what it shows."""
    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

    import scitq
    from scitq.shell.interactive.menu import Menu
    from scitq.shell.interactive.session import Session
    from scitq.shell.listings import Listings

    size = 20_000 if quick else 1_000_000
    path = folder / "menu.scitq"
    with scitq.open(path, drive=False) as engine:
        for batch in range(10):
            engine.submit_many(
                ({"command": "true", "name": "same" if n % 2 else f"align-{n}"} for n in range(batch, size, 10)), batch=f"b{batch}"
            )  # fmt: skip
        session = Session(path, is_interactive=False)
        session.surroundings.engine = engine
        menu = Menu(session, Listings())
        rows, worst = [], 0.0
        for what, (text, least) in TYPED.items():
            took = []
            for _ in range(max(rounds, 3) * 10):
                began = time.perf_counter()
                found = list(menu.get_completions(Document(text), CompleteEvent()))
                took.append(1000 * (time.perf_counter() - began))
                assert len(found) >= (1 if quick else least), (text, len(found))
            worst = max(worst, statistics.median(took))
            rows.append([what, f"`{text}`", str(len(found)), f"{statistics.median(took):.2f}", f"{max(took):.2f}"])
    return Section(
        "r", f"The completion menu of the shell, {size:,} tasks in the file",
        ("completing", "typed", "candidates", "median ms", "slowest ms"), rows, [at_most("slowest menu, its median", worst, BAR_MS, " ms")],
    )  # fmt: skip
