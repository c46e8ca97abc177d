r"""Enclosures of what is propagated back: $T=\partial f/\partial z$ and $S=\partial f/\partial h$ at every stage.

One row for every output of a sample. Multiplicities do not enter here: they are weights of the batch (facts.py) and of the Gram's rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from zeroloss.certificate.convolution import scatter
from zeroloss.certificate.enclosure import Ball, Enclosure, WeightFacts
from zeroloss.certificate.rounding import TINY, UNIT, gamma, row_norms, up
from zeroloss.certificate.stages import Activation, Affine, Chain, Conv2d, Flatten, Fork, Join, Linear, Pool, Scale


@dataclass(frozen=True, eq=False)
class Adjoint:
    r"""Derivatives of all outputs in one stage's values.

    Args:
        mid: (n k)×the values' shape.
        error: for every row a bound of the error's 2-norm.
        samples: n.
    """

    mid: Tensor
    error: Tensor
    samples: int

    @property
    def norms(self) -> Tensor:
        r"""For every row a bound of the exact row's norm."""
        return up(row_norms(self.mid) + self.error)

    @property
    def block_norm(self) -> float:
        r"""$\max_i$ of a bound of the k×m blocks' Frobenius norms."""
        squares = self.norms.square().reshape(self.samples, -1)
        return up(math.sqrt(float(squares.sum(1).max())), squares.shape[1])

    @property
    def column_norm(self) -> float:
        r"""$\max_{i,r}$ of a bound of the norms of the blocks' columns: an error of 2-norm e adds at most that to a column."""
        blocks = self.mid.reshape(self.samples, -1, self.mid[0].numel())
        own = torch.linalg.vector_norm(self.error.reshape(self.samples, -1), dim=1)
        columns = torch.linalg.vector_norm(blocks, dim=1).amax(1)
        return up(float((columns + own).max()), blocks.shape[1]) + TINY


def enclose_backward(chain: Chain, forward: Enclosure) -> tuple[Adjoint, ...]:
    r"""Enclose the derivatives of the outputs in what enters and leaves every stage.

    Args:
        chain: the network.
        forward: its enclosed forward pass, every kink decided that a derivative passes.

    Returns:
        For every op the adjoint at its output, down to the first trained one; before it, the last one computed, which nobody asks for.
    """
    n, k = forward.outputs.mid.shape
    eye = torch.eye(k, dtype=torch.float64).repeat(n, 1)
    adjoint = Adjoint(eye, eye.new_zeros(n * k), n)
    first = chain.first_trained
    kept: list[Adjoint] = []
    found = []
    for place in range(len(forward.tape) - 1, -1, -1):
        op, entering = forward.tape[place], forward.inputs[place]
        found.append(adjoint)
        if place <= first:
            continue
        match op:
            case Linear() | Conv2d():
                adjoint = _through_affine(chain, op, forward.weights[place], entering, adjoint)
            case Activation():
                adjoint = _through_activation(op, entering, adjoint)
            case Scale(factor):
                mid = adjoint.mid * factor
                error = abs(factor) * adjoint.error + 2 * UNIT * row_norms(mid)
                adjoint = Adjoint(mid, up(error) + TINY, n)
            case Pool(to):
                adjoint = _through_pool(to, entering, adjoint)
            case Flatten():
                adjoint = Adjoint(adjoint.mid.reshape(-1, *entering.mid.shape[1:]), adjoint.error, n)
            case Join():
                kept.append(adjoint)
            case Fork():
                skip = kept.pop()
                mid = adjoint.mid + skip.mid
                error = adjoint.error + skip.error + UNIT * row_norms(mid)
                adjoint = Adjoint(mid, up(error) + TINY, n)
    return tuple(reversed(found))


def derivative_radius(op: Activation, entering: Ball) -> Tensor:
    r"""Entry by entry a bound of the error of the computed $\sigma'(z)$; 0 between decided kinks.

    Args:
        op: the activation.
        entering: z.

    Returns:
        A tensor of z's shape.
    """
    reach = entering.radius if entering.low is None else entering.radius + entering.low.abs()
    return up(op.sigma.c2 * reach) + op.sigma.derivative_error


def _through_affine(chain: Chain, op: Affine, facts: WeightFacts, entering: Ball, adjoint: Adjoint) -> Adjoint:
    weight = chain.tensors[op.weight]
    if isinstance(op, Linear):
        mid = adjoint.mid @ weight
        terms = len(weight)
    else:
        size, sides = (entering.mid.shape[2], entering.mid.shape[3]), (weight.shape[2], weight.shape[3])
        mid = scatter(weight.flatten(1).T @ adjoint.mid.flatten(2), op, sides, size)
        terms = len(weight) + sides[0] * sides[1]
    # a convolution's rounding: |K|^T|T| scattered, of norm at most cover ||K||_F ||T||
    own = gamma(terms + 4) * facts.cover * facts.frobenius * row_norms(adjoint.mid)
    return Adjoint(mid, up(facts.norm * adjoint.error + own) + TINY, adjoint.samples)


def _through_activation(op: Activation, entering: Ball, adjoint: Adjoint) -> Adjoint:
    slope = op.sigma.derivative(entering.mid)
    n = adjoint.samples
    blocks = adjoint.mid.reshape(n, -1, *slope.shape[1:])
    mid = (blocks * slope[:, None]).reshape(adjoint.mid.shape)
    error = op.sigma.c1 * adjoint.error + 2 * UNIT * row_norms(mid)
    if not op.sigma.kinks:
        error = error + row_norms((blocks * derivative_radius(op, entering)[:, None]).reshape(adjoint.mid.shape))
    return Adjoint(mid, up(error) + TINY, n)


def _through_pool(to: tuple[int, int], entering: Ball, adjoint: Adjoint) -> Adjoint:
    _, channels, height, width = entering.mid.shape
    cell = (height // to[0], width // to[1])
    area = cell[0] * cell[1]
    spread = adjoint.mid.reshape(-1, channels, to[0], 1, to[1], 1).expand(-1, -1, -1, cell[0], -1, cell[1]) / area
    error = adjoint.error / math.sqrt(area) + 2 * UNIT * row_norms(adjoint.mid)
    return Adjoint(spread.reshape(-1, channels, height, width), up(error) + TINY, adjoint.samples)
