"""Pictures of the terminal, of the real program at work: `python docs/make_pictures.py [NAME…]` writes docs/pictures/*.svg.

Each is a scene: commands typed into a shell in a pseudo-terminal, and its screen when something is to be seen. Letters are the
reader's own monospace; nothing in a picture comes from elsewhere, and it tells nothing of the machine where it was made. It takes
what the tests take (pexpect, pyte).
"""

from __future__ import annotations

import functools
import html
import io
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
if __name__ == "__main__":
    sys.path[:0] = [str(HERE.parent)]

from rich.console import Console
from rich.segment import Segment
from rich.style import Style

from scitq.remote import local
from tests.workflow.terminal import Terminal

FOLDER = HERE / "pictures"
# rich's own form, without fonts of the web; a title and a description for those who do not see it.
FORM = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img" aria-labelledby="title says">
<title id="title">TITLE</title>
<desc id="says">SAYS</desc>
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; font-size: {char_height}px }}
.{unique_id}-title {{ font-size: 18px; font-weight: bold; font-family: sans-serif }}
{styles}
</style>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})">{backgrounds}<g class="{unique_id}-matrix">{matrix}</g></g>
</svg>
"""
# What is run: takes some seconds, so that there is something to see. In the second one a task fails.
LONG = """
from scitq.workflow import Workflow

with Workflow("qc", file="lab.scitq", shell=True) as wf:
    for n in range(1, 13):
        clean = wf.step("fastp", f"sleep {0.3 + n % 3 / 5}; echo {n} > $OUTPUT/clean.fq", name=f"fastp s{n:02}")
        align = wf.step("align", f"for i in $(seq 20); do echo s{n:02}: $((i * 2500)) reads aligned; sleep 0.05; done",
                        name=f"align s{n:02}", input=clean.output)
    wf.step("report", "echo all aligned", name="report", requires=align.gather())
wf.run()
"""
FAILING = """
from scitq.workflow import Workflow

with Workflow("qc", file="lab.scitq", shell=True) as wf:
    for n in range(1, 9):
        clean = wf.step("fastp", "echo clean > $OUTPUT/clean.fq", name=f"fastp s{n:02}")
        align = wf.step("align", f"sleep 0.3; [ {n} != 7 ] || {{ echo 'no index for hg38' >&2; exit 3; }}",
                        name=f"align s{n:02}", input=clean.output)
    wf.step("report", "echo all aligned", name="report", requires=align.gather())
wf.run()
"""
# Longer, and busier: for who watches.
BUSY = """
from scitq.workflow import Workflow

with Workflow("qc", file="lab.scitq", shell=True) as wf:
    for n in range(1, 13):
        count = "awk 'BEGIN { for (n = 0; n < 4e6; n++) all += n }'"
        wf.step("align", f"for i in $(seq 60); do echo s{n:02}: $((i * 2500)) reads aligned; {count}; done", name=f"align s{n:02}")
wf.run()
"""
# Three fail alike, and one waits for them.
ALIKE = """
import scitq

with scitq.open("lab.scitq") as q:
    align = [q.submit(f"sleep 0.{n}; [ {n} -lt 4 ] || {{ echo 'no index for hg38' >&2; exit 3; }}", shell=True, name=f"align s0{n}",
                      batch="qc.align") for n in range(1, 7)]
    q.submit("echo all aligned", name="report", batch="qc.report", requires=align)
    q.wait_all()
"""


@dataclass(frozen=True)
class Scene:
    """A picture: what it shows, in a sentence, and how to get there. `commands` are those of scitq that are typed in it."""

    title: str
    says: str
    commands: tuple[str, ...]
    play: Callable[[Terminal], None]
    program: str = ""
    rows: int = 40
    columns: int = 96


class Stage:
    """A home of one's own with a folder to work in, and a shell in a terminal there."""

    def __init__(self, folder: Path, program: str) -> None:
        self.home = folder / "ada"
        self.lab = self.home / "lab"
        programs = folder / "bin"
        for made in (self.lab, programs):
            made.mkdir(parents=True)
        (programs / "scitq").write_text(f'#!/bin/sh\nexec {sys.executable} -m scitq "$@"\n', encoding="utf-8")
        (programs / "scitq").chmod(0o755)
        (self.lab / "qc.py").write_text(program, encoding="utf-8")
        self.environ = {
            "HOME": str(self.home), "PATH": f"{programs}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(HERE.parent), "PS1": "$ ", "HISTFILE": "/dev/null",
        }  # fmt: skip

    def terminal(self, columns: int, rows: int) -> Terminal:
        """A shell."""
        return Terminal(
            ["bash", "--norc", "--noprofile"], folder=self.lab, environ=self.environ, columns=columns, rows=rows
        )

    def end(self) -> None:
        """End what was left running."""
        for side in self.lab.glob("*.scitq.d"):
            if side.with_suffix("").exists():
                subprocess.run([sys.executable, "-m", "scitq", "-f", side.with_suffix(""), "down", "--cancel"],
                               env={**os.environ, **self.environ}, capture_output=True, check=False)  # fmt: skip
            if (side / "local").exists():
                local.stop(side / "local")


