"""Probes: the theory's quantities at one step of a run, measured in float64 whatever the run's own dtype."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn

from zeroloss.data import Dataset
from zeroloss.gram import layer_grams, match, rows_of, trace
from zeroloss.spectrum import extremes, spectral_norm
from zeroloss.training.linearised import linearise
from zeroloss.training.trajectory import Probe

FULL_GRAM = 2500  # up to this many rows n*k the Gram over all outputs is formed; beyond, its average over outputs


class Prober:
    """Measures a module against where it started; see :class:`zeroloss.training.Probe` for what.

    Args:
        module: the module at its initial weights.
        data: what it trains on.
        step: the step size, for forecasts.
        until: the target, relative to the first loss, for forecasts.
    """

    def __init__(self, module: nn.Module, data: Dataset, step: float, until: float) -> None:
        self._output = "full" if data.n * data.outputs <= FULL_GRAM else "mean"
        start = _double(module)
        self._x, self._y = match(start, data.x), match(start, data.y)
        self._weights = {name: p.detach().clone() for name, p in start.named_parameters() if p.requires_grad}
        self._gram, self._last = self._grams(start)
        self._gram_norm = extremes(self._gram).largest
        self._signs = _signs(start, self._x)
        self._step = step
        with torch.no_grad():
            self._target = until * 0.5 * float((rows_of(start(self._x), data.n) - self._y).square().sum())

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
        now = _double(module)
        trained = {name: p for name, p in now.named_parameters() if p.requires_grad}
        residual = rows_of(now(self._x), len(self._x)) - self._y
        each = 0.5 * residual.square().sum(dim=1)
        gradient = torch.autograd.grad(each.sum(), list(trained.values()))
        gram, last = self._grams(now)
        ends, last_ends = extremes(gram), extremes(last)
        moved = {name: trained[name].detach() - start for name, start in self._weights.items()}
        loss = float(each.detach().sum())
        left = linearise(gram, residual.detach()).steps_to(self._step, self._target / loss) if loss > 0 else 0
        return Probe(
            step=step,
            loss=loss,
            largest_loss=float(each.detach().max()),
            gradient_norm=float(torch.stack([g.square().sum() for g in gradient]).sum().sqrt()),
            smallest=ends.smallest,
            largest=ends.largest,
            gram_drift=_share(_norm(gram - self._gram), self._gram_norm),
            last_hidden_smallest=last_ends.smallest,
            last_hidden_drift=_norm(last - self._last),
            weight_drift={name: spectral_norm(_matrix(m)) for name, m in moved.items()},
            weight_drift_frobenius={name: float(m.norm()) for name, m in moved.items()},
            sign_changes=_changed(_signs(now, self._x), self._signs),
            whole=self._output == "full",
            forecast=None if left is None else step + left,
        )

    def _grams(self, module: nn.Module) -> tuple[Tensor, Tensor]:
        """The whole Gram, and the share of the last trained layer that is not the output layer."""
        parts = layer_grams(module, self._x, self._output)
        linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
        hidden = [name for name in parts if name != linear[-1]] or list(parts)
        return torch.stack(list(parts.values())).sum(dim=0), parts[hidden[-1]]


def _double(module: nn.Module) -> nn.Module:
    return copy.deepcopy(module).to(torch.float64)


def _matrix(parameter: Tensor) -> Tensor:
    return parameter.reshape(len(parameter), -1) if parameter.ndim > 1 else parameter[None]


def _share(part: float, whole: float) -> float:
    """A ratio that is 0 for nothing of nothing: a dead network's Gram is zero and stays so."""
    return part / whole if whole > 0 else (0.0 if part == 0 else math.inf)


def _norm(matrix: Tensor) -> float:
    ends = extremes(matrix)
    return max(abs(ends.smallest), abs(ends.largest))


def _signs(module: nn.Module, x: Tensor) -> list[Tensor]:
    _, calls = trace(module, x)
    return [call.outputs.detach() >= 0 for call in calls[:-1]]


def _changed(now: list[Tensor], before: list[Tensor]) -> float:
    total = sum(signs.numel() for signs in before)
    return sum(int((a != b).sum()) for a, b in zip(now, before, strict=True)) / total if total else 0.0
