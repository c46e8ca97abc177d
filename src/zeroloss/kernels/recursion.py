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
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.kernels.dual import dual
from zeroloss.kernels.layers import children_of, fan_in, refuse_own_forward, weight_variance
from zeroloss.kernels.pairs import Pairs, from_half_distances, input_pairs
from zeroloss.kernels.particles import Draws, Law, both, gaussian_particles, then
from zeroloss.kernels.patches import patches_of
from zeroloss.kernels.pixels import (
    AVERAGES,
    Canvas,
    aligned,
    average_both,
    average_rows,
    averages_of,
    patch_sums_of_pairs,
    pixel_rows,
    pooled_pairs,
    pools,
)
from zeroloss.networks import Activation, Residual, Scale, activation_of

MAXIMA = (nn.MaxPool1d, nn.MaxPool2d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)


@dataclass(frozen=True, eq=False)
class State:
    """What the limit knows about one coordinate of the current layer.

    Args:
        pairs: second moments, at every pixel of an image.
        mean_left: the coordinate's mean for the first set of inputs, n1 (n1×h×w for images, and so below).
        mean_right: the same for the second set, n2.
        tangent: tangent kernel, one slice a part, p×n1×n2.
        width: how many coordinates the layer has, at each pixel.
        gaussian: whether the coordinate is a Gaussian pre-activation.
        fresh: whether new weights lie between it and where the current branch began, so that its coordinates are independent of those.
        law: how to sample the coordinate, None before the first weights.
        draws: where samples come from, None where the module needs none.
        canvas: where pixels are kept as rows, in all pairs (:mod:`zeroloss.kernels.pixels`), which pixel each row is; None otherwise.
    """

    pairs: Pairs
    mean_left: Float[Tensor, " n1 *pixels"]
    mean_right: Float[Tensor, " n2 *pixels"]
    tangent: Float[Tensor, "p n1 n2 *pixels"]
    width: int
    gaussian: bool
    fresh: bool = False
    law: Law | None = None
    draws: Draws | None = None
    canvas: Canvas | None = None

    @property
    def pixels(self) -> torch.Size:
        """Height and width of an image, empty for rows."""
        if self.canvas is not None:
            return self.canvas.size
        return self.pairs.left.shape[1:]

    @property
    def size(self) -> str:
        """What one input has become, in words for errors."""
        return "×".join(map(str, (self.width, *self.pixels)))


def walk(
    module: nn.Module,
    x1: Float[Tensor, " n1 *shape"],
    x2: Float[Tensor, " n2 *shape"] | None,
    parts: Mapping[nn.Module, int],
    draws: Draws | None = None,
    canvas: Canvas | None = None,
) -> State:
    """Carry the inputs' moments through the module.

    Args:
        module: a sequence of the layers listed in :func:`advance`.
        x1: n1×d rows, n1×c×h×w images or n1×c×w sequences, float64.
        x2: n2 of the same, or None for the first set with itself.
        parts: which slice of the tangent kernel each trained layer adds to.
        draws: where particles come from, for a module that needs them (which takes one set of inputs, x2 None).
        canvas: for a module that pools, what :func:`pooled_moments` gave for both sets, or None to compute it here.

    Returns:
        The state of the module's output coordinate, over all pixels where the output is an image.
    """
    if x1.ndim == 3:  # sequences are images of height 1
        x1, x2 = x1.unsqueeze(2), None if x2 is None else x2.unsqueeze(2)
    if canvas is None and pools(module):
        moments = None if x2 is None else (pooled_moments(module, x1), pooled_moments(module, x2))
        canvas = Canvas(x1.shape[2:], *(moments or ({},)))
    if canvas is not None:
        x1, x2 = pixel_rows(x1), None if x2 is None else pixel_rows(x2)
    pairs = input_pairs(x1, x2)
    count = max(parts.values(), default=-1) + 1
    start = State(
        pairs,
        torch.zeros_like(pairs.left),
        torch.zeros_like(pairs.right),
        pairs.versine.new_zeros(count, *x1.shape[2:], *pairs.versine.shape[:2]).movedim((-2, -1), (1, 2)),
        width=x1.shape[1],
        gaussian=False,
        draws=draws,
        canvas=canvas,
    )
    return _join(advance(module, start, parts, name="module"))


