"""While a screen is shown, what the program prints or logs is put aside, and written once the normal screen is back."""

from __future__ import annotations

import io
import logging
import sys
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

# So much is kept of what is printed meanwhile.
KEPT = 1000


class Aside:
    """A context manager. `on_line` hears of each line that is put aside, from whichever thread."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._kept: deque[Callable[[], object]] = deque(maxlen=KEPT)
        self._before: tuple[TextIO, TextIO] = (sys.stdout, sys.stderr)
        self._handlers: list[tuple[Any, TextIO]] = []
        self._direct: list[tuple[logging.Logger, logging.Handler, logging.Handler]] = []
        self._asides: list[_Kept] = []

    def __enter__(self) -> Aside:
        self._before = (sys.stdout, sys.stderr)
        out, err = self._asides = [_Kept(stream, self._keep) for stream in self._before]
        sys.stdout, sys.stderr = out, err
        # Those that log have taken hold of a stream long ago.
        loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
        streams = {id(self._before[0]): out, id(self._before[1]): err, id(sys.__stdout__): out, id(sys.__stderr__): err}
        for handler in {id(one): one for logger in loggers for one in logger.handlers}.values():
            if isinstance(handler, logging.StreamHandler) and (aside := streams.get(id(handler.stream))) is not None:
                self._handlers.append((handler, handler.stream))
                handler.setStream(aside)
        for logger in loggers:
            if isinstance(logger, logging.Logger):  # some are only names of folders of such
                for handler in list(logger.handlers):
                    if getattr(handler, "is_on_terminal", False):
                        self._put_aside(logger, handler)
        return self

    def _put_aside(self, logger: logging.Logger, handler: logging.Handler) -> None:
        """A handler that writes to the terminal past every stream of ours is given its records afterwards."""
        place = _Records(lambda record: self._keep_record(handler, record))
        place.setLevel(handler.level)
        logger.handlers[logger.handlers.index(handler)] = place
        self._direct.append((logger, handler, place))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout, sys.stderr = self._before
        for handler, stream in self._handlers:
            handler.setStream(stream)
        for logger, direct, place in self._direct:
            if place in logger.handlers:
                logger.handlers[logger.handlers.index(place)] = direct
        for say in self._kept:
            say()
        for aside, stream in zip(self._asides, self._before, strict=True):
            stream.write(aside.rest)
            stream.flush()

    def _keep(self, stream: TextIO, line: str) -> None:
        self._kept.append(lambda: (stream.write(line), stream.flush()))
        if line.strip():
            self._on_line(line.strip())

    def _keep_record(self, handler: logging.Handler, record: logging.LogRecord) -> None:
        self._kept.append(lambda: handler.handle(record))
        self._on_line(record.getMessage())


class _Records(logging.Handler):
    """Hands records on."""

    def __init__(self, keep: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._keep = keep

    def emit(self, record: logging.LogRecord) -> None:
        """One of them."""
        self._keep(record)


class _Kept(io.TextIOBase):
    """Takes whole lines; what has no end yet waits for it in `rest`."""

    def __init__(self, stream: TextIO, keep: Callable[[TextIO, str], None]) -> None:
        super().__init__()
        self._stream = stream
        self._keep = keep
        self.rest = ""

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._stream.fileno()

    def write(self, text: str) -> int:
        *whole, self.rest = (self.rest + text).split("\n")
        for line in whole:
            self._keep(self._stream, line + "\n")
        return len(text)
