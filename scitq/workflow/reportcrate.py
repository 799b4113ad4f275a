"""A run as a research object: a folder with `ro-crate-metadata.json`, after the Workflow Run RO-Crate profiles, version 0.5.

It says which program declared the workflow, what each step runs in which container, and of every execution what it read and left,
with checksums where they are known. The data stays where it is and is named by its address. The metadata is written entity by
entity, so that a hundred thousand executions are never held at once.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
from collections.abc import Generator, Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scitq.errors import BadInput
from scitq.states import Outcome, TaskState
from scitq.store import reporting
from scitq.store.listing import spec_of
from scitq.store.reporting import Row
from scitq.task import Spec
from scitq.workflow import reportjson, reportpage
from scitq.workflow.reportdata import Data, image_entity, ref, uri_of
from scitq.workflow.reportfacts import Facts, Image, Step, shareable
from scitq.workflow.reportfiles import beside_of
from scitq.workflow.reportgather import cause_of, text_of
from scitq.workflow.reportjson import iso, plain
from scitq.workflow.reportlayout import place
from scitq.workflow.reportmethods import methods

if TYPE_CHECKING:
    import apsw

Entity = dict[str, Any]

CONTEXT = ["https://w3id.org/ro/crate/1.1/context", "https://w3id.org/ro/terms/workflow-run/context"]
CRATE, WORKFLOW_CRATE = "https://w3id.org/ro/crate/1.1", "https://w3id.org/workflowhub/workflow-ro-crate/1.0"
PROVENANCE = "https://w3id.org/ro/wfrun/provenance/0.5"
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    PROVENANCE: ("Provenance Run Crate", "0.5"),
    WORKFLOW_CRATE: ("Workflow RO-Crate", "1.0"),
}
METADATA = "ro-crate-metadata.json"
ROOT, RUN, ORGANIZED, ENGINE, AGENT, LICENSE = "./", "#run", "#engine-run", "#scitq", "#agent", "#license"
_SCHEMA = "http://schema.org/"
# A program that declares a workflow is no longer than this; what is may be anything.
SCRIPT_BYTES = 10_000_000


def write(
    facts: Facts, db: apsw.Connection, folder: Path, *, license: str | None = None, author: str | None = None
) -> None:
    """Write the crate into a folder, which is new or empty: whole or not at all.

    Raises:
        BadInput: it cannot be written there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} is there already, and holds something: give a new or an empty folder for the crate.")
    beside = beside_of(folder)
    try:
        shutil.rmtree(beside, ignore_errors=True)
        (beside / "workflow").mkdir(parents=True)
        crate = _Crate(facts, db, beside, license, author)
        _put(beside / "report.html", [reportpage.page(facts)])
        _put(beside / "report.json", reportjson.parts(facts, db))
        _put(beside / METADATA, _document(crate.entities()))
        if folder.exists():
            folder.rmdir()
        beside.replace(folder)
    except OSError as problem:
        raise BadInput(f"{folder}: the crate cannot be written: {problem.strerror}.") from problem
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _put(path: Path, parts: Iterable[str]) -> None:
    with path.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(parts)


def _document(entities: Iterable[Entity]) -> Iterator[str]:
    yield f'{{"@context":{json.dumps(CONTEXT)},\n"@graph":['
    for number, entity in enumerate(entities):
        yield ("," if number else "") + "\n" + json.dumps(entity)
    yield "\n]}\n"


