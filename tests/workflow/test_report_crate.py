"""The research object of a run, against what its profiles require: each requirement by the name of the section that states it.

The profiles are RO-Crate 1.1, Workflow RO-Crate 1.0, and Process, Workflow and Provenance Run Crate 0.5. The terms that a crate uses
must be in `crate_context.json`, which has those of the two published contexts that we use, with what they stand for. With that context
put in the place of the published ones, the profiles' own validator (roc-validator) needs no network:

    rocrate-validator validate CRATE --no-auto-profile -p provenance-run-crate-0.5 --skip-availability-check
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from scitq.engine import Engine
from scitq.errors import BadInput
from scitq.states import TaskState
from scitq.store import cache
from scitq.workflow import report, reportcrate
from scitq.workflow.reportdata import uri_of
from tests.workflow.declared import declare
from tests.workflow.history import Made, history
from tests.workflow.test_report import EVIL

Entity = dict[str, Any]
CONTEXT = json.loads((Path(__file__).parent / "crate_context.json").read_text())["@context"]
RUN_CRATE = "https://w3id.org/ro/wfrun"
# What an identifier may be made of (RFC 3986): everything else is percent-encoded.
_IDENTIFIER = re.compile(r"(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-F]{2})+")


ENV = {"LANG": "C", "TOKEN": "hunter2"}


class Crate:
    """A crate that was written, by id."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.document = json.loads((folder / "ro-crate-metadata.json").read_text(encoding="utf-8"))
        self.graph: list[Entity] = self.document["@graph"]
        self.by_id: dict[str, Entity] = {entity["@id"]: entity for entity in self.graph}
        self.descriptor = self.by_id["ro-crate-metadata.json"]
        self.root = self.by_id["./"]
        self.main = self.by_id[self.root["mainEntity"]["@id"]]

    def of_type(self, name: str) -> list[Entity]:
        """Those of a type."""
        return [entity for entity in self.graph if name in types(entity)]

    def linked(self, entity: Entity, key: str) -> list[Entity]:
        """What a property refers to; all of it is described here."""
        return [self.by_id[id] for id in ids(entity.get(key, []))]


def types(entity: Entity) -> list[str]:
    found = entity["@type"]
    return found if isinstance(found, list) else [found]


def ids(value: Any) -> list[str]:
    return [one["@id"] for one in (value if isinstance(value, list) else [value])]


def references(entity: Entity) -> Iterator[tuple[str, str]]:
    for key, value in entity.items():
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict):
                assert set(one) == {"@id"}, (entity["@id"], key)
                yield key, one["@id"]


# --- what is required -----------------------------------------------------------------------------------------------------------

Check = Callable[[Crate], None]
REQUIRED: dict[str, Check] = {}


def requires(section: str) -> Callable[[Check], Check]:
    """A requirement, by where it is stated."""

    def note(check: Check) -> Check:
        assert section not in REQUIRED
        REQUIRED[section] = check
        return check

    return note


@requires(
    "RO-Crate 1.1, RO-Crate Structure: the metadata file is JSON-LD, flattened, and each entity is described once"
)
def _(crate: Crate) -> None:
    assert crate.document["@context"] == [
        "https://w3id.org/ro/crate/1.1/context",
        "https://w3id.org/ro/terms/workflow-run/context",
    ]
    assert len(crate.by_id) == len(crate.graph)
    for entity in crate.graph:
        assert isinstance(entity["@id"], str) and types(entity)
        list(references(entity))


@requires("RO-Crate 1.1, RO-Crate JSON-LD: every type and property is defined in the context")
def _(crate: Crate) -> None:
    for entity in crate.graph:
        assert {*types(entity), *entity} - {"@id", "@type"} <= set(CONTEXT), entity["@id"]


@requires("RO-Crate 1.1, Root Data Entity: the metadata file descriptor")
def _(crate: Crate) -> None:
    assert types(crate.descriptor) == ["CreativeWork"] and ids(crate.descriptor["about"]) == ["./"]
    assert "https://w3id.org/ro/crate/1.1" in ids(crate.descriptor["conformsTo"])


