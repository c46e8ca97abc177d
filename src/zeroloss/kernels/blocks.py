"""Square blocks of pairs of two sets, or of one with itself."""

from __future__ import annotations

from collections.abc import Iterator


def blocks(n1: int, n2: int | None, side: int) -> Iterator[tuple[slice, slice]]:
    """Square blocks of pairs, of one set with itself only those on and above the diagonal.

    Example:
        >>> [(rows.start, columns.start) for rows, columns in blocks(3, None, 2)]
        [(0, 0), (0, 2), (2, 2)]
    """
    for top in range(0, n1, side):
        for left in range(top if n2 is None else 0, n1 if n2 is None else n2, side):
            yield slice(top, min(top + side, n1)), slice(left, min(left + side, n1 if n2 is None else n2))
