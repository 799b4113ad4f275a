"""Rows about scitq itself and its surroundings: help, completion, settings."""

from __future__ import annotations

from scitq.config import BY_KEY
from scitq.shell.table.rows import Argument, Command, Option

# The shells that words are completed in.
COMPLETED = ("bash", "zsh", "fish")

_KEY = Argument("key", metavar="KEY", takes="words:" + ",".join(BY_KEY))

SETTINGS: tuple[Command, ...] = (
    Command(
        "help", "helping:tell",
        """All commands in short; with words: what --help after them says. Or what exit codes mean: scitq help exit-codes.

        --schema: what a command prints with --json, as JSON Schema.""",
        (
            Option(("--schema",), "Of a command: what it prints with --json, as JSON Schema.", "flag"),
            Argument("words", many=True, required=False, metavar="[WORD…]", takes="topic"),
        ),
        file="none", reads=True, schema="help",
        examples=("scitq help", "scitq help task list", "scitq help exit-codes", "scitq help --schema task list"),
    ),
    Command(
        "completion", "completion:script",
        """Print what has SHELL (bash, zsh or fish) complete commands, options, names and files of scitq, and of its other programs.

        \b
        bash, in ~/.bashrc:  eval "$(scitq completion bash)"
        zsh, in ~/.zshrc:    eval "$(scitq completion zsh)"      after compinit
        fish, once:          scitq completion fish > ~/.config/fish/conf.d/scitq.fish

        Or into a file that the shell reads by itself: ~/.local/share/bash-completion/completions/scitq where bash-completion is
        installed, _scitq in a folder of zsh's $fpath.""",
        (Argument("program", metavar="SHELL", takes=f"words:{','.join(COMPLETED)}"),),
        file="none", reads=True, schema="completion",
        examples=("scitq completion bash", "scitq completion zsh", "scitq completion fish"),
    ),
    Command(
        "doctor", "doctor:doctor",
        """Say what is installed, what is missing, and what to do about it. Exit code 1 if something is a problem.

        Changes nothing, and takes less than three seconds, unless the storages are to be tried, too.""",
        (Option(("--remote-check",), "Try each storage of your rclone configuration, too.", "flag"),
         Option(("--within",), "Wait so long for answers; 2.6 if not given, 60 with --remote-check.", "seconds", metavar="SECONDS")),
        file="none", reads=True, examples=("scitq doctor",), schema="doctor",
    ),
    Command(
        "config show", "settings:show", "Your settings, and who says so: the file, the environment, or nobody.", file="none", reads=True,
        examples=("scitq config show",), schema="settings",
    ),
    Command(
        "config get", "settings:get", "One setting, as it is used.", (_KEY,), file="none", reads=True,
        examples=("scitq config get notifications.min_duration",), schema="setting",
    ),
    Command(
        "config set", "settings:set_value",
        """Write a setting into the file; its comments and all else stay as they are.

        A hook is a program with its arguments, each a word of its own.""",
        (_KEY, Argument("words", many=True, metavar="VALUE…")), file="none", wraps=True,
        examples=("scitq config set notifications.desktop true", "scitq config set hooks.batch_end touch batch-has-ended"),
        schema="setting",
    ),
    Command(
        "config unset", "settings:unset", "Take a setting out of the file.", (_KEY,), file="none",
        examples=("scitq config unset send_limit",), schema="setting",
    ),
    Command(
        "config edit", "settings:edit", "Open the file in your editor, and check it afterwards.", file="none", terminal=True,
        examples=("scitq config edit",),
    ),
    Command(
        "config path", "settings:path", "Where the file is, or would be.", file="none", reads=True, examples=("scitq config path",),
        schema="settings-path",
    ),
    Command(
        "config check", "settings:check", "Say what in the file makes no sense, with its line. Exit code 1 if anything.", file="none",
        reads=True, examples=("scitq config check",), schema="settings-checked",
    ),
)  # fmt: skip
