r"""Mehler's formula, $\mathbb{E}[\sigma(u)\sigma(v)] = \sum_k a_k(i)a_k(j)\rho^k$, arranged for near duplicates and for the cache.

Half distances are $\tfrac12\mathbb{E}(\sigma(u)-\sigma(v))^2 = \sum_k\tfrac12(a_k(i)-a_k(j))^2 + w\sum_k a_k(i)a_k(j)(1+\dots+\rho^{k-1})$:
every term of the second sum carries the factor $w=1-\rho$, so nothing cancels as $\rho\to1$. Both sums run by Horner's rule from
the last term down, in place, over blocks of pairs that stay in the cache.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zeroloss.kernels.hermite import Coefficients
from zeroloss.kernels.pairs import Pairs

BLOCK = 65_536  # pairs at a time: a handful of such arrays fit in the cache
FLAT = 2e-15  # relative to a row of coefficients: what its coordinates may leave out
ABSENT = 1e-15  # relative to the largest: a coefficient that stands for zero, as every other one of an odd function does


def mehler_sums(
    coefficients: Coefficients, left: Int[Tensor, " n1 *p"], right: Int[Tensor, " n2 *p"], pairs: Pairs
) -> tuple[Float[Tensor, "n1 n2 *p"], Float[Tensor, "n1 n2 *p"]]:
    r"""Half distances after the activation, and $\mathbb{E}[\sigma'(u)\sigma'(v)]$.

    Args:
        coefficients: Hermite coefficients at the distinct variances.
        left: which of those variances each entry of ``pairs.left`` has.
        right: the same for ``pairs.right``.
        pairs: the pre-activations, of which only the versine is read.

    Returns:
        Half distances and slopes, both as ``pairs.versine`` in shape.

    Example:
        >>> from zeroloss.kernels.hermite import hermite_coefficients
        >>> from zeroloss.networks import find_activation
        >>> one = torch.ones(1, dtype=torch.float64)
        >>> zero = torch.zeros(1, dtype=torch.long)
        >>> found = hermite_coefficients(find_activation("erf"), one)
        >>> half, slope = mehler_sums(found, zero, zero, Pairs(one, one, one[:, None]))
        >>> round(float(slope), 12) == round(4 / math.pi / 3, 12)
        True
    """
    half, slope = torch.empty_like(pairs.versine), torch.empty_like(pairs.versine)
    tables = (coefficients.value, coefficients.slope, _chart(coefficients.value))
    terms, slope_terms = _present(coefficients.value), _present(coefficients.slope)
    if coefficients.value.shape[1] == 1:  # one variance: a coefficient is one number, whatever the pair
        left, right = left.new_zeros((1,) * left.ndim), right.new_zeros((1,) * right.ndim)
    wide, high = _block(pairs.versine)
    for column in range(0, len(pairs.right), wide):
        columns = slice(column, column + wide)
        b, slope_b, chart_b = (table[:, right[columns] if len(right) > 1 else right][:, None] for table in tables)
        for row in range(0, len(pairs.left), high):
            rows = slice(row, row + high)
            a, slope_a, chart_a = (table[:, left[rows] if len(left) > 1 else left][:, :, None] for table in tables)
            versine = pairs.versine[rows, columns]
            rho = 1 - versine
            half[rows, columns] = _distances(a, b, terms, rho).mul_(versine).add_(_gaps(chart_a, chart_b))
            slope[rows, columns] = _powers(slope_a, slope_b, slope_terms, rho)
    return half, slope


def mehler_products(
    table: Float[Tensor, "k n"], left: Int[Tensor, " n1 *p"], right: Int[Tensor, " n2 *p"], pairs: Pairs
) -> Float[Tensor, "n1 n2 *p"]:
    r"""$\sum_k a_k(i)a_k(j)\rho^k$ alone, where no digits of near duplicates are needed.

    Args:
        table: Hermite coefficients at the distinct variances.
        left: which of those variances each entry of ``pairs.left`` has.
        right: the same for ``pairs.right``.
        pairs: the pre-activations, of which only the versine is read.

    Returns:
        The sums, as ``pairs.versine`` in shape.
    """
    total = torch.empty_like(pairs.versine)
    terms = _present(table)
    wide, high = _block(pairs.versine)
    for column in range(0, len(pairs.right), wide):
        columns = slice(column, column + wide)
        b = table[:, right[columns]][:, None]
        for row in range(0, len(pairs.left), high):
            rows = slice(row, row + high)
            total[rows, columns] = _powers(table[:, left[rows]][:, :, None], b, terms, 1 - pairs.versine[rows, columns])
    return total


def _block(versine: Tensor) -> tuple[int, int]:
    """Columns and rows of a block; columns are wide, since their coefficients are gathered once for all rows."""
    places = max(1, math.prod(versine.shape[2:]))
    wide = max(1, min(versine.shape[1], BLOCK // places))
    return wide, max(1, BLOCK // (places * wide))


def _present(table: Tensor) -> list[int]:
    """The terms to sum: every one, or every other one where those between vanish (odd and even functions)."""
    size = table.abs().amax(1)
    kept = [k for k in (0, 1) if bool((size[k::2] > ABSENT * size.max()).any())]
    return sorted(index for k in kept for index in range(k, len(table), 2))


def _distances(a: Tensor, b: Tensor, terms: list[int], rho: Tensor) -> Tensor:
    r"""$\sum_k a_kb_k(1+\rho+\dots+\rho^{k-1})$: stepping down from k to the next term adds all later products once more."""
    total, later = torch.zeros_like(rho), torch.zeros_like(a[0] * b[0])
    square, both = rho * rho, 1 + rho
    for k, lower in zip(reversed(terms), [*reversed(terms[:-1]), 0], strict=True):
        if k > 0:
            later.addcmul_(a[k], b[k])
        if k - lower == 1:
            total.mul_(rho).add_(later)
        elif k - lower == 2:
            total.mul_(square).addcmul_(later, both)
    return total


def _powers(a: Tensor, b: Tensor, terms: list[int], rho: Tensor) -> Tensor:
    r"""$\sum_k a_kb_k\rho^k$ by Horner's rule."""
    total = torch.zeros_like(rho)
    step = rho * rho if len(terms) > 1 and terms[1] - terms[0] == 2 else rho
    for k in reversed(terms):
        total.mul_(step).addcmul_(a[k], b[k])
    return total.mul_(rho) if terms[:1] == [1] else total


