"""The report's figures: each takes one part of a study's result and gives a panel, an SVG with the caption that says how to read it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes

from zeroloss.report.canvas import (
    BLUE,
    GREEN,
    INK,
    OCHRE,
    PURPLE,
    VERMILION,
    count_axis,
    draw,
    drawable,
    gaps,
    log_axis,
    plain_label,
    step_axis,
    thin,
)
from zeroloss.report.format import forecast_steps, integer, number, percent, plural
from zeroloss.study.result import DataSummary, NetworkResult
from zeroloss.training import Probe

LAYERS = 6  # at most so many layers are drawn in one figure
_COLOURS = (BLUE, VERMILION, GREEN, PURPLE, OCHRE)
_DASHES = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_MARKERS = "osD^vX"


@dataclass(frozen=True)
class Panel:
    """One figure of the page.

    Args:
        title: what it shows, in a few words.
        svg: the figure; empty where there is nothing to draw, which the caption then explains.
        caption: what to look at, with the symbols explained; HTML.
    """

    title: str
    svg: Markup
    caption: Markup


def nearest_figure(data: DataSummary) -> Panel:
    """Histogram of the distances from each row to its nearest other row."""
    title = "Distance to the nearest other row"
    nearest = [distance for distance in data.nearest if math.isfinite(distance)]
    if not nearest:
        return _empty(title, "With fewer than two rows there is no distance to show.")
    low, high = min(nearest), max(nearest)
    if high - low <= 1e-9 * high:  # all alike: one bar of some width
        low, high = low - 0.5 * (low or 1), high + 0.5 * (high or 1)
    bins = min(24, max(5, math.isqrt(len(nearest)) * 2))
    counts = [0] * bins
    for distance in nearest:
        counts[min(bins - 1, int((distance - low) / (high - low) * bins))] += 1
    edges = [low + (high - low) * i / bins for i in range(bins + 1)]

    def paint(axes: Axes) -> None:
        axes.stairs(counts, edges, fill=True, color=BLUE, alpha=0.85)
        if math.isfinite(data.separation):
            axes.axvline(data.separation, color=VERMILION, linestyle="--", label="δ, the separation")
        axes.set_xlabel("distance")
        axes.set_ylabel("rows")
        axes.grid(False, axis="x")

    label = f"Histogram of nearest-neighbour distances of {data.name}: {number(min(nearest))} to {number(max(nearest))}"
    caption = Markup(
        "How far each row is from its nearest other row. The dashed line is the separation <i>δ</i>, the least of them: the theory "
        "asks for <i>δ</i> &gt; 0, and a single close pair can slow the whole descent."
    )
    return Panel(title, Markup(draw(label, paint)), caption)


def spectrum_figure(network: NetworkResult) -> Panel:
    """Eigenvalues at infinite width beside those of the network as drawn."""
    title = "Spectrum of the Gram matrix"
    limit, finite = network.limit_spectrum, network.finite_spectrum
    hidden = sum(not drawable(value) for value in (*limit, *finite))
    left_out = f" {plural(hidden, 'value')} not above zero {'is' if hidden == 1 else 'are'} not shown." if hidden else ""
    if hidden == len(limit) + len(finite):
        return _empty(title, "There is no positive eigenvalue to show." + left_out)

    def paint(axes: Axes) -> None:
        for values, colour, dash, name, width in (
            (limit, BLUE, "-", "infinite width, Θ", 3.0),
            (finite, VERMILION, (0, (4, 2)), "this network, G(0)", 1.8),
        ):
            kept = thin(len(values))
            marker = "o" if len(values) < 3 else ""
            axes.plot([i + 1 for i in kept], gaps(values[i] for i in kept), color=colour, linestyle=dash, marker=marker)
            axes.lines[-1].set(label=name, linewidth=width, alpha=0.75 if name.startswith("inf") else 1)
        log_axis(axes, "y", (*limit, *finite))
        count_axis(axes, max(len(limit), len(finite)))
        axes.set_xlabel("index, smallest first")
        axes.set_ylabel("eigenvalue")

    label = f"Eigenvalues on {network.spec.name}, log scale: infinite width {_range(limit)}, this network at its start {_range(finite)}"
    caption = Markup(
        "<i>Θ</i>: the kernel of the infinitely wide network; <i>G</i>(0): the Gram matrix of this network’s output gradients before "
        "training. Where the two lines agree the width is large enough for the limit to speak for the network; the left end is "
        "<i>λ</i><sub>min</sub>, which sets the pace of the slowest direction. <i>G</i>(0) is off by {gap} in Frobenius norm.{left_out}"
    ).format(gap=percent(network.kernel_gap), left_out=left_out)
    return Panel(title, Markup(draw(label, paint)), caption)


def loss_figure(network: NetworkResult, until: float) -> Panel:
    """The loss as it fell, and as the initial Gram matrix said it would."""
    title = "Loss, measured and predicted"
    first = network.curve_loss[0] if network.curve_loss else math.nan
    if not drawable(first):
        return _empty(title, f"The first loss is {number(first)}, so there is no ratio to it to show.")
    kept = thin(len(network.curve_steps))
    steps = [network.curve_steps[i] for i in kept]
    measured = gaps(network.curve_loss[i] / first for i in kept)
    predicted = gaps(network.curve_predicted[i] / first for i in kept) if network.curve_predicted else []
    converged = network.status == "CONVERGED" and drawable(until)
    broken = sum(not math.isfinite(value) for value in network.curve_loss)

    def paint(axes: Axes) -> None:
        marker = "o" if sum(math.isfinite(value) for value in measured) < 3 else ""
        axes.plot(steps, measured, color=BLUE, linewidth=2.6, marker=marker, label="measured")
        if predicted:
            axes.plot(steps, predicted, color=VERMILION, linestyle=(0, (4, 2)), marker=marker, label="predicted")
        if converged:
            axes.axhline(*gaps([until]), color=INK, linestyle=(0, (1.5, 1.5)), linewidth=1.2, label="target")
        log_axis(axes, "y", (*measured, until) if converged else measured)  # a prediction that leaves this range leaves the frame
        count_axis(axes, max([*steps, 0]))
        axes.set_xlabel("step k")
        axes.set_ylabel("loss F(k) / F(0)")

    label = (
        f"Loss of {network.spec.name} over {plural(network.steps, 'step')}, log scale: it ended at {number(network.loss_ratio)} "
        f"of its first value; predicted steps to the target: {forecast_steps(network.forecast.steps)}"
    )
    caption = Markup(
        "<i>F</i>: half the sum of squared errors over the training rows. The dashed line is what gradient descent would do if the "
        "Gram matrix stood still at <i>G</i>(0): the closer the two, the more this network behaves like a fixed kernel.{broken}"
    ).format(
        broken=f" {plural(broken, 'recorded loss', 'recorded losses')} {'is' if broken == 1 else 'are'} infinite or not a number "
        "and not shown."
        if broken
        else ""
    )
    return Panel(title, Markup(draw(label, paint)), caption)


def drift_figure(network: NetworkResult) -> Panel:
    """How far weights and Gram matrix moved from where they started."""
    title = "How far things moved"
    probes = [probe for probe in network.probes if probe.step > 0]
    names = list(dict.fromkeys(name for probe in probes for name in probe.weight_drift))
    shown = [names[i] for i in thin(len(names), LAYERS)]
    series = [(_short(name, names), [p.weight_drift.get(name, math.nan) for p in probes]) for name in shown]
    gram = [probe.gram_drift for probe in probes]
    values = [value for _, drifts in series for value in drifts] + gram
    if not any(drawable(value) for value in values):
        return _empty(title, "No probe was taken after the first step, so no movement was measured.")
    steps = [probe.step for probe in probes]

    def paint(axes: Axes) -> None:
        for i, (name, drifts) in enumerate(series):
            style: dict[str, Any] = {"color": _COLOURS[i % 5], "linestyle": _DASHES[i % 4], "marker": _MARKERS[i % 6]}
            axes.plot(steps, gaps(drifts), label=plain_label(name), **style)
        axes.plot(steps, gaps(gram), color=INK, linestyle="--", marker="x", markersize=5, linewidth=1.4, label="G, relative")
        log_axis(axes, "x", [float(step) for step in steps])
        log_axis(axes, "y", values)
        axes.set_xlabel("step k")
        axes.set_ylabel("drift since step 0")

    last = probes[-1]
    label = (
        f"Drift of weights and Gram matrix of {network.spec.name}, log-log: at step {integer(last.step)} the largest layer drift is "
        f"{number(max(last.weight_drift.values(), default=None))} and the relative Gram drift {number(last.gram_drift)}"
    )
    caption = Markup(
        "One line a layer: ‖<i>W</i>(<i>k</i>) − <i>W</i>(0)‖<sub>2</sub>, the spectral norm of what training added to its weights; "
        "crosses: ‖<i>G</i>(<i>k</i>) − <i>G</i>(0)‖<sub>2</sub> / ‖<i>G</i>(0)‖<sub>2</sub>. The theory needs both to stay "
        "small. At step {step}, {signs} of hidden pre-activations had changed sign.{layers}"
    ).format(
        step=integer(last.step),
        signs=percent(last.sign_changes),
        layers=f" {LAYERS} of {len(names)} layers are drawn." if len(names) > LAYERS else "",
    )
    return Panel(title, Markup(draw(label, paint)), caption)


def _short(name: str, names: list[str]) -> str:
    """A layer's last name where no other layer has it, so that legends stay inside their figure: block2.W2.weight is W2."""
    full = name.removesuffix(".weight")
    last = full.rsplit(".", 1)[-1]
    return last if sum(other.removesuffix(".weight").rsplit(".", 1)[-1] == last for other in names) == 1 else full


