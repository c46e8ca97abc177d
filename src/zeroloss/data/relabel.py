"""Labels that say less about the inputs, or nothing: what over-parameterised networks fit all the same."""

from __future__ import annotations

import operator
from typing import SupportsIndex

import numpy as np
import torch
from numpy.typing import NDArray

from zeroloss.data.dataset import Dataset
from zeroloss.errors import ArgumentError
from zeroloss.typing import Targets

Places = NDArray[np.int64]  # the number of each row's class, from 0


def with_noisy_labels(data: Dataset, rate: float | int, seed: SupportsIndex = 0) -> Dataset:
    r"""The same inputs with symmetric label noise: $\mathrm{round}(\rho n)$ rows get another class, uniformly among the others.

    Args:
        data: a classification: y is ±1 (n×1) or one-hot (n×k).
        rate: the share $\rho\in[0,1]$ of rows that change.
        seed: which rows, and to what.

    Returns:
        A new data set; targets and labels agree row by row.

    Raises:
        ArgumentError: for targets that are no classes, a class whose label is unknown, a rate beyond [0, 1], a negative seed.

    Example:
        >>> data = Dataset([[0], [1], [2], [3]], [1, 1, -1, -1], labels=[8, 8, 3, 3])
        >>> noisy = with_noisy_labels(data, 0.5)
        >>> int((noisy.y != data.y).sum()), noisy.labels[noisy.y[:, 0] > 0].unique().tolist()
        (2, [8])
    """
    if isinstance(rate, bool) or not 0 <= rate <= 1:
        raise ArgumentError("rate", f"is {rate!r}", "pass a share of the rows, from 0 to 1")
    place, count = _places(data)
    generator = np.random.default_rng(_seed(seed))
    rows = generator.choice(data.n, size=round(rate * data.n), replace=False)
    changed = place.copy()
    changed[rows] = (place[rows] + generator.integers(1, count, len(rows))) % count  # a step of 1 to k − 1 never comes back
    return _relabelled(data, place, changed, count, f"{rate:g} noisy labels")


def with_random_labels(data: Dataset, seed: SupportsIndex = 0) -> Dataset:
    """The same inputs, each with a class drawn uniformly and independently of everything: AZ and DU allow any labels.

    Args:
        data: a classification: y is ±1 (n×1) or one-hot (n×k).
        seed: of the draw.

    Returns:
        A new data set; targets and labels agree row by row.

    Raises:
        ArgumentError: for targets that are no classes, a class whose label is unknown, a negative seed.

    Example:
        >>> with_random_labels(Dataset([[0], [1], [2]], [1, -1, 1]), seed=3)
        Dataset('data, random labels': x (3, 1), y (3, 1))
    """
    place, count = _places(data)
    drawn = np.random.default_rng(_seed(seed)).integers(0, count, data.n)
    return _relabelled(data, place, drawn, count, "random labels")


def _seed(seed: SupportsIndex) -> int:
    """A seed, checked."""
    number = operator.index(seed)
    if number < 0:
        raise ArgumentError("seed", f"is {number}", "pass 0 or a positive integer")
    return number


def _places(data: Dataset) -> tuple[Places, int]:
    """Each row's class as its target encodes it, and how many classes there are."""
    y, count = data.y, data.outputs
    if count == 1 and bool((y.abs() == 1).all()):
        return (y[:, 0] > 0).to(torch.int64).cpu().numpy(), 2
    if count > 1 and bool(((y == 0) | (y == 1)).all()) and bool((y.sum(1) == 1).all()):
        return y.argmax(1).cpu().numpy(), count
    raise ArgumentError("data", f"{data.name!r} has targets that are neither ±1 nor one-hot", "pass a classification")


def _encoded(place: Places, data: Dataset) -> Targets:
    """Targets of these classes, as ``data`` writes them."""
    rows = torch.from_numpy(place)
    y = 2.0 * rows[:, None] - 1.0 if data.outputs == 1 else torch.eye(data.outputs)[rows]
    return y.to(device=data.y.device, dtype=torch.float64)


def _relabelled(data: Dataset, old: Places, new: Places, count: int, how: str) -> Dataset:
    """``data`` with other classes."""
    labels = None
    if data.labels is not None:
        labels = _label_of_places(data, old, data.labels.cpu().numpy(), count)[new]
    return Dataset(data.x, _encoded(new, data), labels, f"{data.name}, {how}", data.classes, data.image_shape)


def _label_of_places(data: Dataset, place: Places, labels: Places, count: int) -> Places:
    """The source's label of every class, read off the rows; of a class without rows, off its name or the others' pattern."""
    found = np.full(count, -1, dtype=np.int64)
    found[place] = labels
    if (found[place] != labels).any():
        row = int(np.argmax(found[place] != labels))
        raise ArgumentError("data", f"{data.name!r} has labels and targets that disagree (first: row {row})", "build it again")
    present = np.unique(place)
    for absent in np.setdiff1d(np.arange(count), present).tolist():
        name = data.classes[absent] if absent < len(data.classes) else ""
        if name.lstrip("-").isdecimal():
            found[absent] = int(name)
        elif (found[present] == present).all():
            found[absent] = absent
        else:
            raise ArgumentError("data", f"has no row of class {name or absent!r}, whose label is unknown", "take more rows")
    return found
