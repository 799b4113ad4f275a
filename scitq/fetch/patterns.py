"""Patterns of names: globs in addresses, and --include. Pure.

`*` and `?` stay within a segment, `**` crosses them, `[abc]`, `[!a-z]`, `{one,other}` are alternatives. An include
pattern without a slash is about the last segment, wherever it lies; with a slash in front it begins at the top.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable


def expression(pattern: str, *, braces: bool = True) -> str:
    """The pattern as a regular expression without anchors."""
    out, i, depth = [], 0, 0
    while i < len(pattern):
        char = pattern[i]
        i += 1
        if char == "*":
            if pattern.startswith("*", i):
                i += 1
                if pattern.startswith("/", i):
                    i += 1
                    out.append("(?:.*/)?")
                else:
                    out.append(".*")
            else:
                out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[" and (end := _class_end(pattern, i)) is not None:
            inner = pattern[i:end].replace("\\", r"\\").replace("[", r"\[")
            inner = re.sub(r"([&~|])(?=\1)", r"\\\1", inner)
            inner = f"^/{inner[1:]}" if inner[0] in "!^" else inner
            out.append(_checked(f"[{inner}]"))
            i = end + 1
        elif char == "{" and braces and "}" in pattern[i:]:
            depth += 1
            out.append("(?:")
        elif char == "}" and depth:
            depth -= 1
            out.append(")")
        elif char == "," and depth:
            out.append("|")
        else:
            out.append(re.escape(char))
    return "".join(out) + ")" * depth


def _class_end(pattern: str, begin: int) -> int | None:
    """Where the class ends; a bracket right at its beginning belongs to it."""
    first = begin + 1 if pattern[begin : begin + 1] in ("!", "^") else begin
    end = pattern.find("]", first + 1)
    return end if end > first else None


def _checked(text: str) -> str:
    try:
        re.compile(text)
    except re.error:
        return r"(?!)"  # a range that runs backwards holds nothing
    return text


def segment(pattern: str) -> Callable[[str], bool]:
    """For one segment of a glob in an address."""
    compiled = re.compile(expression(pattern, braces=False) + r"\Z", re.DOTALL)
    return lambda name: compiled.match(name) is not None


def including(patterns: Iterable[str]) -> Callable[[str], bool]:
    """For relative names of files; without patterns, all."""
    whole = [f"{pattern}**" if pattern.endswith("/") else pattern for pattern in patterns]
    compiled = [
        re.compile(("" if each.startswith("/") else "(?:.*/)?") + expression(each.lstrip("/")) + r"\Z", re.DOTALL)
        for each in whole
    ]
    return lambda name: not compiled or any(each.match(name) for each in compiled)
