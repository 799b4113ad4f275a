"""`agent.pyz agent|keeper|… --root DIR`: the one program that travels."""

from __future__ import annotations

import contextlib
import json
import os
import sys

from scitq.remote.agent import VERSION

USAGE = """usage: agent.pyz agent  --root DIR [--linger SECONDS] [--slots N] [--keeper-command JSON]
       agent.pyz keeper --root DIR [--slots N] [--ready-fd N]
       agent.pyz container
       agent.pyz ensure --root DIR [--linger SECONDS] [--port yes]
       agent.pyz stop|remove|dial|sandbox|try --root DIR
       agent.pyz enter  --root DIR --execution ID
       agent.pyz --version"""
FLAGS = ("-I", "-S", "-X", "utf8")
"""How Python is started: nothing of the user's or the site's is looked at, text is UTF-8 wherever we are."""


def main(arguments: list[str]) -> int:
    """Run the role that is named first."""
    if arguments == ["--version"]:
        print(VERSION)
        return 0
    if arguments == ["container"]:
        from scitq.remote.agent import container

        return container.main()
    role, options = (arguments[0], arguments[1:]) if arguments else ("", [])
    values = dict(zip(options[::2], options[1::2]))  # noqa: B905 strict came with 3.10, an odd rest is refused below
    allowed = {
        "agent": {"--root", "--linger", "--slots", "--keeper-command"},
        "keeper": {"--root", "--slots", "--ready-fd"},
        "ensure": {"--root", "--linger", "--port"},
        "stop": {"--root"},
        "remove": {"--root"},
        "dial": {"--root"},
        "sandbox": {"--root"},
        "enter": {"--root", "--execution"},
        "try": {"--root"},
    }
    if role not in allowed or len(options) % 2 or not set(values) <= allowed[role] or "--root" not in values:
        print(USAGE, file=sys.stderr)
        return 2
    folder = os.path.abspath(values["--root"])
    slots = int(values["--slots"]) if "--slots" in values else None
    ready = int(values["--ready-fd"]) if "--ready-fd" in values else None
    _close_inherited(ready)
    if role == "keeper":
        from scitq.remote.agent import keeper, machine

        return keeper.main(folder, machine.cpus() if slots is None else slots, ready)
    own = [sys.executable, *FLAGS, os.path.abspath(sys.argv[0])]
    if role == "try":
        from scitq.remote.agent import trial

        return trial.main(folder, own)
    if role != "agent":
        from scitq.remote.agent import starting

        if role == "dial":
            return starting.dial(folder)
        if role in ("sandbox", "enter"):
            from scitq.remote.agent import sandbox

            return sandbox.main(folder) if role == "sandbox" else sandbox.enter(folder, values.get("--execution", ""))
        return starting.main(role, folder, own, float(values.get("--linger", "60")), "--port" in values)
    from scitq.remote.agent import agent

    command = json.loads(values["--keeper-command"]) if "--keeper-command" in values else [*own, "keeper"]
    return agent.main(folder, float(values.get("--linger", "60")), slots, command)


def _close_inherited(ready: int | None) -> None:
    """Close what somebody left open for us by mistake: it would stay open in every task."""
    for name in os.listdir("/dev/fd"):
        if int(name) > 2 and int(name) != ready:
            with contextlib.suppress(OSError):
                os.close(int(name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
