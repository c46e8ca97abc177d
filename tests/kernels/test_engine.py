"""Kernels of rows through a curve against the recursion over layers and against the slow twin of the compiled loops."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.cases import rows
from zeroloss import fully_connected, limit_kernel
from zeroloss.kernels import LimitKernel
from zeroloss.kernels.curve import Curve, Side
from zeroloss.kernels.engine import RowKernel, survey_sets
from zeroloss.kernels.pairs import input_pairs
from zeroloss.kernels.rows import angle_error
from zeroloss.kernels.tiles import tiles

ROWS = LimitKernel._rows
DTYPES = (torch.float32, torch.float64)


@pytest.fixture(autouse=True)
def _three_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tiles side by side, and curves for few pairs too."""
    monkeypatch.setattr(LimitKernel, "_rows", lambda self, first, second, few=0: ROWS(self, first, second, few=0))
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


RELU = limit_kernel(fully_connected(7, 16, 3))
ERF = limit_kernel(fully_connected(7, 16, 2, scheme="du", activation="erf"))


def recursion(kernel: LimitKernel, x1: Tensor, x2: Tensor | None = None) -> Tensor:
    """The kernel in float64, every entry through every layer."""
    first, second = x1.double(), None if x2 is None else x2.double()
    out = first.new_empty(len(first), len(first if second is None else second))
    for place, columns, tile in tiles(kernel.module, first, second, kernel._parts, kernel._read, kernel._initial):
        if second is None:
            out[columns, place] = tile.mT
        out[place, columns] = tile
    return out


