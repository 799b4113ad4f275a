"""The provider of kind `ssh`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from scitq.errors import (
    AmbiguousCreate,
    BadRequest,
    CapacityUnavailable,
    FlavorUnavailable,
    FlavorUnsupported,
    HostKeyChanged,
    HostKeyUnknown,
    HostLoginRefused,
    HostUnfit,
    HostUnreachable,
    LinkBroken,
    ProviderDown,
    ProviderError,
    ProviderLogin,
    ScitqError,
)
from scitq.offers import Flavor, Gpu, Offer, Quota
from scitq.remote.providers.base import (
    PREFIX,
    Capabilities,
    Context,
    CreateRequest,
    Image,
    Instance,
    Leftover,
    Problem,
    Reach,
)
from scitq.remote.providers.ssh import leases

AT_ONCE = 8
_ERRORS: tuple[tuple[type[ScitqError], type[ProviderError]], ...] = (
    (HostLoginRefused, ProviderLogin),
    (HostKeyUnknown, BadRequest),
    (HostKeyChanged, BadRequest),
    (HostUnfit, FlavorUnsupported),
    (ScitqError, ProviderDown),
)
# One that is off is as good as taken; what becomes of a lease when the connection breaks has to be looked up.
_WHEN_TAKING: tuple[tuple[type[ScitqError], type[ProviderError]], ...] = (
    (HostUnreachable, CapacityUnavailable),
    (LinkBroken, AmbiguousCreate),
)
# What of a host's settings its workers are told.
_POLITE = ("hours", "nice", "yield_to_users")


@dataclass(frozen=True)
class Host:
    """One of the pool, as the settings have it."""

    host: str
    user: str = ""
    port: int | None = None
    slots: int = 1
    cost: float = 0.0
    tags: str = ""
    polite: tuple[tuple[str, Any], ...] = ()

    @property
    def address(self) -> str:
        """As `ssh` takes it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")


def factory(name: str, settings: Mapping[str, Any], context: Context) -> Pool:
    """The provider of that name."""
    hosts = []
    for row in settings.get("hosts", ()):
        polite = tuple((key, row[key]) for key in _POLITE if row.get(key))
        hosts.append(Host(**{key: value for key, value in row.items() if key not in _POLITE}, polite=polite))
    if not hosts:
        raise BadRequest(
            f"provider {name} has no hosts: give it some, each [[providers.{name}.hosts]] with host = …", provider=name
        )
    if len({one.host for one in hosts}) < len(hosts):
        raise BadRequest(f"provider {name} has a host twice.", provider=name)
    return Pool(name, hosts, settings.get("region") or "local", settings.get("currency") or "EUR", Path(context.folder))


