"""The door: what a Dataset accepts, owns and refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from zeroloss.data import Dataset
from zeroloss.errors import ArgumentError

X = [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
Y = [1.0, 2.0, 3.0]


@pytest.mark.parametrize(
    "x",
    [
        X,
        np.array(X, dtype=">f4")[::-1][::-1],
        np.array(X, dtype=np.uint64),
        torch.tensor(X, dtype=torch.bfloat16),
        torch.tensor(X).to(torch.uint16),
        torch.tensor(X, requires_grad=True),
        np.asfortranarray(X),
    ],
)
def test_accepts_any_real_numbers(x: object) -> None:
    data = Dataset(x, Y, labels=[3, 8, 3], classes=["a", "b"])
    assert data.x.dtype == data.y.dtype == torch.float64
    assert data.x.is_contiguous()
    assert not data.x.requires_grad
    assert data.x.tolist() == X
    assert (data.n, data.outputs, data.y.shape, data.classes) == (3, 1, (3, 1), ("a", "b"))
    assert data.labels is not None
    assert data.labels.dtype == torch.int64


def test_owns_its_tensors() -> None:
    x, y, labels = torch.ones(2, 2, dtype=torch.float64), np.ones(2), torch.tensor([0, 1])
    data = Dataset(x, y, labels)
    x += 1
    y += 1
    labels += 1
    assert data.x.unique().tolist() == data.y.unique().tolist() == [1.0]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1]
    with pytest.raises(AttributeError, match="cannot assign"):
        data.name = "other"  # type: ignore[misc]


def test_geometry_is_attached() -> None:
    data = Dataset([[1, 0], [1, 0], [-2, 0], [0, 4]], [[1, 0], [0, 1], [0, 0], [0, 0]])
    assert data.separation == 0
    assert data.nearest.tolist() == [0, 0, 3, pytest.approx(math.sqrt(17))]
    assert data.duplicates == ((0, 1),)
    assert data.conflicts[0].rows == (0, 1)
    assert data.loss_floor == 0.5
    assert data.parallel == ((0, 1), (0, 2), (1, 2))
    assert Dataset([[1, 2]], [1]).separation == math.inf


def test_images() -> None:
    data = Dataset(np.arange(16).reshape(2, 2, 2, 2), Y[:2])
    assert data.image_shape == (2, 2, 2)
    assert data.separation == pytest.approx(8 * math.sqrt(8))
    assert Dataset(np.ones((2, 8)), Y[:2], image_shape=(2, 2, 2)).image_shape == (2, 2, 2)
    with pytest.raises(ArgumentError, match=r"image_shape is \(2, 2\), but x has 8 columns"):
        Dataset(np.ones((2, 8)), Y[:2], image_shape=(2, 2))
    with pytest.raises(ArgumentError, match=r"images of shape \(2, 2, 2\)"):
        Dataset(np.ones((2, 2, 2, 2)), Y[:2], image_shape=(8, 1, 1))


@pytest.mark.parametrize(
    ("x", "y", "labels", "message"),
    [
        (np.zeros((0, 3)), [], None, r"x has no rows \(shape \(0, 3\)\)"),
        (np.zeros((3, 0)), Y, None, r"x has no columns \(shape \(3, 0\)\)"),
        (np.zeros(3), Y, None, r"x has shape \(3,\); pass rows"),
        (np.zeros((3, 2, 2)), Y, None, r"x has shape \(3, 2, 2\)"),
        ([[1.0, 2.0], [math.nan, math.inf], [0.0, 0.0]], Y, None, r"x of shape \(3, 2\) has 2 entries .* \(first: row 1\)"),
        (X, [1.0, 2.0, math.inf], None, r"y of shape \(3,\) has 1 entry .* \(first: row 2\)"),
        (X, Y[:2], None, r"y has 2 rows \(shape \(2,\)\), but x has 3"),
        (X, np.zeros((3, 0)), None, "y has no columns"),
        (X, np.zeros((3, 1, 1)), None, r"y has shape \(3, 1, 1\)"),
        (np.ones((3, 2), bool), Y, None, "x of shape .3, 2. holds booleans"),
        (torch.ones(3, 2, dtype=torch.bool), Y, None, "x of shape .3, 2. has dtype torch.bool"),
        (torch.ones(3, 2, dtype=torch.complex64), Y, None, "dtype torch.complex64"),
        (np.ones((3, 2), complex), Y, None, "holds complex numbers"),
        ([["a", "b"]] * 3, Y, None, "holds text"),
        (np.array([[None, 1]] * 3), Y, None, "holds Python objects"),
        ([[1.0], [2.0, 3.0], [4.0]], Y, None, "x is not one block of numbers"),
        (torch.eye(3).to_sparse(), Y, None, "x is a tensor of layout torch.sparse_coo"),
        (np.ma.masked_equal(np.array(X), 3.0), Y, None, "x is a masked array"),
        ([[2**53 + 1, 0]] * 3, Y, None, r"x has integers beyond 2\*\*53"),
        (np.full((3, 1), 2**64 - 1, np.uint64), Y, None, r"x has integers beyond 2\*\*53"),
        (X, Y, [0.5, 1.0, 2.0], "labels has dtype torch.float64; pass integers"),
        (X, Y, [0, 1], r"labels has shape \(2,\), but x has 3 rows"),
        (X, Y, ["a", "b", "c"], "labels of shape .3,. holds text"),
        (X, Y, [True, False, True], "labels of shape .3,. holds booleans"),
    ],
)
def test_refuses(x: object, y: object, labels: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message) as caught:
        Dataset(x, y, labels)
    assert "\n" not in str(caught.value)


def test_refuses_a_lone_class_name() -> None:
    with pytest.raises(ArgumentError, match="classes is the string 'ab'"):
        Dataset(X, Y, classes="ab")
