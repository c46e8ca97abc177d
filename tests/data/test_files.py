"""Files: what is read, and one line for everything that is not."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from zeroloss.data import load
from zeroloss.errors import ArgumentError, FileError

X = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, 5.5], [6.0, 8.0]])


def npz(path: Path, **arrays: np.ndarray) -> Path:
    np.savez(path / "rows.npz", **arrays)
    return path / "rows.npz"


@pytest.mark.parametrize(("kx", "ky"), [("x", "y"), ("X", "Y"), ("x_train", "y_train"), ("x", "labels"), ("x", "target")])
def test_npz_keys(tmp_path: Path, kx: str, ky: str) -> None:
    npz(tmp_path, **{kx: X, ky: np.array([7, 9, 7, 9])})
    data = load("rows.npz", root=tmp_path, normalise="none")
    assert data.x.tolist() == X.tolist()
    assert data.y[:, 0].tolist() == [-1, 1, -1, 1]
    assert data.labels is not None
    assert (data.labels.tolist(), data.classes, data.name) == ([7, 9, 7, 9], ("7", "9"), "rows")


@pytest.mark.parametrize(
    ("y", "classes"),
    [
        (np.array([0.0, 1.0, 2.0, 0.0]), ("0", "1", "2")),
        (np.array([[0], [1], [1], [0]], dtype=np.uint8), ("0", "1")),
        (np.array([True, False, True, True]), ("0", "1")),
        (np.array(["b", "a", "b", "a"]), ("a", "b")),
        (np.array([b"b", b"a", b"b", b"a"]), ("a", "b")),
        (np.array([0.5, 1.0, 2.0, 0.0]), ()),
        (np.array([[0.5, 1.0]] * 3 + [[1.0, 2.0]]), ()),
    ],
)
def test_npz_targets(tmp_path: Path, y: np.ndarray, classes: tuple[str, ...]) -> None:
    assert load(npz(tmp_path, x=X, y=y), normalise="none").classes == classes


def test_many_whole_floats_are_a_regression(tmp_path: Path) -> None:
    x = np.arange(42.0).reshape(21, 2)
    assert load(npz(tmp_path, x=x, y=np.arange(21.0)), normalise="none").classes == ()
    assert load(npz(tmp_path, x=x, y=np.arange(21)), normalise="none").outputs == 21


@pytest.mark.parametrize(
    ("shape", "wanted"), [((4, 5, 6), (1, 5, 6)), ((4, 3, 8, 8), (3, 8, 8)), ((4, 8, 6, 3), (3, 8, 6)), ((4, 3, 5, 3), (3, 5, 3))]
)
def test_npz_images(tmp_path: Path, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    x = np.arange(np.prod(shape)).reshape(shape).astype(np.uint8)
    data = load(npz(tmp_path, x=x, y=np.array([0, 1, 0, 1])), normalise="none", flat=False)
    assert tuple(data.x.shape[1:]) == wanted
    if shape == (4, 8, 6, 3):
        np.testing.assert_array_equal(data.x.numpy(), x.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("a,b,kind\n1,2,cat\n3,5,dog\n4,4,cat\n", [0, 1, 0]),
        ("1;2;cat\r\n3;5;dog\r\n\r\n4;4;cat", [0, 1, 0]),
        ("\ufeffa\tb\ty\n1\t2\t5\n3\t5\t6\n4\t4\t5\n", [5, 6, 5]),
        ('1,2,"x,y"\n3,5,z\n4,4,"x,y"\n', [0, 1, 0]),
    ],
)
def test_csv(tmp_path: Path, text: str, labels: list[int]) -> None:
    (tmp_path / "t.CSV").write_bytes(text.encode())
    data = load(tmp_path / "t.CSV", normalise="none")
    assert data.x.tolist() == [[1, 2], [3, 5], [4, 4]]
    assert data.labels is not None
    assert data.labels.tolist() == labels


def test_csv_regression_and_order_of_texts(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("1,0.5\n2,1.25\n4,3\n")
    assert load("r.csv", root=tmp_path, normalise="none").y[:, 0].tolist() == [0.5, 1.25, 3.0]
    (tmp_path / "c.csv").write_text("1,a\n2,b\n4,c\n")
    data = load("c.csv", root=tmp_path, normalise="none", classes=("c", "a"))
    assert data.labels is not None
    assert (data.labels.tolist(), data.y[:, 0].tolist()) == ([1, 0], [1, -1])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\)"),
        (b"1,2,3\n4,5\n", "has 2 columns in line 2, but 3 before"),
        (b"a,b,y\n1,,0\n2,3,1\n", "has nothing in line 2, column 2, where a number belongs"),
        (b"1,2,0\n2,oops,1\n", "has 'oops' in line 2, column 2"),
        (b"1,2,0\n2,nan,1\n", "has 'nan' in line 2, column 2"),
        (b"1,2,0\n2,1_0,1\n", "has '1_0' in line 2, column 2"),
        (b"1,2,0\n2,3,\n", "has nothing for the target in line 2, column 3"),
        (b"1,2,0\n2,3,inf\n", "has 'inf' for the target in line 2"),
        (b"1,2,caf\xe9\n", r"is not UTF-8 text \(byte 0xe9\)"),
        (b"a,b,y\n", "has no rows below its header"),
        (b"\n \n", "has no rows; write"),
        (b"1\n2\n", r"has one column \(line 1\)"),
    ],
)
def test_bad_csv(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises((FileError, ArgumentError), match=message) as caught:
        load(path)
    assert "\n" not in str(caught.value)


class Trap:
    """Makes a folder if it is ever unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_pickles_are_refused_and_never_run(tmp_path: Path) -> None:
    path = npz(tmp_path, x=np.array([[Trap(tmp_path / "sprung")]], dtype=object), y=np.zeros(1))
    with pytest.raises(FileError, match="holds pickled objects in 'x', which could run code"):
        load(path)
    assert not (tmp_path / "sprung").exists()


