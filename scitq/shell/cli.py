"""The program: options and arguments from the table of `commands`, the file opened, errors said in a sentence.

Completion is click's own: `eval "$(_SCITQ_COMPLETE=bash_source scitq)"` in ~/.bashrc (zsh_source, fish_source for others).
Loads click and the table only; the engine is loaded by the command that needs it, so that `--help` is quick.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NoReturn

import click

from scitq._version import VERSION
from scitq.shell.commands import COMMANDS, LAUNCH, SHELLS, Argument, Command, Option
from scitq.shell.fetchtable import FETCH, HELP

if TYPE_CHECKING:
    from pathlib import Path

    from scitq.engine import Engine
    from scitq.shell.show import Screen

_SUMMARY = """A scientific task queue in one file.

\b
First steps:
  scitq demo                  real work on real reads, here
  scitq run -- ls -l          one task, now
  scitq launch -- ls -l       queue a task
  scitq up                    drive what is queued
  scitq status                what runs, what needs you

The file is -f FILE, else $SCITQ_FILE, else the nearest *.scitq here or in a folder above.

\b
Completion:  eval "$(_SCITQ_COMPLETE=bash_source scitq)"
"""
_GROUPS = {
    "task": "One task or many.",
    "worker": "Machines that run tasks.",
    "batch": "Tasks under one name.",
    "cache": "Results that tasks may take.",
    "config": "What belongs to you, not to a file.",
    "fetch": HELP,
}
_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_TYPES: dict[str, Any] = {
    "text": click.STRING, "whole": click.INT, "number": click.FLOAT, "seconds": click.FLOAT, "pair": click.STRING, "flag": click.BOOL,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """`scitq` and `scitq-manage`."""
    sys.exit(run(program(), sys.argv[1:] if arguments is None else list(arguments), "scitq"))


def launch(arguments: Sequence[str] | None = None) -> NoReturn:
    """`scitq-launch`: what `scitq launch` is, under scitq 1's name."""
    sys.exit(
        run(command(LAUNCH, is_alone=True), sys.argv[1:] if arguments is None else list(arguments), "scitq-launch")
    )


def fetch(arguments: Sequence[str] | None = None) -> NoReturn:
    """`scitq-fetch`: what `scitq fetch` is, alone."""
    sys.exit(run(fetch_program(), sys.argv[1:] if arguments is None else list(arguments), "scitq-fetch"))


def run(root: click.Command, arguments: list[str], name: str) -> int:
    """Run the program; gives its exit code."""
    try:
        try:
            code = root.main(arguments, prog_name=name, standalone_mode=False)
            return code if isinstance(code, int) else 0
        except click.exceptions.Exit as end:
            return end.exit_code
        except click.ClickException as problem:
            return _refuse(problem, "--json" in arguments)
        except (KeyboardInterrupt, click.Abort):
            return 130
    except BrokenPipeError:
        return _seen_enough()


