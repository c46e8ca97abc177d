"""What is to be said of the forecast: steps, regime, spectrum, and what gradient descent waits for."""

from __future__ import annotations

import math
from collections.abc import Iterator

from zeroloss.doctor.finding import Finding, Severity, count, listed, percent
from zeroloss.doctor.modes import SIMULATED, Modes
from zeroloss.doctor.outlook import Decade
from zeroloss.doctor.slow import SlowDirection, SlowSample
from zeroloss.doctor.subject import Subject
from zeroloss.doctor.trial import LAZY_DRIFT, LAZY_MISS, Movement, Regime

STUCK = 1e-6  # of the residual's energy
SLOW = 1e5  # steps to a hundredth of the loss


def spectrum_findings(subject: Subject, modes: Modes, stuck: float, scale: float) -> Iterator[Finding]:
    """What is to be said of the Gram's spectrum.

    Args:
        subject: what is examined.
        modes: of its Gram.
        stuck: the share of the residual's energy where the Gram is zero, beyond what conflicting targets explain.
        scale: of the modes, n/m.

    Yields:
        Findings.
    """
    size, parameters = len(modes.values), subject.parameters
    if modes.largest == 0:
        yield Finding(
            Severity.CRITICAL,
            "Zero gradient",
            f"No trained parameter moves any output on any of {count(subject.sample.n, 'row')} (the Gram is zero): gradient "
            "descent stays where "
            "it is. Look for dead units, a head at zero behind another, or outputs cut off from the weights.",
            {"largest": 0.0},
        )
        return
    rank = int((modes.values > 0).sum())
    if parameters < size:
        yield Finding(
            Severity.SERIOUS,
            "Too few parameters",
            f"{count(parameters, 'trained parameter')} for {count(size, 'target number')}: the Gram has rank {rank} at most "
            f"{parameters}, so the "
            "theory of zero loss does not apply. Widen the network.",
            {"parameters": parameters, "targets": size, "rank": rank},
        )
    if stuck > STUCK:
        yield Finding(
            Severity.SERIOUS,
            "Out of reach",
            f"{percent(stuck)} of the loss lies where the Gram is zero to rounding (rank {rank} of {size}): with this Gram "
            "the loss stops there.",
            {"share": stuck, "rank": rank, "size": size},
        )
    least = f"{modes.smallest:.3g}" if modes.smallest > 0 else f"0 to rounding ({size - rank} of {size})"
    part = "" if scale == 1 else f", of {subject.sample.n:,} rows scaled to all"
    condition = f"{modes.condition:.3g}" if math.isfinite(modes.condition) else "infinite"
    yield Finding(
        Severity.INFO,
        "Spectrum",
        f"The Gram's eigenvalues run from λ_min = {least} to λ_max = {modes.largest:.3g} (condition {condition}{part}).",
        {"smallest": modes.smallest, "largest": modes.largest, "condition": modes.condition},
    )


def forecast_findings(subject: Subject, decades: tuple[Decade, ...], step: float, movement: Movement) -> Iterator[Finding]:
    """What is to be said of the steps it will take.

    Args:
        subject: what is examined.
        decades: the predictions.
        step: that they are made for.
        movement: the real steps.

    Yields:
        Findings.
    """
    bounded = subject.loss.name != "squared"
    never = f"not within {SIMULATED:,}" if bounded else "never"
    parts = []
    for decade in decades:
        head = f"{decade.ratio:.0e}".replace("e-0", "e-")
        if decade.steps is None:
            parts.append(f"{head} {never}")
            break
        high = "?" if decade.high is None else _steps(decade.high)
        ends = "" if decade.low == decade.high else f" [{_steps(decade.low or 0)} to {high}]"
        parts.append(f"{head} in {_steps(decade.steps)}{ends}")
    seen = sum(decade.steps is not None and decade.low == decade.high for decade in decades)
    exact = f" (the first {'was' if seen == 1 else f'{seen} were'} seen, not predicted)" if seen else ""
    how = (
        f"The intervals span the forecasts of the Gram at the start and after {count(movement.steps, 'real step')}, widened "
        "by their difference and the drift."
    )
    yield Finding(
        Severity.INFO,
        "Predicted steps",
        f"At step {step:.3g} the loss falls to these shares of its start: {'; '.join(parts)}{exact}. {how}",
        {f"{d.ratio:g}": float(d.steps) for d in decades if d.steps is not None},
    )
    hundredth = decades[1]
    if hundredth.steps is not None and hundredth.steps > SLOW and movement.regime is Regime.LAZY:
        yield Finding(
            Severity.SERIOUS,
            "Slow",
            f"A hundredth of the loss takes {hundredth.steps:,} steps ({hundredth.low:,} at least): centre and scale the "
            "data, or take another "
            "activation, momentum or a wider network.",
            {"steps": hundredth.steps},
        )


