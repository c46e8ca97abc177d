"""Finite-width Gram matrices: per-layer products of what a forward and a backward pass recorded."""

from zeroloss.gram.back import formula_gradient
from zeroloss.gram.products import tangent_operator
from zeroloss.gram.structured import gram, layer_grams, sample_blocks, traced_grams
from zeroloss.gram.trace import Call, forward, match, rows_of, trace
from zeroloss.gram.uses import check_uses

__all__ = [
    "Call",
    "check_uses",
    "formula_gradient",
    "forward",
    "gram",
    "layer_grams",
    "match",
    "rows_of",
    "sample_blocks",
    "tangent_operator",
    "trace",
    "traced_grams",
]
