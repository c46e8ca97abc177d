r"""Rounding: bounds of what float64 arithmetic may have lost, and bounds that survive their own evaluation.

Assumptions (docs/certificates.md): A1, sums and matrix products err by at most $\gamma_{k+2}|A||B|$ in whatever order and with or without
fused multiply-adds; A2, elementary functions by at most $64u$; A3, nothing overflows, which is checked by looking for infinities.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

UNIT = 2.0**-53  # u, float64's unit roundoff
ELEMENTARY = 64 * UNIT  # A2
TINY = 1e-140  # more than underflow, flushed subnormals included, can do to the norm of a vector
HUGE = 1e140  # norms beyond it are not worked with: their products could overflow

_Number = TypeVar("_Number", float, Tensor)


def gamma(terms: int) -> float:
    r"""$\gamma_k = ku/(1-ku)$, rounded up: the relative error of a sum of k products (Higham, Lemma 3.1).

    Args:
        terms: k.

    Returns:
        A float at least $\gamma_k$.

    Example:
        >>> 3 * 2**-53 < gamma(3) < 3.001 * 2**-53
        True
    """
    return terms * UNIT / (1 - terms * UNIT) * (1 + 8 * UNIT)


def up(value: _Number, terms: int = 0) -> _Number:
    """A nonnegative expression made larger than its own evaluation can have made it smaller.

    Args:
        value: computed from nonnegative numbers by sums, products and roots.
        terms: how many terms its longest sum has; sixty more operations are allowed for.

    Returns:
        A number at least the exact value of the expression.

    Example:
        >>> up(1.0) > 1.0
        True
    """
    return value * (1 + (2 * terms + 128) * UNIT)


def norm_bound(values: Tensor) -> float:
    """An upper bound of the Euclidean norm of all entries.

    Args:
        values: any shape.

    Returns:
        The bound; infinite or NaN where an entry is.

    Example:
        >>> 5.0 < norm_bound(torch.tensor([3.0, 4.0], dtype=torch.float64)) < 5.0000001
        True
    """
    return up(float(torch.linalg.vector_norm(values)), values.numel()) + TINY


def row_norms(values: Tensor) -> Tensor:
    """Upper bounds of the Euclidean norms of a tensor's slices along its first dimension.

    Args:
        values: n×anything.

    Returns:
        n bounds.

    Example:
        >>> row_norms(torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.float64)) >= torch.tensor([5.0, 0.0])
        tensor([True, True])
    """
    flat = values.reshape(len(values), -1)
    norms: Tensor = torch.linalg.vector_norm(flat, dim=1)
    return up(norms, flat.shape[1]) + TINY
