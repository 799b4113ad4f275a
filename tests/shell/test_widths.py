"""Lists on terminals of every width, without colours, in every locale, with names from everywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap

import pytest

from scitq.shell.table import COMMANDS
from scitq.workflow.cells import width
from tests.shell.here import Place, on_terminal

# All lists of the table, and what else is read as one.
LISTS = [f"scitq {row.path}" for row in COMMANDS if row.path.split()[-1] == "list"] + [
    "scitq task list --failed", "scitq task list -S failed,succeeded -b align", "scitq status", "scitq notices --all", "scitq top --once",
    "scitq task why 5 9", "scitq task stats", "scitq recruiter match align", "scitq workflow show qc", "scitq journal", "scitq config show",
    "scitq help", "scitq help exit-codes", "scitq sql 'select id, name, state from tasks'",
]  # fmt: skip
# What a row is known by, as far as it has that: never cut.
KNOWN_BY = ("id", "name", "workflow", "state", "status")
NAME = "ñ漢字 s01"
_STYLE = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture
def full(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    place.copy("full")
    assert place.run(f"scitq launch -n '{NAME}' -b '{NAME}' true").code == 0
    for name in ("COLUMNS", "LINES", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("SCITQ_CONFIG", "config.toml")
    return place


def test_lists_fit_the_terminal_and_names_and_states_are_whole(full: Place) -> None:
    for line in LISTS:
        answer = json.loads(full.run(f"{line} --json").out)
        rows = answer if isinstance(answer, list) and "task list -S" not in line else []
        for columns in (60, 80, 120):
            text = _STYLE.sub("", on_terminal(line, columns))

            assert text and [one for one in text.split("\n") if width(one) > columns] == [], (line, columns, text)
            if "notices" in line or "journal" in line or "why" in line:
                continue
            keys = KNOWN_BY if re.match(" *id ", text) else KNOWN_BY[1:]
            words = {str(row[key]) for row in rows for key in keys if row.get(key) is not None}
            assert [word for word in words if word not in text] == [], (line, columns, text)


@pytest.mark.parametrize("variable", ["NO_COLOR=1", "TERM=dumb"])
def test_no_list_has_escape_sequences_where_none_are_wanted(
    variable: str, full: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert any("\x1b[" in on_terminal(line, 80) for line in LISTS[:3])
    monkeypatch.setenv(*variable.split("="))
    for line in LISTS:
        assert "\x1b" not in on_terminal(line, 80), line
    assert "\x1b" not in on_terminal("scitq task show 99", 80), "errors neither"


RUN_ALL = """
    import sys
    from scitq.shell import cli
    for line in sys.argv[1:]:
        import shlex
        code = cli.run(cli.program(), shlex.split(line)[1:], "scitq")
        assert code == 0, (line, code)
"""


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_lists_are_readable_in_every_locale(locale: str, full: Place) -> None:
    environ = {**full.lab.environ, "LC_ALL": locale}

    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RUN_ALL), *LISTS, *(f"{line} --json" for line in LISTS)],
        cwd=full.lab.folder, env=environ, capture_output=True, timeout=120,
    )  # fmt: skip

    assert ended.returncode == 0, ended.stderr.decode()
    out, err = ended.stdout.decode(), ended.stderr.decode()  # each is UTF-8 to the last byte
    assert out.count(NAME) == 10 and "\ufffd" not in out + err and "\udcc3" not in out + err and "Ã" not in out + err
