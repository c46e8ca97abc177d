r"""From a module to its limit: walk the layers once, carrying the moments of one coordinate and the tangent kernel.

The state holds, for a coordinate of a layer of width m, the second moments $S$, the mean, and the tangent kernel
$T_{ij} = \sum_\theta \partial h_i\,\partial h_j$ split by trained layer. A linear map with weight variance $v$ takes
$S \mapsto v\,m\,S$ and $T \mapsto v\,m\,T + [\text{trained}]\,m\,S$; an activation takes $T \mapsto T\,\mathbb{E}[\sigma'\sigma']$.
Widths stay as factors, so the result is in the units of the finite Gram (THEORY 1.3, 3.3, 3.4).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.kernels.dual import dual
from zeroloss.kernels.pairs import Pairs, from_half_distances, input_pairs
from zeroloss.networks import GaussianLinear, Residual, Scale, activation_of


@dataclass(frozen=True, eq=False)
class State:
    """What the limit knows about one coordinate of the current layer.

    Args:
        pairs: second moments.
        mean_left: the coordinate's mean for the first set of inputs, n1.
        mean_right: the same for the second set, n2.
        tangent: tangent kernel, one slice a part, p×n1×n2.
        width: how many coordinates the layer has.
        gaussian: whether the coordinate is a Gaussian pre-activation.
        fresh: whether new weights lie between it and where the current branch began, so that its coordinates are independent of those.
    """

    pairs: Pairs
    mean_left: Float[Tensor, " n1"]
    mean_right: Float[Tensor, " n2"]
    tangent: Float[Tensor, "p n1 n2"]
    width: int
    gaussian: bool
    fresh: bool = False


def walk(module: nn.Module, x1: Float[Tensor, "n1 d"], x2: Float[Tensor, "n2 d"] | None, parts: Mapping[nn.Module, int]) -> State:
    """Carry the inputs' moments through the module.

    Args:
        module: a sequence of the layers listed in :func:`advance`.
        x1: n1×d rows, float64.
        x2: n2×d rows, or None for the first set with itself.
        parts: which slice of the tangent kernel each trained linear layer adds to.

    Returns:
        The state of the module's output coordinate.
    """
    pairs = input_pairs(x1, x2)
    n1, n2 = pairs.versine.shape
    count = max(parts.values(), default=-1) + 1
    start = State(
        pairs,
        torch.zeros(n1, dtype=x1.dtype, device=x1.device),
        torch.zeros(n2, dtype=x1.dtype, device=x1.device),
        torch.zeros(count, n1, n2, dtype=x1.dtype, device=x1.device),
        width=x1.shape[1],
        gaussian=False,
    )
    return advance(module, start, parts, name="module")


def advance(module: nn.Module, state: State, parts: Mapping[nn.Module, int], name: str) -> State:
    """One layer's rule.

    Args:
        module: Linear, a known activation, Scale, Residual, Sequential, Identity, Flatten, or Dropout in eval mode.
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
    if isinstance(module, nn.Sequential):
        for child, layer in module.named_children():
            state = advance(layer, state, parts, child if name == "module" else f"{name}.{child}")
        return state
    if isinstance(module, nn.Linear):
        return _linear(module, state, parts, name)
    if isinstance(module, Scale):
        factor = module.factor
        return replace(
            state,
            pairs=state.pairs.times(factor**2),
            mean_left=state.mean_left * factor,
            mean_right=state.mean_right * factor,
            tangent=state.tangent * factor**2,
        )
    if isinstance(module, nn.Identity | nn.Flatten) or (isinstance(module, nn.Dropout) and not module.training):
        return state
    if (sigma := activation_of(module)) is not None:
        if not state.gaussian:
            raise ArgumentError(
                "module",
                f"applies {type(module).__name__} at {name!r} to something that is not a Gaussian pre-activation",
                "put a Linear layer before every activation",
            )
        after = dual(sigma, state.pairs)
        tangent = state.tangent * after.slope
        return State(after.pairs, after.mean_left, after.mean_right, tangent, state.width, gaussian=False, fresh=state.fresh)
    raise ArgumentError(
        "module",
        f"has a layer {name!r} of type {type(module).__name__}, for which no infinite-width limit is implemented",
        "use Linear, an activation (relu, softplus, tanh, erf, gelu), Scale, Residual or Sequential, or ask for gram(module, x)",
    )


def weight_variance(layer: nn.Linear) -> float:
    """The variance of a linear layer's initial weights: ours as built, torch's default uniform otherwise.

    Example:
        >>> round(weight_variance(nn.Linear(3, 5)), 6)  # uniform on +-1/sqrt(3)
        0.111111
    """
    return layer.variance if isinstance(layer, GaussianLinear) else 1 / (3 * layer.in_features)


def _linear(layer: nn.Linear, state: State, parts: Mapping[nn.Module, int], name: str) -> State:
    if layer.in_features != state.width:
        raise ArgumentError(
            "module",
            f"expects {layer.in_features} features at {name!r} but gets {state.width}",
            "pass rows with as many columns as the first layer has inputs",
        )
    gain = weight_variance(layer) * layer.in_features
    tangent = state.tangent * gain
    part = parts.get(layer)
    if part is not None and layer.weight.requires_grad:
        tangent[part] += layer.in_features * state.pairs.products
    pairs = state.pairs.times(gain)
    if layer.bias is not None:
        pairs = pairs.plus_constant(1 / (3 * layer.in_features))  # torch's default for a bias
        if part is not None and layer.bias.requires_grad:
            tangent[part] += 1.0
    zeros = torch.zeros_like
    return State(pairs, zeros(state.mean_left), zeros(state.mean_right), tangent, layer.out_features, gaussian=True, fresh=True)


def _skip(module: Residual, state: State, parts: Mapping[nn.Module, int], name: str) -> State:
    r"""$h + f(h)$: the branch's fresh weights make its coordinate independent of $h$'s, so only the means meet (THEORY 3.4).

    Half distances add: $D = D_h + D_f + (b_i-b_j)(\beta_i-\beta_j)$ with $b,\beta$ the means of $h$ and of the branch.
    """
    branch = replace(state, fresh=False)
    for child, layer in module.named_children():
        branch = advance(layer, branch, parts, f"{name}.{child}")
    if not branch.fresh:
        raise ArgumentError(
            "module",
            f"has a skip at {name!r} whose branch carries its own input through, so the two are not independent",
            "put a Linear on the branch's way, or add the skips up into one Residual",
        )
    if branch.width != state.width:
        raise ArgumentError(
            "module", f"has a skip at {name!r} from {state.width} to {branch.width} features", "keep the width inside a Residual"
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
    )
