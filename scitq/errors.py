"""Every error that scitq raises on purpose, in one tree.

    ScitqError
    ├── BadInput (also ValueError)      what was asked cannot be right, nothing was changed
    │   ├── NotSupported                a feature that this version does not have yet
    │   ├── BadProtofilter              `auto:…` that makes no sense, and from which column on
    │   ├── UnknownTask (also KeyError) no such task, or several of that name
    │   ├── UnknownWorker (also KeyError)
    │   ├── UnknownBatch (also KeyError)
    │   ├── UnknownJob (also KeyError)
    │   ├── UnknownRecruiter (also KeyError)
    │   ├── UnknownWorkflow (also KeyError)
    │   ├── BatchGathered               a step that was gathered gets no more tasks
    │   ├── NameTaken                   there is a worker of that name already
    │   └── IllegalMove                 that state cannot be left that way
    ├── StateFileError
    │   ├── NotAStateFile               foreign or truncated file
    │   ├── StateFileNewer              written by a newer scitq
    │   ├── StateFileDamaged            integrity lost
    │   ├── StateFileReadOnly
    │   ├── StateFileFull               the disk is full
    │   ├── StateFileMoved              deleted or replaced under us
    │   ├── StateFileElsewhere          driven on another host (scitq promote): only read here
    │   ├── StateFileBusy (Transient)   another process held the write lock for too long
    │   ├── UnsafeFolder                network or synchronised folder
    │   ├── LiveFileOpened              another SQLite, or open(), on a live state file
    │   ├── ForkedProcess               used in a forked child
    │   └── Closed                      used after close()
    ├── DriverError
    │   ├── StaleDriver                 another driver took over
    │   └── NoDriver                    nobody drives, and this process may not
    ├── WorkerError
    │   ├── WorkerFailed                a host cannot be made a worker as it is
    │   ├── AgentFailed                 the agent cannot be started, or refuses
    │   ├── LinkBroken (Transient)      the connection to an agent ended
    │   ├── BadAnswer                   an agent's answer makes no sense
    │   └── HostError                   another machine, by SSH
    │       ├── HostUnreachable (Transient)  nobody answers there now
    │       ├── HostKeyUnknown          its key was never accepted
    │       ├── HostKeyChanged          its key is not the one that was accepted
    │       ├── HostLoginRefused        it does not let this user in
    │       └── HostUnfit               no agent can live there
    ├── MoveFailed                      a state file could not be moved to another host, or back; where it was it still is
    ├── RegistryError                   a registry of images cannot be asked, or the login for it cannot be had
    │   ├── ImageNotFound               it has no such image (for those who may not see it, either)
    │   └── LoginRefused
    ├── ProviderError                   renting machines: attributes provider, region, flavor, code (the vendor's), and how to go on
    │   ├── ProviderLogin               credentials are wrong, or over
    │   ├── PermissionDenied            a right is missing; the message names it
    │   ├── BadRequest (also BadInput)  what was asked makes no sense to the provider, or its configuration
    │   ├── QuotaExceeded               attributes family, limit, used, required
    │   ├── CapacityUnavailable         none of that flavor there now
    │   ├── FlavorUnavailable           not sold to this account there
    │   ├── FlavorUnsupported           image, architecture or kind do not fit
    │   ├── PriceTooLow                 the market asks for more than max_price
    │   ├── RateLimited (Transient)     attribute retry_after_s
    │   ├── ProviderDown (Transient)    5xx, or no connection: nothing was asked
    │   ├── AmbiguousCreate             the answer to a create was lost: it may exist
    │   ├── MachineNameTaken            a machine of that name exists
    │   ├── MachineNotFound
    │   └── DeleteFailed (Transient)
    ├── MoneyLimitReached               what machines may cost (max_cost) is spent: nothing more is rented
    ├── FetchError                      data: its own branch, drawn in scitq/fetch/errors.py
    ├── Calm                            said in a notebook without a traceback
    │   └── CommandFailed               a command line of a notebook
    ├── WorkflowBusy                    another process runs that workflow
    ├── WorkflowLeft (also Calm, RuntimeError) its user left it, or deleted it, before it ended
    └── TaskError
        ├── TaskFailed                  it ended badly: command, exit code, last ten lines
        ├── TaskCancelled
        ├── TaskBlocked                 one of its prerequisites ended badly
        └── WorkflowFailed (also Calm)  tasks of a workflow did

`Transient` marks errors worth another try. Messages say what happened, to what, and what to do next; the parts are attributes.
"""

from __future__ import annotations

from typing import Any


class ScitqError(Exception):
    """Root of the tree. Keyword arguments become attributes. `status_code` is what version 1's server would have answered."""

    status_code = 500

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

    status_code = 400


class NotSupported(BadInput):
    """A feature that this version does not have yet: refused, not ignored."""


class BadProtofilter(BadInput):
    """A protofilter that makes no sense. Attributes: text, column (of the first letter that makes none, from 1 on)."""


class UnknownTask(BadInput, KeyError):
    """No task of that id or name, or more than one of that name."""

    status_code = 404


class UnknownWorker(BadInput, KeyError):
    """No worker of that id or name."""

    status_code = 404


class UnknownBatch(BadInput, KeyError):
    """No batch of that name."""

    status_code = 404


class UnknownJob(BadInput, KeyError):
    """No job of that number."""

    status_code = 404


class UnknownRecruiter(BadInput, KeyError):
    """A batch has no recruiter of that rank."""

    status_code = 404


class UnknownWorkflow(BadInput, KeyError):
    """No workflow of that name."""

    status_code = 404


