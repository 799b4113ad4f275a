"""Commands from templates: an item never becomes code, nor more than one word."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq.errors import BadInput
from scitq.template import submissions

NASTY = [
    "a b",
    "$(touch pwned)",
    "`id`",
    "'",
    '"',
    "'; rm -rf x; '",
    "*",
    "-n",
    "\\",
    "a\nb",
    "#",
    "{}",
    "${HOME}",
    "é",
    "",
]


def commands(template: Any, items: list[Any], **options: Any) -> list[Any]:
    return [made["command"] for made in submissions(template, items, **options)]


def test_items_stand_in_words_as_they_are() -> None:
    assert commands(["wc", "-l", "{}"], NASTY) == [["wc", "-l", item] for item in NASTY]
    assert commands("wc -l 'in {}'", NASTY) == [["wc", "-l", f"in {item}"] for item in NASTY]


def test_parts_of_items_by_number_and_name() -> None:
    assert commands("cp {0} {1}.bak", [("a", "b"), ["c d", 5]]) == [["cp", "a", "b.bak"], ["cp", "c d", "5.bak"]]
    assert commands("x --in={path} {n}", [{"path": Path("a b"), "n": 1.5}]) == [["x", "--in=a b", "1.5"]]


def test_braces_that_are_no_places() -> None:
    template = ["awk", "{ print $1 }", "${HOME}", "{{}}", "{{x}}", "{}"]
    assert commands(template, ["f"]) == [["awk", "{ print $1 }", "${HOME}", "{}", "{x}", "f"]]


def test_names_are_templates_too() -> None:
    made = list(submissions("echo {a}", [{"a": 1}], name="echo {a}"))
    assert made == [{"command": ["echo", "1"], "shell": False, "name": "echo 1"}]


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize(
    "script",
    [
        "printf %s {}",
        "printf '%s' {}; # it's\n: \"x\"",
        'x=$(printf "%s." "a") # "\nprintf %s {}',
        "printf %s \"$(printf '')\"{}",
        ": ${HOME#x}; printf %s {}",
        "printf '%s' \\\n{}",
    ],
)
def test_items_in_scripts_reach_the_program_as_they_are(script: str, shell: str, tmp_path: Path) -> None:
    for item, command in zip(NASTY, commands(script, NASTY, shell=shell), strict=True):
        ended = subprocess.run([shell, "-c", command], capture_output=True, text=True, cwd=tmp_path)
        assert (ended.stdout, ended.stderr, ended.returncode) == (item, "", 0), command
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "script",
    [
        "echo '{}'",
        'echo "{}"',
        'echo "a $(echo {})"',
        "echo \\{}",
        "echo `echo {}`",
        "echo $'it\\'s' {}",
        "# {}",
        "true;# {}\n",
        "cat <<E\n{}\nE",
        "echo $(( {} + 1 ))",
        "echo ${x:-{}}",
        "# it's\necho '{}'",
    ],
)
def test_places_where_no_quoting_is_safe_are_refused(script: str) -> None:
    with pytest.raises(BadInput, match=r"pass a list instead|leave it bare"):
        commands(script, ["x"], shell=True)


@pytest.mark.parametrize(
    ("template", "item", "options", "message"),
    [
        ("echo", "x", {}, r"no \{\}"),
        ("echo", "x", {"shell": True}, r"no \{\}"),
        ("echo {name}", "x", {}, "has no parts"),
        ("echo {}", {"a": 1}, {}, "has only a"),
        ("echo {b}", {"a": 1}, {}, "has only a"),
        ("echo {2}", ("a", "b"), {}, r"\{0\} to \{1\}"),
        ("echo {}", "a\0b", {}, "NUL"),
        ("echo {}", None, {}, "text, a path or a number"),
        ("print({})", "x", {"shell": "python3"}, "not known"),
        ("", "x", {}, "empty"),
    ],
)
def test_what_cannot_be_filled_is_refused(template: str, item: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        commands(template, [item], **options)


@given(
    st.text(alphabet="a '\"\\#${}`()<;\n", max_size=12),
    st.text(alphabet="a '\"\\#${}`();\n", max_size=12),
)
@pytest.mark.promise("core 11.3")
def test_no_script_that_is_accepted_lets_an_item_out_of_its_word(before: str, after: str) -> None:
    """Whatever stands around it: the shell finds an item of any look where it finds a plain word, or the template is refused."""
    script = before + "{}" + after
    try:
        plain, nasty = commands(script, ["XX", "X; echo out >&2; #'\"X"], shell="sh")
    except BadInput:
        return
    # `-n` reads without running: what was a program that can be read must stay one.
    codes = [subprocess.run(["sh", "-n", "-c", text], capture_output=True).returncode for text in (plain, nasty)]
    assert codes[0] == codes[1], (plain, nasty)
