"""Kernels on disk: the same numbers as in memory, after any interruption, and nobody else's file touched."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import Tensor, nn

from tests.cases import rows
from zeroloss import fully_connected, limit_kernel
from zeroloss.errors import FileError
from zeroloss.kernels import store
from zeroloss.networks import Elementwise, Scale

KERNEL = limit_kernel(fully_connected(5, 8, 2))
X, Y = rows(30, 5, unit=False), rows(10, 5, seed=1)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BLOCK", 1000)  # four rows of 30 in float64


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(".lock")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("other", [None, Y], ids=["symmetric", "cross"])
def test_a_file_is_the_kernel(other, dtype, tmp_path):
    """In the inputs' dtype, exactly symmetric; memory-mapped and read-only; progress counts up to the end."""
    x, y = X.to(dtype), None if other is None else other.to(dtype)
    seen: list[tuple[int, int]] = []
    values = KERNEL.write(tmp_path / "new" / "K.npy", x, y, progress=lambda done, n: seen.append((done, n)))
    assert isinstance(values, np.memmap)
    assert not values.flags.writeable
    assert values.dtype == (np.float32 if dtype == torch.float32 else np.float64)
    wanted = KERNEL(x, y).numpy()
    assert np.abs(values - wanted).max() <= KERNEL.entry_error(x, y)
    assert np.array_equal(np.load(tmp_path / "new" / "K.npy"), values)
    assert [n for _, n in seen] == [30] * len(seen)
    assert len(seen) > 1
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})
    assert seen[-1] == (30, 30)
    if y is None:
        assert np.array_equal(values, values.T)
        assert np.allclose(values.diagonal(), wanted.diagonal(), rtol=4 * torch.finfo(dtype).eps, atol=0)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["K.npy", "K.npy.json", "K.npy.lock"]


def test_a_finished_file_is_read_and_not_computed(tmp_path, monkeypatch):
    first = np.array(KERNEL.write(tmp_path / "K.npy", X))
    monkeypatch.setattr(type(KERNEL), "__call__", lambda *_: pytest.fail("computed again"))
    assert np.array_equal(KERNEL.write(tmp_path / "K.npy", X), first)


@pytest.mark.parametrize("other", [None, Y], ids=["symmetric", "cross"])
def test_an_error_half_way_is_gone_on_from(other, tmp_path):
    """Every block is computed once, over both calls."""
    whole = np.array(KERNEL.write(tmp_path / "whole.npy", X, other))
    seen: list[int] = []

    def stop(done: int, n: int) -> None:
        seen.append(done)
        if len(seen) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        KERNEL.write(tmp_path / "K.npy", X, other, progress=stop)
    resumed = KERNEL.write(tmp_path / "K.npy", X, other, progress=stop)
    assert len(seen) == len(set(seen))
    assert resumed.tobytes() == whole.tobytes()
    assert (tmp_path / "K.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


SCRIPT = """
import sys, time
import torch
from tests.cases import rows
from zeroloss import fully_connected, limit_kernel
from zeroloss.kernels import store
store.BLOCK = 1000
limit_kernel(fully_connected(5, 8, 2)).write(sys.argv[1], rows(30, 5, unit=False), progress=lambda *_: time.sleep(0.2))
"""


def test_a_killed_process_is_gone_on_from(tmp_path):
    """kill -9 in the middle: the next call ends with the very file that an uninterrupted one writes."""
    path, mark = tmp_path / "K.npy", tmp_path / "K.npy.json"
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(path)], cwd=Path(__file__).parents[2])
    deadline = time.monotonic() + 60
    while not (mark.exists() and json.loads(mark.read_text())["rows"] >= 8):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = json.loads(mark.read_text())["rows"]
    assert 8 <= done < 30
    seen: list[int] = []
    resumed = KERNEL.write(path, X, progress=lambda rows_done, n: seen.append(rows_done))
    assert seen[0] == done + 4
    KERNEL.write(tmp_path / "whole.npy", X)
    assert path.read_bytes() == (tmp_path / "whole.npy").read_bytes()
    assert np.array_equal(resumed, resumed.T)


