"""`scitq provider`: who rents machines, written into the settings, looked at, taken out."""

from __future__ import annotations

from pathlib import Path

import pytest

from scitq import configfile, providing
from scitq.errors import BadInput
from tests.shell.here import Place

OTHERS = '# mine\ncolour = "never"\n\n# a plug-in\'s\n[providers.moon]\nkind = "moon"\nat = {x = 1}\n'


@pytest.fixture
def file(place: Place) -> Path:
    """The settings, with something in them already."""
    path = place.lab.folder / "config.toml"
    path.write_text(OTHERS)
    return path


def test_a_provider_comes_and_goes_and_all_else_stays(place: Place, file: Path) -> None:
    words = (
        "--host ada@10.0.0.7:2222 --host barn --set preferred_regions=room% --set prices.barn=0.5 --set max_machines=3"
    )
    added = place.run(f"scitq provider add lab --kind ssh {words}")
    assert added.code == 0, added
    assert "[providers.lab]" in file.read_text() and file.read_text().startswith(OTHERS)
    listed = {row.name: row for row in providing.provider_list()}
    assert listed["lab"].settings == {
        "kind": "ssh", "preferred_regions": ["room%"], "max_machines": 3, "prices": {"barn": 0.5},
        "hosts": [{"host": "10.0.0.7", "user": "ada", "port": 2222}, {"host": "barn"}],
    }  # fmt: skip
    assert "lab       ssh" in place.run("scitq provider list").out
    removed = place.run("scitq provider remove lab")
    assert (removed.code, file.read_text()) == (0, OTHERS)
    assert place.run("scitq provider remove moon").code == 0
    assert file.read_text() == '# mine\ncolour = "never"\n'


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("add moon --kind fake", "there is a provider moon already"),
        ("add 'a b' --kind fake", "'a b' cannot be a provider's name"),
        ("add dream --kind sun", "there is no kind 'sun' of providers; there are: azure, fake, local, ssh"),
        ("add dream --kind fake --set boots=3", "there is no 'boots' for a provider of kind fake"),
        ("add dream --kind fake --set market=black", 'market must be one of "ondemand", "spot"'),
        ("add dream --kind fake --set secret_key=hunter2", "secrets do not belong"),
        ("add dream --kind fake --host atlas", "there is no 'hosts' for a provider of kind fake"),
        ("add dream --kind fake --set quotas.cores=-1", "quotas.cores must be a number of at least 0"),
        ("add dream --kind fake --set prices", "'prices' is no setting: write KEY=VALUE"),
        ("remove sun", "there is no provider 'sun'; there are: moon."),
        ("check sun", "there is no provider 'sun'; there are: moon."),
    ],
)
def test_what_makes_no_sense_is_refused_and_nothing_is_written(place: Place, file: Path, line: str, said: str) -> None:
    refused = place.run(f"scitq provider {line}")

    assert refused.code == 1 and said in refused.err, refused
    assert "hunter2" not in refused.err
    assert file.read_text() == OTHERS


def test_a_check_says_how_each_stands_and_what_to_do(place: Place, file: Path) -> None:
    place.run("scitq provider add dream --kind fake --set regions=north")
    place.run("scitq provider add vague --kind fake --set regions=atlantis")

    found = place.run("scitq provider check")

    assert found.code == 1
    lines = [line.split() for line in found.out.splitlines()]
    status = {line[1]: line[0] for line in lines if line[0] != "->"}
    assert {name: status[name] for name in ("dream", "moon", "vague")} == {
        "dream": "ok",
        "moon": "error",
        "vague": "error",
    }
    assert "in order; 1 region: north" in " ".join(found.out.split())
    assert place.run("scitq provider check dream").code == 0


def test_a_table_that_cannot_be_taken_out_alone_is_left_to_a_person() -> None:
    with pytest.raises(BadInput, match="scitq config edit"):
        configfile.without('providers = {a = {kind = "fake"}, b = {kind = "fake"}}\n', "providers.a")
    assert configfile.without('providers.a.kind = "fake"\npager = "less"\n', "providers.a") == 'pager = "less"\n'
