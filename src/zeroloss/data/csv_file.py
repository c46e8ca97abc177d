"""Reading ``.csv`` tables: features first, the target last, every fault named by line and column."""

from __future__ import annotations

import csv
import itertools
import math
from array import array
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from zeroloss.errors import FileError

MAX_BYTES = 8 * 2**30
DELIMITERS = ("\t", ";", ",")


def read_csv(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Features and targets of a table in UTF-8, with or without a header, separated by commas, semicolons or tabs.

    A first row with a feature that is no number is the header. Blank lines are skipped.

    Args:
        path: a file that exists.

    Returns:
        n×d floats, and the last column: n floats if every cell of it is a number, else n texts.

    Raises:
        FileError: for another encoding, rows of unequal length, missing or non-numeric features, a missing target, or no rows.
    """
    if path.stat().st_size > MAX_BYTES:
        raise FileError(path, f"has more than {MAX_BYTES / 2**30:g} GiB", "save fewer rows, or a .npz file")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            delimiter = _delimiter(path, file)
            file.seek(0)
            return _table(path, file, delimiter)
    except UnicodeDecodeError as error:
        raise FileError(path, f"is not UTF-8 text (byte {error.object[error.start]:#04x})", "save it as UTF-8") from error
    except csv.Error as error:
        raise FileError(path, f"is not a table ({error})", "save it as comma-separated text") from error


def _delimiter(path: Path, file: TextIO) -> str:
    """The separator under which the first lines agree on the most columns."""
    lines = list(itertools.islice((line for line in file if line.strip()), 20))
    if not lines:
        raise FileError(path, "has no rows", "write one sample a line, the target last")

    def columns(delimiter: str) -> tuple[bool, int]:
        counts = [len(row) for row in csv.reader(lines, delimiter=delimiter)]
        return len(set(counts)) == 1 and counts[0] > 1, max(counts, default=0)

    return max(DELIMITERS, key=columns)


def _table(path: Path, file: TextIO, delimiter: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """All rows, in one pass."""
    reader = csv.reader(file, delimiter=delimiter)
    values, targets, lines = array("d"), list[str](), array("q")
    width, first = 0, True
    for row in reader:
        if not any(cell.strip() for cell in row):
            continue
        if first:
            first, width = False, len(row)
            if width < 2:
                raise FileError(path, f"has one column (line {reader.line_num})", "write the features first and the target last")
            if any(_number(cell) is None and cell.strip() for cell in row[:-1]):
                continue  # a header
        if len(row) != width:
            raise FileError(
                path, f"has {len(row)} columns in line {reader.line_num}, but {width} before", "give every row as many"
            )
        for column, cell in enumerate(row[:-1], 1):
            value = _number(cell)
            if value is None or not math.isfinite(value):
                raise FileError(
                    path,
                    f"has {_cell(cell)} in line {reader.line_num}, column {column}, where a number belongs",
                    "fill it in or drop the row",
                )
            values.append(value)
        targets.append(row[-1].strip())
        lines.append(reader.line_num)
    if not targets:
        raise FileError(path, "has no rows below its header", "write one sample a line, the target last")
    x = np.frombuffer(values, dtype=np.float64).reshape(len(targets), width - 1)
    return x, _target_column(path, targets, lines, width)


def _target_column(path: Path, cells: list[str], lines: array[int], width: int) -> NDArray[Any]:
    """The last column: numbers if all its cells are numbers, else text; text among measured numbers is a mistake, not a class."""
    numbers = [_number(cell) for cell in cells]
    numeric = all(number is not None for number in numbers)
    measured = any(number is not None and math.isfinite(number) and number != int(number) for number in numbers)
    for cell, number, line in zip(cells, numbers, lines, strict=True):
        if measured and number is None and cell:
            raise FileError(path, f"has {_cell(cell)} for the target in line {line}, among numbers", "fill it in or drop the row")
        if not cell or (numeric and number is not None and not math.isfinite(number)):
            raise FileError(
                path, f"has {_cell(cell)} for the target in line {line}, column {width}", "fill it in or drop the row"
            )
    return np.array(numbers, dtype=np.float64) if numeric else np.array(cells)


def _number(cell: str) -> float | None:
    """The cell's number, or None; Python's own 1_000 is not a number in a table."""
    try:
        return None if "_" in cell else float(cell)
    except ValueError:
        return None


def _cell(cell: str) -> str:
    """A cell as an error shows it."""
    return f"{cell[:40]!r}" if cell.strip() else "nothing"
