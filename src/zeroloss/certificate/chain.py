"""A module read as a chain of stages, or refused by name: what is certified is what was read, so nothing is guessed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import cast

import torch
from torch import Tensor, nn

from zeroloss.certificate.activations import Sigma, sigma_of
from zeroloss.certificate.enclosure import enclose_forward
from zeroloss.certificate.forward import outputs
from zeroloss.certificate.stages import Activation, Chain, Conv2d, Flatten, Linear, Pool, Residual, Scale, Stage
from zeroloss.data.door import shape
from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.networks import GaussianConv2d, GaussianLinear, activation_of
from zeroloss.networks import Network as BuiltNetwork
from zeroloss.networks import Residual as ResidualLayer
from zeroloss.networks import Scale as ScaleLayer
from zeroloss.typing import Inputs

SAME = 1e-6  # relative, between the module's own outputs and those of the chain that was read: far above rounding
COVERED = (
    "nn.Sequential of Linear, Conv2d, Flatten, average pooling, Identity, Dropout in eval mode, zeroloss.networks.Scale and Residual, "
    "and the activations relu, leaky_relu, abs, hard_tanh, softplus, tanh, sigmoid, erf, gelu and silu"
)
_NAMES = {"swish": "silu"}


def read_chain(module: nn.Module, x: Inputs, train: str | Iterable[str] | None = None, scale: float = 1.0) -> Chain:
    """Read a network as a chain.

    Args:
        module: an ``nn.Sequential`` of the layers in ``COVERED``, nested ones included; in any dtype.
        x: inputs, n×d or n×c×h×w; their shapes decide how pooling is read.
        train: names of parameters or layers that count as trained, ``"all"``, or None for those with ``requires_grad``.
        scale: a factor that the outputs are multiplied by.

    Returns:
        The chain, with float64 copies of all parameters.

    Raises:
        ArgumentError: for a layer that is not covered, tied or missing parameters, NaN or infinite ones, nothing to train, inputs of a
            shape that the layers do not take, or a module that computes something else than its layers say.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 1))
        >>> [type(stage).__name__ for stage in read_chain(net, torch.ones(1, 2, dtype=torch.float64)).stages]
        ['Linear', 'Activation', 'Linear']
    """
    tensors = _tensors(module)
    trained = _trained(module, tensors, train)
    reader = _Reader(trained)
    stages = tuple(reader.sequence(module, "module", torch.zeros(1, *x.shape[1:], dtype=torch.float64)))
    if scale != 1.0:
        stages = (*stages, Scale(scale))
    order = tuple(name for name in tensors if name in trained)
    used = [name for name in order if name not in reader.used]
    if used:
        raise ArgumentError("module", f"has a parameter {used[0]!r} that no layer of the chain uses", "freeze it")
    chain = Chain(stages, tensors, order)
    _compare(module, chain, x, scale)
    return chain


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    named = list(module.named_parameters(remove_duplicate=False))
    if len({id(p) for _, p in named}) < len(named):
        raise ArgumentError("module", "has a parameter that two layers share", "give every layer its own")
    found = {}
    for name, p in named:
        if not p.is_floating_point():
            raise ArgumentError("module", f"has a parameter {name!r} of dtype {p.dtype}", "pass real ones")
        value = p.detach().to("cpu", torch.float64, copy=True).contiguous()
        if not bool(torch.isfinite(value).all()):
            raise ArgumentError("module", f"has NaN or infinity in its parameter {name!r}", "train it again with a smaller step")
        found[name] = value
    return found


def _trained(module: nn.Module, tensors: dict[str, Tensor], train: str | Iterable[str] | None) -> frozenset[str]:
    if train is None:
        chosen = {name for name, p in module.named_parameters() if p.requires_grad}
        if not chosen:
            raise ArgumentError("module", "has no trained parameter", "set requires_grad, or name layers with train=")
        return frozenset(chosen)
    wanted = [train] if isinstance(train, str) else list(train)
    if wanted == ["all"]:
        return frozenset(tensors)
    if not wanted:
        raise ArgumentError("train", "names nothing", "name layers or parameters, or pass 'all'")
    chosen = set()
    for word in wanted:
        matches = {n for n in tensors if word in (n, n.rpartition(".")[0], n.rpartition(".")[0].rpartition(".")[2])}
        if not matches:
            raise unknown_name("train", word, [*tensors, "all"])
        chosen |= matches
    return frozenset(chosen)


class _Reader:
    """Walks through the layers with one row of zeros, whose shape the next layer is told."""

    def __init__(self, trained: frozenset[str]) -> None:
        self.trained = trained
        self.used: set[str] = set()
        self.row = torch.zeros(0)

    def sequence(self, module: nn.Module, name: str, row: Tensor | None = None) -> Iterator[Stage]:
        if row is not None:
            self.row = row
        kind = type(module)
        if module._forward_hooks or module._forward_pre_hooks:
            raise ArgumentError("module", f"has forward hooks on {name}", "remove them")
        if kind in (nn.Sequential, BuiltNetwork):
            for child, layer in module.named_children():
                yield from self.sequence(layer, child if name == "module" else f"{name}.{child}")
        elif kind is ResidualLayer:
            before = self.row
            inside = tuple(stage for child, layer in module.named_children() for stage in self.sequence(layer, f"{name}.{child}"))
            if self.row.shape != before.shape:
                raise ArgumentError("module", f"adds shapes {shape(before)} and {shape(self.row)} in {name}", "make them equal")
            yield Residual(inside)
        else:
            yield from self.layer(module, "" if name == "module" else name)

    def layer(self, module: nn.Module, name: str) -> Iterator[Stage]:
        kind = type(module)
        if kind in (nn.Linear, GaussianLinear):
            if self.row.ndim != 2:
                raise ArgumentError(
                    "module", f"applies {name!r} to images of shape {shape(self.row[0])}", "put an nn.Flatten() before it"
                )
            stage: Stage = Linear(*self.names(module, name))
        elif kind in (nn.Conv2d, GaussianConv2d):
            stage = self.convolution(cast("nn.Conv2d", module), name)
        elif isinstance(module, nn.Flatten) and module.start_dim == 1 and module.end_dim == -1:
            stage = Flatten()
        elif kind in (nn.AvgPool2d, nn.AdaptiveAvgPool2d):
            stage = self.pool(module, name)
        elif kind is nn.Identity or (kind in (nn.Dropout, nn.Dropout2d) and (not module.training or module.p == 0)):
            return
        elif kind is ScaleLayer:
            stage = Scale(cast("ScaleLayer", module).factor)
        else:
            stage = Activation(self.sigma(module, name))
        try:
            with torch.no_grad():
                self.row = _shape_after(module, self.row)
        except (RuntimeError, ValueError) as error:
            raise ArgumentError(
                "data", f"has rows of shape {shape(self.row[0])} where layer {name!r} does not take them ({error})", _RESHAPE
            ) from error
        yield stage

    def names(self, module: nn.Module, name: str) -> tuple[str, str | None, tuple[str, ...]]:
        full = {part: f"{name}.{part}" if name else part for part, p in module._parameters.items() if p is not None}
        if "weight" not in full:
            raise ArgumentError("module", f"has no plain weight in layer {name!r}", "remove the parametrisation")
        self.used |= set(full.values())
        parts = tuple(part for part in ("weight", "bias") if full.get(part) in self.trained)
        return full["weight"], full.get("bias"), parts

    def convolution(self, module: nn.Conv2d, name: str) -> Conv2d:
        if module.groups != 1 or module.padding_mode not in ("zeros", "circular"):
            what = f"groups={module.groups}, padding_mode={module.padding_mode!r}"
            raise ArgumentError(
                "module", f"has a convolution {name!r} with {what}", "only plain ones with zeros or circular are covered"
            )
        padding = module.padding
        if isinstance(padding, str):
            spans = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
            if padding == "same" and any(span % 2 for span in spans):
                raise ArgumentError("module", f"pads {name!r} unevenly", "use an odd kernel")
            padding = tuple(span // 2 for span in spans) if padding == "same" else (0, 0)
        names = self.names(module, name)
        return Conv2d(*names, _pair(module.stride), _pair(padding), module.padding_mode, _pair(module.dilation))

    def pool(self, module: nn.Module, name: str) -> Pool:
        if self.row.ndim != 4:
            raise ArgumentError("data", f"has rows where {name!r} pools images", _RESHAPE)
        size = _pair(self.row.shape[2:])
        if isinstance(module, nn.AdaptiveAvgPool2d):
            asked = module.output_size if isinstance(module.output_size, tuple) else (module.output_size,) * 2
            to = (asked[0] or size[0], asked[1] or size[1])
        else:
            pool = cast("nn.AvgPool2d", module)
            kernel = _pair(pool.kernel_size)
            if _pair(pool.stride or kernel) != kernel or _pair(pool.padding) != (0, 0) or pool.divisor_override is not None:
                raise ArgumentError("module", f"pools over overlapping or padded rectangles in {name!r}", "pool over equal ones")
            to = (size[0] // kernel[0], size[1] // kernel[1])
            if (to[0] * kernel[0], to[1] * kernel[1]) != size:
                raise ArgumentError("module", f"pools {size} pixels in rectangles of {kernel} in {name!r}", "choose a divisor")
        if size[0] % to[0] or size[1] % to[1]:
            raise ArgumentError("module", f"pools {size} pixels down to {to} in {name!r}", "choose a divisor of the size")
        return Pool(to)

    def sigma(self, module: nn.Module, name: str) -> Sigma:
        known = activation_of(module)
        title = "" if known is None else _NAMES.get(known.name, known.name).partition("(")[0]
        if isinstance(module, nn.LeakyReLU):
            return sigma_of("leaky_relu", float(module.negative_slope))
        if isinstance(module, (nn.Hardtanh, nn.ReLU6)):
            return sigma_of("hard_tanh", limits=(float(module.min_val), float(module.max_val)))
        if isinstance(module, nn.Softplus) and known is not None:
            return sigma_of("softplus", float(module.beta))
        plain = ("relu", "abs", "tanh", "sigmoid", "erf", "gelu", "silu")
        if known is None or title not in plain or "(" in known.name or hasattr(module, "zeroloss_activation"):
            raise ArgumentError("module", f"has a layer {name!r} of type {type(module).__name__}", f"a chain is an {COVERED}")
        return sigma_of(title)


_RESHAPE = "convolutions take images (load(..., flat=False)), linear layers rows"


def _shape_after(module: nn.Module, row: Tensor) -> Tensor:
    """What the layer makes of one row of zeros: of interest for its shape alone."""
    parameter = next(module.parameters(), None)
    made: Tensor = module(row if parameter is None else row.to(parameter))
    return torch.zeros(made.shape, dtype=torch.float64)


def _pair(value: object) -> tuple[int, int]:
    if isinstance(value, int):
        return (value, value)
    first, second = cast("tuple[int, int]", value)
    return (int(first), int(second))


def _compare(module: nn.Module, chain: Chain, x: Inputs, scale: float) -> None:
    """Whether the module computes what its layers say: a subclass with a forward of its own is caught here."""
    few = x[: min(8, len(x))].to("cpu", torch.float64, copy=True)  # a layer may work in place
    with torch.no_grad():
        theirs = torch.func.functional_call(module, chain.tensors, (few.clone(),)) * scale
    ours = outputs(chain, few)
    if ours.shape != theirs.shape:
        raise ArgumentError(
            "module", f"returns {shape(theirs)} where its layers give {shape(ours)}", "write it as an nn.Sequential"
        )
    gap, size = float((ours - theirs).abs().max()), float(theirs.abs().max())
    if not gap > SAME * size + 1e-280:
        return
    rounding = float(
        enclose_forward(chain, few).outputs.error.max()
    )  # outputs that cancel, such as those of an antisymmetric start
    if gap > 4 * rounding:
        raise ArgumentError(
            "module", f"computes something else than its layers say (outputs differ by {gap:.2g})", "remove what differs"
        )
