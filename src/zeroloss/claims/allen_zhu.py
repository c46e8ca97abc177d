"""The claims of Allen-Zhu, Li and Song that need no more than networks, kernels and runs (THEORY section 6, AZ)."""

from __future__ import annotations

import math

import torch

from zeroloss.claims.claim import Claim, judge_slope, verdict
from zeroloss.claims.evidence import Differences, Padded, Run, Sweep
from zeroloss.claims.fits import fit_slope
from zeroloss.claims.rates import judge_rate
from zeroloss.claims.verdict import Judgement, Verdict

EXACT = 1e-12  # float64 padding
FORMULA = 1e-10  # float64 gradients
ROUNDING = 1e-8  # relative slack of the Rayleigh quotient


def _badness(value: float) -> float:
    """An order in which NaN is the worst: max() alone would skip it."""
    return math.inf if math.isnan(value) else value


def gradient_formula(evidence: Differences) -> Verdict:
    """AZ-00: an invariant; a difference above 1e-10 is a bug, not physics."""
    worst = max(evidence.values, key=_badness)
    status = Judgement.HOLDS if worst < FORMULA else Judgement.VIOLATED
    reason = f"largest relative difference to automatic differentiation over {len(evidence.values)} networks: {worst:.1e}"
    return verdict("AZ-00", evidence, status, worst, FORMULA, reason)


def padding(evidence: Padded) -> Verdict:
    """AZ-01: an invariant."""
    norms = torch.linalg.vector_norm(evidence.rows, dim=1)
    off_norm = float((norms - 1).abs().max())
    off_last = float((evidence.rows[:, -1] - math.sqrt(0.5)).abs().max())
    worst = max(off_norm, off_last)
    status = Judgement.HOLDS if worst <= EXACT else Judgement.VIOLATED
    reason = f"norms are off 1 by at most {off_norm:.1e}, last coordinates off 1/sqrt(2) by at most {off_last:.1e}"
    return verdict("AZ-01", evidence, status, worst, EXACT, reason)


def forward_norms(evidence: Sweep) -> Verdict:
    r"""AZ-02: deviation like $m^{-1/2}$, and $\mathrm{Var}\log\|h_L\|^2 = 5(L+1)/m$, A being a layer too."""
    if evidence.architecture.activation != "relu":
        reason = f"the statement is about ReLU, and this network has {evidence.architecture.activation}"
        return verdict("AZ-02", evidence, Judgement.NOT_APPLICABLE, None, -0.5, reason)
    result = judge_slope("AZ-02", evidence, fit_slope(evidence, "norm_deviation"), -0.5, "largest | ||h_l|| - 1 |")
    ratio = evidence.facts["variance_ratio"]
    if result.status is Judgement.HOLDS and not 0.7 <= ratio <= 1.4:
        status, tail = Judgement.VIOLATED, f"; but Var log||h_L||^2 is {ratio:.2f} times 5(L+1)/m, outside [0.7, 1.4]"
    else:
        status, tail = result.status, f"; Var log||h_L||^2 is {ratio:.2f} times 5(L+1)/m"
    return verdict("AZ-02", evidence, status, result.observed, -0.5, result.reason + tail, result.interval)


def gradient_upper_bound(evidence: Run) -> Verdict:
    r"""AZ-10: $\|\nabla F\|^2 d/(FLnm) \le 1.2$ at initialisation and along the run, for rows of norm at most 1."""
    a = evidence.architecture
    missing = ""
    if (a.scheme, a.family, a.activation) != ("allen-zhu", "fully_connected", "relu"):
        missing = "the statement is about AZ's fully connected networks with ReLU"
    elif evidence.method:
        missing = f"the statement is about gradient descent on the squared loss, and this run has {evidence.method}"
    elif evidence.largest_norm > 1 + 1e-6:
        missing = f"the statement takes rows of norm 1, and here they reach {evidence.largest_norm:.3g}"
    size = sum(a.widths[1:]) * evidence.n / a.outputs  # L n m / d with a width a layer
    ratios = [p.gradient_norm * p.gradient_norm / (p.loss * size) for p in evidence.probes if p.loss > 0]
    if missing or not ratios:
        return verdict("AZ-10", evidence, Judgement.NOT_APPLICABLE, None, 1.2, missing or "the loss is zero at every probe")
    worst = max(ratios, key=_badness)
    status = Judgement.HOLDS if worst <= 1.2 else Judgement.VIOLATED
    reason = f"||grad F||^2 d/(F L n m) is {ratios[0]:.3f} at the start and at most {worst:.3f} over {len(ratios)} probes"
    return verdict("AZ-10", evidence, status, worst, 1.2, reason)


