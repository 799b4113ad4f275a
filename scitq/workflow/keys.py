"""Which key does what on the screen of a workflow: in a list, at a question, in the filter, in the editor."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from prompt_toolkit.filters import Condition
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from scitq.workflow.left import Left
from scitq.workflow.showing import Question, View

if TYPE_CHECKING:
    from scitq.workflow.screen import Screen


class Asks(Protocol):
    """What is shown, as far as it has questions."""

    question: Question | None


class Asking(Protocol):
    """A screen that asks."""

    @property
    def showing(self) -> Asks: ...
    def say(self, text: str, style: str = "") -> None: ...


def bindings(screen: Screen) -> KeyBindings:
    """The keys of a screen."""
    keys = KeyBindings()
    showing, acts = screen.showing, screen.acts
    is_editing = Condition(lambda: showing.view is View.EDITOR)
    is_asked = Condition(lambda: showing.question is not None)
    is_typing = Condition(lambda: showing.typing is not None)
    is_reading = Condition(lambda: showing.view is View.DIFFERENCE)
    is_free = ~is_editing & ~is_asked & ~is_typing

    def bind(*names: str, when: Any, does: Callable[[KeyPressEvent], object], eager: bool = False) -> None:
        def pressed(event: KeyPressEvent) -> None:
            screen.key(lambda: does(event))

        for name in names:
            keys.add(name, filter=when, eager=eager)(pressed)

    def moving(does: Callable[[], bool]) -> Callable[[KeyPressEvent], None]:
        def moved(event: KeyPressEvent) -> None:
            showing.said = None
            if does():
                screen.read()

        return moved

    for name, does in {
        "up": lambda: showing.move(-1), "down": lambda: showing.move(1),
        "pageup": lambda: showing.move(-showing.page_rows), "pagedown": lambda: showing.move(showing.page_rows),
        "home": lambda: showing.jump(to_end=False), "end": lambda: showing.jump(to_end=True),
    }.items():  # fmt: skip
        bind(name, when=~is_editing & ~is_typing & (~is_asked | is_reading), does=moving(does))
    bind("left", when=is_free, does=moving(lambda: showing.turn(-1)))
    bind("right", "tab", when=is_free, does=moving(lambda: showing.turn(1)))
    bind("enter", when=is_free, does=moving(showing.enter))
    bind("escape", when=is_free, does=moving(showing.back), eager=True)
    bind("?", when=is_free, does=lambda event: showing.over(View.HELP))
    bind("/", when=is_free, does=lambda event: _type(screen, ""))
    bind("c", when=is_free, does=lambda event: setattr(showing, "is_whole", not showing.is_whole))

    def acting(act: Callable[[], None]) -> Callable[[KeyPressEvent], None]:
        def acted(event: KeyPressEvent) -> None:
            showing.said = None
            act()

        return acted

    for letter, act in acts.keys().items():
        bind(letter, when=is_free, does=acting(act))
    bind("c-c", when=~is_editing, does=lambda event: screen.leave(Left.INTERRUPTED), eager=True)
    # A question
    bind("<any>", when=is_asked, does=lambda event: answer(screen, event))  # but for keys that scroll
    bind("enter", "escape", when=is_asked, does=lambda event: answer(screen, event), eager=True)
    # The filter
    bind("<any>", when=is_typing, does=lambda event: _typed(screen, event))
    bind("backspace", "c-h", when=is_typing, does=lambda event: _type(screen, (showing.typing or "")[:-1]), eager=True)
    bind("enter", when=is_typing, does=lambda event: setattr(showing, "typing", None), eager=True)
    bind("escape", when=is_typing, does=lambda event: _type(screen, None), eager=True)
    # The editor
    bind("c-s", "f2", when=is_editing, does=lambda event: acts.edited(screen.edited), eager=True)
    bind("escape", "c-c", when=is_editing, does=lambda event: acts.leave_editor(screen.edited), eager=True)
    return keys


def answer(screen: Asking, event: KeyPressEvent) -> None:
    """A key at a question."""
    question = screen.showing.question
    screen.showing.question = None
    if question is None:
        return
    does = question.answers.get(event.data.lower())
    if does is not None:
        does()
    elif question.otherwise is not None:
        question.otherwise()
    else:
        screen.say("Nothing was done.")


def _typed(screen: Screen, event: KeyPressEvent) -> None:
    if event.data.isprintable():  # no arrow
        _type(screen, (screen.showing.typing or "") + event.data)


def _type(screen: Screen, text: str | None) -> None:
    """Filter as it is typed; None: no more."""
    if screen.showing.view is View.STEPS and not screen.showing.enter():
        return
    if screen.showing.view is not View.TASKS:
        return
    screen.showing.typing = text
    if screen.showing.look_for(text or ""):
        screen.read()
