"""Finite-width Gram matrices of any module: per-layer products of what a forward and a backward pass recorded."""

from zeroloss.gram.back import formula_gradient
from zeroloss.gram.plan import Plan, make_plan
from zeroloss.gram.products import jacobian_operator, tangent_operator
from zeroloss.gram.structured import gram, layer_grams, sample_blocks, traced_grams
from zeroloss.gram.trace import Call, forward, match, own_copy, rows_of, trace

__all__ = [
    "Call",
    "Plan",
    "formula_gradient",
    "forward",
    "gram",
    "jacobian_operator",
    "layer_grams",
    "make_plan",
    "match",
    "own_copy",
    "rows_of",
    "sample_blocks",
    "tangent_operator",
    "trace",
    "traced_grams",
]