def rayleigh_figure(network: NetworkResult) -> Panel:
    """The ends of the Gram matrix's spectrum along the run, and the Rayleigh quotient of the gradient between them."""
    title = "Gram matrix along the run"
    probes = network.probes
    steps = [probe.step for probe in probes]
    low, high = gaps(p.smallest for p in probes), gaps(p.largest for p in probes)
    middle = gaps(_rayleigh(probe) for probe in probes)
    hidden = sum(not drawable(probe.smallest) for probe in probes)
    if not any(drawable(value) for value in (*low, *middle, *high)):
        return _empty(title, "No probe of this run has a positive eigenvalue to show.")

    def paint(axes: Axes) -> None:
        axes.fill_between(steps, low, high, color=BLUE, alpha=0.1, linewidth=0)
        axes.plot(steps, high, color=BLUE, linestyle=(0, (5, 2)), marker="^", label="λ_max")
        axes.plot(steps, middle, color=VERMILION, marker="o", label="‖∇F‖²/2F")
        axes.plot(steps, low, color=GREEN, linestyle=(0, (1.5, 1.5)), marker="v", label="λ_min")
        step_axis(axes, steps)
        log_axis(axes, "y", (*low, *middle, *high))
        axes.set_xlabel("step k")
        axes.set_ylabel("eigenvalue of G(k)")

    ends = " to ".join(dict.fromkeys((number(probes[0].smallest), number(probes[-1].smallest))))
    label = (
        f"Smallest and largest eigenvalue of G(k) and the Rayleigh quotient between them for {network.spec.name}: smallest {ends}"
    )
    left_out = f" At {plural(hidden, 'probe')} <i>λ</i><sub>min</sub> is not above zero and not shown." if hidden else ""
    caption = Markup(
        "<i>G</i>(<i>k</i>): Gram matrix of output gradients at step <i>k</i>; <i>F</i>: the loss. ‖∇<i>F</i>‖²/2<i>F</i> sets the "
        "pace, since a step multiplies the loss by about 1 − 2<i>η</i> times it, and lies in the band from <i>λ</i><sub>min</sub> to "
        "<i>λ</i><sub>max</sub> where <i>G</i> covers all outputs. While the lower edge stays above zero, no step can stall before "
        "the loss is zero."
    ) + Markup(left_out)
    return Panel(title, Markup(draw(label, paint)), caption)


def network_figures(network: NetworkResult, until: float) -> tuple[Panel, ...]:
    """The four figures of one network.

    Args:
        network: one network of a study.
        until: the target loss, relative to the first.

    Returns:
        Spectrum, loss, drift, and the Gram matrix along the run.
    """
    return spectrum_figure(network), loss_figure(network, until), drift_figure(network), rayleigh_figure(network)


def _empty(title: str, reason: str) -> Panel:
    return Panel(title, Markup(""), Markup.escape(reason))


def _range(values: tuple[float, ...]) -> str:
    return f"from {number(values[0])} to {number(values[-1])}" if values else "not known"


def _rayleigh(probe: Probe) -> float:
    try:
        return probe.rayleigh
    except OverflowError:  # a float's square, of a run that diverged
        return math.inf
