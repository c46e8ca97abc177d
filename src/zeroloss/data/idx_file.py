"""Reading IDX files (MNIST's own format), plain or gzipped: the header is believed only as far as the bytes bear it out."""

from __future__ import annotations

import gzip
import io
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zeroloss.errors import FileError

MAX_ROWS = 2_000_000
_UINT8 = 8  # the format's code for unsigned bytes
_CHUNK = 1 << 22
_MAX_RATIO = 1032  # deflate cannot shrink bytes further than this


def read_idx(path: Path, row: tuple[int, ...]) -> NDArray[np.uint8]:
    """The unsigned bytes of an IDX file, which is gzipped if its name ends in ``.gz``.

    The header is four bytes (0, 0, 8 for bytes, the number of dimensions) and a big-endian 32-bit length a dimension. Nothing
    beyond what it announces is ever decompressed, and nothing is allocated before the bytes are there.

    Args:
        path: a file that exists.
        row: the shape that every row must have; () for labels.

    Returns:
        n rows, of shape (n, *row).

    Raises:
        FileError: for another magic number or row shape, no rows or more than ``MAX_ROWS``, and a file that holds fewer or more
            bytes than its header says, or is no intact gzip.
    """
    size = path.stat().st_size
    try:
        if path.suffix != ".gz":
            with path.open("rb") as file:
                return _read(path, file, row, size)
        with path.open("rb") as packed, gzip.GzipFile(fileobj=packed) as unpacked:
            return _read(path, unpacked, row, size * _MAX_RATIO)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise FileError(path, f"is no intact gzip file ({type(error).__name__}: {error})", "copy it again") from error
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or error})", "check the file and its permissions") from error


def _read(path: Path, file: io.BufferedIOBase, row: tuple[int, ...], most: int) -> NDArray[np.uint8]:
    """Header, bytes, and nothing after them; ``most`` is what the file could hold at best."""
    axes = 1 + len(row)
    wanted = bytes([0, 0, _UINT8, axes])
    start = file.read(4 + 4 * axes)
    if start[:4] != wanted[: len(start)]:
        raise FileError(
            path,
            f"begins with {start[:4].hex()}, where an IDX file of {axes} axes has {wanted.hex()}",
            "check that it is the right file",
        )
    if len(start) < 4 + 4 * axes:
        raise FileError(path, f"ends within its header ({len(start)} bytes)", "copy it again")
    shape = tuple(int(length) for length in np.frombuffer(start, dtype=">u4", offset=4))
    if shape[1:] != row:
        raise FileError(path, f"declares the shape {shape}", f"rows of shape {row} are wanted: check that it is the right file")
    if not 0 < shape[0] <= MAX_ROWS:
        raise FileError(path, f"declares {shape[0]} rows", f"from 1 to {MAX_ROWS} can be read: copy it again")
    count = math.prod(shape)
    if len(start) + count > most:
        raise FileError(path, f"declares the shape {shape}, more than it can hold", "copy it again (truncated?)")
    content = bytearray()
    while len(content) < count:
        chunk = file.read(min(_CHUNK, count - len(content)))
        if not chunk:
            raise FileError(path, f"ends after {len(content)} of the {count} bytes it declares", "copy it again (truncated?)")
        content += chunk
    if file.read(1):  # at the end gzip compares its checksum as well
        raise FileError(path, f"goes on after the {count} bytes it declares", "copy it again")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)