def _gaps(a: Tensor, b: Tensor) -> Tensor:
    r"""$\tfrac12\sum_m(a_m-b_m)^2$, the half distance that two variances leave at $\rho=1$."""
    total = torch.zeros((a.shape[1], b.shape[2], *a.shape[3:]), dtype=a.dtype, device=a.device)
    difference = torch.empty_like(total)
    for one, other in zip(a, b, strict=True):
        torch.sub(one, other, out=difference)
        total.addcmul_(difference, difference, value=0.5)
    return total


def _chart(table: Tensor) -> Tensor:
    """Fewer coordinates with the same distances: the coefficients follow a curve as the variance moves, and it spans few directions.

    Gram-Schmidt from the row that is worst off, relative to its own size, until what is left is rounding.
    """
    rest, size = table.clone(), table.square().sum(0)
    size = torch.where(size > 0, size, torch.ones_like(size))
    coordinates = []
    for _ in range(min(table.shape)):
        left = rest.square().sum(0)
        worst = int((left / size).argmax())
        if float(left[worst] / size[worst]) <= FLAT**2:
            break
        direction = rest[:, worst] / left[worst].sqrt()
        coordinates.append(direction @ rest)
        rest.addr_(direction, coordinates[-1], alpha=-1)
    return torch.stack(coordinates) if coordinates else table[:0]
