"""Claims meet evidence: every claim of the catalogue on a setting, or one claim on its own standard setting."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zeroloss.claims import CLAIMS, Claim, Evidence, Judgement, OfNetworks, Run, Verdict, find_claim
from zeroloss.data import load
from zeroloss.errors import unknown_name
from zeroloss.study.experiments import EXPERIMENTS
from zeroloss.study.network_run import prepare, train
from zeroloss.study.setting import WIDTHS, Setting
from zeroloss.study.specification import NetworkSpec, TrainingSpec

# the standard setting of `check`: both papers' networks at sizes that take seconds
STANDARD = (
    NetworkSpec("AZ fully connected, ReLU", "fully_connected", "allen-zhu", "relu", 512, 2),
    NetworkSpec("DU fully connected, erf", "fully_connected", "du", "erf", 512, 2),
    NetworkSpec("DU ResNet, erf", "resnet", "du", "erf", 512, 2),
)
# what a claim about another kind of network brings with it, by the name of its experiment
OWN = {
    "images": (NetworkSpec("AZ CNN, ReLU", "cnn", "allen-zhu", "relu", 64, 2),),
    "growth": (
        NetworkSpec("AZ ResNet, ReLU", "resnet", "allen-zhu", "relu", 64, 2),
        NetworkSpec("AZ ResNet of two-matrix blocks, ReLU", "resnet", "allen-zhu", "relu", 64, 2, block=2),
    ),
    "printed": (
        NetworkSpec("DU ResNet, ReLU", "resnet", "du", "relu", 512, 4),
        NetworkSpec("DU convolutional ResNet, ReLU", "conv_resnet", "du", "relu", 64, 3),
    ),
}
_SEVERITY = (Judgement.NOT_APPLICABLE, Judgement.HOLDS, Judgement.INCONCLUSIVE, Judgement.VIOLATED)


def judge(claims: Iterable[Claim], setting: Setting, watch: Callable[[str], None] | None = None) -> tuple[Verdict, ...]:
    """Judge claims on a setting: one verdict a claim and subject.

    Args:
        claims: which.
        setting: data, networks and runs.
        watch: told the claim's id before it is judged.

    Returns:
        The verdicts, in the order of the claims; a claim about one paper's networks skips the other's.
    """
    gathered: dict[str, list[Evidence]] = {}
    verdicts: list[Verdict] = []
    for claim in claims:
        if watch is not None:
            watch(claim.id)
        if claim.evidence not in gathered:
            gathered[claim.evidence] = EXPERIMENTS[claim.evidence](setting)
        verdicts += [claim.judge(evidence) for evidence in gathered[claim.evidence] if _speaks_of(claim, evidence)]
    return tuple(verdicts)


def check(claim_id: str, budget: str = "quick") -> Verdict:
    """Check one claim on its standard setting: digits 3 against 8, both papers' networks.

    Args:
        claim_id: such as ``"AZ-16"``; see :data:`zeroloss.CLAIMS`.
        budget: ``"quick"`` (seconds) or ``"full"`` (sweeps to width 4096, minutes).

    Returns:
        The verdict on the subject that fares worst.

    Raises:
        ArgumentError: for an unknown id or budget.

    Example:
        >>> check("AZ-01").status
        <Judgement.HOLDS: 'HOLDS'>
    """
    claim = find_claim(claim_id)
    if budget not in WIDTHS:
        raise unknown_name("budget", budget, WIDTHS)
    verdicts = judge([claim], standard_setting(claim, budget))
    return max(verdicts, key=lambda v: _SEVERITY.index(v.status))


def standard_setting(claim: Claim, budget: str) -> Setting:
    """The setting of :func:`check`: networks that the claim speaks of, trained only where it is judged on runs."""
    data = load("digits", n=40, classes=(3, 8))
    specs = OWN.get(claim.evidence) or tuple(s for s in STANDARD if claim.scheme in ("", s.scheme))
    runs: tuple[Run, ...] = ()
    if claim.evidence == "run":
        training = TrainingSpec(dtype="float64", device="cpu", max_steps=4000, until=1e-6)
        runs = tuple(train(prepare(spec, data, training), training)[1] for spec in specs)
    return Setting(data, specs, runs, budget)


def _speaks_of(claim: Claim, evidence: Evidence) -> bool:
    if claim.scheme and isinstance(evidence, OfNetworks):
        return evidence.architecture.scheme == claim.scheme
    return True


__all__ = ["CLAIMS", "check", "judge", "standard_setting"]
