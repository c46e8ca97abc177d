r"""Layers and units through which nothing flows: dead, constant or saturated, found by one backward pass over the sample.

A unit is dead where the outputs' derivative in its pre-activation is exactly zero for every row and position: no weight before it gets a
gradient through it, whether its activation is a module or a function called in a forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zeroloss.doctor.finding import Finding, Severity, count, listed, percent
from zeroloss.gram import match, own_copy, rows_of
from zeroloss.networks import Elementwise
from zeroloss.typing import Inputs

PROBES = 8  # random directions of outputs
FLAT = 0.01  # of an activation's steepest slope: below it for every row a unit is saturated
ALIKE = 1e-10  # relative spread over rows below which a unit is constant
MANY = 0.5  # share of dead units that is serious

_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_BOUNDED = (nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardsigmoid, nn.Softsign)
_BOUNDED_NAMES = ("tanh", "erf", "sigmoid", "hard_tanh")


@dataclass(frozen=True)
class LayerHealth:
    """One layer with weights.

    Args:
        name: its dotted name.
        kind: its class.
        units: of its outputs; 0 where its calls are not seen (weights used by a function).
        dead: units that pass no gradient for any row.
        constant: units whose value is the same for every row.
        gradient: its share of the Gram's trace, estimated from random directions; exactly 0 where it gets no gradient.
        trained: whether any of its parameters is.
    """

    name: str
    kind: str
    units: int
    dead: int
    constant: int
    gradient: float
    trained: bool


@dataclass(frozen=True)
class Saturation:
    """An activation whose units lie flat for every row.

    Args:
        name: the activation's dotted name.
        kind: its class.
        units: how many there are.
        flat: how many have a slope below a hundredth of the steepest, for every row.
    """

    name: str
    kind: str
    units: int
    flat: int


def layer_health(module: nn.Module, x: Inputs, probes: int = PROBES) -> tuple[tuple[LayerHealth, ...], tuple[Saturation, ...]]:
    """Examine every layer with weights and every bounded activation.

    Args:
        module: in eval mode; left as it is.
        x: inputs.
        probes: how many random directions of outputs the shares of the gradient are estimated from; 1 tells which are zero.

    Returns:
        The layers in the order in which they ran (those whose calls are not seen last), and the activations.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
        >>> with torch.no_grad():
        ...     _ = net[0].bias.fill_(-100.0)
        >>> [(layer.name, layer.units, layer.dead, layer.gradient == 0) for layer in layer_health(net, torch.randn(5, 2))[0]]
        [('0', 3, 3, True), ('2', 1, 0, False)]
    """
    names = {layer: name for name, layer in module.named_modules()}
    seen: dict[nn.Module, list[Tensor]] = {}
    flat: dict[nn.Module, tuple[int, int]] = {}

    def record(layer: nn.Module, _: Any, result: Tensor) -> Tensor:
        kept = result if result.requires_grad else result.detach().requires_grad_()
        seen.setdefault(layer, []).append(kept)
        return kept.clone()  # an activation that works in place must not overwrite what was recorded

    def slope(layer: nn.Module, arguments: tuple[Tensor, ...], _: Any) -> None:
        flat[layer] = _flat_units(layer, arguments[0].detach())

    handles = [layer.register_forward_hook(record) for layer in names if isinstance(layer, _LAYERS)]
    handles += [layer.register_forward_hook(slope) for layer in names if _bounded(layer)]
    try:
        with torch.enable_grad():
            outputs = rows_of(module(own_copy(match(module, x))), len(x))
    finally:
        for handle in handles:
            handle.remove()
    signals, energies = _pulled(module, outputs, [z for calls in seen.values() for z in calls], probes)
    total = sum(energies.values())
    place, layers = 0, []
    for layer, calls in seen.items():
        own = signals[place : place + len(calls)]
        place += len(calls)
        units = [(_by_unit(layer, z.detach()), _by_unit(layer, s)) for z, s in zip(calls, own, strict=True)]
        dead = torch.stack([(s == 0).all(dim=0) for _, s in units]).all(dim=0)
        constant = torch.stack([_constant(z) for z, _ in units]).all(dim=0)
        layers.append(
            _health(names[layer], layer, len(dead), int(dead.sum()), int(constant.sum()) if len(x) > 1 else 0, energies, total)
        )
    for layer, name in names.items():
        if layer not in seen and any(True for _ in layer.parameters(recurse=False)):
            layers.append(_health(name, layer, 0, 0, 0, energies, total))
    return tuple(layers), tuple(Saturation(names[layer], type(layer).__name__, *sizes) for layer, sizes in flat.items())


def layer_findings(
    before: tuple[LayerHealth, ...], after: tuple[LayerHealth, ...], saturations: tuple[Saturation, ...], rows: int, steps: int
) -> Iterator[Finding]:
    """What is to be said of the layers.

    Args:
        before: at the weights as they are.
        after: after the real steps; what came to life there was asleep, not dead.
        saturations: at the weights as they are.
        rows: how many were looked at.
        steps: how many real steps were taken.

    Yields:
        Findings.
    """
    later = {layer.name: layer for layer in after}
    gone = [layer for layer in before if layer.units and layer.dead == layer.units and later[layer.name].dead == layer.units]
    starved = [layer for layer in before if layer.trained and layer.gradient == 0]
    asleep = [layer for layer in starved if later[layer.name].gradient > 0]
    starved = [layer for layer in starved if layer not in asleep]
    if gone:
        last = gone[-1]  # gradients die at the last one; those before it only hear nothing
        others = [repr(layer.name) for layer in starved if layer.name != last.name]
        rest = f" So these get no gradient either: {listed(others)}." if others else ""
        yield Finding(
            Severity.CRITICAL,
            "Dead layer",
            f"Layer {last.name!r} ({last.kind}) is dead: all {count(last.units, 'unit')} pass no gradient for any of "
            f"{count(rows, 'row')}, "
            f"and {count(steps, 'step')} did not wake {'it' if last.units == 1 else 'them'}.{rest} Look at its bias and its "
            "weights' scale.",
            {"units": last.units, "dead": last.dead, "rows": rows},
        )
    elif starved:
        yield Finding(
            Severity.SERIOUS,
            "Layers without gradient",
            f"{listed([repr(layer.name) for layer in starved])}: no output depends on "
            f"{'its' if len(starved) == 1 else 'their'} weights, for any "
            f"of {count(rows, 'row')}; {'it is' if len(starved) == 1 else 'they are'} trained in name only.",
            {"layers": len(starved)},
        )
    if asleep:
        yield Finding(
            Severity.NOTICE,
            "Asleep at the start",
            f"{listed([repr(layer.name) for layer in asleep])} get no gradient at the start (a head or branch at zero) and "
            "woke within "
            f"{count(steps, 'step')}: the initial Gram says little about the run.",
            {"layers": len(asleep)},
        )
    partly = [
        (layer, min(layer.dead, later[layer.name].dead))
        for layer in before
        if layer.units and layer not in gone and min(layer.dead, later[layer.name].dead) > 0
    ]
    if partly and not gone:
        worst, dead = max(partly, key=lambda pair: pair[1] / pair[0].units)
        share = dead / worst.units
        where = f"{dead} of {count(worst.units, 'unit')} of {worst.name!r} ({percent(share)})"
        total = sum(number for _, number in partly)
        more = f"; {total:,} in all, in {count(len(partly), 'layer')}" if len(partly) > 1 else ""
        yield Finding(
            Severity.SERIOUS if share >= MANY else Severity.NOTICE if share >= 0.1 else Severity.INFO,
            "Dead units",
            f"{where} pass no gradient for any row{more}.",
            {"dead": dead, "units": worst.units, "share": share},
        )
    stuck = [layer for layer in before if layer.units and layer.constant == layer.units]
    if stuck and not gone:
        names = listed([repr(layer.name) for layer in stuck])
        yield Finding(
            Severity.SERIOUS, "Constant layer", f"The values of {names} are the same for every row.", {"layers": len(stuck)}
        )
    full = [s for s in saturations if s.flat >= 0.1 * s.units and s.flat]
    if full:
        worst_flat = max(full, key=lambda s: s.flat / s.units)
        yield Finding(
            Severity.SERIOUS if worst_flat.flat >= MANY * worst_flat.units else Severity.NOTICE,
            "Saturated units",
            f"{worst_flat.flat} of {count(worst_flat.units, 'unit')} of {worst_flat.name!r} ({worst_flat.kind}) are "
            "saturated: their slope is "
            f"below {percent(FLAT)} of the steepest for every row. Scale the layer before it down.",
            {"saturated": worst_flat.flat, "units": worst_flat.units},
        )


def _pulled(
    module: nn.Module, outputs: Tensor, values: list[Tensor], probes: int
) -> tuple[list[Tensor], dict[nn.Parameter, float]]:
    """Derivatives of one random combination of outputs in what was recorded, and every parameter's squared gradient."""
    trained = [p for p in module.parameters() if p.requires_grad]
    energies = dict.fromkeys(trained, 0.0)
    generator = torch.Generator().manual_seed(0)
    signals = [torch.zeros_like(z) for z in values]
    if not outputs.requires_grad:
        return signals, energies
    for probe in range(probes):
        direction = torch.randn(outputs.shape, generator=generator, dtype=torch.float64).to(outputs)
        wanted = [*trained, *(values if probe == 0 else ())]
        found = torch.autograd.grad(outputs, wanted, direction, retain_graph=probe < probes - 1, allow_unused=True)
        for parameter, gradient in zip(trained, found, strict=False):
            if gradient is not None:
                energies[parameter] += float(gradient.square().sum()) / probes
        if probe == 0:
            signals = [z if s is None else s for z, s in zip(signals, found[len(trained) :], strict=True)]
    return signals, energies


