r"""The edge of stability: the largest step at which gradient descent still settles, bisected, beside $2/\lambda_{\max}$.

Near a minimum $r_{k+1}=(I-\eta G)r_k$, so a residual along the top eigenvector grows where $\eta>2/\lambda_{\max}(G)$ and decays below.
From a fresh start the residual is large and the Gram moves: between $2/\lambda_{\max}$ and about $4/\lambda_{\max}$ wide networks often
grow, flatten, and then converge, the catapult (THEORY 8).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import torch
from torch import nn

from zeroloss.data import Dataset
from zeroloss.errors import ArgumentError
from zeroloss.gram import match, tangent_operator
from zeroloss.spectrum import largest_eigenvalue
from zeroloss.training.descent import check_module
from zeroloss.training.weights import Weights

CATAPULT = 2.0  # times the stable limit: where the catapult range ends in the models in which it can be computed
GROWN = 2.0  # times the lowest loss so far: below the edge the linear theory has no growth at all, so none is waited for
GONE = 1e-16  # likewise: the residual is rounding
NEAR = 0.03  # the first bracket around the prediction
FAR = 64.0  # no edge is looked for further than this from the prediction


class StepVerdict(StrEnum):
    """What a step does from a fresh start, by the Gram there."""

    STABLE = "stable"  # below 2/lambda_max: every direction of the linear theory contracts
    CATAPULT = "catapult"  # up to about 4/lambda_max: the loss often grows, the Gram flattens, and then the loss falls
    UNSTABLE = "unstable"  # beyond: expect divergence


def step_verdict(step: float, largest: float) -> StepVerdict:
    r"""Where a step lies: below $2/\lambda_{\max}$, between that and about $4/\lambda_{\max}$, or beyond.

    The first limit is the linear theory's. The second is exact for a two-layer linear network on one sample as its width grows, and a
    rule of thumb elsewhere: ReLU networks have been seen to survive larger steps, so beyond it divergence is likely, not sure.

    Args:
        step: $\eta>0$.
        largest: $\lambda_{\max}(G)$ where the run starts, at least 0.

    Returns:
        The verdict; ``STABLE`` for a Gram of zero, which nothing moves.

    Raises:
        ArgumentError: for a step that is not positive, or an eigenvalue that is negative or not finite.

    Source:
        Lewkowycz et al. 2020, "The large learning rate phase of deep learning: the catapult mechanism", section 2.

    Example:
        >>> [str(step_verdict(eta, 2.0)) for eta in (0.5, 1.0, 1.9, 2.0)]
        ['stable', 'catapult', 'catapult', 'unstable']
    """
    _positive("step", step)
    if isinstance(largest, bool) or not isinstance(largest, int | float) or not (math.isfinite(largest) and largest >= 0):
        raise ArgumentError("largest", f"is {largest!r}", "pass the largest eigenvalue of the Gram, at least 0")
    size = step * largest
    return StepVerdict.STABLE if size < 2 else StepVerdict.CATAPULT if size < 2 * CATAPULT else StepVerdict.UNSTABLE


@dataclass(frozen=True)
class Edge:
    r"""A measured edge of stability.

    Args:
        step: the edge, the geometric middle of the bracket; 0 or infinite where none was found.
        bracket: the largest step seen to settle and the smallest seen to grow.
        predicted: $2/\lambda_{\max}(G)$ at the perturbed point.
        residual: the loss at the perturbed point relative to $\tfrac12\|y\|^2$, the loss of zero outputs (itself where y is zero).
        trials: how many runs it took.
    """

    step: float
    bracket: tuple[float, float]
    predicted: float
    residual: float
    trials: int

    @property
    def ratio(self) -> float:
        """The measured edge over the predicted one."""
        return self.step / self.predicted

    @property
    def found(self) -> bool:
        """Whether the edge lies within a factor of 64 of the prediction."""
        return 0 < self.step < math.inf


def stability_edge(
    module: nn.Module,
    data: Dataset,
    *,
    perturbation: float = 1e-4,
    steps: int | None = None,
    tolerance: float = 0.005,
    seed: int = 0,
) -> Edge:
    r"""Bisect for the step at which full-batch descent on the squared loss stops settling, from a slightly perturbed point.

    Every trial starts from the same point $\theta+\delta$, $\|\delta\|=\varepsilon\|\theta\|$ in a random direction, whose residual
    $J\delta$ leans to the top eigenvectors, and is told by the sign of $\log F_T-\log F_{T/2}$; a loss that has doubled since its lowest
    is told at once, as below the edge every direction shrinks. At a step a share x above the edge the residual along the top eigenvector
    is multiplied by $1+2x$ a step. So $T=2/\text{tolerance}$ steps, the default, multiply it by $e^2$ half a tolerance above the edge,
    which outgrows what the other directions still lose where it holds at least 7 % of the residual.

    The prediction is one for a small residual: with a large one the Gram moves during the trial, and the loss's curvature has a second
    part. A narrow ReLU network has a kink within every perturbation, and flattens as it crosses some: its edge lies a few per cent
    higher. Cost: 5 to 9 trials of at most T updates.

    Args:
        module: at its trained weights; it is left untouched, and a float64 copy is tried.
        data: what it was trained on.
        perturbation: $\varepsilon$, in (0, 1).
        steps: T, at least 2; None for $2/\text{tolerance}$.
        tolerance: the relative width of the final bracket, in (0, 1/2).
        seed: of the direction.

    Returns:
        The edge and its prediction.

    Raises:
        ArgumentError: for arguments out of range, a module that does not fit the data, or one whose Gram is zero.

    Source:
        THEORY 8, the edge of stability; Cohen et al. 2021 name it.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> edge = stability_edge(layer, Dataset([[1.0, 0.0], [0.0, 2.0]], [1.0, -1.0]))
        >>> round(edge.predicted, 6), 0.99 < edge.ratio < 1.01
        (0.5, True)
    """
    T = _checked(perturbation, steps, tolerance, seed)
    check_module(module, data)
    twin = copy.deepcopy(module).to(torch.float64)
    x, y = match(twin, data.x), match(twin, data.y)
    trained = [p for p in twin.parameters() if p.requires_grad]
    start = _perturbed(trained, perturbation, seed)
    largest = largest_eigenvalue(tangent_operator(twin, x))
    if not (math.isfinite(largest) and largest > 0):
        raise ArgumentError("module", f"has a Gram with largest eigenvalue {largest}", "check for dead units or NaN weights")
    weights, first = Weights(twin, x), []

    def grows(eta: float) -> bool:
        with torch.no_grad():
            for parameter, value in zip(trained, start, strict=True):
                parameter.copy_(value)
        losses: list[float] = []
        for _ in range(T + 1):
            done = weights.forward(x)
            gap = done.outputs.detach() - y
            losses.append(float(gap.square().sum()) / 2)
            if len(losses) == 1:
                first.append(losses[0])
            if not losses[-1] <= GROWN * min(losses):  # or it is NaN
                return True
            if losses[-1] <= GONE * losses[0]:
                return False
            weights.step(done, gap, eta)
        return losses[T] > losses[T // 2]

    predicted = 2 / largest
    low, high = _bracket(grows, predicted)
    while low > 0 and high < math.inf and high > low * (1 + tolerance):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if grows(middle) else (middle, high)
    scale = float(y.square().sum()) / 2
    return Edge(math.sqrt(low * high) if low > 0 else 0.0, (low, high), predicted, first[0] / (scale or 1.0), len(first))


def _bracket(grows: Callable[[float], bool], predicted: float) -> tuple[float, float]:
    """A step that settles and one that grows, as near to each other as the prediction is good; 0 or infinity where there is none."""
    low, high, reach = predicted / (1 + NEAR), predicted * (1 + NEAR), 1 + NEAR
    if grows(high):
        while grows(low):
            reach = reach**2
            if reach > FAR:
                return 0.0, low
            low, high = predicted / reach, low
        return low, high
    while True:
        reach = reach**2
        if reach > FAR:
            return high, math.inf
        low, high = high, predicted * reach
        if grows(high):
            return low, high


def _perturbed(trained: list[nn.Parameter], size: float, seed: int) -> list[torch.Tensor]:
    """Move the parameters by that share of their common norm in a random direction; returns where they are then."""
    generator = torch.Generator().manual_seed(seed)
    drawn = [torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.device) for p in trained]
    length, norm = (math.sqrt(sum(float(t.detach().square().sum()) for t in each)) for each in (drawn, trained))
    with torch.no_grad():
        for parameter, direction in zip(trained, drawn, strict=True):
            parameter.add_(direction, alpha=size * norm / length)
    return [p.detach().clone() for p in trained]


def _positive(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise ArgumentError(name, f"is {value!r}", "pass a positive number")


def _checked(perturbation: float, steps: int | None, tolerance: float, seed: int) -> int:
    """The arguments in their ranges; returns T."""
    for name, value, limit in (("perturbation", perturbation, 1.0), ("tolerance", tolerance, 0.5)):
        _positive(name, value)
        if value >= limit:
            raise ArgumentError(name, f"is {value!r}", f"pass a number below {limit}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise ArgumentError("seed", f"is {seed!r}", "pass a whole number of at least 0")
    if steps is None:
        return math.ceil(2 / tolerance)
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2:
        raise ArgumentError("steps", f"is {steps!r}", "pass a whole number of at least 2")
    return steps
