"""%scitq, %%scitq, %%task, %scitq_file, in the kernel of a notebook."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.remote import local
from tests.notebook.kernel import Notebook, notebook, until

pytestmark = [pytest.mark.servers, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebook is."""
    return tmp_path_factory.mktemp("magics")


@pytest.fixture(scope="module")
def nb(folder: Path) -> Iterator[Notebook]:
    """A notebook in which the extension is loaded, and lab.scitq is open as q; a task has succeeded there, and one failed."""
    with notebook(folder) as found:
        found.do("%load_ext scitq\nimport scitq\nq = scitq.open('lab.scitq')")
        found.do("q.submit('true', name='made', batch='my batch')\nq.submit('false', name='broken')\nq.wait_all()")
        yield found
        found.run("q.cancel_all()\nq.close()")
    for side in folder.glob("*.scitq.d"):
        local.stop(side / "local")


def test_a_cell_is_a_task_of_bash_and_returns_at_once(nb: Notebook) -> None:
    cell = nb.run('%%task count --batch "my batch"\n[[ -n $BASH ]] && echo "a{b}$HOME"').good

    assert "count" in cell.html and re.match("<Task [0-9]+ 'count' ", cell.text)
    assert (
        nb.run("print(_.result().stdout, q.task('count').row().batch)")
        .stream("stdout")
        .endswith(f"{os.environ['HOME']}\n my batch\n")
    )


def test_a_cell_that_is_waited_for_streams_and_fails_as_it_does(nb: Notebook) -> None:
    good = nb.run("%%task --wait\necho 'one\x1b[2J'; echo two >&2").good
    bad = nb.run("%%task bad --wait\necho out; echo broken >&2; exit 3")

    assert good.stream("stdout") == "one\\x1b[2J\n" and good.stream("stderr") == "two\n"
    assert bad.stream("stderr") == "broken\n" and bad.error.ename == "CommandFailed"
    assert "failed (exit 3)" in bad.error.evalue and not any("File" in line for line in bad.error.traceback)


def test_variables_of_the_notebook_reach_a_task_whole_and_unpasted(nb: Notebook, folder: Path) -> None:
    (folder / "a b.txt").write_text("A")
    (folder / "$(touch owned)").write_text("B")
    nb.run(
        "from pathlib import Path\nSAMPLE = \"it's; touch owned\"\nN = 3\nfiles = [Path('a b.txt'), Path('$(touch owned)')]\nNONE = None"
    )
    cell = nb.run(
        '%%task -e SAMPLE -e N -e HOME -e X={N} --input {files} --wait\necho "$SAMPLE|$N|$HOME|$X"; cat "$INPUT"/*'
    ).good

    assert cell.stream("stdout") == f"it's; touch owned|3|{os.environ['HOME']}|{{N}}\nBA" or cell.stream(
        "stdout"
    ).endswith("AB")
    assert not (folder / "owned").exists()
    assert "NoneType" in nb.run("%%task -e NONE\ntrue").error.evalue
    assert "{nothing}" in nb.run("%%task --input {nothing}\ntrue").error.evalue
    nb.do("made = q.submit('echo left > $OUTPUT/f', shell=True)\nmade.result()")
    assert nb.run("%%task --input {made} --wait\ncat $INPUT/f").good.stream("stdout") == "left\n"


def test_mistakes_in_the_options_are_one_red_sentence(nb: Notebook) -> None:
    for source, part in (
        ("%%task --nonsense\ntrue", "No such option"), ("%%task a b\ntrue", "unexpected extra argument"), ("%%task\n\n", "empty"),
        ("%%task 'open\ntrue", "quotation"), ("%%task a --name b\ntrue", "two names"), ("%scitq task show 999", "no task 999"),
        ("%scitq nonsense", "there is no command 'nonsense'"), ("%scitq task enter 1", "needs a terminal"),
    ):  # fmt: skip
        error = nb.run(source).error
        assert error.ename == "CommandFailed" and part in error.evalue, source
        assert error.traceback[0].startswith("\x1b[31m") and len(error.traceback) <= 3, source
    assert "--container" in nb.run("%%task --help\n.").good.stream("stdout")


def test_any_command_shows_its_table_or_text(nb: Notebook) -> None:
    listed = nb.run("%scitq task list").good
    told = nb.run("%scitq status").good

    assert "<table" in listed.html and "made" in listed.html and "made" in listed.text and "<" not in listed.text
    assert told.stream("stdout").startswith("lab.scitq · driver: ")
    assert "first" in nb.run("%scitq launch -t --name first -- echo {x}").good.stream("stdout")


def test_with_json_the_line_has_a_value(nb: Notebook) -> None:
    cell = nb.run("failed = %scitq --json task list --failed\nprint([one['name'] for one in failed])").good

    assert "'broken'" in cell.stream("stdout") and "made" not in cell.stream("stdout") and not cell.html


