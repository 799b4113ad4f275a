"""The keeper: parent of all tasks. It starts them, waits for them and writes the journal; it outlives the agent.

One thread, one loop, no HTTP, no blocking work, no sync. It listens on `keeper.sock` for lines of JSON: the orders of
the driver as the agent got them, and a few questions of the agent itself. What it knows of tasks is `tasks`, how it
finds its tasks again after its own death is `recovery`, what goes before a start is `stagings`.
"""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import sys
import time
import traceback
from typing import Any

from scitq.remote.agent import VERSION, address, recovery, root
from scitq.remote.agent.channel import Channel
from scitq.remote.agent.orders import BadOrder, Order, OrderFile, key_of
from scitq.remote.agent.tasks import Tasks

RING_EXITS = 32
RING_S = 0.015
RING_STARTS_S = 0.02
CONFIRM_S = 0.005
"""How long the word that orders are on disk waits for the end of what they started, to leave in one message with it."""
CAP_S = 2.0
RETRY_S = 1.0
ALONE_S = 60.0
ORDERS_BYTES = 1 << 16
RECEIVE_BYTES = 1 << 16  # larger ones would be mapped and unmapped for each of the many small messages
LONGEST_LINE = 1 << 30


class Keeper:
    """The loop, and what a line from the agent means."""

    def __init__(self, folder: str, slots: int) -> None:
        self.folder = folder
        self.journal, facts = recovery.open_journal("journal", slots)
        self.orders = OrderFile("orders")
        self.tasks = Tasks(folder, self.journal, facts)
        self.channels: dict[int, Channel] = {}
        self.selector = selectors.DefaultSelector()
        self.listener = address.listen(folder, "keeper.sock")
        self.selector.register(self.listener, selectors.EVENT_READ, None)
        self.accepted = bytearray()
        """Lines of orders taken in this round, not yet in the order file."""
        self.confirm: list[tuple[Channel, Any]] = []
        self.confirm_at: float | None = None
        self.is_hurried = False
        self.stop: str | None = None
        self.rung = self.journal.end
        self.ring_at: float | None = None
        self.told_segments: list[int] = []
        self.cap_at: float | None = None
        self.retry_at: float | None = None
        self.alone_at: float | None = time.monotonic() + ALONE_S
        self._hear_children()
        recovery.resume(self.tasks, facts)
        recovery.requeue(self.tasks, self.orders, facts)
        self.tasks.polite.look(time.monotonic())
        self.tasks.endings.watch_adopted(self.selector)

    def _hear_children(self) -> None:
        """A signal of a child's end (or of the system's) wakes the loop through a pipe."""
        self.wake, sender = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(sender, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._terminated)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(sender, warn_on_full_buffer=False)
        self.selector.register(self.wake, selectors.EVENT_READ, None)

    def _terminated(self, *_: object) -> None:
        self.stop = "now"

    # The loop.

    def run(self) -> None:
        """Until told to stop and nothing is left to wait for."""
        first = True
        while True:
            ready = self.selector.select(0 if first else self._patience())
            children = first
            first = False
            for key, mask in ready:
                if key.fd == self.wake:
                    os.read(self.wake, 4096)
                    children = True
                elif key.fileobj is self.listener:
                    self._accept()
                elif isinstance(key.data, Channel):
                    if mask & selectors.EVENT_READ:
                        self._hear(key.data)
                    if mask & selectors.EVENT_WRITE:
                        self._send(key.data)
                else:
                    self.tasks.endings.gone(key.data, self.selector)
            if children:
                self.tasks.reap()
            self._round()
            if self.stop and self._may_end():
                return

    def _patience(self) -> float | None:
        """Seconds until something is due; None when nothing is."""
        due = [
            at
            for at in (
                self.ring_at, self.confirm_at, self.cap_at, self.retry_at, self.alone_at, self.tasks.endings.next_due(),
                self.tasks.polite.due,
            )
            if at
        ]  # fmt: skip
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _round(self) -> None:
        """Everything that follows from what was heard: one write to the journal, then starts, then answers."""
        now = time.monotonic()
        tasks = self.tasks
        if self.stop == "now":
            tasks.stop_all()
        tasks.endings.attend(now)
        tasks.polite.attend(now)
        is_stored = not self.accepted or self._store_orders()
        started = tasks.started
        is_written = tasks.launch(is_stored) and is_stored
        tasks.stagings.tell(self.channels.values(), is_stored)
        self.retry_at = None if is_written else now + RETRY_S
        if tasks.running:
            if self.cap_at is None:
                self.cap_at = now + CAP_S
            elif now >= self.cap_at:
                for task in tasks.running.values():
                    task.cut()
                self.cap_at = now + CAP_S
        else:
            self.cap_at = None
        self._tidy()
        has_rung = self._ring(now)
        self._confirm(now, is_written, has_rung, has_started=tasks.started != started)
        for channel in list(self.channels.values()):
            if channel.outbox and not channel.wants_write:
                self._send(channel)
        if self.alone_at and now >= self.alone_at:
            self.alone_at = now + ALONE_S
            if not tasks.running and not tasks.queue:
                self.stop = "alone"

    def _confirm(self, now: float, is_written: bool, has_rung: bool, *, has_started: bool) -> None:
        """Say that what was handed over is on disk. It leaves with the next ring, in one message, if there will be one in a
        moment: each message costs the agent and the driver a turn on a CPU that a short task could have."""
        due, self.confirm_at = self.confirm_at, None
        is_hurried, self.is_hurried = self.is_hurried, False
        if not self.confirm or not is_written or self.tasks.unrung:
            return  # nothing to say, nothing that is true, or the ring is coming
        if not (has_rung or is_hurried):
            due = now + CONFIRM_S if has_started and due is None else due
            if due is not None and now < due:
                self.confirm_at = due
                return
        for channel, tag in self.confirm:
            channel.say({"synced": tag})
        self.confirm.clear()

    def _store_orders(self) -> bool:
        try:
            self.orders.append(bytes(self.accepted))
        except OSError as error:
            root.say(self.folder, "keeper", f"cannot store orders, trying again: {error}")
            return False
        self.accepted.clear()
        return True

    def _tidy(self) -> None:
        """Forget orders that have started, seal a long segment, delete acknowledged ones."""
        tasks, orders, journal = self.tasks, self.orders, self.journal
        if orders.size >= ORDERS_BYTES and not self.accepted and not tasks.is_urgent:
            if not tasks.queue:
                orders.clear()
            elif orders.size >= journal.end - journal.segments[-1] + (4 << 20):
                self._purge()
        if journal.is_long and journal.flush():
            journal.seal(tasks.carried())
        is_read = len(journal.segments) > 1 and tasks.acked >= journal.segments[1]
        # An order must not outlive the journal's word that it started: it would start again.
        if is_read and not self.accepted and self._purge():
            base = max(segment for segment in journal.segments if segment <= tasks.acked)
            journal.drop_before(base)
            tasks.forget_before(base)

    def _purge(self) -> bool:
        try:
            if self.tasks.queue:
                self.orders.rewrite(list(self.tasks.queue.values()))
            else:
                self.orders.clear()
        except OSError as error:
            root.say(self.folder, "keeper", f"cannot rewrite the orders, trying again: {error}")
            return False
        return True

    def _ring(self, now: float) -> bool:
        """Tell the agent how far it may read: rarely enough to group, soon enough when somebody waits. Whether it was."""
        tasks, journal = self.tasks, self.journal
        if journal.end == self.rung:
            if journal.tail != journal.end and self.ring_at is None:
                self.ring_at = now + RING_STARTS_S
            elif self.ring_at and now >= self.ring_at:
                self.ring_at = None
                if not journal.flush():
                    self.retry_at = now + RETRY_S
            if journal.end == self.rung:
                return False
        is_rest = len(tasks.queue) == len(tasks.stagings.open) + len(
            tasks.conditions.open
        )  # nothing that could start now
        if tasks.unrung and (tasks.unrung >= RING_EXITS or is_rest or (self.ring_at and now >= self.ring_at)):
            pass
        elif tasks.unrung:
            soon = tasks.unrung_since + RING_S
            self.ring_at = soon if self.ring_at is None else min(self.ring_at, soon)
            return False
        elif self.ring_at is None:
            self.ring_at = now + RING_STARTS_S
            return False
        elif now < self.ring_at:
            return False
        journal.flush()
        self.ring_at = None
        self.rung = journal.end
        message: dict[str, Any] = {"ring": self.rung}
        if journal.segments != self.told_segments:
            self.told_segments = list(journal.segments)
            message["segments"] = self.told_segments
        if tasks.left:
            message["left"] = tasks.left
            tasks.left = []
        tasks.unrung = 0
        for channel in self.channels.values():
            if channel.is_agent:
                channel.say(message)
        return True

    def _may_end(self) -> bool:
        if self.tasks.endings.leftovers.groups:
            return False
        if self.confirm:
            return False  # somebody waits for an answer, which comes with the next ring
        if self.stop == "now":
            return not self.tasks.running and self.journal.flush()
        if self.tasks.running or self.tasks.queue or (self.tasks.owed and self.stop == "when_idle"):
            return False
        if self.tasks.acked >= self.tasks.last_exit and self.tasks.last_exit > self.tasks.noted_ack:
            self.journal.add(json.dumps({"k": "acked", "to": self.tasks.acked}))
        return self.journal.flush()

    # What agents say.

    def _accept(self) -> None:
        try:
            sock, _ = self.listener.accept()
        except OSError:
            return
        sock.setblocking(False)
        channel = Channel(sock)
        self.channels[sock.fileno()] = channel
        self.selector.register(sock, selectors.EVENT_READ, channel)
        self.alone_at = None

    def _drop(self, channel: Channel) -> None:
        self.channels.pop(channel.sock.fileno(), None)
        self.selector.unregister(channel.sock)
        channel.sock.close()
        self.confirm = [entry for entry in self.confirm if entry[0] is not channel]
        if not self.channels:
            self.alone_at = time.monotonic() + ALONE_S

    def _send(self, channel: Channel) -> None:
        try:
            sent = channel.sock.send(channel.outbox)
            del channel.outbox[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(channel)
            return
        if bool(channel.outbox) != channel.wants_write:
            channel.wants_write = bool(channel.outbox)
            mask = selectors.EVENT_READ | (selectors.EVENT_WRITE if channel.wants_write else 0)
            self.selector.modify(channel.sock, mask, channel)

    def _hear(self, channel: Channel) -> None:
        try:
            data = channel.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(channel.inbox) > LONGEST_LINE:
            self._drop(channel)  # a partial line goes with it: its sender repeats what was not confirmed
            return
        inbox = channel.inbox
        inbox += data
        end = data.rfind(b"\n")
        if end < 0:
            return
        end += len(inbox) - len(data) + 1
        lines = bytes(inbox[:end])
        del inbox[:end]
        for line in lines.split(b"\n"):
            if line:
                self._command(line, channel)

    def _command(self, line: bytes, channel: Channel) -> None:
        """Carry out one line. Nothing that an agent says may end the keeper."""
        try:
            said = json.loads(line)
            if not isinstance(said, dict):
                raise BadOrder("not an object")
            self._obey(said, line, channel)
        except (BadOrder, ValueError, RecursionError) as error:
            self._refuse(line, str(error))
        except Exception as error:
            root.say(self.folder, "keeper", traceback.format_exc())
            self._refuse(line, f"{type(error).__name__}: {error}")

    def _refuse(self, line: bytes, note: str) -> None:
        text = line[:200].decode("utf-8", "replace")
        self.journal.add(json.dumps({"k": "bad", "line": text, "note": note, "at": time.time()}))
        self.tasks.is_urgent = True

    def _obey(self, said: dict[str, Any], line: bytes, channel: Channel) -> None:
        tasks = self.tasks
        if "order" in said:
            self._take(said, line)
        elif "sync" in said:
            self.confirm.append((channel, said["sync"]))
        elif "hurry" in said:
            self.is_hurried = True
        elif "where" in said:
            channel.say({"tag": said["tag"], **tasks.where(key_of(said["where"]))})
        elif "held" in said:
            pids = {"pids": tasks.leaders()} if said.get("pids") else {}
            channel.say({"tag": said["tag"], **tasks.held(), **pids})
        elif "cancel" in said:
            grace = said.get("grace")
            if grace is not None and (isinstance(grace, bool) or not isinstance(grace, (int, float)) or grace < 0):
                raise BadOrder("grace must be a number of seconds")
            tasks.cancel(said["cancel"], key_of(said["cancel"]), grace)
        elif "drop" in said:
            for key in said["drop"]:
                tasks.drop(key_of(key))
        elif "recall" in said:
            tasks.recall(said["recall"], key_of(said["recall"]))
        elif "ack" in said:
            tasks.acked = max(tasks.acked, int(said["ack"]))
        elif "staged" in said:
            tasks.stagings.done(said["staged"])
        elif "note" in said:
            tasks.stagings.note(said["note"])
        elif "collected" in said:
            tasks.collected(said["collected"])
        elif "signal" in said:
            key, number = key_of(said["signal"]), int(said["number"])
            if number in (signal.SIGSTOP, signal.SIGCONT):
                tasks.polite.signalled(key)
            tasks.endings.signal(key, number)
        elif "polite" in said:
            tasks.polite.take(said["polite"])
        elif "slots" in said:
            tasks.set_slots(said["slots"])
        elif "stop" in said:
            if said["stop"] not in ("now", "when_idle"):
                raise BadOrder("stop is either now or when_idle")
            tasks.acked = max(tasks.acked, int(said.get("acked", 0)))
            self.stop = said["stop"]
        elif "hello" in said:
            channel.is_agent = True
            self.told_segments = list(self.journal.segments)
            facts = {"pid": os.getpid(), "journal": self.journal.id, "segments": self.told_segments, "end": self.rung}
            more = {"acked": tasks.acked, "version": VERSION, "stop": self.stop, "left": list(tasks.owed.values())}
            channel.say({"hello": {**facts, **more, **tasks.stagings.hello()}})
        else:
            raise BadOrder("no such command")

    def _take(self, said: dict[str, Any], line: bytes) -> None:
        key = key_of(said["order"])
        if self.tasks.is_known(key):
            return
        try:
            order = Order(said)
        except BadOrder as error:
            self.tasks.refuse(said["order"], key, str(error))
            return
        self.accepted += line + b"\n"
        self.tasks.enqueue(order)


def _is_awaited(ready: int) -> bool:
    """Whether the agent that started us still listens at the other end of its pipe."""
    poll = select.poll()
    poll.register(ready, 0)
    return not poll.poll(0)


def main(folder: str, slots: int, ready: int | None) -> int:
    """Run the keeper of this root; 75 when another one has it."""
    folder = os.path.realpath(folder)
    os.umask(0o077)
    root.make(folder)
    os.chdir(folder)
    held = root.lock(folder, "keeper.lock")
    if held is None:
        return 75
    try:
        keeper = Keeper(folder, slots)
        if ready is not None:
            if not _is_awaited(ready):
                keeper.alone_at = time.monotonic()
            os.close(ready)
        root.say(folder, "keeper", f"started, journal {keeper.journal.id} at {keeper.journal.end}")
        keeper.run()
        keeper.tasks.limits.end()
    except Exception:
        root.say(folder, "keeper", "died: " + traceback.format_exc())
        return 70
    root.say(folder, "keeper", "ended")
    sys.stdout.flush()
    return 0
