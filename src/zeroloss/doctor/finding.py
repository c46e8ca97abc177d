"""A finding: one thing that is worth saying about a run before it is made, with the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

SHOWN = 6  # rows or names that a sentence lists


class Severity(StrEnum):
    """How much a finding matters; the order is the one in which findings are told."""

    CRITICAL = "CRITICAL"  # zero loss is out of reach, or the run diverges, unless this is changed
    SERIOUS = "SERIOUS"  # the run is slowed or misled
    NOTICE = "NOTICE"  # worth knowing, and how far to trust the rest
    INFO = "INFO"  # what was measured

    @property
    def rank(self) -> int:
        """0 for the most serious.

        Example:
            >>> Severity.CRITICAL.rank, Severity.INFO.rank
            (0, 3)
        """
        return list(Severity).index(self)


@dataclass(frozen=True)
class Finding:
    """One finding.

    Args:
        severity: how much it matters.
        title: two or three words.
        sentence: what was found, with its numbers, and what to do.
        numbers: the numbers of the sentence by name, unrounded.

    Example:
        >>> Finding(Severity.INFO, "Separation", "The nearest two rows are 0.5 apart.", {"separation": 0.5}).title
        'Separation'
    """

    severity: Severity
    title: str
    sentence: str
    numbers: Mapping[str, float | int] = field(default_factory=dict)


def ordered(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The most serious first; equals stay in the order in which they were found.

    Example:
        >>> [f.title for f in ordered([Finding(Severity.INFO, "b", ""), Finding(Severity.CRITICAL, "a", "")])]
        ['a', 'b']
    """
    return tuple(sorted(findings, key=lambda finding: finding.severity.rank))


def listed(items: Sequence[object], shown: int = SHOWN) -> str:
    """Some items as words.

    Example:
        >>> listed([3, 17]), listed([1, 2, 3, 4], shown=2)
        ('3 and 17', '1, 2 and 2 more')
    """
    words = [str(item) for item in items]
    if len(words) > shown:
        return f"{', '.join(words[:shown])} and {len(words) - shown} more"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else "none"


def count(number: int, noun: str) -> str:
    """A count with its noun.

    Example:
        >>> count(1, "row"), count(1200, "row")
        ('1 row', '1,200 rows')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def percent(fraction: float) -> str:
    """A fraction as a percentage with three digits, few words for what is next to nothing.

    Example:
        >>> percent(0.0321), percent(1e-9)
        ('3.21 %', 'less than 0.001 %')
    """
    return "less than 0.001 %" if 0 < fraction < 1e-5 else f"{100 * fraction:.3g} %"
