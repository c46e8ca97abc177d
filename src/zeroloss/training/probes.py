"""Probes: the theory's quantities at one step of a run, measured in float64 whatever the run's own dtype."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from zeroloss.data import Dataset
from zeroloss.gram import Call, make_plan, match, trace, traced_grams
from zeroloss.spectrum import spectral_norm
from zeroloss.training.linearised import linearise
from zeroloss.training.losses import Loss
from zeroloss.training.trajectory import Probe

FULL_GRAM = 2500  # up to this many rows n*k the Gram over all outputs is formed; beyond, its average over outputs


class Prober:
    """Measures a module against where it started; see :class:`zeroloss.training.Probe` for what.

    Args:
        module: the module at its initial weights.
        data: what it trains on.
        loss: what it trains by.
        step: the step size, for forecasts.
        until: the target, relative to the first loss, for forecasts.
        forecasts: whether the run is plain full-batch descent on the squared loss, for which the forecast has a closed form.

    Attributes:
        ends: the eigenvectors of G's smallest and largest eigenvalue at the last probe, one a column.
    """

    def __init__(self, module: nn.Module, data: Dataset, loss: Loss, step: float, until: float, forecasts: bool = True) -> None:
        self._output = "full" if data.n * data.outputs <= FULL_GRAM else "mean"
        self._twin = copy.deepcopy(module).to(torch.float64)  # takes up the module's state at every probe
        self._x, self._y = match(self._twin, data.x), match(self._twin, data.y)
        self._trained = {name: p for name, p in self._twin.named_parameters() if p.requires_grad}
        self._weights = {name: p.detach().clone() for name, p in self._trained.items()}
        outputs, calls = trace(self._twin, self._x)
        self._gram, self._last = self._grams(outputs, calls)
        self._gram_norm = _norm(self._gram)
        self._signs = _signs(calls)
        self._loss, self._step, self._forecasts = loss, step, forecasts
        self.ends = torch.zeros(0, 2, dtype=torch.float64)
        self._target = until * float(loss.value(outputs.detach(), self._y).sum())

    @property
    def gram(self) -> Tensor:
        """G(0): (nk)×(nk), or n×n averaged over outputs where nk is above :data:`FULL_GRAM`."""
        return self._gram

    def measure(self, module: nn.Module, step: int) -> Probe:
        """Measure the module where it stands.

        Args:
            module: the module, at step k.
            step: k.

        Returns:
            The probe; the module is left as it was.
        """
        self._twin.load_state_dict(module.state_dict())
        outputs, calls = trace(self._twin, self._x)
        seen = outputs.detach()
        each, derivative = self._loss.value(seen, self._y), self._loss.gradient(seen, self._y)
        gram, last = self._grams(outputs, calls)
        gradient_norm = self._gradient_norm(outputs, derivative)
        linear = linearise(gram, seen - self._y)  # its decomposition gives the ends of the spectrum too
        self.ends = linear.ends
        moved = {name: _norms(self._trained[name].detach() - start) for name, start in self._weights.items()}
        loss = float(each.sum())
        left = None
        if self._forecasts:
            left = linear.steps_to(self._step, self._target / loss) if loss > 0 else 0
        return Probe(
            step=step,
            loss=loss,
            largest_loss=float(each.max()),
            gradient_norm=gradient_norm,
            smallest=float(linear.eigenvalues[0]),
            largest=float(linear.eigenvalues[-1]),
            gram_drift=_share(_norm(gram - self._gram), self._gram_norm),
            last_hidden_smallest=float(torch.linalg.eigvalsh(last)[0]),
            last_hidden_drift=_norm(last - self._last),
            weight_drift={name: spectral for name, (spectral, _) in moved.items()},
            weight_drift_frobenius={name: frobenius for name, (_, frobenius) in moved.items()},
            sign_changes=_changed(_signs(calls), self._signs),
            whole=self._output == "full",
            forecast=None if left is None else step + left,
            output_gradient_norm=float(derivative.norm()),
        )

    def _gradient_norm(self, outputs: Tensor, derivative: Tensor) -> float:
        gradient = torch.autograd.grad(outputs, list(self._trained.values()), derivative, allow_unused=True)
        return math.sqrt(sum(float(g.norm()) ** 2 for g in gradient if g is not None))

    def _grams(self, outputs: Tensor, calls: list[Call]) -> tuple[Tensor, Tensor]:
        """The whole Gram, and the share of the last trained layer that is not the output layer."""
        parts = traced_grams(self._twin, make_plan(self._twin, self._x), self._x, outputs, calls, self._output)
        linear = list(dict.fromkeys(call.name for call in calls if call.linear))
        hidden = [name for name in linear[:-1] if name in parts] or list(parts)
        return torch.stack(list(parts.values())).sum(dim=0), parts[hidden[-1]]


def _norms(parameter: Tensor) -> tuple[float, float]:
    """The spectral and the Frobenius norm, at once: no two differences of the size of a layer need be there together."""
    matrix = parameter.reshape(len(parameter), -1) if parameter.ndim > 1 else parameter[None]
    return spectral_norm(matrix), float(matrix.norm())


def _share(part: float, whole: float) -> float:
    """A ratio that is 0 for nothing of nothing: a dead network's Gram is zero and stays so."""
    return part / whole if whole > 0 else (0.0 if part == 0 else math.inf)


def _norm(matrix: Tensor) -> float:
    return float(torch.linalg.eigvalsh(matrix).abs().max())


def _signs(calls: list[Call]) -> list[Tensor]:
    return [call.outputs.detach() >= 0 for call in [call for call in calls if call.linear][:-1]]


def _changed(now: list[Tensor], before: list[Tensor]) -> float:
    total = sum(signs.numel() for signs in before)
    return sum(int((a != b).sum()) for a, b in zip(now, before, strict=True)) / total if total else 0.0
