r"""From a module to its limit: walk the layers once, carrying the moments of one coordinate and the tangent kernel.

The state holds, for a coordinate of a layer of width m, the second moments $S$, the mean, and the tangent kernel
$T_{ij} = \sum_\theta \partial h_i\,\partial h_j$ split by trained layer. A linear map with weight variance $v$ takes
$S \mapsto v\,m\,S$ and $T \mapsto v\,m\,T + [\text{trained}]\,m\,S$; an activation takes $T \mapsto T\,\mathbb{E}[\sigma'\sigma']$.
A convolution does the same to patch sums of both. Of images the state holds every pixel, both inputs at the same one: independent
weights pair no others. Flatten joins the pixels by their mean, which is what a coordinate drawn from any of them has.
Widths stay as factors, so the result is in the units of the finite Gram (THEORY 1.3, 3.3 to 3.5).
Where an activation follows a skip there is no closed form, and the state is sampled (:mod:`zeroloss.kernels.particles`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from zeroloss.errors import ArgumentError
from zeroloss.kernels.dual import dual
from zeroloss.kernels.gains import gained_products, gains_are_closed
from zeroloss.kernels.norms import through_norm
from zeroloss.kernels.pairs import Pairs, from_half_distances, input_pairs
from zeroloss.kernels.particles import Draws, both, then
from zeroloss.kernels.pixels import AVERAGES, Canvas, pixel_rows, pools
from zeroloss.kernels.pooling import align, through_pool
from zeroloss.kernels.refusals import refusal
from zeroloss.kernels.state import State
from zeroloss.kernels.structure import NORMS, children_of, refuse_own_forward
from zeroloss.kernels.weights import through_convolution, through_linear
from zeroloss.networks import Activation, Residual, Scale, activation_of


def walk(
    module: nn.Module,
    x1: Float[Tensor, " n1 *shape"],
    x2: Float[Tensor, " n2 *shape"] | None,
    parts: Mapping[nn.Module, int],
    draws: Draws | None = None,
    initial: Mapping[nn.Module, tuple[float, float]] | None = None,
    canvas: Canvas | None = None,
) -> State:
    """Carry the inputs' moments through the module.

    Args:
        module: a sequence of the layers listed in :func:`advance`.
        x1: n1×d rows, n1×c×h×w images or n1×c×w sequences, float64.
        x2: n2 of the same, or None for the first set with itself.
        parts: which slice of the tangent kernel each trained layer adds to.
        draws: where particles come from, for a module that needs them (which takes one set of inputs, x2 None).
        initial: variances of weights and bias, for the layers that do not have those they draw by themselves.
        canvas: for a module that pools, what :func:`pooled_moments` gave for both sets, or None to compute it here.

    Returns:
        The state of the module's output coordinate, over all pixels where the output is an image.
    """
    if x1.ndim == 3:  # sequences are images of height 1
        x1, x2 = x1.unsqueeze(2), None if x2 is None else x2.unsqueeze(2)
    if canvas is None and pools(module):
        moments = None if x2 is None else (pooled_moments(module, x1, initial), pooled_moments(module, x2, initial))
        canvas = Canvas(x1.shape[2:], *(moments or ({},)))
    if canvas is not None:
        x1, x2 = pixel_rows(x1), None if x2 is None else pixel_rows(x2)
    means = (
        x1.mean(dim=1),
        (x1 if x2 is None else x2).mean(dim=1),
    )  # a coordinate of the inputs is one of theirs, drawn at random
    return carry(module, input_pairs(x1, x2), means, x1.shape[1], parts, draws, initial, canvas)


def carry(
    module: nn.Module,
    pairs: Pairs,
    means: tuple[Tensor, Tensor],
    width: int,
    parts: Mapping[nn.Module, int],
    draws: Draws | None = None,
    initial: Mapping[nn.Module, tuple[float, float]] | None = None,
    canvas: Canvas | None = None,
) -> State:
    """:func:`walk` from the inputs' moments on.

    Args:
        module: as there.
        pairs: the moments of the inputs.
        means: the mean of a coordinate of theirs, for the first set and for the second.
        width: how many coordinates they have (channels, for images).
        parts: as there.
        draws: as there.
        initial: as there.
        canvas: as there.

    Returns:
        The state of the module's output coordinate.
    """
    count = max(parts.values(), default=-1) + 1
    pixels, sets = pairs.left.shape[1:], pairs.versine.shape[:2]
    tangent = pairs.versine.new_zeros(count, *pixels, *sets).movedim((-2, -1), (1, 2))
    gains = pairs.versine.new_zeros(count)
    start = State(pairs, *means, tangent, gains, width=width, gaussian=False, draws=draws, initial=initial or {}, canvas=canvas)
    return _join(advance(module, start, parts, name="module"))


def pooled_moments(
    module: nn.Module, x: Float[Tensor, "n c *size"], initial: Mapping[nn.Module, tuple[float, float]] | None = None
) -> dict[str, Tensor]:
    """The second moments after every pooling layer, which come from pairs of pixels within each image.

    Args:
        module: one that pools.
        x: n×c×h×w images or n×c×w sequences, float64.
        initial: as for :func:`walk`.

    Returns:
        Layer name to n×(pixels after it).
    """
    each = [Canvas(x.shape[2:] if x.ndim == 4 else torch.Size((1, *x.shape[2:])), {}) for _ in x]
    for index, canvas in enumerate(each):
        walk(module, x[index : index + 1], None, {}, initial=initial, canvas=canvas)
    return {name: torch.cat([canvas.left[name] for canvas in each]) for name in each[0].left}


def advance(module: nn.Module, state: State, parts: Mapping[nn.Module, int], name: str) -> State:
    """One layer's rule.

    Args:
        module: Linear, Conv1d, Conv2d, a known activation, average pooling, a normalising layer, Scale, Residual, Sequential, Identity,
            Flatten, or Dropout in eval mode.
        state: the state before it.
        parts: as in :func:`walk`.
        name: the layer's dotted name, for errors.

    Returns:
        The state after it.

    Raises:
        ArgumentError: naming the layer, where it has no rule.
    """
    refuse_own_forward(module, name)
    if isinstance(module, Residual):
        return _skip(module, state, parts, name)
    if isinstance(module, nn.Sequential):
        for child, layer in children_of(module):
            state = advance(layer, state, parts, child if name == "module" else f"{name}.{child}")
        return state
    if isinstance(module, nn.Linear):
        return through_linear(module, state, parts, name)
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return through_convolution(module, state, parts, name)
    if isinstance(module, AVERAGES):
        return through_pool(module, state, name)
    if isinstance(module, Scale):
        factor = module.factor
        return replace(
            state,
            pairs=state.pairs.times(factor**2),
            mean_left=state.mean_left * factor,
            mean_right=state.mean_right * factor,
            tangent=state.tangent * factor**2,
            law=then(state.law, lambda particles: particles.times(factor)),
        )
    if isinstance(module, NORMS):
        return through_norm(module, state, parts, name)
    if isinstance(module, nn.Flatten):
        return _flatten(module, state, name)
    if isinstance(module, nn.Identity) or (isinstance(module, _DropoutNd) and (not module.training or module.p == 0)):
        return state
    if (sigma := activation_of(module)) is not None:
        closed = state.gaussian and (gains_are_closed(sigma) or not bool(state.gains.any()))
        return _activation(sigma, state) if closed else _sampled_activation(sigma, state, name)
    raise refusal(module, name)


def _flatten(module: nn.Flatten, state: State, name: str) -> State:
    if module.start_dim != 1 or (state.pixels and module.end_dim not in (-1, 3)):
        raise ArgumentError(
            "module",
            f"flattens at {name!r} from {module.start_dim} to {module.end_dim}",
            "use nn.Flatten(), which keeps the samples",
        )
    return _join(state)


def _join(state: State) -> State:
    """Pixels as coordinates of their own: moments become means, and where variances differ the coordinate is no longer Gaussian."""
    state = state.settled()
    if not state.pixels:
        return state
    if state.canvas is not None:
        state = align(state, state.canvas.size)
    count = state.pixels.numel()

    def mean(values: Tensor) -> Tensor:
        return values.flatten(-2).mean(dim=-1)

    pairs = state.pairs
    return replace(
        state,
        pairs=from_half_distances(mean(pairs.left), mean(pairs.right), mean(pairs.half_distances)),
        mean_left=mean(state.mean_left),
        mean_right=mean(state.mean_right),
        tangent=mean(state.tangent),
        width=state.width * count,
        gaussian=state.gaussian and count == 1,
        law=None,  # a mixture over pixels
    )


def _activation(sigma: Activation, state: State) -> State:
    after = dual(sigma, state.pairs)
    tangent = state.tangent * after.slope
    if bool(state.gains.any()):
        gained = gained_products(sigma, state.pairs)
        tangent = tangent + state.gains.reshape(-1, *[1] * gained.ndim) * gained
    return replace(
        state,
        pairs=after.pairs,
        mean_left=after.mean_left,
        mean_right=after.mean_right,
        tangent=tangent,
        gains=torch.zeros_like(state.gains),
        gaussian=False,
        law=then(state.law, lambda particles: particles.through(sigma)),
    )


def _sampled_activation(sigma: Activation, state: State, name: str) -> State:
    if state.law is None or state.draws is None:
        raise ArgumentError(
            "module",
            f"applies {sigma.name} at {name!r} to something that is not a Gaussian pre-activation",
            "put a Linear or Conv2d layer right before every activation",
        )
    after = state.law(state.draws).through(sigma)
    mean = after.mean
    return replace(
        state,
        pairs=after.pairs,
        mean_left=mean,
        mean_right=mean,
        tangent=after.tangent,
        gains=torch.zeros_like(state.gains),
        gaussian=False,
        law=lambda _: after,
    )


def _skip(module: Residual, state: State, parts: Mapping[nn.Module, int], name: str) -> State:
    r"""$h + f(h)$: the branch's fresh weights make its coordinate independent of $h$'s, so only the means meet (THEORY 3.4).

    Half distances add: $D = D_h + D_f + (b_i-b_j)(\beta_i-\beta_j)$ with $b,\beta$ the means of $h$ and of the branch.
    """
    branch = replace(state, fresh=False)
    for child, layer in children_of(module):
        branch = advance(layer, branch, parts, f"{name}.{child}")
    if not branch.fresh:
        raise ArgumentError(
            "module",
            f"has a skip at {name!r} whose branch carries its own input through, so the two are not independent",
            "put a Linear on the branch's way, or add the skips up into one Residual",
        )
    if branch.size != state.size:
        raise ArgumentError(
            "module", f"has a skip at {name!r} from {state.size} to {branch.size} features", "keep the size inside a Residual"
        )
    gaussian = state.gaussian and branch.gaussian and not bool(state.gains.any()) and not bool(branch.gains.any())
    state, branch = state.settled(), branch.settled()
    left = state.pairs.left + branch.pairs.left + 2 * state.mean_left * branch.mean_left
    right = state.pairs.right + branch.pairs.right + 2 * state.mean_right * branch.mean_right
    meeting = (state.mean_left[:, None] - state.mean_right) * (branch.mean_left[:, None] - branch.mean_right)
    half = state.pairs.half_distances + branch.pairs.half_distances + meeting
    return replace(
        state,
        pairs=from_half_distances(left, right, half),
        mean_left=state.mean_left + branch.mean_left,
        mean_right=state.mean_right + branch.mean_right,
        tangent=state.tangent + branch.tangent,
        gaussian=gaussian,  # not where a gain belongs to one summand: its share no longer goes with the whole coordinate's value
        law=both(state.law, branch.law),
    )
