"""The door to the independent verifier: nothing but its call, and one clear line where it cannot be made."""

from __future__ import annotations

import os
from pathlib import Path

from zeroloss.errors import ArgumentError, FileError
from zeroloss_verifier import Verified
from zeroloss_verifier import verify as _verify


def verify(path: str | os.PathLike[str]) -> Verified:
    """Check a saved certificate with a program of its own, which shares no code with the one that wrote it.

    Args:
        path: of the JSON that :meth:`Certificate.save` wrote, with or without its ending; its tensors lie beside it.

    Returns:
        Its ``status`` (``"ACCEPTED"``, ``"REJECTED"``, ``"TOO_LARGE"``), ``accepted``, ``reason``, and ``covered``: what was recomputed.

    Raises:
        FileError: where there is no such file, or it may not be read.
        ArgumentError: without python-flint.

    Example:
        >>> verify("none")
        Traceback (most recent call last):
        ...
        zeroloss.errors.FileError: none: there is no certificate at none.json; name what Certificate.save wrote
    """
    if not isinstance(path, (str, os.PathLike)) or "\0" in os.fspath(path):
        raise ArgumentError("path", f"is {path!r}", "pass the path of a certificate's JSON")
    try:
        return _verify(path)
    except OSError as error:
        seen = str(error) if error.strerror is None else error.strerror
        raise FileError(Path(path), seen, "name what Certificate.save wrote") from None
    except ModuleNotFoundError as error:
        if error.name != "flint":
            raise
        raise ArgumentError("verify", "needs python-flint, which is not installed", "pip install 'zeroloss[verify]'") from None


__all__ = ["Verified", "verify"]
