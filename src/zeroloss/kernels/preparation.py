r"""Rows made ready for products: norms, unit rows less a centre, rounded once; on a CPU in compiled loops, one pass each.

The centre is the mean of the unit rows. Data that lie in a narrow cone then lose no digits to what they have in common.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

CHUNK = 2**21  # numbers at a time, where there is no compiled loop


@dataclass(frozen=True, eq=False)
class Prepared:
    r"""Rows, and what a tile needs of them.

    Args:
        rows: as given, n×d.
        inverse: $1/\|x_i\|$, 0 for a zero row, n, float64.
        centred: $v_i=u_i-c$, n×d.
        half: $\tfrac12\|v_i\|^2$, n.
        scale: the factor of row i in every entry, n.
    """

    rows: Float[Tensor, "n d"]
    inverse: Float[Tensor, " n"]
    centred: Float[Tensor, "n d"]
    half: Float[Tensor, " n"]
    scale: Float[Tensor, " n"]

    def at(self, place: slice) -> Prepared:
        """Some of the rows, as views."""
        return Prepared(self.rows[place], self.inverse[place], self.centred[place], self.half[place], self.scale[place])


def survey(x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, " n"], Float[Tensor, " d"]]:
    r"""The rows' norms and the mean of the unit rows (a zero row counts as zero).

    Args:
        x: n×d, float32 or float64, contiguous.

    Returns:
        Norms, n, free of overflow (below 2.2e-308, where one over them would overflow, they count as 0), and the mean, d; float64.

    Example:
        >>> norms, mean = survey(torch.tensor([[3.0, 4.0], [0.0, 2.0]]))
        >>> norms.tolist(), [round(m, 12) for m in mean.tolist()]
        ([5.0, 2.0], [0.3, 0.9])
    """
    norms = x.new_zeros(len(x), dtype=torch.float64)
    mean = x.new_zeros(x.shape[1], dtype=torch.float64)
    if x.device.type == "cpu":
        from zeroloss.kernels.loops import survey_rows  # numba takes half a second to import

        survey_rows(x.numpy(), norms.numpy(), mean.numpy())
        return norms, mean
    for place in _chunks(x):
        some = x[place].to(torch.float64)
        largest = some.abs().amax(dim=1)
        safe = torch.where(largest > 0, largest, torch.ones_like(largest))
        norms[place] = torch.linalg.vector_norm(some / safe[:, None], dim=1) * largest
        norms[place] *= norms[place] >= torch.finfo(torch.float64).tiny
        mean += _inverse(norms[place]) @ some
    return norms, mean / max(1, len(x))


def prepare(
    x: Float[Tensor, "n d"], norms: Float[Tensor, " n"], centre: Float[Tensor, " d"], scale: Float[Tensor, " n"]
) -> Prepared:
    r"""Unit rows less a centre, rounded once.

    Args:
        x: n×d, float32 or float64, contiguous.
        norms: their norms, float64.
        centre: $c$, float64.
        scale: factor a row, float64.

    Returns:
        The prepared rows, in x's dtype.

    Example:
        >>> x = torch.tensor([[3.0, 4.0]])
        >>> prepare(x, torch.tensor([5.0]).double(), torch.zeros(2).double(), torch.ones(1).double()).centred
        tensor([[0.6000, 0.8000]])
    """
    inverse, centred, half = _inverse(norms), torch.empty_like(x), x.new_empty(len(x))
    if x.device.type == "cpu":
        from zeroloss.kernels.loops import centre_rows

        centre_rows(x.numpy(), inverse.numpy(), centre.numpy(), centred.numpy(), half.numpy())
    else:
        for place in _chunks(x):
            centred[place] = (x[place].to(torch.float64) * inverse[place, None] - centre).to(x.dtype)
            half[place] = (0.5 * torch.linalg.vector_norm(centred[place], dim=1, dtype=torch.float64).square()).to(x.dtype)
    return Prepared(x, inverse, centred, half, scale.to(x.dtype))


def _inverse(norms: Tensor) -> Tensor:
    return torch.where(norms > 0, 1 / norms, torch.zeros_like(norms))


def _chunks(x: Tensor) -> list[slice]:
    step = max(1, CHUNK // x.shape[1])
    return [slice(start, start + step) for start in range(0, len(x), step)]
