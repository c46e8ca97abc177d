"""A results page under construction: its lines, the marks it is measured against, and how much time is left."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

NOTHING = "–"


@dataclass
class Page:
    """Markdown lines, printed as they come.

    Args:
        seconds: how long the measurements may take together.
    """

    seconds: float
    lines: list[str] = field(default_factory=list)
    marks: list[tuple[str, str, str, str]] = field(default_factory=list)
    started: float = field(default_factory=time.perf_counter)

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    @property
    def left(self) -> float:
        """Seconds until the page should be finished."""
        return self.seconds - self.spent

    def write(self, *lines: str) -> None:
        """Add a paragraph."""
        new = [*lines, ""]
        self.lines += new
        sys.stdout.write("\n".join(new) + "\n")
        sys.stdout.flush()

    def table(self, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Add a table; None is a dash.

        Args:
            header: names of the columns.
            rows: cells, made into text here.
        """
        made = ["| " + " | ".join(NOTHING if cell is None else str(cell) for cell in row) + " |" for row in rows]
        self.write("| " + " | ".join(header) + " |", "|---" * len(header) + "|", *made)

    def ask(self, what: str, measured: float | None, limit: float, *, at_least: bool = False, unit: str = "") -> None:
        """Hold a measurement against its mark.

        Args:
            what: in words.
            measured: the number, or None where it was not measured.
            limit: the mark.
            at_least: whether larger is better.
            unit: written after both numbers.
        """
        asked = f"{'≥' if at_least else '≤'} {limit:g}{unit}"
        if measured is None:
            self.marks.append((what, asked, "not measured", NOTHING))
            return
        met = measured >= limit if at_least else measured <= limit
        self.marks.append((what, asked, f"{measured:.3g}{unit}", "yes" if met else "**no**"))


def milliseconds(seconds: float | None) -> str | None:
    """Three digits of a time, in ms."""
    return None if seconds is None else f"{1e3 * seconds:.3g}" if seconds < 1 else f"{1e3 * seconds:.0f}"


def ratio(a: float | None, b: float | None) -> float | None:
    """a/b where both are known."""
    return None if a is None or b is None else a / b


def digits(value: float | None, form: str = ".2f") -> str | None:
    """A number as text, or None."""
    return None if value is None else format(value, form)
