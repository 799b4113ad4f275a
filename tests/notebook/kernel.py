"""A notebook with a kernel of its own, as nbclient runs them: cell after cell, and what each gave."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat.v4
from nbclient import NotebookClient

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 120.0
_v4: Any = nbformat.v4
# The kernel of these tests is this Python, wherever others are installed.
_SPEC = {
    "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], "display_name": "scitq", "language": "python",
}  # fmt: skip


class Cell:
    """What a cell gave."""

    def __init__(self, cell: Any) -> None:
        self._cell = cell

    @property
    def outputs(self) -> list[Any]:
        """All of it, as it is now: live tables go on changing."""
        return list(self._cell.get("outputs", ()))

    def _data(self, kind: str) -> str:
        return "\n".join(one["data"][kind] for one in self.outputs if kind in one.get("data", {}))

    @property
    def html(self) -> str:
        """The HTML of its results and displays."""
        return self._data("text/html")

    @property
    def text(self) -> str:
        """The same as text."""
        return self._data("text/plain")

    def stream(self, name: str) -> str:
        """What it wrote on stdout, or on stderr."""
        return "".join(one["text"] for one in self.outputs if one["output_type"] == "stream" and one["name"] == name)

    @property
    def error(self) -> Any:
        """The error that it ended with: ename, evalue, traceback."""
        return next((one for one in self.outputs if one["output_type"] == "error"), None)

    @property
    def good(self) -> Cell:
        """Itself, if there was no error."""
        assert self.error is None, "\n".join(self.error["traceback"])
        return self


class Notebook:
    """A notebook that is being worked in."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def run(self, source: str) -> Cell:
        """Run a cell to its end."""
        cell = _v4.new_code_cell(source)
        self._client.nb.cells.append(cell)
        at = len(self._client.nb.cells) - 1
        self._client.execute_cell(cell, at)
        return Cell(self._client.nb.cells[at])

    def do(self, source: str) -> None:
        """Run a cell that must go well."""
        assert self.run(source).good is not None

    def interrupt_when(self, is_so: Callable[[Cell], bool]) -> threading.Thread:
        """Interrupt the kernel, as its button does, once the next cell is so."""
        cells, at, pid = self._client.nb.cells, len(self._client.nb.cells), self.pid

        def wait() -> None:
            if until(lambda: len(cells) > at and is_so(Cell(cells[at]))):
                os.kill(pid, signal.SIGINT)

        thread = threading.Thread(target=wait)
        thread.start()
        return thread

    @property
    def pid(self) -> int:
        """The kernel's process."""
        return int(self._client.km.provisioner.pid)


def until(is_so: Callable[[], bool], patience_s: float = PATIENCE_S) -> bool:
    """Wait until something is so."""
    ends = time.monotonic() + patience_s
    while not is_so():
        if time.monotonic() > ends:
            return False
        time.sleep(0.02)
    return True


def add_kernel(folder: Path) -> Path:
    """Describe the kernel; gives what JUPYTER_PATH is to be."""
    kernels = folder / ".jupyter" / "kernels" / "scitq"
    kernels.mkdir(parents=True, exist_ok=True)
    (kernels / "kernel.json").write_text(json.dumps(_SPEC))
    return folder / ".jupyter"


@contextmanager
def notebook(folder: Path) -> Iterator[Notebook]:
    """A new one, whose kernel is in that folder."""
    jupyter = add_kernel(folder)
    before = {
        name: os.environ.get(name)
        for name in ("JUPYTER_PATH", "PYTHONPATH", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "MPLBACKEND")
    }
    os.environ.update(
        JUPYTER_PATH=str(jupyter), PYTHONPATH=str(ROOT), IPYTHONDIR=str(folder / ".ipython"),
        JUPYTER_RUNTIME_DIR=str(jupyter / "run"),
    )  # fmt: skip
    os.environ.pop("MPLBACKEND", None)
    client = NotebookClient(
        _v4.new_notebook(), timeout=180, allow_errors=True, kernel_name="scitq",
        resources={"metadata": {"path": str(folder)}},
    )  # fmt: skip
    try:
        with client.setup_kernel():
            yield Notebook(client)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