@requires("RO-Crate 1.1, Root Data Entity: direct properties of the root")
def _(crate: Crate) -> None:
    assert types(crate.root) == ["Dataset"] and crate.root["name"] and crate.root["description"]
    datetime.fromisoformat(crate.root["datePublished"])
    assert len(ids(crate.root["license"])) == 1


@requires("RO-Crate 1.1, Data Entities: files and folders are parts of the root, directly or by way of others")
def _(crate: Crate) -> None:
    reached, open_ = set(), ["./"]
    while open_:
        id = open_.pop()
        if id not in reached:
            reached.add(id)
            open_ += ids(crate.by_id[id].get("hasPart", []))
    data = {entity["@id"] for entity in crate.graph if {"File", "Dataset"} & set(types(entity))}
    assert data <= reached


@requires("RO-Crate 1.1, Data Entities: identifiers are relative paths to what is there, or absolute addresses")
def _(crate: Crate) -> None:
    for entity in (*crate.of_type("File"), *crate.of_type("Dataset")):
        id = entity["@id"]
        assert _IDENTIFIER.fullmatch(id), id
        assert re.match(r"[a-z][a-z0-9+.-]*:", id) or (crate.folder / unquote(id)).exists(), id
    assert all(entity["@id"].endswith("/") for entity in crate.of_type("Dataset"))


@requires("RO-Crate 1.1, Contextual Entities: what is referred to is described")
def _(crate: Crate) -> None:
    elsewhere = ("http://schema.org/", "https://w3id.org/ro/crate/1.1", "https://w3id.org/ro/terms/workflow-run#")
    for entity in crate.graph:
        for key, id in references(entity):
            assert id in crate.by_id or id.startswith(elsewhere), (entity["@id"], key, id)


@requires("RO-Crate 1.1, Contextual Entities: what is described is referred to")
def _(crate: Crate) -> None:
    named = {id for entity in crate.graph for _, id in references(entity)} | {"ro-crate-metadata.json"}
    # The run of the engine is what refers to everything else.
    assert {entity["@id"] for entity in crate.graph} - named <= {"#engine-run"}


@requires("Workflow RO-Crate 1.0, Concepts, Main Workflow: types, language, part of the root")
def _(crate: Crate) -> None:
    assert {"File", "SoftwareSourceCode", "ComputationalWorkflow"} <= set(types(crate.main))
    (language,) = crate.linked(crate.main, "programmingLanguage")
    assert types(language) == ["ComputerLanguage"] and language["name"]
    assert crate.main["@id"] in ids(crate.root["hasPart"])


@requires("Workflow RO-Crate 1.0, Metadata File Descriptor: conformsTo")
def _(crate: Crate) -> None:
    assert "https://w3id.org/workflowhub/workflow-ro-crate/1.0" in ids(crate.descriptor["conformsTo"])


@requires("Process Run Crate 0.5, Requirements, Dataset: conformsTo")
def _(crate: Crate) -> None:
    _conforms(crate, f"{RUN_CRATE}/process/0.5")


@requires("Workflow Run Crate 0.5, Requirements, Dataset: conformsTo, with Workflow RO-Crate")
def _(crate: Crate) -> None:
    _conforms(crate, f"{RUN_CRATE}/workflow/0.5")
    _conforms(crate, "https://w3id.org/workflowhub/workflow-ro-crate/1.0")


@requires("Provenance Run Crate 0.5, Requirements, Dataset: conformsTo")
def _(crate: Crate) -> None:
    _conforms(crate, f"{RUN_CRATE}/provenance/0.5")


def _conforms(crate: Crate, profile: str) -> None:
    assert profile in ids(crate.root["conformsTo"])
    assert types(crate.by_id[profile]) == ["CreativeWork"] and profile.endswith(crate.by_id[profile]["version"])


