r"""A Lipschitz constant of the Jacobian on the ball $\|\theta-\theta_0\|\le R$, and whether any unit changes its linear piece on it.

Along every path through the network three kinds of numbers are carried, all upper bounds that hold at every $\theta$ of the ball:

- forward, *drifts* $\|H(\theta)-H(\theta_0)\|_F$ of the weighted batch, $\|h_i(\theta)-h_i(\theta_0)\|$ of every sample and
  $|h_{i,r}(\theta)-h_{i,r}(\theta_0)|$ of every entry;
- forward, *multipliers* $m_{pj}$: moving the output of layer j by $\delta$ moves point p by at most $m_{pj}\|\delta\|$;
- backward, the adjoint's norm at the weights, its drift, and its supremum.

With $\|\partial z_j[U]\|_F\le\eta_j\|U\|_F$ over the batch and $\tilde\eta_j$ for one sample, the second derivative
$D^2f[u,v]=\sum_l T_l(V_l\dot h[u]+U_l\dot h[v])+\sum_a S_a(\sigma''(z_a)\circ\dot z_a[u]\circ\dot z_a[v])$ has norm at most
$p^\top Mq$, where p and q hold the norms of u's and v's parts by layer, so that $\Lambda=\|M\|_2$ is a Lipschitz constant.
"""

from __future__ import annotations

from dataclasses import dataclass

from flint import arb

from zeroloss_verifier.balls import ONE, ZERO, Row, matrix, most, smaller, upper
from zeroloss_verifier.definite import is_semidefinite
from zeroloss_verifier.facts import BallFacts, activation_facts, affine_facts, fixed_norm
from zeroloss_verifier.geometry import Windows
from zeroloss_verifier.outcome import UnprovenError
from zeroloss_verifier.passes import ActivationNode, AffineNode, FixedNode, Node, Passes


@dataclass
class Drift:
    """How far a point can move: the batch, every sample, every entry; and the multipliers by layer."""

    batch: arb
    sample: Row
    entry: list[Row]
    multipliers: dict[int, arb]

    def copy(self) -> Drift:
        """One of its own."""
        return Drift(self.batch, list(self.sample), [list(row) for row in self.entry], dict(self.multipliers))


@dataclass(frozen=True)
class LayerOnBall:
    r"""A trained layer on the ball: $\eta$, $\tilde\eta$, and what replaces $\eta\tilde\eta$ between the layer and itself."""

    batch: arb
    sample: arb
    square: arb


