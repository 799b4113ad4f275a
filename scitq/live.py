"""A picture in a notebook that changes as the file does: drawn anew by whoever follows, in the cell that shows it, from any thread.

Nothing of Jupyter is loaded outside of a notebook. With ipywidgets there are buttons; without, and once it is over, it is plain HTML,
so that a saved notebook shows how it ended.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import uuid
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from scitq.errors import BadInput, Closed, ScitqError
from scitq.markup import Markup, refusal, soft, tag

if TYPE_CHECKING:
    from scitq.engine import Engine

# A file that changes all the time is looked at so often, one that does not once in a while: lengths of time go on.
LOOK_S = 0.4
SLOW_LOOK_S = 10.0
_WIDGET = "application/vnd.jupyter.widget-view+json"


class Sight(NamedTuple):
    """How something looks at this moment, as HTML and as text; and whether nothing more will change by itself."""

    html: Markup
    text: str
    is_over: bool = False


class Button(NamedTuple):
    """A word, and what is done when it is clicked."""

    word: str
    does: Callable[[], object]


def kernel_shell() -> Any | None:
    """IPython's shell, when this process is the kernel of a notebook."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell if getattr(shell, "kernel", None) is not None else None


class Display:
    """An output of the present cell that can be shown anew. One thread at a time."""

    def __init__(self, sight: Sight, buttons: Sequence[Button] = ()) -> None:
        self._module: Any = import_module("IPython.display")
        self._id = uuid.uuid4().hex
        self._sight = sight
        self._widgets: list[Any] = []
        self._html: Any = None
        bundle = _bundle(sight)
        if buttons and (view := self._widget(sight, buttons)) is not None:
            bundle[_WIDGET] = view
        self._module.display(bundle, raw=True, display_id=self._id)

    def _widget(self, sight: Sight, buttons: Sequence[Button]) -> Any:
        try:
            widgets: Any = import_module("ipywidgets")
        except ImportError:
            return None
        self._html = widgets.HTML(value=str(sight.html))
        row = [self._button(widgets, one) for one in buttons]
        box = widgets.VBox([self._html, widgets.HBox(row)])
        self._widgets = [box, *row, self._html]
        return box._repr_mimebundle_()[_WIDGET]

    def _button(self, widgets: Any, button: Button) -> Any:
        made = widgets.Button(description=button.word)

        def clicked(_: Any) -> None:
            try:
                button.does()
            except ScitqError as problem:
                self.show(self._sight._replace(html=Markup(self._sight.html + refusal(str(problem)))))

        made.on_click(clicked)
        return made

    def show(self, sight: Sight) -> None:
        """Show this instead."""
        if sight.html == self._sight.html:
            return
        self._sight = sight
        if self._html is not None:
            self._html.value = str(sight.html)
        else:
            self._module.update_display(_bundle(sight), raw=True, display_id=self._id)

    def end(self, note: str = "") -> None:
        """Without buttons from now on: what is there last stays, also in a notebook that was saved."""
        self._html = None
        html = Markup(self._sight.html + tag("div", soft(note))) if note else self._sight.html
        self._module.update_display(_bundle(self._sight._replace(html=html)), raw=True, display_id=self._id)
        for widget in self._widgets:
            widget.close()
        self._widgets = []


def _bundle(sight: Sight) -> dict[str, Any]:
    return {"text/plain": sight.text, "text/html": str(sight.html)}


def follow(engine: Engine, look: Callable[[], Sight], shown: Display, stop: threading.Event) -> bool:
    """Show what `look` sees until that is over, or `stop` is set; returns whether it is over.

    Raises:
        Closed: the engine was closed; and what `look` raises.
    """
    note = "not followed any more"
    try:
        engine._drive()
        engine._begin_to_wait()
        while not stop.is_set():
            seen = engine._changes.count
            sight = look()
            shown.show(sight)
            if sight.is_over:
                note = ""
                return True
            if engine._closed:
                raise Closed(f"{engine.path.name} was closed.")
            engine._changes.wait(seen, SLOW_LOOK_S)
            stop.wait(LOOK_S)
        shown.show(look())
        return False
    finally:
        with contextlib.suppress(Exception):  # the kernel may be on its way out
            shown.end(note)


_watched: dict[str, Live] = {}


class Live:
    """The queue of a file, shown live until `stop()`, the file's end, or another `watch()` of it."""

    def __init__(self, engine: Engine) -> None:
        if kernel_shell() is None:
            raise BadInput("q.watch() shows the queue in a notebook. In a terminal: scitq top")
        self._engine = engine
        self._stop = threading.Event()
        key = str(engine.path)
        if (before := _watched.get(key)) is not None:
            before.stop()
        _watched[key] = self
        self._shown = Display(self._look(), [Button("Stop watching", self.stop)])
        threading.Thread(target=self._run, name="scitq-live", daemon=True).start()

    def __repr__(self) -> str:
        return f"<the queue of {self._engine.path.name}, live>"

    def _ipython_display_(self) -> None:
        """It is shown already."""

    def stop(self) -> None:
        """Follow no more."""
        self._stop.set()
        self._engine._changes.announce()

    def _look(self) -> Sight:
        from scitq import cards
        from scitq.hints import counted

        return Sight(cards.of_queue(self._engine), f"{self._engine.path.name}: {counted(self._engine.counts())}")

    def _run(self) -> None:
        with contextlib.suppress(ScitqError):
            follow(self._engine, self._look, self._shown, self._stop)
        if _watched.get(str(self._engine.path)) is self:
            del _watched[str(self._engine.path)]