def pooled_moments(module: nn.Module, x: Float[Tensor, "n c *size"]) -> dict[str, Tensor]:
    """The second moments after every pooling layer, which come from pairs of pixels within each image.

    Args:
        module: one that pools.
        x: n×c×h×w images or n×c×w sequences, float64.

    Returns:
        Layer name to n×(pixels after it).
    """
    each = [Canvas(x.shape[2:] if x.ndim == 4 else torch.Size((1, *x.shape[2:])), {}) for _ in x]
    for index, canvas in enumerate(each):
        walk(module, x[index : index + 1], None, {}, canvas=canvas)
    return {name: torch.cat([canvas.left[name] for canvas in each]) for name in each[0].left}


def advance(module: nn.Module, state: State, parts: Mapping[nn.Module, int], name: str) -> State:
    """One layer's rule.

    Args:
        module: Linear, Conv1d or Conv2d, a known activation, average pooling, Scale, Residual, Sequential, Identity, Flatten, or
            Dropout in eval mode.
        state: the state before it.
        parts: as in :func:`walk`.
        name: the layer's dotted name, for errors.

    Returns:
        The state after it.

    Raises:
        ArgumentError: naming the layer, where it has no rule.
    """
    if isinstance(module, Residual):
        return _skip(module, state, parts, name)
    refuse_own_forward(module, name)
    if isinstance(module, nn.Sequential):
        for child, layer in children_of(module):
            state = advance(layer, state, parts, child if name == "module" else f"{name}.{child}")
        return state
    if isinstance(module, nn.Linear):
        return _linear(module, state, parts, name)
    if isinstance(module, nn.Conv1d | nn.Conv2d):
        return _convolution(module, state, parts, name)
    if isinstance(module, AVERAGES):
        return _pool(module, state, name)
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
    if isinstance(module, nn.Flatten):
        return _flatten(module, state, name)
    if isinstance(module, nn.Identity) or (isinstance(module, nn.Dropout) and not module.training):
        return state
    if (sigma := activation_of(module)) is not None:
        return _activation(sigma, state) if state.gaussian else _sampled_activation(sigma, state, name)
    if isinstance(module, MAXIMA):
        raise ArgumentError(
            "module",
            f"takes the largest pixel at {name!r} ({type(module).__name__}), for which no infinite-width limit is implemented",
            "use average pooling or strided convolutions, or ask for gram(module, x)",
        )
    raise ArgumentError(
        "module",
        f"has a layer {name!r} of type {type(module).__name__}, for which no infinite-width limit is implemented",
        "use Linear, Conv2d, AvgPool2d, an activation, Elementwise, Scale, Residual, Flatten or Sequential, or ask for gram(module, x)",
    )


def _linear(layer: nn.Linear, state: State, parts: Mapping[nn.Module, int], name: str) -> State:
    if state.pixels:
        raise ArgumentError("module", f"applies Linear at {name!r} to images of {state.size}", "put nn.Flatten before it")
    if layer.in_features != state.width:
        raise ArgumentError(
            "module",
            f"expects {layer.in_features} features at {name!r} but gets {state.width}",
            "pass rows with as many columns as the first layer has inputs",
        )
    return _weights(layer, layer.out_features, state, parts)


def _convolution(layer: nn.Conv1d | nn.Conv2d, state: State, parts: Mapping[nn.Module, int], name: str) -> State:
    if len(state.pixels) != 2:
        raise ArgumentError(
            "module", f"applies {type(layer).__name__} at {name!r} to rows", "pass n×c×h×w images, and Flatten later"
        )
    if layer.in_channels != state.width:
        raise ArgumentError(
            "module",
            f"expects {layer.in_channels} channels at {name!r} but gets {state.width}",
            "pass images with as many channels as the first layer has",
        )
    patches = patches_of(layer, name)
    height, width = state.pixels
    if min(patches.out_size((height, width))) < 1:
        raise ArgumentError("module", f"leaves nothing of images of {state.size} at {name!r}", "pass larger images, or pad them")
    if state.canvas is None:
        pairs, tangent, canvas = patches.pairs(state.pairs), patches.sums(state.tangent), None
    else:
        pairs, tangent = patch_sums_of_pairs(patches, state.pairs, state.tangent, state.pixels)
        canvas = replace(state.canvas, size=torch.Size(patches.out_size((height, width))))
    means = (torch.zeros_like(pairs.left), torch.zeros_like(pairs.right))  # of sums with fresh weights
    carried = replace(state, pairs=pairs, mean_left=means[0], mean_right=means[1], tangent=tangent, canvas=canvas)
    return _weights(layer, layer.out_channels, carried, parts)


