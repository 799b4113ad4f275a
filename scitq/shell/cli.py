"""The program: options and arguments from the table of `table`, the file opened, errors said in a sentence.

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
from scitq.shell.table import COMMANDS, FETCH, LAUNCH, SHELLS, Argument, Command, Option
from scitq.shell.table.data import HELP
from scitq.shell.table.former import FORMER, SERVER

if TYPE_CHECKING:
    from pathlib import Path

    from scitq.engine import Engine
    from scitq.shell.show import Screen
    from scitq.shell.surroundings import Surroundings
    from scitq.store.moved import Moved

_SUMMARY = """A scientific task queue in one file.

\b
First steps:
  scitq demo                  real work on real reads, here
  scitq run -- ls -l          one task, now
  scitq launch -- ls -l       queue a task
  scitq up                    drive what is queued
  scitq status                what runs, what needs you
  scitq                       all of these at a prompt, with completion

The file is -f FILE, else $SCITQ_FILE, else the nearest *.scitq here or in a folder above.

Completion in bash, zsh or fish: scitq completion --help. All commands in short, exit codes: scitq help --help.
"""
_GROUPS = {
    "task": "One task or many.",
    "execution": "Attempts at tasks.",
    "worker": "Machines that run tasks.",
    "job": "Long operations, such as preparing a worker.",
    "cloud": "Machines that are rented.",
    "batch": "Tasks under one name.",
    "flavor": "What could be rented, best first.",
    "provider": "Who rents machines.",
    "recruiter": "Which workers serve a batch.",
    "cache": "Results that tasks may take.",
    "workflow": "Workflows that scripts declare.",
    "config": "What belongs to you, not to a file.",
    "fetch": HELP,
}
_SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_TYPES: dict[str, Any] = {
    "text": click.STRING, "whole": click.INT, "number": click.FLOAT, "seconds": click.FLOAT, "pair": click.STRING, "two": click.STRING,
    "flag": click.BOOL,
}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """`scitq` and `scitq-manage`."""
    sys.exit(run(program(), sys.argv[1:] if arguments is None else list(arguments), "scitq"))


def launch(arguments: Sequence[str] | None = None) -> NoReturn:
    """`scitq-launch`: what `scitq launch` is, under scitq 1's name."""
    _complete("scitq-launch")
    sys.exit(
        run(command(LAUNCH, is_alone=True), sys.argv[1:] if arguments is None else list(arguments), "scitq-launch")
    )


def fetch(arguments: Sequence[str] | None = None) -> NoReturn:
    """`scitq-fetch`: what `scitq fetch` is, alone."""
    _complete("scitq-fetch")
    sys.exit(run(fetch_program(), sys.argv[1:] if arguments is None else list(arguments), "scitq-fetch"))


def _complete(program: str) -> None:
    """Answer a shell that asks how a line may go on, if that is what this process is for."""
    if "_SCITQ_COMPLETING" in os.environ:
        from scitq.shell import completion

        sys.exit(completion.answer(program))


def run(root: click.Command, arguments: list[str], name: str, *, surroundings: Surroundings | None = None) -> int:
    """Run the program; gives its exit code. In surroundings, with the engine and on the screen that they have."""
    try:
        try:
            code = root.main(arguments, prog_name=name, standalone_mode=False, obj=surroundings)
            return code if isinstance(code, int) else 0
        except click.exceptions.Exit as end:
            return end.exit_code
        except click.ClickException as problem:
            return _refuse(problem, "--json" in arguments, surroundings)
        except (KeyboardInterrupt, click.Abort):
            return 130
    except BrokenPipeError:
        return _seen_enough()