@requires("Process Run Crate 0.5, Requirements, SoftwareApplication: type, id")
def _(crate: Crate) -> None:
    for action in (*crate.of_type("CreateAction"), *crate.of_type("OrganizeAction")):
        (tool,) = crate.linked(action, "instrument")
        assert {"SoftwareApplication", "ComputationalWorkflow"} & set(types(tool)) and tool["name"]


@requires("Process Run Crate 0.5, Requirements, CreateAction: instrument, agent, times, status, named by the root")
def _(crate: Crate) -> None:
    mentioned = ids(crate.root["mentions"])
    for action in crate.of_type("CreateAction"):
        assert action["@id"] in mentioned and action["name"] and action["description"]
        assert [types(one) for one in crate.linked(action, "agent")] == [["Person"]]
        for key in ("startTime", "endTime"):
            if key in action:
                datetime.fromisoformat(action[key])
        (status,) = ids(action["actionStatus"])
        assert status.startswith("http://schema.org/") and ("error" in action) <= status.endswith("/FailedActionStatus")
        for one in (*crate.linked(action, "object"), *crate.linked(action, "result")):
            assert {"File", "Dataset", "Collection"} & set(types(one))


@requires("Process Run Crate 0.5, Representing container images: type, registry, name")
def _(crate: Crate) -> None:
    for image in crate.of_type("ContainerImage"):
        assert ids(image["additionalType"]) == ["https://w3id.org/ro/terms/workflow-run#DockerImage"] and image["name"]
        assert image["registry"] and re.fullmatch("[0-9a-f]{64}", image.get("sha256", "0" * 64))


@requires("Process Run Crate 0.5, Representing environment variable settings")
def _(crate: Crate) -> None:
    for action in crate.of_type("CreateAction"):
        assert all(types(one) == ["PropertyValue"] and one["name"] for one in crate.linked(action, "environment"))


@requires("Workflow Run Crate 0.5, Overview: an action is the execution of the main workflow")
def _(crate: Crate) -> None:
    runs = [action for action in crate.of_type("CreateAction") if ids(action["instrument"]) == [crate.main["@id"]]]
    assert len(runs) == 1


@requires("Workflow Run Crate 0.5, Adding engine-specific traces: reports tell which run they are about")
def _(crate: Crate) -> None:
    assert [ids(crate.by_id[name]["about"]) for name in ("report.html", "report.json")] == [["#run"], ["#run"]]


@requires("Provenance Run Crate 0.5, Requirements, ComputationalWorkflow: type, hasPart, step")
def _(crate: Crate) -> None:
    tools = crate.linked(crate.main, "hasPart")
    assert "HowTo" in types(crate.main) and tools and crate.main["step"]
    used = {id for action in crate.of_type("CreateAction") for id in ids(action["instrument"])}
    assert {tool["@id"] for tool in tools} == used - {crate.main["@id"]}


@requires("Provenance Run Crate 0.5, Requirements, HowToStep: workExample, position")
def _(crate: Crate) -> None:
    steps = crate.linked(crate.main, "step")
    assert {step["@id"] for step in steps} == {step["@id"] for step in crate.of_type("HowToStep")}
    assert [ids(step["workExample"])[0] for step in steps] == ids(crate.main["hasPart"])
    assert all(int(a["position"]) < int(b["position"]) for a, b in pairwise(steps))  # those of the tests are chains


@requires("Provenance Run Crate 0.5, Requirements, ControlAction: instrument, object")
def _(crate: Crate) -> None:
    controls = crate.of_type("ControlAction")
    assert len(controls) == len(crate.of_type("HowToStep"))
    for control in controls:
        (step,) = crate.linked(control, "instrument")
        actions = crate.linked(control, "object")
        assert types(step) == ["HowToStep"] and actions
        assert all(types(one) == ["CreateAction"] and one["instrument"] == step["workExample"] for one in actions)


@requires("Provenance Run Crate 0.5, Requirements, OrganizeAction: instrument, object, result")
def _(crate: Crate) -> None:
    (organized,) = crate.of_type("OrganizeAction")
    (engine,) = crate.linked(organized, "instrument")
    assert engine["name"] == "scitq" and engine["softwareVersion"]
    assert set(ids(organized["object"])) == {one["@id"] for one in crate.of_type("ControlAction")}
    assert ids(organized["result"]) == ["#run"]


