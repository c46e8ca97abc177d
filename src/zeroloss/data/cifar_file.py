"""CIFAR's own batches: pickled dictionaries of one row of 3072 bytes an image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroloss.data.array_pickle import read_arrays
from zeroloss.errors import FileError

REMEDY = "take the file from its publisher"


def read_cifar(paths: Sequence[Path], key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images and labels of CIFAR's pickled batches, one after another; nothing in them is executed.

    Args:
        paths: files that exist.
        key: the labels' key: ``labels`` in CIFAR-10, ``fine_labels`` in CIFAR-100.

    Returns:
        n×3×32×32 bytes, and n integers.

    Raises:
        FileError: for a file that is no pickle of plain arrays, or holds other arrays than these.
    """
    batches = [_batch(path, key) for path in paths]
    if len(batches) == 1:
        return batches[0]
    return np.concatenate([x for x, _ in batches]), np.concatenate([y for _, y in batches])


def _batch(path: Path, key: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One file."""
    content = read_arrays(path)
    for name in ("data", key):
        if name not in content:
            found = ", ".join(sorted(content))[:100] or "nothing"
            raise FileError(path, f"has no {name!r}: found {found}", REMEDY)
    x = content["data"]
    if not isinstance(x, np.ndarray) or x.dtype != np.uint8 or x.ndim != 2 or x.shape[1] != 3072 or len(x) == 0:
        seen = f"{x.dtype} of shape {x.shape}" if isinstance(x, np.ndarray) else type(x).__name__
        raise FileError(path, f"holds {seen} as images, where uint8 of shape (n, 3072) belongs", REMEDY)
    return x.reshape(-1, 3, 32, 32), _labels(path, content[key], key, len(x))


def _labels(path: Path, found: Any, key: str, n: int) -> NDArray[np.int64]:
    """A list of n small integers, or an array of them."""
    listed = isinstance(found, list) and all(type(label) is int and abs(label) < 2**31 for label in found)
    if not listed and not (isinstance(found, np.ndarray) and found.ndim == 1):
        raise FileError(path, f"holds no list of integers as {key!r}", REMEDY)
    if len(found) != n:
        raise FileError(path, f"has {n} images but {len(found)} {key!r}", REMEDY)
    return np.asarray(found).astype(np.int64)
