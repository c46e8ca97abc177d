r"""Layers whose sample gradients are short enough to be written out: scales and shifts of normalised values, convolutions in groups.

A normalisation gives $\gamma\circ\hat x+\beta$ with $\hat x$ free of parameters: a sample's gradients are $\sum_t\delta_t\circ\hat x_t$
and $\sum_t\delta_t$ over the places that share an entry of $\gamma$. A convolution in groups has a weight that is shorter by their number.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.gram.positions import KINDS

Gradient = Callable[[nn.Module, Tensor, Tensor], dict[str, Tensor]]


def _normalised(layer: nn.Module, inputs: Tensor) -> Tensor:
    r"""$\hat x$: what the layer gives with scale 1 and shift 0."""
    own = {name: p for name, p in layer.named_parameters(recurse=False) if name in ("weight", "bias")}
    neutral = {name: torch.ones_like(p) if name == "weight" else torch.zeros_like(p) for name, p in own.items()}
    with torch.no_grad():
        result: Tensor = torch.func.functional_call(layer, neutral, (inputs,))
    return result


def _scale(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _last(layer: nn.Module, inputs: Tensor, delta: Tensor) -> dict[str, Tensor]:
    """Entries of the scale run over the last dimensions."""
    size = _scale(layer).numel()
    signal = delta.reshape(*delta.shape[:2], -1, size)
    normal = _normalised(layer, inputs).reshape(len(inputs), 1, -1, size)
    return {"weight": (signal * normal).sum(dim=2), "bias": signal.sum(dim=2)}


def _channels(layer: nn.Module, inputs: Tensor, delta: Tensor) -> dict[str, Tensor]:
    """Entries of the scale run over the dimension after the samples'."""
    size = _scale(layer).numel()
    signal = delta.reshape(*delta.shape[:2], size, -1)
    normal = _normalised(layer, inputs).reshape(len(inputs), 1, size, -1)
    return {"weight": (signal * normal).sum(dim=3), "bias": signal.sum(dim=3)}


def _grouped(layer: nn.Module, inputs: Tensor, delta: Tensor) -> dict[str, Tensor]:
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    n, k = delta.shape[:2]
    groups, length = layer.groups, layer.weight[0].numel()
    kind = next(kind for type_, kind in KINDS.items() if isinstance(layer, type_))
    phi = kind.patches(layer, inputs).reshape(n, groups, length, -1)
    signal = delta.reshape(n, k, groups, -1, phi.shape[3])
    return {"weight": torch.einsum("nkgot,ngdt->nkgod", signal, phi).flatten(2), "bias": signal.sum(dim=4).flatten(2)}


_NORMS: dict[type[nn.Module], Gradient] = {
    nn.LayerNorm: _last,
    nn.RMSNorm: _last,
    nn.GroupNorm: _channels,
    nn.modules.batchnorm._BatchNorm: _channels,
    nn.modules.instancenorm._InstanceNorm: _channels,
}


def gradient_of(layer: nn.Module) -> Gradient | None:
    """How a layer's sample gradients are written out; None where they are not.

    Example:
        >>> gradient_of(nn.LayerNorm(3)) is None, gradient_of(nn.Conv2d(4, 4, 3, groups=4)) is None, gradient_of(nn.Linear(2, 1)) is None
        (False, False, True)
    """
    if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return _grouped if layer.groups > 1 else None
    if getattr(layer, "weight", None) is None:
        return None
    return next((gradient for type_, gradient in _NORMS.items() if isinstance(layer, type_)), None)


def reach(layer: nn.Module, inputs: Tensor) -> float:
    """The largest number in size by which a sample's gradients multiply the derivatives.

    Args:
        layer: one with a :func:`gradient_of`.
        inputs: its inputs, rows first.

    Returns:
        That of the normalised values, or of the inputs of a convolution.

    Example:
        >>> round(reach(nn.LayerNorm(2), torch.tensor([[1000.0, 3000.0]])), 3)
        1.0
    """
    seen = inputs if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d) else _normalised(layer, inputs)
    return float(seen.abs().max())


def written_out(layer: nn.Module, inputs: Tensor, delta: Tensor, parts: tuple[str, ...]) -> Float[Tensor, "n k P"]:
    """Every sample's gradient, for every output.

    Args:
        layer: one with a :func:`gradient_of`.
        inputs: its inputs, rows first.
        delta: n×k×..., derivatives of the k outputs in what the layer gave.
        parts: which of ``"weight"`` and ``"bias"`` count.

    Returns:
        Gradients, n×k×P.

    Example:
        >>> written_out(nn.LayerNorm(3), torch.ones(2, 3), torch.ones(2, 1, 3), ("bias",))
        tensor([[[1., 1., 1.]],
        <BLANKLINE>
                [[1., 1., 1.]]])
    """
    gradient = gradient_of(layer)
    assert gradient is not None
    found = gradient(layer, inputs, delta)
    return torch.cat([found[part] for part in parts], dim=2)
