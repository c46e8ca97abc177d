r"""Normalising layers: what one input's coordinates have in common tends to its moments, so they shift and rescale the state.

With $m_i$ the coordinate's mean, $b_i$ what the layer takes off and $s_i$ what it divides by, $\hat h_i = (h_i-b_i)/s_i$ and
$S_{ij} \mapsto (S_{ij} - b_im_j - m_ib_j + b_ib_j)/(s_is_j)$, $T_{ij} \mapsto T_{ij}/(s_is_j)$: that $b$ and $s$ themselves move with the
weights costs a share of $T$ that falls like one over the width. LayerNorm has $b_i = m_i$ and $s_i^2 = S_{ii}-m_i^2+\epsilon$ (their
means over the pixels, where it normalises whole images); RMSNorm $b_i = 0$, $s_i^2 = S_{ii}+\epsilon$; BatchNorm in eval mode, before
it has seen a batch, $b_i = 0$, $s_i^2 = 1+\epsilon$. At the start the gain is 1 and the shift 0; trained, the gain adds
$\hat h_i\hat h_j$ to $T$ and the shift 1, each coordinate its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.kernels.pairs import Pairs, from_half_distances
from zeroloss.kernels.particles import then
from zeroloss.kernels.state import State
from zeroloss.kernels.structure import Norm

ROUNDING = 2e-15  # relative to a second moment: a variance below it is what rounding has left of a constant row


def through_norm(layer: Norm, state: State, parts: Mapping[nn.Module, int], name: str) -> State:
    """The state after a normalising layer.

    Args:
        layer: LayerNorm or RMSNorm over all features of a row, or all channels and pixels of an image; or BatchNorm in eval mode.
        state: the state before it.
        parts: which slice of the tangent kernel each trained layer adds to.
        name: the layer's dotted name, for errors.

    Returns:
        The state after it.

    Raises:
        ArgumentError: naming the layer, where it normalises over anything else, in training mode, or by statistics of a batch.

    Example:
        >>> from zeroloss.kernels import limit_kernel
        >>> x = torch.tensor([[1.0, 3.0]], dtype=torch.float64)
        >>> limit_kernel(nn.Sequential(nn.LayerNorm(2, eps=0.0, elementwise_affine=False), nn.Linear(2, 1, bias=False)))(x)
        tensor([[2.]], dtype=torch.float64)
    """
    if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        _check_batch_norm(layer, state, name)
    else:
        _check_shape(layer, state, name)
    (b1, s1), (b2, s2) = (
        _shift_and_scale(layer, second, mean, 1 if state.canvas is None else state.canvas.size.numel())
        for second, mean in ((state.pairs.left, state.mean_left), (state.pairs.right, state.mean_right))
    )
    shared = s1[:, None] * s2
    after = replace(
        state,
        pairs=_scaled(_shifted(state, b1, b2), s1, s2),
        mean_left=(state.mean_left - b1) / s1,
        mean_right=(state.mean_right - b2) / s2,
        tangent=state.tangent / shared,
        law=then(state.law, lambda particles: particles.over(b1, s1)),
    )
    part = parts.get(layer)
    if part is not None and state.canvas is not None:
        _refuse_parameters_of_pixels(layer, state, name)
    return after if part is None else _learned(layer, after, part)


def _check_shape(layer: nn.LayerNorm | nn.RMSNorm, state: State, name: str) -> None:
    shape, wanted = tuple(layer.normalized_shape), (state.width, *state.pixels)
    if shape != wanted:
        raise ArgumentError(
            "module",
            f"normalises over {shape} at {name!r} ({type(layer).__name__}), where an input has become {state.size}",
            f"normalise over all of it, with normalized_shape={wanted if state.pixels else state.width}, or ask for gram(module, x)",
        )


def _refuse_parameters_of_pixels(layer: Norm, state: State, name: str) -> None:
    """A gain for every pixel adds to pairs of one pixel alone, which a state of all pairs does not tell apart."""
    trained = any(parameter.requires_grad for parameter in layer.parameters())
    if trained and state.pixels.numel() > 1 and not isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
        raise ArgumentError(
            "module",
            f"trains a gain or a shift for every pixel at {name!r} ({type(layer).__name__}) and pools pixels",
            "freeze it, pass elementwise_affine=False, or ask for gram(module, x)",
        )


def _check_batch_norm(layer: nn.BatchNorm1d | nn.BatchNorm2d, state: State, name: str) -> None:
    kind = f"{type(layer).__name__} at {name!r}"
    if layer.training or layer.running_mean is None or layer.running_var is None:
        raise ArgumentError(
            "module",
            f"normalises by its own batch ({kind}), so that inputs act on each other",
            "use nn.LayerNorm, or call eval() before it has seen data, or ask for gram(module, x)",
        )
    if bool((layer.running_mean != 0).any()) or bool((layer.running_var != 1).any()):
        raise ArgumentError(
            "module",
            f"has statistics of its own for every feature ({kind}), for which there is no infinite-width limit",
            "call reset_running_stats() on it, use nn.LayerNorm, or ask for gram(module, x)",
        )
    if layer.num_features != state.width or len(state.pixels) != (2 if isinstance(layer, nn.BatchNorm2d) else 0):
        raise ArgumentError(
            "module", f"expects {layer.num_features} features ({kind}) but gets {state.size}", "give it the layer's own size"
        )


def _shift_and_scale(
    layer: Norm, second: Float[Tensor, " n *pixels"], mean: Float[Tensor, " n *pixels"], rows: int
) -> tuple[Tensor, Tensor]:
    r"""$b$ and $s$ of every input; of images, one for all pixels, be they dimensions or so many rows one after another."""
    pixels = tuple(range(1, second.ndim))
    whole, shift = (values.mean(dim=pixels, keepdim=True) if pixels else values for values in (second, mean))
    if rows > 1:
        whole, shift = (values.reshape(-1, rows).mean(dim=1).repeat_interleave(rows) for values in (whole, shift))
    if isinstance(layer, nn.LayerNorm):
        variance = whole - shift**2
        variance = torch.where(variance > ROUNDING * whole, variance, torch.zeros_like(variance))
    else:
        shift = torch.zeros_like(shift)
        variance = whole if isinstance(layer, nn.RMSNorm) else torch.ones_like(whole)
    epsilon = layer.eps
    if epsilon is None:  # RMSNorm's default: torch takes the rounding of the inputs' own precision, here float64's
        epsilon = torch.finfo(second.dtype).eps
    scale = (variance + epsilon).sqrt()
    return shift, torch.where(scale > 0, scale, torch.ones_like(scale))


def _shifted(state: State, b1: Tensor, b2: Tensor) -> Pairs:
    r"""Half distances become $D - (m_i-m_j)(b_i-b_j) + \tfrac12(b_i-b_j)^2$."""
    pairs, m1, m2 = state.pairs, state.mean_left, state.mean_right
    if not bool(b1.any()) and not bool(b2.any()):
        return pairs
    apart = b1[:, None] - b2
    half = pairs.half_distances - (m1[:, None] - m2) * apart + apart**2 / 2
    left, right = (
        torch.where(moved > ROUNDING * second, moved, torch.zeros_like(moved))
        for second, moved in ((pairs.left, pairs.left - 2 * b1 * m1 + b1**2), (pairs.right, pairs.right - 2 * b2 * m2 + b2**2))
    )
    return from_half_distances(left, right, half.clamp(min=0))


def _scaled(pairs: Pairs, s1: Tensor, s2: Tensor) -> Pairs:
    """Every input by its own factor, which leaves correlations alone."""
    return Pairs(pairs.left / s1**2, pairs.right / s2**2, pairs.versine)


def _learned(layer: Norm, state: State, part: int) -> State:
    """What training the gain and the shift adds."""
    tangent, gains, law = state.tangent, state.gains, state.law
    if layer.weight is not None and layer.weight.requires_grad:
        if state.gaussian:  # an activation that follows must see that a coordinate's gain goes with its value
            gains = gains.clone()
            gains[part] += 1.0
        else:
            tangent = tangent.clone()
            tangent[part] += state.pairs.products
        law = then(law, lambda particles: particles.learned(particles.positions, part))
    bias = getattr(layer, "bias", None)  # RMSNorm has none
    if bias is not None and bias.requires_grad:
        tangent = tangent.clone()
        tangent[part] += 1.0
        law = then(law, lambda particles: particles.learned(torch.ones_like(particles.positions), part))
    return replace(state, tangent=tangent, gains=gains, law=law)