def _seen_enough() -> int:
    """Whoever read us has. What Python still has buffered must not complain at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return 141


def _screen(surroundings: Surroundings | None, as_json: bool) -> Screen:
    if surroundings is not None:
        return surroundings.screen(as_json)
    from scitq.shell.show import Screen

    return Screen(as_json=as_json)


def _refuse(problem: click.ClickException, as_json: bool, surroundings: Surroundings | None) -> int:
    text = problem.format_message()
    if isinstance(problem, click.NoSuchOption):
        from scitq.shell import wrongly

        text = wrongly.option(problem.option_name, problem.ctx.command if problem.ctx is not None else None)
    screen = _screen(surroundings, as_json)
    if isinstance(problem, click.UsageError) and problem.ctx is not None and not as_json:
        path = problem.ctx.command_path
        if surroundings is None:
            screen.say(problem.ctx.get_usage())
            text = f"{text}\nSee {path} --help"
        elif " " in path:
            text = f"{text}\nSee {path.partition(' ')[2]} --help"
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


# What may stand between `scitq run` and the script of a workflow; those that take a word.
_OF_SCRIPTS = {
    "--plan": 0,
    "--offers": 0,
    "--fresh": 0,
    "--prune": 0,
    "--json": 0,
    "-v": 0,
    "--verbose": 0,
    "-f": 1,
    "--file": 1,
    "-y": 0,
    "--yes": 0,
}


def _is_script(words: Sequence[str]) -> bool:
    """Whether the first word that is no option is a Python file: then `scitq run` is about its workflows, not a command.
    After `--`, and among options of a task, it is a command."""
    rest = list(words)
    while rest and (rest[0] in _OF_SCRIPTS or rest[0].startswith("--file=")):
        del rest[: 1 + _OF_SCRIPTS.get(rest[0], 0)]
    return bool(rest) and rest[0].endswith(".py") and os.path.isfile(rest[0])


class Group(click.Group):
    """Commands by name; a wrong name is answered with the nearest right one. `others`: further names of a command."""

    def __init__(self, *args: Any, **given: Any) -> None:
        super().__init__(*args, **given)
        self.others: dict[str, str] = {}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, self.others.get(cmd_name, cmd_name))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if (
            name == "debug" and args[1:2] == ["run"] and "task" in self.commands and not os.path.isfile("run")
        ):  # scitq 1's word
            return "task debug", self.commands["task"].commands["debug"], args[2:]  # type: ignore[attr-defined]
        if name == "run" and "workflow" in self.commands and _is_script(args[1:]):
            return "workflow run", self.commands["workflow"].commands["run"], args[1:]  # type: ignore[attr-defined]
        if args and self.get_command(ctx, name) is None and not name.startswith("-"):
            path = " ".join([*ctx.command_path.split()[1:], name])
            if (became := FORMER.get(path)) is not None:
                ctx.fail(f"there is no scitq {path}. {became}")
            from scitq.shell import wrongly

            ctx.fail(wrongly.command(name, ctx.command_path, self.commands))
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)  # as in the table: the order in which one meets them


def program() -> Group:
    """`scitq` with all its commands."""
    root = Group(
        name="scitq", help=_SUMMARY, no_args_is_help=False, invoke_without_command=True,
        context_settings=_SETTINGS,
    )  # fmt: skip
    root.params += [*_common({"-f", "-v"}), click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False,
                    help="Say which version this is.", callback=_version)]  # fmt: skip
    # Of scitq-manage in version 1: what it was asked was waited for, for ever or so long.
    root.params += [
        click.Option(["-s", "--server"], hidden=True, expose_value=False, is_eager=True, callback=_no_server),
        click.Option(["-t", "--timeout"], type=click.FLOAT, hidden=True, expose_value=False),
    ]
    root.callback = _bare
    for row in (*COMMANDS, *FETCH):
        *group, name = row.path.split()
        place = root
        if group:
            found = root.commands.get(group[0])
            if not isinstance(found, Group):
                found = Group(
                    name=group[0], help=_GROUPS[group[0]], invoke_without_command=True, context_settings=_SETTINGS
                )
                found.params += _common(set(), has_file=group[0] != "fetch")
                found.callback = _bare
                root.add_command(found)
            place = found
        place.add_command(command(row), name)
        place.others |= dict.fromkeys(row.aliases, name)
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
                    type=click.UNPROCESSED if one.many else click.INT if one.is_whole else click.STRING,
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
        epilog=_examples(row),
        help=row.help,
        hidden=row.hidden,
        short_help=row.help.splitlines()[0],
        context_settings={**_SETTINGS, "allow_interspersed_args": not row.wraps},
    )


def _examples(row: Command) -> str | None:
    """The end of its help."""
    if not row.examples:
        return None
    return "\n".join(("\b", "Examples:", *(f"  {line}" for line in row.examples)))


def _option(one: Option) -> click.Option:
    return click.Option(
        [*one.flags, one.name],
        help=one.help, type=_TYPES[one.kind], is_flag=one.kind == "flag", multiple=one.many, metavar=one.metavar,
        nargs=2 if one.kind == "two" else 1,
        default=one.default if one.kind != "flag" else False, hidden=one.hidden, show_default=one.default is not None,
    )  # fmt: skip


def _common(free: set[str], *more: str | None, has_file: bool = True) -> list[click.Parameter]:
    """What every command takes; the short letters where they are free."""
    file = ["--file", *(["-f"] if "-f" in free else [])]
    debug = ["--verbose", *(["-v"] if "-v" in free else [])]
    found: list[click.Parameter] = [
        click.Option([*file, "_file"], metavar="FILE", help="The state file.", hidden=not has_file),
        click.Option(["--json", "_json"], is_flag=True, help="Print JSON."),
        click.Option(
            ["--no-pager", "_no_pager"], is_flag=True, help="Print long answers without the pager of your settings."
        ),
        click.Option([*debug, "_verbose"], is_flag=True, help="Tell what goes on inside."),
    ]
    if "--version" in more:
        found.append(click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False,
                     help="Say which version this is.", callback=_version))  # fmt: skip
    return found


def _no_server(ctx: click.Context, _: click.Parameter, given: str | None) -> None:
    if given is not None:
        ctx.fail(SERVER)


def _version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        screen = _screen(ctx.obj, "--json" in sys.argv)
        screen.json({"version": VERSION}) if screen.as_json else screen.out(f"scitq {VERSION}")
        ctx.exit()


# What `_common` adds, by the names that a callback has it under.
_COMMON = ("_file", "_json", "_verbose", "_no_pager")


# --- doing it -----------------------------------------------------------------------------------------------------------------


def _remember(**given: Any) -> None:
    """Options may stand before the command as well as after it: the nearest one wins."""
    context = click.get_current_context()
    before = dict(context.meta.get("scitq.given", {}))
    context.meta["scitq.given"] = {**before, **{key: value for key, value in given.items() if value}}


def _bare(**given: Any) -> int:
    _remember(**given)
    context = click.get_current_context()
    if context.invoked_subcommand is not None:
        return 0
    is_root = context.parent is None and context.obj is None and not given.get("_json")
    if is_root and context.command.name == "scitq" and os.isatty(0) and os.isatty(1):
        shell = next(row for row in COMMANDS if row.path == "shell")
        return _do(shell, {"line": None, "keep_going": False, **dict.fromkeys(_COMMON)})
    _screen(context.obj, False).out(context.get_help())
    return 0


def _do(row: Command, given: dict[str, Any]) -> int:
    from scitq.errors import ScitqError

    context = click.get_current_context()
    common, surroundings = context.meta.get("scitq.given", {}), context.obj
    file, as_json, verbose, no_pager = (given.pop(key) or common.get(key) for key in _COMMON)
    screen = _screen(surroundings, bool(as_json))
    screen.has_pager = not no_pager
    args = SimpleNamespace(**given, screen=screen, file=file, common=common, surroundings=surroundings)
    if any(one.takes for one in row.parameters):
        from scitq.shell import wrongly

        if (wrong := wrongly.value(row, given)) is not None:
            raise click.UsageError(wrong, context)
    try:
        _log(screen, verbose=bool(verbose), with_time=bool(given.get("detached")))
        _look_at_settings(row, screen)
        with _opened(row, file, args) as engine:
            if (there := _elsewhere(row, engine)) is not None and engine is not None:
                from scitq.shell.forwarding import passed_on

                code = passed_on(row, there, given, screen, engine.path.name, verbose=bool(verbose))
                if code is not None:
                    return code
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


def _look_at_settings(row: Command, screen: Screen) -> None:
    """What of the settings makes no sense is said, and does no more harm than that; `config` and `doctor` say it themselves."""
    from scitq import config

    if row.path != "doctor" and not row.path.startswith("config ") and config.path().exists():
        for problem in config.load().problems:
            screen.say(f"{problem} (Not used. scitq config edit)")


def _elsewhere(row: Command, engine: Engine | None) -> Moved | None:
    """Where the file is driven, if that is not here, and if the command is not about just that."""
    if engine is None or row.path in ("promote", "demote"):
        return None
    from scitq.store import moved

    return moved.found(engine._reader())


@contextlib.contextmanager
def _opened(row: Command, file: str | None, args: SimpleNamespace) -> Iterator[Engine | None]:
    surroundings: Surroundings | None = args.surroundings
    if row.file == "none" or getattr(args, "repair", None):  # a damaged file may not even open
        _begin_collecting(surroundings)
        yield None
        return
    if surroundings is not None and (kept := _kept(row, file, surroundings)) is not None:
        with _explained(kept.path):
            yield kept
        return
    from scitq.engine import Engine, find

    path = find(file) if row.file == "made" else _there(file)
    drives = row.drives if isinstance(row.drives, bool) else any(getattr(args, name) for name in row.drives)
    if drives:
        import scitq.driver  # noqa: F401  (it would be loaded by the first submission)
    _begin_collecting(surroundings)
    with Engine(path, drive=drives) as engine, _explained(path):
        yield engine


def _kept(row: Command, file: str | None, surroundings: Surroundings) -> Engine | None:
    """The engine that was open before this command, and stays open after it; None: the command is about another file."""
    from pathlib import Path

    from scitq.engine import find

    if (engine := surroundings.engine_of(Path(file) if file else None)) is not None:
        return engine
    if surroundings.engine_of(None) is not None or surroundings.adopt is None:
        return None
    return surroundings.adopt(find(file) if row.file == "made" else _there(file))


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    from scitq.store.faults import explain

    try:
        yield
    except Exception as error:
        better = explain(error, path)
        if better is error:
            raise
        raise better from error  # SQLite's, while reading: a damaged file, a broken disk


def _begin_collecting(surroundings: Surroundings | None) -> None:
    """Garbage may come from here on (see `scitq.__main__`); what was loaded is none, now or at the end."""
    if surroundings is None:  # else the process is at work since long
        gc.freeze()
        gc.enable()


def _there(file: str | None) -> Path:
    """The state file that is there: looking at what is not there must not make it."""
    from scitq.errors import BadInput
    from scitq.finding import looked_for

    path = looked_for(file)
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
