"""Which rows every step of stochastic gradient descent uses: a pure function of seed and epoch, so that nothing has to be stored."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from zeroloss.errors import ArgumentError


@dataclass(frozen=True)
class Batches:
    r"""The sampling of n rows by b; an epoch is $\lceil n/b\rceil$ steps.

    Without replacement every epoch runs through a fresh random permutation, whose last batch is smaller where b does not divide n;
    with replacement every step draws b rows uniformly and independently. A batch B estimates $\nabla F$ by
    $(n/|B|)\sum_{i\in B}\nabla F_i$, whose mean over the draw is $\nabla F$.

    Args:
        n: rows.
        size: b, in 1..n.
        replacement: whether rows are drawn with replacement.
        seed: of the order, at least 0.

    Example:
        >>> batches = Batches(5, 2, seed=3)
        >>> [batches.rows(k).tolist() for k in range(3)]
        [[1, 4], [0, 3], [2]]
        >>> Batches(5, 5).rows(0) is None
        True
    """

    n: int
    size: int
    replacement: bool = False
    seed: int = 0

    @property
    def whole(self) -> bool:
        """Whether every batch is the data set itself."""
        return self.size == self.n and not self.replacement

    @property
    def epoch(self) -> int:
        """Steps an epoch; the loss of all rows is recorded once in each."""
        return -(-self.n // self.size)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of an epoch's batches."""
        if self.replacement or self.n % self.size == 0:
            return (self.size,) * self.epoch
        return (*(self.size,) * (self.epoch - 1), self.n % self.size)

    def rows(self, step: int) -> Tensor | None:
        """The row numbers of a step's batch, int64, ascending; None where they are all rows.

        The order within a batch does not change its sum, and ascending rows make a batch of all rows the data as they stand.

        Args:
            step: k.
        """
        return None if self.whole else _orders(self, step // self.epoch)[step % self.epoch]


def make_batches(n: int, batch: int | None, replacement: bool = False, seed: int = 0) -> Batches:
    """The sampling that ``batch``, ``replacement`` and ``seed`` ask for.

    Args:
        n: rows.
        batch: b in 1..n; None is n without replacement, full-batch descent.
        replacement: whether rows are drawn with replacement.
        seed: of the order.

    Returns:
        The sampling.

    Raises:
        ArgumentError: for arguments out of range.

    Example:
        >>> make_batches(10, None).whole, make_batches(10, 4).sizes
        (True, (4, 4, 2))
    """
    if batch is not None and (isinstance(batch, bool) or not isinstance(batch, int) or not 1 <= batch <= n):
        raise ArgumentError("batch", f"is {batch!r}", f"pass None for all rows, or a whole number from 1 to {n}")
    if not isinstance(replacement, bool):
        raise ArgumentError("replacement", f"is {replacement!r}", "pass True or False")
    if batch is None and replacement:
        raise ArgumentError("replacement", "is True without a batch size", f"pass batch from 1 to {n} too")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ArgumentError("seed", f"is {seed!r}", "pass a whole number of at least 0")
    return Batches(n, n if batch is None else batch, replacement, seed)


@lru_cache(maxsize=2)
def _orders(batches: Batches, epoch: int) -> tuple[Tensor, ...]:
    """The batches of one epoch; a spawn key keeps seeds and epochs apart whatever their sizes."""
    generator = np.random.default_rng(np.random.SeedSequence(batches.seed, spawn_key=(epoch,)))
    n, size = batches.n, batches.size
    drawn = generator.integers(n, size=batches.epoch * size) if batches.replacement else generator.permutation(n)
    even = len(drawn) // size * size
    parts = [*np.sort(drawn[:even].reshape(-1, size), axis=1), *([np.sort(drawn[even:])] if even < len(drawn) else [])]
    return tuple(torch.from_numpy(part) for part in parts)
