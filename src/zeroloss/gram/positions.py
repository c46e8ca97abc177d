r"""Where a layer applies its weight: at $T$ positions of a sample, and at each of them as one and the same linear map.

A convolution reads a patch $\phi_{it}$ at every position of the image, a linear layer reads its whole input at its only one, an
embedding reads the unit vector of a token. With $\delta_{it}$ the derivative of an output in what the layer gives there, the sample's
gradient is $\sum_t\delta_{it}\phi_{it}^\top$ (THEORY 3.2), and one formula serves every kind of layer: a new kind is one entry of
:data:`KINDS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from zeroloss.gram.parameters import parameters_of

Layer = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Embedding


@dataclass(frozen=True)
class Kind:
    r"""How one kind of layer is read as a linear map at positions.

    Args:
        patches: a layer and its inputs, rows first, to n×...×...: the dimensions of a row of the layer's weight, then those of positions.
        signals: derivatives in the layer's outputs, shaped like them, to n×O×T, its positions in the order of the patches'.
        dimensions: the fewest that inputs have when their first one runs over samples.
        inner: rows of patches, p×D and q×D, to their p×q inner products.
        explicit: whether patches are the vectors that the weight multiplies, rather than names of them.
    """

    patches: Callable[[nn.Module, Tensor], Tensor]
    signals: Callable[[Tensor], Tensor]
    dimensions: int
    inner: Callable[[Tensor, Tensor], Tensor] = lambda left, right: left @ right.T
    explicit: bool = True


def _tokens(values: Tensor) -> Tensor:
    """Features last, as ``nn.Linear`` has them, to n×features×T."""
    return values.reshape(len(values), -1, values.shape[-1]).mT


def _windows(layer: nn.Module, inputs: Tensor) -> Tensor:
    """A view, n×channels×kernel×positions, since a single strided copy of it is five times as fast as ``functional.unfold``."""
    assert isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    view = functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)
    space = len(layer.kernel_size)
    for axis, (kernel, dilation, stride) in enumerate(zip(layer.kernel_size, layer.dilation, layer.stride, strict=True)):
        view = view.unfold(2 + axis, dilation * (kernel - 1) + 1, stride)[..., ::dilation]
    kernels = range(2 + space, 2 + 2 * space)
    return view.permute(0, 1, *kernels, *range(2, 2 + space))


def _names(layer: nn.Module, inputs: Tensor) -> Tensor:
    """A token's number stands for its unit vector; that of the padding, which is not trained, is equal to none, itself included."""
    assert isinstance(layer, nn.Embedding)
    numbers = inputs.reshape(len(inputs), 1, -1).to(torch.float64)  # float32 would merge numbers above 2^24
    return numbers if layer.padding_idx is None else numbers.masked_fill(numbers == layer.padding_idx, torch.nan)


def _maps(delta: Tensor) -> Tensor:
    return delta.flatten(2)


KINDS: dict[type[nn.Module], Kind] = {
    nn.Linear: Kind(lambda _, inputs: _tokens(inputs), _tokens, 2),
    nn.Conv1d: Kind(_windows, _maps, 3),
    nn.Conv2d: Kind(_windows, _maps, 4),
    nn.Conv3d: Kind(_windows, _maps, 5),
    nn.Embedding: Kind(_names, _tokens, 1, inner=lambda left, right: left == right.T, explicit=False),
}


def kind_of(layer: nn.Module) -> Kind | None:
    """The layer's kind; None for other modules, and where an option makes its weight act otherwise.

    Example:
        >>> kind_of(nn.ReLU()) is None, kind_of(nn.Conv2d(2, 4, 3, groups=2)) is None, kind_of(nn.Linear(2, 1)).dimensions
        (True, True, 2)
    """
    if getattr(layer, "groups", 1) != 1:  # every weight meets only a part of each patch
        return None
    if isinstance(layer, nn.Embedding) and (layer.max_norm is not None or layer.scale_grad_by_freq):
        return None  # it changes its weight, or its gradient, as it goes
    return next((kind for type_, kind in KINDS.items() if isinstance(layer, type_)), None)


def patches(layer: nn.Module, inputs: Tensor, parts: tuple[str, ...] | None = None) -> Tensor:
    r"""What a layer's trained weights multiply at every position: the inputs, and 1 for the bias.

    Args:
        layer: of a kind in :data:`KINDS`.
        inputs: its inputs, rows first.
        parts: which of ``"weight"`` and ``"bias"`` count; by default those that are trained.

    Returns:
        $\phi$, n×D×T: D is the length of a row of the weight (none where it does not count), and one more where the bias counts. For
        an embedding D is 1, the token's number in place of its unit vector.

    Example:
        >>> patches(nn.Conv2d(2, 5, 3), torch.ones(4, 2, 6, 6)).shape
        torch.Size([4, 19, 16])
    """
    kind = kind_of(layer)
    assert kind is not None
    parts = tuple(parameters_of(layer)) if parts is None else parts
    phi = kind.patches(layer, inputs)
    if not kind.explicit:
        return phi
    weight = layer.weight
    assert isinstance(weight, Tensor)
    n, length = len(inputs), weight[0].numel()
    positions = phi.numel() // (n * length)
    if "bias" not in parts:
        return phi.reshape(n, length, positions)
    if "weight" not in parts:
        return phi.new_ones(n, 1, positions)
    both = phi.new_ones(n, length + 1, positions)
    both[:, :-1].view(phi.shape).copy_(phi)
    return both
