"""The door for files: which reader, which file, and what its arrays mean; nothing in a file is ever executed or unpickled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroloss.data.csv_file import read_csv
from zeroloss.data.npz_file import read_npz
from zeroloss.data.raw import Raw
from zeroloss.errors import FileError

MAX_CLASSES = 20  # whole numbers in floating point count as class labels up to this many different ones
SUFFIXES = (".npz", ".csv")


def read_file(path: Path) -> Raw:
    """The rows and targets of a ``.npz`` or ``.csv`` file.

    Images in a ``.npz`` may be n×h×w (grey), n×c×h×w or n×h×w×c (taken so if the last axis is 1, 3 or 4 and the second is not).

    Args:
        path: the file.

    Returns:
        The raw data: integers, texts, and whole numbers of at most ``MAX_CLASSES`` values are classes; the rest is regression.

    Raises:
        FileError: for a file that is missing, unreadable, damaged, too large, or does not hold what is wanted.
    """
    try:
        if path.is_dir():
            raise FileError(path, "is a folder", "name a .npz or .csv file in it")
        if not path.exists():
            raise FileError(path, "does not exist", f"check the name; relative paths start at root, or at {Path.cwd()}")
        if path.stat().st_size == 0:
            raise FileError(path, "is empty (0 bytes)", "copy it again")
        if path.suffix.lower() == ".csv":
            x, target = read_csv(path)
            images = False
        else:
            x, target = read_npz(path)
            x, images = _as_images(path, x)
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or error})", "check the file and its permissions") from error
    if not (np.isfinite(x).all()):
        bad = ~np.isfinite(x).reshape(len(x), -1).all(1)
        raise FileError(
            path, f"has NaN or infinite features in {bad.sum()} rows (first: row {bad.argmax()})", "drop or fill them"
        )
    if len(x) != len(target):
        raise FileError(
            path, f"has {len(x)} inputs {x.shape} but {len(target)} targets {target.shape}", "save one target an input"
        )
    return Raw(x, _as_target(path, target), images=images)


def _as_images(path: Path, x: NDArray[Any]) -> tuple[NDArray[Any], bool]:
    """Rows n×d as they are, images as n×c×h×w; and whether they are images."""
    if x.dtype.kind not in "iuf":
        raise FileError(path, f"holds inputs of dtype {x.dtype}", "save real numbers")
    if x.ndim not in (2, 3, 4) or x.size == 0:
        raise FileError(
            path, f"holds inputs of shape {x.shape}", "save rows (n, d) or images (n, h, w), (n, c, h, w), (n, h, w, c)"
        )
    if x.ndim == 3:
        return x[:, None], True
    if x.ndim == 4 and x.shape[3] in (1, 3, 4) and x.shape[1] not in (1, 3, 4):
        return np.ascontiguousarray(np.moveaxis(x, 3, 1)), True
    return x, x.ndim == 4


def _as_target(path: Path, target: NDArray[Any]) -> NDArray[Any]:
    """Integers or texts of shape n (classes), or floats n or n×k (regression)."""
    if target.dtype.kind == "b":
        target = target.astype(np.int64)
    if target.dtype.kind == "S":
        try:
            target = np.char.decode(target, "utf-8")
        except UnicodeDecodeError as error:
            raise FileError(path, "holds targets that are not UTF-8 text", "save class names as str, or numbers") from error
    if target.dtype.kind not in "iufU":
        raise FileError(path, f"holds targets of dtype {target.dtype}", "save class labels (integers, text) or real numbers")
    if target.ndim not in (1, 2) or target.size == 0:
        raise FileError(path, f"holds targets of shape {target.shape}", "save (n,) or (n, k)")
    if target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]
    if target.dtype.kind == "U":
        if target.ndim == 2:
            raise FileError(path, f"holds class names of shape {target.shape}", "save one name an input: (n,)")
        return target
    if not np.isfinite(target).all():
        bad = ~np.isfinite(target).reshape(len(target), -1).all(1)
        raise FileError(path, f"has NaN or infinite targets in {bad.sum()} rows (first: row {bad.argmax()})", "drop or fill them")
    if target.ndim == 2:
        return target.astype(np.float64)
    if target.dtype.kind in "iu":
        if int(target.max()) >= 2**63:
            raise FileError(path, "has class labels above 2**63 - 1", "renumber the labels")
        return target.astype(np.int64)
    whole = bool((target == np.round(target)).all()) and float(np.abs(target).max()) <= 2**53
    return target.astype(np.int64 if whole and len(np.unique(target)) <= MAX_CLASSES else np.float64)
