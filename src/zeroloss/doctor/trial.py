r"""A few real steps on a copy: how far the Gram moves while the loss falls, which tells lazy training from rich.

With a Gram that stands still the linear theory holds to the end (DU section 3.2; THEORY 5.1 on lazy training). What moves it is measured
against what was gained: $\|G(T)-G(0)\|_F/\|G(0)\|_F$ over the share of the residual that is gone, $1-\|r_T\|/\|r_0\|$.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float
from torch import Tensor, nn

from zeroloss.doctor.modes import Modes, decompose
from zeroloss.doctor.subject import Subject
from zeroloss.doctor.tangent import full_gram
from zeroloss.gram import match, own_copy, rows_of
from zeroloss.training import Status, descend
from zeroloss.typing import Targets

STEPS = 32
HALVINGS = 6  # of a step at which the loss grows at once
GROWTH = 1.01  # of the loss, at any of the steps
LAZY_DRIFT = 0.25  # of the Gram, relative, per residual that is gone, and in proportion at a hundredth of the loss
LAZY_MISS = 0.25  # of the forecast loss, relative, after the real steps


class Regime(StrEnum):
    """What a network does while it fits."""

    LAZY = "lazy"  # its tangent kernel nearly stands still
    RICH = "rich"  # its features move
    UNDETERMINED = "undetermined"  # no step could be taken


@dataclass(frozen=True)
class Movement:
    r"""What the real steps showed.

    Args:
        steps: T, how many were taken.
        step: $\eta$ of each.
        halvings: how often the step was halved before the loss fell.
        losses: the loss at steps 0 to T.
        foretold: the loss at step T by the initial Gram.
        gained: the share of the residual that is gone, $1-\sqrt{F_T/F_0}$.
        gram_drift: $\|G(T)-G(0)\|_F/\|G(0)\|_F$.
        weight_drift: $\|\theta_T-\theta_0\|/\|\theta_0\|$ over the trained parameters.
        largest: $\lambda_{\max}(G(T))$.
        ahead: what the Gram's drift comes to where the forecast has a hundredth of the loss, in proportion to the way of the linearised
            network's weights. Slow directions take the weights far, and say nothing of it in the first steps.
    """

    steps: int
    step: float
    halvings: int
    losses: tuple[float, ...]
    foretold: float
    gained: float
    gram_drift: float
    weight_drift: float
    largest: float
    ahead: float = 0.0

    @property
    def drift_per_gain(self) -> float:
        """What the Gram's drift would come to when all of the residual is gone, in proportion."""
        return self.gram_drift / self.gained if self.gained > 0 else math.inf

    @property
    def miss(self) -> float:
        """How far the forecast for step T was off in log loss, relative to the fall."""
        last, first = self.losses[-1], self.losses[0]
        if not (last > 0 and self.foretold > 0 and first > last):
            return math.inf if self.steps and first > 0 and last >= first else 0.0
        return abs(math.log(last / self.foretold)) / math.log(first / last)

    @property
    def regime(self) -> Regime:
        """The verdict: lazy where the drift, now and ahead, and the miss are small."""
        if self.steps == 0:
            return Regime.UNDETERMINED
        drift = max(self.drift_per_gain, self.ahead)
        return Regime.LAZY if drift <= LAZY_DRIFT and self.miss <= LAZY_MISS else Regime.RICH


@dataclass(frozen=True, eq=False)
class Trial:
    """The network after the real steps.

    Args:
        module: the copy that was trained.
        gram: its full Gram.
        modes: of it.
        outputs: of it, n×k.
        movement: what the steps showed.
    """

    module: nn.Module
    gram: Float[Tensor, "N N"]
    modes: Modes
    outputs: Targets
    movement: Movement


def try_steps(
    subject: Subject, gram: Tensor, step: float, foretold_at: Callable[[float, int], float], steps: int, scale: float
) -> Trial:
    """Take the steps on a copy; where the loss grows, halve the step and start again.

    Args:
        subject: what is examined; its module is left as it is.
        gram: its full Gram.
        step: the first step size to try, for all rows.
        foretold_at: the initial Gram's forecast: from a step size and a number of steps to the loss.
        steps: T.
        scale: n/m where m of n rows were sampled; a step for the sample is that much larger.

    Returns:
        The trial; its movement has 0 steps where every step size failed.
    """
    before = _flat(subject.module)
    for halvings in range(HALVINGS + 1):
        eta = step / 2**halvings
        module = copy.deepcopy(subject.module)
        run = descend(module, subject.sample, loss=subject.loss, step=eta * scale, max_steps=steps, until=0.0)
        losses = tuple(run.loss.tolist())
        if run.status is Status.DIVERGED or not max(losses) <= GROWTH * losses[0]:
            continue
        after = full_gram(module, subject.sample.x)
        modes = decompose(after, scale)
        with torch.no_grad():
            outputs = rows_of(module(own_copy(match(module, subject.sample.x))), subject.sample.n).to(
                device="cpu", dtype=torch.float64
            )
        norm, size = float(gram.norm()), float(before.norm())
        movement = Movement(
            steps=len(losses) - 1,
            step=eta,
            halvings=halvings,
            losses=losses,
            foretold=foretold_at(eta, len(losses) - 1),
            gained=1 - math.sqrt(losses[-1] / losses[0]) if losses[0] > 0 else 1.0,
            gram_drift=float((after - gram).norm()) / norm if norm > 0 else 0.0,
            weight_drift=float((_flat(module) - before).norm()) / size if size > 0 else math.inf,
            largest=modes.largest,
        )
        return Trial(module, after, modes, outputs, movement)
    nothing = Movement(0, step, HALVINGS, (), math.nan, 0.0, 0.0, 0.0, float("nan"))
    return Trial(subject.module, gram, decompose(gram, scale), subject.outputs, nothing)


def _flat(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten().to(torch.float64) for p in module.parameters() if p.requires_grad])
