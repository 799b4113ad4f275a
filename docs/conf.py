"""How the documentation is built: `sphinx-build -W -n docs OUT`. Pages are Markdown; what the program knows of itself (its commands,
its settings, its docstrings) is taken from it while building, by `tables` and autodoc. Nothing is fetched from anywhere.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent)]  # the package of this very tree, and this folder's modules as `docs.…`

from docs import tables
from scitq._version import VERSION

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "scitq"
author = "the scitq authors"
version = release = VERSION
extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["man", "pictures", "_build"]
source_suffix = {".md": "markdown"}
language = "en"

myst_enable_extensions = ["colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3

default_role = "literal"
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 100
nitpicky = True
# Types of other packages and of the standard library, whose documentation is elsewhere (nothing is fetched to link to it), and
# those of ours that only annotate: what is promised of them is said where they are returned.
nitpick_ignore_regex = [
    (r"py:(class|obj|exc|data)", r"(?!scitq\.(engine|handle|selection|workflow|lib|path|errors)\.).*"),
    (r"py:class", r"scitq\.workflow\.code\.F"),
]

smartquotes = False  # 'a' and "b" are typed so
html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["scitq.css"]
html_title = f"scitq {VERSION}"
html_show_sphinx = False
html_show_copyright = False
html_show_sourcelink = False
html_copy_source = False

# A paragraph of a docstring that is indented is an example.
_EXAMPLE = re.compile(r"(?:^|\n)\n(?= {4}\S)")


def _insert(app: Sphinx, docname: str, source: list[str]) -> None:
    """`<!-- scitq: WHAT -->` in a page stands for a table of the program."""
    source[0] = re.sub(r"^<!-- scitq: (.+) -->$", lambda found: tables.insert(found[1]), source[0], flags=re.MULTILINE)


def _as_rst(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Our docstrings are plain text with `code`: their examples and their `Raises:` become what Sphinx calls so."""
    lines[:] = tables.docstring_as_rst(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """What is done to pages and docstrings on their way."""
    app.connect("source-read", _insert)
    app.connect("autodoc-process-docstring", _as_rst)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
