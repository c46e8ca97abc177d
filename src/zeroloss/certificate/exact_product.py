r"""Affine maps in twice the precision, from products that float64 forms without any rounding (Ozaki, Ogita, Oishi, Rump 2012).

Rows are scaled by powers of two and cut into slices of $\beta$ bits, $2\beta+\log_2k\le53$. The product of two slices is then a matrix of
whole numbers below $2^{53}$: exact, in whatever order it is summed. Nine such products are added in double-double; what three slices
leave out goes through plain products, whose rounding is relative to that tiny rest.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zeroloss.certificate.convolution import patches
from zeroloss.certificate.rounding import UNIT, gamma, row_norms, up
from zeroloss.certificate.stages import Affine, Chain, Linear

SLICES = 3

Low = Tensor | None


def affine(chain: Chain, op: Affine, h: Tensor, low: Low, terms: int, near: Tensor) -> tuple[Tensor, Low, Tensor]:
    r"""An affine stage's outputs with a bound of their rounding.

    Args:
        chain: holds the tensors.
        op: the stage.
        h: its inputs.
        low: what is to be added to them in extended precision, or None for plain float64.
        terms: products that an output sums, the bias included.
        near: bounds of $\|[h;1]\|$ at every position.

    Returns:
        The outputs, their low part, and numbers $a$ of ``near``'s shape with
        $|\text{rounding of output } r|\le a\,\|[w_r;b_r]\|$.
    """
    weight = chain.tensors[op.weight].flatten(1)
    bias = None if op.bias is None else chain.tensors[op.bias]
    if isinstance(op, Linear):
        columns, rest, shape = h, low, (len(h), len(weight))
        size = near
    else:
        kernel = chain.tensors[op.weight]
        sides = (kernel.shape[2], kernel.shape[3])
        shape = (len(h), len(weight), *near.shape[2:])
        columns = patches(h, op, sides)
        if low is None:
            z = weight @ columns if bias is None else weight @ columns + bias[:, None]
            return z.reshape(shape), None, gamma(terms + 2) * near
        columns, rest = _positions_first(columns), _positions_first(patches(low, op, sides))
        size = near.reshape(-1, 1)
    if rest is None:
        z = columns @ weight.T
        return z if bias is None else z + bias, None, gamma(terms + 2) * near
    high, small, own = _extended(columns, rest, weight, bias, terms, size)
    if isinstance(op, Linear):
        return high, small, own
    return _back(high, shape), _back(small, shape), own.reshape(near.shape)


def two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """A + b as a rounded sum and its rounding error, exactly (Knuth).

    Example:
        >>> one, small = torch.tensor([1.0], dtype=torch.float64), torch.tensor([2.0**-60], dtype=torch.float64)
        >>> bool((two_sum(one, small)[1] == small).all())
        True
    """
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)


def two_product(a: Tensor, factor: float) -> tuple[Tensor, Tensor]:
    """A times a number as a rounded product and its rounding error, exactly while nothing overflows (Dekker, Veltkamp).

    Example:
        >>> p, e = two_product(torch.tensor([0.1], dtype=torch.float64), 0.1)
        >>> from fractions import Fraction
        >>> Fraction(float(p)) + Fraction(float(e)) == Fraction(0.1) ** 2
        True
    """
    product = a * factor
    split = 134217729.0  # 2**27 + 1
    a_high = split * a - (split * a - a)
    f_high = split * factor - (split * factor - factor)
    a_low, f_low = a - a_high, factor - f_high
    return product, ((a_high * f_high - product) + a_high * f_low + a_low * f_high) + a_low * f_low


def slice_bits(terms: int) -> int:
    """How many bits a slice may have so that products of slices are exact.

    Args:
        terms: products in a sum.

    Returns:
        The bits.

    Example:
        >>> slice_bits(1024)
        21
    """
    return (53 - math.ceil(math.log2(max(terms, 2)))) // 2


def slices(rows: Tensor, bits: int) -> tuple[list[Tensor], Tensor, Tensor]:
    r"""Cut every row into whole numbers: $a_i=2^{e_i}\left(\sum_s2^{-\beta(s+1)}A^{(s)}_i\right)+\text{rest}$, exactly.

    Args:
        rows: any matrix.
        bits: $\beta$.

    Returns:
        The slices, the exponents $e_i$, and the rest.

    Example:
        >>> parts, exponents, rest = slices(torch.tensor([[0.75, 0.5]], dtype=torch.float64), 20)
        >>> parts[0].tolist(), exponents.tolist(), rest.abs().max().item()
        ([[786432.0, 524288.0]], [0], 0.0)
    """
    exponents = torch.frexp(rows.abs().amax(1)).exponent
    left = torch.ldexp(rows, -exponents[:, None])
    found = []
    for _ in range(SLICES):
        left = left * 2.0**bits
        found.append(left.round())
        left = left - found[-1]
    return found, exponents, torch.ldexp(left, exponents[:, None] - SLICES * bits)


def _extended(
    columns: Tensor, low: Tensor, weight: Tensor, bias: Tensor | None, terms: int, near: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    bits = slice_bits(weight.shape[1])
    left, left_exponents, left_rest = slices(columns, bits)
    right, right_exponents, right_rest = slices(weight, bits)
    low = low + left_rest
    exponents = left_exponents[:, None] + right_exponents[None, :]
    high = low @ weight.T + columns @ right_rest.T
    small = torch.zeros_like(high)
    for total in range(2 * SLICES - 2, -1, -1):  # small ones first
        for s in range(max(0, total - SLICES + 1), min(total, SLICES - 1) + 1):
            part = torch.ldexp(left[s] @ right[total - s].T, exponents - (total + 2) * bits)
            high, lost = two_sum(high, part)
            small = small + lost
    if bias is not None:
        high, lost = two_sum(high, bias.expand_as(high))
        small = small + lost
    high, small = two_sum(high, small)
    # 1e3 u^2 covers the sums of the lost parts, of the size of u |h||w|, and the rest's product is gamma relative to 2**(-3 bits)
    tiny = 1e3 * UNIT * UNIT + gamma(terms + 4) * 2.0 ** (-SLICES * bits) * math.sqrt(terms) * 4
    own = gamma(terms + 4) * row_norms(low)[:, None] + tiny * near
    return high, small, up(own)


def _positions_first(columns: Tensor) -> Tensor:
    """n×features×positions as (n positions)×features."""
    return columns.transpose(1, 2).reshape(-1, columns.shape[1])


def _back(z: Tensor, shape: tuple[int, ...]) -> Tensor:
    return z.reshape(shape[0], -1, shape[1]).transpose(1, 2).reshape(shape).contiguous()
