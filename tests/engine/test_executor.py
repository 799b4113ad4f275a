"""Python functions as tasks: real files, real agent, real Pythons."""

from __future__ import annotations

import os
import pickle
import signal
import stat
import subprocess
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable
from concurrent import futures
from pathlib import Path
from typing import Any

import pytest

from scitq import calls, runner
from scitq.calls import RemoteTraceback
from scitq.engine import Engine
from scitq.errors import BadInput, Closed, TaskBlocked, TaskFailed
from scitq.executor import CallFuture, Executor
from scitq.remote import local
from scitq.states import TaskState
from scitq.worker import LOCAL
from tests.engine.conftest import Opener, sound

WAIT_S = 30


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that no event announces to a test."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {WAIT_S} s"
        time.sleep(0.01)


@pytest.fixture
def executor(engine: Engine) -> Executor:
    """An executor of this test's engine."""
    return Executor(engine)


def hold_back(engine: Engine) -> None:
    """Let nothing start any more, once the worker is there."""
    engine.submit("true").wait(WAIT_S)
    engine.update_worker(LOCAL, concurrency=0, prefetch=0)


def files_of_calls(engine: Engine) -> list[Path]:
    folder = engine.side / "calls"
    return sorted(folder.iterdir()) if folder.is_dir() else []


# --- results ------------------------------------------------------------------------------------------------------------


def test_a_call_gives_its_result(executor: Executor) -> None:
    future = executor.submit(divmod, 17, 5)

    assert future.result(WAIT_S) == (3, 2)
    assert (future.done(), future.running(), future.cancelled(), future.exception()) == (True, False, False, None)


def test_named_arguments_and_closures_travel(executor: Executor) -> None:
    factor = 3

    def scale(value: int, *, plus: int = 0) -> int:
        return factor * value + plus

    assert executor.submit(scale, 5, plus=1).result(WAIT_S) == 16
    assert executor.submit(lambda: scale(2)).result(WAIT_S) == 6


def test_an_argument_may_be_named_like_those_of_submit(executor: Executor) -> None:
    assert executor.submit(dict, fn=1, self=2).result(WAIT_S) == {"fn": 1, "self": 2}


def test_an_object_of_the_scripts_own_class_comes_back_as_one(tmp_path: Path) -> None:
    ended = run_script(
        tmp_path,
        """
        class Point:
            def __init__(self, x): self.x = x
        with Executor(q) as pool:
            point = pool.submit(lambda x: Point(x), 4).result(30)
            back = pool.submit(lambda p: isinstance(p, Point) and p.x, point).result(30)
        print(type(point) is Point, point.x, back)
        """,
    )
    assert ended.stdout == "True 4 4\n", ended.stderr


def test_a_module_beside_the_script_is_found(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "beside.py").write_text("def twice(x):\n    return 2 * x\n")
    ended = run_script(tmp_path / "code", "import beside\nprint(Executor(q).submit(beside.twice, 21).result(30))")

    assert ended.stdout == "42\n", ended.stderr


def test_the_runners_own_folder_is_not_on_the_path(executor: Executor) -> None:
    def paths() -> list[str]:
        import sys

        return sys.path

    assert os.path.dirname(runner.__file__) not in executor.submit(paths).result(WAIT_S)


def test_a_large_result_comes_home_whole(executor: Executor) -> None:
    assert len(executor.submit(bytes, 20_000_000).result(WAIT_S)) == 20_000_000


def test_what_a_function_prints_is_its_tasks_output(executor: Executor) -> None:
    future = executor.submit(print, "hello")

    assert future.result(WAIT_S) is None
    assert future.task.stdout() == "hello\n"


def test_a_call_is_an_ordinary_task(engine: Engine) -> None:
    with Executor(engine, batch="sums", priority=3, tags={"kind": "x"}, env={"WORD": "here"}) as pool:
        future = pool.submit(os.getenv, "WORD")
        assert future.result(WAIT_S) == "here"

    row = future.task.row()
    assert (row.name, row.batch, row.priority, row.state) == ("getenv", "sums", 3, TaskState.SUCCEEDED)
    assert row.spec.tags == {"kind": "x", "python": f"{sys.version_info.major}.{sys.version_info.minor}"}
    sound(engine)


def test_futures_work_with_those_who_wait_for_any_future(executor: Executor) -> None:
    calls_made = [executor.submit(abs, -n) for n in range(3)]

    assert {future.result() for future in futures.as_completed(calls_made, WAIT_S)} == {0, 1, 2}
    done, left = futures.wait(calls_made, WAIT_S)
    assert (len(done), len(left)) == (3, 0)


