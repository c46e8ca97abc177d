r"""Step sizes: one over the expected smoothness of the sampling at the initial Gram, or what a theorem asks for."""

from __future__ import annotations

import math

import torch
from torch import nn

from zeroloss.data import Dataset
from zeroloss.errors import ArgumentError
from zeroloss.gram import sample_blocks, tangent_operator
from zeroloss.kernels import limit_kernel
from zeroloss.networks import Network
from zeroloss.spectrum import extremes, largest_eigenvalue
from zeroloss.training.batches import Batches
from zeroloss.training.losses import Loss, find_loss

AUTO_FRACTION = 1.0  # half of the stable limit 2/lambda_max: every direction contracts, and none oscillates


def step_size(
    step: str | float,
    module: nn.Module,
    data: Dataset,
    *,
    loss: str | Loss = "squared",
    batches: Batches | None = None,
    momentum: float = 0.0,
) -> float:
    r"""The number behind a step: ``"auto"``, ``"theory"``, or itself.

    ``"auto"`` is $1/(sE)$, with s the loss's smoothness and E the :func:`expected_smoothness` of the sampling at the initial Gram G.
    For full-batch descent on the squared loss that is $1/\lambda_{\max}(G)$.

    Args:
        step: ``"auto"``; ``"theory"``, :func:`theory_step`; or a positive number, which is kept.
        module: the module at its initial weights.
        data: what it trains on.
        loss: what ``"auto"`` is for.
        batches: likewise; None is full-batch descent.
        momentum: likewise.

    Returns:
        $\eta$.

    Raises:
        ArgumentError: for another word or a number that is not positive and finite.

    Example:
        >>> step_size(0.1, nn.Identity(), Dataset([[1.0]], [1.0]))
        0.1
    """
    if step == "auto":
        largest = largest_eigenvalue(tangent_operator(module, data.x))
        if math.isfinite(largest) and largest > 0 and batches is not None and not batches.whole:
            block = float(torch.linalg.eigvalsh(sample_blocks(module, data.x).to(torch.float64)).max())
            scale = expected_smoothness(largest, block, batches, momentum)
        else:
            scale = largest
        if not (math.isfinite(largest) and largest > 0):
            raise ArgumentError(
                "module",
                f"has a Gram with largest eigenvalue {largest} at its initial weights",
                "check for dead units, zero inputs or NaN weights, or pass a number as step",
            )
        return AUTO_FRACTION / (find_loss(loss).smoothness * scale)
    if step == "theory":
        return theory_step(module, data)
    check_step(step)
    return float(step)


def expected_smoothness(largest: float, block: float, batches: Batches, momentum: float = 0.0) -> float:
    r"""E with $\mathbb E\|\hat g\|^2\le 2E(F-F^*)$ for the linear model under the squared loss, $\hat g$ a step's gradient estimate.

    Let $A_i=J_i^\top J_i$, $A=\sum_iA_i$ and $\hat A=(n/b)\sum_{i\in B}A_i$. Summing over pairs, b of n rows without replacement give
    $\mathbb E\hat A^2=\frac{n(b-1)}{b(n-1)}A^2+\frac{n(n-b)}{b(n-1)}\sum_iA_i^2$, and b draws with replacement give
    $(1-\frac1b)A^2+\frac nb\sum_iA_i^2$. With $A^2\preceq\lambda_{\max}(G)A$ and $A_i^2\preceq\lambda_{\max}(G_{ii})A_i$ both are
    $\preceq EA$. Where an epoch's last batch is smaller, E is the mean over the epoch's batches.

    Heavy ball repeats a batch's noise $1/(1-\mu)$ times, so the second term is multiplied by that; without it, single rows of a nearly
    diagonal Gram are overshot for $\mu>1/2$, and the run grows.

    Args:
        largest: $\lambda_{\max}(G)$.
        block: $\max_i\lambda_{\max}(G_{ii})$, over the k×k blocks of single rows.
        batches: the sampling.
        momentum: $\mu$.

    Returns:
        E; $\lambda_{\max}(G)$ for full batches.

    Source:
        Gower et al. 2019, "SGD: General analysis and improved rates", expected smoothness, here for sums; the momentum is ours.

    Example:
        >>> expected_smoothness(5.0, 2.0, Batches(10, 1)), expected_smoothness(5.0, 2.0, Batches(10, 10))
        (20.0, 5.0)
    """
    n = batches.n
    values = []
    for b in batches.sizes:
        together = 1 - 1 / b if batches.replacement else n * (b - 1) / (b * max(n - 1, 1))
        alone = n / b if batches.replacement else n * (n - b) / (b * max(n - 1, 1))
        if n == 1:  # one row is drawn whole whatever the rule
            together, alone = 1.0, 0.0
        values.append(together * largest + alone * block / (1 - momentum))
    return sum(values) / len(values)


def check_step(step: str | float) -> None:
    """Refuse a step that is neither a rule's name nor a positive number, before anything is computed.

    Raises:
        ArgumentError: saying what was passed.
    """
    if step in ("auto", "theory"):
        return
    if isinstance(step, bool) or not isinstance(step, int | float) or not (math.isfinite(step) and step > 0):
        raise ArgumentError("step", f"is {step!r}", "pass 'auto', 'theory' or a positive number")


def check_budget(max_steps: int, until: float) -> None:
    """Refuse a budget or a target out of range, before anything is computed.

    Raises:
        ArgumentError: saying what was passed.
    """
    if isinstance(max_steps, bool) or not isinstance(max_steps, int) or max_steps < 0:
        raise ArgumentError("max_steps", f"is {max_steps!r}", "pass a whole number of at least 0")
    number = isinstance(until, int | float) and not isinstance(until, bool)
    if not (number and math.isfinite(until) and 0 <= until < 1):
        raise ArgumentError("until", f"is {until!r}", "pass a fraction of the first loss in [0, 1)")


def theory_step(module: nn.Module, data: Dataset) -> float:
    r"""The step of the theorem that covers the network, with every hidden constant set to 1.

    AZ Theorem 1: $\eta = d\,\delta/(n^4L^2m)$, with d the number of outputs (explicit powers from memory of AZ's appendix,
    THEORY 1.4). DU Theorem 5.1: $\lambda/(n^2 2^H)$; Theorem 6.1: $\lambda H^2/n^2$; $\lambda=\lambda_{\min}(K^{(H)})$.

    Args:
        module: a builder's network.
        data: what it trains on.

    Returns:
        $\eta$; far below what is stable, which is the point of showing it.

    Raises:
        ArgumentError: for a module without an architecture, or data with which the theorem gives no positive step.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> theory_step(fully_connected(2, 4, 1), Dataset([[1.0, 0.0], [0.0, 1.0]], [1.0, -1.0]))  # sqrt(2)/(16 * 4)
        0.0220970869120796...
    """
    if not isinstance(module, Network):
        raise ArgumentError("step", "is 'theory' for a module that no builder made", "pass 'auto' or a number")
    a, n = module.architecture, data.n
    if a.scheme == "allen-zhu":
        eta = a.outputs * data.separation / (n**4 * a.depth**2 * max(a.widths)) if n > 1 else math.inf
    else:
        smallest = extremes(limit_kernel(module, "last-hidden")(data.x)).smallest
        eta = smallest / (n**2 * 2**a.depth) if a.family in ("fully_connected", "cnn") else smallest * a.depth**2 / n**2
    if not (math.isfinite(eta) and eta > 0):
        raise ArgumentError(
            "step", f"is 'theory', which gives {eta} on this data", "remove duplicate or parallel rows, or pass 'auto'"
        )
    return eta
