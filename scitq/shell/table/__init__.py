"""The table of commands: one module for each group of nouns; the order is that of `scitq --help`."""

from __future__ import annotations

from scitq.shell.table.batches import BATCHES
from scitq.shell.table.cache import CACHE
from scitq.shell.table.data import FETCH as FETCH
from scitq.shell.table.executions import EXECUTIONS
from scitq.shell.table.files import FILES
from scitq.shell.table.flavors import FLAVORS
from scitq.shell.table.live import LIVE
from scitq.shell.table.money import MONEY
from scitq.shell.table.providers import PROVIDERS
from scitq.shell.table.rows import SHELLS as SHELLS
from scitq.shell.table.rows import Argument as Argument
from scitq.shell.table.rows import Command as Command
from scitq.shell.table.rows import Option as Option
from scitq.shell.table.running import LAUNCH as LAUNCH
from scitq.shell.table.running import RUNNING
from scitq.shell.table.settings import SETTINGS
from scitq.shell.table.tasks import TASKS
from scitq.shell.table.workers import WORKERS
from scitq.shell.table.workflows import WORKFLOWS

COMMANDS: tuple[Command, ...] = (
    *RUNNING,
    *LIVE,
    *WORKFLOWS,
    *TASKS,
    *EXECUTIONS,
    *CACHE,
    *WORKERS,
    *FLAVORS,
    *PROVIDERS,
    *BATCHES,
    *MONEY,
    *FILES,
    *SETTINGS,
)
