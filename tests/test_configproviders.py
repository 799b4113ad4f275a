"""The providers of the user's settings: read, and told of with their lines."""

from __future__ import annotations

from pathlib import Path

import pytest

from scitq import config

GOOD = """\
colour = "never"

[providers.dream]
kind = "fake"
market = "spot"
boot_s = 2.5
script = [{call = "create", fault = "stock", times = 3}]
[providers.dream.prices]
std-2 = 0.1
"north/std-4" = 0.2

[providers.lab]
kind = "ssh"
max_machines = 3
preferred_regions = ["room%"]
[[providers.lab.hosts]]
host = "atlas"
[[providers.lab.hosts]]
host = "barn"
slots = 2
tags = "G"

[providers.other]
kind = "mycloud"
anything = {at = ["all"]}
"""


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the settings are."""
    monkeypatch.setenv("SCITQ_CONFIG", str(tmp_path / "config.toml"))
    return tmp_path / "config.toml"


def test_tables_of_providers_are_read_as_they_stand(file: Path) -> None:
    file.write_text(GOOD)

    found = config.load()

    assert found.problems == ()
    assert found.get("colour") == "never"
    assert found.providers == {
        "dream": {
            "kind": "fake", "market": "spot", "boot_s": 2.5, "script": [{"call": "create", "fault": "stock", "times": 3}],
            "prices": {"std-2": 0.1, "north/std-4": 0.2},
        },
        "lab": {
            "kind": "ssh", "max_machines": 3, "preferred_regions": ["room%"],
            "hosts": [{"host": "atlas"}, {"host": "barn", "slots": 2, "tags": "G"}],
        },
        "other": {"kind": "mycloud", "anything": {"at": ["all"]}},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[providers.a]\nmarket = "spot"', "1: providers.a needs a kind"),
        ('[providers.a]\nkind = "fake"\n\nmarket = "black"', '4: providers.a.market must be one of "ondemand", "spot"'),
        ('[providers.a]\nkind = "fake"\nboots = 3', "3: there is no 'boots' for a provider of kind fake; there are: "),
        ('[providers.a]\nkind = "fake"\n[providers.a.quotas]\ncores = -1', "4: providers.a.quotas.cores must be a number of at"),
        ('[providers.a]\nkind = "fake"\nprices = 3', "3: providers.a.prices must be a table of prices"),
        ('[providers.a]\nkind = "ssh"\n[[providers.a.hosts]]\nhost = "x"\n[[providers.a.hosts]]\nslots = 2',
         "3: each of providers.a.hosts needs host."),
        ('[providers.a]\nkind = "ssh"\n[[providers.a.hosts]]\nhost = "x"\nport = 0', "5: providers.a.hosts.port must be"),
        ('[providers.a]\nkind = "ssh"\nhosts = ["x"]', "3: providers.a.hosts must be tables: [[providers.a.hosts]]."),
        ('providers = 3', "1: providers must be tables: [providers.NAME]."),
        ('[providers]\na = "fake"', "2: providers.a must be a table: [providers.a]."),
        ('[providers."a b"]\nkind = "fake"', "1: 'a b' cannot be a provider's name"),
        ('[providers.a]\nkind = "mycloud"\n[providers.a.deep]\nsecret_key = "hunter2"', "4: 'deep.secret_key': secrets do not belong"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_said_with_its_line(file: Path, text: str, said: str) -> None:
    file.write_text(text)

    problems = [problem.removeprefix(f"{file}:") for problem in config.load().problems]

    assert len(problems) == 1, problems
    assert problems[0].startswith(said)
    assert "hunter2" not in problems[0]
