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
from torch import Tensor, nn

from zeroloss.gram.positions import kind_of, patches

BYTES = 2**28  # for everything that is formed on the way to a share, whatever the layer's size; the share itself comes on top
CACHED = 128  # a part of it that stays in a processor's cache: patches are written and read again at once


@dataclass(frozen=True, eq=False)
class Factors:
    r"""A layer's gradients, in factors: those of all its calls, since the positions of a second call are more positions.

    Args:
        layer: the layer, of a kind in :data:`zeroloss.gram.positions.KINDS`.
        inputs: of each call, rows first.
        deltas: $\delta$, n×k×O×T, for k outputs; T runs over the positions of the first call, then of the second, and so on.
        parts: which of ``"weight"`` and ``"bias"`` count; by default those that are trained.
    """

    layer: nn.Module
    inputs: tuple[Tensor, ...]
    deltas: Float[Tensor, "n k O T"]
    parts: tuple[str, ...] | None = None

    @cached_property
    def sizes(self) -> tuple[int, int, int, int, int]:
        """The numbers of samples n, outputs k, channels O and positions T, and the length D of a patch."""
        n, k, channels, positions = self.deltas.shape
        return n, k, channels, positions, self.patches(slice(0, 1)).shape[1]

    def patches(self, rows: slice) -> Float[Tensor, "r D T"]:
        r"""$\phi$ of some samples."""
        each = [patches(self.layer, inputs[rows], self.parts) for inputs in self.inputs]
        return each[0] if len(each) == 1 else torch.cat(each, dim=2)

    def gradients(self, rows: slice, channels: slice) -> Float[Tensor, "r k cD"]:
        r"""$g$ of some samples, for some rows of the weight."""
        delta = self.deltas[rows, :, channels]
        r, k = delta.shape[:2]
        return torch.bmm(delta.flatten(1, 2), self.patches(rows).mT).reshape(r, k, -1)

    def summed(self) -> Factors:
        """One output for all of them: as more channels, their gradients lie side by side and their Grams add up."""
        return replace(self, deltas=self.deltas.flatten(1, 2)[:, None])

    def share(self, other: Factors | None = None) -> Float[Tensor, "n k m k"]:
        """Its products with another set of samples, by the cheaper way.

        Args:
            other: gradients of the same layer; None stands for itself.
        """
        kind, (n, k, channels, positions, length) = kind_of(self.layer), self.sizes
        m = n if other is None else other.sizes[0]
        products = n * m * positions**2 * (length + k**2 * channels)
        gradients = (n + m) / 2 * k * length * channels * positions + n * m * k**2 * length * channels
        assert kind is not None
        return by_positions(self, other) if products < gradients or not kind.explicit else by_gradients(self, other)

    def blocks(self) -> Float[Tensor, "n k k"]:
        """The diagonal blocks of :meth:`share`, each sample with itself, without the rest, by the cheaper way."""
        kind, (_, k, channels, positions, length) = kind_of(self.layer), self.sizes
        products = positions**2 * (length + k**2 * channels)
        gradients = k * length * channels * (positions + k)
        assert kind is not None
        return blocks_by_positions(self) if products < gradients or not kind.explicit else blocks_by_gradients(self)


@dataclass(frozen=True, eq=False)
class Gradients:
    """A layer's gradients, written out.

    Args:
        values: n×k×P, for k outputs.
    """

    values: Float[Tensor, "n k P"]

    def summed(self) -> Gradients:
        """One output for all of them, as in :meth:`Factors.summed`."""
        return Gradients(self.values.flatten(1)[:, None])

    def share(self, other: Gradients | None = None) -> Float[Tensor, "n k m k"]:
        """As :meth:`Factors.share`."""
        right = self.values if other is None else other.values
        return (self.values.flatten(0, 1) @ right.flatten(0, 1).T).view(*self.values.shape[:2], *right.shape[:2])

    def blocks(self) -> Float[Tensor, "n k k"]:
        """As :meth:`Factors.blocks`."""
        return self.values @ self.values.mT


