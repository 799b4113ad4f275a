"""The protocol of providers. What they sell is in `scitq.offers`, their errors in `scitq.errors` (ProviderError)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

from scitq.offers import Flavor, Market, Offer, Quota

# Where `Capabilities.eviction_notice` is "file": the name of a file that appears in the root folder of a machine's agent, or in
# NOTICE_FOLDER there, when the machine is about to be taken away. One JSON object: `at` (seconds since 1970), `why`.
EVICTION_NOTICE = "eviction.json"
NOTICE_FOLDER = "/run/scitq"
# The name of a file that an agent leaves in the same places when it ends its own machine, where there is no better way: the
# machine of a provider whose `Capabilities.self_destruct` is not "none", and whose `Reach.how` is "folder".
SHUTDOWN = "shutdown"
# Names of machines: ours begin so.
PREFIX = "scitq-"

InstanceState = Literal["creating", "running", "stopping", "stopped", "deleting", "gone", "evicted", "error", "unknown"]

LeftoverKind = Literal["nic", "ip", "disk", "key", "group", "spot-request"]


@dataclass(frozen=True)
class Problem:
    """What is wrong with a provider's credentials, rights or configuration, and what its user can do."""

    severity: Literal["error", "warning"]
    what: str
    fix: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What a provider can do."""

    creates: bool = True
    """False: it lends hosts that are there anyway."""
    spot: bool = False
    tags: bool = True
    """False: ownership is in the name alone."""
    quotas: bool = False
    firewall: bool = False
    user_data: bool = False
    """The host key can be given to a machine before it starts."""
    eviction_notice: Literal["none", "imds-azure", "imds-aws", "file"] = "none"
    self_destruct: Literal["none", "shutdown-terminates", "job-ends"] = "none"
    bills_when_stopped: bool = True


@dataclass(frozen=True)
class Image:
    """What a machine starts from. `user`: who logs in."""

    id: str
    name: str
    region: str
    user: str = ""
    arch: str = "x86_64"
    min_disk: int = 0
    has_docker: bool = False
    has_nvidia: bool = False


@dataclass(frozen=True)
class Reach:
    """How the agent of a machine is reached: by SSH (`host`, `user`, `port`, `jump`), or as a child of this machine in `folder`.

    `user` '' and `port` 0: as the user's SSH configuration says of the host. By SSH, `folder` is where the agent is to live there, if
    that matters to the provider.
    """

    how: Literal["ssh", "folder"]
    host: str = ""
    user: str = ""
    port: int = 22
    jump: str = ""
    host_keys: tuple[str, ...] = ()
    """What its sshd proves itself with (`ssh-ed25519 AAAA…`), where the provider knows; else what was sent along when it was created."""
    folder: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What the worker is told besides, as with `worker_add`: `hours`, `nice`, `yield_to_users`."""


@dataclass(frozen=True)
class Instance:
    """A machine as the provider sees it. `code`, `store`: read from its name or tags; None: not one of ours."""

    provider: str
    region: str
    id: str
    name: str
    state: InstanceState
    code: str | None = None
    store: str | None = None
    project: str | None = None
    flavor: str | None = None
    market: Market | None = None
    reach: Reach | None = None
    created_ms: int | None = None
    expires_ms: int | None = None
    detail: str = ""
    leftovers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Leftover:
    """A thing that is paid for, or in the way, without a machine."""

    provider: str
    region: str
    kind: LeftoverKind
    id: str
    name: str
    code: str | None = None
    created_ms: int | None = None
    price: float | None = None


@dataclass(frozen=True)
class CreateRequest:
    """What a machine is to be. Written into the file, whole, before the provider is called: repeated, it is the same to the byte."""

    code: str
    name: str
    """`scitq-{store}-{code}`: the same however often it is asked for."""
    store: str
    project: str
    offer: Offer
    image: Image
    user: str
    ssh_public_key: str
    user_data: str
    root_disk: int = 0
    allow_from: tuple[str, ...] = ()
    max_price: float | None = None
    created_ms: int = 0
    expires_ms: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@runtime_checkable
class Provider(Protocol):
    """Who rents (or lends) machines. Every call may raise a `ProviderError`, and takes at most about a minute."""

    name: str
    kind: str
    caps: Capabilities

    def check(self) -> list[Problem]:
        """Credentials, project, rights. Never raises."""

    def regions(self) -> list[str]:
        """Those that the account may use."""

    def offers(self, regions: Iterable[str] | None = None) -> list[Offer]:
        """What is sold."""

    def quotas(self, region: str) -> list[Quota]:
        """Limits, and what of them is used."""

    def image(self, region: str, flavor: Flavor, wanted: str | None = None) -> Image:
        """What a machine of that flavor starts from."""

    def create(self, request: CreateRequest) -> Instance:
        """Ask for a machine; returns once it is accepted. The same name again is the same machine."""

    def get(self, region: str, id: str) -> Instance | None:
        """A machine by the provider's id; None: there is none (any more)."""

    def find(self, region: str, name: str) -> list[Instance]:
        """Machines by our name."""

    def instances(self, regions: Iterable[str] | None = None) -> list[Instance]:
        """All machines of scitq that the account has, of whichever state file."""

    def delete(self, instance: Instance) -> None:
        """Have a machine and all that belongs to it deleted; returns once that is accepted. Harmless to repeat."""

    def sweep(self, store: str, keep: set[str]) -> list[Leftover]:
        """Stray things of a state file that belong to none of the machines (codes) to keep."""

    def delete_leftover(self, item: Leftover) -> None:
        """Delete one."""

    def allow_from(self, networks: tuple[str, ...]) -> None:
        """Admit SSH from these addresses only, where the provider can."""

    def close(self) -> None:
        """Let go of connections."""


@dataclass(frozen=True)
class Context:
    """What a provider is given: where it may keep files of its own, and the time."""

    folder: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def now_ms(self) -> int:
        """Milliseconds since 1970."""
        import time

        return time.time_ns() // 1_000_000