def test_the_lines_of_a_cell_are_run_in_order_until_one_fails(nb: Notebook) -> None:
    cell = nb.run("%%scitq\n# a comment\nbatch set qc \\\n  --retry 2\n\nbatch list\ntask show 999\nbatch pause qc")

    assert "qc" in cell.html and "no task 999" in cell.error.evalue
    assert nb.run("%scitq --json batch list").good.text.count("'go'") >= 2, "the last line was not run"


def test_a_question_without_anybody_to_answer_is_no(nb: Notebook) -> None:
    nb.do("q.submit('true', name='gone').result()")
    cell = nb.run("%scitq task delete --where \"name = 'gone'\"")

    assert "--yes" in cell.error.evalue
    assert (
        nb.run("%scitq task delete gone --yes\nprint(q.tasks(name='gone'))")
        .good.stream("stdout")
        .endswith("<0 tasks of lab.scitq>\n")
    )


def test_an_interrupt_leaves_a_task_and_says_so(nb: Notebook, folder: Path) -> None:
    with Engine(folder / "lab.scitq", drive=False) as beside:
        for name, source in (
            ("long", "%%task long --wait\necho begun; sleep 1000"), ("longer", "%scitq run -n longer --shell 'echo begun; sleep 1000'"),
        ):  # fmt: skip
            thread = nb.interrupt_when(lambda cell: cell.stream("stdout") == "begun\n")
            cell = nb.run(source)
            thread.join()
            told = cell.error.evalue if cell.error else cell.text
            assert f"'{name}' goes on" in told, source
            assert beside.task(name).status == "running"
            beside.task(name).cancel()


def test_the_newest_engine_of_the_notebook_is_meant_unless_a_file_is_named(nb: Notebook, folder: Path) -> None:
    nb.do("other = scitq.open('other.scitq')\nother.submit('true', name='elsewhere')")

    assert "elsewhere" in nb.run("%scitq task list").good.html
    assert nb.run("%scitq_file lab.scitq").good.stream("stdout") == f"{folder / 'lab.scitq'}\n"
    assert "elsewhere" not in nb.run("%scitq task list").good.html
    nb.do("%scitq -f other.scitq")
    assert "elsewhere" in nb.run("%scitq task list").good.html
    nb.do("other.close()\ndel other\n%scitq_file lab.scitq")
    assert nb.run("%scitq -f other.scitq task list").good.html.count("elsewhere") == 1
    assert nb.run("%scitq_file").good.stream("stdout") == f"{folder / 'lab.scitq'}\n"


def test_words_are_completed(nb: Notebook) -> None:
    cell = nb.run(
        "ip = get_ipython()\n"
        "for line in ('%scitq sta', '%scitq task li', '%scitq task list --bat', '%scitq batch pause my', '%%task --contai'):\n"
        "    print(ip.complete(line.split()[-1], line, len(line))[1])"
    ).good

    lines = cell.stream("stdout").splitlines()
    assert ["'status'" in lines[0], "'list'" in lines[1], "'--batch'" in lines[2], "--container'" in lines[4]] == [
        True
    ] * 4
    assert "my" in lines[3]


def test_loading_twice_and_autoreload_do_no_harm(nb: Notebook) -> None:
    for _ in range(2):
        nb.do("%load_ext scitq\n%reload_ext scitq\n%load_ext autoreload\n%autoreload 2")
    assert "lab.scitq" in nb.run("%scitq status").good.stream("stdout")
    nb.do("%unload_ext scitq")
    assert "not found" in nb.run("%scitq status").stream("stderr") + str(nb.run("%scitq status").error)
    nb.do("%load_ext scitq")


def test_a_closed_engine_leaves_no_thread(nb: Notebook) -> None:
    nb.do("import threading\nthird = scitq.open('third.scitq')\nthird.submit('true').result()\nlive = third.watch()")
    names = "print(sorted(t.name for t in threading.enumerate() if t.name.startswith('scitq')))"
    nb.do("third.close()\nq.close()")

    assert until(lambda: nb.run(names).stream("stdout") == "[]\n", 30), nb.run(names).stream("stdout")
    nb.do("q = scitq.open('lab.scitq')")


def test_without_any_engine_the_file_is_found_as_open_finds_it(tmp_path: Path) -> None:
    with notebook(tmp_path) as nb:
        nb.do("%load_ext scitq")
        assert "there is no state file" in nb.run("%scitq status").error.evalue
        assert nb.run("%%task first --wait\necho here").good.stream("stdout") == "here\n"
        assert "first" in nb.run("%scitq task list").good.html
    assert (tmp_path / "scitq.scitq").exists()
    local.stop(tmp_path / "scitq.scitq.d/local")
