"""Claims about what Du et al. print and what must be meant (THEORY 3.7; section 6, DU-02 and DU-11)."""

from __future__ import annotations

import math

from zeroloss.claims.claim import Claim, judge_slope, verdict
from zeroloss.claims.evidence import Rivals, Sweep
from zeroloss.claims.fits import fit_slope
from zeroloss.claims.verdict import Judgement, Verdict

NEARER = 2.0  # how many times nearer the corrected recursion must be
CLEAR = 4.0  # times the noise: two recursions nearer to each other than this are not told apart
REAL = 3.0  # times the noise: an error above this is no accident
SAME = 1e-9  # relative: two recursions this near are one
GROWTH = 0.5  # how far from 2 the exponent of the bound may be


def printed_recursions(evidence: Rivals) -> Verdict:
    """DU-02: the mean Gram of finite networks is at least twice nearer to the corrected recursion than to the printed one."""
    gaps = evidence.gaps
    if all(g.apart <= SAME for g in gaps.values()):
        reason = "the two recursions agree here: rows of one norm, or an activation of mean zero"
        return verdict("DU-02", evidence, Judgement.NOT_APPLICABLE, None, NEARER, reason)
    told = {name: g for name, g in gaps.items() if not g.apart <= CLEAR * g.noise}
    if not told:
        widest = max(gaps.values(), key=lambda g: g.apart / max(g.noise, 1e-300))
        reason = f"the recursions are {100 * widest.apart:.2g} % apart, and the draws' noise is {100 * widest.noise:.2g} %"
        return verdict("DU-02", evidence, Judgement.INCONCLUSIVE, None, NEARER, reason)
    ratios = {name: g.printed / max(g.ours, 1e-300) for name, g in told.items()}
    worst = min(ratios.values(), key=lambda ratio: -math.inf if math.isnan(ratio) else ratio)
    status = Judgement.HOLDS
    if not worst >= NEARER:  # an error of ours that the draws' noise explains refutes nothing
        real = any(not ratios[name] >= NEARER and not g.ours <= REAL * g.noise for name, g in told.items())
        status = Judgement.VIOLATED if real else Judgement.INCONCLUSIVE
    parts = [f"{n} is {100 * g.ours:.2g} % from ours and {100 * g.printed:.2g} % from the printed" for n, g in told.items()]
    reason = f"{', '.join(parts)}; at least {worst:.1f} times nearer"
    return verdict("DU-02", evidence, status, worst, NEARER, reason)


def iteration_complexity(evidence: Sweep) -> Verdict:
    r"""DU-11: at Theorem 6.1's step $\eta=\lambda H^2/n^2$ the bound on the steps grows like $H^2$, and the steps no faster.

    $(1-\eta\lambda/2)^T=\varepsilon$ gives $T\approx 2n^2/(\lambda^2H^2)\ln(1/\varepsilon)$, and $\lambda=\lambda_{\min}(K^{(H)})$
    falls like $H^{-2}$, which the text's $n^2\log(1/\varepsilon)$ leaves out.
    """
    bound = fit_slope(evidence, "bound")
    if any(math.isnan(p.values["bound"]) for p in evidence.points):
        reason = "lambda_min(K_H) is not positive at every depth, which the theorem excludes"
        return verdict("DU-11", evidence, Judgement.NOT_APPLICABLE, None, 2.0, reason)
    result = judge_slope("DU-11", evidence, fit_slope(evidence, "steps"), 2.0, "steps foretold at eta = lambda H^2/n^2")
    share = max(p.values["steps"] / p.values["bound"] for p in evidence.points)
    tail = f"; the bound's own slope is {bound.estimate:.2f}, where the text's n^2 has 0; the steps are at most {share:.2g} of the bound"
    status = Judgement.VIOLATED if share > 1 or abs(bound.estimate - 2) > GROWTH else result.status
    return verdict("DU-11", evidence, status, result.observed, 2.0, result.reason + tail, result.interval)


CORRECTIONS = (
    Claim(
        "DU-02",
        "Finite networks follow the corrected recursions, not those printed in Definitions 6.1 and 7.1.",
        "||E G(0) - G|| <= ||E G(0) - G_printed||/2",
        "DU Definitions 6.1 and 7.1; errors found here",
        "D",
        "printed",
        "du",
        printed_recursions,
    ),
    Claim(
        "DU-11",
        "At the theorem's step the residual network's steps grow at most like H^2, as its bound does; the text leaves H out.",
        "T <= 2 n^2/(lambda^2 H^2) ln(1/eps) = O(n^2 H^2), with eta = lambda H^2/n^2 and lambda = Theta(H^(-2))",
        "DU Theorem 6.1 against the text's n^2 log(1/eps)",
        "S, D",
        "depths",
        "du",
        iteration_complexity,
    ),
)
