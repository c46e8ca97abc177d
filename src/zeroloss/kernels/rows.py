r"""Kernels of rows through a curve: one matrix product and one polynomial an entry, whatever the network's depth.

The product is of unit rows less their common mean, $v_i=u_i-c$, so that
$1-\rho_{ij}=\tfrac12\|v_i\|^2+\tfrac12\|v_j\|^2-\langle v_i,v_j\rangle$ loses digits
only where two rows are near one another for rows of this set; those are formed again from the rows themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from zeroloss.kernels.curve import Curve
from zeroloss.kernels.pairs import NEAR
from zeroloss.kernels.preparation import CHUNK, Prepared

TILE = 512  # rows and columns: the product of a tile and what is made of it stay in a core's cache
CORNER = 128  # of tiles on the diagonal
POWERS = 4  # the compiled loops take so many at once


def angle_error(dtype: torch.dtype, d: int) -> float:
    r"""What an angle may be off by, from any order of summation of the product.

    With $\gamma=(d+8)u/(1-(d+8)u)$ the product errs by $\gamma$ of the pair's size
    $s=\tfrac12\|v_i\|^2+\tfrac12\|v_j\|^2\le4$, and an angle by that over
    $\sin\theta\ge\sqrt{0.02\min(s,1)}$; nearer pairs are formed again, to less.

    Args:
        dtype: of the product.
        d: the length of a row.

    Returns:
        A bound, in radians.

    Example:
        >>> angle_error(torch.float64, 100) < 4e-13
        True
    """
    unit = float(torch.finfo(dtype).eps) / 2
    gamma = (d + 8) * unit / (1 - (d + 8) * unit)
    return float(4 * gamma / NEAR**0.5)


@dataclass(frozen=True, eq=False)
class Compiled:
    """A curve as the compiled loops take it.

    Args:
        powers: 2×K, highest first, both sides padded to one multiple of 4.
        constants: of :func:`zeroloss.kernels.loops.side_constants`.
        diagonal: the curve's, which the polynomial meets to rounding only.
    """

    powers: NDArray[np.floating]
    constants: NDArray[np.floating]
    diagonal: float


def compiled(curve: Curve, dtype: torch.dtype) -> Compiled:
    """The curve's coefficients times its diagonal, in the dtype of the tiles.

    Args:
        curve: the curve.
        dtype: float32 or float64.

    Example:
        >>> from zeroloss.kernels.curve import Side
        >>> side = Side(True, 0.0, (1.0, 2.0))
        >>> compiled(Curve(1.0, side, side, 0.0, 0.0), torch.float32).powers[0]
        array([0., 0., 2., 1.], dtype=float32)
    """
    from zeroloss.kernels.loops import side_constants  # numba takes half a second to import

    kind = np.float32 if dtype == torch.float32 else np.float64
    sides = (curve.same, curve.opposite)
    length = -(-max(len(side.coefficients) for side in sides) // POWERS) * POWERS
    powers = np.zeros((2, length))
    for row, side in zip(powers, sides, strict=True):
        row[length - len(side.coefficients) :] = side.coefficients[::-1]
    constants = side_constants(NEAR, (sides[0].pull, sides[1].pull), (sides[0].root, sides[1].root), kind)
    return Compiled((powers * curve.diagonal).astype(kind), constants, curve.diagonal)


def fill(
    form: Compiled, left: Prepared, right: Prepared, same: bool, product: Tensor, out: Tensor, turned: Tensor | None
) -> None:
    """One tile, by compiled loops, on a CPU.

    Args:
        form: the curve.
        left: the rows.
        right: the columns.
        same: whether they are the same rows, so that the diagonal is exact.
        product: p×q, scratch.
        out: p×q, written.
        turned: q×p, written with the transpose, or None.
    """
    from zeroloss.kernels.loops import fill_tile

    torch.mm(left.centred, right.centred.mT, out=product)
    fill_tile(
        product.numpy(),
        left.half.numpy(),
        right.half.numpy(),
        left.rows.numpy(),
        right.rows.numpy(),
        left.inverse.numpy(),
        right.inverse.numpy(),
        left.scale.numpy(),
        right.scale.numpy(),
        form.powers,
        form.constants,
        same,
        out.numpy(),
        out.numpy()[:0, :0] if turned is None else turned.numpy(),
    )
    if same:
        out.diagonal().copy_(left.scale.square() * form.diagonal)


def tile_by_torch(curve: Curve, left: Prepared, right: Prepared, same: bool) -> Float[Tensor, "p q"]:
    """One tile on any device, and the slow twin of :func:`fill`.

    Args:
        curve: the curve.
        left: the rows.
        right: the columns.
        same: whether they are the same rows, so that the diagonal is exact.

    Returns:
        p×q values.
    """
    size = left.half[:, None] + right.half
    versine = (size - left.centred @ right.centred.mT).clamp(0, 2)
    signed = torch.where(versine <= 1, versine, versine - 2)
    for sign, few in ((-1.0, versine < NEAR * size), (1.0, 2 - versine < NEAR)):
        i, j = few.nonzero().unbind(dim=1)
        chunk = max(1, CHUNK // left.rows.shape[1])
        for start in range(0, len(i), chunk):
            a, b = i[start : start + chunk], j[start : start + chunk]
            unit = left.rows[a].to(torch.float64) * left.inverse[a, None]
            other = right.rows[b].to(torch.float64) * right.inverse[b, None]
            m = (0.5 * (unit + sign * other).square().sum(dim=1)).to(signed.dtype)
            signed = signed.index_put((a, b), -m.clamp(min=torch.finfo(m.dtype).tiny) if sign > 0 else m)
    values: Tensor = curve.at(signed) * (left.scale[:, None] * right.scale)
    if same:
        own = torch.eye(len(signed), dtype=torch.bool, device=signed.device)
        values = torch.where(own, left.scale.square() * curve.diagonal, values)
    return values