def _health(
    name: str, layer: nn.Module, units: int, dead: int, constant: int, energies: dict[nn.Parameter, float], total: float
) -> LayerHealth:
    own = [energies[p] for p in layer.parameters(recurse=False) if p in energies]
    return LayerHealth(name, type(layer).__name__, units, dead, constant, sum(own) / total if total > 0 else 0.0, bool(own))


def _by_unit(layer: nn.Module, values: Tensor) -> Tensor:
    """Rows and positions first, units last."""
    if isinstance(layer, nn.Linear):
        return values.flatten(0, -2)
    return values.movedim(1, -1).flatten(0, -2)


def _constant(values: Tensor) -> Tensor:
    low, high = values.aminmax(dim=0)
    return high - low <= ALIKE * torch.maximum(low.abs(), high.abs())


def _bounded(layer: nn.Module) -> bool:
    if isinstance(layer, Elementwise):
        return any(word in repr(layer).lower() for word in _BOUNDED_NAMES)
    return isinstance(layer, _BOUNDED)


def _flat_units(layer: nn.Module, z: Tensor) -> tuple[int, int]:
    def slopes(at: Tensor) -> Tensor:
        return _derivative(layer.forward, at).abs()

    steepest = float(slopes(torch.linspace(-6, 6, 241, dtype=z.dtype, device=z.device)).max())
    by_unit = slopes(z)
    by_unit = by_unit.movedim(1, -1).flatten(0, -2) if z.ndim == 4 else by_unit.flatten(0, -2) if z.ndim > 1 else by_unit[None]
    least = by_unit.amax(dim=0)
    return len(least), int((least < FLAT * steepest).sum()) if math.isfinite(steepest) else 0


def _derivative(function: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    with torch.enable_grad():
        point = at.clone().requires_grad_()
        (slope,) = torch.autograd.grad(function(point).sum(), point)
    return slope
