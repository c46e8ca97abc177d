r"""The run that gradient descent would make if the Gram stood still, as a thing that can be asked for any step.

For the squared loss the residual decays mode by mode, $r_k = V(I-\eta\Lambda)^kV^\top r_0$, in closed form (DU section 3; THEORY 3.2);
for other losses the run is made in the space of outputs, $f_{k+1} = f_k - \eta G\nabla F(f_k)$, up to a budget.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.training import Linearised, Loss
from zeroloss.typing import Targets

SIMULATED = 3000  # steps of a run in the space of outputs
FAR = 2**40  # steps beyond which a forecast says never


@dataclass(frozen=True, eq=False)
class Modes:
    r"""A Gram's eigenvectors, with what rounding left of eigenvalues that are zero set to zero.

    Args:
        values: $\lambda_i\ge 0$, ascending.
        vectors: columns.
        floor: below it an eigenvalue counts as zero: N units of rounding of the largest.

    Example:
        >>> decompose(torch.diag(torch.tensor([2.0, 1e-18], dtype=torch.float64))).values
        tensor([0., 2.], dtype=torch.float64)
    """

    values: Float[Tensor, " N"]
    vectors: Float[Tensor, "N N"]
    floor: float

    @property
    def largest(self) -> float:
        r"""$\lambda_{\max}$."""
        return float(self.values[-1])

    @property
    def smallest(self) -> float:
        r"""$\lambda_{\min}$; 0 where it cannot be told from 0."""
        return float(self.values[0])

    @property
    def condition(self) -> float:
        r"""$\lambda_{\max}/\lambda_{\min}$."""
        return self.largest / self.smallest if self.smallest > 0 else math.inf

    def shares(self, signal: Tensor) -> Float[Tensor, " N"]:
        """The share of a signal's energy along every eigenvector; all 0 where there is no signal."""
        energy = (self.vectors.T @ signal.reshape(-1)) ** 2
        total = float(energy.sum())
        return energy / total if total > 0 else energy


def decompose(matrix: Float[Tensor, "N N"], scale: float = 1.0) -> Modes:
    """Eigenvalues and eigenvectors of a Gram.

    Args:
        matrix: symmetric, float64.
        scale: by which the eigenvalues are multiplied: n/m where m of n rows were sampled.

    Returns:
        Its modes.
    """
    values, vectors = torch.linalg.eigh(matrix)
    floor = 4 * len(matrix) * torch.finfo(torch.float64).eps * float(values[-1].clamp(min=0.0)) * scale
    values = values * scale
    return Modes(torch.where(values > floor, values, 0.0), vectors, floor)


@dataclass(frozen=True, eq=False)
class ClosedForm:
    r"""The forecast for the squared loss.

    Args:
        modes: of the Gram.
        residual: $r_0$, n×k.
        step: $\eta$.

    Example:
        >>> one = torch.eye(1, dtype=torch.float64)
        >>> run = ClosedForm(decompose(one), one, 0.5)
        >>> run.losses([0, 1]), run.steps_to(0.1), float(run.signal(2))
        ([0.5, 0.125], 2, 0.25)
    """

    modes: Modes
    residual: Targets
    step: float

    @cached_property
    def _coordinates(self) -> Tensor:
        return self.modes.vectors.T @ self.residual.reshape(-1)

    @cached_property
    def _linearised(self) -> Linearised:
        return Linearised(self.modes.values, self._coordinates**2, self.modes.vectors[:, [0, -1]])

    def losses(self, steps: Sequence[int]) -> list[float]:
        """The loss at some steps; NaN beyond where the forecast ends.

        Args:
            steps: any.

        Returns:
            One loss a step.
        """
        values: list[float] = (0.5 * self._linearised.norms(self.step, steps) ** 2).tolist()
        return values

    def steps_to(self, loss: float) -> int | None:
        """The first step at which the loss is at most this.

        Args:
            loss: the target.

        Returns:
            The step; None for never, or not within the forecast's budget.
        """
        start = 0.5 * float(self._linearised.weights.sum())
        stuck = 0.5 * float(self._linearised.weights[self.modes.values == 0].sum())
        if start <= loss:
            return 0
        if stuck > loss:
            return None
        found = self._linearised.steps_to(self.step, loss / start)
        return None if found is None or found > FAR else found

    def signal(self, step: int) -> Targets:
        """The loss's derivative in the outputs; the residual, for the squared loss.

        Args:
            step: when.

        Returns:
            It, n×k.
        """
        factors = (1 - self.step * self.modes.values) ** step
        return (self.modes.vectors @ (factors * self._coordinates)).reshape(self.residual.shape)

    def way(self, step: int) -> float:
        r"""How far the weights of the linearised network have come, up to a factor that is the same for every step.

        Args:
            step: when.

        Returns:
            $\|\theta_k-\theta_0\|=\big(\sum_i c_i^2(1-(1-\eta\lambda_i)^k)^2/\lambda_i\big)^{1/2}$ over positive eigenvalues.
        """
        moving = self.modes.values > 0
        values, coordinates = self.modes.values[moving], self._coordinates[moving]
        return float((coordinates * (1 - (1 - self.step * values) ** step)).square().div(values).sum().sqrt())


