"""Verdicts: the four answers a claim can get, with the number, the bound and the reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Judgement(StrEnum):
    """The four answers; a theory check never merges two of them."""

    HOLDS = "HOLDS"
    VIOLATED = "VIOLATED"
    NOT_APPLICABLE = "NOT_APPLICABLE"  # a hypothesis of the statement fails here
    INCONCLUSIVE = "INCONCLUSIVE"  # the margin is below the error of the measurement


@dataclass(frozen=True)
class Verdict:
    """What a claim's rule made of its evidence.

    Args:
        claim: the claim's id.
        status: one of the four answers.
        observed: the measured quantity that decided.
        bound: what it was held against.
        interval: a 95 % interval of ``observed`` where it is an estimate.
        reason: one sentence, with the numbers in it.
        subject: what was measured: a network's name, or the data.
        regime: whether the statement's own preconditions on the width were met; where they were not, a HOLDS says only that the
            conclusion was seen outside the proven regime.
    """

    claim: str
    status: Judgement
    observed: float | None
    bound: float | None
    interval: tuple[float, float] | None
    reason: str
    subject: str = ""
    regime: str = ""
