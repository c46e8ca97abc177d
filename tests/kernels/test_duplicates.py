"""Rows that nearly coincide, vanish, or are no rows at all: the right limit or a clear error, never NaN in silence."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.kernels.long_double import long_double_ntk, near_duplicates
from zeroloss import fully_connected, limit_kernel
from zeroloss.networks import Erf

STATED = {torch.float64: 1e-13, torch.float32: 4e-6}  # the error of an entry, of the diagonal
CASES = [("relu", 1, 50), ("relu", 3, 784), ("relu", 10, 50), ("erf", 3, 50), ("gelu", 3, 50)]
LONG = np.finfo(np.longdouble).nmant > 60  # where it is not, the reference has fewer digits than what it judges


def smallest(kernel: torch.Tensor | np.ndarray) -> float:
    return float(np.linalg.eigvalsh(np.asarray(kernel, dtype=np.float64))[0])


@pytest.mark.parametrize(("activation", "depth", "d"), CASES)
def test_250_pairs_1e_4_apart_in_double_precision(activation, depth, d):
    x = near_duplicates(250, d, 1e-4)
    exact = long_double_ntk(x, depth, activation)
    ours = limit_kernel(fully_connected(d, 8, depth, activation=activation, scheme="du"))(torch.from_numpy(x))
    size = float(exact[0, 0])
    assert float(np.abs(ours.numpy() - exact).max()) < (STATED[torch.float64] if LONG else 2e-11) * size
    reference = smallest(exact)
    assert reference > 1e-10 * size  # so that the next lines mean something
    assert smallest(ours) == pytest.approx(reference, rel=1e-3)


@pytest.mark.parametrize(("activation", "depth", "d"), CASES)
def test_250_pairs_1e_4_apart_in_single_precision(activation, depth, d):
    """Rounded rows are other rows, whose own kernel is the reference."""
    x = near_duplicates(250, d, 1e-4, np.float32)
    exact = long_double_ntk(x, depth, activation)
    ours = limit_kernel(fully_connected(d, 8, depth, activation=activation, scheme="du"))(torch.from_numpy(x))
    assert ours.dtype == torch.float32
    size = float(exact[0, 0])
    assert float(np.abs(ours.numpy() - exact).max()) < STATED[torch.float32] * size
    assert smallest(ours) > -len(x) * STATED[torch.float32] * size


def test_relu_in_single_precision_has_no_negative_eigenvalue():
    """ReLU's smallest eigenvalue falls like the distance, so at 1e-4 single precision can and must keep its sign, and some digits."""
    x = near_duplicates(250, 784, 1e-4, np.float32)
    ours = limit_kernel(fully_connected(784, 8, 3, scheme="du"))(torch.from_numpy(x))
    assert smallest(ours) == pytest.approx(smallest(long_double_ntk(x, 3)), rel=0.1)


