"""What the verifier answers, and how its parts say no."""

from __future__ import annotations

from dataclasses import dataclass

STATUSES = ("ACCEPTED", "REJECTED", "TOO_LARGE")


@dataclass(frozen=True)
class Verified:
    """The answer to one certificate.

    Args:
        status: ``"ACCEPTED"``, ``"REJECTED"``, or ``"TOO_LARGE"`` where the verifier cannot recompute so much; the last is no acceptance.
        reason: one line: what was proved, what failed, or what is too large.
        covered: what was recomputed from the definition, in order; of a rejected certificate, up to the failure.

    Raises:
        ValueError: for a status that does not exist.

    Example:
        >>> Verified("TOO_LARGE", "N = 10000 rows").accepted
        False
    """

    status: str
    reason: str
    covered: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.status not in STATUSES:
            raise ValueError(f"status is {self.status!r}; it must be one of {', '.join(STATUSES)}")

    @property
    def accepted(self) -> bool:
        """Whether everything the certificate claims was confirmed."""
        return self.status == "ACCEPTED"


class RejectedError(Exception):
    """The certificate is malformed, or a claim of it is false or its inequality does not hold."""


class UnprovenError(RejectedError):
    """A claim could not be confirmed at this precision; at a higher one it might be."""


class TooLargeError(Exception):
    """Recomputing this would take more work or memory than the verifier allows itself."""
