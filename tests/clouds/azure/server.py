"""A stand-in for Azure Resource Manager on this machine: what the SDK asks for over HTTP, in memory, with a clock that can be moved.

Bodies are checked against the models of Microsoft's own packages: a field that they do not have is refused, as Azure does.
"""

from __future__ import annotations

import json
import re
import sys
import threading
import time
import typing
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.clouds.azure import catalogue

SUBSCRIPTION = "6b1c8f0e-0000-4000-8000-5d2f3a4b5c6d"
PAGE = 2


class Refused(Exception):
    """An answer that is an error."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.headers = status, code, message, dict(headers or {})


@dataclass
class Fault:
    """What goes wrong with requests of a method and a path (a pattern)."""

    method: str
    path: str
    status: int = 0
    code: str = ""
    message: str = ""
    times: int = 1
    lost: bool = False
    """It is done, and the connection breaks before the answer."""
    later: bool = False
    """It is accepted, and its operation fails."""
    headers: Mapping[str, str] = field(default_factory=dict)
    wrap: bool = False
    """Within what only says that something failed."""


class Azure:
    """All that there is. Times in seconds of its own clock."""

    def __init__(self) -> None:
        self.gate = threading.RLock()
        self.offset = 0.0
        self.boot_s, self.delete_s = 30.0, 20.0
        self.things: dict[str, dict[str, Any]] = {}
        """By id in small letters: groups, networks, machines …"""
        self.operations: dict[str, dict[str, Any]] = {}
        self.due: list[tuple[float, str, str]] = []
        self.faults: list[Fault] = []
        self.seen: list[tuple[str, str]] = []
        self.headers: list[dict[str, str]] = []
        self.actions: set[str] = set()
        self.granted: list[dict[str, Any]] = [{"actions": ["*"], "notActions": []}]
        self.unregistered: set[str] = set()
        self.forgets_on_eviction = False
        azure = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # headers and body are two writes

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self._answer()

            do_PUT = do_POST = do_DELETE = do_GET

            def _answer(self) -> None:
                size = int(self.headers.get("Content-Length") or 0)
                text = self.rfile.read(size).decode()
                azure.answer(self, text)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    # --- what tests do --------------------------------------------------------------------------------------------------

    def now(self) -> float:
        return time.time() + self.offset

    def advance(self, seconds: float) -> None:
        with self.gate:
            self.offset += seconds
            self._settle()

    def fail(
        self, method: str, path: str, status: int = 0, code: str = "", message: str = "it is so", **more: Any
    ) -> None:
        self.faults.append(Fault(method, path, status, code, message, **more))

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        with self.gate:
            self._settle()
            return [one for one in self.things.values() if str(one.get("type", "")).lower() == kind.lower()]

    def machines(self) -> list[dict[str, Any]]:
        return self.of_type("Microsoft.Compute/virtualMachines")

    def left(self) -> list[str]:
        """Whatever is paid for: machines, cards, addresses, disks."""
        paid = ("virtualmachines", "networkinterfaces", "publicipaddresses", "disks")
        with self.gate:
            self._settle()
            return sorted(
                one["name"] for one in self.things.values() if str(one.get("type", "")).lower().endswith(paid)
            )

    def evict(self, name: str) -> None:
        """A machine is taken back; its policy is to delete it."""
        with self.gate:
            self._remove_machine(self._machine(name), forgets=self.forgets_on_eviction)

    def deallocate(self, name: str) -> None:
        with self.gate:
            self._machine(name)["_power"] = "deallocated"

    def _machine(self, name: str) -> dict[str, Any]:
        return next(one for one in self.machines() if one["name"] == name)

    # --- HTTP -----------------------------------------------------------------------------------------------------------

    def answer(self, handler: BaseHTTPRequestHandler, text: str) -> None:
        url = urllib.parse.urlsplit(handler.path)
        asked = {name: values[0] for name, values in urllib.parse.parse_qs(url.query).items()}
        method, path = handler.command, urllib.parse.unquote(url.path)
        with self.gate:
            self.headers.append(dict(handler.headers))
            self._settle()
            self.seen.append((method, path))
            fault = self._fault(method, path)
            try:
                if fault is not None and fault.status:
                    raise Refused(fault.status, fault.code, fault.message, fault.headers)
                status, body, headers = self._do(method, path, asked, text, dict(handler.headers), fault)
            except Refused as problem:
                error: dict[str, Any] = {"code": problem.code, "message": problem.message}
                if fault is not None and fault.wrap:
                    error = {
                        "code": "DeploymentFailed",
                        "message": "At least one operation failed.",
                        "details": [error],
                    }
                status, body, headers = problem.status, {"error": error}, problem.headers
        if fault is not None and fault.lost:
            handler.close_connection = True
            handler.connection.close()
            return
        data = b"" if body is None else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in {
            "Content-Type": "application/json",
            "Content-Length": str(len(data)),
            "x-ms-request-id": "r-1",
            **headers,
        }.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)

    def _fault(self, method: str, path: str) -> Fault | None:
        for fault in self.faults:
            if fault.times and fault.method in ("*", method) and re.search(fault.path, path, re.IGNORECASE):
                fault.times -= 1
                return fault
        return None

    # --- what is asked ----------------------------------------------------------------------------------------------------

    def _do(
        self, method: str, path: str, asked: dict[str, str], text: str, headers: dict[str, str], fault: Fault | None
    ) -> tuple[int, Any, dict[str, str]]:
        low = path.lower().rstrip("/")
        if low == "/api/retail/prices":
            return 200, self._prices(asked), {}
        if low == "/providers/microsoft.resourcegraph/resources":
            self.actions.add("Microsoft.ResourceGraph/resources/read")
            return 200, {"data": catalogue.RATES, "count": len(catalogue.RATES), "facets": []}, {}
        if found := re.fullmatch(r"/operations/(\w+)", low):
            return 200, self.operations[found[1]], {}
        own = f"/subscriptions/{SUBSCRIPTION}"
        if not low.startswith(own):
            raise Refused(404, "SubscriptionNotFound", "The subscription could not be found.")
        rest = low[len(own) :]
        return self._within(method, low, rest, path, asked, text, headers, fault)

    def _within(
        self,
        method: str,
        low: str,
        rest: str,
        path: str,
        asked: dict[str, str],
        text: str,
        headers: dict[str, str],
        fault: Fault | None,
    ) -> tuple[int, Any, dict[str, str]]:
        if rest == "/locations":
            self.actions.add("Microsoft.Resources/subscriptions/locations/read")
            rows = [{"name": one, "metadata": {"regionType": "Physical"}} for one in catalogue.REGIONS]
            return 200, self._paged([*rows, {"name": "europe", "metadata": {"regionType": "Logical"}}], path, asked), {}
        if rest.endswith("/providers/microsoft.authorization/permissions"):
            self.actions.add("Microsoft.Authorization/permissions/read")
            return 200, {"value": self.granted}, {}
        if found := re.fullmatch(r"/providers/(microsoft\.\w+)", rest):
            self.actions.add("Microsoft.Resources/subscriptions/providers/read")
            state = "NotRegistered" if found[1] in self.unregistered else "Registered"
            return 200, {"namespace": found[1], "registrationState": state}, {}
        if rest == "/providers/microsoft.compute/skus":
            self.actions.add("Microsoft.Compute/skus/read")
            wanted = re.fullmatch(r"location eq '(\w+)'", asked["$filter"])
            assert wanted is not None
            return 200, self._paged(catalogue.skus(wanted[1]), path, asked), {}
        if found := re.fullmatch(r"/providers/microsoft\.(compute|network)/locations/(\w+)/usages", rest):
            self.actions.add(f"Microsoft.{found[1].capitalize()}/locations/usages/read")
            return 200, {"value": self._usages(found[1], found[2])}, {}
        if found := re.fullmatch(
            r"/providers/microsoft\.compute/locations/\w+/publishers/([\w-]+)/artifacttypes/vmimage/offers/([\w-]+)/skus/([\w.-]+)/versions(/[\d.]+)?",
            rest,
        ):
            self.actions.add("Microsoft.Compute/locations/publishers/artifacttypes/offers/skus/versions/read")
            return 200, self._image(found[1], found[3], found[4]), {}
        if rest == "/providers/microsoft.compute/virtualmachines":
            self.actions.add("Microsoft.Compute/virtualMachines/read")
            return 200, self._paged(self._listed(asked), path, asked), {}
        if found := re.fullmatch(r"/resourcegroups/([\w.-]+)", rest):
            return self._group(method, low, found[1], text)
        if found := re.fullmatch(r"/resourcegroups/([\w.-]+)/resources", rest):
            self._need_group(low.rpartition("/")[0])
            self.actions.add("Microsoft.Resources/subscriptions/resourcegroups/resources/read")
            rows = [one for key, one in self.things.items() if key.startswith(low.rpartition("/")[0] + "/")]
            return 200, self._paged([_shown(one) for one in rows], path, asked), {}
        if found := re.fullmatch(r"/resourcegroups/([\w.-]+)/providers/microsoft\.compute/virtualmachines", rest):
            self._need_group(low.split("/providers/")[0])
            self.actions.add("Microsoft.Compute/virtualMachines/read")
            rows = [one for one in self.machines() if one["id"].lower().startswith(low.split("/providers/")[0] + "/")]
            return 200, self._paged([_shown(one) for one in rows], path, asked), {}
        if found := re.fullmatch(r"/resourcegroups/([\w.-]+)/providers/(microsoft\.\w+)/(\w+)/([\w.-]+)", rest):
            return self._resource(method, low, path, found[2], found[3], found[4], asked, text, headers, fault)
        raise Refused(404, "NotFound", f"{method} {path} is nothing")

    def _paged(self, rows: list[dict[str, Any]], path: str, asked: dict[str, str]) -> dict[str, Any]:
        """Two rows a page."""
        skip = int(asked.get("$skip") or 0)
        body: dict[str, Any] = {"value": rows[skip : skip + PAGE]}
        if skip + PAGE < len(rows):
            more = urllib.parse.urlencode({**asked, "$skip": str(skip + PAGE)})
            body["nextLink"] = f"{self.url}{urllib.parse.quote(path)}?{more}"
        return body

    def _listed(self, asked: dict[str, str]) -> list[dict[str, Any]]:
        if asked.get("statusOnly") == "true":  # states, and little else
            return [
                {
                    "id": one["id"],
                    "name": one["name"],
                    "location": one["location"],
                    "properties": {"instanceView": _view(one)},
                }
                for one in self.machines()
            ]
        return [_shown(one) for one in self.machines()]

    def _prices(self, asked: dict[str, str]) -> dict[str, Any]:
        region = re.search(r"armRegionName eq '(\w+)'", asked["$filter"])
        assert region is not None and asked["currencyCode"] == "'EUR'"
        items = catalogue.price_items(region[1])
        skip = int(asked.get("$skip") or 0)
        more = urllib.parse.urlencode({**asked, "$skip": str(skip + 3)})
        link = f"{self.url}/api/retail/prices?{more}" if skip + 3 < len(items) else None
        return {"Items": items[skip : skip + 3], "NextPageLink": link, "Count": len(items[skip : skip + 3])}

    def _usages(self, what: str, region: str) -> list[dict[str, Any]]:
        rows = catalogue.NETWORK_USAGES if what == "network" else catalogue.USAGES
        return [
            {"unit": "Count", "currentValue": used, "limit": limit, "name": {"value": name}}
            for name, limit, used in rows
        ]

    @staticmethod
    def _image(publisher: str, sku: str, version: str | None) -> Any:
        if sku == "nothing":
            return []
        if version is None:
            return [{"name": "24.04.202611010", "location": "westeurope", "id": "/x"}]
        has: dict[str, Any] = {"hyperVGeneration": "V2", "architecture": "x64"}
        if publisher == "nvidia":
            has["plan"] = {"name": sku, "product": "ngc", "publisher": publisher}
        return {"name": version.strip("/"), "location": "westeurope", "id": "/x", "properties": has}

    # --- groups and resources --------------------------------------------------------------------------------------------

    def _need_group(self, low: str) -> None:
        if low not in self.things:
            name = low.rpartition("/")[2]
            raise Refused(404, "ResourceGroupNotFound", f"Resource group '{name}' could not be found.")

    def _group(self, method: str, low: str, name: str, text: str) -> tuple[int, Any, dict[str, str]]:
        verb = {"PUT": "write", "GET": "read"}[method]
        self.actions.add(f"Microsoft.Resources/subscriptions/resourceGroups/{verb}")
        if method == "PUT":
            from azure.mgmt.resource.resources.models import ResourceGroup

            body = checked(ResourceGroup, text)
            is_new = low not in self.things
            self.things[low] = {"id": low, "name": name, "type": "Microsoft.Resources/resourceGroups", **body}
            return 201 if is_new else 200, self.things[low], {}
        self._need_group(low)
        return 200, self.things[low], {}

    def _resource(
        self, method: str, low: str, path: str, namespace: str, kind: str, name: str, asked: dict[str, str], text: str,
        headers: dict[str, str], fault: Fault | None,
    ) -> tuple[int, Any, dict[str, str]]:  # fmt: skip
        spaced = {"microsoft.compute": "Microsoft.Compute", "microsoft.network": "Microsoft.Network"}[namespace]
        kinds = {
            "virtualmachines": "virtualMachines", "disks": "disks", "networkinterfaces": "networkInterfaces",
            "publicipaddresses": "publicIPAddresses", "networksecuritygroups": "networkSecurityGroups",
            "virtualnetworks": "virtualNetworks",
        }  # fmt: skip
        type_ = f"{spaced}/{kinds[kind]}"
        self.actions.add(f"{type_}/{ {'PUT': 'write', 'GET': 'read', 'DELETE': 'delete'}[method] }")
        self._need_group(low.split("/providers/")[0])
        there = self.things.get(low)
        if method == "GET":
            if there is None:
                raise Refused(404, "ResourceNotFound", f"The Resource '{type_}/{name}' was not found.")
            return 200, _shown(there, with_view=asked.get("$expand") == "instanceView"), {}
        if method == "DELETE":
            if there is None:
                return 204, None, {}
            return self._delete(there, kind)
        if kind == "virtualmachines":
            return self._put_machine(low, path, name, text, headers, there, fault)
        models = _models()
        body = checked(models[kind], text)
        self.things[low] = {"id": path, "name": name, "type": type_, **body}
        if kind == "virtualnetworks":
            self.actions.add("Microsoft.Network/networkSecurityGroups/join/action")
        return 201, _shown(self.things[low]), self._operation(None)

    def _operation(self, fault: Fault | None, until: float = 0.0) -> dict[str, str]:
        number = f"op{len(self.operations) + 1}"
        self.operations[number] = {"status": "Succeeded" if until <= self.now() else "InProgress"}
        if fault is not None:
            self.operations[number] = {"status": "Failed", "error": {"code": fault.code, "message": fault.message}}
        elif until > self.now():
            self.due.append((until, "operation", number))
        return {"Azure-AsyncOperation": f"{self.url}/operations/{number}", "Retry-After": "0"}

    def _put_machine(
        self,
        low: str,
        path: str,
        name: str,
        text: str,
        headers: dict[str, str],
        there: dict[str, Any] | None,
        fault: Fault | None,
    ) -> tuple[int, Any, dict[str, str]]:
        from azure.mgmt.compute.models import VirtualMachine

        if there is not None and headers.get("If-None-Match") == "*":
            raise Refused(412, "PreconditionFailed", "A machine of that name exists.")
        if there is not None:
            return 200, _shown(there), self._operation(None)
        body = checked(VirtualMachine, text)
        has = body["properties"]
        if has["hardwareProfile"]["vmSize"] not in {one["name"] for one in catalogue.skus(body["location"])}:
            raise Refused(400, "InvalidParameter", "The value of parameter vmSize is invalid.")
        card = has["networkProfile"].pop("networkInterfaceConfigurations")[0]
        self.actions |= {
            f"Microsoft.Network/{one}"
            for one in (
                "networkInterfaces/write", "networkInterfaces/join/action", "publicIPAddresses/write", "publicIPAddresses/join/action",
                "virtualNetworks/subnets/join/action", "networkSecurityGroups/join/action",
            )
        }  # fmt: skip
        subnet = (
            card["properties"]["ipConfigurations"][0]["properties"]["subnet"]["id"].lower().rpartition("/subnets/")[0]
        )
        for wanted in (subnet, card["properties"]["networkSecurityGroup"]["id"].lower()):
            if wanted not in self.things:
                raise Refused(404, "ParentResourceNotFound", f"{wanted} was not found.")
        base = path.rsplit("/providers/", 1)[0]
        address = card["properties"]["ipConfigurations"][0]["properties"]["publicIPAddressConfiguration"]
        ids = {
            "ip": self._add(
                base, "Microsoft.Network/publicIPAddresses", address["name"], body, {"ipAddress": "127.0.0.1"}
            ),
            "disk": self._add(base, "Microsoft.Compute/disks", has["storageProfile"]["osDisk"]["name"], body, {}),
        }
        configuration = {"name": "ip", "properties": {"publicIPAddress": {"id": ids["ip"]}}}
        ids["nic"] = self._add(
            base, "Microsoft.Network/networkInterfaces", card["name"], body, {"ipConfigurations": [configuration]}
        )
        has["networkProfile"]["networkInterfaces"] = [
            {"id": ids["nic"], "properties": {"primary": True, "deleteOption": "Delete"}}
        ]
        boots = self.now() + self.boot_s
        is_refused = fault is not None and fault.later
        has |= {"provisioningState": "Failed" if is_refused else "Creating", "timeCreated": _iso(self.now())}
        self.things[low] = {
            "id": path, "name": name, "type": "Microsoft.Compute/virtualMachines", **body, "_power": None, "_belongs": list(ids.values()),
        }  # fmt: skip
        if not is_refused:
            self.due.append((boots, "boot", low))
        return 201, _shown(self.things[low]), self._operation(fault if is_refused else None, boots)

    def _add(self, base: str, type_: str, name: str, machine: dict[str, Any], has: dict[str, Any]) -> str:
        id = f"{base}/providers/{type_}/{name}"
        own = {"location": machine["location"], "tags": machine.get("tags"), "createdTime": _iso(self.now())}
        self.things[id.lower()] = {"id": id, "name": name, "type": type_, **own, "properties": has}
        return id

    def _delete(self, there: dict[str, Any], kind: str) -> tuple[int, Any, dict[str, str]]:
        low = there["id"].lower()
        if kind != "virtualmachines":
            del self.things[low]
            return 202, None, self._operation(None)
        if there["properties"]["provisioningState"] != "Deleting":
            there["properties"]["provisioningState"] = "Deleting"
            self.due.append((self.now() + self.delete_s, "delete", low))
        return 202, None, self._operation(None)

    def _settle(self) -> None:
        now = self.now()
        late = [one for one in self.due if one[0] <= now]
        self.due = [one for one in self.due if one[0] > now]
        for _, what, key in sorted(late):
            if what == "operation":
                self.operations[key] = {"status": "Succeeded"}
            elif (there := self.things.get(key)) is None:
                continue
            elif what == "delete":
                self._remove_machine(there)
            elif there["properties"]["provisioningState"] == "Creating":
                there["properties"]["provisioningState"], there["_power"] = "Succeeded", "running"

    def _remove_machine(self, there: dict[str, Any], *, forgets: bool = False) -> None:
        self.things.pop(there["id"].lower(), None)
        for id in () if forgets else there["_belongs"]:
            self.things.pop(id.lower(), None)


def _view(one: Mapping[str, Any]) -> dict[str, Any]:
    state = str(one["properties"]["provisioningState"]).lower()
    codes = [f"ProvisioningState/{state}", *([f"PowerState/{one['_power']}"] if one["_power"] else [])]
    return {"statuses": [{"code": code, "level": "Info"} for code in codes]}


def _shown(one: Mapping[str, Any], *, with_view: bool = False) -> dict[str, Any]:
    found = {key: value for key, value in one.items() if not key.startswith("_")}
    if with_view and "_power" in one:
        found["properties"] = {**found["properties"], "instanceView": _view(one)}
    return found


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at % 1 * 10_000_000):07}Z"


def _models() -> dict[str, Any]:
    from azure.mgmt.network import models

    return {"networksecuritygroups": models.NetworkSecurityGroup, "virtualnetworks": models.VirtualNetwork}


def checked(model: Any, text: str) -> dict[str, Any]:
    """A body, if every field of it is one of Microsoft's model."""
    body: dict[str, Any] = json.loads(text)
    _check(model, body, "")
    return body


