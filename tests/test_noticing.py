"""The rules that say what needs a person: pure, from rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from scitq import noticing
from scitq.noticing import Action, Cost, Notice
from scitq.shell.table import COMMANDS
from scitq.states import Stage, TaskState, WorkerState
from scitq.store.copies import Rival
from scitq.store.lease import Holder
from scitq.store.notices import Failed, Posted
from scitq.store.summary import InVain
from scitq.task import Need, TaskId
from scitq.worker import DECLARED_LOST, WorkerId, WorkerRow

NOW = 1_700_000_000_000
GB = 1_000_000_000
NOT_KNOWN = (
    "me@atlas is not known: it shows the key ssh-ed25519 SHA256:7b1f, which nobody has accepted yet. Compare it with what the host "
    "says of itself (ssh-keygen -lf /etc/ssh/ssh_host_*_key.pub there), then: scitq worker trust me@atlas"
)
ANOTHER = (
    "me@atlas shows another key (ssh-ed25519 SHA256:9) than the one that was accepted (ssh-ed25519 SHA256:7, /k:1). Either the host "
    "was installed anew, or somebody else answers in its place: it is not used. If you know why: scitq worker trust me@atlas"
)


def worker(
    state: WorkerState,
    note: str | None = None,
    *,
    kind: str = "ssh",
    silent_s: float = 0,
    stats: Mapping[str, Any] | None = None,
) -> WorkerRow:
    name = "local" if kind == "local" else "atlas"
    return WorkerRow(
        id=WorkerId(7), name=name, kind=kind, state=state, batch=None, concurrency=2, prefetch=None, facts={}, note=note,
        journal=None, acked=0, created_ms=NOW - 10**9, seen_ms=NOW - 1000, measured=None if stats is None else json.dumps(stats),
        address="me@atlas", settings={}, link={}, silent_ms=int(1000 * silent_s), batch_id=None,
    )  # fmt: skip


def of_worker(row: WorkerRow, problem: str | None = None, *, is_work_left: bool = True) -> list[Notice]:
    return [*noticing.workers([row], {7: problem} if problem else {}, is_work_left, NOW)]


def failed(
    number: int, detail: str = "", *, batch: str = "qc", cause: str = "failed (exit 1)", stage: Stage = Stage.RUN
) -> Failed:
    return Failed(TaskId(number), f"{number} 'false'", batch, 100 + number, NOW, cause, stage, detail)


def words(notice: Notice) -> list[str]:
    return [" ".join(action.words) for action in notice.actions]


@pytest.mark.parametrize("state", [WorkerState.FAILED, WorkerState.UNREACHABLE, WorkerState.PREPARING])
@pytest.mark.parametrize(("note", "says"), [(NOT_KNOWN, "nobody has accepted"), (ANOTHER, "another key")])
def test_a_host_key_is_to_be_looked_at_and_accepted(state: WorkerState, note: str, says: str) -> None:
    [found] = of_worker(worker(state, note))

    assert (found.key, found.kind) == ("host-key:atlas", "host-key")
    assert says in found.text and "\n" not in found.text
    assert words(found) == ["worker trust me@atlas", "worker restart atlas"]
    assert found.about["changed"] is (note is ANOTHER)


def test_a_host_key_is_known_by_the_error_of_the_job_too() -> None:
    [found] = of_worker(worker(WorkerState.FAILED, "it was refused"), "HostKeyChanged")

    assert found.kind == "host-key" and found.about["changed"]
    assert of_worker(worker(WorkerState.FAILED, "no room"), "HostUnfit")[0].kind == "worker-failed"


def test_a_worker_that_does_not_answer_is_called_to_mind_after_a_minute_and_may_be_given_up_after_ten() -> None:
    assert not of_worker(worker(WorkerState.UNREACHABLE, "no answer", silent_s=59))

    [short] = of_worker(worker(WorkerState.UNREACHABLE, "no answer", silent_s=70))
    [long] = of_worker(worker(WorkerState.UNREACHABLE, "no answer", silent_s=7200))

    assert (short.key, short.text) == ("worker-unreachable:atlas", "worker atlas has not answered for 70 s: no answer")
    assert words(short) == ["worker restart atlas"]
    assert words(long) == ["worker restart atlas", "worker lost atlas"]
    assert short.mark != long.mark  # it is another notice now
    assert long.since_ms == NOW - 7_200_000
    assert not of_worker(worker(WorkerState.UNREACHABLE, DECLARED_LOST, silent_s=7200))


def test_the_agent_of_this_machine_that_does_not_start_is_told_at_once() -> None:
    [found] = of_worker(worker(WorkerState.UNREACHABLE, "it cannot be started: No space left on device", kind="local"))

    assert (found.key, words(found)) == ("agent:local", ["worker restart local", "doctor"])
    assert found.text == "worker local is unreachable: it cannot be started: No space left on device"


def test_a_worker_that_its_user_holds_back_is_named_while_there_is_work() -> None:
    row = worker(WorkerState.PAUSED, "paused")

    assert words(of_worker(row)[0]) == ["worker resume atlas"]
    assert not of_worker(row, is_work_left=False)
    assert not of_worker(worker(WorkerState.READY, "whatever"))
    assert not of_worker(worker(WorkerState.PREPARING, "connecting"))


@pytest.mark.parametrize(
    ("free", "total", "is_scarce"),
    [
        (1 * GB, 8 * GB, True),
        (3 * GB, 8 * GB, False),
        (3 * GB, None, False),
        (20 * GB, 500 * GB, True),
        (30 * GB, 500 * GB, False),
        (400 * GB, 20_000 * GB, False),
    ],
)
def test_a_disk_is_nearly_full_below_five_percent_or_two_gigabytes(
    free: int, total: int | None, is_scarce: bool
) -> None:
    stats = {"at": NOW, "disk_free": free} | ({} if total is None else {"disk": total})
    found = [*noticing.disks([worker(WorkerState.READY, stats=stats)], "lab.scitq", None, None, NOW)]

    assert bool(found) is is_scarce
    assert all(words(one) == ["worker clean atlas"] for one in found)
    assert bool([*noticing.disks([], "lab.scitq", free, total, NOW)]) is is_scarce


def test_of_a_disk_only_what_is_true_now_is_said_and_once() -> None:
    full = {"at": NOW, "disk_free": GB, "disk": 8 * GB}
    rows = [worker(WorkerState.READY, kind="local", stats=full)]

    assert [one.key for one in noticing.disks(rows, "lab.scitq", GB, 8 * GB, NOW)] == ["disk:file"]
    assert [one.key for one in noticing.disks(rows, "lab.scitq", None, None, NOW)] == ["disk:worker:local"]
    assert not [*noticing.disks(rows, "lab.scitq", None, None, NOW + 2 * 86_400_000)]  # said so long ago
    assert not [*noticing.disks([worker(WorkerState.READY, stats={"at": NOW})], "lab.scitq", None, None, NOW)]
    [low] = noticing.disks([], "lab.scitq", 20 * GB, 500 * GB, NOW)
    [none] = noticing.disks([], "lab.scitq", 1000, 500 * GB, NOW)
    assert low.mark != none.mark


def test_equal_failures_are_one_notice_with_the_last_line_of_the_error() -> None:
    them = [failed(3), failed(2), failed(1), failed(9, batch="other"), failed(8, cause="timed out (run)")]

    three, other, timed_out = noticing.failures(them, {103: "ValueError: no reads"})

    assert three.text == "task 3 'false' failed (exit 1) (3 equal failures): ValueError: no reads"
    assert (three.kind, other.kind) == ("failures", "failed")
    assert words(three) == ["task show 3", "task relaunch --where state='failed' and batch='qc'"]
    assert (other.text, words(other)) == ("task 9 'false' failed (exit 1)", ["task show 9", "task relaunch 9"])
    assert timed_out.about["cause"] == "timed out (run)"
    [more] = noticing.failures([failed(4), *them[:3]], {})
    assert more.key == three.key and more.mark != three.mark  # new again


def test_a_batch_with_a_quote_in_its_name_breaks_no_condition() -> None:
    assert noticing.relaunch_of(["it's", "b"])[-1] == "state='failed' and batch in ('it''s', 'b')"


@pytest.mark.parametrize(
    ("detail", "place"),
    [
        ("s3://lab/raw/x.fq.gz: AccessDenied: status code: 403", "s3"),
        ("s3://lab/x: ExpiredToken: The provided token has expired", "s3"),
        ("https://data.example.org/x: 401 Unauthorized.", "data.example.org"),
        ("https://me@data.example.org:8443/x: 403 Forbidden.", "data.example.org"),
        (
            "ghcr.io/lab/tool:1: its registry does not let us have it (denied). Run docker login on the laptop.",
            "ghcr.io",
        ),
    ],
)
def test_a_storage_or_registry_that_does_not_let_us_in_is_one_notice(detail: str, place: str) -> None:
    them = [failed(2, detail, stage=Stage.STAGE_IN), failed(1, detail, stage=Stage.COLLECT), failed(7)]

    [found], others = noticing.refusals(them)

    assert (found.key, found.about["equal"]) == (f"credentials:{place}", 2)
    assert found.text.startswith(f"{place} does not let us in (2 tasks failed): ")
    assert [one.id for one in others] == [7]


@pytest.mark.parametrize(
    ("detail", "stage"),
    [
        ("s3://lab/run-403.fq: 404 not found", Stage.STAGE_IN),
        ("/data/401/x: No such file", Stage.STAGE_IN),
        ("/data/x: Permission denied.", Stage.STAGE_IN),
        ("Access denied", Stage.RUN),  # the task's own words
    ],
)
def test_other_failures_are_no_matter_of_credentials(detail: str, stage: Stage) -> None:
    found, others = noticing.refusals([failed(1, detail, stage=stage)])

    assert not found and len(others) == 1


def holder(**more: Any) -> Holder:
    facts: dict[str, Any] = {
        "epoch": 3, "pid": 12, "host": "nuc", "machine": "m", "boot": "b", "started": NOW, "program": "python", "seen": NOW,
        "alive": True, "is_here": True, "is_me": False, "is_stopped": False,
    }  # fmt: skip
    return Holder(**{**facts, **more})


def test_work_that_nobody_sees_to() -> None:
    counts = {TaskState.PENDING: 2, TaskState.RUNNING: 1, TaskState.SUCCEEDED: 7}

    [found] = noticing.drivers("lab.scitq", None, counts, NOW)
    assert (found.text, words(found)) == ("nobody drives lab.scitq, and 3 tasks are not done", ["up"])
    assert not [*noticing.drivers("lab.scitq", None, {TaskState.SUCCEEDED: 7, TaskState.PAUSED: 1}, NOW)]
    assert not [*noticing.drivers("lab.scitq", holder(), counts, NOW)]
    [still] = noticing.drivers("lab.scitq", holder(is_stopped=True), counts, NOW)
    assert "does nothing" in still.text and words(still) == ["up --take-over"]
    [rival] = noticing.copies(Rival("a", 3, "nuc:/lab.scitq"))
    assert "nuc:/lab.scitq" in rival.text
    assert not [*noticing.copies(None)]


def test_what_waits_and_will_wait() -> None:
    [vain] = noticing.in_vain([InVain(Need(cpus=1000), "no worker has 1000 CPUs", 3, TaskId(5))])
    assert (vain.text, words(vain)) == ("3 tasks wait in vain: no worker has 1000 CPUs", ["task why 5"])
    [halted] = noticing.halted(
        [("qc", 2, {TaskState.PENDING: 1, TaskState.RUNNING: 4}), ("x", 1, {TaskState.FAILED: 3})]
    )
    assert halted.text == "batch qc is suspended: 1 task queued, 4 at the workers"
    [blocked] = noticing.blocked({TaskState.BLOCKED: 1})
    assert blocked.text.startswith("1 task is blocked")
    [large] = noticing.large_files([("atlas", 4, NOW, "80 GB go to atlas, more than its send_limit of 10 GB.")])
    assert large.key == "large-files:atlas"


def test_money_is_told_when_most_of_it_is_spent() -> None:
    costs = [Cost("batch", "qc", 7.9, 10, "EUR"), Cost("batch", "rna", 8.0, 10, "EUR"), Cost("file", "", 11, 10, "USD")]

    nearly, spent = noticing.money(costs)

    assert (nearly.text, nearly.mark) == ("batch rna: 8.00 of 10.00 EUR spent (80 %)", "nearly")
    assert (spent.text, spent.mark) == ("11.00 of 10.00 USD spent (all): no more machines are rented", "spent")


def test_what_was_written_down_is_told_as_it_is() -> None:
    [found] = noticing.posted(
        [Posted("quota:ovh", NOW, "quota", "20 cores, 24 wanted", {"region": "GRA"}, [("ask", ("doctor",))])]
    )

    assert (found.kind, found.since_ms, found.actions) == ("quota", NOW, (Action("ask", ("doctor",)),))


def test_the_words_of_transports_are_still_those_that_are_looked_for() -> None:
    """The rules know two things by the words of others."""
    package = Path(noticing.__file__).parent
    assert noticing.TOO_LARGE.split()[-3] in (package / "parcels.py").read_text()
    assert "scitq worker trust {place.address}" in (package / "remote" / "sshlogin.py").read_text()


def test_every_action_is_a_command_that_there_is() -> None:
    rows = [worker(state, note, silent_s=7200) for state in WorkerState for note in (NOT_KNOWN, "broken")]
    rows.append(worker(WorkerState.UNREACHABLE, "it does not start", kind="local"))
    found = [
        *noticing.workers(rows, {}, True, NOW),
        *noticing.disks([], "f", 0, 1, NOW),
        *noticing.refusals([failed(1, "s3://x: AccessDenied", stage=Stage.COLLECT)])[0],
        *noticing.failures([failed(3), failed(2), failed(1)], {}),
        *noticing.drivers("f", None, {TaskState.PENDING: 1}, NOW),
        *noticing.copies(Rival("a", 3, "b")),
        *noticing.blocked({TaskState.BLOCKED: 1}),
    ]
    known = {row.path: {flag for one in row.parameters for flag in getattr(one, "flags", ())} for row in COMMANDS}
    for action in {action for notice in found for action in notice.actions}:
        path = next(" ".join(action.words[:n]) for n in (2, 1) if " ".join(action.words[:n]) in known)
        assert {word for word in action.words if word.startswith("-")} <= known[path], action