def typing(*lines: str) -> Callable[[Terminal], None]:
    """Type lines, each when the one before is done."""

    def play(terminal: Terminal) -> None:
        for line in lines:
            terminal.wait_for(r"^\$$")
            before = sum(shown.startswith("$") for shown in terminal.lines())
            terminal.type(line + "\r")
            wanted = 1 if line.endswith("clear") else before + 1
            terminal.wait_for(functools.partial(_is_done, wanted, line))

    return play


def _is_done(prompts: int, line: str, lines: list[str]) -> bool:
    """Whether the shell asks for more, after what it was given."""
    is_cleared = not line.endswith("clear") or lines[0] == "$"
    return is_cleared and lines[_last(lines)] == "$" and sum(shown.startswith("$") for shown in lines) == prompts


def _last(lines: list[str]) -> int:
    return max((number for number, line in enumerate(lines) if line), default=0)


def _workflow(terminal: Terminal) -> None:
    terminal.wait_for(r"^\$$")
    terminal.type("scitq run qc.py\r")
    terminal.wait_for(r"align +[1-9]/12")
    terminal.press("down")
    terminal.wait_for(r"align +[4-9]/12 .* 1 ")


def _shell(terminal: Terminal) -> None:
    typing(f"{_BESIDE}; clear", "until scitq task list | grep -q 'align.*succeeded'; do sleep 0.1; done; clear")(
        terminal
    )
    terminal.type("scitq\r")
    terminal.wait_for("▸")
    terminal.type("task list --status running\r")
    terminal.wait_for(r"running +\d")
    terminal.wait_for(r"running · \d+ queued")
    terminal.type("task relaunch --where \"batch='qc.")
    terminal.wait_for(r"^ +qc\.report")
    terminal.wait_for(r"running · \d+ queued")


def _top(terminal: Terminal) -> None:
    typing(
        f"{_BESIDE}; clear",
        "until scitq task list | grep -q running; do sleep 0.1; done; clear",
        "scitq worker update local --concurrency 4; clear",
    )(terminal)
    terminal.type("scitq top\r")
    terminal.wait_for(r"reads aligned")
    terminal.press("down")
    terminal.wait_for(r"\d+%.*B.*reads aligned")
    terminal.wait_for(r"[4-9] s .*\d+%.*reads aligned")


# Runs the program beside the shell that one sees, and says nothing.
_BESIDE = "(scitq run qc.py >/dev/null 2>&1 &)"
SCENES = {
    "workflow": Scene(
        "scitq run qc.py", "The screen of a workflow while it runs: a line for each step, with how many of its tasks are done, waiting "
        "and running, on how many workers, and the time that is left.",
        ("run qc.py",), _workflow, LONG, rows=14,
    ),
    "status": Scene(
        "scitq status", "Who drives, what runs and what waits, in a line; then a list of tasks with their states.",
        ("status", "task list --status running,staging,pending"),
        typing(f"{_BESIDE}; clear", "until scitq task list | grep -q 'align.*succeeded'; do sleep 0.1; done; clear", "scitq status",
               "scitq task list --status running,staging,pending"), LONG, columns=112,
    ),
    "failure": Scene(
        "a task failed", "A list of what failed and what that blocks, the sentence that says why a task waits, what the failed one wrote, "
        "and how it is run again.",
        ("task list --status failed,blocked", "task why report", "task output 'align s07'", "task relaunch 'align s07'"),
        typing("scitq run qc.py >/dev/null 2>&1; clear", "scitq task list --status failed,blocked", "scitq task why report",
               "scitq task output 'align s07'", "scitq task relaunch 'align s07'"), FAILING,
    ),
    "shell": Scene(
        "the shell of scitq",
        "The interactive shell: a table, a command that is being typed, a menu of the batches that may come next, and a line "
        "at the bottom that tells who drives, how many workers there are, and what runs.",
        ("", "task list --status running"), _shell, LONG, rows=16, columns=112,
    ),
    "top": Scene(
        "scitq top", "This machine as a worker with its load, memory, disk and network; below it the tasks that run there, with their "
        "time, CPUs and memory, and the last line that each has written.",
        ("top",), _top, BUSY, rows=12, columns=112,
    ),
    "notices": Scene(
        "scitq notices", "What needs a person: three tasks of a batch failed alike, with the last line of their error; one task is blocked "
        "by that. Under each notice, the commands that would help.",
        ("notices",), typing("python qc.py 2>/dev/null; clear", "scitq notices"), ALIKE,
    ),
    "demo": Scene(
        "scitq demo", "The demo: its steps on real reads with a bar each, and the table that comes out.",
        ("demo",), typing("clear", "scitq demo"),
    ),
}  # fmt: skip