class _Crate:
    """What is to be said, in the order in which it becomes known: the root, which names all the rest, comes last."""

    def __init__(
        self, facts: Facts, db: apsw.Connection, folder: Path, license: str | None, author: str | None
    ) -> None:
        self._facts, self._db, self._folder = facts, db, folder
        self._license, self._author = license, author
        self._numbers = {step.id: number for number, step in enumerate(facts.steps, 1)}
        self._actions: dict[int, list[str]] = {step.id: [] for step in facts.steps}
        self._data = Data(db, facts.checksums)
        self._images: dict[Image, str] = {}
        self._settings: dict[tuple[str, str], str] = {}
        self._read: dict[str, None] = {}
        self._results: dict[str, None] = {}
        self._agent = AGENT
        self._parts: list[str] = ["report.html", "report.json"]

    def entities(self) -> Iterator[Entity]:
        """All of them."""
        yield {
            "@id": METADATA, "@type": "CreativeWork", "about": ref(ROOT), "conformsTo": [ref(CRATE), ref(WORKFLOW_CRATE)],
        }  # fmt: skip
        yield from self._people()
        yield from self._executions()
        yield from self._data.settled()
        main = yield from self._workflow()
        yield from self._run(main)
        for id in self._profiles:
            name, version = PROFILES[id]
            yield {"@id": id, "@type": "CreativeWork", "name": name, "version": version}
        yield {"@id": "report.html", "@type": "File", "name": "Report of the run", "encodingFormat": "text/html", "about": ref(RUN),
               "contentSize": self._size("report.html")}  # fmt: skip
        yield {"@id": "report.json", "@type": "File", "name": "Report of the run, every task and execution", "about": ref(RUN),
               "encodingFormat": "application/json", "contentSize": self._size("report.json")}  # fmt: skip
        yield self._root(main)

    @property
    def _ran(self) -> list[Step]:
        """The steps of which anything ran: what never did is no part of a run."""
        return [step for step in self._facts.steps if self._actions[step.id]]

    @property
    def _profiles(self) -> list[str]:
        """Those it conforms to: without an execution there is no provenance to tell."""
        return [id for id in PROFILES if self._ran or id != PROVENANCE]

    def _size(self, name: str) -> str:
        return str((self._folder / name).stat().st_size)

    # --- who, and under which terms ---------------------------------------------------------------------------------------

    def _people(self) -> Iterator[Entity]:
        name, self._agent = who(self._author)
        yield {"@id": self._agent, "@type": "Person", "name": name}
        if self._license is None:
            yield {
                "@id": LICENSE, "@type": "CreativeWork", "name": "No license stated",
                "description": "Whoever made this crate stated no license: ask them what others may do with it.",
            }  # fmt: skip
        else:
            yield {"@id": license_of(self._license), "@type": "CreativeWork", "name": self._license}

    # --- the workflow itself ----------------------------------------------------------------------------------------------

    def _workflow(self) -> Generator[Entity, None, str]:
        """The program that declared it; where that is gone, what it declared. Returns its id."""
        facts = self._facts
        script = None if facts.script is None else Path(facts.script)
        changed = ""
        text = None if script is None else _read_script(script)
        if script is not None and text is not None:
            name = script.name
            (self._folder / "workflow" / name).write_bytes(text)
            language, encoding = "#python", "text/x-python"
            if facts.declared_ms is not None and script.stat().st_mtime_ns // 1_000_000 > facts.declared_ms:
                changed = " The file was changed after it last declared the workflow."
            yield {"@id": language, "@type": "ComputerLanguage", "name": "Python", "url": ref("https://www.python.org/"),
                   "identifier": ref("https://www.python.org/")}  # fmt: skip
            yield {"@id": "https://www.python.org/", "@type": "WebSite", "name": "Python"}
        else:
            name = f"{re.sub(r'[^A-Za-z0-9._-]', '_', facts.name)}.json"
            declared = {"workflow": facts.name, "steps": reportjson.head(facts)["steps"]}
            (self._folder / "workflow" / name).write_text(json.dumps(declared, indent=1), encoding="utf-8")
            language, encoding = "#declaration", "application/json"
            yield {"@id": language, "@type": "ComputerLanguage", "name": "scitq declaration",
                   "description": "What a program declared, as the state file has it: steps and their commands."}  # fmt: skip
        id = f"workflow/{uri_of(name)}"
        self._parts.insert(0, id)
        layers = place([step.id for step in facts.steps], [(a, b) for a, b, _ in facts.links if a is not None])
        parts = {
            "hasPart": [ref(self._tool(step)) for step in self._ran],
            "step": [ref(f"#step/{self._numbers[step.id]}") for step in self._ran],
        }  # fmt: skip
        yield {
            "@id": id, "@type": ["File", "SoftwareSourceCode", "ComputationalWorkflow", "HowTo"], "name": facts.name,
            "description": f"The workflow {facts.name}, for scitq.{changed}", "encodingFormat": encoding,
            "programmingLanguage": ref(language), "contentSize": self._size(f"workflow/{name}"), **(parts if self._ran else {}),
        }  # fmt: skip
        for step in self._ran:
            position = {} if layers.back else {"position": str(layers.layer[step.id])}
            yield {"@id": f"#step/{self._numbers[step.id]}", "@type": "HowToStep", "name": step.name, **position,
                   "workExample": ref(self._tool(step))}  # fmt: skip
            patterns = [plain(pattern.text) for pattern in step.commands.known]
            yield {
                "@id": self._tool(step),
                "@type": "SoftwareApplication",
                "name": step.name,
                "description": "\n".join(patterns),
            }
        return id

    def _tool(self, step: Step) -> str:
        return f"#tool/{self._numbers[step.id]}"

    # --- what ran ---------------------------------------------------------------------------------------------------------

    def _executions(self) -> Iterator[Entity]:
        steps = {step.id: step for step in self._facts.steps}
        for _, group in groupby(reporting.each(self._db, list(steps)), key=lambda row: row.task):
            rows = [row for row in group if row.execution is not None]
            ended = [row for row in rows if row.outcome not in (None, Outcome.RECALLED)]
            for row in ended:
                is_result = row is ended[-1] and row.state == TaskState.SUCCEEDED
                yield from self._execution(steps[row.batch], row, is_result=is_result)

    def _execution(self, step: Step, row: Row, *, is_result: bool) -> Iterator[Entity]:
        spec = spec_of(row.ran or row.spec)
        id = f"#execution/{row.execution}"
        self._actions[step.id].append(id)
        is_good = row.outcome == Outcome.SUCCEEDED
        entity: Entity = {
            "@id": id, "@type": "CreateAction", "name": plain(f"{step.name}: {row.name or spec.line()}"),
            "description": plain(text_of(spec)), "instrument": ref(self._tool(step)), "agent": ref(self._agent),
            "actionStatus": ref(_SCHEMA + ("CompletedActionStatus" if is_good else "FailedActionStatus")),
        }  # fmt: skip
        started, ended = row.started, row.ended
        if row.cached_from is not None:
            entity["description"] += (
                f"\n\nNothing ran: the result of execution {row.cached_from}, which was equal, was taken."
            )
            source = reporting.source_of(self._db, row.cached_from)
            started, ended = (None, None) if source is None else source[1:]
        entity |= {key: iso(at) for key, at in (("startTime", started), ("endTime", ended)) if at is not None}
        if not is_good:
            entity["error"] = plain(": ".join(part for part in (cause_of(row), row.detail) if part))
        used, left = self._data.of_execution(row, spec)
        if used:
            entity["object"] = [ref(one) for one in used]
        if left and is_good:
            entity["result"] = [ref(one) for one in left]
            if is_result and step.is_last:
                self._results.update(dict.fromkeys(left))
        self._read.update(dict.fromkeys(self._data.from_outside))
        if spec.container is not None:
            image = Image(spec_of(row.spec).container or spec.container, row.image)
            if image not in self._images:
                self._images[image] = f"#image/{len(self._images) + 1}"
                yield image_entity(self._images[image], image)
            entity["containerImage"] = ref(self._images[image])
        if spec.env:
            entity["environment"] = [ref(one) for one in (yield from self._environment(spec))]
        yield entity
        yield from self._data.settled()

    def _environment(self, spec: Spec) -> Generator[Entity, None, list[str]]:
        ids = []
        for name, value in shareable(dict(spec.env)).items():
            if (name, value) not in self._settings:
                self._settings[name, value] = f"#variable/{len(self._settings) + 1}"
                yield {
                    "@id": self._settings[name, value],
                    "@type": "PropertyValue",
                    "name": name,
                    "value": plain(value),
                }
            ids.append(self._settings[name, value])
        return ids

    # --- the run as a whole -----------------------------------------------------------------------------------------------

    def _run(self, main: str) -> Iterator[Entity]:
        facts = self._facts
        is_good = facts.counts[TaskState.SUCCEEDED] == facts.task_count
        status = {"actionStatus": ref(_SCHEMA + ("CompletedActionStatus" if is_good else "FailedActionStatus"))}
        if not facts.is_over:
            status = {"actionStatus": ref(_SCHEMA + "ActiveActionStatus")}
        elif not is_good:
            status["error"] = f"{facts.counts[TaskState.SUCCEEDED]} of {facts.task_count} tasks succeeded"  # type: ignore[assignment]
        times = {key: iso(at) for key, at in (("startTime", facts.first_ms), ("endTime", facts.last_ms if facts.is_over else None))
                 if at is not None}  # fmt: skip
        data = {
            key: [ref(one) for one in ids] for key, ids in (("object", self._read), ("result", self._results)) if ids
        }
        yield {"@id": RUN, "@type": "CreateAction", "name": f"Run of {facts.name}", "description": methods(facts),
               "instrument": ref(main), "agent": ref(self._agent), **times, **status, **data}  # fmt: skip
        controls = []
        for step in self._ran:
            controls.append(f"#control/{self._numbers[step.id]}")
            yield {"@id": controls[-1], "@type": "ControlAction", "name": f"Orchestration of {step.name}",
                   "instrument": ref(f"#step/{self._numbers[step.id]}"),
                   "object": [ref(one) for one in self._actions[step.id]]}  # fmt: skip
        if controls:
            yield {
                "@id": ENGINE, "@type": "SoftwareApplication", "name": "scitq", "softwareVersion": self._facts.version,
                "description": "A scientific task queue that lives inside a Python process.",
            }  # fmt: skip
            yield {"@id": ORGANIZED, "@type": "OrganizeAction", "name": f"Run of scitq {facts.version}", "instrument": ref(ENGINE),
                   "agent": ref(self._agent), "object": [ref(one) for one in controls], "result": ref(RUN), **times}  # fmt: skip

    def _root(self, main: str) -> Entity:
        facts = self._facts
        actions = [RUN, *(one for ids in self._actions.values() for one in ids)]
        return {
            "@id": ROOT, "@type": "Dataset", "name": f"Run of the workflow {facts.name}", "description": methods(facts),
            "datePublished": iso(facts.made_ms), "license": ref(LICENSE if self._license is None else license_of(self._license)),
            "conformsTo": [ref(one) for one in self._profiles], "mainEntity": ref(main), "author": ref(self._agent),
            "hasPart": [ref(one) for one in (*self._parts, *self._data.top)],
            "mentions": [ref(one) for one in (*actions, *self._data.collections)],
        }  # fmt: skip


def _read_script(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.is_file() and path.stat().st_size <= SCRIPT_BYTES else None
    except OSError:
        return None


def who(author: str | None) -> tuple[str, str]:
    """The name and id in `Ada Lovelace <https://orcid.org/0000-0002-1825-0097>`; without a word, who runs this."""
    if author is not None:
        found = re.fullmatch(r"\s*([^<>]+?)\s*(?:<(https?://[^<>\s]+)>)?\s*", author)
        if found is None:
            raise BadInput(
                f"author={author!r:.200}: give a name, and an address if you like: 'Ada Lovelace <https://orcid.org/0000-0002-1825-0097>'."
            )
        return found[1], found[2] or AGENT
    try:
        return getpass.getuser(), AGENT
    except (KeyError, OSError):
        return f"user {os.getuid()}", AGENT


def license_of(text: str) -> str:
    """The address of a license: as given, or that of the SPDX name."""
    if re.match(r"https?://", text):
        return text
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.+-]*", text):
        return f"https://spdx.org/licenses/{text}"
    raise BadInput(f"license={text!r:.200} is neither an SPDX name (such as CC-BY-4.0) nor an address.")