def _check(model: Any, body: Any, where: str) -> None:
    origin, inner = typing.get_origin(model), typing.get_args(model)
    if origin is typing.Union or str(origin) == "<class 'types.UnionType'>":
        options = [one for one in inner if one is not type(None)]
        structured = [one for one in options if hasattr(one, "as_dict") or typing.get_origin(one) in (list, dict)]
        if structured:
            _check(structured[0], body, where)
        return
    if origin is list and isinstance(body, list):
        for number, one in enumerate(body):
            _check(inner[0], one, f"{where}[{number}]")
        return
    if not hasattr(model, "as_dict") or not isinstance(body, dict):
        return
    model()  # its fields are known from the first one on
    fields = {found._rest_name: name for name, found in model._attr_to_rest_field.items()}
    # Microsoft's own names for the module that they are in.
    package = sys.modules[model.__module__.rpartition(".")[0]]
    hints = typing.get_type_hints(model, localns={"_models": package})
    for key, value in body.items():
        if key not in fields:
            raise Refused(
                400,
                "InvalidRequestContent",
                f"Could not find member '{where}.{key}' on object of type '{model.__name__}'.",
            )
        _check(hints.get(fields[key]), value, f"{where}.{key}")


@contextmanager
def serving() -> Iterator[Azure]:
    """One, for a test."""
    azure = Azure()
    try:
        yield azure
    finally:
        azure.close()
