"""A safetensors file of float64 tensors, read from its bytes with every bound checked."""

from __future__ import annotations

import math
import sys
from array import array
from dataclasses import dataclass

from zeroloss_verifier.outcome import RejectedError
from zeroloss_verifier.strict_json import a_count, a_list, a_string, an_object, read_json

LONGEST_HEADER = 10_000_000
MOST_TENSORS = 10_000


@dataclass(frozen=True)
class Tensor:
    """Numbers in row-major order, and their shape.

    Example:
        >>> Tensor((2, 1), array("d", [1.0, 2.0])).shape
        (2, 1)
    """

    shape: tuple[int, ...]
    values: array[float]


def read_tensors(raw: bytes, where: str) -> dict[str, Tensor]:
    """Every tensor of the file by its name.

    The format: eight bytes with the header's length (little-endian), the header as JSON, then the data; each tensor's bytes lie between
    its two offsets. Here they must follow one another without gap or overlap to the file's last byte.

    Args:
        raw: the whole file.
        where: its name, for the reason.

    Returns:
        The tensors.

    Raises:
        RejectedError: for any other file: truncated, trailing bytes, another dtype, overlapping or absent data, infinities or NaN.
    """
    if len(raw) < 10:
        raise RejectedError(f"{where} is truncated: {len(raw)} bytes")
    length = int.from_bytes(raw[:8], "little")
    if length > min(LONGEST_HEADER, len(raw) - 8):
        raise RejectedError(
            f"{where} announces a header of {length} bytes, and has {len(raw) - 8} bytes (or more than are allowed)"
        )
    header = read_json(raw[8 : 8 + length], f"{where}'s header")
    if not isinstance(header, dict):
        raise RejectedError(f"{where}'s header is not an object")
    header = {name: entry for name, entry in header.items() if name != "__metadata__"}  # it holds nothing that is used
    if len(header) > MOST_TENSORS:
        raise RejectedError(f"{where} holds {len(header)} tensors, more than {MOST_TENSORS}")
    data = memoryview(raw)[8 + length :]
    places: dict[str, tuple[int, int, tuple[int, ...]]] = {}
    for name, entry in header.items():
        about = f"{where}: tensor {name[:60]!r}"
        fields = an_object(entry, about, ("dtype", "shape", "data_offsets"))
        if a_string(fields["dtype"], f"{about}: dtype") != "F64":
            raise RejectedError(f"{about} is {fields['dtype']!r}, not float64 (F64)")
        shape = tuple(a_count(side, f"{about}: a side", 1) for side in a_list(fields["shape"], f"{about}: shape"))
        offsets = [a_count(offset, f"{about}: an offset") for offset in a_list(fields["data_offsets"], f"{about}: data_offsets")]
        if len(offsets) != 2 or offsets[1] - offsets[0] != 8 * math.prod(shape) or len(shape) > 4:
            raise RejectedError(f"{about}: offsets {offsets} do not fit the shape {list(shape)} of float64 numbers")
        places[name] = (offsets[0], offsets[1], shape)
    at = 0
    for name, (start, stop, _) in sorted(places.items(), key=lambda item: item[1][0]):
        if start != at:
            raise RejectedError(f"{where}: tensor {name[:60]!r} starts at {start}, where {at} is due (a gap or an overlap)")
        at = stop
    if at != len(data):
        raise RejectedError(f"{where} has {len(data)} bytes of data, where its header speaks of {at}")
    return {name: Tensor(shape, _numbers(data[start:stop], where, name)) for name, (start, stop, shape) in places.items()}


def _numbers(data: memoryview, where: str, name: str) -> array[float]:
    values = array("d")
    values.frombytes(data)
    if sys.byteorder == "big":
        values.byteswap()
    if not all(map(math.isfinite, values)):
        raise RejectedError(f"{where}: tensor {name[:60]!r} holds NaN or an infinity")
    return values
