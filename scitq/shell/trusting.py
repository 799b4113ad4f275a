"""`scitq worker trust`: a host's key is shown, and accepted when its reader says so. Nothing else accepts one."""

from __future__ import annotations

import contextlib
import getpass
import sys
from types import SimpleNamespace

from scitq.errors import HostError, HostKeyChanged, HostKeyUnknown
from scitq.remote import hostkeys
from scitq.remote.hostkeys import HostKey
from scitq.shell.answers import Text
from scitq.shell.editing import Unconfirmed
from scitq.shell.show import Screen


def trust(_: None, args: SimpleNamespace) -> Text:
    """Show the key of a host and accept it."""
    from scitq.remote import ssh  # heavy

    screen: Screen = args.screen
    name, key, problem = ssh.trust(args.host, passphrase)
    data = {"host": args.host, "name": name, "kind": key.kind, "fingerprint": key.fingerprint}
    if problem is None:
        return Text(f"{args.host} shows {key}, which is accepted already.", {**data, "done": False})
    if not (isinstance(problem, HostKeyUnknown) or _is_ours(problem)):
        raise problem
    if not _accepted(screen, problem, args.host, is_said=args.yes):
        return Text("", {**data, "done": False}, ["Nothing was done."], code=1)
    return Text(f"{key} of {args.host} is accepted, in {hostkeys.own_file()}.", {**data, "done": True})


def passphrase(question: str) -> str | None:
    """Ask for a passphrase, where there is a terminal."""
    if not sys.stdin.isatty():
        return None
    with contextlib.suppress(EOFError):
        return getpass.getpass(f"{question}: ")
    return None


def _is_ours(problem: HostError) -> bool:
    """Whether the key that a changed one replaces is one that scitq itself keeps."""
    return isinstance(problem, HostKeyChanged) and problem.parts["known"].startswith(f"{hostkeys.own_file()}:")


def _accepted(screen: Screen, problem: HostError, host: str, *, is_said: bool) -> bool:
    """Show it, ask unless that was answered beforehand, and write it down."""
    key = HostKey(problem.parts["kind"], problem.parts["key"])
    if isinstance(problem, HostKeyChanged):
        screen.say(
            f"{host} shows another key than the one that was accepted: {key}. Either it was installed anew, or somebody else "
            "answers in its place."
        )
    else:
        screen.say(
            f"{host} is not known yet. It shows the key {key}. Compare it with what the host says of itself: "
            "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub there, or its provider's page."
        )
    if not is_said:
        question = "Accept this key?"
        answer = screen.ask(question)
        if answer is None:
            raise Unconfirmed(f"{question} Nothing was done: there is no terminal to ask on. To do it: --yes")
        if not answer:
            return False
    hostkeys.accept(problem.parts["name"], [key])
    return True
