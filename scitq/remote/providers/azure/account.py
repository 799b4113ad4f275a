"""Who asks, for which subscription, and the clients of the SDK with which it is asked. Credentials stay where their owner has them: with
`az login`, in the variables that Azure's own tools read, in a managed identity."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from scitq.errors import BadRequest

ENDPOINT = "https://management.azure.com"
PRICES = "https://prices.azure.com"
# The SDK would sleep for as long as Azure asks for, and repeat: whoever calls does that, and does something else meanwhile.
_PATIENCE = {"retry_total": 0, "connection_timeout": 10, "read_timeout": 60}


@dataclass
class Account:
    """What is known of it before anybody is asked."""

    provider: str
    subscription: str
    group: str | None = None
    """The resource group that is to be used; None: one per state file."""
    regions: tuple[str, ...] = ()
    currency: str = "EUR"
    endpoint: str = ENDPOINT
    prices: str = PRICES
    identity: str = "user"
    polling_s: float = 3.0
    refused_s: float = 20.0
    """A machine that cannot be had is refused by then; one that can is on its way, and is looked at like any other."""
    _gate: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def of(cls, provider: str, settings: Mapping[str, Any]) -> Account:
        """Of a provider's settings.

        Raises:
            BadRequest: no subscription is named anywhere, or the endpoint is no address.
        """
        endpoint = str(settings.get("endpoint") or ENDPOINT).rstrip("/")
        address = urlsplit(endpoint)
        if address.scheme != "https" and not (
            address.scheme == "http" and address.hostname in ("127.0.0.1", "localhost")
        ):
            raise BadRequest(f"provider {provider}: endpoint must be https://…, not {endpoint!r}.", provider=provider)
        subscription = str(settings.get("subscription") or os.environ.get("AZURE_SUBSCRIPTION_ID") or _chosen() or "")
        if not subscription:
            raise BadRequest(
                f'provider {provider}: which subscription? Say subscription = "…" in its settings, or AZURE_SUBSCRIPTION_ID, '
                "or choose one with `az login`.",
                provider=provider,
            )
        return cls(
            provider, subscription, settings.get("resource_group") or None,
            tuple(str(one).lower() for one in settings.get("regions") or ()), str(settings.get("currency") or "EUR"), endpoint,
            str(settings.get("price_list") or PRICES).rstrip("/"), str(settings.get("identity") or "user"),
            *((0.02, 0.1) if address.scheme == "http" else (3.0, 20.0)),
        )  # fmt: skip

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked who we are: a stand-in on this machine, to which no token is ever sent."""
        return self.endpoint.startswith("http:")

    @cached_property
    def credential(self) -> Any:
        """Who we are, as Azure's own tools find it out."""
        if self.is_open:
            return _Nobody()
        from azure.identity import DefaultAzureCredential

        return DefaultAzureCredential(
            exclude_interactive_browser_credential=True,
            exclude_managed_identity_credential=self.identity != "managed",
            process_timeout=15,
        )

    def _options(self) -> dict[str, Any]:
        for name in ("azure", "msal"):  # headers of requests, and who was asked for a token, are nobody's business
            logging.getLogger(name).setLevel(logging.WARNING)
        found: dict[str, Any] = {**_PATIENCE, "base_url": self.endpoint, "polling_interval": self.polling_s}
        if self.endpoint != ENDPOINT:
            found["credential_scopes"] = [f"{self.endpoint}/.default"]
        if self.is_open:
            from azure.core.pipeline.policies import SansIOHTTPPolicy

            found["authentication_policy"] = SansIOHTTPPolicy()
        return found

    @cached_property
    def compute(self) -> Any:
        """Machines and their disks."""
        from azure.mgmt.compute import ComputeManagementClient

        return ComputeManagementClient(self.credential, self.subscription, **self._options())

    @cached_property
    def network(self) -> Any:
        """Their addresses."""
        from azure.mgmt.network import NetworkManagementClient

        return NetworkManagementClient(self.credential, self.subscription, **self._options())

    @cached_property
    def resources(self) -> Any:
        """The groups they live in."""
        from azure.mgmt.resource.resources import ResourceManagementClient

        return ResourceManagementClient(self.credential, self.subscription, **self._options())

    def client(self, name: str) -> Any:
        """One of the three, made once however many threads ask."""
        with self._gate:
            return getattr(self, name)

    def close(self) -> None:
        """Let go of connections."""
        with self._gate:
            for name in ("compute", "network", "resources", "credential"):
                if (one := self.__dict__.pop(name, None)) is not None and hasattr(one, "close"):
                    one.close()


class _Nobody:
    """For a stand-in: it has no token to give, and is never asked for one."""

    def get_token(self, *scopes: str, **_: Any) -> Any:
        raise AssertionError(f"a token for {scopes} is nothing for a stand-in")

    get_token_info = get_token


def _chosen() -> str | None:
    """The subscription that `az login` or `az account set` has made the default."""
    path = Path(os.environ.get("AZURE_CONFIG_DIR") or Path.home() / ".azure") / "azureProfile.json"
    try:
        known = json.loads(path.read_text(encoding="utf-8-sig"))
        return next((str(one["id"]) for one in known["subscriptions"] if one.get("isDefault")), None)
    except (OSError, ValueError, KeyError, TypeError):
        return None
