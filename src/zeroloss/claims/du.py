"""The claims of Du, Lee, Li, Wang and Zhai that need no more than networks, kernels and runs (THEORY section 6, DU)."""

from __future__ import annotations

import math

from zeroloss.claims.claim import Claim, judge_slope, verdict
from zeroloss.claims.evidence import Run, SmallestEigenvalue, Sweep
from zeroloss.claims.fits import fit_slope
from zeroloss.claims.verdict import Judgement, Verdict

SATURATED = 0.75  # a relative error flattens on its way to 1; up to here it was seen to follow its power
SIGN = 1e-12  # of the trace: below this an eigenvalue has no sign


def recursions(evidence: Sweep) -> Verdict:
    r"""DU-01: the finite Gram tends to the recursion's, with an error like $m^{-1/2}$ and no floor; AZ's networks have one too."""
    slope = fit_slope(evidence, "kernel_gap", saturation=SATURATED)
    result = judge_slope("DU-01", evidence, slope, -0.5, "||G(0)-Theta||_F/||Theta||_F")
    widest = max(p.at for p in evidence.points)
    gap, allowed = evidence.facts["mean_gap"], 0.05 * math.sqrt(4096 / widest)
    status, tail = result.status, f"; mean of the draws at m={widest}: {100 * gap:.2f} % (allowed {100 * allowed:.1f} %)"
    if gap > allowed:  # a wrong recursion leaves a gap that no width closes
        status = Judgement.VIOLATED
    return verdict("DU-01", evidence, status, result.observed, -0.5, result.reason + tail, result.interval)


def positive_definite(evidence: SmallestEigenvalue) -> Verdict:
    r"""DU-03: $\lambda_{\min}(K^{(H)}) > 0$ where no two inputs are parallel."""
    floor = SIGN * evidence.trace
    seen = (
        f"lambda_min = {evidence.value:.3g}, of the kernel as computed at least {evidence.bound:.3g}, trace {evidence.trace:.3g}"
    )
    if evidence.parallel:
        reason = f"{evidence.parallel} pairs of rows are parallel, which the statement excludes; {seen}"
        return verdict("DU-03", evidence, Judgement.NOT_APPLICABLE, evidence.value, floor, reason)
    if evidence.bound > floor:  # forming the kernel has moved its entries by a few units in the last place of the trace
        status = Judgement.HOLDS
    elif evidence.value < -floor:
        status = Judgement.VIOLATED
    else:
        status, seen = Judgement.INCONCLUSIVE, f"{seen}: too near zero for float64 to give it a sign"
    return verdict("DU-03", evidence, status, evidence.value, floor, seen)


def weight_drift(evidence: Sweep) -> Verdict:
    r"""DU-06: $\frac1{\sqrt m}\max_h\|W^{(h)}(k)-W^{(h)}(0)\|_F = O(m^{-1/2})$."""
    slope = fit_slope(evidence, "scaled_drift")
    return judge_slope("DU-06", evidence, slope, -0.5, "max_h ||W_h(k)-W_h(0)||_F / (sqrt(m) ||r_0||)")


def gram_stability(evidence: Sweep) -> Verdict:
    r"""DU-07: $\|G^{(H)}(k)-G^{(H)}(0)\|_2$ falls at least like $m^{-1/2}$, and $\lambda_{\min}(G^{(H)}(k)) \ge \lambda/2$ when wide."""
    result = judge_slope("DU-07", evidence, fit_slope(evidence, "gram_drift"), -0.5, "||G_H(k)-G_H(0)||_2")
    kept = evidence.facts["smallest_kept"]
    tail = f"; at the widest, lambda_min(G_H(k)) stays above {kept:.2f} lambda"
    status = result.status
    if not kept >= 0.5 and status is Judgement.HOLDS:
        status, tail = Judgement.INCONCLUSIVE, f"{tail}, below the half that a larger width must bring"
    return verdict("DU-07", evidence, status, result.observed, -0.5, result.reason + tail, result.interval)


