"""`scitq shell`, and `scitq` alone at a terminal: which kind of session it is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import SimpleNamespace

from scitq.errors import BadInput
from scitq.shell.interactive.lines import missing
from scitq.shell.interactive.session import Left, Session, there


def shell(_: None, args: SimpleNamespace) -> int:
    """Commands from a terminal, from a line that was given, or from standard input."""
    if getattr(args, "surroundings", None) is not None:
        raise BadInput("this is the shell already. To another file: use FILE")
    path, as_json = there(args.file), bool(args.screen.as_json)
    if args.line is None and sys.stdin.isatty() and sys.stdout.isatty() and not as_json:
        from scitq.shell.interactive.prompt import Prompt

        return Prompt(Session(path, is_interactive=True)).run()
    session = Session(path, is_interactive=False, as_json=as_json)
    if args.line is not None:
        return _script(session, iter([args.line]), keeps_going=args.keep_going, numbered=False)
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="surrogateescape")
    return _script(session, iter(sys.stdin.readline, ""), keeps_going=args.keep_going)


def _script(session: Session, lines: Iterator[str], *, keeps_going: bool, numbered: bool = True) -> int:
    """Run lines as they come, up to the first that fails; gives its exit code."""
    text, worst, number, first = "", 0, 0, 1
    try:
        session.hear()
        for line in lines:
            number += 1
            if not text:
                first = number
            text += line
            if missing(text.removesuffix("\n")):
                continue
            code = session.run(text, keeps_going=keeps_going)
            text = ""
            if code and not keeps_going:
                return _stopped(session, code, first, numbered=numbered)
            worst = worst or code
        if text.strip():
            code = session.run(text, keeps_going=keeps_going)
            if code and not keeps_going:
                return _stopped(session, code, first, numbered=numbered)
            worst = worst or code
    except Left:
        pass
    finally:
        if stays := session.close():
            session.between.say(stays)
    return worst


def _stopped(session: Session, code: int, line: int, *, numbered: bool) -> int:
    if numbered and code != 141:
        session.between.say(f"Stopped at line {line}, with exit code {code}.")
    return code
