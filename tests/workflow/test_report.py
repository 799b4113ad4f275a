"""What a report says of a workflow, whatever is in it and however large it is."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from scitq.engine import Engine
from scitq.errors import BadInput, UnknownWorkflow
from scitq.states import TaskState
from scitq.store import cache
from scitq.workflow import report, reportgather, reportpage
from scitq.workflow.reportfacts import shareable
from tests.workflow.conftest import Maker
from tests.workflow.declared import declare
from tests.workflow.history import START_MS, Made, history

EVIL = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>]]>&\x1b[31m\u202e"
VOID = {"meta", "link", "br", "hr", "col"}


class Page(HTMLParser):
    """A page, read as a strict reader would: every tag is closed, no id is there twice, links lead somewhere."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []
        ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]
        assert len(set(ids)) == len(ids)
        assert {href[1:] for href in self.all("a", "href") if href} <= set(ids)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data + " "

    def all(self, tag: str, attribute: str) -> list[str | None]:
        return [attributes.get(attribute) for name, attributes in self.tags if name == tag]

    def count(self, tag: str) -> int:
        return len(self.all(tag, "id"))


def made(engine: Engine, path: Path = Path("report.html"), name: str = "qc") -> Page:
    """The report, written and read."""
    assert report.write(engine, name, path) == path
    return Page(path.read_text(encoding="utf-8"))


def facts_of(engine: Engine, name: str = "qc") -> Any:
    return reportgather.gather(engine, name, START_MS + 86_400_000)


def test_a_real_run_is_told_with_its_failures_inputs_and_outputs(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "reads.fq").write_text("ACGT\n" * 1000)
    tasks = declare(engine, "qc", {
        "count": [{"command": "wc -c < $INPUT/reads.fq > $OUTPUT/n.txt", "shell": True, "input": "reads.fq", "name": "lane 1"},
                  {"command": "echo out; echo '<b>sorry</b>' >&2; exit 3", "shell": True, "name": "lane 2", "memory": "1G"}],
    })  # fmt: skip
    tasks |= declare(engine, "qc", {
        "count": [],
        "total": [{"command": "cat $INPUT/n.txt", "shell": True, "input": tasks["count"][0].output, "requires": tasks["count"]}],
    })  # fmt: skip
    engine.wait_all(timeout=60)
    engine._wait_for(lambda: cache.unknown(engine._reader()), 60, "what successes answer to")

    page = made(engine)
    told = report.write(engine, "qc", None, json=True)

    for text in ("1 of 3 tasks succeeded", "failed (exit 3)", "<b>sorry</b>", "lane 1", "lane 2", "reads.fq", "5.0 kB",
                 "cat $INPUT/n.txt", "What the step count left", "n.txt", "1 task failed for good", "1.0 GB"):  # fmt: skip
        assert text in page.text, text
    assert isinstance(told, dict)
    lane1, lane2, total = told["tasks"]
    assert (lane1["state"], lane2["state"], total["state"]) == ("succeeded", "failed", "blocked")
    (execution,) = lane1["executions"]
    assert [file["name"] for file in execution["left"]["files"]] == ["n.txt"]
    assert execution["read"][0]["files"][0]["size"] == 5000 and execution["run_s"] is not None
    assert told["failures"][0]["tail"] == "<b>sorry</b>\n" and told["failures"][0]["stream"] == "stderr"
    assert told["links"] == [{"from": "count", "to": "total", "requirements": 2}] and told["inputs"][0]["as"] == "input"
    assert json.loads("".join(report.json_parts(engine, "qc")))["tasks"] == told["tasks"]