@dataclass(frozen=True, eq=False)
class Simulated:
    r"""The forecast for any loss.

    Args:
        gram: (nk)×(nk).
        outputs: $f_0$, n×k.
        targets: n×k.
        loss: which.
        step: $\eta$.
        budget: steps.

    Example:
        >>> from zeroloss.training import find_loss
        >>> one = torch.eye(1, dtype=torch.float64)
        >>> run = Simulated(one, 0 * one, one, find_loss("squared"), 0.5)
        >>> run.losses([0, 1]), run.steps_to(0.1), float(run.signal(2))
        ([0.5, 0.125], 2, -0.25)
    """

    gram: Float[Tensor, "N N"]
    outputs: Targets
    targets: Targets
    loss: Loss
    step: float
    budget: int = SIMULATED

    def _advance(self, outputs: Targets) -> Targets:
        slope = self.loss.gradient(outputs, self.targets).reshape(-1)
        return outputs - self.step * (self.gram @ slope).reshape(outputs.shape)

    @cached_property
    def _losses(self) -> list[float]:
        outputs, found = self.outputs, []
        for _ in range(self.budget + 1):
            found.append(float(self.loss.value(outputs, self.targets).sum()))
            if not math.isfinite(found[-1]) or found[-1] <= 1e-9 * found[0]:
                break
            outputs = self._advance(outputs)
        return found

    def losses(self, steps: Sequence[int]) -> list[float]:
        """The loss at some steps; NaN beyond where the forecast ends.

        Args:
            steps: any.

        Returns:
            One loss a step.
        """
        return [self._losses[k] if k < len(self._losses) else math.nan for k in steps]

    def steps_to(self, loss: float) -> int | None:
        """The first step at which the loss is at most this.

        Args:
            loss: the target.

        Returns:
            The step; None for never, or not within the forecast's budget.
        """
        return next((k for k, value in enumerate(self._losses) if value <= loss), None)

    def signal(self, step: int) -> Targets:
        """The loss's derivative in the outputs; the residual, for the squared loss.

        Args:
            step: when.

        Returns:
            It, n×k.
        """
        outputs = self.outputs
        for _ in range(min(step, len(self._losses) - 1)):
            outputs = self._advance(outputs)
        return self.loss.gradient(outputs, self.targets)

    def way(self, step: int) -> float:
        r"""How far the weights of the linearised network have come, up to a factor that is the same for every step.

        Args:
            step: when.

        Returns:
            $\|\theta_k-\theta_0\| = \eta\,(s^\top Gs)^{1/2}$, s the sum of the slopes until then.
        """
        outputs, pushed = self.outputs, torch.zeros_like(self.outputs)
        for _ in range(min(step, self.budget)):
            pushed += self.loss.gradient(outputs, self.targets)
            outputs = self._advance(outputs)
        flat = pushed.reshape(-1)
        return self.step * math.sqrt(max(float(flat @ (self.gram @ flat)), 0.0))


Forecast: TypeAlias = ClosedForm | Simulated  # a run with the Gram held still


def forecast_of(
    gram: Tensor, modes: Modes, outputs: Targets, targets: Targets, loss: Loss, step: float, scale: float
) -> Forecast:
    r"""The forecast that the loss allows for.

    Args:
        gram: (nk)×(nk), unscaled.
        modes: its eigenvectors, scaled.
        outputs: $f_0$.
        targets: y.
        loss: which.
        step: $\eta$.
        scale: of the modes.

    Returns:
        The closed form for the squared loss, else the run in the space of outputs.
    """
    if loss.name == "squared":
        return ClosedForm(modes, outputs - targets, step)
    return Simulated(gram, outputs, targets, loss, step * scale)
