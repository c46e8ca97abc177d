"""Layers without an infinite-width limit: why each has none, and what to use instead."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import batchnorm, conv, dropout, instancenorm

from zeroloss.errors import ArgumentError

_Kinds = tuple[type[nn.Module], ...]
# the kinds of layers, what is wrong with them, and what to use; the first row that fits is told
_REASONS: tuple[tuple[_Kinds, str, str], ...] = (
    (
        (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.LPPool2d,
         nn.FractionalMaxPool2d),
        "takes the largest of several pixels, whose joint law has no closed form",
        "use average pooling or strided convolutions",
    ),
    (
        (nn.AvgPool3d, nn.AdaptiveAvgPool3d),
        "pools volumes, and only images and sequences are kept",
        "use AvgPool2d",
    ),
    (
        (dropout._DropoutNd,),
        "drops entries at random, in training mode",
        "call eval() on the module, or leave it out",
    ),
    (
        (batchnorm._BatchNorm, instancenorm._InstanceNorm, nn.GroupNorm, nn.LocalResponseNorm),
        "normalises over a batch or over a part of the features",
        "use nn.LayerNorm over all of an input's features",
    ),
    (
        (nn.Softmax, nn.Softmin, nn.LogSoftmax, nn.Softmax2d),
        "mixes an input's features, of which the limit knows one at a time",
        "leave it to the loss, or use nn.Sigmoid",
    ),
    (
        (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer, nn.TransformerEncoder, nn.TransformerDecoder,
         nn.Transformer),
        "attends from one position to others, which are not kept as pairs",
        "use Linear, Conv2d and Residual layers",
    ),
    (
        (nn.RNNBase, nn.RNNCellBase),
        "uses its weights again at every step of a sequence",
        "use Linear layers of their own for every step",
    ),
    (
        (nn.Embedding, nn.EmbeddingBag),
        "takes indices, not numbers",
        "pass one-hot rows to a Linear layer without bias",
    ),
    (
        (conv._ConvTransposeNd,),
        "spreads every pixel over a patch, for which no rule is implemented",
        "use Conv2d with padding",
    ),
    (
        (nn.Bilinear,),
        "multiplies two inputs",
        "use Linear layers",
    ),
    (
        (nn.PReLU,),
        "trains its own slope",
        "use nn.LeakyReLU",
    ),
    (
        (nn.RReLU, nn.Hardshrink, nn.Threshold, nn.Softplus),
        "is random or jumps, with these arguments",
        "use nn.LeakyReLU, nn.Softshrink, or nn.Softplus with a threshold of at least 15",
    ),
    (
        (nn.GLU,),
        "multiplies features by one another",
        "use nn.SiLU",
    ),
)  # fmt: skip


def refusal(module: nn.Module, name: str) -> ArgumentError:
    """The error for a layer without a limit.

    Args:
        module: the layer.
        name: its dotted name.

    Returns:
        The error, to be raised by the caller.

    Example:
        >>> print(refusal(nn.MaxPool2d(2), "3"))
        module takes the largest of several pixels, whose joint law has no closed form (MaxPool2d at '3'); use average
        pooling or strided convolutions, or ask for gram(module, x)
        >>> print(refusal(nn.PReLU(), "1"))
        module trains its own slope (PReLU at '1'); use nn.LeakyReLU, or ask for gram(module, x)
    """
    for kinds, why, remedy in _REASONS:
        if isinstance(module, kinds):
            return ArgumentError(
                "module", f"{why} ({type(module).__name__} at {name!r})", f"{remedy}, or ask for gram(module, x)"
            )
    kind = type(module).__name__
    if any(True for _ in module.children()):
        return ArgumentError(
            "module",
            f"puts layers together in a forward of its own at {name!r} ({kind}), which the limit cannot follow",
            "build it from Sequential and zeroloss.networks.Residual, or ask for gram(module, x)",
        )
    return ArgumentError(
        "module",
        f"has a layer {name!r} of type {kind}, for which no infinite-width limit is implemented",
        "use Linear, Conv2d, an activation, Elementwise, LayerNorm, Scale, Residual, Flatten or Sequential, or ask for gram(module, x)",
    )