def test_checksums_are_computed_of_local_inputs_that_have_not_changed(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    for name in ("one.fq", "two.fq", "folder/deep/three.fq"):
        (tmp_path / name).write_text(name)
    declare(
        engine,
        "qc",
        {
            "read": [
                {"command": "true", "input": ["*.fq"]},
                {"command": "true", "input": "folder", "resource": "one.fq"},
            ]
        },
    )
    engine.wait_all(timeout=60)
    engine._wait_for(lambda: cache.unknown(engine._reader()), 60, "what successes answer to")
    (tmp_path / "two.fq").write_text("other")

    told = report.write(engine, "qc", None, json=True, checksums=True)

    assert isinstance(told, dict)
    found = {(source["as"], file["name"]): file["version"] for source in told["inputs"] for file in source["files"]}
    sums = {name: f"sha256:{hashlib.sha256(name.encode()).hexdigest()}" for name in ("one.fq", "folder/deep/three.fq")}
    assert found.pop(("input", "two.fq")).startswith("time:")  # it is not what was read any more
    assert found == {("input", "one.fq"): sums["one.fq"], ("resource", "one.fq"): sums["one.fq"],
                     ("input", "deep/three.fq"): sums["folder/deep/three.fq"]}  # fmt: skip
    assert "SHA-256" in report.html(engine, "qc", checksums=True) and "SHA-256" not in report.html(engine, "qc")


def test_hostile_names_commands_and_output_stay_text(idle: Engine) -> None:
    name = f"q{EVIL}"
    steps = {
        EVIL: Made(3, command=f"echo '{EVIL}' {{name}}", failing=2, name=EVIL + "{n}", stderr=(EVIL * 50).encode() + b"\xff\x00\x9b" * 9,
                   spec={"container": "a/b", "shell": EVIL}, image=EVIL, sources=[f"s3://{EVIL}/" + "{name}"]),
        "after": Made(1, [EVIL], command=f"cat {EVIL}\n<svg onload=alert(3)>"),
    }  # fmt: skip
    history(idle, name, steps)

    page = made(idle, name=name)

    known = {"html", "head", "meta", "title", "link", "style", "body", "header", "h1", "h2", "h3", "p", "span", "dl", "dt", "dd", "div",
             "small", "nav", "a", "main", "section", "table", "caption", "thead", "tbody", "tr", "th", "td", "svg", "g", "rect", "text",
             "path", "line", "defs", "marker", "ul", "li", "blockquote", "pre", "code", "details", "summary", "footer"}  # fmt: skip
    assert {tag for tag, _ in page.tags} <= known
    assert not [
        key for _, attributes in page.tags for key in attributes if key.startswith("on") or key in ("style", "src")
    ]
    assert "<script>alert(1)</script>" in page.text and "\x1b" not in page.text and "\u202e" not in page.text
    assert r"\u202e" in page.text and r"\xff" in page.text


def test_the_page_lets_nothing_be_fetched_or_run(idle: Engine) -> None:
    history(idle, "qc", {"one": Made(2)})

    page = made(idle)
    text = Path("report.html").read_text()

    (policy,) = (one for one in page.all("meta", "content") if one and one.startswith("default-src"))
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy
    addresses = [
        value for tag, attributes in page.tags for key, value in attributes.items() if key in ("href", "src", "action")
    ]
    assert all(one is not None and one.startswith(("#", "data:,")) for one in addresses)
    assert "@import" not in text and "url(http" not in text


def test_few_tasks_are_drawn_and_listed_one_by_one(idle: Engine) -> None:
    numbers = history(idle, "qc", {"trim": Made(3, failing=3, again=2), "merge": Made(1, ["trim"], name="all of it")})

    page = made(idle)
    facts = facts_of(idle)

    assert [task.id for task in facts.tasks] == [*numbers["trim"], *numbers["merge"]]
    assert len(facts.parents) == 3 and len(facts.bars) == facts.executions == 6 and not facts.loads
    assert "all of it" in page.text and page.count("svg") >= 2
    titles = re.findall(r"<title>([^<]*)</title>", Path("report.html").read_text())
    assert any(title.startswith(f"{numbers['trim'][2]} s00002: failed on qc-node") for title in titles)
    assert any("ran " in title and "staged in" in title for title in titles)


@pytest.mark.slow
def test_ten_thousand_tasks_are_folded_by_step_in_a_small_page(idle: Engine) -> None:
    history(idle, "qc", {
        "fetch": Made(3333, sources=["s3://raw/{name}.fq.gz"]), "fastp": Made(3333, ["fetch"], failing=50, again=10, cached=4),
        "align": Made(3333, ["fastp"]), "stats": Made(1, ["align"], name="all"),
    }, workers=30, slots=16)  # fmt: skip

    page = made(idle)
    facts = facts_of(idle)

    assert facts.task_count == 10_000 and Path("report.html").stat().st_size < 600_000
    assert not facts.tasks and not facts.bars and facts.loads and not facts.parents
    assert sum(step.counts[TaskState.SUCCEEDED] for step in facts.steps) == 10_000 - 66
    assert (facts.steps[1].cached, facts.steps[1].tried_again, facts.failures[0].alike_more) == (
        834 - facts_cached_failures(3333),
        167,
        55,
    )
    assert "3,333 tasks" in page.text and "and 6 other workers" in page.text and "These are 200 of" in page.text
    # A worker was never given more at once than it has slots, and what it was given is all there.
    for worker in facts.workers:
        loads = [values for (id, _), values in facts.loads.items() if id == worker.id]
        assert max(map(sum, zip(*loads, strict=True))) <= 16.0001
        total_s = sum(map(sum, loads)) * facts.axis.length_ms / 1000 / 160
        assert total_s == pytest.approx(worker.busy_s, rel=0.01)


def facts_cached_failures(count: int) -> int:
    """Of the synthetic ones, those that were to fail are no successes from the cache."""
    return sum(1 for number in range(count) if number % 50 == 49 and number % 4 == 0)


def test_failures_that_say_the_same_are_shown_once(idle: Engine) -> None:
    history(idle, "qc", {
        "same": Made(14, failing=1), "own": Made(7, failing=1, stderr=b"\x1b[31mcannot read {name}\x1b[0m\n"),
    })  # fmt: skip

    page = made(idle)
    told = facts_of(idle)

    assert [(len(one.alike), one.alike_more) for one in told.failures] == [(10, 3), (0, 0), (1, 0), (1, 0)]
    assert told.failed_more == 2
    assert "13 other tasks of this step failed with the same words: s00001, s00002" in page.text
    assert " and 3 more." in page.text
    assert "cannot read s00014" in page.text and "2 more tasks failed in such ways" in page.text


def test_sums_of_a_step_are_those_of_its_executions(idle: Engine) -> None:
    history(idle, "qc", {"trim": Made(40, failing=10, again=5, spec={"cpus": 4, "memory": 10**9})})

    (step,) = facts_of(idle).steps
    rows = idle.sql("select run_s, cpu_s, peak_memory, outcome from executions")

    assert step.executions == len(rows) and sum(step.run_s) == pytest.approx(sum(row["run_s"] for row in rows))
    assert step.cpu_s == pytest.approx(sum(row["cpu_s"] for row in rows)) and max(step.memory_used) == max(
        row["peak_memory"] for row in rows
    )
    assert step.bad_ends == {"failed (exit 1)": sum(row["outcome"] == "failed" for row in rows)}
    assert (step.cpus_asked, step.memory_asked) == ((4, 4), (10**9, 10**9))
    assert all(0.4 <= one <= 4 for one in step.staging_s) and all(0.1 <= one <= 2.1 for one in step.collecting_s)


def test_runs_on_different_days_stand_side_by_side(idle: Engine) -> None:
    history(idle, "qc", {"one": Made(4), "two": Made(4, ["one"])}, gap_s=86_400)

    page = made(idle)

    assert len(facts_of(idle).axis.parts) == 2
    assert "in which nothing ran" in page.text and "⋯ 24 h 00 ⋯" in page.text


def test_a_workflow_that_runs_or_never_ran_has_a_report(idle: Engine) -> None:
    declare(idle, "qc", {"one": ["true", "true"]})
    declare(idle, "empty", {})
    declare(idle, "bare", {"step": []})

    page = made(idle)

    assert "Not over: 0 of 2 tasks succeeded; 2 pending." in page.text and "nothing has run yet" in page.text
    assert "It has no tasks." in made(idle, name="empty").text and "It has no tasks." in made(idle, name="bare").text
    assert "timeline" not in page.all("section", "id")


def test_a_task_that_another_took_the_place_of_is_left_out(idle: Engine) -> None:
    old, new = declare(idle, "qc", {"one": ["echo old", "echo new"]})["one"]
    idle._write(lambda db: db.execute("update member set name = null where task = ?", (old.id,)))

    facts = facts_of(idle)

    assert [task.id for task in facts.tasks] == [new.id] and facts.task_count == 1


def test_requirements_of_tasks_elsewhere_are_drawn_as_one_box(idle: Engine) -> None:
    other = idle.submit("true")
    declare(idle, "qc", {"one": [{"command": "true", "requires": other}]})

    assert "tasks of elsewhere" in made(idle).text


def test_values_of_secret_variables_are_not_told(idle: Engine) -> None:
    declare(
        idle,
        "qc",
        {"one": [{"command": "true", "env": {"LANG": "C", "MY_API_KEY": "hunter2", "DB_PASSWORD": "hunter2"}}]},
    )

    text = "".join(report.json_parts(idle, "qc")) + reportpage.page(facts_of(idle))

    assert "hunter2" not in text and '"LANG":"C"' in text
    assert shareable({"AUTH_TOKEN": "x", "PATH": "y"}) == {"AUTH_TOKEN": "(not shown)", "PATH": "y"}


def test_an_unknown_workflow_or_a_place_that_cannot_be_written_is_one_sentence(idle: Engine, tmp_path: Path) -> None:
    declare(idle, "qc", {"one": ["true"]})
    (tmp_path / "folder").mkdir()

    with pytest.raises(UnknownWorkflow, match="known: qc"):
        report.write(idle, "nope", None)
    with pytest.raises(BadInput, match="is a folder: give the name of a file"):
        report.write(idle, "qc", tmp_path / "folder")
    with pytest.raises(BadInput, match="cannot be written: No such file"):
        report.write(idle, "qc", tmp_path / "nowhere" / "x.html")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix in (".html", ".tmp")) == []


