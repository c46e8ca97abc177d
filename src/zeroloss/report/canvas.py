"""One small figure: matplotlib's object interface in, an inline SVG string that follows the page's colour scheme out."""

from __future__ import annotations

import io
import math
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any
from xml.etree import ElementTree as ET

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator

from zeroloss.report.format import integer, power

POINTS = 400  # no drawn curve has more
SIZE = (4.6, 3.3)  # inches; a phone of 360 px shows it at about one point a pixel

DECADES = 200  # a logarithmic axis reaches so far up and down; scaling would overflow further out
LONGEST = 24  # characters of a legend's entry; the end of a layer's name tells more than its beginning

# Okabe and Ito's palette; the page's CSS has a lighter set for dark mode, under the same names
INK, GRID = "#333333", "#d4d4d4"
BLUE, VERMILION, GREEN, PURPLE, OCHRE = "#0072b2", "#d55e00", "#008463", "#a8507f", "#8f6a00"
_THEME = {
    INK: "currentColor",
    GRID: "var(--grid)",
    BLUE: "var(--blue)",
    VERMILION: "var(--vermilion)",
    GREEN: "var(--green)",
    PURPLE: "var(--purple)",
    OCHRE: "var(--ochre)",
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "zeroloss",
    "font.size": 11,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "lines.markersize": 3.5,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0.2,
    "path.simplify": False,
}


def draw(label: str, paint: Callable[[Axes], None]) -> str:
    """Draw one figure.

    Args:
        label: what a reader who cannot see the figure is told.
        paint: draws into the axes; labelled artists enter the legend above them.

    Returns:
        An ``<svg>`` element to be placed inside HTML: no namespace, no size, colours as CSS variables, everything escaped.

    Example:
        >>> draw("a <line>", lambda axes: axes.plot([0, 1], [0, 1]))[:60]
        '<svg viewBox="0 0 331.2 237.6" role="img" aria-label="a &lt;'
    """
    with matplotlib.style.context("default"), matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser draws the text, with its own fonts
        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.subplots()
        paint(axes)
        handles, labels = axes.get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper left", ncols=_columns(labels))
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None})
    return _inline(target.getvalue(), label)


def plain_label(text: str) -> str:
    r"""A label that matplotlib takes literally: no mathematics, no control characters, not hidden by a leading underscore, not long.

    Args:
        text: any text, from a user's file perhaps.

    Returns:
        The label.

    Example:
        >>> plain_label("_W$1")
        ' _W\\$1'
    """
    text = text if len(text) <= LONGEST else "…" + text[1 - LONGEST :]
    printable = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return (" " if printable.startswith("_") else "") + printable.replace("$", r"\$")


def thin(count: int, limit: int = POINTS) -> list[int]:
    """Indices that keep a curve's shape in at most ``limit`` points, both ends among them.

    Args:
        count: how many points there are.
        limit: how many may stay.

    Returns:
        Increasing indices.

    Example:
        >>> thin(3), thin(9, 3)
        ([0, 1, 2], [0, 4, 8])
    """
    if count <= limit:
        return list(range(count))
    return [round(i * (count - 1) / (limit - 1)) for i in range(limit)]


def drawable(value: float) -> bool:
    """Whether a logarithmic axis can show a value: finite and above zero.

    Example:
        >>> drawable(0.0), drawable(1e-300), drawable(float("nan"))
        (False, True, False)
    """
    return math.isfinite(value) and value > 0


def gaps(values: Iterable[float]) -> list[float]:
    """Values for a logarithmic axis, with NaN (a gap in the line) where it cannot show them, held within what can be scaled.

    Example:
        >>> gaps([1.0, -2.0])
        [1.0, nan]
    """
    return [min(max(value, 10.0**-DECADES), 10.0**DECADES) if drawable(value) else math.nan for value in values]


def log_axis(axes: Axes, which: str, values: Iterable[float]) -> None:
    """Make an axis logarithmic over the whole decades that hold some values.

    Args:
        axes: where.
        which: ``"x"`` or ``"y"``.
        values: what must fit; what is not drawable is passed over.
    """
    logs = [math.log10(value) for value in gaps(values) if drawable(value)] or [0.0]
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    if low >= high:
        low, high = (low - 1, low) if low >= DECADES else (low, low + 1)
    span = high - low
    marks = range(low, high + 1, max(1, math.ceil(span / 5)))
    getattr(axes, f"set_{which}scale")("log")
    margin = min(0.04 * span, 0.4)  # so that a line along the edge is seen whole
    getattr(axes, f"set_{which}lim")(10 ** (low - margin), 10 ** (high + margin))
    getattr(axes, f"set_{which}ticks")([10.0**e for e in marks], labels=[power(e) for e in marks])
    axis = getattr(axes, f"{which}axis")
    between = [k * 10.0**e for e in range(low, high) for k in range(2, 10)] if span <= 3 else []
    axis.set_minor_locator(FixedLocator(between))
    axis.set_minor_formatter(NullFormatter())