# --- crates ---------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def crates(tmp_path_factory: pytest.TempPathFactory) -> list[Crate]:
    """One of an orderly run, one of a run in which everything is odd."""
    folder = tmp_path_factory.mktemp("crates")
    with Engine(folder / "lab.scitq", drive=False) as engine:
        digest = "docker.io/staphb/fastp@sha256:" + "4e1f" * 16
        history(engine, "qc", {
            "fastp": Made(6, failing=5, again=3, cached=4, spec={"container": "staphb/fastp:0.23.4", "env": ENV}, image=digest,
                          sources=["s3://raw/{name}/reads.fq.gz", "s3://raw/{name}/*.fa"]),
            "stats": Made(1, ["fastp"], name="all", sources=["task://1", "task://2/sub"]),
            "never": Made(2, ["stats"], state=TaskState.BLOCKED),
        })  # fmt: skip
        history(engine, f"odd {EVIL}", {
            EVIL: Made(3, name=EVIL + "{n}", command=f"echo {EVIL}", sources=["/data/{name} ü?#%\udcff.txt", "http://x.org/a%20b?c=1#d"],
                       spec={"container": "sha256:" + "ab" * 32}, image="sha256:" + "ab" * 32),
            "é": Made(1, [EVIL]),
        })  # fmt: skip
        for name, where in (("qc", "one"), (f"odd {EVIL}", "two")):
            report.write(engine, name, None, crate=folder / where)
    return [Crate(folder / "one"), Crate(folder / "two")]


@pytest.mark.parametrize("section", REQUIRED)
def test_crate_meets(section: str, crates: list[Crate]) -> None:
    for crate in crates:
        REQUIRED[section](crate)


def test_crate_tells_what_was_read_left_and_run(crates: list[Crate]) -> None:
    crate = crates[0]
    action = crate.by_id["#execution/2"]

    assert action["description"] == "fastp -i $INPUT/s00001.fq.gz -o $OUTPUT/s00001.fq.gz --thread 4"
    (image,) = crate.linked(action, "containerImage")
    assert (image["registry"], image["name"], image["tag"], image["sha256"]) == (
        "docker.io",
        "staphb/fastp",
        "0.23.4",
        "4e1f" * 16,
    )
    file, pattern = crate.linked(action, "object")
    assert (file["@id"], file["contentSize"], file["md5"]) == (
        "s3://raw/s00001/reads.fq.gz", "1234567", "9c1e185a5c5e9fc54612808977ee8f54",
    )  # fmt: skip
    assert types(pattern) == ["Collection"] and ids(pattern["hasPart"]) == ["s3://raw/s00001/reads.fq.gz"]
    (left,) = crate.linked(action, "result")
    assert left["@id"] == "s3://lab/2/" and crate.linked(left, "hasPart")[0]["contentSize"] == "1000002"
    assert {one["name"]: one["value"] for one in crate.linked(action, "environment")} == {
        "LANG": "C",
        "TOKEN": "(not shown)",
    }
    # What an earlier task left is the next one's input, by the same name.
    (stats,) = [one for one in crate.of_type("CreateAction") if one["name"] == "stats: all"]
    assert "s3://lab/2/" in ids(stats["object"]) and ids(crate.by_id["#run"]["result"]) == ids(stats["result"])
    assert "s3://lab/2/" not in ids(crate.by_id["#run"]["object"]) and "s3://raw/s00001/reads.fq.gz" in ids(
        crate.by_id["#run"]["object"]
    )
    assert "hunter2" not in json.dumps(crate.document)


