"""Reading ``.npz`` archives that may be damaged or hostile: sizes are checked before anything is allocated."""

from __future__ import annotations

import math
import struct
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from zeroloss.errors import FileError

MAX_BYTES = 8 * 2**30  # of one array, both as stored and as float64
INPUTS = ("x", "X", "x_train")
TARGETS = ("y", "Y", "y_train", "labels", "target")

# What zipfile, zlib and numpy raise on damaged bytes; RuntimeError is zipfile's word for an encrypted member.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, struct.error, ValueError, SyntaxError, TypeError, KeyError, RuntimeError)


def read_npz(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Inputs and targets of an archive; never unpickles.

    Args:
        path: a file that exists.

    Returns:
        The first array found among ``INPUTS`` and the first among ``TARGETS``, as stored.

    Raises:
        FileError: for anything but an intact archive with both arrays, of plain numbers or text, below ``MAX_BYTES`` each.
    """
    if not zipfile.is_zipfile(path):
        with path.open("rb") as file:
            start = file.read(4)
        if start.startswith(b"PK"):
            raise FileError(path, "ends before its directory (truncated?)", "copy it again")
        raise FileError(path, "is not an npz archive (not a zip file at all)", "save it with numpy.savez(path, x=..., y=...)")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            return _member(path, archive, members, INPUTS, "inputs"), _member(path, archive, members, TARGETS, "targets")
    except _DAMAGE as error:
        raise FileError(path, f"is damaged ({type(error).__name__}: {error})", "copy it again") from error
    except MemoryError as error:
        raise FileError(path, "does not fit into memory", "save fewer rows") from error


def _member(
    path: Path, archive: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], names: tuple[str, ...], what: str
) -> NDArray[Any]:
    """The first of the named arrays."""
    name = next((name for name in names if name in members), None)
    if name is None:
        found = ", ".join(sorted(members)[:20]) or "nothing"
        raise FileError(path, f"has no {what}: found {found}", f"name the array one of {', '.join(names)}")
    info = members[name]
    _check_size(path, name, info.file_size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy warns of headers written by Python 2, and reads them
        with archive.open(info) as member:
            _check_header(path, name, member, info.file_size)
        # Again from the start: a compressed member cannot be rewound cheaply, and the header is a few hundred bytes.
        with archive.open(info) as member:
            array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
            while member.read(1 << 20):  # zipfile compares the checksum when it meets the end
                pass
    return array


def _check_header(path: Path, name: str, member: IO[bytes] | zipfile.ZipExtFile, size: int) -> None:
    """What the array's own header promises must fit the limit, and the member that holds it."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    dims, _, dtype = read(member)
    if dtype.hasobject:
        raise FileError(
            path, f"holds pickled objects in {name!r}, which could run code and are never read", "save plain numeric arrays"
        )
    if min(dims, default=0) < 0:
        raise FileError(path, f"declares the shape {dims} for {name!r}", "save the array again")
    count = math.prod(dims)
    _check_size(path, name, count * max(8, dtype.itemsize))
    if member.tell() + count * dtype.itemsize > size:
        raise FileError(path, f"declares the shape {dims} for {name!r}, more than its {size} bytes hold", "copy it again")


def _check_size(path: Path, name: str, size: int) -> None:
    """Refuse, before allocating, what no machine here should open."""
    if size > MAX_BYTES:
        raise FileError(
            path, f"declares {size / 2**30:.3g} GiB for {name!r}, above the limit of {MAX_BYTES / 2**30:g} GiB", "save fewer rows"
        )
