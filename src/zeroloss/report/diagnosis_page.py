"""The diagnosis as one HTML file that needs nothing else: its sentences, and the pictures behind them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes

from zeroloss.data import Dataset
from zeroloss.doctor import Diagnosis, Severity
from zeroloss.errors import FileError
from zeroloss.report import format as text
from zeroloss.report.canvas import BLUE, GREEN, VERMILION, draw, drawable, gaps, log_axis, step_axis
from zeroloss.report.figures import Panel
from zeroloss.report.picture import data_url
from zeroloss.training import replace_file

# the page's three strong colours are those of a study's statuses
_CHIPS = {
    Severity.CRITICAL: "diverged",
    Severity.SERIOUS: "max-steps",
    Severity.NOTICE: "not-applicable",
    Severity.INFO: "not-applicable",
}


@dataclass(frozen=True)
class Thumbnail:
    """One slow sample.

    Args:
        row: its number.
        label: its class or target.
        residual: predicted.
        share: of the loss.
        url: its picture; empty where it is no image.
    """

    row: int
    label: str
    residual: float
    share: float
    url: str


def write_diagnosis(diagnosis: Diagnosis, data: Dataset, folder: Path | str) -> Path:
    """Write ``diagnosis.html`` into a folder, all of it or none; the same diagnosis gives the same bytes.

    Args:
        diagnosis: what to show.
        data: what it was made of, for the pictures of samples.
        folder: where, made where it is missing.

    Returns:
        The file.

    Raises:
        FileError: where it cannot be written.
    """
    path = Path(folder) / "diagnosis.html"
    try:
        replace_file(path, render_diagnosis(diagnosis, data).encode("utf-8", "replace"))
    except OSError as error:
        raise FileError(path, f"cannot be written ({error.strerror})", "name a folder that you may write to") from error
    return path


def render_diagnosis(diagnosis: Diagnosis, data: Dataset) -> str:
    """The page as text.

    Args:
        diagnosis: what to show.
        data: what it was made of.

    Returns:
        A whole HTML document.
    """
    room = files("zeroloss.report")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(
        number=text.number, integer=text.integer, percent=text.percent, plural=text.plural, forecast=text.forecast_steps
    )
    template = environment.from_string(room.joinpath("diagnosis.html").read_text(encoding="utf-8"))
    return template.render(
        d=diagnosis,
        style=Markup(room.joinpath("style.css").read_text(encoding="utf-8")),
        chips=_CHIPS,
        grave=[f for f in diagnosis.findings if f.severity is not Severity.INFO],
        rest=[f for f in diagnosis.findings if f.severity is Severity.INFO],
        panels=[loss_panel(diagnosis), spectrum_panel(diagnosis)],
        thumbnails=thumbnails(diagnosis, data),
    )


def thumbnails(diagnosis: Diagnosis, data: Dataset) -> list[Thumbnail]:
    """The slowest samples, with their pictures where the data are images.

    Args:
        diagnosis: which.
        data: their inputs.

    Returns:
        One a sample.
    """
    images = data.as_images().x if data.image_shape is not None else None
    return [
        Thumbnail(s.row, s.label, s.residual, s.share, "" if images is None else data_url(images[s.row]))
        for s in diagnosis.samples
    ]


def loss_panel(diagnosis: Diagnosis) -> Panel:
    """The predicted loss, with the interval of every decade."""
    title, curve = "Predicted loss", diagnosis.curve
    values = [v for v in (*curve.start, *curve.anchored) if drawable(v)]
    if not values or len(curve.steps) < 2:
        return Panel(title, Markup(""), Markup("The loss has nowhere to fall from, or no gradient to fall by."))
    low = 1e-9
    bars = [(d.ratio, d.low, d.high) for d in diagnosis.decades if d.low is not None and d.high is not None]
    last = max([*curve.steps, *(high for *_, high in bars)])

    def paint(axes: Axes) -> None:
        axes.plot(curve.steps, gaps(v if v >= low else math.nan for v in curve.start), color=BLUE, linestyle=(0, (4, 2)))
        axes.lines[-1].set_label("Gram at the start")
        axes.plot(
            curve.steps, gaps(v if v >= low else math.nan for v in curve.anchored), color=VERMILION, label="after real steps"
        )
        if curve.real:
            axes.plot(range(len(curve.real)), gaps(curve.real), color=GREEN, linestyle="", marker="o", label="real steps")
        for ratio, left, right in bars:
            axes.plot([left, right], [ratio] * 2, color=VERMILION, linewidth=5, alpha=0.3, solid_capstyle="butt")
        log_axis(axes, "y", [1.0, *(v for v in values if v >= low)])
        step_axis(axes, [last])
        axes.set_xlabel("step")
        axes.set_ylabel("loss / first loss")

    hundredth = diagnosis.decades[1]
    label = f"Predicted loss over steps, log scale; a hundredth of it is reached at step {text.forecast_steps(hundredth.steps)}"
    caption = Markup(
        "The loss relative to its start, by the Gram matrix as it is and by the one after {steps}. Each bar spans the "
        "interval of one decade: "
        "both forecasts, widened by their difference and by the Gram’s drift. The regime is <b>{regime}</b>{trust}."
    ).format(
        steps=text.plural(diagnosis.movement.steps, "real step"),
        regime=diagnosis.regime.value,
        trust="" if diagnosis.regime.value == "lazy" else ", so neither curve can be trusted far",
    )
    return Panel(title, Markup(draw(label, paint)), caption)


def spectrum_panel(diagnosis: Diagnosis) -> Panel:
    """Every eigenvalue with the share of the residual that waits for it."""
    title = "Spectrum and residual"
    pairs = [(v, e) for v, e in zip(diagnosis.eigenvalues, diagnosis.energy, strict=True) if drawable(v) and e > 1e-12]
    if not pairs:
        return Panel(title, Markup(""), Markup("There is no residual along any positive eigenvalue."))
    stuck = sum(e for v, e in zip(diagnosis.eigenvalues, diagnosis.energy, strict=True) if not drawable(v))
    slow = {direction.eigenvalue for direction in diagnosis.directions}

    def paint(axes: Axes) -> None:
        for some, colour, name in ((False, BLUE, "directions"), (True, VERMILION, "the slowest")):
            part = [(v, e) for v, e in pairs if (v in slow) is some]
            if part:
                axes.plot([v for v, _ in part], [e for _, e in part], color=colour, linestyle="", marker="o", label=name)
        log_axis(axes, "x", [v for v, _ in pairs])
        log_axis(axes, "y", [e for _, e in pairs])
        axes.set_xlabel("eigenvalue of the Gram")
        axes.set_ylabel("share of the residual")

    label = f"Share of the residual along each of {len(pairs)} eigenvectors over its eigenvalue, log scales"
    caption = Markup(
        "Each point is one eigenvector of the Gram matrix: how fast it is fitted (its eigenvalue, the right end is fastest) "
        "and how much of "
        "the residual lies along it. Points high up at the left hold the loss up.{stuck}"
    ).format(stuck=f" {text.percent(stuck)} of the residual lies where the eigenvalue is zero." if stuck > 1e-9 else "")
    return Panel(title, Markup(draw(label, paint)), caption)
