"""Products of slices are exact, in whatever order they are summed, and affine maps in twice the precision are what they claim."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch

from zeroloss.certificate.exact_product import slice_bits, slices, two_product, two_sum
from zeroloss.certificate.stages import Chain, Linear


@pytest.mark.parametrize("terms", [1, 2, 3, 64, 1000, 4096])
def test_slices_are_whole_numbers_that_multiply_exactly(terms):
    bits = slice_bits(terms)
    sizes = torch.tensor([[1.0], [1e200], [1e-200]], dtype=torch.float64)
    rows = torch.randn(3, terms, dtype=torch.float64, generator=torch.Generator().manual_seed(terms)) * sizes
    parts, exponents, rest = slices(rows, bits)
    for part in parts:
        assert bool((part == part.round()).all())
        assert float(part.abs().max()) <= 2.0**bits
    assert terms * 2 ** (2 * bits) <= 2**53
    for i in range(3):
        for j in range(0, terms, max(1, terms // 5)):
            total = sum(
                Fraction(float(p[i, j])) * Fraction(2) ** (int(exponents[i]) - (s + 1) * bits) for s, p in enumerate(parts)
            )
            assert total + Fraction(float(rest[i, j])) == Fraction(float(rows[i, j]))
    assert float((rest.abs() / rows.abs().amax(1, keepdim=True)).max()) <= 2.0 ** (-3 * bits)


def test_a_row_of_zeros_has_no_slices():
    parts, _, rest = slices(torch.zeros(2, 3, dtype=torch.float64), 20)
    assert not any(bool(p.any()) for p in parts)
    assert not bool(rest.any())


def test_sums_and_products_keep_their_error():
    a, b = torch.randn(2, 100, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total, lost = two_sum(a, b * 1e-9)
    product, left = two_product(a, 0.3)
    for i in range(100):
        assert Fraction(float(total[i])) + Fraction(float(lost[i])) == Fraction(float(a[i])) + Fraction(float(b[i] * 1e-9))
        assert Fraction(float(product[i])) + Fraction(float(left[i])) == Fraction(float(a[i])) * Fraction(0.3)


def test_an_affine_map_in_twice_the_precision():
    """Against exact rational arithmetic, inputs that cancel to the last bit included."""
    from zeroloss.certificate.enclosure import enclose_forward

    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(4, 30, dtype=torch.float64, generator=generator)
    x = torch.randn(3, 30, dtype=torch.float64, generator=generator)
    bias = -(x[:1] @ weight.T)[0]
    ball = enclose_forward(Chain((Linear("w", "b"),), {"w": weight, "b": bias}), x, extended=True).outputs
    assert ball.low is not None
    for i in range(3):
        for r in range(4):
            exact = sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(x[i], weight[r], strict=True)) + Fraction(
                float(bias[r])
            )
            gap = abs(exact - Fraction(float(ball.mid[i, r])) - Fraction(float(ball.low[i, r])))
            assert gap <= Fraction(float(ball.radius[i, r]))
            assert gap <= Fraction(float(ball.error[i]))
    assert float(ball.error.max()) < 1e-26
