"""Every command of the table has examples in its help; each is run here, for real, as it stands there, and again with --json."""

from __future__ import annotations

import json
import shlex

import pytest

from scitq.shell.schemas import DIALECT, SCHEMAS, document
from scitq.shell.table import COMMANDS, FETCH, Command
from tests.shell.conftest import ROOT
from tests.shell.here import Place
from tests.shell.schemas import conforms, of_kind, values

# Examples that are run elsewhere: in which test, with these very words. What takes a host is in tests/hosts/test_examples.py.
ELSEWHERE = {
    "demo": "tests/shell/test_demo.py",
    "config edit": "tests/shell/test_settings.py",
    "web": "tests/shell/web/conftest.py",
    "debug": "tests/workflow/test_debug.py",
    "promote": "tests/hosts/test_promote.py",
    "demote": "tests/hosts/test_promote.py",
}
HOSTS = "tests/hosts/test_examples.py"
ON_HOSTS = {"worker add", "worker trust", "worker shell", "worker delete"}
# A program or script that is run there writes to stderr as it likes.
OF_PROGRAMS = {"task enter", "task debug", "run", "workflow run"}
ROWS = [row for row in (*COMMANDS, *FETCH) if row.path != "host-side"]
HERE = [row for row in ROWS if row.path not in ELSEWHERE and row.path not in ON_HOSTS]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.path)
def test_every_command_has_an_example_that_its_help_shows(row: Command) -> None:
    assert row.examples
    assert row.schema is not None or row.terminal
    assert all(shlex.split(line)[: 1 + len(row.path.split())] == ["scitq", *row.path.split()] for line in row.examples)
    if (where := HOSTS if row.path in ON_HOSTS else ELSEWHERE.get(row.path)) is not None:
        words = (f'"{row.path}"', ", ".join(f'"{word}"' for word in row.path.split()))
        assert any(one in (ROOT / where).read_text(encoding="utf-8") for one in words), f"{where} does not run it"


@pytest.mark.parametrize("row", HERE, ids=lambda row: row.path)
def test_examples_work_as_they_stand_and_answer_with_json_as_their_schema_says(row: Command, place: Place) -> None:
    for line in row.examples:
        plain = place.fresh(row).run(line)

        assert plain.code == 0, (line, plain)
        assert plain.out or plain.err or row.path.startswith("fetch "), f"{line}: says nothing at all"
        assert "Traceback" not in plain.err and "\x1b" not in plain.out + plain.err

        if row.schema is None:
            continue  # it has a terminal for itself
        found = place.fresh(row).run(line, "--json")

        assert found.code == 0, (line, found)
        for value in values(found.out):
            conforms(row.path, value)
        for note in found.err.splitlines() if row.path not in OF_PROGRAMS else ():
            of_kind("message", json.loads(note))


def test_schemas_stand_alone_and_each_is_of_some_command() -> None:
    for name in SCHEMAS:
        schema = document(name)
        assert schema["$schema"] == DIALECT and schema["title"]
        json.dumps(schema)
    assert {row.schema for row in ROWS} - {None} == set(SCHEMAS) - {"message"}
