r"""$JJ^\top$: from the Jacobian itself, a few million entries at a time, or from the product rule where that would take too long."""

from __future__ import annotations

from collections.abc import Iterator

from flint import arb, arb_mat

from zeroloss_verifier.balls import ZERO, Row, matrix, rows_of
from zeroloss_verifier.passes import AffineNode, Node, Passes, ResidualNode

ENTRIES_AT_ONCE = 1_000_000
EXPLICIT_WORK = 5_000_000_000  # multiplications of J with its transpose; above it, the product rule


def affine_nodes(nodes: list[Node]) -> Iterator[AffineNode]:
    """Every layer with weights, those inside skips too, in order."""
    for node in nodes:
        if isinstance(node, ResidualNode):
            yield from affine_nodes(node.nodes)
        elif isinstance(node, AffineNode):
            yield node


def jacobian_gram(passes: Passes, roots: Row, explicit_work: int = EXPLICIT_WORK) -> tuple[arb_mat, bool]:
    r"""$JJ^\top$ over the trained parameters, rows of J weighted by $\sqrt{w_i}$.

    Args:
        passes: both passes at the weights.
        roots: $\sqrt{w_i}$ of every sample.
        explicit_work: how many multiplications the product of an explicit Jacobian with its transpose may take, layer by layer.

    Returns:
        The N×N matrix, and whether all of it came from the explicit Jacobian.
    """
    size = passes.samples * passes.width
    total = arb_mat(size, size)
    whole = True
    for node in affine_nodes(passes.nodes):
        if not node.trained or node.adjoint is None:
            continue
        columns = node.weight.nrows() * (len(node.seen(0)[0]))
        if size * size * columns <= explicit_work or not node.windows.whole:
            for part in explicit_columns(node, passes.width):
                total = total + part * part.transpose()
        else:
            whole = False
            total = total + _by_product_rule(node, passes.width)
    if any(root != 1 for root in roots):
        row = [roots[i // passes.width] for i in range(size)]
        total = matrix([[entry * row[i] * row[j] for j, entry in enumerate(entries)] for i, entries in enumerate(rows_of(total))])
    return total, whole


def explicit_columns(node: AffineNode, width: int) -> Iterator[arb_mat]:
    r"""A layer's columns of the Jacobian, $\partial f_{i,o}/\partial W_{r,s}=\sum_{\text{positions}}T_{(i,o),r}\,h_{i,s}$, some at a time.

    Args:
        node: the layer.
        width: k.

    Yields:
        N×(some columns), unit by unit (a unit's bias after its weights).
    """
    assert node.adjoint is not None
    adjoint, places, units = rows_of(node.adjoint), len(node.windows.index), node.weight.nrows()
    step = max(1, ENTRIES_AT_ONCE // (len(adjoint) * len(node.seen(0)[0])))
    met = [node.seen(i) for i in range(len(adjoint) // width)]
    for first in range(0, units, step):
        chosen = range(first, min(first + step, units))
        rows: list[Row] = []
        for i, row in enumerate(adjoint):
            seen = met[i // width]
            if places == 1:
                rows.append([row[r] * h for r in chosen for h in seen[0]])
            else:
                back = matrix([row[r * places : (r + 1) * places] for r in chosen])
                rows.append((back * matrix(seen)).entries())
        yield matrix(rows)


def _by_product_rule(node: AffineNode, width: int) -> arb_mat:
    # one position: the rows are Kronecker products of T's row and the input's, so their products are products of products
    assert node.adjoint is not None
    size = node.adjoint.nrows()
    met = matrix([node.seen(i)[0] for i in range(size // width)])
    inner = rows_of(met * met.transpose())
    outer = rows_of(node.adjoint * node.adjoint.transpose())
    return matrix([[outer[i][j] * inner[i // width][j // width] for j in range(size)] for i in range(size)])


def residual_square(passes: Passes, targets: arb_mat, roots: Row) -> arb:
    r"""$\sum_iw_i\|f_i-y_i\|^2$."""
    return sum((entry * entry for entry in weighted_residual(passes, targets, roots)), ZERO)


def weighted_residual(passes: Passes, targets: arb_mat, roots: Row) -> Row:
    r"""$\sqrt{w_i}(f_{i,o}-y_{i,o})$, sample by sample."""
    return [entry * roots[i] for i, row in enumerate(rows_of(passes.outputs - targets)) for entry in row]
