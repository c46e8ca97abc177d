"""The theory's quantities along a training loop that somebody else runs."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zeroloss.callbacks.record_file import read_record, write_record
from zeroloss.callbacks.rows import Inputs, Packed, as_targets, inputs_and_targets
from zeroloss.callbacks.untouched import twin_of, untouched, unwrap
from zeroloss.data import Dataset
from zeroloss.errors import ArgumentError, FileError
from zeroloss.gram import forward
from zeroloss.training import Loss, Probe, Prober, find_loss
from zeroloss.training.targets import check_targets


class Recorder:
    r"""Records probes of a module while its user trains it, and leaves that training as it was to the bit.

    At every due step the weights are read into a float64 copy in evaluation mode, and a :class:`zeroloss.Probe` of it is taken on a few
    fixed rows: the loss summed over them, both ends of the spectrum of the Gram $G(k)$ over their outputs, the drift
    $\|G(k)-G(0)\|_2/\|G(0)\|_2$, the weights' movement, and the share of hidden units whose sign changed, all against where the module
    stood when the recorder was made. Random generators, modes, gradients, buffers and hooks of the user's are not touched.

    A probe costs a Gram and an eigendecomposition of its rows (nk)×(nk); :attr:`share` says how much of the time went there. Memory is
    about five times that of float32 weights. Parameters that are frozen when the recorder is made are left out throughout.

    Args:
        module: what is trained; wrappers of ``torch.compile`` and data-parallel training are seen through.
        data: a :class:`zeroloss.Dataset`, or (inputs, targets): inputs are a tensor with a sample a row, or such tensors by keyword;
            targets are n×k numbers, or class numbers.
        every: a probe at each multiple of this number of steps, or at these steps.
        loss: a name in :data:`zeroloss.training.LOSSES`, or a loss.
        rows: how many samples to probe, evenly spaced among the data.

    Raises:
        ArgumentError: for arguments out of range, data that the module or the loss does not take, and modules without a tangent kernel.

    Example:
        >>> net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
        >>> x, y = torch.eye(2), torch.tensor([1.0, -1.0])
        >>> recorder, optimizer = Recorder(net, (x, y), every=5), torch.optim.SGD(net.parameters(), lr=0.1)
        >>> for step in range(11):
        ...     _ = recorder(step)
        ...     optimizer.zero_grad()
        ...     (0.5 * (net(x)[:, 0] - y).square().sum()).backward()
        ...     optimizer.step()
        >>> [probe.step for probe in recorder.probes], recorder.probes[-1].loss < recorder.probes[0].loss
        ([0, 5, 10], True)
    """

    def __init__(
        self,
        module: nn.Module,
        data: Dataset | tuple[Inputs, Tensor],
        every: int | Iterable[int] = 100,
        *,
        loss: str | Loss = "squared",
        rows: int = 32,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ArgumentError("module", f"is {type(module).__name__}", "pass an nn.Module")
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < 1:
            raise ArgumentError("rows", f"is {rows!r}", "pass a whole number of at least 1")
        self._every = _schedule(every)
        self._loss = find_loss(loss)
        started = time.perf_counter()
        x, targets, fields = inputs_and_targets(data, rows)
        self._live = Packed(unwrap(module), fields)
        with untouched():
            twin = twin_of(self._live)
            with torch.no_grad():
                outputs = forward(twin, x)
            self._data = Dataset(x, as_targets(targets, outputs.shape[1]))
            check_targets(self._loss.name, self._loss.targets, self._data.y)
            self._prober = self._new_prober(twin)
            self._start = {name: value.detach().cpu().clone() for name, value in _tensors(self._live).items()}
        self._mark = _mark(self._data, self._loss, self._live)
        self._taken: list[Probe] = []
        self._seconds, self._before, self._made = time.perf_counter() - started, 0.0, started
        self._diverged: int | None = None

    def __call__(self, step: int) -> Probe | None:
        """Take a probe where one is due.

        Probes of this and later steps that an interrupted run had left behind give way; a step that was just recorded is not repeated.

        Args:
            step: k, the number of updates so far.

        Returns:
            The probe; None where none is due, and where weights or outputs have become infinite or NaN (:attr:`diverged`).
        """
        if isinstance(step, bool) or not isinstance(step, int) or step < 0:
            raise ArgumentError("step", f"is {step!r}", "pass the number of updates so far, at least 0")
        while self._taken and self._taken[-1].step > step:
            self._taken.pop()
        if self._diverged is not None and self._diverged > step:
            self._diverged = None
        if not self._due(step) or self._diverged is not None:
            return None
        if self._taken and self._taken[-1].step == step:
            return self._taken[-1]
        started = time.perf_counter()
        with untouched():
            probe = self._measure(step)
        if probe is None:
            self._diverged = step
        else:
            self._taken.append(probe)
        self._seconds += time.perf_counter() - started
        return probe

    @property
    def probes(self) -> tuple[Probe, ...]:
        """The probes so far, in the order of their steps."""
        return tuple(self._taken)

    @property
    def diverged(self) -> int | None:
        """The first due step at which weights or outputs were infinite or NaN; nothing is recorded from there on."""
        return self._diverged

    @property
    def seconds(self) -> float:
        """Wall-clock time spent on recording."""
        return self._seconds

    @property
    def share(self) -> float:
        """The share of the wall-clock time since the recorder was made that went into recording; interruptions not counted."""
        return min(1.0, self._seconds / max(self._elapsed, 1e-9))

    def table(self) -> str:
        r"""The probes as text, one a line, and what they cost.

        The column ``2/λ_max`` is the largest stable step of gradient descent on the summed squared loss of the probe rows.
        """
        header = ("step", "loss", "λ_min", "λ_max", "2/λ_max", "drift of G", "signs changed")
        lines: list[tuple[str, ...]] = [header]
        for p in self._taken:
            stable = 2 / p.largest if p.largest > 0 else math.inf
            numbers = (p.loss, p.smallest, p.largest, stable, p.gram_drift, p.sign_changes)
            lines.append((str(p.step), *(f"{value:.3g}" for value in numbers)))
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        text = ["  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines]
        if self._diverged is not None:
            text.append(f"step {self._diverged}: weights or outputs are infinite or NaN; nothing was recorded from there on")
        cost = f"{self._seconds:.2g} s, {100 * self.share:.2g} % of the time"
        text.append(f"{len(self._taken)} probes of {self._data.n} rows: {cost}")
        return "\n".join(text)

    def state_dict(self) -> dict[str, Any]:
        """Everything that a later recorder of the same module and data needs to go on: plain values and tensors."""
        return {
            "mark": self._mark,
            "probes": [asdict(probe) for probe in self._taken],
            "seconds": self._seconds,
            "elapsed": self._elapsed,
            "diverged": self._diverged,
            "start": self._start,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what an earlier recorder recorded: its probes, and drift measured from where it started.

        Args:
            state: of :meth:`state_dict`.

        Raises:
            ArgumentError: where it belongs to other data, another loss or another module.
        """
        if state["mark"] != self._mark:
            raise ArgumentError("state", "belongs to other data, another loss or another module", "make the recorder as it was")
        started = time.perf_counter()
        with untouched():
            twin = twin_of(self._live)
            twin.load_state_dict({**twin.state_dict(), **state["start"]})
            self._prober = self._new_prober(twin)
        self._start = dict(state["start"])
        self._taken = [Probe(**probe) for probe in state["probes"]]
        self._diverged = state["diverged"]
        self._before, self._made = float(state["elapsed"]), started
        self._seconds = float(state["seconds"]) + time.perf_counter() - started

    def save(self, path: str | Path) -> None:
        """Write the probes as JSON lines, after a header line, and the weights at the start beside them (``path + ".start"``).

        Args:
            path: the file; its folder is made.
        """
        write_record(Path(path), self.state_dict())

    def load(self, path: str | Path) -> None:
        """Go on with what :meth:`save` wrote; see :meth:`load_state_dict`.

        Args:
            path: the file.

        Raises:
            FileError: where it is missing, damaged, or belongs to other data, another loss or another module.
        """
        state = read_record(Path(path))
        try:
            self.load_state_dict(state)
        except ArgumentError as error:
            raise FileError(path, error.seen, error.remedy) from error

    @property
    def _elapsed(self) -> float:
        return self._before + time.perf_counter() - self._made

    def _new_prober(self, twin: nn.Module) -> Prober:
        return Prober(twin, self._data, self._loss, 1.0, 1e-8, forecasts=False)

    def _due(self, step: int) -> bool:
        return step % self._every == 0 if isinstance(self._every, int) else step in self._every

    def _measure(self, step: int) -> Probe | None:
        if not all(bool(torch.isfinite(value).all()) for value in _tensors(self._live).values() if value.is_floating_point()):
            return None
        try:
            probe = self._prober.measure(self._live, step)
        except ArgumentError as error:
            if "NaN" in error.seen:  # outputs or their derivatives overflowed, though every weight is finite
                return None
            raise
        if not math.isfinite(probe.loss):
            return None
        spectral, frobenius = _own_names(probe.weight_drift), _own_names(probe.weight_drift_frobenius)
        return replace(probe, weight_drift=spectral, weight_drift_frobenius=frobenius)


def _schedule(every: int | Iterable[int]) -> int | frozenset[int]:
    if isinstance(every, int) and not isinstance(every, bool) and every >= 1:
        return every
    if isinstance(every, Iterable):
        steps = frozenset(every)
        if steps and all(isinstance(k, int) and not isinstance(k, bool) and k >= 0 for k in steps):
            return steps
    raise ArgumentError("every", f"is {every!r}", "pass a number of steps of at least 1, or the steps themselves")


def _own_names(moved: dict[str, float]) -> dict[str, float]:
    """Of the parameters, as the user's module names them."""
    return {name.removeprefix("module."): value for name, value in moved.items()}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}


def _mark(data: Dataset, loss: Loss, module: nn.Module) -> str:
    """A hash of what must be the same for two recordings to be of one run."""
    shapes = [(name, tuple(value.shape)) for name, value in _tensors(module).items()]
    digest = hashlib.sha256(repr((loss.name, shapes, tuple(data.x.shape), tuple(data.y.shape))).encode())
    for values in (data.x, data.y):
        digest.update(values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
