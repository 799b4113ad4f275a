"""The verbs and letters of scitq 1 (docs/migration.md): each is here, or says what became of it."""

from __future__ import annotations

import json
import shlex

import pytest

from tests.shell.here import Place

# All of scitq-manage and scitq-launch 1.3, with the letters that each had. They work on the full folder one after the other.
VERBS = """
scitq-launch -t -d image -O '--cpus 2' -u 1000 -g 1000 -n x -b b -i reads -r reads -o out -R 1 --retry 2 --run-timeout 9 -- true
scitq-launch -t --download-timeout 700 --use-cache -R '1 2' -R 3,4 echo 'two words'
scitq-manage --version
scitq-manage -t 30 worker list -b call -S running -H -L
scitq-manage worker update -n local -C 2 -p 1 -b align -f big
scitq-manage worker update -i 1 -S paused
scitq-manage worker update -n local -S running
scitq-manage batch list
scitq-manage batch list -n align -H
scitq-manage batch stop -n trim
scitq-manage batch stop -n trim -n align -N 0
scitq-manage batch stop -n call --pause
scitq-manage batch stop -n call -N 20
scitq-manage batch go -n call --cont
scitq-manage batch go -n trim -n align -N 18
scitq-manage batch stop -n call --term --yes
scitq-manage batch stop -n call -N 3 --yes
scitq-manage batch stop -n call --kill --yes
scitq-manage batch stop -n call -N 9 --yes
scitq-manage task list -S failed -b align -H -L
scitq-manage task relaunch -i 3
scitq-manage task relaunch -n 'align s03'
scitq-manage task output -i 2
scitq-manage task output -n count -o
scitq-manage task output -i 1 -e
scitq-manage task update -i 8 -N trimmed -c 'head -n 2 $INPUT/s01.fastq' -b trim2 -d image -O '--cpus 1' -j reads -o out -R 2
scitq-manage task update -n trimmed --run-timeout 60 --download-timeout 600
scitq-manage task update -i 8 -S paused
scitq-manage task update -i 8 -S pending
scitq-manage execution list -i 2 -H -l 10 -L
scitq-manage execution list -n count -S succeeded -b default
scitq-manage execution output -i 2 -N 0 -o
scitq-manage execution output -n count -l 1 -e
scitq-manage execution output -x 1
scitq-manage execution output -i 3 -S failed,lost -N 0 -C id,exit_code -C run_s -H
scitq-manage recruiter create -b trim2 -n 1 -f local -r R -P ovh -C 4 -p 1 -T 2 -m 1 -W 3
scitq-manage recruiter list -b trim2 -L -H
scitq-manage recruiter update -b trim2 -n 1 -W 2
scitq-manage recruiter delete -b trim2 -n 1
scitq-manage debug run -i 1 --no-resource
scitq-manage debug run -i 1 -r
scitq-manage config rclone --show
scitq-manage config rclone --install remotes.conf --yes
scitq-manage task delete -n old --yes
scitq-manage task delete -i 11 --yes
scitq-manage batch delete -n assembly.spades --yes
scitq-manage flavor list -P ovh --min-cpu 8
scitq-manage worker deploy -C 1 -p 0 -f std-2 -r north -P rehearsal -N 1 --yes --no-wait
"""
GONE = {
    "scitq-manage db init": "the queue is a file",
    "scitq-manage db upgrade-or-init -c conf": "the queue is a file",
    "scitq-manage ansible path": "scitq worker add HOST",
    "scitq-manage ansible install -p x": "scitq worker add HOST",
    "scitq-manage -s 10.0.0.1 task list": "the queue is a file",
    "scitq-launch -s 10.0.0.1 true": "the queue is a file",
}


def test_verbs_and_letters_of_scitq_1_do_what_they_did(place: Place) -> None:
    place.copy("full")
    for line in VERBS.strip().splitlines():
        found = place.run(line)

        assert found.code == 0, (line, found)
        assert "Traceback" not in found.err
    assert place.run("scitq task list -b call").out.count("asked to stop") == 4


@pytest.mark.parametrize("line", GONE)
def test_what_is_gone_says_what_there_is_instead(line: str, place: Place) -> None:
    place.copy("small")

    found = place.run(line)

    assert found.code == 2 and found.out == ""
    assert GONE[line] in found.err
    assert found.err.count("\n") == 3, "usage, the sentence, where there is more"


def test_signals_that_a_batch_does_not_take_are_refused(place: Place) -> None:
    place.copy("full")

    for words in ("stop -n trim -N 7", "stop -n trim -N 3 --kill", "go -n trim -N 9", "stop"):
        assert place.run(f"scitq batch {words}").code == 2
    asked = place.run("scitq batch stop -n call --kill")
    assert asked.code == 2 and "no terminal to ask on" in asked.err
    assert shlex.split(place.run("scitq batch list -H").out)[1] == "go", "nothing was done"


def test_execution_before_the_latest_is_found_from_it(place: Place) -> None:
    place.copy("small")
    place.run("scitq task update -i 3 -c 'echo second' --shell")
    place.run("scitq task cancel index")
    place.run("scitq task relaunch 3")
    assert place.run("scitq up --until-done").code == 0

    latest, before = (place.run(f"scitq execution output -i 3 -N {n} -o").out for n in (0, -1))

    assert (latest, before) == ("second\n", "aligning s02\n")
    failed = place.run("scitq execution output -i 3 -S failed -C attempt,exit_code -o")
    assert failed.out == "attempt  exit_code\n      1          3\n\naligning s02\n"
    fields = place.run("scitq execution output -i 3 -S failed -C attempt,exit_code --json").out
    assert json.loads(fields)["fields"] == {"attempt": 1, "exit_code": 3}
    assert "0 such executions" in place.run("scitq execution output -i 3 -S lost").err
    assert "Did you mean exit_code?" in place.run("scitq execution output -i 3 -C exit").err
    assert "none -2 from the latest" in place.run("scitq execution output -i 3 -N -2").err
    assert "no execution has the number 99" in place.run("scitq execution output 99").err
    assert place.run("scitq execution output").code == 2
