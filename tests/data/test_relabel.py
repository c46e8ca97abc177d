"""Noisy and random labels: how many change, to what, and that labels and targets agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zeroloss.data import Dataset, load, with_noisy_labels, with_random_labels
from zeroloss.errors import ArgumentError


def agrees(data: Dataset) -> bool:
    """Whether every row's label is its target's class (names of these sources are numbers)."""
    assert data.labels is not None
    place = (data.y[:, 0] > 0).long() if data.outputs == 1 else data.y.argmax(1)
    return [data.classes[i] for i in place.tolist()] == [str(label) for label in data.labels.tolist()]


@pytest.mark.parametrize("classes", [(3, 8), (8, 3), (7, 1, 4), None])
@pytest.mark.parametrize("rate", [0, 0.3, 1])
def test_noise(classes: tuple[int, ...] | None, rate: float) -> None:
    data = load("digits", n=200, classes=classes)
    noisy = with_noisy_labels(data, rate, seed=1)
    assert int((noisy.y != data.y).any(1).sum()) == round(rate * 200)
    assert agrees(noisy)
    assert noisy.x.equal(data.x)
    assert (noisy.classes, noisy.image_shape) == (data.classes, data.image_shape)
    assert noisy.y.equal(with_noisy_labels(data, rate, seed=1).y)
    assert rate in (0, 1) or not noisy.y.equal(with_noisy_labels(data, rate, seed=2).y)
    assert agrees(data)


def test_noise_is_uniform_among_the_others() -> None:
    n, k = 30_000, 4
    data = Dataset(torch.arange(n)[:, None], torch.eye(k)[torch.arange(n) % k], labels=torch.arange(n) % k)
    noisy = with_noisy_labels(data, 1.0)
    assert noisy.labels is not None
    assert data.labels is not None
    steps = np.bincount((noisy.labels - data.labels).numpy() % k, minlength=k)
    assert steps[0] == 0
    assert (np.abs(steps[1:] - n / 3) < 5 * np.sqrt(n * 2 / 9)).all()


@pytest.mark.parametrize("classes", [(3, 8), None])
def test_random(classes: tuple[int, ...] | None) -> None:
    data = load("digits", classes=classes)
    drawn = with_random_labels(data, seed=4)
    assert agrees(drawn)
    k = len(data.classes)
    share = float((drawn.y == data.y).all(1).double().mean())
    assert abs(share - 1 / k) < 5 * (1 / k * (1 - 1 / k) / data.n) ** 0.5
    assert drawn.name == "digits, random labels"


def test_absent_classes() -> None:
    few = load("digits", n=3)  # ten classes, three of them with a row
    assert agrees(with_random_labels(Dataset(few.x, torch.eye(10)[[0, 1, 2]], few.labels, classes=few.classes)))
    with pytest.raises(ArgumentError, match="has no row of class 'c', whose label is unknown; take more rows"):
        with_random_labels(Dataset(few.x, torch.eye(3)[[0, 1, 1]], [5, 7, 7], classes=["a", "b", "c"]))
    assert with_random_labels(Dataset(few.x, [1.0, -1.0, 1.0])).labels is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: with_noisy_labels(load("digits", n=20), 1.5), "rate is 1.5; pass a share"),
        (lambda: with_noisy_labels(load("digits", n=20), float("nan")), "rate is nan"),
        (lambda: with_noisy_labels(load("digits", n=20), 0.5, -1), "seed is -1"),
        (lambda: with_random_labels(load("diabetes", n=20)), "'diabetes' has targets that are neither ±1 nor one-hot"),
        (lambda: with_random_labels(Dataset([[1], [2]], [1, 1], [3, 4])), "labels and targets that disagree .first: row 0"),
    ],
)
def test_refuses(call, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        call()
