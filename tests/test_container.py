"""Names of images, and options for the container engine."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scitq.container import ALL_GPUS, Image, check_image, check_options, gpus_asked, take_apart
from scitq.errors import BadInput
from scitq.placement import could_ever, place
from scitq.task import BatchId, Need, PendingTask, Spec, TaskId
from scitq.worker import Capacity, WorkerId

DIGEST = "sha256:" + "0a" * 32


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("ubuntu", Image("docker.io", "library/ubuntu", None, None)),
        ("docker://ubuntu:24.04", Image("docker.io", "library/ubuntu", "24.04", None)),
        ("biocontainers/fastqc:v0.11.9_cv8", Image("docker.io", "biocontainers/fastqc", "v0.11.9_cv8", None)),
        ("index.docker.io/library/ubuntu", Image("docker.io", "library/ubuntu", None, None)),
        ("nvcr.io/nvidia/pytorch:23.05-py3", Image("nvcr.io", "nvidia/pytorch", "23.05-py3", None)),
        ("localhost/mine", Image("localhost", "mine", None, None)),
        ("127.0.0.1:5000/a__b/c-d.e:1", Image("127.0.0.1:5000", "a__b/c-d.e", "1", None)),
        (f"quay.io/x/y@{DIGEST}", Image("quay.io", "x/y", None, DIGEST)),
        (f"quay.io/x/y:1@{DIGEST}", Image("quay.io", "x/y", "1", DIGEST)),
    ],
)
def test_an_image_is_named_as_everywhere(text: str, image: Image) -> None:
    assert take_apart(check_image("container", text)) == image


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "empty"),
        ("Ubuntu", "lower-case"),
        ("ubuntu:", "cannot be a tag"),
        ("ubuntu:a b", "cannot be a tag"),
        ("a//b", "empty"),
        ("/tmp/image.sif", "empty"),
        ("http://quay.io/x", "cannot be a registry"),
        ("../x", "cannot be a registry"),
        ("--privileged", "lower-case"),
        ("x@sha256:12", "no digest"),
        ("x\n", "lower-case"),
        ("x\0", "lower-case"),
        ("a/" * 130 + "x", "longer"),
        (None, "NoneType"),
        (7, "int"),
    ],
)
def test_what_names_no_image_is_refused(text: Any, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        check_image("container", text)


@given(st.text(max_size=40))
def test_any_text_names_an_image_or_is_refused_and_no_image_looks_like_an_option(text: str) -> None:
    try:
        found = check_image("container", text)
    except BadInput:
        return
    assert not found.startswith("-") and not set(found) & set(" \n\0'\"$;")


def test_options_are_words_however_they_are_given() -> None:
    assert check_options("o", "--gpus all -v '/a b:/c' -e X=1") == ["--gpus", "all", "-v", "/a b:/c", "-e", "X=1"]
    assert check_options("o", ["-v", "/a b:/c", "--cpu-shares", 2]) == ["-v", "/a b:/c", "--cpu-shares", "2"]
    assert check_options("o", "-e 'X=$(touch y)'") == ["-e", "X=$(touch y)"]
    assert check_options("o", "") == []


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("--rm", "removes a container"),
        ("-v /a:/b --rm=true", "removes a container"),
        ("--name x", "names its containers"),
        ("--network none -it", "nobody is there to type"),
        ("-t", "no terminal"),
        ("-d", "stays with"),
        ("-a stdout", "reads what it writes"),
        ("--restart always", "retry="),
        ("--pull=always", "the same image"),
        ("--env-file x", "env="),
        ("ubuntu", "no option"),
        ("-v /a:/b -- sh", "ends the options"),
        ("-e 'X", "split into words"),
        (["-e", "X\0"], "NUL"),
        (["-e", None], "NoneType"),
        (3, "int"),
    ],
)
def test_options_that_scitq_has_to_say_itself_are_refused(given: Any, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        check_options("container_options", given)


def test_a_value_is_not_taken_for_an_option() -> None:
    assert check_options("o", "-e A=--rm -u 1:2 -vd") == ["-e", "A=--rm", "-u", "1:2", "-vd"]


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ("", None),
        ("-v /gpus:/x", None),
        ("--gpus all", ALL_GPUS),
        ("--gpus=all", ALL_GPUS),
        ("--gpus 2", 2),
        ("--gpus count=3", 3),
        ("--gpus device=0", 1),
        ("--gpus '\"device=0,2\"'", 2),
        ('--gpus \'"device=0,2","capabilities=utility,compute"\'', 2),
        ("--gpus device=1,capabilities=utility", 1),
        ("--gpus all,capabilities=utility", ALL_GPUS),
        ("--nv", ALL_GPUS),
    ],
)
def test_gpus_in_the_options_ask_for_gpus(options: str, count: int | None) -> None:
    assert gpus_asked(shlex.split(options)) == count


def test_what_is_said_of_gpus_comes_before_what_the_options_say() -> None:
    assert Spec("x", container="u", container_options=("--gpus", "all")).need == Need(gpus=ALL_GPUS)
    assert Spec("x", container="u", container_options=("--gpus", "all"), gpus=1).need == Need(gpus=1)
    assert Spec("x", container="u", container_options=("--gpus", "all"), gpus=0).need is None


def test_a_request_for_all_gpus_takes_all_there_are_and_at_least_one() -> None:
    everything = Need(gpus=ALL_GPUS)
    none, two = (Capacity(slots=4, concurrency=4, gpus=gpus, gpu_count=len(gpus)) for gpus in ((), ("0", "1")))
    taken = Capacity(slots=3, concurrency=4, gpus=("1",), gpu_count=2)
    tasks = [PendingTask(TaskId(n), BatchId(1), 0, everything) for n in (1, 2)]

    assert not could_ever(everything, none) and could_ever(everything, two)
    assert [(a.task, a.gpus) for a in place(tasks, {WorkerId(1): none, WorkerId(2): two})] == [(1, ("0", "1"))]
    assert place(tasks, {WorkerId(1): none, WorkerId(2): taken}) == []
