"""The grammar of addresses."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scitq.errors import BadInput, ScitqError
from scitq.fetch.errors import BadURI, EscapesFolder, FetchError, Unsupported
from scitq.fetch.uri import ACTIONS, OPTIONS, URLS, Action, Address, of_path, parse, refuse_runs

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: name not in (".", "..")
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
REMOTES = (
    st.text("Ab3_.+-", min_size=1, max_size=8)
    .map(lambda name: f"x{name}")
    .filter(lambda name: name.lower() not in (*URLS, "file", "run+fastq", "run+submitted"))
)
MOVES = PATHS.filter(lambda path: not path.startswith("/")).map(lambda path: Action("mv", path))
DONE = st.lists(st.sampled_from([Action(name) for name in ACTIONS if name != "mv"]) | MOVES, max_size=3).map(tuple)


@settings(deadline=None)
@given(REMOTES, PATHS, st.booleans(), DONE)
def test_a_storage_address_survives_printing_and_parsing(
    remote: str, path: str, folder: bool, actions: tuple[Action, ...]
) -> None:
    address = Address(remote, (), path + "/" * folder, actions)

    assert parse(str(address)) == address


@settings(deadline=None)
@given(st.booleans(), PATHS, DONE)
def test_a_plain_path_survives_printing_and_parsing(absolute: bool, path: str, actions: tuple[Action, ...]) -> None:
    address = of_path("/" * absolute + path).bare.with_action(
        *(f"{a.name}:{a.argument}".rstrip(":") for a in actions if a.name != "mv")
    )

    assert parse(str(address)) == address
    assert parse(str(address.bare)).path == of_path("/" * absolute + path).path


@settings(deadline=None)
@given(st.text(max_size=40))
def test_any_text_is_an_address_or_a_clear_error(text: str) -> None:
    try:
        address = parse(text)
    except FetchError as error:
        assert isinstance(error, (BadInput, EscapesFolder))
        assert error.phase == "parse" and str(error)
        return
    assert parse(str(address)) == address


@pytest.mark.parametrize("name", ["my-S3", "Team_2", "a.b", "OVH", "x+y", "3"])
def test_a_remote_name_may_have_capitals_dashes_dots_and_underscores(name: str) -> None:
    address = parse(f"{name}://bucket/key")

    assert (address.remote, address.path) == (name, "bucket/key")


def test_actions_run_from_left_to_right_and_options_add_up() -> None:
    address = parse("https@aria2@aria2://host/a.tar.gz|untar|mv:ref/one")

    assert address.options == ("aria2",)
    assert [str(action) for action in address.actions] == ["untar", "mv:ref/one"]
    assert str(address) == "https@aria2://host/a.tar.gz|untar|mv:ref/one"


def test_two_bars_are_one_bar_of_the_name() -> None:
    address = parse("s3://b/odd|||gunzip|mv:x||y")

    assert (address.path, [a.name for a in address.actions], address.actions[1].argument) == (
        "b/odd|",
        ["gunzip", "mv"],
        "x|y",
    )


@pytest.mark.parametrize(
    "text, fault",
    [
        ("", "empty"),
        ("s3://b/k|frobnicate", "no action 'frobnicate'"),
        ("s3://b/k|gunzip:x", "no action"),
        ("s3://b/k|", "no action"),
        ("s3://b/k|mv:", "needs the name"),
        ("s3@aria2://b/k", "no option 'aria2'"),
        ("https@fast://h/k", "it knows aria2"),
        ("s p://b/k", "no protocol"),
        ("://b/k", "no protocol"),
        ("s3:bucket/key", "s3://bucket/key"),
        ("http:/host/x", "http://host/x"),
        ("http://", "no host name"),
        ("http://host/a\nb", "control character"),
        ("ftp://h/a\r\nDELE x", "control character"),
        ("a\0b", "zero byte"),
        ("run+fastq://SRR1;touch x", "no accession"),
        ("run+fastq@aria2://SRR1", "no option"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_reason(text: str, fault: str) -> None:
    with pytest.raises(BadURI) as raised:
        parse(text)

    assert fault in str(raised.value)
    assert isinstance(raised.value, ScitqError)


@pytest.mark.promise("data 11.5")
@pytest.mark.parametrize(
    "text",
    ["s3://b/../c", "http://h/a/../b", "http://h/a/%2e%2e/b", "ftp://h/../x", "s3://b/k|mv:../x", "s3://b/k|mv:/x", "x|mv:a/../../b"]
)  # fmt: skip
def test_an_address_that_leads_out_is_refused(text: str) -> None:
    with pytest.raises(EscapesFolder):
        parse(text)


def test_public_archives_parse_and_say_when_they_come() -> None:
    address = parse("run+fastq@sra@filter_r1://SRR000001")

    assert address.options == ("sra", "filter_r1")
    with pytest.raises(Unsupported, match="stage 10"):
        refuse_runs(address, "get")


def test_every_option_is_accepted_where_it_is_known() -> None:
    for proto, options in OPTIONS.items():
        for option in options:
            assert parse(f"{proto}@{option}://{'SRR1' if '+' in proto else 'host/x'}").options == (option,)


def test_a_path_object_is_taken_literally() -> None:
    address = parse(Path("a|gunzip"))

    assert (address.path, address.actions, str(address)) == ("a|gunzip", (), "a||gunzip")


@pytest.mark.parametrize(
    "text, normal",
    [
        ("s3://b//k/./x", "s3://b/k/x"),
        ("s3://", "s3://"),
        ("./s3:x", "./s3:x"),
        (".//a//b/", "a/b/"),
        ("/", "/"),
        (".", "."),
        ("../data", "../data"),
        ("file:///a//b", "file:///a/b"),
        ("HTTPS://h/a", "https://h/a"),
        ("S3://b", "S3://b"),
        ("sftp:///abs/x", "sftp:///abs/x"),
    ],
)
def test_an_address_has_one_way_of_writing(text: str, normal: str) -> None:
    assert str(parse(text)) == normal
    assert str(parse(normal)) == normal


@pytest.mark.parametrize(
    "text, name, suffix, parent",
    [
        ("s3://b/d/a.fastq.gz", "a.fastq.gz", ".gz", "s3://b/d"),
        ("s3://b", "b", "", "s3://"),
        ("https://h/d/a%20b.txt?x=1/2", "a b.txt", ".txt", "https://h/d"),
        ("https://h/a%2Fb", "a%2Fb", "", "https://h"),
        ("https://h", "", "", "https://h"),
        ("ftp://u:p@h/d/é?.gz", "é?.gz", ".gz", "ftp://u:p@h/d"),
        ("a", "a", "", "."),
        ("/a", "a", "", "/"),
        ("d/a.txt|gunzip", "a.txt", ".txt", "d"),
    ],
)
def test_an_address_has_a_name_a_suffix_and_a_parent(text: str, name: str, suffix: str, parent: str) -> None:
    address = parse(text)

    assert (address.name, address.suffix, str(address.parent)) == (name, suffix, parent)


def test_what_is_joined_is_literal_and_stays_below() -> None:
    assert str(parse("s3://b").join("d/a|b", "c")) == "s3://b/d/a||b/c"
    assert str(parse("https://h/d?q=1").join("a b%.txt")) == "https://h/d/a%20b%25.txt"
    assert parse("https://h/d").join("a b%.txt").name == "a b%.txt"
    with pytest.raises(EscapesFolder):
        parse("s3://b").join("../c")
    with pytest.raises(BadURI):
        parse("s3://b").join("http://x")


def test_passwords_and_signatures_are_not_shown() -> None:
    address = parse("https://me:geheim@h/x?X-Amz-Signature=abc&y=1&access_token=t")

    assert address.shown == "https://me:***@h/x?X-Amz-Signature=***&y=1&access_token=***"
    for text in (
        "https://me:geheim@h/x|nonsense",
        "ftp@fast://me:geheim@h/x",
        "https://me:geheim@h/../x",
        "http:/me:geheim@h/x",
    ):
        with pytest.raises(FetchError) as raised:
            parse(text)
        assert "geheim" not in str(raised.value) + raised.value.uri
