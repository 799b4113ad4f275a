"""`Server`: what scripts written for scitq 1 import from `scitq.lib`, over a state file of this scitq.

There is no server to ask, so nothing is sent anywhere: every method reads or writes the file and returns. Answers are
dictionaries, or with `style="object"` objects with the same attributes, in lists that have a length.
Errors are those of `scitq.errors`, each with version 1's `status_code` and `message`; `HTTPException` is what they all are.
"""

from scitq.errors import ScitqError as HTTPException
from scitq.lib.answers import Record
from scitq.lib.joining import JoinFailed
from scitq.lib.server import Server

__all__ = ["HTTPException", "JoinFailed", "Record", "Server"]