def test_a_future_tells_its_callbacks(executor: Executor) -> None:
    told: list[int] = []
    future = executor.submit(abs, -4)
    future.add_done_callback(lambda ended: told.append(ended.result()))
    future.result(WAIT_S)

    until(lambda: told == [4], "the callback")


# --- exceptions ---------------------------------------------------------------------------------------------------------


def raise_it(text: str) -> None:
    raise ValueError(text)


def test_an_exception_comes_back_with_its_remote_traceback(executor: Executor) -> None:
    future = executor.submit(lambda: raise_it("ünlucky"))

    with pytest.raises(ValueError, match=r"^ünlucky$") as caught:
        future.result(WAIT_S)
    assert isinstance(caught.value.__cause__, RemoteTraceback)
    told = "".join(traceback.format_exception(caught.value))
    assert "in raise_it" in told and "runner.py" not in caught.value.__cause__.text
    assert future.task.status == "failed"
    assert future.task.tail()[-1] == "ValueError: ünlucky"


def test_an_exception_that_cannot_travel_is_told_by_its_text(executor: Executor) -> None:
    class Stuck(Exception):
        def __reduce__(self) -> Any:
            raise TypeError("never")

    def stuck() -> None:
        raise Stuck("fast")

    with pytest.raises(TaskFailed, match=r"'stuck' raised: .*Stuck: fast") as caught:
        executor.submit(stuck).result(WAIT_S)
    assert "in stuck" in str(caught.value.__cause__)


def test_an_exception_that_cannot_be_unpacked_is_told(executor: Executor) -> None:
    class Picky(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} {two}")

    def picky() -> None:
        raise Picky(1, 2)

    with pytest.raises(TaskFailed, match="the exception cannot be unpacked here: TypeError"):
        executor.submit(picky).result(WAIT_S)


def test_a_result_that_cannot_travel_is_an_exception(executor: Executor) -> None:
    with pytest.raises(TypeError, match=r"pickle|cannot"):
        executor.submit(lambda: (n for n in (1, 2))).result(WAIT_S)


def test_a_result_that_cannot_be_unpacked_is_an_exception(executor: Executor) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return (int, ("not a number",))

    with pytest.raises(ValueError, match="not a number"):
        executor.submit(Bomb).result(WAIT_S)
    assert executor.submit(abs, -1).result(WAIT_S) == 1


def test_an_argument_that_cannot_travel_queues_nothing(engine: Engine, executor: Executor) -> None:
    with pytest.raises(TypeError):
        executor.submit(print, threading.Lock())
    assert engine.counts() == {}
    assert files_of_calls(engine) == []


def test_leaving_by_sys_exit_is_an_exception(executor: Executor) -> None:
    with pytest.raises(SystemExit):
        executor.submit(sys.exit, 0).result(WAIT_S)


def test_a_process_that_dies_says_how(executor: Executor) -> None:
    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(TaskFailed, match=r"'die' failed \(signal 9\)"):
        executor.submit(die).result(WAIT_S)


def test_nothing_that_a_function_writes_passes_for_an_exception(executor: Executor) -> None:
    """What is unpickled must come from the runner: text on standard error may be anybody's."""
    import base64

    def fake() -> None:
        packed = pickle.dumps((KeyError("forged"), ""))
        line = f"{runner.EXCEPTION} {'0' * 64} {base64.b64encode(packed).decode()}"
        os.write(2, f"{line}\n".encode())
        os._exit(1)

    with pytest.raises(TaskFailed, match="exit 1"):
        executor.submit(fake).result(WAIT_S)


def test_a_failed_call_is_tried_again(engine: Engine, tmp_path: Path) -> None:
    def second_time_lucky(mark: Path) -> str:
        if mark.exists():
            return "lucky"
        mark.touch()
        raise OSError("the first time")

    future = Executor(engine, retry=1, retry_delay=0.0).submit(second_time_lucky, tmp_path / "mark")
    assert future.result(WAIT_S) == "lucky"
    assert len(future.task.executions) == 2