def test_damaged_npz(tmp_path: Path) -> None:
    whole = npz(tmp_path, x=X, y=np.array([0, 1, 0, 1])).read_bytes()
    bad = tmp_path / "bad.npz"
    cases = {
        whole[:200]: "ends before its directory",
        b"hello, not a zip": "is not an npz archive",
        b"": "is empty",
        whole.replace(X.tobytes(), X[::-1].tobytes()): "is damaged .BadZipFile: Bad CRC-32",
    }
    for content, message in cases.items():
        bad.write_bytes(content)
        with pytest.raises(FileError, match=message):
            load(bad)


def refusal(path: Path) -> str:
    try:
        load(path, normalise="none")
    except (FileError, ArgumentError) as error:
        return str(error)
    return ""


def test_every_truncation_and_flip_is_one_line(tmp_path: Path) -> None:
    whole = npz(tmp_path, x=X, y=np.array([0, 1, 0, 1])).read_bytes()
    bad = tmp_path / "bad.npz"
    generator = np.random.default_rng(0)
    for _ in range(150):
        content = bytearray(whole)
        for place in generator.integers(0, len(whole), 3):
            content[place] = generator.integers(256)
        bad.write_bytes(bytes(content[: generator.integers(len(whole) // 2, len(whole) + 1)]))
        assert "\n" not in refusal(bad)


def header(shape: str, descr: str = "<f8") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header("(1000000000, 1000000000)"), "GiB for 'x', above the limit of 8 GiB"),
        (header("(2000000000,)", "|u1"), "declares 14.9 GiB for 'x'"),  # as float64
        (header("(1000, 1000)"), r"declares the shape \(1000, 1000\) for 'x', more than its"),
        (header("(-1, 5)"), r"declares the shape \(-1, 5\)"),
        (header("(__import__('os'), 5)"), "is damaged"),
        (b"nonsense", "is damaged"),
    ],
)
def test_hostile_headers(tmp_path: Path, content: bytes, message: str) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w") as archive:
        archive.writestr("x.npy", content)
        archive.writestr("y.npy", b"")
    with pytest.raises(FileError, match=message):
        load(tmp_path / "bomb.npz")


def test_declared_member_size_is_checked_first(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("x.npy", header("(2, 2)") + bytes(32))
    content = bytearray(buffer.getvalue())
    at = content.index(b"PK\x01\x02")  # the directory's entry: its uncompressed size is at 24
    content[at + 24 : at + 28] = (2**32 - 2).to_bytes(4, "little")
    (tmp_path / "b.npz").write_bytes(bytes(content))
    with pytest.raises(FileError, match=r"is damaged|has no targets"):
        load(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": X, "b": X}, "has no inputs: found a, b; name the array one of x, X, x_train"),
        ({"x": X, "b": X}, "has no targets: found b, x"),
        ({"x": X, "y": np.zeros(3)}, r"has 4 inputs \(4, 2\) but 3 targets \(3,\)"),
        ({"x": X[:1], "y": np.zeros(1)}, "source 'rows' has one sample"),
        ({"x": X, "y": np.full(4, 7)}, r"leaves one class \(7\)"),
        ({"x": X, "y": np.full(4, 0.5)}, "gives all 4 chosen rows one target"),
        ({"x": X[0], "y": np.zeros(2)}, r"holds inputs of shape \(2,\)"),
        ({"x": X * 1j, "y": np.zeros(4)}, "holds inputs of dtype complex128"),
        ({"x": X > 1, "y": np.zeros(4)}, "holds inputs of dtype bool"),
        ({"x": X / np.where(X == 1, np.nan, 1), "y": np.arange(4)}, "NaN or infinite features in 1 rows .first: row 0"),
        ({"x": X, "y": np.array([0, 1, np.nan, 1])}, "NaN or infinite targets in 1 rows .first: row 2"),
        ({"x": X, "y": np.zeros((4, 0))}, r"holds targets of shape \(4, 0\)"),
    ],
)
def test_unsuitable_npz(tmp_path: Path, arrays: dict, message: str) -> None:
    with pytest.raises((FileError, ArgumentError), match=message):
        load(npz(tmp_path, **arrays))


def test_missing_and_folder(tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(FileError, match=r"folder\.npz: is a folder"):
        load("folder.npz", root=tmp_path)
    with pytest.raises(FileError, match=r"none\.csv: does not exist; check the name"):
        load("none.csv", root=tmp_path)


def test_text_among_measured_targets_is_a_mistake_and_not_a_class(tmp_path):
    path = tmp_path / "typo.csv"
    path.write_text("1,2,0.5\n2,3,1.25\n3,4,n/a\n")
    with pytest.raises(FileError, match=r"has 'n/a' for the target in line 3, among numbers"):
        load(str(path))
    path.write_text("1,2,1\n2,3,2\n3,4,other\n2,2,1\n")  # whole numbers may name classes beside words
    assert load(str(path), normalise="none").outputs == 3