def picture(terminal: Terminal, scene: Scene) -> str:
    """The screen, as SVG."""
    shown = terminal.lines()
    rows = len(shown) if terminal.is_on_other_screen else _last(shown) + 1
    if not terminal.is_on_other_screen and shown[rows - 1] == "$":
        rows -= 1  # the last prompt has nothing to say
    console = Console(
        record=True, width=scene.columns, file=io.StringIO(), color_system="truecolor", force_terminal=True
    )
    for number in range(rows):
        console.print(Line(terminal.styles(number)), soft_wrap=True)
    form = FORM.replace("TITLE", html.escape(scene.title)).replace("SAYS", html.escape(scene.says))
    drawn = console.export_svg(title=scene.title, code_format=form, unique_id="t")
    drawn = re.sub(r' clip-path="url\(#t-line-\d+\)"', "", drawn)
    return re.sub(r"\n\s+", "\n", drawn).strip() + "\n"


class Line:
    """A line of a terminal, for rich."""

    def __init__(self, letters: list[Any]) -> None:
        self._letters = letters

    def __rich_console__(self, console: Console, options: Any) -> Any:
        run, style = "", None
        for letter in self._letters:
            if letter.data == "":
                continue  # the second half of a wide one
            own = _style(letter)
            if own != style and run:
                yield Segment(run, style)
                run = ""
            style = own
            run += letter.data
        if run.strip() or (style is not None and (style.bgcolor or style.reverse)):
            yield Segment(run if style and (style.bgcolor or style.reverse) else run.rstrip(), style)
        yield Segment.line()


_COLOURS = {"brown": "yellow", "brightbrown": "bright_yellow"}


def _style(letter: Any) -> Style:
    def colour(name: str) -> str | None:
        if name == "default":
            return None
        if re.fullmatch(r"[0-9a-f]{6}", name):
            return f"#{name}"
        return _COLOURS.get(name) or re.sub("^bright", "bright_", name)

    return Style(color=colour(letter.fg), bgcolor=colour(letter.bg), bold=letter.bold, italic=letter.italics,
                 underline=letter.underscore, reverse=letter.reverse)  # fmt: skip


def made(scene: Scene) -> str:
    """Play a scene, in a folder of its own; gives the picture.

    Raises:
        SystemExit: this machine's name or a folder's is to be seen in it.
    """
    folder = Path(tempfile.mkdtemp(prefix="scitq-pictures-"))
    stage = Stage(folder, scene.program)
    try:
        with stage.terminal(scene.columns, scene.rows) as terminal:
            scene.play(terminal)
            drawn = picture(terminal, scene)
    finally:
        stage.end()
        shutil.rmtree(folder, ignore_errors=True)
    for private in (socket.gethostname(), str(folder)):
        if re.search(rf"(?<![\w.]){re.escape(private)}\b", drawn):
            raise SystemExit(f"{scene.title}: {private!r} is to be seen in it.")
    return drawn


def main(names: list[str]) -> int:
    """Make those that are named, or all."""
    if unknown := sorted(set(names) - set(SCENES)):
        print(f"there is no scene {unknown[0]} (there are {', '.join(SCENES)})")
        return 2
    for name, scene in SCENES.items():
        if not names or name in names:
            drawn = made(scene)
            FOLDER.mkdir(exist_ok=True)
            (FOLDER / f"{name}.svg").write_text(drawn, encoding="utf-8")
            print(f"docs/pictures/{name}.svg: {len(drawn.encode())} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