def rayleigh(evidence: Run) -> Verdict:
    r"""AZ-13: $\|\nabla F\|^2/(2F) \in [\lambda_{\min}(G), \lambda_{\max}(G)]$ at every probe; an identity, so a violation is a bug."""
    used = [p for p in evidence.probes if p.loss > 0 and p.largest > 0]
    if not used or not all(p.whole for p in used):
        reason = "the loss or the Gram is zero at every probe"
        if used:
            reason = "the Gram over all outputs was too large to form; its average over outputs is another matrix"
        return verdict("AZ-13", evidence, Judgement.NOT_APPLICABLE, None, ROUNDING, reason)
    worst = max((max(p.smallest - p.rayleigh, p.rayleigh - p.largest) / p.largest for p in used), key=_badness)
    status = Judgement.HOLDS if worst <= ROUNDING else Judgement.VIOLATED
    side = "inside by" if worst <= 0 else "outside by"
    reason = f"over {len(used)} probes the quotient is {side} at least {abs(worst):.1e} of the largest eigenvalue"
    return verdict("AZ-13", evidence, status, worst, ROUNDING, reason)


def linear_rate(evidence: Run) -> Verdict:
    r"""AZ-16: in each tenth of the run $F$ falls at least like $e^{-\eta\lambda k}$; see :func:`judge_rate`."""
    rate = judge_rate(evidence)
    return verdict("AZ-16", evidence, rate.status, rate.slowest, 1.0, rate.reason)


def weights_stay_close(evidence: Sweep) -> Verdict:
    r"""AZ-20: $\max_{l,k}\|W_l(k)-W_l(0)\|_2$ falls at least like $m^{-1/2}$ (per unit of the initial residual)."""
    if evidence.architecture.activation != "relu":
        return verdict("AZ-20", evidence, Judgement.NOT_APPLICABLE, None, -0.5, "the statement is about ReLU")
    return judge_slope("AZ-20", evidence, fit_slope(evidence, "weight_drift"), -0.5, "max_l ||W_l(k)-W_l(0)||_2 / ||r_0||")


ALLEN_ZHU = (
    Claim(
        "AZ-00",
        "The back-matrix formula is the gradient.",
        "grad_{W_l} F = sum_i D_{i,l} (Back_{i,l+1}^T loss_i) h_{i,l-1}^T",
        "AZ Definition 2.5, Fact 2.6",
        "S",
        "gradients",
        "allen-zhu",
        gradient_formula,
    ),
    Claim(
        "AZ-01",
        "Padded rows have norm 1 and last coordinate 1/sqrt(2).",
        "||x_i|| = 1, (x_i)_d = 1/sqrt(2)",
        "AZ footnote 3",
        "S",
        "padding",
        "allen-zhu",
        padding,
    ),
    Claim(
        "AZ-02",
        "At initialisation every layer keeps the norm of its input, up to m^(-1/2).",
        "||h_{i,l}|| in [1-eps, 1+eps]; Var log||h_L||^2 = 5(L+1)/m",
        "AZ Lemma on forward norms (Step 1); variance derived",
        "S, D",
        "norms",
        "allen-zhu",
        forward_norms,
    ),
    Claim(
        "AZ-10",
        "The gradient is at most as large as the loss allows.",
        "||grad F||_F^2 <= O(F L n m / d), with constant 1 in the wide limit",
        "AZ Theorem 3, upper bound; constant derived",
        "S, D",
        "run",
        "allen-zhu",
        gradient_upper_bound,
    ),
    Claim(
        "AZ-13",
        "The squared gradient over twice the loss lies inside the Gram's spectrum at every step.",
        "||grad F||^2/(2F) in [lambda_min(G(k)), lambda_max(G(k))]",
        "AZ Theorem 3, refined; an identity",
        "D",
        "run",
        "",
        rayleigh,
    ),
    Claim(
        "AZ-16",
        "Gradient descent converges linearly: no stretch of the run is slower than a fixed rate.",
        "F(k) <= (1 - eta mu)^k F(0), with mu = lambda_min(G)/2",
        "AZ Theorem 1",
        "S",
        "run",
        "",
        linear_rate,
    ),
    Claim(
        "AZ-20",
        "The wider the network, the less its weights move.",
        "max_l ||W_l(T) - W_l(0)||_2 = O(m^(-1/2))",
        "AZ Theorem 1, proof",
        "M, D",
        "widths",
        "allen-zhu",
        weights_stay_close,
    ),
)