def test_what_a_killed_one_left_beside_the_page_is_removed_by_the_next(idle: Engine, tmp_path: Path) -> None:
    declare(idle, "qc", {"one": ["true"]})
    ended = subprocess.Popen(["true"])
    ended.wait()
    (tmp_path / f".qc.html.{ended.pid}.tmp").write_text("half a page")
    (tmp_path / f".crate.{ended.pid}.tmp" / "workflow").mkdir(parents=True)
    (tmp_path / f".qc.html.{os.getppid()}.tmp").write_text("somebody is at it")

    report.write(idle, "qc", tmp_path / "qc.html", crate=tmp_path / "crate")

    assert [path.name for path in tmp_path.glob(".*.tmp")] == [f".qc.html.{os.getppid()}.tmp"]


def test_without_a_name_the_page_is_named_after_the_workflow(idle: Engine) -> None:
    declare(idle, "qc", {"one": ["true"]})

    assert report.write(idle, "qc", None) == Path("qc.html") and Path("qc.html").exists()


def test_methods_say_what_ran_in_which_image(idle: Engine) -> None:
    digest = "docker.io/staphb/fastp@sha256:" + "4e1f" * 16
    history(idle, "qc", {
        "fastp": Made(12, cached=4, again=3, spec={"container": "staphb/fastp:0.23.4"}, image=digest, sources=["s3://raw/{name}.fq.gz"]),
        "stats": Made(1, ["fastp"], command="seqkit stats $INPUT/* > {name}", name="all"),
    })  # fmt: skip

    told = report.write(idle, "qc", None, json=True)

    assert isinstance(told, dict)
    assert re.fullmatch(
        r"Workflow “qc” \(13 tasks in 2 steps: fastp and stats\) was run with scitq \S+ on 21 September 2026\. Tasks ran on 2 machines "
        r"with 64 CPUs and 256 GB of memory in all\. Step fastp \(12 tasks\) ran `fastp -i \$INPUT/\{name\}\.fq\.gz .* --thread 4`, in the "
        r"container image staphb/fastp:0\.23\.4 \(sha256:(4e1f){16}\)\. Step stats \(1 task\) ran `seqkit stats \$INPUT/\* > all`\. "
        r"12 inputs were read, 15 MB in all; the report lists them, with checksums where these are known\. All tasks succeeded, "
        r"3 were tried more than once and 3 took the result of an equal task that had run before\. "
        r"The computation took \d+ min of CPU time\.",
        told["methods"],
    ), told["methods"]


def test_a_script_asks_its_workflow_for_the_report(make: Maker, tmp_path: Path) -> None:
    wf = make("qc")
    clean = [
        wf.step("clean", f"echo {sample} > $OUTPUT/{sample}.txt", shell=True, name=sample) for sample in ("a", "b")
    ][-1]
    wf.step("stats", "cat $INPUT/*", shell=True, input=clean.gather("output"))
    wf.run()

    assert wf.report("out.html") == Path("out.html")
    assert wf.report(crate=tmp_path / "crate", license="CC0-1.0") == tmp_path / "crate"
    told = wf.report(json=True)

    assert "All tasks succeeded" in Page(Path("out.html").read_text()).text
    assert [(step["name"], step["counts"]["succeeded"]) for step in told["steps"]] == [("clean", 2), ("stats", 1)]
    assert told["links"] == [{"from": "clean", "to": "stats", "requirements": 2}]
    assert "CC0-1.0" in (tmp_path / "crate" / "ro-crate-metadata.json").read_text()
