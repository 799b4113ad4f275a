"""How objects show themselves in a notebook: as HTML and, for whoever has no HTML, as text. Light: loads nothing by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from scitq.errors import ScitqError

if TYPE_CHECKING:
    from scitq.markup import Markup


T = TypeVar("T")


class Pictured:
    """Shows itself in notebooks. A class says what it looks like in `_picture`; as text it is its `repr`, or what `_words` gives."""

    def _picture(self) -> Markup:
        """The HTML: all that is not ours in it is escaped."""
        raise NotImplementedError

    def _words(self) -> str:
        """The text."""
        return repr(self)

    def _repr_html_(self) -> str:
        from scitq.markup import refusal

        try:
            return str(self._picture())
        except ScitqError as problem:  # it was deleted, its file is closed: an object that is looked at raises nothing
            return str(refusal(str(problem)))

    def _repr_mimebundle_(
        self, include: Sequence[str] | None = None, exclude: Sequence[str] | None = None
    ) -> dict[str, Any]:
        try:
            words = self._words()
        except ScitqError as problem:
            words = f"<{type(self).__name__}: {problem}>"
        found = {"text/plain": words, "text/html": self._repr_html_()}
        return {
            kind: text
            for kind, text in found.items()
            if (not include or kind in include) and kind not in (exclude or ())
        }


class Listed(list[T], Pictured):
    """A list of rows that shows itself as a table; else a list like any other. A class says in `_picture` what it looks like."""

    def _words(self) -> str:
        return list.__repr__(self)
