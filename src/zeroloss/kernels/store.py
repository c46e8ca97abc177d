"""Kernels larger than memory: a ``.npy`` file written block by block, which goes on where it was after any interruption."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.lib.format import open_memmap
from numpy.typing import NDArray
from torch import Tensor

from zeroloss.errors import ArgumentError, FileError

BLOCK = 2**27  # bytes of the kernel that are computed between two marks
Kernel = Callable[[Tensor, Tensor | None], Tensor]


def write_blocks(
    kernel: Kernel,
    identity: str,
    path: Path,
    x1: Tensor,
    x2: Tensor | None,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.floating]:
    """Write a kernel to a file, a block of rows at a time.

    Beside the file lie ``<file>.lock`` and ``<file>.json``: what the kernel is of, and how many of its rows are done. A block counts
    once it is on disk. The same call goes on from there; one for another kernel or other inputs is refused, and the file left alone.

    Args:
        kernel: from two sets of inputs (the second None for the first with itself) to their kernel.
        identity: what kernel that is.
        path: a ``.npy`` file.
        x1: n1 inputs.
        x2: n2 inputs, or None for the first with itself: half is computed, and the file is exactly symmetric.
        progress: called with the rows done and n1 after every block.

    Returns:
        The file's array, memory-mapped and read-only, n1×n2.

    Raises:
        ArgumentError: for a path without ``.npy``, or no inputs.
        FileError: where the file is of something else, was cut, or is being written by another process.
        OSError: for a full disk, before anything is computed.

    Example:
        >>> import tempfile
        >>> place = Path(tempfile.mkdtemp()) / "K.npy"
        >>> write_blocks(lambda a, b: a @ (a if b is None else b).T, "product", place, torch.eye(2), None)
        memmap([[1., 0.],
                [0., 1.]], dtype=float32)
    """
    if path.suffix != ".npy":
        raise ArgumentError("path", f"is {path.name!r}", "name a .npy file")
    shape = (len(x1), len(x1 if x2 is None else x2))
    if 0 in shape:
        raise ArgumentError("x", "has no rows", "pass at least one")
    kind = np.dtype(np.float32 if x1.dtype == torch.float32 else np.float64)
    key = _fingerprint(identity, x1, x2)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(path.name + ".lock"), timeout=0):
            _write(kernel, key, path, x1, x2, shape, kind, progress)
    except Timeout as error:
        raise FileError(path, "is being written by another process", "wait for it, or name another file") from error
    return open_memmap(path, mode="r")


def _write(
    kernel: Kernel,
    key: str,
    path: Path,
    x1: Tensor,
    x2: Tensor | None,
    shape: tuple[int, int],
    kind: np.dtype,
    progress: Callable[[int, int], None] | None,
) -> None:
    """The blocks that are not done yet, by the one process that holds the file."""
    mark = path.with_name(path.name + ".json")
    done = _done(path, mark, key, shape, kind)
    if done is None:
        done = 0
        _note(mark, key, done, shape)  # first: a file without a mark would be somebody else's
        _create(path, shape, kind)
    if done < shape[0]:
        values = open_memmap(path, mode="r+")
        step = max(1, BLOCK // (shape[1] * kind.itemsize))
        while done < shape[0]:
            rows = slice(done, min(done + step, shape[0]))
            if x2 is None:
                values[rows, rows] = kernel(x1[rows], None).cpu().numpy()
                if rows.stop < shape[0]:
                    beyond = kernel(x1[rows], x1[rows.stop :]).cpu().numpy()
                    values[rows, rows.stop :] = beyond
                    values[rows.stop :, rows] = beyond.T
            else:
                values[rows] = kernel(x1[rows], x2).cpu().numpy()
            values.flush()
            done = rows.stop
            _note(mark, key, done, shape)
            if progress is not None:
                progress(done, shape[0])


def _fingerprint(identity: str, x1: Tensor, x2: Tensor | None) -> str:
    digest = hashlib.sha256(identity.encode())
    for x in (x1, x2):
        if x is not None:
            digest.update(f"{tuple(x.shape)} {x.dtype}".encode())
            digest.update(x.detach().cpu().contiguous().numpy().data)
    return digest.hexdigest()


def _done(path: Path, mark: Path, key: str, shape: tuple[int, int], kind: np.dtype) -> int | None:
    """How many rows the file has; None where there is none yet."""
    if not mark.exists():
        if path.exists():
            raise FileError(path, "is there already, and no kernel that was begun here", "name another file, or delete it")
        return None
    try:
        found = json.loads(mark.read_text(encoding="utf-8"))
        done = int(found["rows"])
        same = found["key"] == key and 0 <= done <= shape[0]
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise FileError(mark, "is damaged", f"delete it and {path.name}") from error
    if not path.exists():
        return None
    if not same:
        raise FileError(path, "holds another kernel, or one of other inputs", "name another file, or delete it")
    try:
        values = open_memmap(path, mode="r")
    except (ValueError, OSError) as error:
        raise FileError(path, "is cut or damaged", f"delete it and {mark.name}") from error
    if values.shape != shape or values.dtype != kind:
        raise FileError(path, f"has shape {values.shape}", f"delete it and {mark.name}")
    return done


def _create(path: Path, shape: tuple[int, int], kind: np.dtype) -> None:
    """The file at its full size: a memory map of a disk that fills up later could only be killed."""
    part = path.with_name(path.name + ".part")
    try:
        open_memmap(part, mode="w+", dtype=kind, shape=shape)
        if hasattr(os, "posix_fallocate"):
            with part.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, part.stat().st_size)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        if error.errno == errno.ENOSPC:
            raise OSError(error.errno, "no room for the kernel", str(path)) from error
        raise


def _note(mark: Path, key: str, rows: int, shape: tuple[int, int]) -> None:
    part = mark.with_name(mark.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump({"key": key, "rows": rows, "shape": shape}, file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(mark)
