"""What runs on a worker to call a Python function: `python runner.py MINOR-VERSION FUNCTION ARGUMENTS`.

It stands alone: the standard library, and cloudpickle where the function needs it. Its files are written by `executor`, which
also reads what it leaves: `$OUTPUT/result.pickle`, or on standard error a signed line with the exception.
"""

from __future__ import annotations

import os
import sys

# A call begins with the start of this file, so it loads little: the C parts of pickle and of hashlib do without a dozen modules.
try:
    import _pickle as pickle
except ImportError:
    import pickle  # type: ignore[no-redef]

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

RESULT = "result.pickle"
EXCEPTION = "scitq-exception"
LIBRARY = "lib"
"""A folder beside this file with what a container's image may lack, or have in another version."""
# How the process ends when the call could not even be made.
CANNOT_CALL = 78


class CannotCall(Exception):
    """The text says why and what to do."""


def read(path: str) -> bytes:
    """The bytes of a call's file, whose name is their SHA-256.

    Raises:
        CannotCall: it is not there, or not what was written.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except FileNotFoundError:
        raise CannotCall(
            f"{path}: the file of this call was deleted, as its result was taken. Submit it anew."
        ) from None
    except OSError as error:
        raise CannotCall(f"{path}: the file of this call cannot be read: {error.strerror}.") from None
    if _sha256(data) != os.path.basename(path):
        raise CannotCall(f"{path}: the file of this call is damaged. Submit it anew.")
    return data


def _sha256(data: bytes) -> str:
    try:
        module = __import__("_sha2" if sys.version_info >= (3, 12) else "_sha256")
    except ImportError:
        import hashlib as module
    return str(module.sha256(data).hexdigest())


def dumps(value: Any) -> bytes:
    """A value as bytes; what the submitter's script defines itself goes by value."""
    try:
        return pickle.dumps(value, 5)
    except Exception:
        import cloudpickle

        packed: bytes = cloudpickle.dumps(value, 5)
        return packed


def call(function: Any, arguments: Any) -> Any:
    """One call, given as (positional, named); or a chunk of them, as a list of positional ones."""
    if isinstance(arguments, list):
        return [function(*each) for each in arguments]
    return function(*arguments[0], **arguments[1])


def tell(error: BaseException, key: bytes) -> None:
    """Write the exception on standard error: signed for the engine, then as people know it.

    The key keeps anything that the function or a child of it writes there from passing for an exception of ours.
    """
    import base64
    import hmac
    import traceback

    behind = error.__traceback__
    while behind is not None and behind.tb_frame.f_code.co_filename == __file__:
        behind = behind.tb_next
    text = "".join(traceback.format_exception(type(error), error, behind))
    try:
        packed = dumps((error, text))
    except Exception:
        packed = dumps((None, text))
    sign = hmac.new(key, packed, "sha256").hexdigest()
    line = f"\n{EXCEPTION} {sign} {base64.b64encode(packed).decode('ascii')}\n{text}"
    with open(
        2, "wb", closefd=False
    ) as stderr:  # sys.stderr is the function's, which may have put something in its place
        stderr.write(line.encode("utf-8", "backslashreplace"))


def main(wanted: str, function_file: str, arguments_file: str) -> int:
    """Make the call; returns the exit code of the process."""
    here = "{}.{}".format(*sys.version_info)
    if here != wanted:
        raise CannotCall(
            f"this worker's Python is {here}, but the call was packed by Python {wanted} and only that one can unpack it. "
            f"Install Python {wanted} there, or use container= with an image that has it."
        )
    import io

    output = os.path.join(os.environ["OUTPUT"], RESULT)
    file, arguments = io.BytesIO(read(function_file)), read(arguments_file)
    folders, key = pickle.load(file)
    # Modules are found where the submitter finds them, then where this Python does; never beside this file.
    # What unpacks must be what packed, whichever version the image has.
    library = os.path.join(os.path.dirname(os.path.abspath(__file__)), LIBRARY)
    sys.path[:] = [*folders, library, *(folder for folder in sys.path[1:] if folder not in folders)]
    try:
        packed = dumps(call(pickle.load(file), pickle.loads(arguments)))
    except BaseException as error:
        import contextlib

        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(Exception):  # closed, or something else stands there
                stream.flush()
        tell(error, key)
        return 1
    with open(output, "wb") as result:
        result.write(packed)
    return 0


if __name__ == "__main__":
    try:
        code = main(*sys.argv[1:])
    except CannotCall as problem:
        sys.stderr.write(f"scitq: {problem}\n")
        code = CANNOT_CALL
    sys.exit(code)
