r"""Norms at the given weights that every ball around them needs: of weights, of what layers meet, and of adjoints."""

from __future__ import annotations

from dataclasses import dataclass

from flint import arb, arb_mat

from zeroloss_verifier.balls import ONE, ZERO, Row, matrix, most, norm, rows_of, smaller, square_root, upper
from zeroloss_verifier.definite import largest_eigenvalue, spectral_norm
from zeroloss_verifier.geometry import Windows
from zeroloss_verifier.jacobian import affine_nodes
from zeroloss_verifier.passes import ActivationNode, AffineNode, FixedNode, Passes

UNROLLED = 400  # a convolution is written out as a matrix up to this side; beyond, two products of norms bound it
PATCHES_AT_ONCE = 2_000_000


@dataclass(frozen=True)
class AffineFacts:
    r"""A layer at the given weights.

    Args:
        met: $\|\sqrt w[H,1]\|_2$ of the weighted batch of what the trained parts meet; 0 where none is trained.
        met_rows: $\|[h_i,1]\|$ of every sample (all patches of an image together: their spectral norm).
        met_local: the same at every position.
        units: $\|W_{r,:}\|$ of every unit.
        adjoint: $\max_i\|T_i\|_2$.
    """

    met: arb
    met_rows: Row
    met_local: list[Row]
    units: Row
    adjoint: arb


@dataclass(frozen=True)
class ActivationFacts:
    r"""An activation at the given weights.

    Args:
        adjoint: $\max_i\|S_i\|_2$.
        adjoints: $\|S_i\|_2$.
        column: $\max_{i,r}\|(S_i)_{:,r}\|$.
        columns: $\max_r\|(S_i)_{:,r}\|$.
    """

    adjoint: arb
    adjoints: Row
    column: arb
    columns: Row


class BallFacts:
    """Computed when first asked for, and kept.

    Args:
        passes: both passes at the weights.
        roots: the square roots of the multiplicities.
    """

    def __init__(self, passes: Passes, roots: Row) -> None:
        self.width, self.roots = passes.width, roots
        self.trained = [node for node in affine_nodes(passes.nodes) if node.trained]

    def norm(self, node: AffineNode) -> arb:
        r"""An upper bound of the norm of $h\mapsto Wh$."""
        if "norm" not in node.facts:
            node.facts["norm"] = _map_norm(node)
        found = node.facts["norm"]
        assert isinstance(found, arb)
        return found

    def cover(self, node: AffineNode) -> arb:
        r"""$\sqrt q$, q the most windows that see one input: $\|\text{windows}(h)\|_F\le\sqrt q\|h\|$; 1 for a linear layer."""
        if "cover" not in node.facts:
            node.facts["cover"] = window_cover(node.windows)
        found = node.facts["cover"]
        assert isinstance(found, arb)
        return found

    def square(self, node: AffineNode) -> arb:
        r"""$\sqrt{\lambda_{\max}(K)}$ with $K_{ij}=\sqrt{w_iw_j}\,\|\Phi_i\Phi_j^\top\|_F^2$, $\Phi_i$ being what the layer meets.

        For U and V of norm 1, $\sum_iw_i\|\Phi_iU^\top\|^2\|\Phi_iV^\top\|^2$ is at most its square: a sum of products of
        $\langle\Phi_i^\top\Phi_i,U^\top U\rangle$ and $\langle\Phi_i^\top\Phi_i,V^\top V\rangle$, and $\|U^\top U\|_F\le1$.
        """
        if "square" not in node.facts:
            node.facts["square"] = self._square(node)
        found = node.facts["square"]
        assert isinstance(found, arb)
        return found

    def weighted(self, samples: Row) -> arb:
        r"""$\sqrt{\sum_iw_id_i^2}$."""
        return norm(root * d for root, d in zip(self.roots, samples, strict=True))

    def unweighted(self, batch: arb) -> Row:
        r"""$d/\sqrt{w_i}$: no sample can move more."""
        return [upper(batch / root) for root in self.roots]

    def _square(self, node: AffineNode) -> arb:
        samples = len(self.roots)
        met = [matrix(node.seen(i)) for i in range(samples)]
        if node.windows.whole:
            both = matrix([node.seen(i)[0] for i in range(samples)])
            inner = [[entry * entry for entry in row] for row in rows_of(both * both.transpose())]
        elif samples * met[0].ncols() ** 2 <= PATCHES_AT_ONCE:
            moments = matrix([(seen.transpose() * seen).entries() for seen in met])
            inner = rows_of(moments * moments.transpose())
        else:
            return arb("inf")
        roots = self.roots
        return square_root(
            largest_eigenvalue(matrix([[e * roots[i] * roots[j] for j, e in enumerate(row)] for i, row in enumerate(inner)]))
        )