def _seen_enough() -> int:
    """Whoever read us has. What Python still has buffered must not complain at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141


def _refuse(problem: click.ClickException, as_json: bool) -> int:
    from scitq.shell.show import Screen

    text = problem.format_message()
    screen = Screen(as_json=as_json)
    if isinstance(problem, click.UsageError) and problem.ctx is not None and not as_json:
        screen.say(problem.ctx.get_usage())
        text = f"{text}\nSee {problem.ctx.command_path} --help"
    screen.error(text)
    return problem.exit_code


# --- from the table to click ------------------------------------------------------------------------------------------------


class Words(click.Command):
    """A command whose `--shell` may stand alone or take the name of a shell."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, self._settle_shell(ctx, args))

    def _settle_shell(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = [one for one in self.params if isinstance(one, click.Option)]
        if not any("--shell" in one.opts for one in options):
            return args
        takes_value = {name for one in options if not one.is_flag for name in one.opts} - {"--shell"}
        settled: list[str] = []
        rest = list(args)
        while rest:
            word = rest.pop(0)
            if word == "--" or (not ctx.allow_interspersed_args and not (word.startswith("-") and word != "-")):
                return [*settled, word, *rest]
            if word == "--shell":
                is_named = bool(rest) and os.path.basename(rest[0]) in SHELLS
                word = f"--shell={rest.pop(0) if is_named else 'sh'}"
            settled.append(word)
            if word in takes_value and rest:
                settled.append(rest.pop(0))
        return settled


class Group(click.Group):
    """Commands by name; a wrong name is answered with the nearest right one."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if args and self.get_command(ctx, name) is None and not name.startswith("-"):
            import difflib

            known = self.list_commands(ctx)
            near = (
                difflib.get_close_matches(name, known, 1, 0.5)
                or [one for one in known if name and one.startswith(name)][:1]
            )
            elsewhere = [row.path for row in (*COMMANDS, *FETCH) if row.path.split()[-1] == name]
            if elsewhere:
                hint = f"Did you mean: scitq {elsewhere[0]}"
            else:
                hint = f"Did you mean: {ctx.command_path} {near[0]}" if near else f"There are: {', '.join(known)}."
            ctx.fail(f"there is no command {name!r}. {hint}")
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # as in the table: the order in which one meets them


def program() -> click.Group:
    """`scitq` with all its commands."""
    root = Group(
        name="scitq", help=_SUMMARY, no_args_is_help=False, invoke_without_command=True,
        context_settings=_SETTINGS,
    )  # fmt: skip
    root.params += [*_common({"-f", "-v"}), click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False,
                    help="Say which version this is.", callback=_version)]  # fmt: skip
    root.callback = _bare
    for row in (*COMMANDS, *FETCH):
        *group, name = row.path.split()
        place: click.Group = root
        if group:
            found = root.commands.get(group[0])
            if not isinstance(found, click.Group):
                found = Group(
                    name=group[0], help=_GROUPS[group[0]], invoke_without_command=True, context_settings=_SETTINGS
                )
                found.params += _common(set(), has_file=group[0] != "fetch")
                found.callback = _bare
                root.add_command(found)
            place = found
        place.add_command(command(row), name)
    return root


def fetch_program() -> click.Group:
    """`scitq-fetch` with all its verbs."""
    root = Group(name="scitq-fetch", help=HELP, invoke_without_command=True, context_settings=_SETTINGS)
    root.params += _common({"-v"}, "--version", has_file=False)
    root.params.append(
        click.Option(["-p", "--process", "_parallel"], type=click.INT, hidden=True)
    )  # where scitq 1 has it
    root.callback = _bare
    for row in FETCH:
        root.add_command(command(row), row.path.split()[-1])
    return root


def command(row: Command, *, is_alone: bool = False) -> click.Command:
    """One row as click has it."""
    params: list[click.Parameter] = []
    taken: set[str] = set()
    for one in row.parameters:
        if isinstance(one, Argument):
            params.append(
                click.Argument(
                    [one.name],
                    nargs=-1 if one.many else 1,
                    required=one.required,
                    metavar=one.metavar,
                    type=click.UNPROCESSED if one.many else click.STRING,
                )
            )
        else:
            params.append(_option(one))
            taken |= set(one.flags)
    free = {"-f", "-v"} - taken
    params += _common(free, "--version" if is_alone else None, has_file=row not in FETCH)
    return Words(
        name=row.path.split()[-1] if not is_alone else "scitq-launch",
        params=params,
        callback=lambda **given: _do(row, given),
        help=row.help,
        hidden=row.hidden,
        short_help=row.help.splitlines()[0],
        context_settings={**_SETTINGS, "allow_interspersed_args": not row.wraps},
    )


def _option(one: Option) -> click.Option:
    return click.Option(
        [*one.flags, one.name],
        help=one.help, type=_TYPES[one.kind], is_flag=one.kind == "flag", multiple=one.many, metavar=one.metavar,
        default=one.default if one.kind != "flag" else False, hidden=one.hidden, show_default=one.default is not None,
    )  # fmt: skip


def _common(free: set[str], *more: str | None, has_file: bool = True) -> list[click.Parameter]:
    """What every command takes; the short letters where they are free."""
    file = ["--file", *(["-f"] if "-f" in free else [])]
    debug = ["--verbose", *(["-v"] if "-v" in free else [])]
    found: list[click.Parameter] = [
        click.Option([*file, "_file"], metavar="FILE", help="The state file.", hidden=not has_file),
        click.Option(["--json", "_json"], is_flag=True, help="Print JSON."),
        click.Option([*debug, "_verbose"], is_flag=True, help="Tell what goes on inside."),
    ]
    if "--version" in more:
        found.append(click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False,
                     help="Say which version this is.", callback=_version))  # fmt: skip
    return found


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from scitq.shell.show import Screen

        screen = Screen(as_json="--json" in sys.argv)
        screen.json({"version": VERSION}) if screen.as_json else screen.out(f"scitq {VERSION}")
        ctx.exit()


# --- doing it -----------------------------------------------------------------------------------------------------------------


def _remember(**given: Any) -> None:
    """Options may stand before the command as well as after it: the nearest one wins."""
    context = click.get_current_context()
    before = dict(context.meta.get("scitq.given", {}))
    context.meta["scitq.given"] = {**before, **{key: value for key, value in given.items() if value}}


def _bare(**given: Any) -> None:
    _remember(**given)
    context = click.get_current_context()
    if context.invoked_subcommand is None:
        from scitq.shell.show import Screen

        Screen().out(context.get_help())


def _do(row: Command, given: dict[str, Any]) -> int:
    from scitq.errors import ScitqError
    from scitq.shell.show import Screen

    common = click.get_current_context().meta.get("scitq.given", {})
    file, as_json, verbose = (given.pop(key) or common.get(key) for key in ("_file", "_json", "_verbose"))
    screen = Screen(as_json=bool(as_json))
    args = SimpleNamespace(**given, screen=screen, file=file, common=common)
    try:
        _log(screen, verbose=bool(verbose), with_time=bool(given.get("detached")))
        with _opened(row, file, args) as engine:
            return screen.answer(row.function()(engine, args))
    except ScitqError as problem:
        screen.error(str(problem))
        return 1
    except BrokenPipeError:
        return _seen_enough()  # click would make 1 of it
    except KeyboardInterrupt:
        raise
    except OSError as problem:
        screen.error(f"{problem.filename}: {problem.strerror}." if problem.filename else f"{problem}.")
        return 1
    finally:
        screen.clear_line()


@contextlib.contextmanager
def _opened(row: Command, file: str | None, args: SimpleNamespace) -> Iterator[Engine | None]:
    if row.file == "none" or getattr(args, "repair", None):  # a damaged file may not even open
        _begin_collecting()
        yield None
        return
    from scitq.engine import Engine, find
    from scitq.store.faults import explain

    path = find(file) if row.file == "made" else _there(file)
    drives = row.drives if isinstance(row.drives, bool) else any(getattr(args, name) for name in row.drives)
    if drives:
        import scitq.driver  # noqa: F401  (it would be loaded by the first submission)
    _begin_collecting()
    with Engine(path, drive=drives) as engine:
        try:
            yield engine
        except Exception as error:
            better = explain(error, path)
            if better is error:
                raise
            raise better from error  # SQLite's, while reading: a damaged file, a broken disk


def _begin_collecting() -> None:
    """Garbage may come from here on (see `scitq.__main__`); what was loaded is none, now or at the end."""
    gc.freeze()
    gc.enable()


def _there(file: str | None) -> Path:
    """The state file that is there: looking at what is not there must not make it."""
    import logging

    from scitq.engine import find
    from scitq.errors import BadInput

    logger = logging.getLogger("scitq")
    before, logger.disabled = logger.disabled, True
    try:
        path = find(file)
    finally:
        logger.disabled = before
    if path.exists():
        return path
    if file or os.environ.get("SCITQ_FILE"):
        raise BadInput(f"{path}: there is no such state file. To make it: scitq -f {path} launch COMMAND")
    raise BadInput(
        f"there is no state file in {path.parent} or above it. scitq launch COMMAND makes one; -f FILE names another."
    )


def _log(screen: Screen, *, verbose: bool, with_time: bool) -> None:
    import logging

    from scitq.shell.show import Log

    logger = logging.getLogger("scitq")
    logger.handlers[:] = [Log(screen, with_time=with_time or verbose)]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO if with_time else logging.WARNING)
    logger.propagate = False


if __name__ == "__main__":
    main()