def loss_bound(evidence: Run) -> Verdict:
    r"""DU-08: $L(k) \le (1-\eta\lambda/2)^kL(0)$, $\lambda=\lambda_{\min}(K^{(H)})$, given $\lambda_{\min}(G^{(H)}(k))\ge\lambda/2$."""
    lam, eta = evidence.last_hidden_limit, evidence.step_size
    if evidence.architecture.scheme != "du":
        return verdict("DU-08", evidence, Judgement.NOT_APPLICABLE, None, 1.0, "the statement is about DU's networks")
    if evidence.method:
        reason = f"the statement is about gradient descent on the squared loss, and this run has {evidence.method}"
        return verdict("DU-08", evidence, Judgement.NOT_APPLICABLE, None, 1.0, reason)
    if not evidence.stable:
        reason = "the step is beyond 2/lambda_max of the initial Gram, which the theorem excludes"
        return verdict("DU-08", evidence, Judgement.NOT_APPLICABLE, None, 1.0, reason)
    if lam <= 0 or eta * lam / 2 >= 1:
        return verdict("DU-08", evidence, Judgement.NOT_APPLICABLE, None, 1.0, f"lambda_min(K_H) = {lam:.3g} gives no rate")
    kept = min((p.last_hidden_smallest for p in evidence.probes), default=math.nan) / lam
    ratios = evidence.loss.log() - evidence.loss[0].log()
    logs = ratios - math.log1p(-eta * lam / 2) * evidence.loss.new_tensor(range(len(evidence.loss)))
    worst = math.exp(min(float(logs.max()), 700.0)) if bool(logs.isfinite().any()) else math.inf
    seen = f"L(k) over its bound is at most {worst:.6g}; lambda_min(G_H(k)) stays above {kept:.2f} lambda"
    if not kept >= 0.5:
        return verdict("DU-08", evidence, Judgement.NOT_APPLICABLE, worst, 1.0, f"{seen}, below the half it assumes")
    status = Judgement.HOLDS if worst <= 1 + 1e-6 else Judgement.VIOLATED
    return verdict("DU-08", evidence, status, worst, 1.0, seen)


def linear_dynamics(evidence: Sweep) -> Verdict:
    r"""DU-09: $\max_k\|u(k)-u_{lin}(k)\|/\|r_0\|$ falls at least like $m^{-1/2}$."""
    return judge_slope("DU-09", evidence, fit_slope(evidence, "linear_gap"), -0.5, "max_k ||u(k)-u_lin(k)||/||r_0||")


DU = (
    Claim(
        "DU-01",
        "The initial Gram tends to the infinite-width recursion as the width grows.",
        "||G(0) - Theta|| = O(m^(-1/2))",
        "DU Definitions 5.1 and 6.1 (corrected), Lemmas on G(0); AZ's networks derived",
        "S, D",
        "kernels",
        "",
        recursions,
    ),
    Claim(
        "DU-03",
        "The limit Gram of the last hidden layer is positive definite when no two inputs are parallel.",
        "lambda_min(K^(H)) > 0",
        "DU Propositions F.1 and F.2",
        "S, M",
        "pairs",
        "du",
        positive_definite,
    ),
    Claim(
        "DU-06",
        "Scaled by 1/sqrt(m), no layer's weights move further than m^(-1/2).",
        "m^(-1/2) ||W^(h)(k) - W^(h)(0)||_F = O(m^(-1/2))",
        "DU Theorem 5.1, proof (weight drift)",
        "M",
        "widths",
        "du",
        weight_drift,
    ),
    Claim(
        "DU-07",
        "The Gram of the last hidden layer hardly moves during training.",
        "||G^(H)(k) - G^(H)(0)||_2 = O(m^(-1/2)), lambda_min(G^(H)(k)) >= lambda/2",
        "DU Theorem 5.1, proof (Gram stability)",
        "M",
        "widths",
        "du",
        gram_stability,
    ),
    Claim(
        "DU-08",
        "The loss falls at least as fast as the theorem's rate.",
        "L(k) <= (1 - eta lambda/2)^k L(0)",
        "DU Theorems 5.1 and 6.1",
        "S",
        "run",
        "du",
        loss_bound,
    ),
    Claim(
        "DU-09",
        "The outputs follow the linear dynamics of the initial Gram, closer the wider the network.",
        "||u(k) - u_lin(k)|| = O(m^(-1/2))",
        "DU section 3, dynamics of the predictions",
        "S, D",
        "widths",
        "du",
        linear_dynamics,
    ),
)
