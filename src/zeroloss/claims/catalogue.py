"""The catalogue: every claim, in one visible tuple."""

from __future__ import annotations

from zeroloss.claims.allen_zhu import ALLEN_ZHU
from zeroloss.claims.claim import Claim
from zeroloss.claims.corrections import CORRECTIONS
from zeroloss.claims.du import DU
from zeroloss.claims.extensions import EXTENSIONS
from zeroloss.errors import unknown_name

CLAIMS: tuple[Claim, ...] = tuple(sorted(ALLEN_ZHU + EXTENSIONS + DU + CORRECTIONS, key=lambda claim: claim.id))


def find_claim(claim_id: str) -> Claim:
    """The claim of that id.

    Raises:
        ArgumentError: for an id that is not in the catalogue.

    Example:
        >>> find_claim("AZ-16").source
        'AZ Theorem 1'
    """
    for claim in CLAIMS:
        if claim.id == claim_id:
            return claim
    raise unknown_name("claim", claim_id, [claim.id for claim in CLAIMS])
