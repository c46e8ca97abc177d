"""Reading pickled dictionaries of arrays without running anything that they name.

A pickle is a program: it names functions and calls them. Here every name it may use stands for a plain record of this file
(never for numpy's own functions), any other name is an error, and arrays are built afterwards, from bytes that were counted.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeroloss.errors import FileError

MAX_BYTES = 2**30
MAX_TUPLES = 1000  # an array takes six; nested without end, hashing them would overflow the stack
REMEDY = "take the file from its publisher; nothing in it was run"

Content: TypeAlias = dict[str, Any]

# What protocols 2 to 5 need for dictionaries, lists, numbers, text and arrays.
_OPCODES = frozenset({
    "PROTO", "FRAME", "STOP", "MARK", "EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "LIST", "TUPLE", "TUPLE1", "TUPLE2",
    "TUPLE3", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2",
    "LONG1", "SHORT_BINSTRING", "BINSTRING", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8", "SHORT_BINUNICODE",
    "BINUNICODE", "BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET", "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD",
})  # fmt: skip
_DAMAGE = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError,
)  # fmt: skip


class _Array:
    """Stands for an array: what a pickle says of one, not yet believed."""

    shape: Any = None
    dtype: Any = None
    fortran: Any = False
    content: Any = None

    def __setstate__(self, state: Any) -> None:
        _, self.shape, self.dtype, self.fortran, self.content = state


class _Dtype:
    """Stands for ``numpy.dtype``: a code such as ``u1`` and a byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code, self.order = code, "|"

    def __setstate__(self, state: Any) -> None:
        self.order = state[1]


def read_arrays(path: Path) -> Content:
    """The dictionary that a file pickles, if it consists of arrays of integers, lists, numbers and text alone.

    Args:
        path: a file that exists.

    Returns:
        The dictionary, its keys as str, its arrays as read-only numpy arrays.

    Raises:
        FileError: for a pickle that names anything but what numpy's arrays need, uses another instruction, is damaged, is longer
            than ``MAX_BYTES``, is no dictionary, or whose arrays are not integers of the size they claim.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise FileError(path, f"has more than {MAX_BYTES / 2**30:g} GiB", REMEDY)
        content = path.read_bytes()
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or error})", "check the file and its permissions") from error
    try:
        _inspect(path, content)
        found = _Unpickler(path, content).load()
    except _DAMAGE as error:
        raise FileError(path, f"is no intact pickle ({type(error).__name__}: {str(error)[:100]})", REMEDY) from error
    except MemoryError as error:
        raise FileError(path, "declares more than fits into memory", REMEDY) from error
    if not isinstance(found, dict):
        raise FileError(path, f"pickles one {type(found).__name__.strip('_')}, where a dictionary of arrays belongs", REMEDY)
    return {_text(key): _array(path, value) if isinstance(value, _Array) else value for key, value in found.items()}


def _inspect(path: Path, content: bytes) -> None:
    """Every instruction, before any is followed."""
    tuples = 0
    for opcode, argument, _ in pickletools.genops(content):
        if opcode.name not in _OPCODES:
            raise FileError(path, f"uses the pickle instruction {opcode.name}, for which arrays have no need", REMEDY)
        # The unpickler would make room for every number up to this one.
        if opcode.name in ("BINPUT", "LONG_BINPUT") and isinstance(argument, int) and argument > len(content):
            raise FileError(path, f"numbers an object {argument}, more than the file can hold", REMEDY)
        tuples += opcode.name.startswith("TUPLE")
    if tuples > MAX_TUPLES:
        raise FileError(path, f"has {tuples} tuples, for which arrays have no need", REMEDY)


class _Unpickler(pickle.Unpickler):
    """An unpickler for which no name means anything but a record of this file."""

    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="bytes")
        self._path, self._admitted = path, _stand_ins()

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """The stand-in of a name, or an error."""
        known = self._admitted.get((module.replace("numpy.core.", "numpy._core."), name))
        if known is None:
            asked = f"{module}.{name}"[:80]
            raise FileError(self._path, f"asks for {asked!r}, which could run code and is refused", REMEDY)
        return known


def _stand_ins() -> dict[tuple[str, str], Callable[..., Any]]:
    """What each admitted name stands for, made anew for every file: a pickle may set attributes on what it is given."""

    class Array(_Array):
        pass

    class Dtype(_Dtype):
        pass

    class Ndarray:
        pass

    def reconstruct(*_: Any) -> _Array:
        return Array()

    def from_buffer(content: Any, dtype: Any, shape: Any, order: Any) -> _Array:
        array = Array()
        array.shape, array.dtype, array.fortran, array.content = shape, dtype, order == "F", content
        return array

    def encode(text: str, _: Any) -> bytes:  # how Python 3 writes bytes under protocol 2
        return text.encode("latin1")

    return {
        ("numpy._core.multiarray", "_reconstruct"): reconstruct,
        ("numpy._core.numeric", "_frombuffer"): from_buffer,
        ("numpy", "ndarray"): Ndarray,
        ("numpy", "dtype"): Dtype,
        ("_codecs", "encode"): encode,
    }


def _array(path: Path, record: _Array) -> NDArray[Any]:
    """A record as an array, if its bytes are as many as its shape and dtype need."""
    code = _text(record.dtype.code) if isinstance(record.dtype, _Dtype) else ""
    order = _text(record.dtype.order) if code else ""
    if code not in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8") or order not in ("<", ">", "|", "="):
        raise FileError(path, f"holds an array of dtype {(order + code)[:20] or 'unknown'!r}, where integers belong", REMEDY)
    shape, content = record.shape, record.content
    if not (isinstance(shape, tuple) and 0 < len(shape) <= 4 and all(type(k) is int and 0 <= k < 2**40 for k in shape)):
        raise FileError(path, "holds an array without a usable shape", REMEDY)
    dtype = np.dtype(order + code)
    size = len(content) if isinstance(content, bytes | bytearray) else -1
    if size != math.prod(shape) * dtype.itemsize:
        held = "no bytes" if size < 0 else f"{size} bytes"
        raise FileError(path, f"declares an array of shape {shape}, but holds {held} for it", REMEDY)
    rows = np.frombuffer(bytes(content), dtype=dtype)
    return rows.reshape(shape, order="F") if record.fortran in (True, 1) else rows.reshape(shape)


def _text(word: Any) -> str:
    """A key or a code as str, whichever Python wrote it."""
    return word.decode("latin1") if isinstance(word, bytes) else str(word)
