"""What claims are judged on: measurements, gathered elsewhere, that carry no verdict of their own."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from zeroloss.networks import Architecture
from zeroloss.training import Probe


@dataclass(frozen=True, eq=False)
class Run:
    r"""One run of gradient descent.

    Args:
        subject: the network's name.
        architecture: what was trained.
        n: rows.
        separation: $\delta$ of the data.
        largest_norm: $\max_i\|x_i\|$; the theorems take it to be 1.
        loss: $F(\theta_k)$ for k = 0, 1, 2, ...
        step_size: $\eta$.
        probes: measured along the run.
        last_hidden_limit: $\lambda=\lambda_{\min}(K^{(H)})$.
        method: how the run differs from the theorems' own, full batches at one step size on the squared loss; empty where it does not.
    """

    subject: str
    architecture: Architecture
    n: int
    separation: float
    largest_norm: float
    loss: Float[Tensor, " s"]
    step_size: float
    probes: tuple[Probe, ...]
    last_hidden_limit: float
    method: str = ""

    @property
    def stable(self) -> bool:
        r"""Whether the step is below $2/\lambda_{\max}(G(0))$, as every theorem asks (True where no probe says otherwise)."""
        return not self.probes or self.step_size * self.probes[0].largest < 2


@dataclass(frozen=True)
class Point:
    """One measurement in a sweep.

    Args:
        at: the swept variable's value: m, or another that the sweep names.
        seed: of the draw; the unit of resampling.
        values: quantity to value.
    """

    at: int
    seed: int
    values: dict[str, float]


@dataclass(frozen=True)
class Sweep:
    """The same measurement over values of one variable, and over seeds.

    Args:
        subject: what was swept.
        architecture: of the first network; only the swept variable differs in the others.
        points: one a value and seed.
        facts: single numbers that belong to the whole sweep.
        variable: its symbol, which goes to infinity: the width m, or the depth L or H.
    """

    subject: str
    architecture: Architecture
    points: tuple[Point, ...]
    facts: dict[str, float]
    variable: str = "m"


@dataclass(frozen=True)
class Differences:
    """Relative differences between two ways of computing one thing.

    Args:
        subject: what was compared.
        values: one a case, all 0 if both ways were exact.
    """

    subject: str
    values: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Padded:
    """Rows that claim to be padded as AZ's footnote 3 says."""

    subject: str
    rows: Float[Tensor, "n d"]


@dataclass(frozen=True)
class SmallestEigenvalue:
    r"""$\lambda_{\min}$ of a limit kernel on some rows.

    Args:
        subject: which kernel and rows.
        bound: a rigorous lower bound for it.
        value: as computed.
        trace: of the kernel.
        parallel: how many pairs of rows are parallel (the statement's hypothesis is that none is).
    """

    subject: str
    bound: float
    value: float
    trace: float
    parallel: int


@dataclass(frozen=True, eq=False)
class LayerNorms:
    r"""How the layers of a network keep the norm of its inputs, over draws; and a short run of it.

    Args:
        subject: the network's name.
        architecture: what was drawn.
        preserving: whether its variances are those that preserve norms.
        ratios: $\|h_l\|/\|x\|$ over all points, mean over the inputs; one row a draw, one column a hidden layer.
        run: of one of the draws.
    """

    subject: str
    architecture: Architecture
    preserving: bool
    ratios: Float[Tensor, "draws layers"]
    run: Run


@dataclass(frozen=True)
class Gap:
    """How far the mean of finite matrices is from two rival limits; every number relative to the norm of that mean.

    Args:
        ours: from the one that should be right.
        printed: from the other.
        apart: the two from each other.
        noise: the standard error of the mean.
    """

    ours: float
    printed: float
    apart: float
    noise: float


@dataclass(frozen=True)
class Rivals:
    """Finite networks against two recursions for their limit.

    Args:
        subject: the network's name.
        architecture: what was drawn.
        gaps: one a quantity.
    """

    subject: str
    architecture: Architecture
    gaps: dict[str, Gap]


OfNetworks = Run | Sweep | LayerNorms | Rivals
Evidence = OfNetworks | Differences | Padded | SmallestEigenvalue
