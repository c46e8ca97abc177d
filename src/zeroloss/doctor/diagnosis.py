"""The result of an examination, and its page of plain sentences."""

from __future__ import annotations

from dataclasses import dataclass

from zeroloss.data.duplicates import Conflict
from zeroloss.doctor.finding import Finding, Severity, count
from zeroloss.doctor.layers import LayerHealth, Saturation
from zeroloss.doctor.outlook import Curve, Decade
from zeroloss.doctor.slow import SlowDirection, SlowSample
from zeroloss.doctor.trial import Movement, Regime
from zeroloss.doctor.width import WidthAdvice
from zeroloss.training import StepVerdict


@dataclass(frozen=True)
class Diagnosis:
    r"""What is known of a run before it is made.

    Args:
        name: of the data.
        module: the module's class.
        loss: the loss's name.
        rows: n.
        outputs: k.
        measured: how many rows were measured.
        parameters: how many numbers are trained.
        first_loss: the summed loss at the weights as they are, over the rows measured, scaled to all rows.
        stable_step: $2/(s\lambda_{\max})$ for the summed loss, s its smoothness (1 for the squared loss); infinite where the Gram is zero.
        recommended_step: the step to take; None where there is none.
        step: the user's own, or None.
        verdict: on it, or None.
        largest: $\lambda_{\max}$ over all rows.
        smallest: $\lambda_{\min}$ of the rows measured, scaled; 0 where it cannot be told from 0.
        condition: their ratio.
        forecast_step: the step that predictions are made for: the user's where it is stable, else the recommended one.
        decades: the predictions to each decade of loss, with intervals.
        horizon: the step at which the slowest directions and samples are compared.
        directions: the slowest directions.
        samples: the slowest samples, with labels.
        conflicts: identical rows with different targets.
        loss_floor: what they make unreachable, for the squared loss.
        duplicates: groups of identical rows.
        separation: the distance of the nearest two rows.
        regime: lazy, rich or undetermined.
        movement: the real steps behind that.
        layers: the health of each.
        saturations: of bounded activations.
        width: advice, or None.
        eigenvalues: of the Gram of the rows measured, scaled, ascending.
        energy: the share of the residual along each eigenvector.
        curve: the predicted loss.
        findings: all there is to say, the most serious first.
    """

    name: str
    module: str
    loss: str
    rows: int
    outputs: int
    measured: int
    parameters: int
    first_loss: float
    stable_step: float
    recommended_step: float | None
    step: float | None
    verdict: StepVerdict | None
    largest: float
    smallest: float
    condition: float
    forecast_step: float | None
    decades: tuple[Decade, ...]
    horizon: int
    directions: tuple[SlowDirection, ...]
    samples: tuple[SlowSample, ...]
    conflicts: tuple[Conflict, ...]
    loss_floor: float
    duplicates: tuple[tuple[int, ...], ...]
    separation: float
    regime: Regime
    movement: Movement
    layers: tuple[LayerHealth, ...]
    saturations: tuple[Saturation, ...]
    width: WidthAdvice | None
    eigenvalues: tuple[float, ...]
    energy: tuple[float, ...]
    curve: Curve
    findings: tuple[Finding, ...]

    @property
    def predicted_steps(self) -> dict[float, int | None]:
        """Steps until the loss is 1e-1, ..., 1e-8 times its start; None for never, or beyond what the forecast reaches."""
        return {decade.ratio: decade.steps for decade in self.decades}

    @property
    def step_intervals(self) -> dict[float, tuple[int | None, int | None]]:
        """The interval of each prediction (:func:`zeroloss.doctor.outlook.decades`); None for an end that is not known."""
        return {decade.ratio: (decade.low, decade.high) for decade in self.decades}

    @property
    def slowest_samples(self) -> tuple[int, ...]:
        """The rows fitted last, the slowest first."""
        return tuple(sample.row for sample in self.samples)

    @property
    def headline(self) -> str:
        """The examination in one line."""
        grave = [f.title for f in self.findings if f.severity in (Severity.CRITICAL, Severity.SERIOUS)]
        if grave:
            return f"{count(len(grave), 'thing')} to mend: {'; '.join(dict.fromkeys(grave))}"
        rich = any(f.title == "Rich regime" for f in self.findings)
        return "Nothing to mend was found" + (", and its run cannot be foretold: the features move" if rich else "")

    @property
    def text(self) -> str:
        """One page of plain sentences, the most serious first, each with the number behind it."""
        of = "" if self.measured == self.rows else f", {self.measured:,} of them measured"
        lines = [
            f"{self.headline}.",
            f"{self.module} with {count(self.parameters, 'trained parameter')} on {self.name}: {count(self.rows, 'row')}{of}, "
            f"{count(self.outputs, 'output')}, {self.loss} loss, {self.first_loss:.3g} at the start.",
            "",
        ]
        grave = [f for f in self.findings if f.severity is not Severity.INFO]
        lines += [f"{f.severity:<8}  {f.title}: {f.sentence}" for f in grave]
        if grave:
            lines.append("")
        lines += [f"{f.title}: {f.sentence}" for f in self.findings if f.severity is Severity.INFO]
        return "\n".join(lines) + "\n"

    def __str__(self) -> str:
        return self.text