def test_a_death_between_the_mark_and_the_file_is_no_obstacle(tmp_path, monkeypatch):
    """The mark comes first, and a mark without a file holds nothing, for this kernel or another."""
    with monkeypatch.context() as here:
        here.setattr(store, "_create", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(OSError, match="No space"):
            KERNEL.write(tmp_path / "K.npy", X)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == ["K.npy.json"]
    assert np.allclose(KERNEL.write(tmp_path / "K.npy", Y), KERNEL(Y), rtol=1e-12)


def changed(x: Tensor) -> Tensor:
    other = x.clone()
    other[-1, -1] += 1e-15
    return other


@pytest.mark.parametrize(
    ("kernel", "inputs"),
    [
        (KERNEL, (changed(X),)),
        (KERNEL, (X[:29],)),
        (KERNEL, (X.float(),)),
        (KERNEL, (X, X.clone())),
        (KERNEL, (X, Y)),
        (limit_kernel(fully_connected(5, 8, 2), "nngp"), (X,)),
        (limit_kernel(fully_connected(5, 9, 2)), (X,)),
        (limit_kernel(fully_connected(5, 8, 2), initial={"W1": 0.2500001}), (X,)),
    ],
    ids=["one number", "a row less", "float32", "two sets", "another set", "kind", "width", "initial"],
)
@pytest.mark.parametrize("finished", [True, False], ids=["finished", "begun"])
def test_another_kernels_file_is_refused_and_left_alone(kernel, inputs, finished, tmp_path):
    def stop(done: int, n: int) -> None:
        if not finished:
            raise KeyboardInterrupt

    try:
        KERNEL.write(tmp_path / "K.npy", X, progress=stop)
    except KeyboardInterrupt:
        assert not finished
    before = contents(tmp_path)
    with pytest.raises(FileError, match=r"K.npy: holds another kernel, or one of other inputs; name another file"):
        kernel.write(tmp_path / "K.npy", *inputs)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "pair",
    [
        (nn.Sequential(nn.Linear(5, 1), Scale(2.0)), nn.Sequential(nn.Linear(5, 1), Scale(2.0000001))),
        (
            nn.Sequential(nn.Linear(5, 4), Elementwise(lambda z: torch.sin(z)), nn.Linear(4, 1)),
            nn.Sequential(nn.Linear(5, 4), Elementwise(lambda z: torch.sin(2 * z)), nn.Linear(4, 1)),
        ),
    ],
    ids=["a factor's last digits", "two functions of one name"],
)
def test_what_a_printed_module_does_not_tell_counts(pair, tmp_path):
    """Their texts are the same; their kernels are not."""
    assert repr(pair[0]) == repr(pair[1])
    limit_kernel(pair[0]).write(tmp_path / "K.npy", X)
    limit_kernel(pair[0]).write(tmp_path / "K.npy", X)
    with pytest.raises(FileError, match="holds another kernel"):
        limit_kernel(pair[1]).write(tmp_path / "K.npy", X)


def test_paddings_and_strides_of_images_count(tmp_path):
    images = torch.randn(3, 2, 4, 4, dtype=torch.float64)

    def kernel(**options: object) -> object:
        return limit_kernel(nn.Sequential(nn.Conv2d(2, 3, 3, **options), nn.Flatten()), "nngp")

    assert np.allclose(kernel().write(tmp_path / "K.npy", images), kernel()(images), rtol=1e-13)
    for options in ({"padding": 1}, {"stride": 2}):
        with pytest.raises(FileError, match="holds another kernel"):
            kernel(**options).write(tmp_path / "K.npy", images)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "{}", '{"rows": 3}', '{"key": "", "rows": "x"}', '{"key": "", "rows": Infinity}', "[" * 100_000]
)
def test_a_damaged_mark_is_refused(text, tmp_path):
    KERNEL.write(tmp_path / "K.npy", X)
    (tmp_path / "K.npy.json").write_text(text)
    before = contents(tmp_path)
    with pytest.raises(FileError, match=r"K.npy.json: is damaged; delete it and K.npy"):
        KERNEL.write(tmp_path / "K.npy", X)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("rows_done", [-1, 31])
def test_a_mark_of_more_rows_than_there_are_is_refused(rows_done, tmp_path):
    KERNEL.write(tmp_path / "K.npy", X)
    mark = tmp_path / "K.npy.json"
    mark.write_text(json.dumps({**json.loads(mark.read_text()), "rows": rows_done}))
    with pytest.raises(FileError, match="holds another kernel"):
        KERNEL.write(tmp_path / "K.npy", X)


def test_a_cut_file_is_refused(tmp_path):
    path = tmp_path / "K.npy"
    for size in (1000, 0):
        KERNEL.write(path, X)
        path.write_bytes(path.read_bytes()[:size])
        before = contents(tmp_path)
        with pytest.raises(FileError, match=r"K.npy: is cut or damaged; delete it and K.npy.json"):
            KERNEL.write(path, X)
        assert contents(tmp_path) == before
        path.unlink()


def test_a_foreign_file_is_refused(tmp_path):
    """A file that lies there without a mark, or was put in the place of ours."""
    path = tmp_path / "K.npy"
    np.save(path, np.zeros((30, 30)))
    before = contents(tmp_path)
    with pytest.raises(FileError, match="is there already, and no kernel that was begun here"):
        KERNEL.write(path, X)
    assert contents(tmp_path) == before
    path.unlink()
    KERNEL.write(path, X)
    for foreign in (np.zeros((30, 29)), np.zeros((30, 30), dtype=np.float32)):
        np.save(path, foreign)
        before = contents(tmp_path)
        with pytest.raises(FileError, match="has "):
            KERNEL.write(path, X)
        assert contents(tmp_path) == before


def test_bad_calls_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"'K.txt'; name a .npy file"):
        KERNEL.write(tmp_path / "K.txt", X)
    with pytest.raises(ValueError, match="has no rows"):
        KERNEL.write(tmp_path / "K.npy", X[:0])
    with pytest.raises(ValueError, match="NaN or infinity"):
        KERNEL.write(tmp_path / "K.npy", X * torch.nan)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    """Found out before anything is computed; the error names the file."""
    monkeypatch.setattr(store.os, "posix_fallocate", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match=r"no room for the kernel.*K.npy"):
        KERNEL.write(tmp_path / "K.npy", X)
    assert [path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == ["K.npy.json"]


def test_a_file_that_another_process_writes_is_left_to_it(tmp_path):
    """The second writer is told so at once; it would put a new file under the first one's marks."""
    with FileLock(tmp_path / "K.npy.lock"), pytest.raises(FileError, match="being written by another process"):
        KERNEL.write(tmp_path / "K.npy", rows(3, 5))
