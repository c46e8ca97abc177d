"""Whether a module's limit has a closed form, and independent sampled walks where an activation needs particles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.kernels.layers import children_of
from zeroloss.kernels.pairs import Pairs
from zeroloss.kernels.particles import Draws
from zeroloss.kernels.recursion import State, walk
from zeroloss.networks import Residual, activation_of

REPLICATES = 8


def needs_particles(module: nn.Module) -> bool:
    """Whether the module applies an activation to something that is not Gaussian, such as the sum after a skip.

    Example:
        >>> from zeroloss.networks import resnet
        >>> needs_particles(resnet(2, 8, 3)), needs_particles(resnet(2, 8, 3, scheme="du"))
        (True, False)
    """
    return _follow(module, gaussian=True)[1]


def _follow(module: nn.Module, gaussian: bool) -> tuple[bool, bool]:
    """Whether the coordinate after the module is Gaussian, and whether an activation on the way met one that is not."""
    if activation_of(module) is not None:
        return False, not gaussian
    if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d):
        return True, False
    here, met = gaussian, False
    if isinstance(module, nn.Sequential):
        for _, layer in children_of(module):
            here, once = _follow(layer, here)
            met = met or once
    return (gaussian and here if isinstance(module, Residual) else here), met


def replicates(
    module: nn.Module,
    x1: Float[Tensor, " n1 *shape"],
    x2: Float[Tensor, " n2 *shape"] | None,
    parts: Mapping[nn.Module, int],
    seed: int,
    particles: int | None,
) -> Iterator[State]:
    """The states of the module's output whose mean is its limit.

    Args:
        module: as for :func:`zeroloss.kernels.recursion.walk`.
        x1: n1×d rows or n1×c×h×w images, float64.
        x2: n2 of the same, or None for the first set with itself.
        parts: which slice of the tangent kernel each trained linear layer adds to.
        seed: of the particles.
        particles: how many in all, or None for as many as fit.

    Yields:
        8 independent sampled states.
    """
    count = None if particles is None else particles // REPLICATES
    draws = Draws(torch.Generator(device=x1.device).manual_seed(seed), count)
    joint = x1 if x2 is None else torch.cat([x1, x2])  # particles hold all inputs at once
    for _ in range(REPLICATES):
        state = walk(module, joint, None, parts, draws)
        yield state if x2 is None else _block(state, len(x1))


def _block(state: State, n1: int) -> State:
    """What a state over both sets knows about the first set with the second."""
    pairs = state.pairs
    return replace(
        state,
        pairs=Pairs(pairs.left[:n1], pairs.right[n1:], pairs.versine[:n1, n1:]),
        mean_left=state.mean_left[:n1],
        mean_right=state.mean_right[n1:],
        tangent=state.tangent[:, :n1, n1:],
    )