def affine_facts(facts: BallFacts, node: AffineNode) -> AffineFacts:
    """Of one layer."""
    if "all" not in node.facts:
        node.facts["all"] = _affine(facts, node)
    found = node.facts["all"]
    assert isinstance(found, AffineFacts)
    return found


def activation_facts(facts: BallFacts, node: ActivationNode) -> ActivationFacts:
    """Of one activation with an adjoint."""
    if "all" not in node.facts:
        assert node.adjoint is not None
        blocks = _blocks(node.adjoint, facts.width)
        columns = [most(norm(column) for column in zip(*block, strict=True)) for block in blocks]
        adjoints = _block_norms(node.adjoint, facts.width)
        node.facts["all"] = ActivationFacts(most(adjoints), adjoints, most(columns), columns)
    found = node.facts["all"]
    assert isinstance(found, ActivationFacts)
    return found


def fixed_norm(node: FixedNode) -> arb:
    r"""Of a factor; of averages $\sqrt{\|M\|_1\|M\|_\infty}$, where every row of M sums to 1."""
    if node.windows is None:
        return upper(abs(node.factor))
    columns = [ZERO] * node.windows.inputs
    for window in node.windows.index:
        for at in window:
            columns[at] = columns[at] + arb(1) / len(window)
    return square_root(most(columns))


def _affine(facts: BallFacts, node: AffineNode) -> AffineFacts:
    samples = len(facts.roots)
    units = [norm(row) for row in rows_of(node.weight)]
    adjoint = ZERO if node.adjoint is None else most(_block_norms(node.adjoint, facts.width))
    if not node.trained:
        places = len(node.windows.index)
        return AffineFacts(ZERO, [ZERO] * samples, [[ZERO] * places for _ in range(samples)], units, adjoint)
    met = [node.seen(i) for i in range(samples)]
    local = [[norm(window) for window in seen] for seen in met]
    single = len(node.windows.index) == 1
    rows = [at[0] for at in local] if single else [spectral_norm(matrix(seen)) for seen in met]
    weighted = matrix(
        [[root * entry for entry in window] for root, seen in zip(facts.roots, met, strict=True) for window in seen]
    )
    whole = smaller(spectral_norm(weighted), facts.weighted(rows))
    return AffineFacts(whole, rows, local, units, adjoint)


def window_cover(windows: Windows) -> arb:
    r"""$\sqrt q$, q the most windows that see one input."""
    return ONE if windows.whole else square_root(arb(windows.repeats))


def _map_norm(node: AffineNode) -> arb:
    windows, weight = node.windows, node.weight
    if windows.whole:
        return spectral_norm(weight)
    # windows first and then the weight; or, the other way round, what every pixel receives first
    channels, rows = windows.channels, rows_of(weight)
    area = windows.columns // channels
    turned = matrix([[row[c * area + a] for row in rows for a in range(area)] for c in range(channels)])
    bound = smaller(
        upper(window_cover(windows) * spectral_norm(weight)), upper(square_root(arb(windows.received)) * spectral_norm(turned))
    )
    outputs = weight.nrows() * len(windows.index)
    if max(outputs, windows.inputs) > UNROLLED:
        return bound
    unrolled = [[ZERO] * windows.inputs for _ in range(outputs)]
    for r, row in enumerate(rows):
        for place, window in enumerate(windows.index):
            for at, entry in zip(window, row, strict=True):
                if at >= 0:
                    unrolled[r * len(windows.index) + place][at] = unrolled[r * len(windows.index) + place][at] + entry
    return smaller(bound, spectral_norm(matrix(unrolled)))


def _blocks(adjoint: arb_mat, width: int) -> list[list[Row]]:
    rows = rows_of(adjoint)
    return [rows[first : first + width] for first in range(0, len(rows), width)]


def _block_norms(adjoint: arb_mat, width: int) -> Row:
    if width == 1:
        return [norm(row) for row in rows_of(adjoint)]
    return [spectral_norm(matrix(block)) for block in _blocks(adjoint, width)]