class Ball:
    """One ball around the weights; ``coefficients`` is M as a dictionary, both triangles.

    Args:
        passes: both passes at the weights.
        facts: norms at the weights, shared between balls.
        radius: R.

    Raises:
        UnprovenError: where a unit may change its piece inside the ball.
    """

    def __init__(self, passes: Passes, facts: BallFacts, radius: arb) -> None:
        self.facts, self.radius, self.width = facts, radius, passes.width
        self.layers: dict[int, LayerOnBall] = {}
        self.place = {id(node): j for j, node in enumerate(facts.trained)}
        self.before: dict[int, Drift] = {}
        self.suprema: dict[int, arb] = {}  # of the adjoint at every node's output
        self.coefficients: dict[tuple[int, int], arb] = {}
        still = Drift(ZERO, [ZERO] * passes.samples, [[ZERO] * passes.inputs for _ in range(passes.samples)], {})
        self._forward(passes.nodes, still)
        self._backward(passes.nodes, ZERO, ONE)

    def has_lipschitz(self, claimed: arb) -> bool:
        r"""Whether $\|M\|_2$ is at most this: $\Lambda I-M\succeq0$, M being symmetric with nonnegative entries."""
        size = len(self.facts.trained)
        # both triangles are bounds of the same numbers, and may differ in the last bit: one of them serves for both
        M = [[self.coefficients.get((max(a, b), min(a, b)), ZERO) for b in range(size)] for a in range(size)]
        rows = [[(claimed if a == b else ZERO) - entry for b, entry in enumerate(row)] for a, row in enumerate(M)]
        return is_semidefinite(matrix(rows))

    # forward

    def _forward(self, nodes: list[Node], drift: Drift) -> Drift:
        for node in nodes:
            if isinstance(node, AffineNode):
                drift = self._after_affine(node, drift)
            elif isinstance(node, ActivationNode):
                drift = self._after_activation(node, drift)
            elif isinstance(node, FixedNode):
                drift = _after_fixed(node, drift)
            else:
                inside = self._forward(node.nodes, drift.copy())
                drift = _sum(drift, inside)
        return drift

    def _reach(self, node: AffineNode) -> arb:
        # how much the map of the layer's input can change when its weight changes by R
        return self.facts.cover(node) * self.radius if "weight" in node.trained else ZERO

    def _after_affine(self, node: AffineNode, drift: Drift) -> Drift:
        self.before[id(node)] = drift
        if node.constant and not node.trained:
            outputs = node.weight.nrows() * len(node.windows.index)
            return Drift(ZERO, drift.sample, [[ZERO] * outputs for _ in drift.sample], {})
        facts = affine_facts(self.facts, node)
        norm = ZERO if node.constant else self.facts.norm(node)
        omega = upper(norm + self._reach(node))
        own = self.radius if node.trained else ZERO
        sample = [upper(omega * d + own * met) for d, met in zip(drift.sample, facts.met_rows, strict=True)]
        batch = smaller(upper(omega * drift.batch + own * facts.met), self.facts.weighted(sample))
        batch_rows = self.facts.unweighted(batch)
        sample = [smaller(d, bound) for d, bound in zip(sample, batch_rows, strict=True)]
        into = self.radius if "weight" in node.trained else ZERO
        entry = []
        for i, bound in enumerate(sample):
            local = [upper(own * met + into * drift.sample[i]) for met in facts.met_local[i]]
            entry.append([smaller(upper(unit * drift.sample[i] + at), bound) for unit in facts.units for at in local])
        multipliers = {j: upper(m * omega) for j, m in drift.multipliers.items()}
        if node.trained:
            j = self.place[id(node)]
            multipliers[j] = ONE
            cover = self.facts.cover(node) if "weight" in node.trained else ZERO
            eta = upper(facts.met + cover * drift.batch)
            eta_row = most(met + cover * d for met, d in zip(facts.met_rows, drift.sample, strict=True))
            square = upper(eta * eta_row)
            self.layers[j] = LayerOnBall(eta, eta_row, smaller(square, self.facts.square(node)) if node.constant else square)
        return Drift(batch, sample, entry, multipliers)

    def _after_activation(self, node: ActivationNode, drift: Drift) -> Drift:
        self.before[id(node)] = drift
        function = node.function
        if function.kinks and not node.constant:
            for row, moves in zip(node.inputs, drift.entry, strict=True):
                for z, move in zip(row, moves, strict=True):
                    if not all(abs(z - kink) > move for kink in function.kinks):
                        raise UnprovenError("a pre-activation may cross a kink inside the ball")
        c1 = upper(function.c1)
        return _scaled(drift, c1)

    # backward

    def _backward(self, nodes: list[Node], drift: arb, cap: arb) -> tuple[arb, arb]:
        """From the adjoint's drift and a bound of its supremum at the output, to both at the input; M is added to on the way."""
        for node in reversed(nodes):
            if isinstance(node, AffineNode):
                drift, cap = self._through_affine(node, drift, cap)
            elif isinstance(node, ActivationNode):
                drift, cap = self._through_activation(node, drift, cap)
            elif isinstance(node, FixedNode):
                norm = fixed_norm(node)
                drift, cap = upper(drift * norm), upper(cap * norm)
            else:
                inside = self._backward(node.nodes, drift, cap)
                drift, cap = upper(drift + inside[0]), upper(cap + inside[1])
        return drift, cap

    def _through_affine(self, node: AffineNode, drift: arb, cap: arb) -> tuple[arb, arb]:
        if node.adjoint is None or node.constant:
            return ZERO, ZERO  # before it nothing moves, and nothing is asked
        base = affine_facts(self.facts, node).adjoint
        bound = self.suprema[id(node)] = smaller(cap, upper(base + drift))
        if "weight" in node.trained:
            j = self.place[id(node)]
            for other, m in self.before[id(node)].multipliers.items():
                value = bound * self.facts.cover(node) * self.layers[other].batch * m
                self._add(other, j, value)
                self._add(j, other, value)
        reach = self._reach(node)
        omega = upper(self.facts.norm(node) + reach)
        return upper(drift * omega + base * reach), upper(bound * omega)

    def _through_activation(self, node: ActivationNode, drift: arb, cap: arb) -> tuple[arb, arb]:
        if node.adjoint is None or node.constant:
            return ZERO, ZERO
        facts, function = activation_facts(self.facts, node), node.function
        before = self.before[id(node)]
        bound = self.suprema[id(node)] = smaller(cap, upper(facts.adjoint + drift))
        c1, c2 = upper(function.c1), upper(function.c2)
        if c2 > 0:
            column = smaller(upper(facts.column + drift), bound)
            for a, first in before.multipliers.items():
                for b, second in before.multipliers.items():
                    p, q = self.layers[a], self.layers[b]
                    pair = p.square if a == b else smaller(upper(p.sample * q.batch), upper(p.batch * q.sample))
                    self._add(a, b, c2 * column * first * second * pair)
        turned = most(
            smaller(upper(facts.columns[i] * before.sample[i]), upper(facts.adjoints[i] * most(before.entry[i])))
            for i in range(len(before.sample))
        )
        return upper(c1 * drift + c2 * turned), upper(c1 * bound)

    def _add(self, first: int, second: int, value: arb) -> None:
        self.coefficients[first, second] = upper(self.coefficients.get((first, second), ZERO) + value)


def _scaled(drift: Drift, factor: arb) -> Drift:
    return Drift(
        upper(drift.batch * factor),
        [upper(d * factor) for d in drift.sample],
        [[upper(d * factor) for d in row] for row in drift.entry],
        {j: upper(m * factor) for j, m in drift.multipliers.items()},
    )


def _after_fixed(node: FixedNode, drift: Drift) -> Drift:
    moved = _scaled(drift, upper(fixed_norm(node)))
    if node.windows is not None:
        moved.entry = [_averaged(node.windows, row, bound) for row, bound in zip(drift.entry, moved.sample, strict=True)]
    return moved


def _averaged(windows: Windows, row: Row, bound: arb) -> Row:
    return [smaller(upper(sum((row[at] for at in window), ZERO) / len(window)), bound) for window in windows.index]


def _sum(first: Drift, second: Drift) -> Drift:
    multipliers = dict(second.multipliers)
    for j, m in first.multipliers.items():
        multipliers[j] = upper(m + multipliers.get(j, ZERO))
    return Drift(
        upper(first.batch + second.batch),
        [upper(p + q) for p, q in zip(first.sample, second.sample, strict=True)],
        [[upper(p + q) for p, q in zip(a, b, strict=True)] for a, b in zip(first.entry, second.entry, strict=True)],
        multipliers,
    )