def by_positions(factors: Factors, other: Factors | None = None) -> Float[Tensor, "n k m k"]:
    """A share by products of positions: $nmT^2(D+k^2O)$ operations, of which symmetry saves half.

    Args:
        factors: the layer's gradients, in factors.
        other: those of other samples; None stands for the same.

    Example:
        >>> by_positions(Factors(nn.Linear(2, 1, bias=False), (torch.eye(2),), torch.ones(2, 1, 1, 1))).view(2, 2)
        tensor([[1., 0.],
                [0., 1.]])
    """
    n, k, _, positions, length = factors.sizes
    second = factors if other is None else other
    m, across = second.sizes[0], second.sizes[3]
    kind = kind_of(factors.layer)
    assert kind is not None
    total = factors.deltas.new_empty(n, k, m, k)
    side = math.isqrt(_cells(factors, 8) // (k**2 * positions * across))
    few = max(1, min(side, _cells(factors, 8) // (length * positions)))
    for left in _ranges(n, few):
        phi, delta = _rows(factors.patches(left)[:, None]), _rows(factors.deltas[left])
        for right in _ranges(m, few, start=left.start if other is None else 0):
            same = other is None and right == left
            inner = kind.inner(phi, phi if same else _rows(second.patches(right)[:, None]))
            outer = delta @ (delta if same else _rows(second.deltas[right])).T
            i, j = left.stop - left.start, right.stop - right.start
            pairs = outer.view(i, k, positions, j, k, across).mul_(inner.view(i, 1, positions, j, 1, across))
            block = pairs.sum(dim=(2, 5))
            total[left, :, right] = block
            if other is None and not same:
                total[right, :, left] = block.permute(2, 3, 0, 1)
    return total


def by_gradients(factors: Factors, other: Factors | None = None) -> Float[Tensor, "n k m k"]:
    """A share by products of gradients: $nkTDO + nmk^2DO$ operations.

    Args:
        factors: as for :func:`by_positions`.
        other: likewise.
    """
    second = factors if other is None else other
    (n, k, channels, _, length), m = factors.sizes, second.sizes[0]
    total = factors.deltas.new_zeros(n * k, m * k)
    some = max(1, min(channels, _cells(factors, 2) // ((n if other is None else n + m) * k * length)))
    for part in _ranges(channels, some):
        left = _written(factors, part)
        total.addmm_(left, (left if other is None else _written(second, part)).T)
    return total.view(n, k, m, k)


def _written(factors: Factors, part: slice) -> Float[Tensor, "nk cD"]:
    """Gradients in some rows of the weight, made a few samples at a time."""
    n, k, _, positions, length = factors.sizes
    width = part.stop - part.start
    store = factors.deltas.new_empty(n, k, width * length)
    for rows in _ranges(n, max(1, _cells(factors, CACHED) // (length * positions + k * width * (length + positions)))):
        store[rows] = factors.gradients(rows, part)
    return store.view(n * k, -1)


def blocks_by_positions(factors: Factors) -> Float[Tensor, "n k k"]:
    """Diagonal blocks by products of positions: $nT^2(D+k^2O)$ operations."""
    n, k, channels, positions, length = factors.sizes
    kind = kind_of(factors.layer)
    assert kind is not None
    parts = []
    for rows in _ranges(n, max(1, _cells(factors, CACHED) // (positions * (length + k * channels + k**2 * positions)))):
        phi, delta = factors.patches(rows), factors.deltas[rows].transpose(2, 3).flatten(1, 2)
        inner = torch.stack([kind.inner(one.T, one.T) for one in phi])
        pairs = (delta @ delta.mT).view(-1, k, positions, k, positions) * inner.view(-1, 1, positions, 1, positions)
        parts.append(pairs.sum(dim=(2, 4)))
    return torch.cat(parts)


def blocks_by_gradients(factors: Factors) -> Float[Tensor, "n k k"]:
    """Diagonal blocks by products of gradients: $nkTDO + nk^2DO$ operations."""
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
