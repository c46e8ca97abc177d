r"""Where a layer applies its weight: at $T$ positions of a sample, and at each of them as one and the same linear map.

A convolution reads a patch $\phi_{it}$ at every position of the image, a linear layer reads its whole input at its only one.
With $\delta_{it}$ the derivative of an output in what the layer gives there, the sample's gradient is
$\sum_t\delta_{it}\phi_{it}^\top$ (THEORY 3.2), and one formula serves every kind of layer: a new kind is one entry of :data:`KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from zeroloss.errors import ArgumentError

Layer = nn.Linear | nn.Conv2d


@dataclass(frozen=True)
class Kind:
    r"""How one kind of layer is read as a linear map at positions.

    Args:
        patches: a layer and its inputs, rows first, to n×...×...: the dimensions of a row of the layer's weight, then those of positions.
        signals: derivatives in the layer's outputs, shaped like them, to n×O×T, its positions in the order of the patches'.
        dimensions: the fewest that inputs have when their first one runs over samples.
    """

    patches: Callable[[nn.Module, Tensor], Tensor]
    signals: Callable[[Tensor], Tensor]
    dimensions: int


def _tokens(values: Tensor) -> Tensor:
    """Features last, as ``nn.Linear`` has them, to n×features×T."""
    return values.reshape(len(values), -1, values.shape[-1]).mT


def _windows(layer: nn.Module, inputs: Tensor) -> Tensor:
    """A view, n×channels×kernel×positions, since a single strided copy of it is five times as fast as ``functional.unfold``."""
    assert isinstance(layer, nn.Conv2d)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    view = functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    for dimension, (kernel, dilation, stride) in enumerate(zip(layer.kernel_size, layer.dilation, layer.stride, strict=True), 2):
        view = view.unfold(dimension, dilation * (kernel - 1) + 1, stride)
    return view[..., :: layer.dilation[0], :: layer.dilation[1]].permute(0, 1, 4, 5, 2, 3)


KINDS: dict[type[Layer], Kind] = {
    nn.Linear: Kind(lambda _, inputs: _tokens(inputs), _tokens, 2),
    nn.Conv2d: Kind(_windows, lambda delta: delta.flatten(2), 4),
}


def is_layer(module: nn.Module) -> bool:
    """Whether a module is of a kind in :data:`KINDS`.

    Example:
        >>> is_layer(nn.Linear(2, 1)), is_layer(nn.ReLU())
        (True, False)
    """
    return isinstance(module, tuple(KINDS))


def parameters_of(layer: Layer) -> dict[str, nn.Parameter]:
    """The trainable ones of a layer's weight and bias, none of them where the layer's kind does not cover its options.

    Args:
        layer: of a kind in :data:`KINDS`.

    Returns:
        ``"weight"`` and ``"bias"``, where they are parameters of the layer and trained. A convolution in groups has none: its
        weight meets only a part of each patch.

    Example:
        >>> list(parameters_of(nn.Conv2d(2, 4, 3, bias=False))), list(parameters_of(nn.Conv2d(2, 4, 3, groups=2)))
        (['weight'], [])
    """
    own = dict(layer.named_parameters(recurse=False))
    whole = getattr(layer, "groups", 1) == 1
    return {name: own[name] for name in ("weight", "bias") if whole and name in own and own[name].requires_grad}


def patches(layer: Layer, inputs: Tensor) -> Tensor:
    r"""What a layer's trained weights multiply at every position: the inputs, and 1 for the bias.

    Args:
        layer: of a kind in :data:`KINDS`, with something trained.
        inputs: its inputs, rows first.

    Returns:
        $\phi$, n×D×T: D is the length of a row of the weight (none where it is frozen), and one more where the bias is trained.

    Example:
        >>> import torch
        >>> patches(nn.Conv2d(2, 5, 3), torch.ones(4, 2, 6, 6)).shape
        torch.Size([4, 19, 16])
    """
    trained = parameters_of(layer)
    phi = _kind(layer).patches(layer, inputs)
    n, length = len(inputs), layer.weight[0].numel()
    positions = phi.numel() // (n * length)
    if "bias" not in trained:
        return phi.reshape(n, length, positions)
    if "weight" not in trained:
        return phi.new_ones(n, 1, positions)
    both = phi.new_ones(n, length + 1, positions)
    both[:, :-1].view(phi.shape).copy_(phi)
    return both


def signals(layer: Layer, delta: Tensor) -> Tensor:
    r"""Derivatives in a layer's outputs, position by position.

    Args:
        layer: of a kind in :data:`KINDS`.
        delta: derivatives, shaped like the layer's outputs.

    Returns:
        $\delta$, n×O×T.

    Example:
        >>> import torch
        >>> signals(nn.Linear(2, 5), torch.ones(4, 7, 5)).shape
        torch.Size([4, 5, 7])
    """
    return _kind(layer).signals(delta)


def check_rows(name: str, layer: Layer, inputs: Tensor, n: int) -> None:
    """Refuse inputs whose first dimension does not run over the samples.

    Args:
        name: the layer's dotted name.
        layer: of a kind in :data:`KINDS`.
        inputs: what it was called with.
        n: the number of samples.

    Raises:
        ArgumentError: saying what was seen.
    """
    if inputs.ndim < _kind(layer).dimensions or len(inputs) != n:
        seen = f"uses {name!r} on inputs of shape {tuple(inputs.shape)} for {n} samples"
        raise ArgumentError("module", seen, "keep the samples in the first dimension, one row each")


def _kind(layer: Layer) -> Kind:
    return next(kind for type_, kind in KINDS.items() if isinstance(layer, type_))