def test_the_order_of_rows_does_not_matter():
    """Pairs within a tile and across tiles are one rule."""
    x = torch.from_numpy(near_duplicates(400, 30, 1e-6))
    kernel = limit_kernel(fully_connected(30, 8, 3, scheme="du"))
    order = torch.randperm(800, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(kernel(x)[order][:, order], kernel(x[order]), rtol=0, atol=4e-13)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("activation", ["relu", "abs", "erf", "gelu", "softplus"])
def test_zero_rows_have_their_limit(activation, dtype):
    """What small rows tend to; a homogeneous activation gives zero."""
    net = fully_connected(6, 8, 3, activation=activation, scheme="du")
    x = near_duplicates(2, 6, 0.3)
    x[1] = 0
    tiny = x.copy()
    tiny[1] = 1e-9
    ours = limit_kernel(net)(torch.from_numpy(x).to(dtype))
    near = limit_kernel(net)(torch.from_numpy(tiny))
    assert torch.isfinite(ours).all()
    assert torch.allclose(ours.double(), near, rtol=0, atol=1e-5 if dtype == torch.float32 else 2e-8)
    if activation in ("relu", "abs"):
        assert torch.equal(ours[1], torch.zeros(4, dtype=dtype))


@pytest.mark.parametrize("x", [torch.zeros(3, 5), torch.zeros(3, 5, dtype=torch.float64)])
def test_nothing_but_zero_rows(x):
    for activation in (nn.ReLU, Erf):
        kernel = limit_kernel(nn.Sequential(nn.Linear(5, 8), activation(), nn.Linear(8, 1)))(x)
        assert torch.isfinite(kernel).all()
        assert torch.equal(kernel, kernel[:1, :1].expand(3, 3))  # one input three times over; the bias keeps it from zero


@pytest.mark.parametrize("activation", ["relu", "erf"])
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e12])
def test_sizes_far_from_one(activation, size):
    """ReLU is homogeneous at any size; erf tends to a linear map for small rows."""
    net = fully_connected(5, 8, 2, activation=activation, scheme="du")
    x = torch.from_numpy(near_duplicates(2, 5, 1e-3))
    if activation == "erf" and size > 1:
        pytest.skip("a saturated erf may be refused; test_dual asks")
    ours = limit_kernel(net)(x * size) / size**2
    assert torch.isfinite(ours).all()
    if activation == "relu":
        assert torch.allclose(ours, limit_kernel(net)(x), rtol=1e-12, atol=0)
    else:
        assert torch.allclose(ours, ours[0, 0] * (x @ x.T), rtol=1e-9, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_row_and_none(dtype):
    kernel = limit_kernel(fully_connected(5, 8, 3, scheme="du"))
    x = torch.from_numpy(near_duplicates(2, 5, 0.1)).to(dtype)
    assert kernel(x[:1]).shape == (1, 1)
    assert float(kernel(x[:1])) == pytest.approx(float(kernel(x)[0, 0]), rel=1e-6)
    for shape, ask in (((0, 0), lambda: kernel(x[:0])), ((0, 4), lambda: kernel(x[:0], x)), ((4, 0), lambda: kernel(x, x[:0]))):
        try:
            empty = ask()
        except ValueError as error:
            assert "0" in str(error) or "row" in str(error)  # noqa: PT017  # a refusal must say what is missing
        else:
            assert empty.shape == shape
            assert empty.dtype == dtype


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_integer_images_count_as_numbers(dtype):
    pixels = torch.arange(24).remainder(7).reshape(2, 3, 2, 2).to(dtype)
    net = fully_connected(12, 8, 2, scheme="du")
    ours = limit_kernel(net)(pixels)
    assert ours.dtype == torch.float64
    assert torch.equal(ours, limit_kernel(net)(pixels.to(torch.float64)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: (x.half(),), "float16"),
        (lambda x: (x.bfloat16(),), "bfloat16"),
        (lambda x: (x > 0,), "bool"),
        (lambda x: (x[:, :3],), "5 features"),
        (lambda x: (x, x[:, :3]), "x2 has 3 columns where x1 has 5"),
        (lambda x: (torch.where(x == x[1, 0], torch.nan, x),), "NaN"),
        (lambda x: (torch.where(x == x[1, 0], torch.inf, x),), "infinity"),
        (lambda x: (x, torch.where(x == x[1, 0], torch.nan, x)), "NaN"),
        (lambda x: (x[:, :0],), "at least one number"),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_no_row_is_refused(spoil, message, dtype):
    kernel = limit_kernel(fully_connected(5, 8, 2, scheme="du"))
    x = torch.from_numpy(near_duplicates(2, 5, 0.1)).to(dtype)
    with pytest.raises(ValueError, match=message):
        kernel(*spoil(x))
    if len(spoil(x)) == 1:
        with pytest.raises(ValueError, match=message):
            kernel.operator(spoil(x)[0]) @ np.ones(len(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", ["relu", "erf"])
def test_the_operator_is_the_kernel(activation, dtype):
    """On near duplicates, a zero row and unequal norms at once."""
    x = near_duplicates(30, 5, 1e-5)
    x[3] = 0
    x[4:9] *= 1.7
    rows = torch.from_numpy(x).to(dtype)
    kernel = limit_kernel(fully_connected(5, 8, 3, activation=activation, scheme="du"))
    vectors = np.random.default_rng(1).standard_normal((60, 3))
    told, whole = kernel.operator(rows) @ vectors, kernel(rows).double().numpy()
    size = np.abs(whole).max() * np.linalg.norm(vectors, axis=0).max() * 60**0.5
    assert np.abs(told - whole @ vectors).max() < STATED[dtype] * size
