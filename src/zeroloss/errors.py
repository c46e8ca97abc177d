"""The exceptions a caller can meet: each says what was seen, where, and what to do about it, in one line.

A mathematical outcome (a run that diverged, a claim that is violated) is never an exception: it is a status on a result.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ZerolossError(Exception):
    """Base of every error that zeroloss raises on purpose; the command line prints it as one line and exits with 2."""


class ArgumentError(ZerolossError, ValueError):
    """A caller's mistake in one argument.

    Args:
        argument: the argument's name as the caller wrote it, such as ``"x"`` or ``"--width"``.
        seen: what is wrong with it, shapes and values included.
        remedy: what to pass instead.

    Example:
        >>> print(ArgumentError("width", "is 0", "pass at least one unit per layer"))
        width is 0; pass at least one unit per layer
    """

    def __init__(self, argument: str, seen: str, remedy: str) -> None:
        self.argument, self.seen, self.remedy = argument, seen, remedy
        super().__init__(" ".join(f"{argument} {seen}; {remedy}".split()))


class FileError(ZerolossError):
    """A file that is missing, truncated, or not what its name says.

    Args:
        path: the file.
        seen: what is wrong with it.
        remedy: what to do.

    Example:
        >>> print(FileError("rows.npz", "ends before its directory (truncated?)", "copy it again"))
        rows.npz: ends before its directory (truncated?); copy it again
    """

    def __init__(self, path: object, seen: str, remedy: str) -> None:
        self.path, self.seen, self.remedy = str(path), seen, remedy
        super().__init__(" ".join(f"{path}: {seen}; {remedy}".split()))


def unknown_name(argument: str, name: object, known: Iterable[str]) -> ArgumentError:
    """An error for a name that is not in a list, with the nearest known one suggested.

    Args:
        argument: the argument's name.
        name: what the caller passed.
        known: the names that would have been accepted.

    Returns:
        The error, to be raised by the caller.

    Example:
        >>> print(unknown_name("activation", "reul", ["relu", "erf"]))
        activation is 'reul', which is not known; did you mean 'relu'? Known: erf, relu
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"did you mean {close[0]!r}? Known: " if close else "choose one of: "
    return ArgumentError(argument, f"is {name!r}, which is not known", hint + ", ".join(names))
