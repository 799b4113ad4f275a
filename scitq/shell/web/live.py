"""What changed, said to the browsers that are open: one stream of events for each visible tab, at most two a second.

One coroutine looks at the file for all of them, and only while somebody listens. Pages fetch what changed themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import StreamingResponse

from scitq.errors import ScitqError
from scitq.store import journal, query

if TYPE_CHECKING:
    from scitq.engine import Engine

LEAST_S = 0.5
# Nothing rings when a driver dies: what is looked at all the same, and what keeps a stream from being taken for dead.
SLOW_S = 15.0
# Workers are asked how they are as long as somebody looks at them; said again before that is over.
WATCHED_S = 10.0
TOPICS = ("tasks", "workers", "jobs", "driver")


class Live:
    """Tells streams that topics changed."""

    def __init__(self) -> None:
        self._engine: Engine | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rung = asyncio.Event()
        self._looked = asyncio.Event()
        self._seen: dict[str, str] = {}
        self._streams: set[asyncio.Queue[frozenset[str] | None]] = set()
        self._watchers = 0
        self._pulse: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] = lambda: None
        self.is_closed = False

    async def begin(self, engine: Engine) -> None:
        """Listen to a file, in this loop."""
        self._engine, self._loop = engine, asyncio.get_running_loop()
        self._unsubscribe = engine._store.subscribe(self._ring)
        engine._store.listen_closely()

    def close(self) -> None:
        """End every stream."""
        self.is_closed = True
        with contextlib.suppress(ScitqError):
            self._unsubscribe()
        self._looked.set()
        for queue in self._streams:
            queue.put_nowait(None)
        if self._pulse is not None:
            self._pulse.cancel()

    def _ring(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._rung.set)

    def version(self, engine: Engine) -> str:
        """What a page of this moment shows, in a word for each topic: a page that is older is fetched anew."""
        return json.dumps(_versions(engine), separators=(",", ":"))

    @property
    def seen(self) -> str:
        """The same of the latest look, against which changes are told."""
        return json.dumps(self._seen, separators=(",", ":"))

    # --- streams --------------------------------------------------------------------------------------------------------

    async def changes(self, topics: frozenset[str]) -> AsyncGenerator[frozenset[str] | None]:
        """The topics (of those) that changed, as they do; None now and then, when nothing did. Ends with the server.

        The first that comes is empty: from there on no change is missed against what `seen` says then.
        """
        queue: asyncio.Queue[frozenset[str] | None] = asyncio.Queue()
        self._streams.add(queue)
        self._watchers += "workers" in topics
        if self._pulse is None or self._pulse.done():
            self._looked.clear()
            self._pulse = asyncio.create_task(self._beat())
        try:
            await self._looked.wait()
            yield frozenset()
            while not self.is_closed:
                try:
                    async with asyncio.timeout(SLOW_S):
                        changed = await queue.get()
                except TimeoutError:
                    yield None
                    continue
                if changed is None:
                    return
                if changed & topics:
                    yield changed & topics
        finally:
            self._streams.discard(queue)
            self._watchers -= "workers" in topics

    async def _beat(self) -> None:
        """Look at the file when it has changed, and tell everybody. Should that fail, streams end: browsers come again by themselves."""
        try:
            await self._look_on()
        finally:
            self._looked.set()
            for queue in self._streams:
                queue.put_nowait(None)

    async def _look_on(self) -> None:
        assert self._engine is not None
        self._seen = {}
        with contextlib.suppress(ScitqError):
            self._seen = await anyio.to_thread.run_sync(_versions, self._engine)
        self._looked.set()
        while self._streams and not self.is_closed:
            if self._watchers:
                with contextlib.suppress(ScitqError):  # the file was moved, say: the pages themselves tell that
                    await anyio.to_thread.run_sync(self._engine.watch_workers, WATCHED_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WATCHED_S / 2 if self._watchers else SLOW_S):
                    await self._rung.wait()
            self._rung.clear()
            with contextlib.suppress(ScitqError):
                now = await anyio.to_thread.run_sync(_versions, self._engine)
                changed = frozenset(topic for topic in TOPICS if now[topic] != self._seen.get(topic))
                self._seen = now
                if changed:
                    for queue in self._streams:
                        queue.put_nowait(changed)
            await asyncio.sleep(LEAST_S)

    async def stream(self, request: Request) -> StreamingResponse:
        """`/live?topics=tasks,workers`: an event `change` with the topics."""
        wanted = frozenset(request.query_params.get("topics", "").split(",")) & frozenset(TOPICS)

        async def events() -> AsyncIterator[bytes]:
            async with contextlib.aclosing(self.changes(wanted)) as changes:
                async for changed in changes:
                    if changed is None:
                        yield b": still here\n\n"
                    elif changed:
                        yield event("change", sorted(changed))
                    else:  # what came between the page and now
                        yield event("now", self.seen)

        return answer(events())


def answer(events: AsyncIterator[bytes]) -> StreamingResponse:
    """A stream of events as a response."""
    return StreamingResponse(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})


def event(kind: str, data: Any) -> bytes:
    """One event: its kind (`now`, `change`, `message`), and its data as JSON (a text is taken as it is)."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    lines = "".join(f"data: {line}\n" for line in text.splitlines() or [""])
    return f"event: {kind}\n{lines}\n".encode(errors="backslashreplace")


def _versions(engine: Engine) -> dict[str, str]:
    """What would tell that a topic has changed, in a few look-ups that no number of tasks makes slower."""
    db = engine._reader()
    with db:
        workers = query.rows(
            db,
            """select id, state, name, batch, concurrency, prefetch, note, settings, stats ->> '$.at', facts from worker
            order by id""",
        )
        jobs = query.rows(db, "select id, state, step, progress, length(log), note from job order by id desc limit 100")
        held = query.rows(db, "select count(*), max(id) from execution indexed by execution_worker where ended is null")
        last = journal.last(db)
    holder = engine.driver()
    driver = None if holder is None else (holder.pid, holder.host, holder.alive)
    return {
        "tasks": f"{last}",
        "workers": _sum((workers, held)),
        "jobs": _sum(jobs),
        "driver": _sum(driver),
    }


def _sum(value: object) -> str:
    return f"{zlib.crc32(repr(value).encode(errors='replace')):08x}"
