"""The image sets: every format gives the same rows, and everything else one line."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.data.makers import idx, images, put_cifar10, put_idx, python2_array
from zeroloss.data import idx_file, load
from zeroloss.data.array_pickle import read_arrays
from zeroloss.data.idx_file import read_idx
from zeroloss.errors import ArgumentError, FileError


def raw(name: str, root: Path | None, **options: object) -> torch.Tensor:
    return load(name, root=root, normalise="none", flat=False, **options).x  # type: ignore[arg-type]


@pytest.mark.parametrize("place", ["MNIST/raw", "mnist", "."])
@pytest.mark.parametrize("packed", [False, True])
def test_idx(tmp_path: Path, place: str, packed: bool) -> None:
    x, y = images()
    put_idx(tmp_path / place, x, y, packed)
    data = load("mnist", root=tmp_path, normalise="none", flat=False)
    np.testing.assert_array_equal(data.x.numpy(), x[:, None] / 255.0)
    assert data.labels is not None
    assert (data.labels.tolist(), data.classes) == (y.tolist(), tuple("0123456789"))
    assert load("mnist", root=tmp_path).x.shape == (12, 784)


def test_npz_comes_first_then_idx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = images()
    put_idx(tmp_path / "FashionMNIST" / "raw", x, y)
    monkeypatch.setenv("ZEROLOSS_DATA", str(tmp_path))
    assert float(raw("fashion_mnist", None)[0, 0, 0, 0]) == x[0, 0, 0] / 255
    np.savez(tmp_path / "fashion_mnist.npz", x_train=(255 - x)[..., None], y_train=y)
    assert float(raw("fashion_mnist", None)[0, 0, 0, 0]) == (255 - x[0, 0, 0]) / 255
    assert load("fashion_mnist", classes=("Sandal", "Bag")).classes == ("Sandal", "Bag")
    with pytest.raises(FileError, match="does not exist, so 'fashion_mnist' cannot be read"):
        raw("fashion_mnist", tmp_path / "elsewhere")  # root goes before the variable


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_cifar10(tmp_path: Path, protocol: int) -> None:
    x, y = put_cifar10(tmp_path, protocol)
    data = load("cifar10", root=tmp_path, normalise="none", flat=False)
    np.testing.assert_array_equal(data.x.numpy(), x / 255.0)
    assert data.labels is not None
    assert data.labels.tolist() == y
    pair = load("cifar10", root=tmp_path, classes=("cat", "5"))  # a name, and a number in quotes
    assert pair.classes == ("cat", "dog")


def test_cifar100_as_python_2_pickled_it(tmp_path: Path) -> None:
    x, _ = images(3, (3072,))
    (tmp_path / "cifar-100-python").mkdir()
    labels = b"U\x0bfine_labels]q\x08(K\x07K\x63K\x07eU\rcoarse_labels](K\x01K\x01K\x01e"
    path = tmp_path / "cifar-100-python" / "train"
    path.write_bytes(b"\x80\x02}q\x01(U\x04dataq\x02" + python2_array(x) + labels + b"u.")
    data = load("cifar100", root=tmp_path, normalise="none", flat=False)
    np.testing.assert_array_equal(data.x.numpy(), x.reshape(-1, 3, 32, 32) / 255.0)
    assert data.classes == ("beetle", "worm")
    assert set(pickle.loads(path.read_bytes(), encoding="bytes")) == {
        b"data",
        b"fine_labels",
        b"coarse_labels",
    }  # as numpy reads it


def test_fortran_order_is_kept(tmp_path: Path) -> None:
    x = np.asfortranarray(np.arange(6, dtype=np.int32).reshape(2, 3))
    for protocol in (2, 4, 5):
        (tmp_path / "p").write_bytes(pickle.dumps({"x": x, "big": x.astype(">i8")}, protocol))
        found = read_arrays(tmp_path / "p")
        assert found["x"].tolist() == found["big"].tolist() == x.tolist()


def test_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZEROLOSS_DATA", raising=False)
    with pytest.raises(
        ArgumentError, match="root is not given, but 'mnist' is read from disk; pass root=FOLDER or set ZEROLOSS_DATA"
    ):
        load("mnist")
    monkeypatch.setenv("ZEROLOSS_DATA", str(tmp_path))  # into which nothing is downloaded
    with pytest.raises(FileError, match=r"has no cifar10; put there one of: cifar10\.npz, .*data_batch_1 to 5"):
        load("cifar10")
    put_cifar10(tmp_path)
    (tmp_path / "cifar-10-batches-py" / "data_batch_3").unlink()
    with pytest.raises(FileError, match="data_batch_3: does not exist, though data_batch_1 does"):
        load("cifar10")
    x, y = images()
    (put_idx(tmp_path, x, y) / "train-images-idx3-ubyte").unlink()
    with pytest.raises(FileError, match=r"train-images-idx3-ubyte.gz: does not exist, though train-labels-idx1-ubyte does"):
        load("mnist")


def test_fashion_is_not_taken_for_mnist(tmp_path: Path) -> None:
    x, _ = images(10)
    put_idx(tmp_path, x, np.array([5, 0, 4, 1, 9, 2, 1, 3, 1, 4], np.uint8))
    assert load("mnist", root=tmp_path).n == 10
    with pytest.raises(FileError, match="has another set's labels, not those of fashion_mnist"):
        load("fashion_mnist", root=tmp_path)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (images()[0], images()[1][:5], "has 12 images, but train-labels-idx1-ubyte 5 labels"),
        (images(12, (32, 32))[0], images()[1], r"declares the shape \(12, 32, 32\); rows of shape \(28, 28\) are wanted"),
        (images()[0], images()[1] + 1, "has labels beyond the 10 of mnist"),
    ],
)
def test_unsuitable_idx(tmp_path: Path, x: np.ndarray, y: np.ndarray, message: str) -> None:
    put_idx(tmp_path, x, y)
    with pytest.raises(FileError, match=message):
        load("mnist", root=tmp_path)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": images()[0][..., None].astype(np.float64), "y_train": images()[1]}, "holds float64 of shape .1, 28, 28."),
        ({"x_train": images()[0].reshape(12, 784), "y_train": images()[1]}, r"holds uint8 of shape \(784,\)"),
        ({"x_train": images()[0], "y_train": images()[1].astype(np.int64) - 1}, "has labels beyond"),
        ({"x_train": images()[0], "y_train": np.array(["a", "b"] * 6)}, "has labels beyond"),
        ({"x_train": np.array([None] * 12), "y_train": images()[1]}, "holds pickled objects"),
    ],
)
def test_unsuitable_npz(tmp_path: Path, arrays: dict, message: str) -> None:
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(FileError, match=message):
        load("mnist", root=tmp_path)


GOOD = idx(np.arange(6, dtype=np.uint8).reshape(3, 2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"ends within its header \(0 bytes\)"),
        (GOOD[:7], r"ends within its header \(7 bytes\)"),
        (GOOD[:-1], "more than it can hold|ends after 5 of the 6 bytes"),
        (GOOD + b"x", "goes on after the 6 bytes"),
        (b"\x00\x00\x0d" + GOOD[3:], "begins with 00000d02, where an IDX file of 2 axes has 00000802"),
        (b"PK\x03\x04" + GOOD[4:], "begins with 504b0304"),
        (GOOD[:4] + b"\xff\xff\xff\xff" + GOOD[8:], "declares 4294967295 rows"),
        (GOOD[:4] + b"\x00\x10\x00\x00" + GOOD[8:], r"declares the shape \(1048576, 2\), more than it can hold"),
        (GOOD[:4] + bytes(4) + GOOD[8:], "declares 0 rows"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_damaged_idx(tmp_path: Path, content: bytes, message: str, packed: bool) -> None:
    path = tmp_path / ("f.gz" if packed else "f")
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(FileError, match=message) as caught:
        read_idx(path, (2,))
    assert "\n" not in str(caught.value)


def test_damaged_gzip(tmp_path: Path) -> None:
    whole = gzip.compress(idx(images(9, (64,))[0]))
    path = tmp_path / "f.gz"
    for content in (b"no gzip", whole[:5], whole[: len(whole) // 2], whole[:-6], whole[:-5] + b"\x00" + whole[-4:]):
        path.write_bytes(content)
        with pytest.raises(FileError, match="is no intact gzip file"):
            read_idx(path, (64,))


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(GOOD + bytes(1 << 26)))
    read = 0
    plain = gzip.GzipFile.read

    def counted(self: gzip.GzipFile, size: int | None = -1) -> bytes:
        nonlocal read
        content = plain(self, size)
        read += len(content)
        return content

    monkeypatch.setattr(idx_file.gzip.GzipFile, "read", counted)
    with pytest.raises(FileError, match="goes on after the 6 bytes"):
        read_idx(path, (2,))
    assert read == len(GOOD) + 1


@pytest.mark.parametrize(
    ("name", "count", "shape", "classes"),
    [
        ("mnist", 60000, (1, 28, 28), 10),
        ("fashion_mnist", 60000, (1, 28, 28), 10),
        ("cifar10", 5000, (3, 32, 32), 10),
        ("cifar100", 1117, (3, 32, 32), 100),
    ],
)
def test_real(real_data: Path, name: str, count: int, shape: tuple[int, ...], classes: int) -> None:
    data = load(name, root=real_data, n=200, flat=False, normalise="none")
    assert (tuple(data.x.shape), data.outputs) == ((200, *shape), classes)
    assert 0 <= float(data.x.min()) < float(data.x.max()) <= 1
    assert bool(((data.x * 255).round() / 255 == data.x).all())
    with pytest.raises(ArgumentError, match=f"has {count} rows"):
        load(name, root=real_data, n=70000)


def test_real_class_names(real_data: Path) -> None:
    with np.load(real_data / "cifar100_small.npz") as file:
        assert load("cifar100", root=real_data, n=100).classes == tuple(file["fine_names"].tolist())
    data = load("mnist", root=real_data, classes=("3", "8"), n=20)
    assert data.classes == ("3", "8")
    assert data.labels is not None
    assert sorted(set(data.labels.tolist())) == [3, 8]
