"""Microsoft Azure: the provider of kind `azure`, on Microsoft's own packages, which are loaded when one is used.

    account     who asks, for which subscription, and the clients of the SDK
    api         calls of the SDK whose errors are typed: `errors` has the table
    sizes       what is sold: sizes, limits, GPUs; `prices`: for how much, and how often it is taken back
    bodies      what is asked for, as the JSON that Azure gets; `views`: what it answers, as machines
    access      rights: what the driver does, and what the account may

All machines of a state file live in one resource group, `scitq-STORE`; a machine's network card, address and disk are made with it, in
one call, and go with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scitq.remote.providers.base import Context, Provider


def factory(name: str, settings: Mapping[str, Any], context: Context) -> Provider:
    """A provider of the settings `[providers.NAME]` with `kind = "azure"`.

    Raises:
        BadRequest: its settings make no sense, or no subscription can be found.
    """
    from scitq.remote.providers.azure.account import Account
    from scitq.remote.providers.azure.provider import Azure

    return Azure(name, Account.of(name, settings), context)
