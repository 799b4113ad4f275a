"""What a task writes, as it writes it: one stream of events for each page that shows a task.

Events `message` carry what a stream has from an offset on, already taken apart into texts and looks; `change` says, as on every
page, that the rest of the page is to be fetched anew. A browser that comes back says where it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import anyio.to_thread
from starlette.requests import Request
from starlette.responses import Response

from scitq.errors import ScitqError
from scitq.handle import FOLLOW_S, Task
from scitq.shell.web import output, page
from scitq.shell.web.live import Live, answer, event
from scitq.shell.web.output import Look
from scitq.states import TaskState
from scitq.store import executions, listing
from scitq.task import ExecutionId, ExecutionRow

# How often a task that runs is looked at for what it has written, and one that does not.
LOOK_S, SLOW_S = 0.5, 10.0
# A page that is further behind goes on near the end.
BEHIND_BYTES = 512 << 10
_WRITES = (TaskState.RUNNING, TaskState.COLLECTING)


def address(task: int, execution: ExecutionRow | None, out: int, err: int) -> str:
    """Where the stream of a task begins after these offsets; without an execution yet, with the first one."""
    return f"/task/{task}/live?execution={0 if execution is None else execution.id}&stdout={out}&stderr={err}"


def ask(task: Task, state: TaskState) -> None:
    """Have what a running task writes brought here for the next half minute."""
    if state in _WRITES:
        with contextlib.suppress(ScitqError):
            task._ask_to_follow()


@dataclass
class Follower:
    """One page's place in what a task writes."""

    task: Task
    execution: ExecutionId | None
    offsets: dict[str, int]
    looks: dict[str, Look] = field(default_factory=dict)
    asked: float = 0.0
    is_live: bool = False

    @property
    def place(self) -> str:
        """Where it is, for whoever comes back."""
        return f"{self.execution or 0}:{self.offsets['stdout']}:{self.offsets['stderr']}"

    def look(self) -> list[dict[str, Any]]:
        """What has come since, as messages; in any thread."""
        engine = self.task._engine
        state = listing.state_of(engine._reader(), self.task.id)
        self.is_live = state.is_live
        if state in _WRITES and time.monotonic() >= self.asked:
            ask(self.task, state)
            self.asked = time.monotonic() + FOLLOW_S / 2
        if self.execution is None:
            return []
        found: list[dict[str, Any]] = []
        for attempt in executions.of_task(engine._reader(), self.task.id):
            if attempt.id < self.execution:
                continue
            if attempt.id != self.execution:
                self.execution, self.offsets, self.looks = attempt.id, dict.fromkeys(output.STREAMS, 0), {}
                found.append({"execution": int(attempt.id), "attempt": attempt.attempt})
            found += [message for word in output.STREAMS for message in self._stream(attempt, word)]
        return found

    def _stream(self, attempt: ExecutionRow, word: str) -> list[dict[str, Any]]:
        engine, stream, found = self.task._engine, output.STREAMS[word], []
        piece = output.after(engine, attempt.id, stream, self.offsets[word])
        if piece.size - self.offsets[word] > BEHIND_BYTES:
            piece = output.last(engine, attempt.id, stream)
            self.looks.pop(word, None)
        while piece.data:
            parts = self.looks.setdefault(word, Look()).feed(piece.data)
            found.append({"stream": word, "start": piece.start, "end": piece.end, "size": piece.size, "parts": parts})
            self.offsets[word] = piece.end
            piece = output.after(engine, attempt.id, stream, piece.end)
        return found


def stream(request: Request) -> Response:
    """`/task/12/live?execution=34&stdout=1000&stderr=0`; without an execution only changes are told."""
    here = page.engine(request)
    task = here.task(int(request.path_params["id"]))
    asked = request.query_params
    places = [asked.get("execution", "0"), asked.get("stdout", "0"), asked.get("stderr", "0")]
    if last := request.headers.get("last-event-id"):
        places = [*last.split(":"), "0", "0", "0"][:3]
    execution, out, err = (page.whole(text, "an offset") for text in places)
    follower = Follower(task, ExecutionId(execution) if "execution" in asked else None, {"stdout": out, "stderr": err})
    return answer(_events(page.site(request).live, follower))


async def _events(live: Live, follower: Follower) -> AsyncIterator[bytes]:
    rung, changed = asyncio.Event(), set[str]()
    listening = asyncio.create_task(_listen(live, rung, changed))
    try:
        await rung.wait()  # from here on no change is missed
        rung.clear()
        yield event("now", live.seen)
        while not listening.done():
            try:
                messages = await anyio.to_thread.run_sync(follower.look)
            except ScitqError:  # it was deleted, or the file was closed
                messages = []
                follower.is_live = False
            for message in messages:
                yield f"id: {follower.place}\n".encode() + event("message", message)
            if changed:
                yield event("change", sorted(changed))
                changed.clear()
            elif not messages:
                yield b": still here\n\n"
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S if follower.is_live else SLOW_S):
                    await rung.wait()
            rung.clear()
            await asyncio.sleep(LOOK_S / 2)
    finally:
        listening.cancel()


async def _listen(live: Live, rung: asyncio.Event, changed: set[str]) -> None:
    """Note which topics change; over with the server."""
    async with contextlib.aclosing(live.changes(frozenset({"tasks", "driver"}))) as changes:
        async for topics in changes:
            if topics is not None:
                changed |= topics
                rung.set()
    rung.set()
