"""What a key is made of, and what is said of two that differ."""

from __future__ import annotations

from typing import Any

import pytest

from scitq.digest import File, Parts, Source, bits_of, differences, file_differences, fingerprint, parts_of, with_data
from scitq.task import Spec

ONE, TWO = Source("s3://lab/one", "", "d1"), Source("s3://lab/two", "gunzip", "d2")
SPEC = Spec("sort  -u 'a b'", env={"A": "1", "B": "2"}, retry=1)


def key(spec: Spec = SPEC, **more: Any) -> str:
    """Of a task with two inputs and a resource."""
    return parts_of(spec, more.get("image"), more.get("inputs", [ONE, TWO]), more.get("resources", [ONE])).key


def changed(**fields: Any) -> Spec:
    """The task with other fields."""
    return Spec(**{**SPEC.__dict__, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"retry": 7}, {"retry_delay": 9.0}, {"run_timeout": 5.0}, {"stage_in_timeout": 5.0}, {"tags": {"a": "b"}}, {"cpus": 4.0},
        {"memory": 1 << 30}, {"gpus": 1}, {"output": "s3://lab/out"}, {"overwrite": True}, {"keep_failed": False},
        {"use_cache": True}, {"env": {"B": "2", "A": "1"}}, {"command": ["sort", "-u", "a b"]},
    ],
)  # fmt: skip
@pytest.mark.promise("lessons 3.5.9")
def test_what_does_not_change_the_outcome_is_not_in_the_key(fields: dict[str, Any]) -> None:
    assert key(changed(**fields)) == key()


@pytest.mark.parametrize(
    ("fields", "what"),
    [
        ({"command": "sort -u 'a  b'"}, ["command"]),
        ({"shell": "sh"}, ["command"]),
        ({"env": {"A": "1"}}, ["env B"]),
        ({"env": {"A": "1", "B": "3"}}, ["env B"]),
    ],
)
def test_what_the_task_says_is_in_the_key(fields: dict[str, Any], what: list[str]) -> None:
    assert key(changed(**fields)) != key()
    found = differences(parts_of(SPEC, None), parts_of(changed(**fields), None))
    assert [one.what for one in found] == what


def test_a_script_counts_to_the_byte() -> None:
    scripts = [
        changed(command=text, shell=shell) for text, shell in [("a; b", "sh"), ("a;  b", "sh"), ("a; b", "bash")]
    ]
    assert len({key(script) for script in scripts}) == 3


@pytest.mark.parametrize(
    ("data", "what"),
    [
        ({"inputs": [TWO, ONE]}, "order of inputs"),
        ({"inputs": [ONE]}, "inputs"),
        ({"inputs": [ONE, TWO._replace(digest="d3")]}, "input s3://lab/two"),
        ({"inputs": [ONE, TWO._replace(actions="gunzip|mv:sub")]}, "actions of input s3://lab/two"),
        ({"resources": [TWO]}, "actions of resource s3://lab/two"),
        ({"resources": [ONE._replace(digest="d9")]}, "resource s3://lab/one"),
        ({"inputs": [], "resources": [ONE, TWO, ONE]}, "inputs"),
    ],
)
@pytest.mark.promise("lessons 3.5.9")
def test_the_data_is_in_the_key_in_order_with_its_actions(data: dict[str, Any], what: str) -> None:
    assert key(**data) != key()
    old, new = parts_of(SPEC, None, [ONE, TWO], [ONE]), parts_of(
        SPEC, None, data.get("inputs", [ONE, TWO]), data.get("resources", [ONE])
    )  # fmt: skip
    assert differences(old, new)[0].what == what


def test_where_data_lies_is_not_in_the_key() -> None:
    assert key(inputs=[ONE._replace(address="/here"), TWO]) == key()


@pytest.mark.promise("lessons 3.5.9", "core 11.9")
def test_the_bits_of_an_image_are_in_the_key_not_its_name() -> None:
    digest = "sha256:" + 64 * "a"
    assert key(image=f"ubuntu@{digest}") == key(image=f"mirror.example:5000/ubuntu@{digest}")
    assert (
        len({key(image=image) for image in (None, f"ubuntu@{digest}", "ubuntu:22.04", "ubuntu@sha256:" + 64 * "b")})
        == 4
    )
    assert bits_of("ubuntu:22.04") == "ubuntu:22.04"
    assert bits_of(digest) == digest


@pytest.mark.promise("lessons 3.5.9")
def test_the_options_of_a_container_are_in_the_key_in_order() -> None:
    parts = parts_of(SPEC, "ubuntu")
    others = [parts._replace(options=options) for options in (["--network", "none"], ["none", "--network"])]
    assert len({parts.key, *(one.key for one in others)}) == 3
    found = differences(parts, others[0])
    assert found == [("container options", "none", "--network none", None)]


def test_what_is_stored_of_a_key_gives_it_back() -> None:
    parts = parts_of(SPEC, "ubuntu", [ONE, TWO], [ONE])
    assert with_data(SPEC, "ubuntu", parts.data()) == parts
    assert with_data(SPEC, None, None).key == parts_of(SPEC, None).key


def test_keys_stay_what_they_are() -> None:
    """A key of another making finds nothing: whoever changes it gives it another VERSION, and says so."""
    assert key() == "a84dd70c7a94e6c3049810a87c5a28e267d41dbb"
    assert isinstance(parts_of(SPEC, None), Parts)


def test_a_file_without_md5_is_told_by_size_and_time_and_says_so() -> None:
    old = fingerprint([File("b", 2, "time:1700000000000000000-7"), File("a", 1, "md5:0cc1")])
    assert [file.name for file in old.files] == ["a", "b"]
    assert old.how == "MD5, size and time"
    assert fingerprint([]).how == "nothing: there is no file"
    new = fingerprint([File("a", 1, "md5:0cc1"), File("b", 2, "time:1700000000000000000-8"), File("c", 0, 'etag:"x"')])
    assert old.digest != new.digest
    assert file_differences(old, new) == [
        ("b", "2 bytes of 2023-11-14 22:13:20.000000000 UTC", "2 bytes of 2023-11-14 22:13:20.000000000 UTC", None),
        ("c", "not there", '0 bytes, ETag "x"', None),
    ]
