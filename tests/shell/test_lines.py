"""What was typed becomes statements."""

from __future__ import annotations

import itertools

import pytest

from scitq.errors import BadInput
from scitq.shell.interactive.lines import Does, complete, missing, statements


def words(text: str) -> list[tuple[str, ...]]:
    return [one.words for one in statements(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("task list", [("task", "list")]),
        ("  a   b ; c ", [("a", "b"), ("c",)]),
        ("a\nb # c; d\n#e\nf", [("a", "b")[:1], ("b",), ("f",)]),
        ("a 'b c'\"d e\"f\\ g", [("a", "b cd ef g")]),
        ("a ''", [("a", "")]),
        (r"""a "b\"c\d" 'e"f' """, [("a", r'b"c\d', 'e"f')]),
        ("a \\\n b", [("a", "b")]),
        ("a x#y", [("a", "x#y")]),
        ("launch -i s3://x/y.gz|gunzip", [("launch", "-i", "s3://x/y.gz|gunzip")]),
        ("recruiter create -f auto:cpu>=8:ram>=32", [("recruiter", "create", "-f", "auto:cpu>=8:ram>=32")]),
        ("a $HOME *.gz", [("a", "$HOME", "*.gz")]),
        ("", []),
        (" ; ;\n", []),
    ],
)
def test_words_are_as_in_a_posix_shell(text: str, expected: list[tuple[str, ...]]) -> None:
    assert words(text) == expected


def test_a_tilde_is_ones_home_unless_it_is_quoted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")

    assert words("a ~/x ~ '~/x' ~bob x~/y") == [("a", "/home/ada/x", "/home/ada", "~/x", "~bob", "x~/y")]


def test_the_rest_of_a_line_after_a_bar_goes_to_sh_as_typed() -> None:
    [one, other] = statements("task list --limit 0|grep 'a;b' | wc -l > n; x\nstatus")

    assert one.words == ("task", "list", "--limit", "0") and one.pipe == "grep 'a;b' | wc -l > n; x"
    assert other.words == ("status",)
    assert statements("task list '|' x")[0].pipe is None


def test_files_are_named_after_one_or_two_angles() -> None:
    [one, other] = statements("task list > 'a b' ; status >> c")

    assert (one.words, one.target, one.appends) == (("task", "list"), "a b", False)
    assert (other.words, other.target, other.appends) == (("status",), "c", True)
    assert statements("status >")[0].target == ""


def test_a_query_is_the_rest_of_the_line_as_it_is() -> None:
    [one] = statements("sql --csv select 'a;b' || \"c\" from tasks where run_s > 5 and x < 3")
    assert one.words == ("sql", "--csv", "--", "select 'a;b' || \"c\" from tasks where run_s > 5 and x < 3")
    [one] = statements("sql select count(*) from tasks | grep -c '|'")
    assert one.text == "select count(*) from tasks" and one.pipe == "grep -c '|'"
    [one] = statements("sql select '| ' from tasks | cat")
    assert one.text == "select '| ' from tasks"
    assert statements("sql 'select 1'")[0].text == "select 1"
    assert [one.text for one in statements("sql select (\n1)\nstatus")] == ["select (\n1)", ""]
    assert words("sqlite x") == [("sqlite", "x")]
    assert words("sql --timeout 5 select 1") == [("sql", "--timeout", "5", "--", "select 1")]


def test_another_shell_and_python_have_their_lines() -> None:
    found = statements("!ls *.gz | wc; true\n> x = (1,\n2)\npy x\n> for i in x:\n    i\n\nstatus")

    assert [one.does for one in found] == [Does.SYSTEM, Does.PYTHON, Does.PYTHON, Does.PYTHON, Does.COMMAND]
    assert [one.text for one in found] == ["ls *.gz | wc; true", "x = (1,\n2)", "x", "for i in x:\n    i\n", ""]
    assert words("py") == [("py",)] and words("python") == [("python",)]


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("a 'b", "'"), ('a "b', '"'), ("a \\", "\\"), ("sql select count(", "("), ("sql select 'a", "'"), ("> f(", ":"),
        ("> for i in x:", ":"), ("> for i in x:\n    i", ":"), ("> for i in x:\n    i\n    ", ""), ("> 1 +* 2", ""),
        ("a ; b 'c", "'"), ("a (b", ""), ("!ls \\", "\\"), ("a 'b'", ""), ("sql select 1 \\", "\\"), ("> '''a", ":"),
    ],
)  # fmt: skip
def test_what_is_not_whole_goes_on_in_the_next_line(text: str, lacks: str) -> None:
    assert missing(text) == lacks


def test_a_text_that_ends_too_early_is_refused() -> None:
    with pytest.raises(BadInput, match="a closing '"):
        complete("status; task show 'a")
    assert [one.words for one in complete("status")] == [("status",)]


def test_every_statement_ends_where_the_next_begins_at_the_latest() -> None:
    pieces = ["task list", "!x", "> 1", "sql select 1", "a | b", "#c", "a 'b\nc'", "x > y", ""]
    for first in pieces:
        for second in pieces:
            found = statements(f"{first}\n{second}")
            assert [one.start for one in found] == sorted(one.start for one in found)
            assert all(one.end <= other.start for one, other in itertools.pairwise(found))
