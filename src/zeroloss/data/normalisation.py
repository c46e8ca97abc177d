"""The norms that the theorems assume: the unit sphere, AZ's padding, standardised columns, images less their mean."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.data.door import first_row
from zeroloss.data.geometry import largest_entry, unit_rows
from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.typing import Inputs, Rows

NORMALISATIONS = ("auto", "sphere", "padded", "none")

_EPS = torch.finfo(torch.float64).eps


def pad(x: Rows) -> Float[Tensor, "n padded"]:
    r"""AZ's padding: $\left[s\,x_i,\ \sqrt{\tfrac12-\|s\,x_i\|^2},\ \tfrac1{\sqrt2}\right]$ with $s = 1/(\sqrt2\max_j\|x_j\|)$.

    Every row gets norm 1 and a last coordinate $1/\sqrt2$, which acts as a random bias. Ratios of distances within x change, and
    distances are scaled by s: measure $\delta$ after padding.

    Args:
        x: n×d rows; zero rows, and nothing but zero rows, are legal.

    Returns:
        n×(d+2) rows of norm 1, to 1e-12.

    References:
        AZ footnote 3; THEORY 1.1.

    Example:
        >>> pad(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64))
        tensor([[0.4243, 0.5657, 0.0000, 0.7071],
                [0.0000, 0.0000, 0.7071, 0.7071]], dtype=torch.float64)
    """
    largest = x.abs().max()
    scaled = x / torch.where(largest > 0, largest, 1.0)
    norms = torch.linalg.vector_norm(scaled, dim=1)
    longest = norms.max()
    # The share of the longest norm; 1/2 - |s x|^2 is taken in factors, so that it cannot come out negative.
    share = norms / torch.where(longest > 0, longest, 1.0)
    # Norms that differ by rounding alone are equal: the root would turn 1e-16 into 1e-8 and push near duplicates apart.
    share = torch.where(share > 1 - 64 * _EPS, 1.0, share)
    filler = ((1 - share) * (1 + share) / 2).sqrt()
    unit = scaled / (math.sqrt(2) * torch.where(longest > 0, longest, 1.0))
    return torch.cat([unit, filler[:, None], torch.full_like(filler, math.sqrt(0.5))[:, None]], dim=1)


def to_sphere(x: Inputs) -> Inputs:
    r"""Every input divided by its norm: $x_i/\|x_i\|$, over all pixels where x holds images.

    Args:
        x: n×d rows or n×c×h×w images.

    Returns:
        The same shape, each input of norm 1.

    Raises:
        ArgumentError: if a row is zero.

    References:
        DU section 3 ($\|x_i\|=1$; $\|x\|_F=1$ for images); THEORY 3.1.

    Example:
        >>> to_sphere(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
        tensor([[0.6000, 0.8000]], dtype=torch.float64)
    """
    unit = unit_rows(x.flatten(1))
    zero = torch.linalg.vector_norm(unit, dim=1) == 0  # of unit rows, where no square can vanish
    if bool(zero.any()):
        count = int(zero.sum())
        rows_of = "row" if count == 1 else "rows"
        raise ArgumentError(
            "x",
            f"has {count} {rows_of} of zeros (first: row {first_row(zero)}), where the unit norm is undefined",
            "drop them or pass normalise='padded' or 'none'",
        )
    return unit.reshape(x.shape)


def standardise(x: Rows) -> Rows:
    r"""Columns to mean 0 and standard deviation 1 (over n, not n − 1); constant columns become 0.

    Args:
        x: n×d rows.

    Returns:
        n×d rows, without units.

    Example:
        >>> standardise(torch.tensor([[1.0, 7.0], [3.0, 7.0]], dtype=torch.float64))
        tensor([[-1.,  0.],
                [ 1.,  0.]], dtype=torch.float64)
    """
    # First to [0, 1]: a constant column is then exactly 0 and not rounding noise, and halves keep the range from overflowing.
    half = x / 2
    low = half.amin(0)
    span = half.amax(0) - low
    centred = _centre((half - low) / torch.where(span > 0, span, 1.0))
    deviation = (centred**2).mean(0).sqrt()
    return centred / torch.where(deviation > 0, deviation, 1.0)


def remove_mean(x: Inputs) -> Inputs:
    r"""Every input less the mean input: $x_i-\tfrac1n\sum_j x_j$.

    Args:
        x: n×c×h×w images, or n×d rows.

    Returns:
        The same shape and units, of mean zero; a pixel that never changes becomes exactly 0.

    Example:
        >>> remove_mean(torch.tensor([[1.0, 7.0], [3.0, 7.0]], dtype=torch.float64))
        tensor([[-1.,  0.],
                [ 1.,  0.]], dtype=torch.float64)
    """
    rows = x.flatten(1)
    largest = largest_entry(rows)
    if largest == 0:
        return x.clone()
    shifted = (rows / largest).sub_(rows[0] / largest)
    return _centre(shifted).mul_(largest).reshape(x.shape)


def normalise(x: Inputs, how: str, images: bool) -> Float[Tensor, " n *normalised"]:
    """Inputs normalised as ``load`` says.

    Args:
        x: n×d rows or n×c×h×w images.
        how: ``auto`` (tables standardised, images less their mean image; then unit norm), ``sphere`` (unit norm alone),
            ``padded`` (AZ's padding, of flattened inputs) or ``none``.
        images: whether x holds images, flattened or not.

    Returns:
        The same shape, save that padding gives n×(d+2).

    Raises:
        ArgumentError: for another ``how``; for ``auto`` of a single row; for a row that has no direction once the mean is gone.

    Example:
        >>> normalise(torch.tensor([[1.0, 7.0], [3.0, 7.0]], dtype=torch.float64), "auto", images=True)
        tensor([[-1.,  0.],
                [ 1.,  0.]], dtype=torch.float64)
    """
    match how:
        case "auto":
            if len(x) == 1:
                raise ArgumentError(
                    "x",
                    "has one row, and less its mean nothing is left of it",
                    "take more rows or pass normalise='sphere' or 'none'",
                )
            return to_sphere(remove_mean(x) if images else standardise(x.flatten(1)).reshape(x.shape))
        case "sphere":
            return to_sphere(x)
        case "padded":
            return pad(x.flatten(1))
        case "none":
            return x
        case _:
            raise unknown_name("normalise", how, NORMALISATIONS)


def _centre(rows: Rows) -> Rows:
    """Rows less their mean, in place (images fill memory); a row that equals the mean up to rounding becomes exactly 0.

    Otherwise division by its norm would blow the rounding up into a direction.
    """
    noise = 16 * _EPS * largest_entry(rows)
    rows.sub_(rows.mean(0))
    rows[torch.linalg.vector_norm(rows, math.inf, dim=1) <= noise] = 0.0
    return rows
