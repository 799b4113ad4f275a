"""The terminal that tests of screens use does what they rely on."""

from __future__ import annotations

import sys

from tests.workflow.terminal import Terminal

SCRIPT = r"""
import os, sys, termios, tty
sys.stdout.write("size %d x %d\n" % os.get_terminal_size()); sys.stdout.flush()
print("said", input("name? "))
sys.stdout.write("\x1b[?1049h\x1b[Hother"); sys.stdout.flush()
before = termios.tcgetattr(0)
tty.setraw(0)
sys.stdout.write(" cursor"); sys.stdout.write("\x1b[6n"); sys.stdout.flush()
answer = os.read(0, 20)
termios.tcsetattr(0, termios.TCSANOW, before)
import signal  # the line that it breaks into may have no end yet
signal.signal(signal.SIGWINCH, lambda *_: print("\nnow %d x %d" % os.get_terminal_size(), flush=True))
sys.stdout.write("\x1b[?1049l"); print(repr(answer)); sys.stdout.flush()
try:
    while True:
        signal.pause()
except KeyboardInterrupt:
    sys.exit(3)
"""


def test_a_program_in_it_is_seen_typed_to_resized_and_interrupted() -> None:
    with Terminal([sys.executable, "-c", SCRIPT], columns=60, rows=12) as terminal:
        terminal.wait_for(r"^size 60 x 12$")
        assert not terminal.is_raw
        terminal.type("Ångström 漢字")
        terminal.press("enter")
        terminal.wait_for(r"said Ångström 漢字$")
        lines = terminal.wait_for(r"^b'\\x1b\[1;13R'$")  # behind "other cursor"
        assert "size 60 x 12" in lines[0] and not terminal.is_on_other_screen
        terminal.resize(100, 30)
        terminal.wait_for(r"^now 100 x 30$")
        terminal.press("c-c")
        assert terminal.wait_end() == 3