def count_axis(axes: Axes, last: int) -> None:
    """A linear x axis of whole numbers from 0 to ``last``."""
    margin = max(last, 1) * 0.02
    axes.set_xlim(-margin, max(last, 1) + margin)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: integer(round(value))))


def step_axis(axes: Axes, steps: Sequence[int]) -> None:
    """A logarithmic x axis of steps that has room for step 0 at its left."""
    last = max([1, *steps])
    decades = math.ceil(math.log10(last)) if last > 1 else 1
    axes.set_xscale("symlog", linthresh=1)
    axes.set_xlim(-0.15, last * 1.15)
    marks = [e for e in range(0, decades + 1, max(1, math.ceil(decades / 5))) if 10**e <= last * 1.15]
    axes.set_xticks([0, *(10**e for e in marks)], labels=["0", *("1" if e == 0 else power(e) for e in marks)])
    axes.xaxis.set_minor_locator(NullLocator())


def _columns(labels: Sequence[str]) -> int:
    """The most legend columns whose text, at its usual width, fits across the figure; matplotlib fills them one after the other."""
    for columns in range(len(labels), 1, -1):
        rows = math.ceil(len(labels) / columns)
        widths = [42 + 6.3 * max(map(len, labels[i : i + rows])) for i in range(0, len(labels), rows)]
        if sum(widths) <= 72 * SIZE[0]:
            return columns
    return 1


_REFERENCE = re.compile(r"#([\w-]+)\)?$")


def _inline(document: str, label: str) -> str:
    """Rewrite matplotlib's SVG file as an element for an HTML page."""
    root = ET.fromstring(document)
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update({"viewBox": box, "role": "img", "aria-label": label})
    own = f"f{zlib.crc32(label.encode('utf-8', 'replace')):08x}-"  # ids must differ from figure to figure of one page
    used = set()
    for parent in list(root.iter()):
        for child in list(parent):
            name = str(child.tag).rpartition("}")[2]
            if name in ("metadata", "style"):  # the first holds addresses of vocabularies, the second would style the whole page
                parent.remove(child)
    for element in root.iter():
        element.tag = str(element.tag).rpartition("}")[2]
        for key in [k for k in element.attrib if "}" in k]:
            element.set(key.rpartition("}")[2], element.attrib.pop(key))
        if "style" in element.attrib:
            element.set("style", _themed(element.attrib["style"]))
        for key in ("href", "clip-path"):
            if key in element.attrib and (found := _REFERENCE.search(element.attrib[key])):
                used.add(own + found[1])
                element.set(key, element.attrib[key].replace("#", "#" + own))
        if element.tag == "text":
            _lower_subscript(element)
        element.text = _unindented(element.text)
        element.tail = _unindented(element.tail)
    for element in root.iter():  # only what something points to keeps its id
        if (name := own + element.attrib.pop("id", "")) in used:
            element.set("id", name)
    return ET.tostring(root, encoding="unicode")


def _themed(style: str) -> str:
    for colour, name in _THEME.items():
        style = style.replace(colour, name)
    style = re.sub(r"font-family:[^;]*;?\s*", "", style)
    return re.sub(r"font:\s*([\d.]+px)[^;]*", r"font-size: \1", style)


def _unindented(text: str | None) -> str | None:
    return None if text is None or not text.strip() else text


def _lower_subscript(element: ET.Element) -> None:
    """Write λ_min as λ with a lowered min."""
    if element.text is None or not (parts := re.fullmatch(r"(.*?λ)_(min|max)(.*)", element.text)):
        return
    element.text = parts[1]
    low = ET.SubElement(element, "tspan", {"dy": "2.5", "style": "font-size: 75%"})
    low.text = parts[2]
    if parts[3]:
        rest = ET.SubElement(element, "tspan", {"dy": "-2.5"})
        rest.text = parts[3]
