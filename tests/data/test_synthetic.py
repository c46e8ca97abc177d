"""Synthetic sets: the property that each was made for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from zeroloss.data import (
    SYNTHETIC,
    antipodal_pairs,
    load,
    pad,
    parallel_pair,
    parity,
    sphere,
    teacher,
    two_clusters,
    xor,
)
from zeroloss.errors import ArgumentError


@pytest.mark.parametrize("name", SYNTHETIC)
def test_all(name: str) -> None:
    data, again, other = (load(f"synthetic/{name}", n=n, seed=seed) for n, seed in ((None, 0), (100, 0), (100, 1)))
    assert (data.n, data.name) == (100, f"synthetic/{name}")
    assert data.x.equal(again.x)
    assert data.y.equal(again.y)
    assert not data.x.equal(other.x)
    norms = data.x.norm(dim=1)
    assert bool(((norms - 1).abs() < 1e-14).sum() >= (99 if name == "parallel_pair" else 100))
    assert data.separation > 0
    if name != "teacher":
        assert data.labels is not None
        assert data.y[:, 0].tolist() == [2.0 * label - 1 for label in data.labels.tolist()]
    assert load(f"synthetic/{name}", normalise="padded").x.equal(pad(data.x))


def test_sphere_is_uniform() -> None:
    x = sphere(20_000, 3, seed=5).x
    assert float(x.mean(0).abs().max()) < 5 / (3 * 20_000) ** 0.5
    assert float((x.T @ x / 20_000 - torch.eye(3) / 3).abs().max()) < 0.02


@pytest.mark.parametrize("delta", [1e-300, 1e-160, 1e-12, 1e-6, 0.1, 0.3, 1.0])
def test_two_clusters(delta: float) -> None:
    data = two_clusters(20, 8, delta=delta)
    assert abs(data.separation / delta - 1) <= 1e-12
    assert data.nearest.tolist() == pytest.approx([delta] * 20, rel=1e-12)
    assert data.y[:, 0].tolist() == [-1.0, 1.0] * 10


def test_xor_is_not_linear() -> None:
    data = xor(400)
    design = torch.cat([data.x, torch.ones(400, 1, dtype=torch.float64)], 1)
    fit = design @ torch.linalg.lstsq(design, data.y).solution
    assert float((fit - data.y).square().mean()) > 0.95
    assert float((data.x.prod(1).sign() - data.y[:, 0]).abs().max()) == 0


def test_teacher_is_of_order_one() -> None:
    squares = [float(teacher(50, seed=seed).y.square().mean()) for seed in range(60)]
    assert np.mean(squares) == pytest.approx(1, abs=0.3)
    assert np.std(teacher(50).y.numpy()) > 0.05


@pytest.mark.parametrize(("d", "k"), [(6, 3), (30, 1), (30, 30)])
def test_parity(d: int, k: int) -> None:
    data = parity(64, d, k)
    signs = (data.x * d**0.5).round()
    assert data.y[:, 0].equal(signs[:, :k].prod(1))
    assert data.duplicates == ()
    assert data.separation >= 2 / d**0.5 * (1 - 1e-12)
    if d == 6:  # the whole cube: no correlation with fewer than k signs
        for few in itertools.chain(itertools.combinations(range(6), 1), itertools.combinations(range(6), 2)):
            assert float((signs[:, few].prod(1) * data.y[:, 0]).sum()) == 0


def test_pairs() -> None:
    data = parallel_pair(30, c=0.25)
    assert data.parallel == ((0, 1),)
    assert data.x[1].equal(0.25 * data.x[0])
    assert float(data.y[0] + data.y[1]) == 0
    both = antipodal_pairs(30)
    assert both.parallel == tuple((i, i + 1) for i in range(0, 30, 2))
    assert both.x[::2].equal(-both.x[1::2])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: load("synthetic/spere"), "source is 'synthetic/spere', which is not known; did you mean 'synthetic/sphere'"),
        (lambda: load("synthetic/sphere", classes=(0, 1)), "classes is .0, 1., but 'synthetic/sphere' is made whole"),
        (lambda: load("synthetic/two_clusters", n=7), "n is 7, but the points come in pairs; pass an even number"),
        (lambda: load("synthetic/xor", n=0), "n is 0; pass at least 1"),
        (lambda: load("synthetic/xor", seed=-1), "seed is -1; pass at least 0"),
        (lambda: two_clusters(200, 3, delta=0.9), "delta is 0.9, but 200 points in 3 dimensions found no room"),
        (lambda: two_clusters(delta=0.0), "delta is 0.0; pass a distance from 1e-300 to 1"),
        (lambda: two_clusters(delta=float("nan")), "delta is nan"),
        (lambda: xor(5, d=1), "d is 1; pass at least 2"),
        (lambda: parity(9, d=3), "n is 9, but d=3 signs have 8 corners"),
        (lambda: parity(4, d=3, k=4), "k is 4, but there are d=3 signs"),
        (lambda: parallel_pair(5, c=1.0), "c is 1.0; pass a positive ratio"),
        (lambda: parallel_pair(1), "n is 1; pass at least 2"),
        (lambda: teacher(True), "n is True; pass a whole number"),
    ],
)
def test_refuses(call, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()
