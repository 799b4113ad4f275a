"""The notebook of examples/, executed as it stands there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from scitq.remote import local
from tests.notebook.kernel import ROOT, Cell, notebook

pytestmark = [pytest.mark.servers, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


def test_the_notebook_of_the_examples_runs_as_it_stands_there(tmp_path: Path) -> None:
    read: Any = nbformat.read
    example = read(ROOT / "examples/08_notebook.ipynb", 4)
    nbformat.validate(example)
    cells = [cell for cell in example.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in cells), "outputs are stripped"

    try:
        with notebook(tmp_path) as nb:
            found: list[Cell] = [nb.run(cell.source).good for cell in cells]
            nb.do("q.close()")
    finally:
        local.stop(tmp_path / "notebook.scitq.d/local")

    text = "\n".join(cell.text for cell in found)
    assert found[2].stream("stdout") == "   2000 A\n   2000 C\n   2000 G\n   2000 T\n"
    assert "{'succeeded': 9}" in text and "part 8" in text and "['default', 'sizes.make', 'sizes.sum']" in text
    assert [kind for cell in found for one in cell.outputs for kind in one.get("data", {})].count("image/png") == 2
    # nbclient drops what comes between two cells: where all ended just then, its picture is of a moment before (see test_jupyterlab).
    assert "workflow sizes" in found[3].html and "/8" in found[3].html and "all" in found[5].html
