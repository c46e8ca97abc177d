"""The papers' statements as values: claims, the evidence they are judged on, and verdicts. Nothing here trains."""

from zeroloss.claims.catalogue import CLAIMS, find_claim
from zeroloss.claims.claim import Claim
from zeroloss.claims.evidence import (
    Differences,
    Evidence,
    Gap,
    LayerNorms,
    OfNetworks,
    Padded,
    Point,
    Rivals,
    Run,
    SmallestEigenvalue,
    Sweep,
)
from zeroloss.claims.verdict import Judgement, Verdict

__all__ = [
    "CLAIMS",
    "Claim",
    "Differences",
    "Evidence",
    "Gap",
    "Judgement",
    "LayerNorms",
    "OfNetworks",
    "Padded",
    "Point",
    "Rivals",
    "Run",
    "SmallestEigenvalue",
    "Sweep",
    "Verdict",
    "find_claim",
]
