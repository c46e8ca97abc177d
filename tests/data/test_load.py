"""Named sources, the choice of rows and classes, and the targets."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_diabetes, load_digits

from zeroloss.data import SOURCES, load
from zeroloss.errors import ArgumentError

SHAPES = {
    "digits": (1797, 64, 10),
    "iris": (150, 4, 3),
    "wine": (178, 13, 3),
    "breast_cancer": (569, 30, 1),
    "diabetes": (442, 10, 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_sources(name: str) -> None:
    data = load(name)
    n, d, k = SHAPES[name]
    assert (data.x.shape, data.y.shape, data.name) == ((n, d), (n, k), name)
    assert (data.x.norm(dim=1) - 1).abs().max() < 1e-12
    assert name in SOURCES


def test_digits_three_against_eight() -> None:
    data = load("digits", classes=(3, 8), n=100)
    assert data.classes == ("3", "8")
    assert data.labels is not None
    assert data.labels.bincount().tolist() == [0, 0, 0, 50, 0, 0, 0, 0, 50]
    assert data.y[:, 0].tolist() == [-1.0 if label == 3 else 1.0 for label in data.labels.tolist()]
    # From scikit-learn's own rows: find the chosen ones again, take the mean of those alone, then unit norm.
    raw = load("digits", classes=(3, 8), n=100, normalise="none")
    own = load_digits()
    rows = np.flatnonzero((own.data[None] == raw.x.numpy()[:, None]).all(2).any(0))
    centred = own.data[rows] - own.data[rows].mean(0)
    np.testing.assert_allclose(data.x.numpy(), centred / np.linalg.norm(centred, axis=1)[:, None], atol=1e-14)
    assert set(own.target[rows]) == {3, 8}


def test_images_keep_their_shape() -> None:
    flat, images = load("digits", n=20), load("digits", n=20, flat=False)
    assert images.x.shape == (20, 1, 8, 8)
    assert images.x.flatten(1).equal(flat.x)
    assert flat.image_shape == images.image_shape == (1, 8, 8)
    assert load("iris", flat=False).x.shape == (150, 4)
    assert load("digits", n=20, normalise="padded").x.shape == (20, 66)
    with pytest.raises(ArgumentError, match="flat is False, but padding appends"):
        load("digits", normalise="padded", flat=False)


def test_choice_is_stratified_and_seeded() -> None:
    a, b, c = (load("digits", n=25, seed=seed) for seed in (0, 0, 1))
    assert a.x.equal(b.x)
    assert not a.x.equal(c.x)
    assert a.labels is not None
    assert a.labels.bincount().tolist() == [3] * 5 + [2] * 5
    small = load("wine", n=170)  # classes of 59, 71 and 48: the smallest gives all
    assert small.y.sum(0).tolist() == [59, 63, 48]
    assert load("iris", n=150).x.equal(load("iris").x)


def test_order_of_classes_gives_the_signs() -> None:
    one, two = load("breast_cancer"), load("breast_cancer", classes=("benign", "malignant"))
    assert one.y.equal(-two.y)
    assert one.labels is not None
    assert two.labels is not None
    assert one.labels.equal(two.labels)
    assert two.classes == ("benign", "malignant")
    three = load("digits", classes=(7, 1, 4))
    assert three.labels is not None
    assert torch.tensor([7, 1, 4])[three.y.argmax(1)].equal(three.labels)
    assert three.y.sum(1).unique().tolist() == [1.0]


def test_regression_targets() -> None:
    data = load("diabetes", n=50)
    assert data.labels is None
    assert data.classes == ()
    assert float(data.y.mean()) == pytest.approx(0, abs=1e-12)
    assert float(data.y.std(correction=0)) == pytest.approx(1)
    assert load("diabetes", normalise="none").y[:, 0].tolist() == load_diabetes().target.tolist()


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("digit", {}, r"source is 'digit', which is not known; did you mean 'digits'\? Known: a path ending in .npz or .csv"),
        ("rows.txt", {}, "source is 'rows.txt', which is not known"),
        ("digits", {"normalise": "unit"}, "normalise is 'unit', which is not known"),
        ("digits", {"n": 0}, "n is 0; pass at least 1"),
        ("digits", {"n": True}, "n is True; pass a whole number"),
        ("iris", {"n": 101, "classes": (0, 1)}, r"n is 101, but 'iris' \(classes setosa, versicolor\) has 100 rows"),
        ("iris", {"n": 10, "seed": -1}, "seed is -1"),
        ("iris", {"classes": (0, 3)}, "classes names 3, .* choose from: setosa, versicolor, virginica"),
        ("iris", {"classes": ("setosa",)}, r"classes leaves one class \(setosa\)"),
        ("iris", {"classes": ()}, "classes is empty"),
        ("iris", {"classes": (1, "versicolor")}, "names a class twice"),
        ("iris", {"classes": "setosa"}, "classes is the string 'setosa'"),
        ("diabetes", {"classes": (1, 2)}, "is a regression without classes"),
        ("diabetes", {"n": 1}, "gives all 1 chosen rows one target"),
        ("digits", {"n": 1}, "x has one row"),
    ],
)
def test_refuses(source: str, options: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        load(source, **options)
