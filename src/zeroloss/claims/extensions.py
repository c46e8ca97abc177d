"""Allen-Zhu, Li and Song's claims about convolutional and residual networks (THEORY 1.10; section 6, AZ-27 and AZ-28)."""

from __future__ import annotations

import math

import torch
from scipy.special import stdtrit

from zeroloss.claims.claim import Claim, verdict
from zeroloss.claims.evidence import LayerNorms, Sweep
from zeroloss.claims.fits import MIN_SEEDS
from zeroloss.claims.rates import judge_rate
from zeroloss.claims.verdict import Judgement, Verdict
from zeroloss.networks.arguments import tau_of

KEPT = (0.9, 1.1)  # what a mean ratio of norms may be and count as 1
MIN_DRAWS = 20  # for a mean whose standard error decides
ERRORS = 3.0  # standard errors


def convolutional(evidence: LayerNorms) -> Verdict:
    r"""AZ-27: over all points $\|h_l\|/\|x\|$ is 1 in the mean, in every layer, and the network trains linearly.

    The hypotheses: every point is covered q times (circular padding), and the variances are those that preserve norms.
    """
    a, draws = evidence.architecture, len(evidence.ratios)
    if draws < MIN_SEEDS:
        return verdict("AZ-27", evidence, Judgement.INCONCLUSIVE, None, 1.0, f"{draws} draws, {MIN_SEEDS} are needed")
    means, errors = evidence.ratios.mean(dim=0), evidence.ratios.std(dim=0) / draws**0.5
    reach = float(stdtrit(draws - 1, 0.975)) * errors
    layer = int((means - 1).abs().argmax())
    mean, low, high = (float(v[layer]) for v in (means, means - reach, means + reach))
    seen = f"||h_{layer}||/||x|| is {mean:.3f} in the mean of {draws} draws, 95 % interval [{low:.3f}, {high:.3f}], the furthest from 1"
    missing = ""
    if a.activation != "relu":
        missing = f"the statement is about ReLU, and this network has {a.activation}"
    elif a.padding != "circular" and a.patch > 1:
        missing = "with zeros around it the border is covered less than q times, and the statement takes all points alike"
    elif not evidence.preserving:
        missing = "the variances are not those that preserve norms"
    if missing:
        return verdict("AZ-27", evidence, Judgement.NOT_APPLICABLE, mean, 1.0, f"{missing}; {seen}", (low, high))
    inside = (means - reach >= KEPT[0]) & (means + reach <= KEPT[1])
    meets = (means - reach <= KEPT[1]) & (means + reach >= KEPT[0])
    norms = Judgement.HOLDS if bool(inside.all()) else Judgement.INCONCLUSIVE if bool(meets.all()) else Judgement.VIOLATED
    rate = judge_rate(evidence.run)
    order = (Judgement.HOLDS, Judgement.INCONCLUSIVE, Judgement.NOT_APPLICABLE, Judgement.VIOLATED)
    status = max(norms, rate.status, key=order.index)
    return verdict("AZ-27", evidence, status, mean, 1.0, f"{seen}; {rate.reason}", (low, high))


def residual_growth(evidence: Sweep) -> Verdict:
    r"""AZ-28: $\mathbb{E}\|h_L\|^2/\|h_0\|^2 \in [(1+\tau^2)^L, (1+2\tau^2)^L]$, so bounded in L for $\tau\le 1/\sqrt L$ only.

    For $a\ge0$ and $\xi\sim N(0,s^2)$, $\mathbb{E}(a+\xi)_+^2$ lies between $a^2+s^2/2$ and $a^2+s^2$, and a block adds to each coordinate
    such a $\xi$ with $s^2=2\tau^2\|h\|^2/m$: at every width, and for blocks of two and three matrices too.
    """
    if evidence.architecture.activation != "relu":
        return verdict("AZ-28", evidence, Judgement.NOT_APPLICABLE, None, ERRORS, "the statement is about ReLU")
    scales = list(evidence.points[0].values)
    depths = sorted({p.at for p in evidence.points})
    worst, vague, means = -math.inf, False, {}
    for depth in depths:
        drawn = [p.values for p in evidence.points if p.at == depth]
        if len(drawn) < MIN_DRAWS:
            reason = f"{len(drawn)} draws at L={depth}, {MIN_DRAWS} are needed"
            return verdict("AZ-28", evidence, Judgement.INCONCLUSIVE, None, ERRORS, reason)
        for scale in scales:
            ratios = torch.tensor([values[scale] for values in drawn], dtype=torch.float64)
            tau = tau_of(scale, depth, evidence.architecture.width)
            low, high = (1 + tau**2) ** depth, (1 + 2 * tau**2) ** depth
            mean, error = float(ratios.mean()), float(ratios.std()) / len(drawn) ** 0.5
            off = max(low - mean, mean - high) / max(error, 1e-12 * high)
            worst = math.inf if math.isnan(off) else max(worst, off)
            vague |= ERRORS * error > high - low
            means[scale, depth] = mean
    status = Judgement.HOLDS if worst <= ERRORS else Judgement.VIOLATED
    if vague and status is Judgement.HOLDS:
        status = Judgement.INCONCLUSIVE
    side = f"inside by at least {-worst:.1f}" if worst <= 0 else f"outside by up to {worst:.1f}"
    ends = ", ".join(f"tau={s}: {means[s, depths[0]]:.3g} to {means[s, depths[-1]]:.3g}" for s in scales)
    reason = (
        f"the mean ratios are {side} standard errors of [(1+tau^2)^L, (1+2tau^2)^L]{', which is within the noise' if vague else ''}; "
        f"from L={depths[0]} to L={depths[-1]} they go, for {ends}"
    )
    return verdict("AZ-28", evidence, status, worst, ERRORS, reason)


EXTENSIONS = (
    Claim(
        "AZ-27",
        "The convolutional network keeps norms over all its points, and trains linearly.",
        "||h_l||/||x|| in [0.9, 1.1], with Var W_l = 2/(qm); F(k) <= (1 - eta mu)^k F(0)",
        "AZ Theorem 6; variances derived",
        "S, D",
        "images",
        "allen-zhu",
        convolutional,
    ),
    Claim(
        "AZ-28",
        "The residual network's norm stays within a bracket, bounded in the depth only for scales up to 1/sqrt(L).",
        "E||h_L||^2/||h_0||^2 in [(1+tau^2)^L, (1+2tau^2)^L]",
        "AZ Theorem 7; bracket derived",
        "S, D",
        "growth",
        "allen-zhu",
        residual_growth,
    ),
)
