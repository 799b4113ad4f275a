"""Every error that scitq raises on purpose, in one tree.

    ScitqError
    ├── BadInput (also ValueError)      what was asked cannot be right, nothing was changed
    │   ├── NotSupported                a feature that this version does not have yet
    │   ├── UnknownTask (also KeyError) no such task, or several of that name
    │   ├── UnknownWorker (also KeyError)
    │   ├── UnknownBatch (also KeyError)
    │   └── IllegalMove                 that state cannot be left that way
    ├── StateFileError
    │   ├── NotAStateFile               foreign or truncated file
    │   ├── StateFileNewer              written by a newer scitq
    │   ├── StateFileDamaged            integrity lost
    │   ├── StateFileReadOnly
    │   ├── StateFileFull               the disk is full
    │   ├── StateFileMoved              deleted or replaced under us
    │   ├── StateFileBusy (Transient)   another process held the write lock for too long
    │   ├── UnsafeFolder                network or synchronised folder
    │   ├── LiveFileOpened              another SQLite, or open(), on a live state file
    │   ├── ForkedProcess               used in a forked child
    │   └── Closed                      used after close()
    ├── DriverError
    │   ├── StaleDriver                 another driver took over
    │   └── NoDriver                    nobody drives, and this process may not
    ├── WorkerError
    │   ├── AgentFailed                 the agent cannot be started, or refuses
    │   ├── LinkBroken (Transient)      the connection to an agent ended
    │   └── BadAnswer                   an agent's answer makes no sense
    ├── RegistryError                   a registry of images cannot be asked, or the login for it cannot be had
    │   ├── ImageNotFound               it has no such image (for those who may not see it, either)
    │   └── LoginRefused
    ├── FetchError                      data: its own branch, drawn in scitq/fetch/errors.py
    └── TaskError
        ├── TaskFailed                  it ended badly: command, exit code, last ten lines
        ├── TaskCancelled
        └── TaskBlocked                 one of its prerequisites ended badly

`Transient` marks errors worth another try. Messages say what happened, to what, and what to do next; the parts are attributes.
"""

from __future__ import annotations

from typing import Any


class ScitqError(Exception):
    """Root of the tree. Keyword arguments become attributes."""

    def __init__(self, message: str, **parts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.parts = parts
        for name, value in parts.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.message, self.parts))


def _rebuild(kind: type[ScitqError], message: str, parts: dict[str, Any]) -> ScitqError:
    return kind(message, **parts)


class Transient(ScitqError):
    """Worth another try, after a wait."""


class BadInput(ScitqError, ValueError):
    """What was asked cannot be right; nothing was changed."""


class NotSupported(BadInput):
    """A feature that this version does not have yet: refused, not ignored."""


class UnknownTask(BadInput, KeyError):
    """No task of that id or name, or more than one of that name."""


class UnknownWorker(BadInput, KeyError):
    """No worker of that id or name."""


class UnknownBatch(BadInput, KeyError):
    """No batch of that name."""


class IllegalMove(BadInput):
    """That task cannot do this in the state it is in."""


class StateFileError(ScitqError):
    """Something is wrong with the state file; it was not changed."""


class NotAStateFile(StateFileError):
    """The file is not a scitq state file, or is cut short."""


class StateFileNewer(StateFileError):
    """A newer scitq wrote it, and says that this one must not."""


class StateFileDamaged(StateFileError):
    """SQLite found the file malformed."""


class StateFileReadOnly(StateFileError):
    """The file or its folder cannot be written."""


class StateFileFull(StateFileError):
    """No space is left on the disk of the state file."""


class StateFileMoved(StateFileError):
    """The file was deleted, moved or replaced while it was open."""


class StateFileBusy(StateFileError, Transient):
    """Another process kept the write lock for longer than the busy limit."""


class UnsafeFolder(StateFileError):
    """WAL mode is not safe on a network or synchronised folder."""


class LiveFileOpened(StateFileError):
    """Opening a live state file with anything else in this process would destroy it."""


class ForkedProcess(StateFileError):
    """A forked child used its parent's engine."""


class Closed(StateFileError):
    """Used after close()."""


class DriverError(ScitqError):
    """Who drives the file, and who may not."""


class StaleDriver(DriverError):
    """Another driver took over; this one writes nothing more."""


class NoDriver(DriverError):
    """Nobody drives the file, and this process was told not to."""


class WorkerError(ScitqError):
    """A worker or its agent."""


class AgentFailed(WorkerError):
    """The agent could not be started, or refuses to work."""


class LinkBroken(WorkerError, Transient):
    """The connection to an agent ended or cannot be made."""


class BadAnswer(WorkerError):
    """An agent answered something that makes no sense."""


class RegistryError(ScitqError):
    """A registry of images cannot be asked, or the login for it cannot be had."""


class ImageNotFound(RegistryError):
    """The registry has no image of that name, or does not show it without another login."""


class LoginRefused(RegistryError):
    """The registry does not let this user see the image."""


class TaskError(ScitqError):
    """A task did not give a result."""


class TaskFailed(TaskError):
    """A task ended badly. Attributes: task, name, command, cause, exit_code, tail."""


class TaskCancelled(TaskError):
    """The task was cancelled."""


class TaskBlocked(TaskError):
    """A prerequisite ended badly, so this task cannot run."""