def regime_findings(movement: Movement, horizon: int) -> Iterator[Finding]:
    """What is to be said of the regime.

    Args:
        movement: the real steps.
        horizon: the step that ``movement.ahead`` looks ahead to.

    Yields:
        One finding.
    """
    if movement.regime is Regime.UNDETERMINED:
        yield Finding(
            Severity.NOTICE,
            "Regime",
            "No real step could be taken, so the regime is undetermined and nothing backs the forecast.",
        )
        return
    moved = (
        f"In {count(movement.steps, 'real step')} the Gram moved by {percent(movement.gram_drift)} and the weights by "
        f"{percent(movement.weight_drift)} while {percent(movement.gained)} of the residual went, "
        f"{movement.drift_per_gain:.3g} of the Gram per "
        f"residual; the initial Gram's forecast missed the fall in log loss by {percent(movement.miss)}; "
        f"by step {horizon:,} the Gram would move by {percent(movement.ahead)}, in proportion to the weights"
    )
    numbers = {
        "gram_drift": movement.gram_drift,
        "weight_drift": movement.weight_drift,
        "gained": movement.gained,
        "drift_per_gain": movement.drift_per_gain,
        "miss": movement.miss,
        "ahead": movement.ahead,
    }
    if movement.regime is Regime.LAZY:
        yield Finding(
            Severity.INFO,
            "Lazy regime",
            f"{moved}: the kernel nearly stands still, so far as these steps tell. Such forecasts mostly held within their intervals; "
            "where small directions move more than the whole, they did not.",
            numbers,
        )
    else:
        yield Finding(
            Severity.NOTICE,
            "Rich regime",
            f"{moved}: the features move (lazy is up to {LAZY_DRIFT} of the Gram per residual, and {percent(LAZY_DRIFT)} of it by "
            f"then, and a miss of {percent(LAZY_MISS)}), so the predicted steps cannot be trusted, within "
            "their intervals or not; a wider network would move less.",
            numbers,
        )


def slow_findings(directions: tuple[SlowDirection, ...], samples: tuple[SlowSample, ...], horizon: int) -> Iterator[Finding]:
    """What is to be said of what is slow.

    Args:
        directions: the slowest.
        samples: the slowest.
        horizon: the step at which they were compared.

    Yields:
        Findings.
    """
    if directions:
        parts = []
        for d in directions[:3]:
            pace = "never" if math.isinf(d.steps_per_decade) else f"{d.steps_per_decade:.3g} steps a decade"
            notes = [*([] if math.isnan(d.steps_per_decade) else [pace]), *([f"rows {listed(d.rows)}"] if d.rows else [])]
            parts.append(
                f"λ = {d.eigenvalue:.3g} with {percent(d.share)} of the residual at the start and {percent(d.remaining)} "
                + ("then (" + ", ".join(notes) + ")" if notes else "then")
            )
        yield Finding(
            Severity.INFO,
            "Slowest directions",
            f"At step {horizon:,} the loss waits for {'; '.join(parts)}.",
            {"eigenvalue": directions[0].eigenvalue, "remaining": directions[0].remaining, "horizon": horizon},
        )
    if samples:
        rows = ", ".join(f"{s.row} ({s.label}) {s.residual:.2g}" for s in samples)
        share = sum(s.share for s in samples)
        yield Finding(
            Severity.INFO,
            "Slowest samples",
            f"At step {horizon:,} these {count(len(samples), 'row')} are predicted to hold {percent(share)} of the loss; row "
            f"(label) residual: {rows}.",
            {"share": share, "horizon": horizon},
        )


def _steps(number: int) -> str:
    """A count of steps; of millions the size tells enough."""
    return f"{number:,}" if number < 10**6 else f"{number:.2g}".replace("e+", "e")
