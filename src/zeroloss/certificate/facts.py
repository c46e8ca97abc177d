"""What the Lipschitz bound and the cell test need to know at the given weights: gathered once, used for every radius."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroloss.certificate.activations import Sigma
from zeroloss.certificate.backward import Adjoint
from zeroloss.certificate.convolution import patches
from zeroloss.certificate.enclosure import Ball, Enclosure, WeightFacts, local_norms
from zeroloss.certificate.jacobian_gram import augmented
from zeroloss.certificate.rounding import TINY, gamma, norm_bound, row_norms, up
from zeroloss.certificate.spectral_bounds import largest_eigenvalue_bound, matrix_norm_bound, symmetrise
from zeroloss.certificate.stages import Activation, Affine, Chain, Conv2d, Fork, Join, Linear, Pool, Scale

SQUARED = 4096  # rows up to which the n×n matrix of squared inner products is formed


@dataclass(frozen=True, eq=False)
class AffineFacts:
    r"""An affine stage at the given weights.

    Args:
        weights: its norms.
        trained: which of its parts are trained.
        met: what the trained parts meet: at least $\|\sqrt w[H,1]\|_2$ over the weighted batch (the matrix of patches, for a convolution).
        met_rows: the same for every sample.
        met_local: the same at every position of every sample, broadcastable to z.
        adjoint: at least $\max_i\|T_i\|_2$ at its output.
    """

    weights: WeightFacts
    trained: tuple[str, ...]
    met: float
    met_rows: Tensor
    met_local: Tensor
    adjoint: float

    @property
    def reach(self) -> float:
        r"""How much the linear map $h\mapsto Wh$ moves, at most, when its trained weight moves by 1: $\sqrt q$, or 0."""
        return self.weights.cover if "weight" in self.trained else 0.0


@dataclass(frozen=True, eq=False)
class ActivationFacts:
    r"""An activation at the given weights.

    Args:
        sigma: the function.
        adjoint: at least $\max_i\|S_i\|_2$ at its output.
        columns: at least $\max_{i,r}\|(S_i)_{:,r}\|_2$ there.
        gap: $|z-\text{kink}|$ less z's radius, entry by entry, the nearest kink; None for smooth ones.
        squares: at least $\sqrt{\lambda_{\max}(K)}$, $K_{ij}=\sqrt{w_iw_j}\langle\hat x_i,\hat x_j\rangle^2$, where z is the first trained
            stage's and dense, else None.
    """

    sigma: Sigma
    adjoint: float
    columns: float
    gap: Tensor | None
    squares: float | None


@dataclass(frozen=True)
class LinearFacts:
    """A fixed linear map without weights: its norm, the adjoint's at its output, and what it does with a value's shape.

    Args:
        norm: at least its norm.
        adjoint: as for the others.
        shape: ``"kept"`` (a scale, entry by entry), ``"flattened"`` or ``"pooled"``.
    """

    norm: float
    adjoint: float
    shape: str


@dataclass(frozen=True)
class ForkFacts:
    """Start of a residual block."""


@dataclass(frozen=True)
class JoinFacts:
    """End of a residual block."""


Facts = AffineFacts | ActivationFacts | LinearFacts | ForkFacts | JoinFacts


def gather(chain: Chain, forward: Enclosure, adjoints: tuple[Adjoint, ...], roots: Tensor) -> tuple[Facts, ...]:
    r"""The facts of every op.

    Args:
        chain: the network.
        forward: its forward pass.
        adjoints: its backward pass.
        roots: $\sqrt{w_i}$ of every sample's multiplicity.

    Returns:
        One for every op of the tape.
    """
    found: list[Facts] = []
    first = chain.first_trained
    curved = any(isinstance(op, Activation) and op.sigma.c2 > 0 for op in chain.tape)
    for place, op in enumerate(chain.tape):
        entering, adjoint = forward.inputs[place], adjoints[place]
        match op:
            case Linear() | Conv2d():
                found.append(_affine(chain, op, forward.weights[place], entering, adjoint.block_norm, roots))
            case Activation(sigma):
                squares = _squares(chain, forward, place, roots) if curved and place == first + 1 else None
                gap = _gap(sigma, entering) if sigma.kinks and place > first else None  # before, nothing moves
                found.append(ActivationFacts(sigma, adjoint.block_norm, adjoint.column_norm, gap, squares))
            case Scale(factor):
                found.append(LinearFacts(abs(factor), adjoint.block_norm, "kept"))
            case Pool(to):
                area = (entering.mid.shape[2] // to[0]) * (entering.mid.shape[3] // to[1])
                found.append(LinearFacts(up(1 / math.sqrt(area)), adjoint.block_norm, "pooled"))
            case Fork():
                found.append(ForkFacts())
            case Join():
                found.append(JoinFacts())
            case _:
                found.append(LinearFacts(1.0, adjoint.block_norm, "flattened"))
    return tuple(found)


def _affine(chain: Chain, op: Affine, weights: WeightFacts, entering: Ball, adjoint: float, roots: Tensor) -> AffineFacts:
    h, n = entering.mid, len(entering.mid)
    moved = entering.error if entering.low is None else entering.error + row_norms(entering.low)
    if not op.trained:
        zeros = h.new_zeros(n)
        return AffineFacts(weights, (), 0.0, zeros, zeros.reshape(-1, *[1] * (h.ndim - 1)), adjoint)
    bias, weight = "bias" in op.trained, "weight" in op.trained
    if not weight:
        points = 1 if isinstance(op, Linear) else local_norms(op, chain, h, False)[0].numel()
        rows = h.new_full((n,), up(math.sqrt(points)))
        return AffineFacts(
            weights, op.trained, up(norm_bound(roots) * math.sqrt(points)), rows, h.new_ones(n, *[1] * (h.ndim - 1)), adjoint
        )
    local = local_norms(op, chain, h, bias)
    if isinstance(op, Linear):
        met, rows = matrix_norm_bound(augmented(h, op) * roots[:, None]), local[:, 0]
    else:
        met, rows = _patch_norm(chain, op, h, bias, roots), row_norms(local)
    spread = moved.reshape(-1, *[1] * (local.ndim - 1))
    met = up(met + weights.cover * norm_bound(up(moved * roots)))
    return AffineFacts(weights, op.trained, met, up(rows + weights.cover * moved), up(local + spread), adjoint)


def _patch_norm(chain: Chain, op: Conv2d, h: Tensor, bias: bool, roots: Tensor) -> float:
    """The norm of all weighted patches side by side, features×(n positions), through their Gram, some samples at a time."""
    kernel = chain.tensors[op.weight]
    sides = (kernel.shape[2], kernel.shape[3])
    features, total, count = kernel[0].numel() + int(bias), 0.0, 0
    gram = torch.zeros(features, features, dtype=torch.float64)
    step = max(1, (1 << 24) // max(1, features * h[0, 0].numel()))
    for first in range(0, len(h), step):
        met = patches(h[first : first + step], op, sides)
        if bias:
            met = torch.cat((met, met.new_ones(len(met), 1, met.shape[2])), 1)
        flat = (met * roots[first : first + step, None, None]).transpose(0, 1).reshape(features, -1)
        gram += flat @ flat.T
        total += norm_bound(flat) ** 2
        count += flat.shape[1]
    symmetrise(gram)
    return min(up(math.sqrt(total)), up(math.sqrt(largest_eigenvalue_bound(gram, up(gamma(count + 64) * total)))) + TINY)


def _gap(sigma: Sigma, entering: Ball) -> Tensor:
    reach = entering.radius if entering.low is None else entering.radius + entering.low.abs()
    distance = torch.full_like(entering.mid, math.inf)
    for kink in sigma.kinks:
        distance = torch.minimum(distance, (entering.mid - kink).abs())
    return distance * (1 - 1e-12) - up(reach)


def _squares(chain: Chain, forward: Enclosure, place: int, roots: Tensor) -> float | None:
    op, entering = chain.tape[place - 1], forward.inputs[place - 1]
    if not isinstance(op, Linear) or len(entering.mid) > SQUARED:
        return None
    x = augmented(entering.mid, op)
    moved = entering.error if entering.low is None else entering.error + row_norms(entering.low)
    inner = (x @ x.T).square_() * roots * roots[:, None]
    symmetrise(inner)
    # |<x,x'>^2 - computed| <= 2|x||x'| (gamma |x||x'| + e|x'| + |x|e'), of rank one each
    norms = up(row_norms(x) + moved)
    a, b = norm_bound(up(norms.square() * roots)), norm_bound(up(norms * moved * roots))
    error = up(2 * gamma(x.shape[1] + 16) * a * a + 4 * a * b)
    return up(math.sqrt(largest_eigenvalue_bound(inner, error)))
