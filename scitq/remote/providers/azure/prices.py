"""What machines cost, and how often they are taken back: Azure's public list of prices, and its statistics of evictions.

Sources: learn.microsoft.com, "Azure Retail Prices REST API overview" and "Spot Virtual Machines" (table SpotResources of Azure Resource
Graph: rates an hour, of the last 28 days). Pure, but for `pages`, which follows the pages of the list of prices without saying who asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from scitq.offers import Market

_NOT_LINUX = (" windows", " win", "cloud services", "cloudservices")
# The upper end of what is told, in per cent an hour.
_RATES = {"0-5": 5.0, "5-10": 10.0, "10-15": 15.0, "15-20": 20.0, "20+": 25.0}
UNKNOWN_RATE = 5.0


@dataclass(frozen=True)
class Cost:
    """The price of an hour, in `currency`."""

    price: float
    currency: str


def address(base: str, region: str, currency: str) -> str:
    """Where the prices of a region begin."""
    wanted = f"serviceName eq 'Virtual Machines' and priceType eq 'Consumption' and armRegionName eq '{region}'"
    return f"{base}/api/retail/prices?api-version=2023-01-01-preview&currencyCode='{quote(currency)}'&$filter={quote(wanted)}"


def pages(first: str) -> Iterator[Mapping[str, Any]]:
    """All items from there on.

    Raises:
        azure.core.exceptions.AzureError: they cannot be had.
    """
    from azure.core import PipelineClient
    from azure.core.rest import HttpRequest

    client: Any = PipelineClient(first.split("/api/", 1)[0], retry_total=4, retry_backoff_max=30)
    try:
        url: str | None = first
        while url:
            answer = client.send_request(HttpRequest("GET", url), connection_timeout=10, read_timeout=60)
            answer.raise_for_status()
            page = answer.json()
            yield from page["Items"]
            url = page.get("NextPageLink")
    finally:
        client.close()


def costs(items: Iterable[Mapping[str, Any]]) -> dict[tuple[str, Market], Cost]:
    """By size (small letters) and market, the price of a machine with Linux."""
    found: dict[tuple[str, Market], Cost] = {}
    for one in items:
        name, product = str(one.get("skuName") or ""), str(one.get("productName") or "").lower()
        price = float(one.get("unitPrice") or 0)
        is_other = any(word in product for word in _NOT_LINUX) or name.endswith(" Low Priority")
        if (
            one.get("unitOfMeasure") != "1 Hour"
            or price <= 0
            or is_other
            or one.get("type", "Consumption") != "Consumption"
        ):
            continue
        is_spot = name.endswith(" Spot") or str(one.get("meterName") or "").endswith(" Spot")
        key: tuple[str, Market] = (str(one.get("armSkuName") or "").lower(), "spot" if is_spot else "ondemand")
        if key not in found or price < found[key].price:
            found[key] = Cost(price, str(one.get("currencyCode") or "USD"))
    return found


def question(regions: Iterable[str]) -> str:
    """What Resource Graph is asked: names of regions are letters and digits, checked here as they go into a query."""
    names = [one for one in regions if one.isalnum()]
    listed = ",".join(f"'{one}'" for one in names)
    return (
        "SpotResources | where type =~ 'microsoft.compute/skuspotevictionrate/location' "
        f"and location in~ ({listed}) | project skuName=tostring(sku.name), location, rate=tostring(properties.evictionRate)"
    )


def rates(rows: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], float]:
    """By region and size (small letters), how much per cent of machines are taken back in an hour, at most."""
    return {
        (str(one["location"]).lower(), str(one["skuName"]).lower()): _RATES[str(one["rate"])]
        for one in rows
        if str(one.get("rate")) in _RATES
    }