def twin(kernel: LimitKernel, x1: Tensor, x2: Tensor | None, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """The kernel by torch alone, as on another device."""
    found = kernel._rows(x1, x2, few=0)
    assert found is not None
    out = x1.new_empty(found.shape)
    with monkeypatch.context() as here:
        here.setattr(RowKernel, "_compiled", property(lambda self: False))
        found.fill(out)
    return out


def hard_rows(n: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    """Rows of norms 0.5 to 1.5, with a zero row, exact and near duplicates, opposites, and multiples among them."""
    x = rows(n, 7, seed=seed, unit=False).to(dtype)
    if n > 8:
        x[1], x[2], x[3], x[4], x[5] = x[0], -x[0], 4 * x[0], -0.3 * x[0], 0
        x[6], x[7] = x[0] * (1 + 1e-5), -x[0] + 1e-4 * x[8]
        x[-1] = x[0]  # in another tile
    return x


def cone(n: int, dtype: torch.dtype) -> Tensor:
    """Rows that all lie within a degree or so of one another."""
    x = torch.nn.functional.normalize(torch.ones(1, 7, dtype=torch.float64) + 0.02 * rows(n, 7))
    assert float((x @ x.T).min()) > 0.999
    return x.to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("n", "columns"), [(1, None), (40, None), (513, None), (1030, 37), (37, 1030), (512, 1), (1, 1)])
def test_compiled_tiles_are_the_recursion(n, columns, dtype, monkeypatch):
    """Within the promised bound, which is no more than a few digits wide; equal to the twin; symmetric with an exact diagonal."""
    x, y = hard_rows(n, dtype), None if columns is None else hard_rows(columns, dtype, seed=1)
    if y is not None and columns > 8 and n > 8:
        y[10], y[11] = x[9], -x[9]
    ours, exact = RELU(x, y), recursion(RELU, x, y)
    bound = RELU.entry_error(x, y)
    assert float((ours - exact).abs().max()) <= bound
    assert bound < (1e-3 if dtype == torch.float32 else 1e-12) * float(exact.abs().max())
    assert float((ours - twin(RELU, x, y, monkeypatch)).abs().max()) <= bound / 4
    if y is None:
        assert torch.equal(ours, ours.T)
        eps = torch.finfo(dtype).eps
        assert torch.allclose(ours.diagonal().double(), exact.diagonal(), rtol=4 * eps, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_direction_keeps_every_digit(dtype):
    """Duplicates, opposites and multiples, within a set and across two: as exact as the curve; zero rows give exact zeros."""
    x = hard_rows(20, dtype)
    own = RELU._rows(x, None).curve.error
    for ours in (RELU(x), RELU(x, x.clone())):
        assert torch.allclose(ours[:2, 3], 4 * ours[0, :2], rtol=own, atol=0)
        assert torch.allclose(ours[0, 19], ours[0, 0], rtol=own, atol=0)
        opposite = float(recursion(RELU, x[:1], -x[:1]))
        assert float(ours[0, 2]) == pytest.approx(opposite, abs=own * float(ours[0, 0]))
        assert float(ours[0, 4]) == pytest.approx(0.3 * opposite, abs=own * float(ours[0, 0]))
        assert not ours[5].any()
        assert not ours[:, 5].any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_narrow_cone_loses_no_digits(dtype):
    """Where the rows' mean is taken off first: distances, not the kernel, keep their digits, in an angle 50 times as small."""
    x = cone(600, dtype)
    left = RELU._rows(x, None).left
    size = left.half[:, None] + left.half
    assert float(((size - left.centred @ left.centred.T) < 0.02 * size).double().mean()) < 0.02  # few are formed again
    near = (RELU(x) - recursion(RELU, x)).abs().max()
    assert float(near) < (2e-6 if dtype == torch.float32 else 2e-14) * float(RELU(x[:1]))
    off = (RELU(x[:300], x[300:]) - recursion(RELU, x[:300], x[300:])).abs().max()
    assert float(off) < (2e-6 if dtype == torch.float32 else 2e-14) * float(RELU(x[:1]))


def test_rows_too_small_to_invert_count_as_zero():
    """A row of denormal norm must not spoil the others; tiny and huge ones keep their digits."""
    x = rows(12, 7)
    scaled = x * torch.logspace(-100, 100, 12, dtype=torch.float64)[:, None]
    scaled[3] = x[3] * 1e-310
    exact = recursion(RELU, x) * torch.outer(scaled.norm(dim=1), scaled.norm(dim=1))
    keep = [i for i in range(12) if i != 3]
    ours = RELU(scaled)
    assert float(ours[3].abs().max()) < 1e-200
    assert torch.allclose(ours[keep][:, keep], exact[keep][:, keep], rtol=1e-11, atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("columns", [None, 70])
def test_out_may_be_anything(dtype, columns, tmp_path):
    """Contiguous, transposed, strided, of another dtype, or a file's memory: the same numbers."""
    x, y = hard_rows(530, dtype), None if columns is None else hard_rows(columns, dtype, seed=1)
    wanted = RELU(x, y)
    n, m = wanted.shape
    other = torch.float32 if dtype == torch.float64 else torch.float64
    kind = np.float32 if dtype == torch.float32 else np.float64
    file = np.lib.format.open_memmap(tmp_path / "K.npy", mode="w+", dtype=kind, shape=(n, m))
    wide = torch.full((n, 2 * m), -7.0, dtype=dtype)
    outs = [wide[:, ::2], torch.empty(m, n, dtype=dtype).T, torch.empty(n, m, dtype=other), torch.from_numpy(file)]
    for out in outs:
        assert RELU(x, y, out=out) is out
        assert torch.equal(out, wanted.to(out.dtype))
    assert bool((wide[:, 1::2] == -7).all())


def test_inputs_may_be_strided():
    x = hard_rows(40, torch.float64)
    wide = torch.zeros(40, 14, dtype=torch.float64)
    wide[:, ::2] = x
    assert torch.equal(RELU(wide[:, ::2], x.T.contiguous().T), RELU(x, x.clone()))


@pytest.mark.parametrize("dtype", DTYPES)
def test_one_norm_is_enough_for_modules_that_are_not_homogeneous(dtype):
    """Rows of one norm go through a curve of that norm, up to 4 roundings; others do not; the numbers agree on both sides."""
    x = 2 * rows(60, 7)
    x = x.to(dtype)
    eps = torch.finfo(dtype).eps
    assert ERF._rows(x, None, few=0) is not None
    assert float((ERF(x) - recursion(ERF, x)).abs().max()) <= ERF.entry_error(x)
    assert float((ERF(x[:20], x[20:]) - recursion(ERF, x[:20], x[20:])).abs().max()) <= ERF.entry_error(x[:20], x[20:])
    for factor, through in ((1 + 2 * eps, True), (1 + 40 * eps, False), (1.5, False)):
        y = x.clone()
        y[30:] *= factor
        assert (ERF._rows(y, None, few=0) is not None) == through
        assert float((ERF(y) - recursion(ERF, y)).abs().max()) <= ERF.entry_error(y)
    y = x.clone()
    y[3] = 0
    assert ERF._rows(y, None, few=0) is None
    assert float((ERF(y) - recursion(ERF, y)).abs().max()) <= ERF.entry_error(y)


def test_one_norm_holds_over_both_sets():
    x = rows(60, 7)
    assert ERF._rows(x[:30], x[30:], few=0) is not None
    assert ERF._rows(x[:30], 2 * x[30:], few=0) is None
    assert torch.allclose(ERF(x[:30], 2 * x[30:]), recursion(ERF, x[:30], 2 * x[30:]), rtol=1e-13)


def test_a_module_whose_flags_change_gets_another_curve():
    """One kernel object; a layer is frozen after its first call."""
    net, x = fully_connected(7, 16, 2), rows(40, 7)
    kernel = limit_kernel(net)
    before = kernel(x)
    net.W1.weight.requires_grad_(False)
    assert torch.allclose(kernel(x), limit_kernel(net)(x), rtol=1e-13)
    assert float((before - kernel(x)).min()) > 0


@pytest.mark.parametrize("dtype", DTYPES)
def test_few_and_many_pairs_agree(dtype, monkeypatch):
    """64 rows go through the recursion and 65 through a curve; the shared entries agree."""
    monkeypatch.setattr(LimitKernel, "_rows", ROWS)
    kernel, x = limit_kernel(fully_connected(7, 16, 3)), hard_rows(65, dtype)
    assert kernel._rows(x[:64], None) is None
    assert kernel._rows(x, None) is not None
    few = limit_kernel(fully_connected(7, 16, 3))(x[:64])
    assert float((few - kernel(x)[:64, :64]).abs().max()) <= kernel.entry_error(x)


def test_two_dtypes_are_computed_in_float64():
    x, y = hard_rows(40, torch.float32), hard_rows(30, torch.float64, seed=1)
    for pair in ((x, y), (y, x)):
        exact = recursion(RELU, *pair)
        assert float((RELU(*pair).double() - exact).abs().max()) < 1e-6 * float(exact.max())


@pytest.mark.parametrize("kernel", [RELU, ERF], ids=["relu", "erf"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("right", [(), (1,), (9,)], ids=str)
def test_an_operator_is_the_kernel(kernel, dtype, right):
    """Over several tiles, for one and many right-hand sides and in both directions; another length is refused."""
    x = rows(530, 7, unit=kernel is ERF).to(dtype)
    vectors = np.random.default_rng(0).standard_normal((530, *right))
    operator, exact = kernel.operator(x), recursion(kernel, x).numpy() @ vectors
    scale = 1e-5 if dtype == torch.float32 else 1e-12
    for product in (operator @ vectors, operator.T @ vectors):
        assert product.shape == vectors.shape
        assert np.abs(product - exact).max() < scale * np.abs(exact).max()
    assert operator.dtype == (np.float32 if dtype == torch.float32 else np.float64)
    with pytest.raises(ValueError, match="dimension mismatch"):
        operator @ np.ones((529, *right))


def test_an_operator_of_a_recursion_is_the_kernel():
    """Unequal norms of a module that is not homogeneous: no curve."""
    x = hard_rows(40, torch.float64)
    vectors = np.random.default_rng(0).standard_normal((40, 3))
    assert np.allclose(ERF.operator(x) @ vectors, recursion(ERF, x).numpy() @ vectors, rtol=1e-11)


def test_no_rows_give_an_empty_kernel():
    x = rows(5, 7)
    assert RELU(x[:0]).shape == (0, 0)
    assert RELU(x, x[:0]).shape == (5, 0)


def test_the_centre_is_the_mean_of_unit_rows():
    x = hard_rows(30, torch.float64)
    surveyed = survey_sets(x, None)
    lengths = x.norm(dim=1, keepdim=True)
    assert torch.allclose(surveyed.norms[0][:, None], lengths, rtol=1e-15)
    assert torch.allclose(surveyed.centre, torch.where(lengths > 0, x / lengths, 0.0).mean(0), atol=1e-16, rtol=1e-13)
    assert surveyed.one_norm is None


def test_two_python_threads_get_their_own_kernels():
    """Called at the same time, again and again, with other inputs each; no call may see the other's threads."""
    inputs = [hard_rows(700, torch.float32, seed=s) for s in range(2)]
    wanted = [RELU(x) for x in inputs]
    wrong: list[object] = []

    def again(which: int) -> None:
        try:
            results = [RELU(inputs[which]) for _ in range(12)]
            wrong.extend(which for result in results if not torch.equal(result, wanted[which]))
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=again, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_first_layer_that_does_not_meet_the_rows_has_no_curve():
    """An activation before any weights sees the rows' own numbers, which their angle does not tell."""
    assert (
        limit_kernel(nn.Sequential(nn.Flatten(), nn.Linear(7, 4), nn.ReLU(), nn.Linear(4, 1)))._rows(rows(9, 7), None) is not None
    )
    assert limit_kernel(nn.Sequential(nn.ReLU(), nn.Linear(7, 4)))._rows(rows(9, 7), None) is None
    assert RELU._rows(rows(9, 6), None) is None


@pytest.mark.parametrize("dtype", DTYPES)
def test_an_angle_errs_by_no_more_than_it_may(dtype):
    """Of long rows, just not near enough to be formed again: the bound is for any order of summation, and above what is seen."""
    x = torch.rand(60, 2000, dtype=torch.float64) ** 3 + 0.001
    x = torch.cat([x, x + 0.12 * torch.rand(60, 2000, dtype=torch.float64)]).to(dtype)
    line = Curve(1.0, Side(False, 0.0, (0.5, -0.5)), Side(False, 0.0, (-0.5, 0.5)), 0.0, 1.0)  # the cosine
    out = torch.empty(120, 120, dtype=dtype)
    survey_sets(x, None).kernel(line, homogeneous=False).fill(out)
    unit = torch.nn.functional.normalize(x.double())
    exact = input_pairs(unit).angle
    seen = (2 * torch.atan2((1 - out.double()).clamp(min=0).sqrt(), (1 + out.double()).sqrt()) - exact).abs()
    off = seen[exact > 0.3].max()
    assert float(off) <= angle_error(dtype, 2000) < 15 * 2010 * torch.finfo(dtype).eps