def test_crate_tells_what_failed_and_what_came_from_the_cache(crates: list[Crate]) -> None:
    actions = crates[0].of_type("CreateAction")

    failed = [one for one in actions if "error" in one and one["@id"] != "#run"]
    assert {one["error"] for one in failed} == {"failed (exit 1)"} and not any("result" in one for one in failed)
    cached = [one for one in actions if "was taken." in one["description"]]
    assert len(cached) == 2 and not any("startTime" in one for one in cached)  # what was taken is gone here
    assert crates[0].by_id["#run"]["error"] == "6 of 9 tasks succeeded"
    assert [step["name"] for step in crates[0].of_type("HowToStep")] == [
        "fastp",
        "stats",
    ]  # the one that never ran is no part


def test_crate_of_a_real_run_has_its_script(engine: Engine, tmp_path: Path) -> None:
    script = tmp_path / "declared.py"
    script.write_text("print('the workflow')\n")
    (tmp_path / "reads.fq").write_text("ACGT\n")
    declare(
        engine,
        "qc",
        {"count": [{"command": "wc -c < $INPUT/reads.fq > $OUTPUT/n.txt", "shell": True, "input": "reads.fq"}]},
    )
    engine._write(lambda db: db.execute("update workflow set script = ?", (str(script),)))
    engine.wait_all(timeout=60)
    engine._wait_for(lambda: cache.unknown(engine._reader()), 60, "what successes answer to")

    assert report.write(
        engine,
        "qc",
        None,
        crate=tmp_path / "crate",
        license="CC-BY-4.0",
        checksums=True,
        author="Ada Lovelace <https://orcid.org/0000-0002-1825-0097>",
    ) == (tmp_path / "crate")

    crate = Crate(tmp_path / "crate")
    for check in REQUIRED.values():
        check(crate)
    assert (crate.folder / "workflow" / "declared.py").read_text() == "print('the workflow')\n"
    assert crate.main["@id"] == "workflow/declared.py"
    (file,) = crate.linked(crate.by_id["#run"], "object")
    assert (
        file["@id"] == uri_of(str(tmp_path / "reads.fq"))
        and file["@id"].startswith("file:///")
        and file["contentSize"] == "5"
    )
    assert file["sha256"] == hashlib.sha256(b"ACGT\n").hexdigest() and "version" not in file
    assert ids(crate.root["license"]) == ["https://spdx.org/licenses/CC-BY-4.0"]
    assert crate.by_id["https://orcid.org/0000-0002-1825-0097"]["name"] == "Ada Lovelace"


def test_crate_of_what_has_not_run_is_no_provenance_yet(state_file: Path, tmp_path: Path) -> None:
    with Engine(state_file, drive=False) as engine:
        declare(engine, "qc", {"one": ["true"]})
        report.write(engine, "qc", None, crate=tmp_path / "crate")

    crate = Crate(tmp_path / "crate")
    assert f"{RUN_CRATE}/provenance/0.5" not in ids(crate.root["conformsTo"])
    for section, check in REQUIRED.items():
        if not section.startswith("Provenance"):
            check(crate)


def test_crate_is_there_whole_or_not_at_all(state_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("mine")
    (tmp_path / "empty").mkdir()

    with Engine(state_file, drive=False) as engine:
        declare(engine, "qc", {"one": ["true"]})
        with pytest.raises(BadInput, match="give a new or an empty folder"):
            report.write(engine, "qc", None, crate=tmp_path / "full")
        with pytest.raises(BadInput, match="license='my own' is neither an SPDX name"):
            report.write(engine, "qc", None, crate=tmp_path / "bad", license="my own")
        with pytest.raises(BadInput, match="author='<>': give a name"):
            report.write(engine, "qc", None, crate=tmp_path / "bad", author="<>")
        report.write(engine, "qc", None, crate=tmp_path / "empty")

        def breaks(*_: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(reportcrate, "_document", breaks)
        with pytest.raises(BadInput, match="cannot be written: No space left"):
            report.write(engine, "qc", None, crate=tmp_path / "new")

    assert (tmp_path / "empty" / "ro-crate-metadata.json").exists() and (
        tmp_path / "full" / "thesis.tex"
    ).read_text() == "mine"
    assert not (tmp_path / "new").exists() and not (tmp_path / "bad").exists()
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".tmp"]
