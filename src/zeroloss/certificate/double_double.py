r"""Double-double arithmetic: a number as the unevaluated sum of two float64, about 106 bits, and matrix products to match.

Sums and products come with their own rounding errors (TwoSum: Knuth; TwoProd: Dekker's splitting, which needs no fused multiply-add).
A matrix product is cut into slices of so few bits that float64 multiplies and adds them without any rounding, in whatever order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SPLITTER = 134217729.0  # 2^27 + 1: halves a significand
SLICES = 4  # of a factor: with 17 bits or more each, what is left out is below 2^-68 of the largest entries' product
BITS = 53


@dataclass(frozen=True, eq=False)
class Pair:
    r"""A tensor of numbers $h+l$ with $|l|\le\tfrac12\mathrm{ulp}(h)$.

    Args:
        high: the float64 nearest to the number.
        low: what is left of it.

    Example:
        >>> third = Pair.of(torch.ones(1, dtype=torch.float64)) / Pair.of(torch.full((1,), 3.0, dtype=torch.float64))
        >>> third.high.item(), third.low.item()
        (0.3333333333333333, 1.850371707708594e-17)
    """

    high: Tensor
    low: Tensor

    @staticmethod
    def of(values: Tensor) -> Pair:
        """Float64 numbers, exactly."""
        return Pair(values, torch.zeros_like(values))

    def map(self, change: Callable[[Tensor], Tensor]) -> Pair:
        """Both parts under something that only moves entries: a reshape, a choice, a fold into patches."""
        return Pair(change(self.high), change(self.low))

    def rounded(self) -> Tensor:
        """The nearest float64."""
        return self.high + self.low

    def __neg__(self) -> Pair:
        return Pair(-self.high, -self.low)

    def __add__(self, other: Pair | float) -> Pair:
        if not isinstance(other, Pair):
            return _normal(*_plus(two_sum(self.high, torch.full_like(self.high, other)), self.low))
        high, error = two_sum(self.high, other.high)
        low, rest = two_sum(self.low, other.low)
        high, error = quick_two_sum(high, error + low)
        return _normal(high, error + rest)

    def __sub__(self, other: Pair | float) -> Pair:
        return self + (-other)

    def __mul__(self, other: Pair | float) -> Pair:
        if not isinstance(other, Pair):
            return _normal(*_plus(two_product(self.high, torch.full_like(self.high, other)), self.low * other))
        high, error = two_product(self.high, other.high)
        return _normal(high, error + (self.high * other.low + self.low * other.high))

    def __truediv__(self, other: Pair) -> Pair:
        first = self.high / other.high
        rest = self - other * Pair.of(first)
        second = rest.high / other.high
        rest = rest - other * Pair.of(second)
        return Pair(*quick_two_sum(first, second)) + Pair.of(rest.high / other.high)

    def where(self, mask: Tensor, other: Pair) -> Pair:
        """These numbers where the mask is true, and the others elsewhere."""
        return Pair(torch.where(mask, self.high, other.high), torch.where(mask, self.low, other.low))


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    r"""$a+b$ rounded, and the exact error (Knuth, TAOCP 2, 4.2.2, Theorem B).

    Example:
        >>> s, e = two_sum(torch.ones(1, dtype=torch.float64), torch.full((1,), 1e-17, dtype=torch.float64))
        >>> s.item(), e.item()
        (1.0, 1e-17)
    """
    total = a + b
    virtual = total - a
    return total, (a - (total - virtual)) + (b - virtual)


def quick_two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    r"""As :func:`two_sum`, for $|a|\ge|b|$ (Dekker 1971)."""
    total = a + b
    return total, b - (total - a)


def two_product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    r"""$ab$ rounded, and the exact error, for factors below $2^{996}$ and products above $2^{-969}$ (Dekker 1971; Veltkamp's splitting).

    Example:
        >>> x = torch.full((1,), 1 + 2.0**-30, dtype=torch.float64)
        >>> p, e = two_product(x, x)
        >>> p.item() == 1 + 2.0**-29, e.item() == 2.0**-60
        (True, True)
    """
    product = a * b
    a_high, a_low = _halves(a)
    b_high, b_low = _halves(b)
    return product, ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low


def product(a: Pair, b: Pair) -> Pair:
    r"""The matrix product $AB$, with an error below $2^{-66}k\max_l|a_{il}|\max_l|b_{lj}|$ in each entry for inner length $k\le2^{19}$.

    Each row of A and each column of B is cut into slices of $\beta=\lfloor(53-\lceil\log_2k\rceil)/2\rfloor$ bits: a slice's entries are
    whole multiples of one power of two, at most $2^\beta$ of them, so that a product of two slices has entries below $2^{53}$ of its unit
    and comes out of any float64 matrix product exact. Slices whose product lies below the last are left out.

    Args:
        a: p×k, or batches of it.
        b: k×q, likewise.

    Returns:
        p×q.

    Source:
        Ozaki, Ogita, Oishi, Rump 2012, "Error-free transformations of matrix multiplication by using fast routines".

    Example:
        >>> row = Pair.of(torch.tensor([[1.0, 2.0**-30, -1.0]], dtype=torch.float64))
        >>> product(row, row.map(lambda t: t.T)).low.item() == 2.0**-60
        True
    """
    bits = slice_bits(a.high.shape[-1])
    return multiplied(slices(a, bits, -1), slices(b, bits, -2))


def slice_bits(inner: int) -> int:
    r"""$\beta$ for products over an inner length k."""
    return (BITS - max(1, math.ceil(math.log2(max(2, inner))))) // 2


def slices(a: Pair, bits: int, along: int | None = None) -> list[Tensor]:
    """Parts of ``bits`` bits, the same ones for all entries along a dimension, or for all there are; what is left is dropped."""
    size = a.high.abs().amax(along, keepdim=True) if along is not None else a.high.abs().amax()
    unit = torch.frexp(size)[1].to(torch.float64)  # the largest entry is below 2^unit
    found, high, low = [], a.high, a.low
    for index in range(SLICES):
        # adding 3/2 * 2^(52 + e) and taking it off again rounds to multiples of 2^e
        shift = torch.exp2((unit - (index + 1) * bits).clamp(min=-1000) + (BITS - 1)) * 1.5
        part = (high + shift) - shift
        found.append(part)
        if index + 1 < SLICES:
            high, low = two_sum(high - part, low)
    return found


def multiplied(left: list[Tensor], right: list[Tensor]) -> Pair:
    """The sum of the products of slices, the largest first, without those below the last slice."""
    total: Pair | None = None
    for order in range(SLICES):
        for i in range(order + 1):
            exact = Pair.of(left[i] @ right[order - i])
            total = exact if total is None else total + exact
    assert total is not None
    return total


def _halves(a: Tensor) -> tuple[Tensor, Tensor]:
    scaled = SPLITTER * a
    high = scaled - (scaled - a)
    return high, a - high


def _plus(pair: tuple[Tensor, Tensor], low: Tensor) -> tuple[Tensor, Tensor]:
    return pair[0], pair[1] + low


def _normal(high: Tensor, low: Tensor) -> Pair:
    return Pair(*quick_two_sum(high, low))
