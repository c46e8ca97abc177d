"""The folder that holds data sets on disk: the caller's ``root``, else what ``ZEROLOSS_DATA`` names."""

from __future__ import annotations

import os
from pathlib import Path

from zeroloss.errors import ArgumentError, FileError

VARIABLE = "ZEROLOSS_DATA"


def data_folder(name: str, root: Path | None) -> Path:
    """Where to look for a named data set.

    Args:
        name: the data set, for errors.
        root: the caller's folder, or None.

    Returns:
        ``root``, or else the folder that the environment variable ``ZEROLOSS_DATA`` names.

    Raises:
        ArgumentError: if neither is given.
        FileError: if it is no folder.

    Example:
        >>> data_folder("mnist", Path("."))
        PosixPath('.')
    """
    named = os.environ.get(VARIABLE)
    if root is None and not named:
        raise ArgumentError("root", f"is not given, but {name!r} is read from disk", f"pass root=FOLDER or set {VARIABLE}")
    folder = root if root is not None else Path(named or "").expanduser()
    if not folder.is_dir():
        seen = "is not a folder" if folder.exists() else "does not exist"
        raise FileError(folder, f"{seen}, so {name!r} cannot be read from it", f"pass another root or set {VARIABLE}")
    return folder