class Pool:
    """Hosts, lent by the slot."""

    kind = "ssh"
    caps = Capabilities(creates=False, bills_when_stopped=False)

    def __init__(self, name: str, hosts: list[Host], region: str, currency: str, folder: Path) -> None:
        self.name, self._region, self._currency, self._folder = name, region, currency, folder
        self._hosts = {one.host: one for one in hosts}

    # --- looking ----------------------------------------------------------------------------------------------------------

    def check(self) -> list[Problem]:
        """Hosts that cannot be used, and why."""
        found = []
        for host, told in self._ask_all().items():
            if isinstance(told, ProviderError):
                fix = (
                    f"scitq worker trust {host.address}" if isinstance(told, BadRequest) else f"Try: ssh {host.address}"
                )
                found.append(Problem("error" if len(self._hosts) == 1 else "warning", str(told), fix))
        return found

    def regions(self) -> list[str]:
        """One: the room, the laboratory."""
        return [self._region]

    def offers(self, regions: Iterable[str] | None = None) -> list[Offer]:
        """Each host. One that does not answer is offered as it was last seen, none of it available."""
        if regions is not None and self._region not in regions:
            return []
        found = []
        for host, told in self._ask_all().items():
            known = self._known(host) if isinstance(told, ProviderError) else told
            if "facts" not in known:
                continue  # never seen: nobody knows what it is
            flavor = self._flavor(host, known["facts"])
            reason = str(told) if isinstance(told, ProviderError) else ""
            free = 0 if reason else max(0, host.slots - len(known["leases"]))
            found.append(
                Offer(
                    flavor, self._region, "ondemand", (), float(host.cost), self._currency, available=free,
                    reason=reason or ("" if free else "all its slots are taken"), fetched_ms=Context("").now_ms(),
                )
            )  # fmt: skip
        return found

    def quotas(self, region: str) -> list[Quota]:
        """None: what is free is told by offers."""
        return []

    def image(self, region: str, flavor: Flavor, wanted: str | None = None) -> Image:
        """What is installed there."""
        host = self._hosts.get(flavor.name)
        return Image("as-it-is", "as it is", region, host.user if host else "", flavor.arch)

    def get(self, region: str, id: str) -> Instance | None:
        """One lease. Asking for it is a sign of life."""
        host, _, lease = id.partition("/")
        if host not in self._hosts:
            return None
        told = self._ask(self._hosts[host], seen=[lease])
        return next((one for one in self._leases(self._hosts[host], told) if one.id == id), None)

    def find(self, region: str, name: str) -> list[Instance]:
        """Leases by name."""
        return [one for one in self.instances() if one.name == name]

    def instances(self, regions: Iterable[str] | None = None) -> list[Instance]:
        """All leases of whichever file. On a host that does not answer, those that were last seen there, in state unknown."""
        if regions is not None and self._region not in regions:
            return []
        found = []
        for host, told in self._ask_all().items():
            if isinstance(told, ProviderError):
                there = self._leases(host, self._known(host))
                found += [replace(one, state="unknown", detail=str(told)) for one in there]
            else:
                found += self._leases(host, told)
        return found

    # --- leasing ----------------------------------------------------------------------------------------------------------

    def create(self, request: CreateRequest) -> Instance:
        """Take a lease, unless there is one of that name."""
        flavor = request.offer.flavor.name
        about = {"provider": self.name, "region": self._region, "flavor": flavor, "market": "ondemand"}
        if flavor not in self._hosts:
            raise FlavorUnavailable(f"{self.name} has no host {flavor!r}.", **about)
        host = self._hosts[flavor]
        expires = None if request.expires_ms is None else request.expires_ms / 1000
        wanted = {
            "name": request.name, "code": request.code, "store": request.store, "project": request.project, "expires": expires,
        }  # fmt: skip
        told = self._ask(host, take=wanted, slots=host.slots)
        if told.get("taken") is None:
            raise CapacityUnavailable(f"{self.name}: all of {flavor} is taken.", **about)
        return self._instance(host, told["taken"])

    def delete(self, instance: Instance) -> None:
        """Give a lease back: its agent ends with all it runs, the host stays."""
        host, _, lease = instance.id.partition("/")
        if host in self._hosts:
            self._ask(self._hosts[host], drop=lease)

    def sweep(self, store: str, keep: set[str]) -> list[Leftover]:
        """Nothing is left of a lease."""
        return []

    def delete_leftover(self, item: Leftover) -> None:
        """There is none."""

    def allow_from(self, networks: tuple[str, ...]) -> None:
        """Who may log in there is not ours to say."""

    def close(self) -> None:
        """No connection is kept."""

    # --- how it is done ---------------------------------------------------------------------------------------------------

    def _ask(self, host: Host, **what: Any) -> dict[str, Any]:
        """Have something done on a host; what it says then is remembered."""
        from scitq.remote import ssh

        try:
            told = ssh.ask(host.address, Path(leases.__file__).read_text(encoding="utf-8"), what)
        except ScitqError as problem:
            kinds = (*_WHEN_TAKING, *_ERRORS) if "take" in what else _ERRORS
            kind = next(mine for theirs, mine in kinds if isinstance(problem, theirs))
            raise kind(
                f"{self.name}: {problem}", provider=self.name, region=self._region, flavor=host.host
            ) from problem
        if "error" in told:
            text = f"{self.name}: {host.host}: {told['error']}"
            raise FlavorUnsupported(text, provider=self.name, region=self._region, flavor=host.host)
        self._remember(host, told)
        return told

    def _ask_all(self) -> dict[Host, dict[str, Any] | ProviderError]:
        def one(host: Host) -> dict[str, Any] | ProviderError:
            try:
                return self._ask(host)
            except ProviderError as problem:
                return problem

        with ThreadPoolExecutor(AT_ONCE) as pool:
            return dict(zip(self._hosts.values(), pool.map(one, self._hosts.values()), strict=True))

    def _place(self, host: Host) -> Path:
        return self._folder / f"{host.host.replace('/', '_')}.json"

    def _remember(self, host: Host, told: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # what it costs is that a host that is off is not known
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = self._place(host).with_name(f"{host.host.replace('/', '_')}.{os.getpid()}.new")
            fresh.write_text(json.dumps({"facts": told["facts"], "leases": told["leases"]}), encoding="utf-8")
            fresh.replace(self._place(host))

    def _known(self, host: Host) -> dict[str, Any]:
        try:
            found: dict[str, Any] = json.loads(self._place(host).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {"leases": []}
        return found

    # --- how things look from outside -------------------------------------------------------------------------------------

    def _flavor(self, host: Host, facts: Mapping[str, Any]) -> Flavor:
        arch: Literal["x86_64", "arm64"] = "arm64" if facts["machine"] in ("aarch64", "arm64") else "x86_64"
        return Flavor(
            self.name, host.host, max(1, facts["cpus"] // host.slots), facts["memory"] // host.slots,
            facts["disk_free"] // host.slots, gpu=_gpu(facts["gpus"], host.slots), arch=arch, metal="M" in host.tags,
            local_kind="nvme" if "N" in host.tags else "none",
        )  # fmt: skip

    def _leases(self, host: Host, told: Mapping[str, Any]) -> list[Instance]:
        return [self._instance(host, one) for one in told["leases"] if str(one["name"]).startswith(PREFIX)]

    def _instance(self, host: Host, lease: Mapping[str, Any]) -> Instance:
        expires = lease.get("expires")
        reach = Reach(
            "ssh", host.host, host.user, host.port or 0, folder=lease["folder"], settings=dict(host.polite)
        )  # fmt: skip
        return Instance(
            self.name, self._region, f"{host.host}/{lease['id']}", lease["name"], "running", lease["code"], lease["store"],
            lease.get("project"), host.host, "ondemand", reach, int(lease["taken"] * 1000),
            None if expires is None else int(expires * 1000),
        )  # fmt: skip


def _gpu(told: list[list[str]], slots: int) -> Gpu | None:
    """The GPUs of a host that all are of one model, as slots share them."""
    if not told:
        return None
    model = told[0][0].upper().removeprefix("NVIDIA ").split("-")[0].strip()
    with contextlib.suppress(ValueError):
        return Gpu(model, len(told) / slots, int(float(told[0][1])) << 20)
    return None
