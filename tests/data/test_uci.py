"""UCI folders: what is read, and one line for everything that is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zeroloss.data import load
from zeroloss.errors import ArgumentError, FileError

TABLE = "\tf1\tf2\tclase\n1\t0.5\t-1\t0\n2\t1.5\t2e-1\t1\n3\t2.5\t0\t2\n4\t9\t1\t0\n"
COUNTS = "n_entradas= 2\nn_clases= 3\nn_arquivos= 1\nfich1= toy_R.dat\nn_patrons1= 4\n"


def put(root: Path, table: str | bytes = TABLE, counts: str | None = COUNTS) -> Path:
    folder = root / "uci" / "toy"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "toy_R.dat").write_bytes(table.encode() if isinstance(table, str) else table)
    if counts is not None:
        (folder / "toy.txt").write_text(counts)
    return root


@pytest.mark.parametrize("counts", [COUNTS, None, "nonsense\n=\nn_clases=\n"])
def test_uci(tmp_path: Path, counts: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZEROLOSS_DATA", str(put(tmp_path, counts=counts)))
    data = load("uci/toy", normalise="none")
    assert data.x.tolist() == [[0.5, -1], [1.5, 0.2], [2.5, 0], [9, 1]]
    assert data.labels is not None
    assert (data.labels.tolist(), data.classes, data.name) == ([0, 1, 2, 0], ("0", "1", "2"), "uci/toy")
    assert load("uci/toy", classes=("2", 0)).classes == ("2", "0")


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "begins with '' and ends its first line with ''"),
        (TABLE[:-2], "has nothing for the target in line 5|has 3 columns in line 5, but 4 before"),
        (TABLE[:20], "has .* rows|columns"),
        (TABLE.replace("2\t1.5\t2e-1\t1", "2\t1.5\t1"), "has 3 columns in line 3, but 4 before"),
        (TABLE.replace("2\t1.5\t2e-1\t1", "2\t1.5\t2e-1\t1\t1"), "has 5 columns in line 3, but 4 before"),
        (TABLE.replace("1.5", "?"), "has '\\?' in line 3, column 2, where a number belongs"),
        (TABLE.replace("1.5", ""), "has nothing in line 3, column 2"),
        (TABLE.replace("\tclase", ""), "begins with '' and ends its first line with 'f2'"),
        (TABLE.split("\n", 1)[1], "begins with '1' and ends its first line with '0'"),
        (TABLE.replace("9\t1\t0", "9\t1\t0.5"), "has a class .last column. that is no whole number"),
        (TABLE.replace("9\t1\t0", "9\t1\t-1"), "has a class .last column."),
        (TABLE.replace("9\t1\t0", "9\t1\tcat"), "has a class .last column."),
        (TABLE.replace("9\t1\t0", "9\t1\t3"), "has class 3 where toy.txt says n_clases=3"),
        (TABLE.split("4\t9")[0], "has 3 where toy.txt says n_patrons1=4"),
        ("\tf1\tclase\n1\t2\t0\n2\t3\t1\n", "has 2 where toy.txt says n_patrons1=4|has 1 where toy.txt says n_entradas=2"),
        ("\tclase\tclase\n", "has no rows below its header"),
        (b"\tf1\tf2\tclase\n1\t\xff\t1\t0\n", "is not UTF-8 text"),
        (b"\x80\x02cos\nsystem\nU\x04true\x85R.", "begins with "),
        (b"\x1f\x8b\x08\x00" + bytes(50), "begins with "),
        ("\t" + "f\t" * 10**6, "begins with ''"),
    ],
)
def test_bad_tables(tmp_path: Path, table: str | bytes, message: str) -> None:
    with pytest.raises(FileError, match=message) as caught:
        load("uci/toy", root=put(tmp_path, table))
    assert "\n" not in str(caught.value)


def test_names(tmp_path: Path) -> None:
    put(tmp_path)
    (tmp_path / "uci" / "trains").mkdir()
    (tmp_path / "secret_R.dat").write_text(TABLE)
    with pytest.raises(ArgumentError, match=r"source is 'uci/tooy', which is not under .*; nearest of the 2 there: 'uci/toy'"):
        load("uci/tooy", root=tmp_path)
    for name in ("..", "../uci/toy", "/etc", "toy/", "."):
        with pytest.raises(ArgumentError, match="which is not under"):
            load(f"uci/{name}", root=tmp_path)
    with pytest.raises(FileError, match=r"trains_R\.dat: does not exist; only sets with one _R.dat file"):
        load("uci/trains", root=tmp_path)
    with pytest.raises(ArgumentError, match="source is 'uci/', which is not known"):
        load("uci/", root=tmp_path)
    with pytest.raises(FileError, match="uci: is not a folder; name the root that holds the folder uci/"):
        load("uci/toy", root=tmp_path / "uci")


def test_real(real_data: Path) -> None:
    lines = (real_data / "uci" / "INDEX.csv").read_text().splitlines()[1:]
    for line in lines[::6]:
        name, n, d, classes, sizes, _ = line.split(",")
        data = load(f"uci/{name}", root=real_data, normalise="none")
        assert (data.n, data.x.shape[1], len(data.classes)) == (int(n), int(d), int(classes))
        assert data.labels is not None
        assert np.bincount(data.labels.numpy()).tolist() == [int(size) for size in sizes.split()]
