"""A claim: one numbered statement of the papers, with the rule that turns evidence into a verdict."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zeroloss.claims.evidence import Evidence, OfNetworks, Run, Sweep
from zeroloss.claims.fits import Slope
from zeroloss.claims.regime import regime
from zeroloss.claims.verdict import Judgement, Verdict

WIDEST = 0.6  # an interval around the bound that is wider than this shows nothing


@dataclass(frozen=True)
class Claim:
    """One statement that can be checked.

    Args:
        id: such as ``AZ-16``.
        statement: in plain words.
        formula: the same in symbols (docs/notation.md).
        source: paper, theorem or lemma.
        provenance: S stated in a paper, D derived here, M from memory.
        evidence: which experiment it is judged on (a key of the experiments).
        scheme: whose networks it speaks of; empty for both.
        judge: evidence to verdict.
    """

    id: str
    statement: str
    formula: str
    source: str
    provenance: str
    evidence: str
    scheme: str
    judge: Callable[[Any], Verdict]


def verdict(
    claim: str,
    evidence: Evidence,
    status: Judgement,
    observed: float | None,
    bound: float | None,
    reason: str,
    interval: tuple[float, float] | None = None,
) -> Verdict:
    """A verdict about a piece of evidence, with the regime that its width is in."""
    where = "outside the proven regime: widths of a laptop, far below any theorem's" if isinstance(evidence, OfNetworks) else ""
    if isinstance(evidence, Run):
        where = regime(evidence)
    return Verdict(claim, status, observed, bound, interval, reason, evidence.subject, where)


def judge_slope(claim: str, sweep: Sweep, slope: Slope, power: float, quantity: str) -> Verdict:
    r"""The rule for an upper bound $Q \le C v^p$, logarithms of v allowed, in a sweep of v to infinity.

    Args:
        claim: its id.
        sweep: the evidence.
        slope: fitted to it.
        power: p.
        quantity: in words.

    Returns:
        VIOLATED where the whole interval is above p for $Q$ and for $Q/\log v$; INCONCLUSIVE where only the first is, or where the
        fit should decide nothing; else HOLDS, tight where the interval contains p.
    """
    low, high = slope.interval
    v, seeds = sweep.variable, f"{slope.seeds} seeds, {slope.decades:.1f} decades"
    span = f"slope {slope.estimate:.3f} in {v}, 95 % interval [{low:.3f}, {high:.3f}], {seeds}"
    if slope.problem:
        status, word = Judgement.INCONCLUSIVE, slope.problem
    elif low <= power <= high and high - low > WIDEST:
        status, word = Judgement.INCONCLUSIVE, f"an interval of length {high - low:.2f} around the bound {power:g}"
    elif low - slope.log_shift > power:
        status, word = Judgement.VIOLATED, f"above the bound {power:g}, with a logarithm allowed too"
    elif low > power:
        status, word = Judgement.INCONCLUSIVE, f"above the bound {power:g}, but not with a logarithm of {v} allowed"
    else:
        status, word = (
            Judgement.HOLDS,
            f"tight at {power:g}" if high >= power else f"below the bound {power:g}: consistent",
        )
    return verdict(claim, sweep, status, slope.estimate, power, f"{quantity}: {span}; {word}", slope.interval)
