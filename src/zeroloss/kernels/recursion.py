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
from torch.nn.utils.parametrize import is_parametrized

from zeroloss.errors import ArgumentError
from zeroloss.kernels.dual import dual
from zeroloss.kernels.pairs import Pairs, from_half_distances, input_pairs
from zeroloss.kernels.particles import Draws, Law, both, gaussian_particles, then
from zeroloss.kernels.patches import patches_of
from zeroloss.networks import Activation, GaussianConv2d, GaussianLinear, Residual, Scale, activation_of

POOLS = (nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)


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

    @property
    def pixels(self) -> torch.Size:
        """Height and width of an image, empty for rows."""
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
) -> State:
    """Carry the inputs' moments through the module.

    Args:
        module: a sequence of the layers listed in :func:`advance`.
        x1: n1×d rows or n1×c×h×w images, float64.
        x2: n2 of the same, or None for the first set with itself.
        parts: which slice of the tangent kernel each trained layer adds to.
        draws: where particles come from, for a module that needs them (which takes one set of inputs, x2 None).

    Returns:
        The state of the module's output coordinate, over all pixels where the output is an image.
    """
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
    )
    return _join(advance(module, start, parts, name="module"))


def advance(module: nn.Module, state: State, parts: Mapping[nn.Module, int], name: str) -> State:
    """One layer's rule.

    Args:
        module: Linear, Conv2d, a known activation, Scale, Residual, Sequential, Identity, Flatten, or Dropout in eval mode.
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
    _refuse_own_forward(module, name)
    if isinstance(module, nn.Sequential):
        for child, layer in children_of(module):
            state = advance(layer, state, parts, child if name == "module" else f"{name}.{child}")
        return state
    if isinstance(module, nn.Linear):
        return _linear(module, state, parts, name)
    if isinstance(module, nn.Conv2d):
        return _convolution(module, state, parts, name)
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
    if isinstance(module, POOLS):
        raise ArgumentError(
            "module",
            f"pools pixels at {name!r} ({type(module).__name__}), and its limit needs pairs of different pixels, which are not kept",
            "use strided convolutions and Flatten, or ask for gram(module, x)",
        )
    raise ArgumentError(
        "module",
        f"has a layer {name!r} of type {type(module).__name__}, for which no infinite-width limit is implemented",
        "use Linear, Conv2d, an activation, Elementwise, Scale, Residual, Flatten or Sequential, or ask for gram(module, x)",
    )


def children_of(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """A module's children by name, one that stands in two places twice (``named_children`` gives it once)."""
    return [(name, child) for name, child in module._modules.items() if child is not None]


def refuse_tied(module: nn.Module) -> None:
    """Refuse a module that passes through one layer of weights twice: its uses are not independent.

    Raises:
        ArgumentError: naming the layer.
    """
    seen: set[nn.Module] = set()
    for name, layer in module.named_modules(remove_duplicate=False):
        if not isinstance(layer, nn.Linear | nn.Conv2d):
            continue
        if layer in seen:
            raise ArgumentError(
                "module",
                f"uses one layer twice, again at {name!r}",
                "give every use a layer of its own, or ask for gram(module, x)",
            )
        seen.add(layer)


_KNOWN = (nn.Sequential, nn.Linear, nn.Conv2d)


def _refuse_own_forward(module: nn.Module, name: str) -> None:
    """A subclass that computes something of its own is not the layer that it derives from."""
    for kind in _KNOWN:
        if isinstance(module, kind) and (type(module).forward is not kind.forward or is_parametrized(module)):
            how = "parametrised weights" if is_parametrized(module) else "a forward of its own"
            raise ArgumentError(
                "module",
                f"has {how} at {name!r} ({type(module).__name__}), and no infinite-width limit is known for it",
                "build it from Linear, Conv2d, activations, Scale, Residual and Sequential, or ask for gram(module, x)",
            )


def weight_variance(layer: nn.Linear | nn.Conv2d) -> float:
    """The variance of a layer's initial weights: ours as built, torch's default uniform otherwise.

    Example:
        >>> round(weight_variance(nn.Linear(3, 5)), 6)  # uniform on +-1/sqrt(3)
        0.111111
    """
    return layer.variance if isinstance(layer, GaussianLinear | GaussianConv2d) else 1 / (3 * _fan_in(layer))


def _fan_in(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.weight[0].numel()


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


def _convolution(layer: nn.Conv2d, state: State, parts: Mapping[nn.Module, int], name: str) -> State:
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
    pairs = patches.pairs(state.pairs)
    means = (torch.zeros_like(pairs.left), torch.zeros_like(pairs.right))  # of sums with fresh weights
    carried = replace(state, pairs=pairs, mean_left=means[0], mean_right=means[1], tangent=patches.sums(state.tangent))
    return _weights(layer, layer.out_channels, carried, parts)


def _weights(layer: nn.Linear | nn.Conv2d, width: int, state: State, parts: Mapping[nn.Module, int]) -> State:
    """Independent weights, one for each of the state's coordinates (for a convolution: of its patch sums'), and a bias."""
    gain = weight_variance(layer) * state.width
    tangent = state.tangent * gain
    part = parts.get(layer)
    if part is not None and layer.weight.requires_grad:
        tangent[part] += state.width * state.pairs.products
    pairs = state.pairs.times(gain)
    if layer.bias is not None:
        pairs = pairs.plus_constant(1 / (3 * _fan_in(layer)))  # torch's default for a bias
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
    )
