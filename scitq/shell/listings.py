"""What is at addresses, for completion: asked for in the background, kept for a minute, and never waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import islice

from scitq.saying import clean

KEPT_S = 60.0
# So many entries of a folder are kept; the rest is for `scitq fetch list`.
MOST = 1000
# Folders that are asked at once.
_AT_ONCE = 4


class Listings:
    """Names in remote folders. `on_news` is called, from another thread, when one came that was asked for."""

    def __init__(self, on_news: Callable[[], None] | None = None) -> None:
        self._on_news = on_news
        self._found: dict[str, tuple[float, list[str]]] = {}
        self._asked: set[str] = set()
        self._gate = threading.Lock()

    def of(self, folder: str, *, asks: bool = True) -> list[str] | None:
        """The names in a folder (folders end in a slash), '' for the names of the storages; None: not known yet."""
        with self._gate:
            known = self._found.get(folder)
            is_fresh = known is not None and time.monotonic() - known[0] < KEPT_S
            if asks and not is_fresh and folder not in self._asked and len(self._asked) < _AT_ONCE:
                self._asked.add(folder)
                threading.Thread(target=self._ask, args=(folder,), name="scitq-list", daemon=True).start()
        return None if known is None else known[1]

    def _ask(self, folder: str) -> None:
        try:
            found = _storages() if not folder else _names(folder)
        except Exception:  # whatever is wrong there, it is said when the address is used
            found = []
        with self._gate:
            self._found[folder] = (time.monotonic(), found)
            self._asked.discard(folder)
        if self._on_news is not None:
            self._on_news()


def _storages() -> list[str]:
    from scitq.fetch.configuration import names

    return sorted(f"{name}://" for name in names())


def _names(folder: str) -> list[str]:
    from scitq.fetch.listing import rows_of
    from scitq.fetch.retry import Policy
    from scitq.fetch.settings import Settings
    from scitq.fetch.uri import parse

    settings = Settings(retry=Policy(attempts=1), connect_timeout_s=5.0, stall_timeout_s=10.0)
    rows = islice(rows_of(parse(folder), settings, recursive=False, md5=False), MOST)
    return sorted(row.rel_name for row in rows if clean(row.rel_name) == row.rel_name)
