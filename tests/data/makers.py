"""Small files in the formats of the image sets, and the hostile objects that tests hide in them."""

from __future__ import annotations

import gzip
import os
import pickle
from pathlib import Path

import numpy as np


def idx(array: np.ndarray, code: int = 8) -> bytes:
    """An IDX file's bytes."""
    return bytes([0, 0, code, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def images(n: int = 12, shape: tuple[int, ...] = (28, 28)) -> tuple[np.ndarray, np.ndarray]:
    """Random bytes, and labels 0, 1, ..., 9, 0, ..."""
    x = np.random.default_rng(0).integers(0, 256, (n, *shape)).astype(np.uint8)
    return x, (np.arange(n) % 10).astype(np.uint8)


def put_idx(folder: Path, x: np.ndarray, y: np.ndarray, packed: bool = False) -> Path:
    """Both files of a training set; the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in (("train-images-idx3-ubyte", x), ("train-labels-idx1-ubyte", y)):
        content = idx(array)
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    return folder


def put_cifar10(root: Path, protocol: int = 2, rows: int = 4) -> tuple[np.ndarray, list[int]]:
    """Five batches; all images and labels."""
    x, _ = images(5 * rows, (3072,))
    y = [i % 10 for i in range(5 * rows)]
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(5):
        part = slice(i * rows, (i + 1) * rows)
        batch = {b"batch_label": b"one", b"labels": y[part], b"data": x[part], b"filenames": [b"a.png"] * rows}
        (folder / f"data_batch_{i + 1}").write_bytes(pickle.dumps(batch, protocol))
    return x.reshape(-1, 3, 32, 32), y


def python2_array(x: np.ndarray) -> bytes:
    """The instructions by which Python 2 pickles a uint8 array: CIFAR's own files look so inside."""
    n, d = x.shape
    return (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04K\x00\x85U\x01b\x87Rq\x05(K\x01"
        b"M" + n.to_bytes(2, "little") + b"M" + d.to_bytes(2, "little") + b"\x86"
        b"cnumpy\ndtype\nq\x06U\x02u1K\x00K\x01\x87Rq\x07(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + x.size.to_bytes(4, "little") + x.tobytes() + b"tb"
    )


class Call:
    """Calls a function when it is unpickled."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call  # type: ignore[return-value]


def traps(sentinel: Path) -> dict[str, object]:
    """Objects that make the file ``sentinel`` if they are ever unpickled in earnest."""
    code = f"open({str(sentinel)!r}, 'w').close()"
    return {
        "system": Call(os.system, f"touch {sentinel}"),
        "eval": Call(eval, code),
        "exec": Call(exec, code),
        "mkdir": Call(os.mkdir, str(sentinel)),
        "numpy": Call(np.save, str(sentinel), 0),
        "load": Call(np.load, str(sentinel)),
        "getattr": Call(getattr, "", "upper"),
    }