class BatchGathered(BadInput):
    """A step whose tasks were gathered gets no more: what gathered them would not know."""


class NameTaken(BadInput):
    """There is a worker of that name already."""

    status_code = 409


class IllegalMove(BadInput):
    """That task cannot do this in the state it is in."""

    status_code = 409


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


class StateFileElsewhere(StateFileError):
    """It is driven on another host, or on its way there or back; here it is only read."""


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


class WorkerFailed(WorkerError):
    """A host cannot be made a worker as it is: somebody has to do something about it."""


class AgentFailed(WorkerError):
    """The agent could not be started, or refuses to work."""


class LinkBroken(WorkerError, Transient):
    """The connection to an agent ended or cannot be made."""


class BadAnswer(WorkerError):
    """An agent answered something that makes no sense."""


class HostError(WorkerError):
    """Another machine cannot be used. Attribute: host."""


class HostUnreachable(HostError, Transient):
    """Nobody answers there now, or not in time."""


class HostKeyUnknown(HostError):
    """A host showed a key that nobody has accepted. Attributes: host, name (in known_hosts), kind, key (base64), fingerprint."""


class HostKeyChanged(HostError):
    """A host showed another key than the one that was accepted. Attributes: those of HostKeyUnknown, known (where)."""


class HostLoginRefused(HostError):
    """A host does not let this user in with the keys that there are. Attributes: host, locked (a key that has a passphrase)."""


class HostUnfit(HostError):
    """A host lets us in, but no agent can live there."""


class MoveFailed(ScitqError):
    """A state file could not be moved to another host, or back."""


class RegistryError(ScitqError):
    """A registry of images cannot be asked, or the login for it cannot be had."""


class ImageNotFound(RegistryError):
    """The registry has no image of that name, or does not show it without another login."""


class LoginRefused(RegistryError):
    """The registry does not let this user see the image."""


class ProviderError(ScitqError):
    """A provider of machines. Attributes, where they are known: provider, region, flavor, market, code (the vendor's own), request_id.

    `go_on`: what may be tried next ("no", "same-offer", "other-offer", "other-region", "after-lookup"); `hold_s`: for how long the
    offer is not tried again.
    """

    go_on = "no"
    hold_s = 0
    provider: str = ""
    region: str = ""
    flavor: str = ""
    market: str = ""
    code: str = ""


class ProviderLogin(ProviderError):
    """Credentials are missing, wrong or over. The provider is left alone until its check passes."""


class PermissionDenied(ProviderError):
    """The identity lacks a right."""


class BadRequest(ProviderError, BadInput):
    """What was asked, or configured, makes no sense to the provider."""


class QuotaExceeded(ProviderError):
    """More than the account may have. Attributes: family, limit, used, required."""

    go_on, hold_s = "other-offer", 600


class CapacityUnavailable(ProviderError):
    """None of that flavor is there now."""

    go_on, hold_s = "other-offer", 1800


class FlavorUnavailable(ProviderError):
    """Not sold to this account there."""

    go_on, hold_s = "other-offer", 86_400


class FlavorUnsupported(ProviderError):
    """Image, architecture or kind do not fit."""

    go_on, hold_s = "other-offer", 86_400


class PriceTooLow(ProviderError):
    """The market asks for more than was allowed."""

    go_on, hold_s = "other-offer", 900


class RateLimited(ProviderError, Transient):
    """Asked too often. Attribute: retry_after_s."""

    go_on = "same-offer"
    retry_after_s: float = 5.0


class ProviderDown(ProviderError, Transient):
    """Not reached, or at fault: what was asked was not done."""

    go_on = "same-offer"


class AmbiguousCreate(ProviderError):
    """The answer to a create was lost: look it up before anything else."""

    go_on = "after-lookup"


class MachineNameTaken(ProviderError):
    """A machine of that name exists: adopt it if it is ours."""

    go_on = "after-lookup"


class MachineNotFound(ProviderError):
    """There is no such machine (any more)."""


class DeleteFailed(ProviderError, Transient):
    """Could not be deleted now: tried again until it is gone."""

    go_on = "same-offer"


class MoneyLimitReached(ScitqError):
    """One more machine could pass a limit of what may be spent."""


class TaskError(ScitqError):
    """A task did not give a result."""


class TaskFailed(TaskError):
    """A task ended badly. Attributes: task, name, command, cause, exit_code, tail."""


class TaskCancelled(TaskError):
    """The task was cancelled."""


class TaskBlocked(TaskError):
    """A prerequisite ended badly, so this task cannot run."""


class WorkflowBusy(ScitqError):
    """Another process runs that workflow. Attributes: workflow, pid, program."""


class Calm(ScitqError):
    """Said in a notebook by its sentence alone: where in the library it was raised tells nobody anything."""

    def _render_traceback_(self) -> list[str]:
        return [f"\x1b[31m{line}\x1b[0m" for line in _harmless(self.message).split("\n")]


def _harmless(text: str) -> str:
    """Without what commands a terminal: this module knows nobody whom it could ask."""
    return "".join(char if char.isprintable() or char == "\n" else ascii(char)[1:-1] for char in text)


class CommandFailed(Calm):
    """A command line in a notebook (%scitq, %%task) was refused, or what it ran ended badly."""


class WorkflowLeft(Calm, RuntimeError):
    """Whoever watched a workflow left it before it ended, so that the rest of the script does not run. Attributes: workflow, left."""


class WorkflowFailed(TaskError, Calm):
    """Tasks of a workflow ended badly. Attributes: workflow, summary, tasks (handles of those that failed)."""

    workflow: str
    summary: Any
    tasks: list[Any]
