r"""Where a network's activations have kinks: how far it is from them, and steps that go only as far as a crossing.

A step of Levenberg-Marquardt believes in the Jacobian it left with; where activations change their piece on the way, it is another one.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zeroloss.certificate.polish_held import held_step
from zeroloss.certificate.polish_newton import State, trial, worth
from zeroloss.certificate.polish_problem import Problem, Values
from zeroloss.gram import forward
from zeroloss.networks import activation_of

HELD = 32  # units, at most, that a step is made to leave where they are
HELD_ENTRIES = 2**26  # of their gradients, at most; above, none is held
SHARES = (0.0, 0.02, 0.1, 0.3)  # of the crossings: a step is tried just beyond each of these
BEYOND = 1.01
HELD_FRACTIONS = (1.0, 0.25, 0.05)
MARGIN = 1e-7  # of the pre-activations' root mean square: the distance from a kink that a certificate's cell test can work with
ON_KINK = 1e-4  # of a margin
AIM = 2.0  # margins, for units that are moved away

Kinks = tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Units:
    """Pre-activations, each of one input row, with a number for each.

    Args:
        value: the numbers.
        call: which call of a kinked activation, in the order in which they run.
        row: of the inputs.
        unit: the place within the row's signal, flattened.
    """

    value: Tensor
    call: Tensor
    row: Tensor
    unit: Tensor

    def __len__(self) -> int:
        return len(self.value)

    def first(self, count: int) -> Units:
        """Those with the smallest numbers."""
        order = torch.argsort(self.value)[:count]
        return Units(self.value[order], self.call[order], self.row[order], self.unit[order])


def kinked_layers(module: nn.Module) -> dict[nn.Module, Kinks]:
    """The activations that have kinks, with them.

    Example:
        >>> list(kinked_layers(nn.Sequential(nn.ReLU(), nn.Tanh(), nn.Hardtanh())).values())
        [(0.0,), (-1.0, 1.0)]
    """
    found = {layer: activation_of(layer) for layer in module.modules()}
    return {layer: sigma.kinks for layer, sigma in found.items() if sigma is not None and sigma.kinks}


def pre_activations(problem: Problem) -> list[tuple[Kinks, Tensor]]:
    """What every kinked activation sees at the weights as they are, n×units a call, with its kinks."""
    parts = []
    with torch.no_grad():
        for some in torch.split(problem.x, problem.rows):
            with _seen(problem.module) as seen:
                forward(problem.module, some)
            parts.append([(kinks, z.flatten(1)) for kinks, z in seen])
    return [(calls[0][0], torch.cat([z for _, z in calls])) for calls in zip(*parts, strict=True)]


def margin(problem: Problem) -> float:
    """The smallest distance of a pre-activation from a kink, over the root mean square of its call; infinite without kinks.

    Example:
        >>> from zeroloss.data import Dataset
        >>> net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1)).double()
        >>> with torch.no_grad():
        ...     _ = net[0].weight.copy_(torch.tensor([[3.0, 1.0], [1.0, 3.0]]))
        >>> round(margin(Problem.of(net, Dataset([[1.0, 0.0], [0.0, 1.0]], [1.0, 2.0]))), 6)  # 1 of 3, 1, 1, 3
        0.447214
    """
    ratios = [float(((z - kink).abs().min()) / _size(z)) for kinks, z in pre_activations(problem) for kink in kinks]
    return min(ratios, default=math.inf)


def across(problem: Problem, state: State, change: Values, factor: Tensor) -> State | None:
    r"""The best of some shorter steps, or else a step that holds the first units to cross.

    Args:
        problem: its weights are left anywhere.
        state: where the step began.
        change: $J^\top z$ of a step that was refused.
        factor: Cholesky factor of $G+\lambda I$.

    Returns:
        A state with a smaller residual, or None.
    """
    problem.put(state.values, change, -1.0)
    far = pre_activations(problem)
    problem.put(state.values)
    crossings = _crossings(pre_activations(problem), far)
    if not len(crossings):
        return None
    places = sorted({min(int(share * len(crossings)), len(crossings) - 1) for share in SHARES})
    fractions = [min(1.0, BEYOND * float(crossings.value[place])) for place in places]
    best = min((trial(problem, state, change, -t) for t in fractions), key=_norm)
    if worth(state.norm, best.norm, 0.0):
        return best
    problem.put(state.values)
    if not room(problem):
        return best
    rows = gradients(problem, crossings.first(HELD))
    held = held_step(problem, state.residual, factor, rows, torch.zeros(len(rows)).to(rows))
    return min((trial(problem, state, held, t) for t in HELD_FRACTIONS), key=_norm)


def narrow(problem: Problem) -> tuple[Units, Tensor]:
    """Units nearer to a kink than a certificate can work with, by their distance, and how far each is to move, signed.

    Those that are a few margins away are listed too, with no move: whoever moves the others will want to hold them.
    """
    found: list[tuple[Tensor, ...]] = []
    for index, (kinks, z) in enumerate(pre_activations(problem)):
        wanted = MARGIN * _size(z)
        for kink in kinks:
            row, unit = torch.nonzero((z - kink).abs() < 2 * AIM * wanted, as_tuple=True)
            away = z[row, unit] - kink
            # on the kink up to rounding, a ReLU's unit is moved to where it lives
            side = torch.where(away >= -ON_KINK * wanted, torch.ones_like(away), -torch.ones_like(away))
            move = torch.where(away.abs() < wanted, side * AIM * wanted - away, torch.zeros_like(away))
            found.append((away.abs(), torch.full_like(row, index), row, unit, move))
    value, call, row, unit, moves = (torch.cat(parts) for parts in zip(*found, strict=True))
    order = torch.argsort(value)[:HELD]
    return Units(value[order], call[order], row[order], unit[order]), moves[order]


def room(problem: Problem) -> bool:
    """Whether the gradients of as many units as are ever held fit the memory that is set aside for them."""
    return HELD * sum(p.numel() for p in problem.trained.values()) <= HELD_ENTRIES


def gradients(problem: Problem, units: Units) -> Tensor:
    """Of pre-activations in the trained parameters, one a row: for each, one input row passes through the module."""
    return torch.stack([_gradient(problem, units, j) for j in range(len(units))])


def _gradient(problem: Problem, units: Units, j: int) -> Tensor:
    row, trained = int(units.row[j]), list(problem.trained.values())
    with _seen(problem.module) as seen, torch.enable_grad():
        forward(problem.module, problem.x[row : row + 1])
        z = seen[int(units.call[j])][1].flatten()[int(units.unit[j])]
        if not z.requires_grad:  # of a frozen layer
            return torch.cat([torch.zeros_like(p).reshape(-1) for p in trained])
        found = torch.autograd.grad(z, trained, allow_unused=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).reshape(-1) for p, g in zip(trained, found, strict=True)])


def _crossings(near: list[tuple[Kinks, Tensor]], far: list[tuple[Kinks, Tensor]]) -> Units:
    """Units by the fraction of the way at which they first reach a kink, taken for straight, the earliest first."""
    found: list[tuple[Tensor, ...]] = []
    for index, ((kinks, z0), (_, z1)) in enumerate(zip(near, far, strict=True)):
        first = torch.full_like(z0, math.inf)
        for kink in kinks:
            crosses = (z0 - kink) * (z1 - kink) < 0
            first = torch.where(crosses, torch.minimum(first, (kink - z0) / (z1 - z0)), first)
        row, unit = torch.nonzero(torch.isfinite(first), as_tuple=True)
        found.append((first[row, unit], torch.full_like(row, index), row, unit))
    units = Units(*(torch.cat(parts) for parts in zip(*found, strict=True)))
    return units.first(len(units))


def _size(z: Tensor) -> float:
    return float(z.square().mean().sqrt()) or 1.0


def _norm(state: State) -> float:
    return state.norm if math.isfinite(state.norm) else math.inf


@contextlib.contextmanager
def _seen(module: nn.Module) -> Iterator[list[tuple[Kinks, Tensor]]]:
    """Collect what kinked activations are given, for the length of a block."""
    layers = kinked_layers(module)
    seen: list[tuple[Kinks, Tensor]] = []

    def record(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        seen.append((layers[layer], arguments[0].clone()))  # the activation may work in place

    handles = [layer.register_forward_pre_hook(record) for layer in layers]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
