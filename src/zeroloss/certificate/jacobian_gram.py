r"""The Gram $G=JJ^\top$ at the given weights, formed without J, with a bound of its error in the spectral norm.

A dense stage adds $(\hat H\hat H^\top\otimes1_{k\times k})\circ(TT^\top)$, $\hat H=[H,1]$ restricted to what is trained; a convolution adds
$gg^\top$ for its rows' gradients $g=\sum_pt_p\,\text{patch}_p^\top$, a few channels at a time. If $\|\hat h_i\|\le\kappa_i$,
$\|t_i\|\le\tau_i$ with errors $e_i$, $\epsilon_i$, then by Cauchy-Schwarz every entry's error is at most
$g\,a_ia_j+b_ia_j+a_ib_j$ with $a=\kappa\tau$, $b=e\tau+\kappa\epsilon$: three matrices of rank one, so the error's norm is at most
$g\|a\|^2+2\|a\|\|b\|$ and no matrix of radii is ever formed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroloss.certificate.backward import Adjoint
from zeroloss.certificate.convolution import patches
from zeroloss.certificate.enclosure import Ball, Enclosure
from zeroloss.certificate.rounding import TINY, UNIT, gamma, norm_bound, row_norms, up
from zeroloss.certificate.spectral_bounds import BLOCK, symmetrise
from zeroloss.certificate.stages import Chain, Conv2d, Linear

WORK = 1 << 24  # numbers that gradients of a few channels may take (128 MB)


@dataclass(frozen=True, eq=False)
class EnclosedGram:
    """A Gram matrix.

    Args:
        matrix: N×N, exactly symmetric.
        error: a bound of its distance from the exact Gram in the spectral norm.
    """

    matrix: Tensor
    error: float


def enclose_gram(chain: Chain, forward: Enclosure, adjoints: tuple[Adjoint, ...], roots: Tensor) -> EnclosedGram:
    r"""Form the Gram of the trained parameters.

    Args:
        chain: the network.
        forward: its forward pass.
        adjoints: its backward pass.
        roots: $\sqrt{w_i}$ of every sample's multiplicity: row i of J carries this factor.

    Returns:
        The Gram and its error.
    """
    size = forward.outputs.mid.numel()
    weights = roots.repeat_interleave(size // len(roots))
    gram = torch.zeros(size, size, dtype=torch.float64)
    trained = [(place, op) for place, op in enumerate(chain.tape) if isinstance(op, (Linear, Conv2d)) and op.trained]
    shares = 2 * len(trained) + 16  # roundings of the sum over stages and of the symmetrisation
    error = 0.0
    for place, op in trained:
        entering, adjoint = forward.inputs[place], adjoints[place]
        if isinstance(op, Linear):
            sides, extra, g = _add_dense(gram, op, entering, adjoint)
        else:
            sides, extra, g = _add_convolution(gram, chain, op, entering, adjoint)
        a, b = norm_bound(up(sides * weights)), norm_bound(up(extra * weights))
        error = up(error + (g + shares * UNIT) * (1 + 1e-6) * a * a + 2 * a * b)
    if bool((roots != 1).any()):
        gram *= weights
        gram *= weights[:, None]
    symmetrise(gram)
    return EnclosedGram(gram, up(error) + TINY)


def augmented(h: Tensor, op: Linear) -> Tensor:
    """What a dense stage's trained parameters meet: h, a column of ones, or both.

    Args:
        h: n×m.
        op: the stage.

    Returns:
        n×m, n×1 or n×(m+1).
    """
    ones = h.new_ones(len(h), 1)
    if "weight" not in op.trained:
        return ones
    return torch.cat((h, ones), 1) if "bias" in op.trained else h


def _add_dense(gram: Tensor, op: Linear, entering: Ball, adjoint: Adjoint) -> tuple[Tensor, Tensor, float]:
    h, t = augmented(entering.mid, op), adjoint.mid
    k = len(t) // len(h)
    inner = h @ h.T
    step = max(1, BLOCK // k)
    for first in range(0, len(h), step):
        rows = slice(first * k, min(first + step, len(h)) * k)
        part = t[rows] @ t.T
        shape = part.shape
        part = part.reshape(-1, k, len(h), k)
        part *= inner[first : first + step, None, :, None]
        gram[rows] += part.reshape(shape)
    moved = entering.error if "weight" in op.trained else torch.zeros_like(entering.error)
    if entering.low is not None and "weight" in op.trained:
        moved = moved + row_norms(entering.low)
    e = moved.repeat_interleave(k)
    kappa, tau = up(row_norms(h) + moved).repeat_interleave(k), adjoint.norms
    return up(kappa * tau), up(e * tau + kappa * adjoint.error), gamma(h.shape[1] + 2) + gamma(t.shape[1] + 2)


def _add_convolution(gram: Tensor, chain: Chain, op: Conv2d, entering: Ball, adjoint: Adjoint) -> tuple[Tensor, Tensor, float]:
    kernel = chain.tensors[op.weight]
    n, k = len(entering.mid), len(adjoint.mid) // len(entering.mid)
    sides = (kernel.shape[2], kernel.shape[3])
    parts = []
    if "weight" in op.trained:
        parts.append(patches(entering.mid, op, sides))
    if "bias" in op.trained:
        parts.append(entering.mid.new_ones(n, 1, adjoint.mid[0, 0].numel()))
    met = torch.cat(parts, 1).transpose(1, 2)  # n×positions×features
    t = adjoint.mid.flatten(2).reshape(n, k, len(kernel), -1)
    features, points = met.shape[2], met.shape[1]
    step = max(1, WORK // (n * k * features))
    for first in range(0, len(kernel), step):
        some = t[:, :, first : first + step].reshape(n, -1, points)
        g = (some @ met).reshape(n * k, -1)
        for top in range(0, n * k, BLOCK):
            gram[top : top + BLOCK] += g[top : top + BLOCK] @ g.T
    cover = math.sqrt(sides[0] * sides[1])
    moved = up(cover * entering.error) if "weight" in op.trained else torch.zeros_like(entering.error)
    if entering.low is not None and "weight" in op.trained:
        moved = moved + up(cover * row_norms(entering.low))
    e = moved.repeat_interleave(k)
    # ||sum_p t_p patch_p^T||_F is at most ||T||_F ||patches||_F; its rounding gamma of that
    kappa, tau = up(row_norms(met) + moved).repeat_interleave(k), adjoint.norms
    a = up(kappa * tau)
    b = up(e * tau + kappa * adjoint.error + gamma(points + 2) * a)
    width = len(kernel) * features
    return a, b, gamma(width + 2 + len(kernel))
