"""Pickles that are damaged or mean harm: one line each, and a file that would exist had anything run."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from tests.data.makers import images, put_cifar10, traps
from zeroloss.data import load
from zeroloss.data.array_pickle import read_arrays
from zeroloss.errors import FileError

X, Y = images(4, (3072,))


def refusal(root: Path, content: bytes) -> str:
    """What is said of ``content`` in the place of CIFAR-10's third batch."""
    put_cifar10(root)
    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(content)
    with pytest.raises(FileError) as caught:
        load("cifar10", root=root)
    assert "\n" not in str(caught.value)
    assert "data_batch_3: " in str(caught.value)
    return str(caught.value)


def said_of(path: Path) -> str:
    """The refusal, or nothing where a change left a legal file."""
    try:
        read_arrays(path)
    except FileError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", traps(Path("x")))
def test_nothing_runs(tmp_path: Path, kind: str, protocol: int) -> None:
    sentinel = tmp_path / "sprung"
    for hidden in (lambda trap: trap, lambda trap: {b"data": trap, b"labels": [1]}, lambda trap: {b"data": X, b"labels": [trap]}):
        content = pickle.dumps(hidden(traps(sentinel)[kind]), protocol)
        assert "nothing in it was run" in refusal(tmp_path, content)
        assert not list(tmp_path.glob("sprung*"))


def test_the_traps_are_live(tmp_path: Path) -> None:
    sentinel = tmp_path / "sprung"
    for kind, trap in traps(sentinel).items():
        if kind not in ("load", "getattr"):
            pickle.loads(pickle.dumps(trap))
            assert list(tmp_path.glob("sprung*")), kind
            for path in tmp_path.glob("sprung*"):
                path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cos\nsystem\n(U\x04truetR.", r"asks for 'os\.system', which could run code and is refused"),
        (b"cnumpy\nload\n(U\x01xtR.", r"asks for 'numpy\.load'"),
        (b"cnumpy.core.multiarray\nscalar\n.", r"asks for 'numpy.core.multiarray.scalar'"),
        (b"c__builtin__\neval\n(U\x011tR.", "asks for '__builtin__.eval'"),
        (b"ios\nsystem\n(U\x04true.", "uses the pickle instruction INST"),
        (b"\x80\x02\x82\x01.", "uses the pickle instruction EXT1"),
        (b"Pid\n.", "uses the pickle instruction PERSID"),
        (b"\x80\x02}r\xff\xff\xff\x7f.", "numbers an object 2147483647, more than the file can hold"),
        (b"N" + b"\x85" * 5000 + b".", "has 5000 tuples"),
        (b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"x.", "is no intact pickle .ValueError"),
        (b"cnumpy\nndarray\nK\x05\x85R.", "is no intact pickle .TypeError"),  # ndarray(5) would allocate
        (b"\x80\x02cnumpy\ndtype\n}U\x01xK\x01sb.", "dictionary|intact"),
        (b"", "is no intact pickle"),
        (b"not a pickle at all", "is no intact pickle|uses the pickle instruction"),
        (b"\x80\x02]q\x00.", "pickles one list, where a dictionary of arrays belongs"),
        (b"\x80\x02}q\x00.", "has no 'data': found nothing"),
    ],
)
def test_hand_written(tmp_path: Path, content: bytes, message: str) -> None:
    assert re.search(message, refusal(tmp_path, content))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"data": X}, "has no 'labels': found data"),
        ({"data": X[:, :100], "labels": [0] * 4}, r"holds uint8 of shape \(4, 100\) as images"),
        ({"data": X.astype(np.int32), "labels": [0] * 4}, "holds int32 of shape"),
        ({"data": [1, 2], "labels": [0] * 4}, "holds list as images"),
        ({"data": X[:0], "labels": []}, "holds uint8 of shape .0, 3072.|bytes"),
        ({"data": X, "labels": [0] * 3}, "has 4 images but 3 'labels'"),
        ({"data": X, "labels": [0, 1, 2, 2.5]}, "uses the pickle instruction BINFLOAT"),
        ({"data": X, "labels": [0, 1, 2, 10**30]}, "holds no list|uses the pickle instruction|intact"),
        ({"data": X, "labels": [0, 1, 2, True]}, "holds no list of integers"),
        ({"data": X, "labels": [0, 1, 2, 11]}, "has labels beyond the 10 of cifar10"),
        ({"data": X.astype(np.float64), "labels": [0] * 4}, "holds an array of dtype '<f8', where integers belong"),
        ({"data": np.array([None, 1]), "labels": [0] * 4}, "holds an array of dtype"),
    ],
)
def test_unsuitable(tmp_path: Path, content: dict, message: str) -> None:
    said = set()
    for protocol in (2, 4, 5):
        put_cifar10(tmp_path)
        (tmp_path / "cifar-10-batches-py" / "data_batch_3").write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(FileError) as caught:
            load("cifar10", root=tmp_path)
        said.add(str(caught.value))
        assert re.search(message, str(caught.value)), said


def test_sizes_that_lie(tmp_path: Path) -> None:
    whole = pickle.dumps({"x": np.arange(100, dtype=np.uint8).reshape(10, 10)}, 2)
    shape = b"K\x0aK\x0a\x86"
    assert shape in whole
    for lie in (b"K\x0aK\x0b\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86", b"J\xff\xff\xff\xffJ\x9c\xff\xff\xff\x86"):
        (tmp_path / "p").write_bytes(whole.replace(shape, lie))
        with pytest.raises(FileError, match=r"declares an array of shape .*, but holds 100 bytes|without a usable shape"):
            read_arrays(tmp_path / "p")


def test_every_truncation_and_flip_is_one_line(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    path = tmp_path / "p"
    for protocol in (2, 4, 5):
        whole = pickle.dumps({b"data": X[:, :40], b"labels": [1, 2, 3]}, protocol)
        for cut in range(0, len(whole), 7):
            path.write_bytes(whole[:cut])
            with pytest.raises(FileError):
                read_arrays(path)
        for _ in range(200):
            content = bytearray(whole)
            for place in generator.integers(0, len(whole), 3):
                content[place] = generator.integers(256)
            path.write_bytes(bytes(content))
            assert "\n" not in said_of(path)


def test_a_pickle_cannot_change_what_the_next_one_meets(tmp_path: Path) -> None:
    """BUILD may set attributes on what it is given; the next file gets new stand-ins."""
    (tmp_path / "p").write_bytes(b"\x80\x02}(U\x01acnumpy\ndtype\n(NU\x04codeK\x07\x86tbu.")
    assert "\n" not in said_of(tmp_path / "p")
    (tmp_path / "q").write_bytes(pickle.dumps({"x": X}, 4))
    assert read_arrays(tmp_path / "q")["x"].tolist() == X.tolist()