def _pool(layer: nn.Module, state: State, name: str) -> State:
    r"""Means over pixels: of all their pairs in the moments and in the tangent kernel. Means of jointly Gaussian pixels are Gaussian."""
    if state.canvas is None:
        raise ArgumentError("module", f"pools at {name!r} what is no image", "put the pooling before nn.Flatten")
    weights, size = averages_of(layer, state.pixels, name)
    weights = weights.to(state.tangent.device)
    pairs = pooled_pairs(weights, state.pairs, state.canvas, name)
    tangent = average_both(weights, state.tangent)
    return replace(
        state,
        pairs=pairs,
        mean_left=average_rows(weights, state.mean_left),
        mean_right=average_rows(weights, state.mean_right),
        tangent=tangent,
        law=partial(gaussian_particles, pairs, tangent) if state.gaussian else None,
        canvas=replace(state.canvas, size=size),
    )


def _weights(layer: nn.Linear | nn.Conv1d | nn.Conv2d, width: int, state: State, parts: Mapping[nn.Module, int]) -> State:
    """Independent weights, one for each of the state's coordinates (for a convolution: of its patch sums'), and a bias."""
    gain = weight_variance(layer) * state.width
    tangent = state.tangent * gain
    part = parts.get(layer)
    if part is not None and layer.weight.requires_grad:
        tangent[part] += state.width * state.pairs.products
    pairs = state.pairs.times(gain)
    if layer.bias is not None:
        pairs = pairs.plus_constant(1 / (3 * fan_in(layer)))  # torch's default for a bias
        if part is not None and layer.bias.requires_grad:
            tangent[part] += 1.0
    zeros = torch.zeros_like
    return State(
        pairs,
        zeros(pairs.left),
        zeros(pairs.right),
        tangent,
        width,
        gaussian=True,
        fresh=True,
        law=partial(gaussian_particles, pairs, tangent),
        draws=state.draws,
        canvas=state.canvas,
    )


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
    if not state.pixels:
        return state
    if state.canvas is not None:
        state = _align(state, state.canvas.size)
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


def _align(state: State, size: torch.Size) -> State:
    """Of all pairs of pixels keep those at one place."""
    pairs = state.pairs
    left, right, mean_left, mean_right = (
        v.reshape(-1, *size) for v in (pairs.left, pairs.right, state.mean_left, state.mean_right)
    )
    return replace(
        state,
        pairs=Pairs(left, right, aligned(pairs.versine, size)),
        mean_left=mean_left,
        mean_right=mean_right,
        tangent=aligned(state.tangent, size),
        canvas=None,
    )


def _activation(sigma: Activation, state: State) -> State:
    after = dual(sigma, state.pairs)
    return replace(
        state,
        pairs=after.pairs,
        mean_left=after.mean_left,
        mean_right=after.mean_right,
        tangent=state.tangent * after.slope,
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
    return replace(state, pairs=after.pairs, mean_left=mean, mean_right=mean, tangent=after.tangent, law=lambda _: after)


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
    left = state.pairs.left + branch.pairs.left + 2 * state.mean_left * branch.mean_left
    right = state.pairs.right + branch.pairs.right + 2 * state.mean_right * branch.mean_right
    meeting = (state.mean_left[:, None] - state.mean_right) * (branch.mean_left[:, None] - branch.mean_right)
    half = state.pairs.half_distances + branch.pairs.half_distances + meeting
    return State(
        from_half_distances(left, right, half),
        state.mean_left + branch.mean_left,
        state.mean_right + branch.mean_right,
        state.tangent + branch.tangent,
        state.width,
        gaussian=state.gaussian and branch.gaussian,
        fresh=state.fresh,
        law=both(state.law, branch.law),
        draws=state.draws,
        canvas=state.canvas,
    )
