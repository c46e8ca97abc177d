"""Which rows: the classes that a caller names, and a stratified random choice of n."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import NDArray

from zeroloss.errors import ArgumentError

ClassLabel: TypeAlias = int | str | np.integer[Any]
Indices: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Classified:
    """Rows of the classes that were asked for.

    Attributes:
        rows: row numbers in the source, ascending.
        place: for each of those rows, its class's place in ``names``.
        labels: for each of those rows, the source's own integer label, or the place where the source has only texts.
        names: the classes, in the order asked for.
    """

    rows: Indices
    place: Indices
    labels: Indices
    names: tuple[str, ...]


def choose_classes(target: NDArray[Any], names: tuple[str, ...], wanted: Sequence[ClassLabel] | None) -> Classified:
    """The rows whose class is among ``wanted``.

    Args:
        target: n integers or n texts.
        names: the name of integer label v at place v, as far as it goes.
        wanted: labels or names, in the order in which they shall count; None for all, in ascending order.

    Returns:
        The rows with their classes.

    Raises:
        ArgumentError: for a class that is not there, one named twice, or fewer than two.

    Example:
        >>> choose_classes(np.array([3, 8, 1, 8]), (), (8, 3)).place
        array([1, 0, 0])
    """
    values, inverse = np.unique(target, return_inverse=True)
    inverse = inverse.reshape(-1)
    known = [str(value) if isinstance(value, str) else _name(int(value), names) for value in values.tolist()]
    if wanted is None:
        order = list(range(len(values)))
    else:
        if isinstance(wanted, str):
            raise ArgumentError("classes", f"is the string {wanted!r}", f"pass a tuple: ({wanted!r}, ...)")
        order = [_find(label, values.tolist(), known) for label in wanted]
        if len(set(order)) < len(order):
            raise ArgumentError("classes", f"is {tuple(wanted)}, which names a class twice", "name every class once")
    if len(order) < 2:
        seen = f"leaves one class ({known[order[0]]})" if order else "is empty"
        raise ArgumentError("classes", seen, f"two or more are needed; the source has: {_listed(known)}")
    place_of = np.full(len(values), -1, dtype=np.int64)
    place_of[order] = np.arange(len(order))
    place = place_of[inverse]
    rows = np.flatnonzero(place >= 0)
    labels = place[rows] if target.dtype.kind == "U" else target[rows].astype(np.int64)
    return Classified(rows, place[rows], labels, tuple(known[i] for i in order))


def draw(place: Indices, n: SupportsIndex | None, seed: int, source: str) -> Indices:
    """A random choice of n rows with as nearly equal numbers of every class as the classes allow.

    Args:
        place: each row's class, from 0 (all 0 for a plain random choice).
        n: how many, or None for all.
        seed: of the choice; the same seed gives the same rows.
        source: what errors call the data.

    Returns:
        The chosen positions in ``place``, ascending.

    Raises:
        ArgumentError: unless 1 <= n <= the number of rows, and for a seed that is negative.

    Example:
        >>> draw(np.array([0, 0, 0, 0, 1]), 3, seed=0, source="toy")[-1]
        np.int64(4)
    """
    available = len(place)
    if n is None:
        return np.arange(available)
    try:
        if isinstance(n, bool):
            raise TypeError
        wanted = operator.index(n)
    except TypeError:
        raise ArgumentError("n", f"is {n!r}", "pass a whole number of rows, or None for all") from None
    if wanted < 1:
        raise ArgumentError("n", f"is {wanted}", "pass at least 1, or None for all rows")
    if wanted > available:
        raise ArgumentError("n", f"is {wanted}, but {source} has {available} rows to choose from", f"pass at most {available}")
    if seed < 0:
        raise ArgumentError("seed", f"is {seed}", "pass 0 or a positive integer")
    sizes = np.bincount(place)
    quota = np.zeros_like(sizes)
    # One more of each class in turn, in class order, until n: a small class gives all it has and the others make up for it.
    level = 0
    while quota.sum() < wanted:
        level += 1
        open_classes = np.flatnonzero(sizes >= level)
        quota[open_classes[: wanted - quota.sum()]] += 1
    generator = np.random.default_rng(seed)
    chosen = [generator.permutation(np.flatnonzero(place == c))[: quota[c]] for c in range(len(sizes))]
    return np.sort(np.concatenate(chosen))


def _name(label: int, names: tuple[str, ...]) -> str:
    """An integer label's name."""
    return names[label] if 0 <= label < len(names) else str(label)


def _find(label: ClassLabel, values: list[int] | list[str], known: list[str]) -> int:
    """The place of a class among those that are there."""
    for i, (value, name) in enumerate(zip(values, known, strict=True)):
        if not isinstance(label, bool) and (label == value or str(label) == name):
            return i
    if isinstance(label, str):  # a number in quotes, where the class has a name as well
        for i, value in enumerate(values):
            if label == str(value):
                return i
    raise ArgumentError("classes", f"names {label!r}, which the source has not", f"choose from: {_listed(known)}")


def _listed(known: list[str]) -> str:
    """The first of many names."""
    return ", ".join(known[:20]) + (f" and {len(known) - 20} more" if len(known) > 20 else "")