def test_a_failed_call_can_be_relaunched_and_attached(executor: Executor, tmp_path: Path) -> None:
    def read(path: Path) -> str:
        return path.read_text()

    future = executor.submit(read, tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        future.result(WAIT_S)
    (tmp_path / "text").write_text("now")
    future.task.relaunch()

    assert executor.attach(future.task).result(WAIT_S) == "now"


def test_a_call_that_needs_a_failed_task_says_so(engine: Engine) -> None:
    failed = engine.submit("false")
    with pytest.raises(TaskBlocked):
        Executor(engine, requires=failed).submit(abs, 1).result(WAIT_S)


# --- cancelling ---------------------------------------------------------------------------------------------------------


def test_a_call_that_no_worker_has_is_cancelled(engine: Engine, executor: Executor) -> None:
    hold_back(engine)
    future = executor.submit(abs, 1)

    assert future.cancel() and future.cancelled() and future.cancel()
    assert future.task.status == "cancelled"
    with pytest.raises(futures.CancelledError):
        future.result(WAIT_S)
    done, _ = futures.wait([future], WAIT_S)
    assert done == {future}
    assert files_of_calls(engine) == []


def test_a_running_call_is_cancelled_only_on_request(executor: Executor) -> None:
    future = executor.submit(time.sleep, 600)
    until(lambda: future.task.status == "running", "the start")

    assert future.running()
    assert not future.cancel()
    assert future.cancel(running=True)
    with pytest.raises(futures.CancelledError):
        future.result(WAIT_S)


def test_a_call_cancelled_by_somebody_else_is_cancelled(engine: Engine, executor: Executor) -> None:
    hold_back(engine)
    future = executor.submit(abs, 1)
    future.task.cancel()

    with pytest.raises(futures.CancelledError):
        future.result(WAIT_S)


def test_an_ended_call_is_not_cancelled(executor: Executor) -> None:
    future = executor.submit(abs, 1)
    future.result(WAIT_S)
    assert not future.cancel()


def test_shutdown_cancels_what_no_worker_has(engine: Engine, executor: Executor) -> None:
    hold_back(engine)
    queued = [executor.submit(abs, n) for n in range(5)]
    executor.shutdown(cancel_futures=True)

    assert all(future.cancelled() for future in queued)
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(abs, 1)
    sound(engine)


def test_a_cancelled_call_says_so_when_the_collecting_thread_was_first(
    engine: Engine, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_back(engine)
    withdraw = CallFuture._withdraw

    def slowly(future: CallFuture[Any]) -> None:
        time.sleep(0.3 if threading.current_thread().name == "scitq-executor" else 0.05)
        withdraw(future)

    monkeypatch.setattr(CallFuture, "_withdraw", slowly)
    queued = [executor.submit(abs, n) for n in range(4)]
    executor.shutdown(cancel_futures=True)

    assert all(future.cancelled() for future in queued)


def test_leaving_the_with_block_waits(engine: Engine) -> None:
    with Executor(engine) as pool:
        future = pool.submit(abs, -1)
    assert future.done()


def test_futures_left_open_when_the_engine_closes_say_so(
    engine: Engine, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scitq.executor.SLOW_LOOK_S", 0.02)
    hold_back(engine)
    future = executor.submit(abs, 1)
    engine.close()

    with pytest.raises(Closed):
        future.result(WAIT_S)


def test_a_call_waits_for_its_own_python_and_why_says_so(engine: Engine, executor: Executor) -> None:
    """The worker is taken for one of another machine, whose Python is another, then the same."""
    engine.submit("true").wait(WAIT_S)

    def has_python(version: str) -> None:
        facts = "json_set(facts, '$.python', ?)"
        engine._write(lambda db: db.execute(f"update worker set kind = 'ssh', facts = {facts}", (version,)))

    has_python("3.9.1")
    future = executor.submit(abs, -1)
    until(lambda: "no worker has" in future.task.why(), "the explanation")
    said = future.task.why()
    assert f"no worker has Python {calls.PYTHON}: local has" in said and "Python 3.9" in said and "add a worker" in said
    assert future.task.status == "pending"

    has_python(f"{calls.PYTHON}.99")
    assert future.result(WAIT_S) == 1


# --- map ----------------------------------------------------------------------------------------------------------------


def test_map_gives_results_in_order_from_few_tasks(engine: Engine, executor: Executor) -> None:
    assert list(executor.map(pow, range(1000), [2] * 1000, timeout=WAIT_S)) == [n**2 for n in range(1000)]
    assert sum(engine.counts().values()) <= 4096
    assert {row.name for row in engine.rows(limit=1)} == {"pow 0-15"} or len(os.sched_getaffinity(0)) != 2


def test_map_with_chunks_of_ones_choice(engine: Engine, executor: Executor) -> None:
    assert list(executor.map(abs, iter(range(-5, 0)), chunksize=2, timeout=WAIT_S)) == [5, 4, 3, 2, 1]
    assert [row.name for row in engine.rows()] == ["abs 0-1", "abs 2-3", "abs 4"]


def test_map_of_nothing_is_nothing(executor: Executor) -> None:
    assert list(executor.map(abs, [])) == []


@pytest.mark.parametrize("size", [0, -1, 1.5, True])
def test_map_refuses_senseless_chunks(executor: Executor, size: Any) -> None:
    with pytest.raises(BadInput, match="chunksize"):
        executor.map(abs, [1], chunksize=size)


def test_map_raises_at_the_item_that_raised(executor: Executor) -> None:
    found = executor.map(lambda n: 6 // n, [3, 0, 2], chunksize=1)

    assert next(found) == 2
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_map_that_is_left_early_cancels_the_rest(engine: Engine, executor: Executor) -> None:
    hold_back(engine)
    found = executor.map(abs, range(5), chunksize=1, timeout=0.01)

    with pytest.raises(TimeoutError):
        next(found)
    assert engine.counts() == {TaskState.CANCELLED: 5, TaskState.SUCCEEDED: 1}


# --- files --------------------------------------------------------------------------------------------------------------


def test_files_of_calls_are_private_and_shared_and_then_gone(engine: Engine, executor: Executor) -> None:
    hold_back(engine)
    open_ones = [executor.submit(raise_if, n) for n in range(3)]

    files = files_of_calls(engine)
    assert len(files) == 4  # the function once
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert stat.S_IMODE(files[0].parent.stat().st_mode) == 0o700
    engine.update_worker(LOCAL, concurrency=2)
    futures.wait(open_ones, WAIT_S)
    assert len(files_of_calls(engine)) == 2  # the one that failed may be relaunched
    assert calls.sweep(engine) == 0


def raise_if(value: int) -> None:
    if value == 1:
        raise ValueError(value)


def test_sweep_deletes_what_processes_that_ended_left(
    engine: Engine, executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "YOUNG_S", -1.0)
    failed = executor.submit(raise_if, 1)
    failed.exception(WAIT_S)
    stray = engine.side / "calls" / ("0" * 64)
    stray.write_bytes(b"")

    assert calls.sweep(engine) == 1
    assert len(files_of_calls(engine)) == 2
    failed.task.relaunch()
    assert isinstance(executor.attach(failed.task.id).exception(WAIT_S), ValueError)


def test_a_damaged_file_is_noticed(engine: Engine, executor: Executor) -> None:
    hold_back(engine)
    future = executor.submit(abs, 1)
    for file in files_of_calls(engine):
        file.write_bytes(b"garbage")
    engine.update_worker(LOCAL, concurrency=1)

    with pytest.raises(TaskFailed, match="the file of this call is damaged"):
        future.result(WAIT_S)


def test_relaunching_a_call_whose_result_was_taken_says_so(executor: Executor) -> None:
    future = executor.submit(abs, 1)
    future.result(WAIT_S)
    future.task.relaunch()

    with pytest.raises(TaskFailed, match="was deleted, as its result was taken"):
        executor.attach(future.task).result(WAIT_S)


def test_another_python_is_refused_before_anything_is_unpacked(tmp_path: Path) -> None:
    command = [sys.executable, runner.__file__, "2.7", str(tmp_path / "no"), str(tmp_path / "no")]
    ended = subprocess.run(command, capture_output=True, text=True, env={"OUTPUT": str(tmp_path)})

    assert ended.returncode == runner.CANNOT_CALL
    assert "packed by Python 2.7" in ended.stderr and "Traceback" not in ended.stderr


def test_results_outlive_the_process_that_asked_for_them(tmp_path: Path, open_engine: Opener) -> None:
    ended = run_script(
        tmp_path, "import os\nprint(Executor(q).submit(lambda: 'kept').task.id, flush=True)\nos._exit(0)"
    )

    assert ended.stdout, ended.stderr
    engine = open_engine(tmp_path / "lab.scitq")
    assert Executor(engine).attach(int(ended.stdout)).result(WAIT_S) == "kept"


# --- arguments ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"command": "x"}, {"shell": True}, {"retry": -1}, {"nonsense": 1}, {"name": ""}])
def test_wrong_options_show_when_the_executor_is_made(engine: Engine, options: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        Executor(engine, **options)


def test_only_what_can_be_called_is_called(executor: Executor) -> None:
    with pytest.raises(BadInput, match="not int"):
        executor.submit(5)  # type: ignore[arg-type]


def test_only_calls_are_attached(engine: Engine, executor: Executor) -> None:
    with pytest.raises(BadInput, match="no call of a Python function"):
        executor.attach(engine.submit("true"))


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """A person's script in that folder; its local worker is stopped afterwards."""
    head = "import scitq\nfrom scitq.executor import Executor\nq = scitq.open('lab.scitq')\n"
    (folder / "script.py").write_text(head + textwrap.dedent(text))
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    try:
        return subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, env=environ)
    finally:
        if "os._exit" not in text and (folder / "lab.scitq.d" / "local").is_dir():
            local.stop(folder / "lab.scitq.d" / "local")
