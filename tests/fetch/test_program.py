"""`scitq-fetch` as a person runs it: what it prints, asks and returns, against real servers."""

from __future__ import annotations

import base64
import contextlib
import copy
import gzip
import hashlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scitq.shell import cli
from scitq.shell.table import FETCH, Argument, Command
from tests.fetch.conftest import names
from tests.fetch.ftpserver import FtpServer
from tests.fetch.servers import Storages
from tests.fetch.test_faults import small_files_only
from tests.fetch.web import WebServer, wait_for
from tests.shell.tmux import Terminal

ROOT = Path(__file__).parent.parent.parent
PROGRAM = [sys.executable, "-c", "from scitq.shell.cli import fetch; fetch()"]
# Whoever runs the tests in the background ignores Ctrl-C, and so would what they start.
LISTENING = [
    sys.executable, "-c",
    "import signal; [signal.signal(n, signal.SIG_DFL) for n in (1, 2, 15)]; from scitq.shell.cli import fetch; fetch()",
]  # fmt: skip
DATA = random.Random(11).randbytes(300_000)


class Program:
    """scitq-fetch in the test's folder: in this process, which is quick, unless it is started."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[bytes]) -> None:
        self.folder = folder
        self._capture = capture

    @property
    def environ(self) -> dict[str, str]:
        """For processes."""
        return {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color"}

    def __call__(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[bytes]:
        """Run it to its end, which must be that one."""
        self._capture.readouterr()
        found = cli.run(cli.fetch_program(), list(words), "scitq-fetch")
        said = self._capture.readouterr()
        assert found == code, (found, said)
        return subprocess.CompletedProcess(words, found, said.out, said.err)

    def out(self, *words: str) -> str:
        """What it wrote to stdout."""
        return self(*words).stdout.decode()

    def json(self, *words: str) -> Any:
        """What it answered with --json."""
        return json.loads(self(*words, "--json").stdout)

    def error(self, *words: str, code: int) -> str:
        """The one line that it says of its failure; nothing goes to stdout."""
        ended = self(*words, code=code)
        said = ended.stderr.decode()
        assert ended.stdout == b"" and said.count("\n") == 1, (ended.stdout, said)
        return said

    @contextlib.contextmanager
    def start(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run it in the background, with an ear for signals; killed if it does not end by itself."""
        child = subprocess.Popen(
            [*LISTENING, *words], cwd=self.folder, env=self.environ, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        try:
            yield child
        finally:
            child.kill()
            child.communicate()


@pytest.fixture
def program(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Program]:
    """In the test's folder; the log is put back as it was."""
    logger = logging.getLogger("scitq")
    before = logger.handlers[:], logger.level, logger.propagate
    yield Program(tmp_path, capfdbinary)
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.fixture(params=["local", "ftp", "s3", "dav"])
def place(
    request: pytest.FixtureRequest, store: Storages, ftp: FtpServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A new folder of each kind of storage in turn."""
    name = f"t-{uuid.uuid4().hex[:12]}"
    if request.param == "local":
        return f"{tmp_path}/{name}"
    if request.param == "ftp":
        return f"{ftp.url}/{name}"
    monkeypatch.setenv("RCLONE_CONFIG", str(store.config))
    if request.param == "s3":
        store.bucket(name)
    return f"{request.param}://{name}"


@pytest.fixture
def terminal(program: Program) -> Iterator[Terminal]:
    """A terminal in which there is a scitq-fetch."""
    folder = program.folder / "bin"
    folder.mkdir()
    script = folder / "scitq-fetch"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "from scitq.shell.cli import fetch; fetch()" "$@"\n')
    script.chmod(0o755)
    found = Terminal(program.folder, {**program.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"})
    yield found
    found.close()


def tree(folder: Path) -> Path:
    """A small folder: 3 files, one of them below, 8 bytes in all."""
    (folder / "d").mkdir(parents=True)
    for name, text in (("a b.txt", "four"), ("d/-x$(id).gz", "ünï"[:1] + "12"), ("empty", "")):
        (folder / name).write_text(text)
    return folder


# --- the table --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", FETCH, ids=lambda row: row.path)
def test_a_verb_has_help_and_stands_alone_and_under_scitq(row: Command, program: Program) -> None:
    assert callable(row.function()) and row.help.strip().endswith((".", "'."))
    assert all(isinstance(one, Argument) or one.help for one in row.parameters)
    text = program.out(row.path.split()[-1], "--help")

    assert (
        text.startswith(f"Usage: scitq-fetch {row.path.split()[-1]}") and "--json" in text and "state file" not in text
    )
    assert cli.run(cli.program(), [*row.path.split(), "--help"], "scitq") == 0


def test_help_is_light_and_has_the_exit_codes(program: Program) -> None:
    code = (
        "import sys; from scitq.shell import cli; cli.run(cli.fetch_program(), ['--help'], 'scitq-fetch');"
        "print('loaded:', {'apsw', 'rich', 'scitq.engine', 'scitq.fetch.transfer', 'subprocess'} & set(sys.modules))"
    )
    ended = subprocess.run([sys.executable, "-c", code], env=program.environ, capture_output=True, text=True)

    assert ended.stdout.endswith("loaded: set()\n")
    assert all(f"{number}  " in ended.stdout for number in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 130, 143))
    assert program.out("--version").startswith("scitq ") and "copy" in program.out()
    assert "Did you mean: scitq-fetch copy" in program("cpoy", code=2).stderr.decode()


# --- every kind of storage --------------------------------------------------------------------------------------------------


@pytest.mark.promise("data 11.36")
def test_all_verbs_on_every_storage(place: str, program: Program, tmp_path: Path) -> None:
    tree(tmp_path / "in")
    program("copy", "in", place)
    program("copy", "in/empty", f"{place}/more/")

    rows = program.json("rlist", place, "--md5")
    files = {row["rel_name"]: row["size"] for row in rows if row["type"] == "file"}
    assert files == {"a b.txt": 4, "d/-x$(id).gz": 4, "empty": 0, "more/empty": 0}
    assert {row["md5"] for row in rows if row["rel_name"] == "a b.txt"} <= {None, hashlib.md5(b"four").hexdigest()}
    listed = program("list", place, "--md5")
    assert listed.stdout.decode().split()[:5] == ["name", "creation_date", "modification_date", "size", "md5"]
    assert "4 files and 2 folders, 8 B." in listed.stderr.decode() or "4 files, 8 B." in listed.stderr.decode()
    flat = program.out("nrlist", place, "-H").splitlines()
    assert [line.split("  ")[0] for line in flat if not line.split("  ")[0].endswith("/")] == ["a b.txt", "empty"]
    assert program.json("nlist", place)[0]["name"].endswith("/a b.txt") or len(program.json("nlist", place)) == 4
    found = program.json("info", f"{place}/a b.txt")
    assert (found["size"], found["type"], found["name"]) == (
        4,
        "file",
        f"{place}/a b.txt".replace("a b", found["name"][-7:-4]),
    )
    assert program.out("cat", f"{place}/a b.txt", f"{place}/empty", f"{place}/a*.txt") == "fourfour"
    usage = json.loads(program("ncdu", place).stdout)
    assert usage[:2] == [1, 0] and usage[3][0] == {"name": place}
    sizes = {each["name"]: each["asize"] for each in usage[3][1:] if isinstance(each, dict)}
    assert sizes == {"a b.txt": 4, "empty": 0}

    (tmp_path / "in" / "new").write_text("new")
    (tmp_path / "in" / "empty").unlink()
    assert {row["rel_name"] for row in program.json("sync", "in", place, "--dry-run") if row["does"] == "send"} == {
        "new"
    }
    program("sync", "in", place, "--include", "new")
    refused = program.error("sync", "in", place, "--delete", code=2)
    assert "2 files, 0 B" in refused and "--yes" in refused
    assert program.json("info", f"{place}/new")["size"] == 3 and program.json("info", f"{place}/empty")["size"] == 0
    program("sync", "in", place, "--delete", "--yes")
    program("sync", place, "back")
    assert [name for name in names(tmp_path / "back") if name != "more"] == names(tmp_path / "in")


@pytest.mark.promise("data 11.9")
def test_delete_asks_and_a_dry_run_is_dry_on_every_storage(place: str, program: Program, tmp_path: Path) -> None:
    tree(tmp_path / "in")
    program("copy", "in", place)

    def listed() -> list[tuple[str, int]]:
        return [(row["name"], row["size"]) for row in program.json("list", place)]

    before = listed()
    for words in (["--dry-run"], ["--dryrun", "--yes"], ["--dry-run", "--include", "*.gz", "--yes"]):
        assert "Nothing was done" in program("delete", place, *words).stderr.decode()
        assert listed() == before
    assert program.json("delete", place, "--dry-run", "--include", "*.gz")[0]["rel_name"] == "d/-x$(id).gz"
    assert "3 files" in program.error("delete", place, code=2) and listed() == before
    program("delete", place, "--include", "*.gz", "--yes")
    assert [row["rel_name"] for row in program.json("list", place) if row["type"] == "file"] == ["a b.txt", "empty"]
    assert program.json("delete", f"{place}/empty", "-y") == {"deleted": 1, "bytes": 0}
    program("delete", place, "-y")
    program.error("info", place, code=3)


# --- codes and errors -------------------------------------------------------------------------------------------------------


@pytest.mark.promise("data 11.14")
@pytest.mark.parametrize(
    "how, code, said",
    [({"statuses": [(404, {})]}, 3, "404"), ({"statuses": [(403, {})]}, 4, "403"), ({"statuses": [(401, {})]}, 4, "401"),
     ({"statuses": [(500, {})] * 9}, 9, "500"), ({"statuses": [(429, {})] * 9}, 9, "429"), ({"statuses": [(418, {})]}, 1, "418"),
     ({"cuts": [1000] * 9}, 9, "missing"),
     ({"headers": {"x-goog-hash": "md5=" + base64.b64encode(hashlib.md5(b"x").digest()).decode()}}, 8, "MD5")],
)  # fmt: skip
@pytest.mark.parametrize("rest", ["", "|mv:sub"])
def test_a_fault_is_one_line_and_a_code_and_leaves_nothing(
    rest: str, how: dict[str, Any], code: int, said: str, web: WebServer, program: Program, tmp_path: Path
) -> None:
    web.add("/x", DATA, **copy.deepcopy(how))  # the server takes its faults off the list

    line = program.error("copy", f"{web.url}/x{rest}", "out/", "--retry", "0", code=code)

    assert said in line and "/x" in line
    assert names(tmp_path / "out") == []
    web.add("/x", DATA)
    program("copy", f"{web.url}/x{rest}", "out/")
    assert [path.read_bytes() for path in (tmp_path / "out").rglob("x")] == [DATA]


def test_silence_is_code_9_and_a_full_disk_code_5(program: Program, web: WebServer, tmp_path: Path) -> None:
    web.add("/x", DATA * 10, stalls=[1_500_000])
    assert "silent" in program.error("copy", f"{web.url}/x", "out/", "--retry", "0", "--stall-timeout", "1", code=9)
    web.release.set()
    with small_files_only(1_000_000):
        assert "no space left" in program.error("copy", f"{web.url}/x", "out/", code=5)

    assert not (tmp_path / "out/x").exists()
    program("copy", f"{web.url}/x", "out/")
    assert (tmp_path / "out/x").read_bytes() == DATA * 10 and names(tmp_path / "out") == ["x"]


@pytest.mark.promise("data 11.36")
@pytest.mark.parametrize(
    "words, code, said",
    [(["copy", "/none", "."], 3, "/none"), (["copy", "nosuch://x/y", "."], 2, "no remote 'nosuch'"), (["list", "s3:x"], 2, "s3://x"),
     (["copy", "a|nogo", "."], 2, "nogo"), (["cat", "/"], 2, "folder"), (["list", "/none*"], 3, "nothing matches"),
     (["copy", "http://127.0.0.1:9/x", ".", "--retry", "0"], 9, "refused"), (["delete", "/", "--yes"], 4, "not deleted"),
     (["copy", "in", "taken"], 6, "taken"), (["copy", "in/empty", "taken", "--no-overwrite"], 6, "taken")],
)  # fmt: skip
def test_what_cannot_be_is_one_line_and_a_code(
    words: list[str], code: int, said: str, program: Program, tmp_path: Path
) -> None:
    tree(tmp_path / "in")
    (tmp_path / "taken").write_text("mine")

    assert said in program.error(*words, code=code)
    assert (tmp_path / "taken").read_text() == "mine"
    assert said in json.loads(program("--json", *words, code=code).stderr)["error"]


def test_a_missing_program_is_code_7(program: Program, tmp_path: Path, web: WebServer) -> None:
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    web.add("/x", DATA)
    environ = {
        **program.environ,
        "PATH": str(tmp_path / "empty"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
    }
    for words, said in ((["list", "s3://b"], b"scitq[rclone]"), (["ncdu", ".", "--run"], b"apt install ncdu"),
                        (["copy", web.url.replace("http:", "http@aria2:") + "/x"], b"apt install aria2")):  # fmt: skip
        ended = subprocess.run([python, *PROGRAM[1:], *words], env=environ, capture_output=True)
        assert ended.returncode == 7 and said in ended.stderr and ended.stderr.count(b"\n") == 1, ended


# --- signals ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
@pytest.mark.parametrize("rest", ["", "|gunzip"])
def test_a_signal_ends_it_in_order(
    number: int, code: int, rest: str, web: WebServer, program: Program, tmp_path: Path
) -> None:
    packed = gzip.compress(random.Random(1).randbytes(3_000_000), compresslevel=1)
    web.add("/x.gz", packed, stalls=[2_500_000])
    with program.start("copy", f"{web.url}/x.gz{rest}", "out/") as child:
        wait_for(web.stalled.is_set)
        if not rest:  # all that was sent has come
            wait_for(lambda: any(path.stat().st_size == 2_500_000 for path in (tmp_path / "out").glob(".scitq-*.part")))
        child.send_signal(number)
        _, said = child.communicate(timeout=60)
    web.release.set()

    assert child.returncode == code and said.count(b"\n") == 1 and b"Interrupted by" in said, said
    assert [name for name in names(tmp_path / "out") if ".scitq-" not in name] == []
    before = web.sent_bytes
    program("copy", f"{web.url}/x.gz{rest}", "out/")
    assert names(tmp_path / "out") == ["x" if rest else "x.gz"]
    assert rest or web.sent_bytes - before < 1_000_000  # taken up where it was


SILENT = """#!/bin/sh
case $1 in version) echo rclone v1.75.0; exit;; esac
sleep 1000 & echo $$ $! > {pids}.new; mv {pids}.new {pids}
wait; wait
"""


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_programs_that_it_started(
    number: int, code: int, program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "rclone").write_text(SILENT.format(pids=tmp_path / "pids"))
    (tmp_path / "bin" / "rclone").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "x").write_text("x")
    with program.start("copy", "x", "s3://b/x") as child:
        wait_for((tmp_path / "pids").exists)
        child.send_signal(number)
        _, said = child.communicate(timeout=60)

    assert child.returncode == code and said.count(b"\n") == 1, said
    wait_for(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in (tmp_path / "pids").read_text().split()))


def test_a_reader_that_has_seen_enough_is_no_error(program: Program, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(5_000_000))
    with program.start("cat", "big") as child:
        assert child.stdout is not None and child.stderr is not None
        assert child.stdout.read(10) == bytes(10)
        child.stdout.close()
        assert child.wait(60) == 141 and child.stderr.read() == b""
        child.stdout = None


# --- what is said -----------------------------------------------------------------------------------------------------------


def test_it_is_quiet_where_nobody_looks(program: Program, web: WebServer, tmp_path: Path) -> None:
    web.add("/x", DATA)

    quiet = program("copy", f"{web.url}/x", "1")
    told = program("copy", f"{web.url}/x", "2", "-v")
    as_json = program("copy", f"{web.url}/x", "3", "--json")

    assert quiet.stdout == quiet.stderr == b""
    assert told.stdout == b"" and told.stderr.count(b"\n") == 1 and b"300 kB in" in told.stderr
    answer = json.loads(as_json.stdout)
    assert as_json.stderr == b"" and answer["bytes"] == len(DATA) and answer["source"] == f"{web.url}/x"


@pytest.fixture
def slow(web: WebServer) -> Callable[[], str]:
    """An address of 3 MB, of which 2 MB come until the server is released."""

    def add() -> str:
        web.add("/slow.bin", random.Random(1).randbytes(3_000_000), stalls=[2_000_000])
        return f"{web.url}/slow.bin"

    return add


def test_a_terminal_shows_how_far_it_is(
    slow: Callable[[], str], terminal: Terminal, web: WebServer, tmp_path: Path
) -> None:
    terminal.type(f"scitq-fetch copy {slow()} out/")
    terminal.wait_for(r"^in all .*[12]\.\d/3\.0 MB")
    screen = terminal.wait_for(r"^slow\.bin .*[12]\.\d/3\.0 MB")
    assert "B/s" in screen or "?" in screen
    web.release.set()
    terminal.wait_for(r"3\.0 MB in .*\d s")
    assert (tmp_path / "out" / "slow.bin").stat().st_size == 3_000_000

    web.add("/slow.bin", random.Random(1).randbytes(3_000_000), stalls=[2_000_000])
    web.stalled.clear()
    web.release.clear()
    terminal.type(f"scitq-fetch copy {web.url}/slow.bin again/")
    terminal.wait_for(r"^slow\.bin .*[12]\.\d/3\.0 MB")
    terminal.press("C-c")
    terminal.wait_for(r"Interrupted by Ctrl-C")
    terminal.type("echo code $?")
    terminal.wait_for(r"code 130")


def test_uploads_have_their_progress_too(ftp: FtpServer, terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "up").write_bytes(bytes(3_000_000))
    terminal.type(f"scitq-fetch copy up {ftp.url}/")
    terminal.wait_for(r"3\.0 MB in")
    assert (ftp.root / "up").stat().st_size == 3_000_000


def test_a_terminal_is_asked(terminal: Terminal, tmp_path: Path) -> None:
    tree(tmp_path / "in")
    terminal.type("scitq-fetch delete in")
    terminal.wait_for(r"Delete 3 files and 2 folders, 8 B: in\? \[y/N\] ?$")
    terminal.type("n")
    terminal.wait_for("Nothing was done")
    assert (tmp_path / "in" / "d").exists()
    terminal.type("scitq-fetch rlist in; clear")
    terminal.type("scitq-fetch delete in --include '*.gz'")
    terminal.wait_for(r"Delete 1 file, 4 B: in\? \[y/N\] ?$")
    terminal.type("y")
    terminal.wait_for("Deleted: 1 file, 4 B")
    assert names(tmp_path / "in") == ["a b.txt", "d", "empty"]


def test_ncdu_reads_what_it_writes_and_is_started_on_it(terminal: Terminal, program: Program, tmp_path: Path) -> None:
    tree(tmp_path / "in")
    (tmp_path / "in" / "big").write_bytes(bytes(2_000_000))
    (tmp_path / "in" / os.fsdecode(b"\xff")).write_text("no UTF-8")

    program("ncdu", "in", "usage.json")
    again = subprocess.run(["ncdu", "-f", "usage.json", "-o", "-"], cwd=tmp_path, capture_output=True, check=True)
    terminal.type("scitq-fetch ncdu in --run")
    screen = terminal.wait_for(r"1\.9 MiB .*big")

    assert b'"name":"d"' in again.stdout and b'"asize":2000000' in again.stdout
    assert names(tmp_path / "in")[-1] in os.fsdecode((tmp_path / "usage.json").read_bytes())
    assert "--- in" in screen
    terminal.press("q")
    terminal.wait_for(r"\$ ?$")


def test_a_file_and_a_folder_of_one_name_are_both_in_the_export(
    program: Program, store: Storages, tmp_path: Path
) -> None:
    """Object storages can have that."""
    from scitq.fetch.entry import Entry
    from scitq.shell.sizes import exported

    rows = [Entry("s3://b/a", "a", 1), Entry("s3://b/a/x", "a/x", 2), Entry("s3://b/a/", "a/", 0, type="dir")]
    assert json.loads(b"".join(exported("s3://b", rows)))[3] == [
        {"name": "s3://b"}, {"name": "a", "asize": 1, "dsize": 1}, [{"name": "a"}, {"name": "x", "asize": 2, "dsize": 2}],
    ]  # fmt: skip


def test_cat_gives_bytes_as_they_are(program: Program, web: WebServer, tmp_path: Path) -> None:
    data = bytes(range(256)) * 5000
    web.add("/x", data, cuts=[400_000])
    web.add("/x.gz", gzip.compress(data))

    assert program("cat", f"{web.url}/x", f"{web.url}/x.gz|gunzip").stdout == data * 2
    assert program.json("cat", f"{web.url}/x.gz|gunzip")[0]["size"] == len(data)
    assert web.sent_bytes < 3 * len(data)


def test_names_do_not_command_the_terminal_and_passwords_are_not_shown(
    program: Program, ftp: FtpServer, tmp_path: Path
) -> None:
    (ftp.root / "x").write_text("x")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "\x1b]0;evil\x07").write_text("")
    url = ftp.url.replace("ftp://", "ftp://me:p%40ss@")

    assert "\x1b" not in program.out("list", "in") and "\\x1b" in program.out("rlist", "in")
    for words in (["list", url], ["info", f"{url}/x"], ["list", f"{url}/none"], ["ncdu", url], ["list", url, "--json"],
                  ["copy", f"{url}/x", "y", "--json"], ["delete", f"{url}/x", "--dry-run"]):  # fmt: skip
        ended = program(*words, code=3 if "none" in words[1] else 0)
        assert b"p%40ss" not in ended.stdout + ended.stderr and b"p@ss" not in ended.stdout + ended.stderr


def test_sizes_are_for_programs_or_for_eyes(program: Program, terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "big").write_bytes(bytes(1_234_567))

    assert " 1234567\n" in program.out("rlist", "in") and "1.2 MB\n" in program.out("rlist", "in", "--human")
    program("rlist", "in", "--human", "--bytes", code=2)
    terminal.type("scitq-fetch rlist in")
    terminal.wait_for(r"^big .* 1\.2 MB$")


def test_version_1s_words_are_understood(program: Program, tmp_path: Path) -> None:
    tree(tmp_path / "in")

    program("-v", "-p", "3", "copy", f"file://{tmp_path}/in", f"file://{tmp_path}/out/")
    program("list", "out", "--not-recursive")
    only = program("ncdu", "out", "--only-file")

    assert names(tmp_path / "out") == names(tmp_path / "in")
    assert len(list(tmp_path.glob("*.ncdu.json"))) == 1 and b"ncdu -f" in only.stderr
    program("copy", "in", "x", "-p", "0", code=2)
