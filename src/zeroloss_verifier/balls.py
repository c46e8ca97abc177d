"""Arb balls: exact numbers in, matrices of them, upper bounds out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from flint import arb, arb_mat, ctx

ZERO, ONE = arb(0), arb(1)
Row = list[arb]


@contextmanager
def precision(bits: int) -> Iterator[None]:
    """Compute with so many bits inside, and with what was set before outside.

    Example:
        >>> before = ctx.prec
        >>> with precision(200):
        ...     ctx.prec
        200
        >>> ctx.prec == before
        True
    """
    before = ctx.prec
    ctx.prec = bits
    try:
        yield
    finally:
        ctx.prec = before


def matrix(rows: Sequence[Sequence[arb]]) -> arb_mat:
    """The matrix with these rows, of which there is at least one."""
    return arb_mat(len(rows), len(rows[0]), [entry for row in rows for entry in row])


def exact(values: Sequence[float], columns: int) -> arb_mat:
    """The matrix of these binary64 numbers, row after row; each is represented exactly."""
    return arb_mat(len(values) // columns, columns, [arb(value) for value in values])


def upper(ball: arb) -> arb:
    """An exact number that is no less than any in the ball."""
    return ball.upper()


def most(balls: Iterable[arb]) -> arb:
    """An exact upper bound of the largest; 0 where there is none.

    Example:
        >>> most([arb(1), arb(3), arb(2)])
        3.00000000000000
    """
    largest = ZERO
    for ball in balls:
        bound = ball.upper()
        if bound.is_nan():  # every comparison with it is false: it must not be lost
            return bound
        if bound > largest:
            largest = bound
    return largest


def smaller(first: arb, second: arb) -> arb:
    """The smaller of two upper bounds."""
    return second if second <= first else first


def square_root(ball: arb) -> arb:
    """An upper bound of the root of a number that is known not to be negative, even if the ball reaches below 0."""
    return ball.upper().sqrt().upper()


def norm(row: Iterable[arb]) -> arb:
    """An upper bound of the 2-norm.

    Example:
        >>> norm([arb(3), arb(4)])
        5.00000000000000
    """
    return square_root(sum((entry * entry for entry in row), ZERO))


def rows_of(values: arb_mat) -> list[Row]:
    """The rows as lists."""
    made: list[Row] = values.tolist()
    return made
