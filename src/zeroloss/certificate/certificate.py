"""The certificate: a status, every number of the inequality, and what they mean in words."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from zeroloss.certificate.theorems import Descent, Fails, Flow, Newton, Stochastic
from zeroloss.errors import ArgumentError

if TYPE_CHECKING:
    from zeroloss.certificate.problem import Problem


class Status(StrEnum):
    """The three answers."""

    PROVED = "PROVED"
    REFUSED = "REFUSED"  # these bounds prove nothing; the statement may be true all the same
    IMPOSSIBLE = "IMPOSSIBLE"  # a proof that no weights reach zero loss


ASSUMPTIONS = (
    "real arithmetic: the theorem is about gradient flow, descent or Newton's iteration in real numbers, from exactly these weights",
    "squared loss, one half of the sum of squares",
    "A1: float64 sums and matrix products err by at most gamma_(k+2)|A||B|, whatever the order of summation",
    "A2: exp, log1p, tanh, erf and sigmoid err by at most 64 units of roundoff",
    "A3: nothing overflows (checked), and underflow costs less than 1e-140 in any norm",
)


@dataclass(frozen=True)
class Numbers:
    r"""What was enclosed at the given weights; NaN where it was not reached.

    Args:
        samples: rows, equal ones merged.
        rows: rows as given.
        outputs: k.
        N: samples times outputs: equations.
        P: trained numbers: unknowns.
        residual: $\rho\ge\|r(\theta_0)\|$.
        sigma0: at most the smallest singular value of $J(\theta_0)$.
        beta0: at least the largest.
        near: the smallest eigenvalue of $JJ^\top$ as computed.
        gram_error: how far the computed $JJ^\top$ can be from the exact one.
        cell_margin: smallest distance to a kink in units of the largest movement on the ball; above 1 none is crossed.
    """

    samples: int = 0
    rows: int = 0
    outputs: int = 0
    N: int = 0
    P: int = 0
    residual: float = math.nan
    sigma0: float = math.nan
    beta0: float = math.nan
    near: float = math.nan
    gram_error: float = math.nan
    cell_margin: float = math.inf


@dataclass(frozen=True)
class Certificate:
    r"""What is proved about the weights it was made for.

    Args:
        status: PROVED, REFUSED or IMPOSSIBLE.
        reason: one sentence.
        method: ``"flow"``, ``"gd"``, ``"sgd"`` or ``"newton"``: which theorem ``status`` speaks of.
        numbers: what was enclosed at the weights.
        flow: Theorem 1, where it was tried.
        gd: Theorem 2.
        sgd: Theorem 3.
        newton: Theorem 4.
        precision: of the residual.
        loss_floor: the least possible loss, where IMPOSSIBLE.
        seconds: it took.
        problem: what it is about, for :meth:`save`.

    Example:
        >>> Certificate(Status.REFUSED, "N = 3 exceeds P = 2", "flow", Numbers()).status
        <Status.REFUSED: 'REFUSED'>
    """

    status: Status
    reason: str
    method: str
    numbers: Numbers
    flow: Flow | Fails | None = None
    gd: Descent | Fails | None = None
    sgd: Stochastic | Fails | None = None
    newton: Newton | Fails | None = None
    precision: str = "float64"
    loss_floor: float = 0.0
    seconds: float = 0.0
    problem: Problem | None = field(default=None, repr=False, compare=False)

    @property
    def proof(self) -> Flow | Descent | Stochastic | Newton | None:
        """The conclusion of the method's theorem, or None."""
        found = {"flow": self.flow, "gd": self.gd, "sgd": self.sgd, "newton": self.newton}[self.method]
        return None if self.status is not Status.PROVED or isinstance(found, Fails) else found

    @property
    def radius(self) -> float:
        r"""How far from the given weights the zero-loss weights are at most, $\|\theta^*-\theta_0\|$; NaN where nothing is proved."""
        match self.proof:
            case Flow() | Descent():
                return self.proof.path
            case Stochastic() | Newton():
                return self.proof.radius
            case _:
                return math.nan

    @property
    def rate(self) -> float:
        r"""Of convergence: $\alpha^2$ of flow's $e^{-\alpha^2t}$, or $1-q$, the share that a step takes off the residual; else NaN."""
        match self.proof:
            case Flow():
                return self.proof.rate
            case Descent() | Stochastic():
                return self.proof.rate
            case _:
                return math.nan

    @property
    def step(self) -> float:
        r"""The step size $\eta$ of gd and sgd; NaN for the others."""
        return self.proof.step if isinstance(self.proof, (Descent, Stochastic)) else math.nan

    @property
    def lipschitz(self) -> float:
        r"""$\Lambda$ on the ball of the method's theorem, also where it fails; NaN where it was not reached."""
        found = {"flow": self.flow, "gd": self.gd, "sgd": self.sgd, "newton": self.newton}[self.method]
        return math.nan if found is None else found.lipschitz

    @property
    def h(self) -> float:
        r"""$h=\Lambda\rho/\sigma_0^2$; Theorem 1 asks for less than 1/2."""
        return self.lipschitz * self.numbers.residual / self.numbers.sigma0**2

    def explain(self) -> str:
        """What is proved, or which inequality binds and what would make it hold."""
        from zeroloss.certificate.explanation import explain

        return explain(self)

    def save(self, path: str | Path) -> Path:
        """Write the certificate as JSON, with its tensors in safetensors beside it.

        Args:
            path: with or without ``.json``.

        Returns:
            The JSON file's path.

        Raises:
            ArgumentError: where nothing is proved.
        """
        from zeroloss.certificate.saving import save

        if self.status is not Status.PROVED or self.problem is None:
            raise ArgumentError("certificate", f"is {self.status}: {self.reason}", "save one that is PROVED")
        return save(self, self.problem, Path(path))
