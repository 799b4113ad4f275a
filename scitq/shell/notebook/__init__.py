"""scitq in notebooks: what `%load_ext scitq` brings. Light: the magics are loaded by it, everything else by them."""

from __future__ import annotations

from typing import Any


def load_ipython_extension(shell: Any) -> None:
    """`%load_ext scitq`: %scitq, %%scitq, %%task, %scitq_file."""
    from scitq.shell.notebook.magics import desk_of

    desk_of(shell).register()


def unload_ipython_extension(shell: Any) -> None:
    """`%unload_ext scitq`, and what `%reload_ext scitq` begins with."""
    from scitq.shell.notebook.magics import desk_of

    desk_of(shell).unregister()
