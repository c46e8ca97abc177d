r"""One layer's share of the Gram, $\langle g_i^a, g_j^b\rangle$ with $g_i^a = \sum_t\delta^a_{it}\phi_{it}^\top$, in bounded memory.

There are two ways to the same numbers, and the one with fewer operations is taken. Products of positions,
$\sum_{ts}(\delta_{it}\cdot\delta_{js})(\phi_{it}\cdot\phi_{js})$: for one position, the Gram of a linear layer. Or products of the
gradients themselves, which are formed a few output channels at a time (THEORY 1.2, 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.gram.positions import Layer, patches

BYTES = 2**28  # for everything that is formed on the way to a share, whatever the layer's size; the share itself comes on top
CACHED = 128  # a part of it that stays in a processor's cache: patches are written and read again at once


@dataclass(frozen=True, eq=False)
class Factors:
    r"""A layer's gradients, in factors: those of all its calls, since the positions of a second call are more positions.

    Args:
        layer: the layer.
        inputs: of each call, rows first.
        deltas: $\delta$, n×k×O×T, for k outputs; T runs over the positions of the first call, then of the second, and so on.
    """

    layer: Layer
    inputs: tuple[Tensor, ...]
    deltas: Float[Tensor, "n k O T"]

    @cached_property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """The numbers of samples n, outputs k, channels O and positions T, and the length D of a patch."""
        n, k, channels, positions = self.deltas.shape
        return n, k, channels, positions, self.patches(slice(0, 1)).shape[1]

    def patches(self, rows: slice) -> Float[Tensor, "r D T"]:
        r"""$\phi$ of some samples."""
        each = [patches(self.layer, inputs[rows]) for inputs in self.inputs]
        return each[0] if len(each) == 1 else torch.cat(each, dim=2)

    def gradients(self, rows: slice, channels: slice) -> Float[Tensor, "r k cD"]:
        r"""$g$ of some samples, for some rows of the weight."""
        delta = self.deltas[rows, :, channels]
        r, k = delta.shape[:2]
        return torch.bmm(delta.flatten(1, 2), self.patches(rows).mT).reshape(r, k, -1)

    def summed(self) -> Factors:
        """One output for all of them: as more channels, their gradients lie side by side and their Grams add up."""
        return replace(self, deltas=self.deltas.flatten(1, 2)[:, None])


def share(factors: Factors) -> Float[Tensor, "nk nk"]:
    """A layer's share of the Gram over all samples and outputs, sample-major, by the cheaper way.

    Args:
        factors: the layer's gradients, in factors.

    Returns:
        Symmetric, (nk)×(nk).

    Example:
        >>> import torch.nn as nn
        >>> once = Factors(nn.Linear(2, 1, bias=False), (torch.eye(2),), torch.ones(2, 1, 1, 1))
        >>> share(once)
        tensor([[1., 0.],
                [0., 1.]])
    """
    n, k, channels, positions, length = factors.sizes
    products = (n * positions) ** 2 * (length + k**2 * channels)
    gradients = n * k * length * channels * (positions + n * k)
    return by_positions(factors) if products < gradients else by_gradients(factors)


def blocks(factors: Factors) -> Float[Tensor, "n k k"]:
    """The diagonal blocks of :func:`share`, each sample with itself, without the rest, by the cheaper way.

    Args:
        factors: the layer's gradients, in factors.

    Returns:
        One k×k matrix a sample.

    Example:
        >>> import torch.nn as nn
        >>> blocks(Factors(nn.Linear(2, 1), (torch.eye(2),), torch.ones(2, 1, 1, 1))).flatten()
        tensor([2., 2.])
    """
    _, k, channels, positions, length = factors.sizes
    products = positions**2 * (length + k**2 * channels)
    gradients = k * length * channels * (positions + k)
    return blocks_by_positions(factors) if products < gradients else blocks_by_gradients(factors)


def by_positions(factors: Factors) -> Float[Tensor, "nk nk"]:
    """:func:`share` by products of positions: $n^2T^2(D+k^2O)$ operations, of which symmetry saves half."""
    n, k, _, positions, length = factors.sizes
    total = factors.deltas.new_empty(n, k, n, k)
    side = math.isqrt(_cells(factors, 8) // (k * positions) ** 2)
    few = max(1, min(side, _cells(factors, 8) // (length * positions)))
    for left in _ranges(n, few):
        phi, delta = _rows(factors.patches(left)[:, None]), _rows(factors.deltas[left])
        for right in _ranges(n, few, start=left.start):
            same = right == left
            inner = phi @ (phi if same else _rows(factors.patches(right)[:, None])).T
            outer = delta @ (delta if same else _rows(factors.deltas[right])).T
            i, j = left.stop - left.start, right.stop - right.start
            pairs = outer.view(i, k, positions, j, k, positions).mul_(inner.view(i, 1, positions, j, 1, positions))
            block = pairs.sum(dim=(2, 5))
            total[left, :, right] = block
            if not same:
                total[right, :, left] = block.permute(2, 3, 0, 1)
    return total.view(n * k, n * k)


def by_gradients(factors: Factors) -> Float[Tensor, "nk nk"]:
    """:func:`share` by products of gradients: $nkTDO + n^2k^2DO$ operations."""
    n, k, channels, positions, length = factors.sizes
    total = factors.deltas.new_zeros(n * k, n * k)
    some = max(1, min(channels, _cells(factors, 2) // (n * k * length)))
    store = factors.deltas.new_empty(n, k, some * length)
    for part in _ranges(channels, some):
        gradients = store[..., : (part.stop - part.start) * length]
        for rows in _ranges(n, max(1, _cells(factors, CACHED) // (length * positions + k * some * (length + positions)))):
            gradients[rows] = factors.gradients(rows, part)
        flat = gradients.reshape(n * k, -1)
        total.addmm_(flat, flat.T)
    return total


def blocks_by_positions(factors: Factors) -> Float[Tensor, "n k k"]:
    """:func:`blocks` by products of positions: $nT^2(D+k^2O)$ operations."""
    n, k, channels, positions, length = factors.sizes
    parts = []
    for rows in _ranges(n, max(1, _cells(factors, CACHED) // (positions * (length + k * channels + k**2 * positions)))):
        phi, delta = factors.patches(rows), factors.deltas[rows].transpose(2, 3).flatten(1, 2)
        pairs = (delta @ delta.mT).view(-1, k, positions, k, positions) * (phi.mT @ phi).view(-1, 1, positions, 1, positions)
        parts.append(pairs.sum(dim=(2, 4)))
    return torch.cat(parts)


def blocks_by_gradients(factors: Factors) -> Float[Tensor, "n k k"]:
    """:func:`blocks` by products of gradients: $nkTDO + nk^2DO$ operations."""
    n, k, channels, positions, length = factors.sizes
    total = factors.deltas.new_zeros(n, k, k)
    some = max(1, min(channels, _cells(factors, CACHED) // (k * length)))
    for rows in _ranges(n, max(1, _cells(factors, CACHED) // (length * positions + k * some * (length + positions)))):
        for part in _ranges(channels, some):
            gradients = factors.gradients(rows, part)
            total[rows] += gradients @ gradients.mT
    return total


def _rows(values: Tensor) -> Tensor:
    """n×k×D×T to one row of D a sample, output and position."""
    return values.transpose(2, 3).flatten(0, 2)


def _ranges(n: int, size: int, start: int = 0) -> Iterator[slice]:
    return (slice(first, min(first + size, n)) for first in range(start, n, size))


def _cells(factors: Factors, parts: int) -> int:
    """Entries in one of so many equal parts of the memory."""
    return BYTES // parts // factors.deltas.element_size()
