"""The program on a worker: an agent that answers us, and a keeper that runs the tasks and outlives it.

Everything in this package travels: it imports the standard library and itself only, and runs on Python >= 3.10.
"""

from __future__ import annotations

VERSION = "2"
"""Version of the protocol between laptop, agent and keeper. An agent of another one is replaced when it is met."""
