"""A file with tasks that have ended in all ways, for tests that only look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scitq.engine import Engine
from scitq.remote import local

HOSTILE = "<script>document.title='owned'</script>\x1b[2J\x1b]0;owned\x07\u202e&\"'"


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Tasks 1 to 4: two that succeeded (the second reads what the first left), one that failed, one that it blocks; 30 short ones."""
    folder = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("in.txt").write_text("x" * 1000)
        with Engine(folder / "lab.scitq") as engine:
            first = engine.submit("cat $INPUT/* > $OUTPUT/copy", shell=True, input="in.txt", name="first", batch="qc")
            engine.submit("wc -c < $INPUT/copy; echo '<b>bold</b>'", shell=True, input=first.output, name="second")
            bad = engine.submit(["sh", "-c", "printf '%s\\n' \"$0\" >&2; exit 3", HOSTILE], name=HOSTILE)
            engine.submit("true", requires=bad, name="never")
            engine.submit_many(["true"] * 30, batch="many")
            engine.wait_all(60)
            yield engine
    local.stop(engine.side / "local")
