r"""A Lipschitz constant $\Lambda(R)$ of the Jacobian on the ball of radius R, in the spectral norm.

$\|J(\theta)-J(\theta')\|\le\|\theta-\theta'\|\sup\|D^2f[u,v]\|$ over the ball and unit u, v; it is a sum over stages:
$$D^2f[u,v]=\sum_{\text{affine}}T\,(V\dot H[u]+U\dot H[v])+\sum_{\text{activations}}S\,(\sigma''(z)\circ\dot Z[u]\circ\dot Z[v]).$$
With $p_j,q_j$ the norms of u's and v's parts in stage j, $\|\dot H[U_j]\|_F\le A_jp_j$ and $\max_i\|\dot h_i[U_j]\|\le\tilde A_jp_j$,
stage l's first term is at most $D_l\sqrt{q}\,A_j(p_jq_l+p_lq_j)$ and an activation's at most
$c_2B\min(\tilde A_jA_k,A_j\tilde A_k)p_jq_k$, D and B being bounds of the adjoint's blocks and of its columns:
$\|S_iw\|\le B\sum_r|w_r|$ and $\sum_r|a_rb_r|\le\|a\|\|b\|$. So $\Lambda\le\|M\|_2$ for a small nonnegative M; rows of a sample of
multiplicity w weigh $\sqrt w$ in the norms of the batch. Everything is a supremum over the ball: the value at the given weights plus
its drift (CERTIFICATE, "Lipschitz constant").
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zeroloss.certificate.facts import ActivationFacts, AffineFacts, Facts, ForkFacts, JoinFacts, LinearFacts
from zeroloss.certificate.rounding import up
from zeroloss.certificate.spectral_bounds import perron_bound

SLACK = 1 + 1e-6  # far more than the rounding of these sums of nonnegative numbers, so that other programs find no larger bound


@dataclass
class _State:
    """Values that flow forward: drifts of the batch and of each sample, and first-order coefficients by trained stage."""

    batch: float
    sample: Tensor
    entry: Tensor | None  # drift entry by entry, where kinks are to be decided
    first: dict[int, float] = field(default_factory=dict)
    first_rows: dict[int, float] = field(default_factory=dict)

    def times(self, factor: float) -> _State:
        entry = None if self.entry is None else self.entry * factor
        scale = {j: a * factor for j, a in self.first.items()}, {j: a * factor for j, a in self.first_rows.items()}
        return _State(self.batch * factor, self.sample * factor, entry, *scale)

    def plus(self, other: _State) -> _State:
        entry = None if self.entry is None or other.entry is None else self.entry + other.entry
        both = [
            {j: mine.get(j, 0.0) + theirs.get(j, 0.0) for j in sorted({*mine, *theirs})}
            for mine, theirs in ((self.first, other.first), (self.first_rows, other.first_rows))
        ]
        return _State(self.batch + other.batch, self.sample + other.sample, entry, *both)


def lipschitz_bound(facts: tuple[Facts, ...], samples: int, radius: float) -> float:
    r"""$\Lambda(R)$; for piecewise linear activations it holds where :func:`cell_margin` says that no piece is left.

    Args:
        facts: of every op.
        samples: n.
        radius: R.

    Returns:
        The constant; 0 where f is affine in what is trained.
    """
    states = forward_states(facts, samples, radius)
    trained = [place for place, fact in enumerate(facts) if isinstance(fact, AffineFacts) and fact.trained]
    index = {place: i for i, place in enumerate(trained)}
    m = torch.zeros(len(trained), len(trained), dtype=torch.float64)
    drift, bound, base = 0.0, 1.0, 1.0  # of the adjoint at the current output: its drift, its supremum, its value
    kept: list[tuple[float, float]] = []
    for place in range(len(facts) - 1, -1, -1):
        fact, entering = facts[place], states[place]
        if not isinstance(fact, (ForkFacts, JoinFacts)):
            base = 1.0 if place == len(facts) - 1 else fact.adjoint
            bound = min(bound, base + drift)
        match fact:
            case AffineFacts():
                if "weight" in fact.trained:
                    for j, a in entering.first.items():
                        value = bound * fact.weights.cover * a
                        m[index[j], index[place]] += value
                        m[index[place], index[j]] += value
                omega = fact.weights.norm + fact.reach * radius
                drift, bound = drift * omega + base * fact.reach * radius, bound * omega
            case ActivationFacts():
                if fact.sigma.c2 > 0:
                    columns = fact.sigma.c2 * min(fact.columns + drift, bound)
                    for j, a in entering.first.items():
                        for i, b in entering.first.items():
                            product = min(entering.first_rows[j] * b, a * entering.first_rows[i])
                            if fact.squares is not None:
                                product = min(product, fact.squares)
                            m[index[j], index[i]] += columns * product
                drift = fact.sigma.c1 * drift + fact.sigma.c2 * fact.columns * float(entering.sample.max())
                bound = fact.sigma.c1 * bound
            case LinearFacts():
                drift, bound = drift * fact.norm, bound * fact.norm
            case JoinFacts():
                kept.append((drift, bound))
            case ForkFacts():
                other = kept.pop()
                drift, bound = drift + other[0], bound + other[1]
    if not bool(torch.isfinite(m).all()):
        return math.inf
    return perron_bound(m) * SLACK


def forward_states(facts: tuple[Facts, ...], samples: int, radius: float, entries: bool = False) -> list[_State]:
    """Drifts and first-order coefficients at what enters every op.

    Args:
        facts: of every op.
        samples: n.
        radius: R.
        entries: whether to follow drifts entry by entry too.

    Returns:
        One state for every op.
    """
    zero = torch.zeros(samples, dtype=torch.float64)
    dimensions = next((fact.met_local.ndim for fact in facts if isinstance(fact, AffineFacts)), 2)
    state = _State(0.0, zero, zero.reshape(-1, *[1] * (dimensions - 1)) if entries else None)
    found, kept = [], []
    for place, fact in enumerate(facts):
        found.append(state)
        match fact:
            case AffineFacts():
                state = _after_affine(place, fact, state, radius)
            case ActivationFacts():
                state = state.times(fact.sigma.c1)
            case LinearFacts():
                state = _after_linear(fact, state)
            case ForkFacts():
                kept.append(state)
            case JoinFacts():
                state = kept.pop().plus(state)
    return found


def cell_margin(facts: tuple[Facts, ...], samples: int, radius: float) -> float:
    r"""How far every pre-activation is from its kinks, in units of the most it can move in the ball (the cell lemma).

    Args:
        facts: of every op.
        samples: n.
        radius: R.

    Returns:
        The smallest ratio $(|z-\text{kink}|-\text{radius of }z)/\Delta$: above 1, no piece is left; infinite without kinks.
    """
    if not any(isinstance(fact, ActivationFacts) and fact.gap is not None for fact in facts):
        return math.inf
    worst = math.inf
    for fact, state in zip(facts, forward_states(facts, samples, radius, entries=True), strict=True):
        if isinstance(fact, ActivationFacts) and fact.gap is not None and state.entry is not None:
            ratio = fact.gap / (up(state.entry, 64) * SLACK + 1e-300)
            least = float(ratio.min())
            worst = min(worst, least if not math.isnan(least) else -math.inf)
    return worst


def _after_affine(place: int, fact: AffineFacts, state: _State, radius: float) -> _State:
    weights = fact.weights
    own = radius if fact.trained else 0.0
    moved = state.times(weights.norm)
    batch = moved.batch + own * (fact.met + fact.reach * state.batch)
    sample = moved.sample + own * (fact.met_rows + fact.reach * state.sample)
    entry = None
    if state.entry is not None:
        units = (1, -1, *[1] * (fact.met_local.ndim - 2))
        spread = state.sample.reshape(-1, *[1] * (fact.met_local.ndim - 1))
        into = 1.0 if "weight" in fact.trained else 0.0
        entry = weights.rows.reshape(units) * spread + own * (fact.met_local + into * spread)
    omega = weights.norm + fact.reach * radius
    first = {j: a * omega for j, a in state.first.items()}
    first_rows = {j: a * omega for j, a in state.first_rows.items()}
    if fact.trained:
        first[place] = fact.met + fact.reach * state.batch
        first_rows[place] = float((fact.met_rows + fact.reach * state.sample).max())
    return _State(batch, sample, entry, first, first_rows)


def _after_linear(fact: LinearFacts, state: _State) -> _State:
    moved = state.times(fact.norm)
    if state.entry is not None and fact.shape != "kept":  # an entry moves no more than its sample
        dimensions = 2 if fact.shape == "flattened" else state.entry.ndim
        moved.entry = moved.sample.reshape(-1, *[1] * (dimensions - 1))
    return moved
