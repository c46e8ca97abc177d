"""UCI tables in Fernández-Delgado's folders: ``uci/NAME/NAME_R.dat`` with ``NAME.txt`` beside it."""

from __future__ import annotations

import difflib
from pathlib import Path

import numpy as np

from zeroloss.data.csv_file import read_csv
from zeroloss.data.raw import Raw
from zeroloss.data.root import data_folder
from zeroloss.errors import ArgumentError, FileError

FOLDER = "uci"
MAX_TEXT = 1 << 16  # of NAME.txt, a dozen short lines


def uci(name: str, root: Path | None = None) -> Raw:
    """One of the tables of Fernández-Delgado et al. (2014), by its folder's name.

    ``NAME_R.dat`` is separated by tabs: a header (empty, features, ``clase``), then a row number, the features (already
    standardised by its authors) and the class, from 0. Where ``NAME.txt`` is there, its counts must agree.

    Args:
        name: the folder's name, such as ``iris``.
        root: the folder that holds ``uci``; None for the one that ``ZEROLOSS_DATA`` names.

    Returns:
        n×d rows and integer labels.

    Raises:
        ArgumentError: for a name that is not there.
        FileError: for a file that is missing, damaged, ragged, not in this format, or contradicted by ``NAME.txt``.
    """
    folder = data_folder(f"{FOLDER}/{name}", root) / FOLDER
    if not folder.is_dir():
        raise FileError(folder, "is not a folder", "name the root that holds the folder uci/")
    path = folder / name / f"{name}_R.dat"
    known = sorted(place.name for place in folder.iterdir() if place.is_dir())
    if name not in known:  # so that no name can lead out of the folder
        close = difflib.get_close_matches(name, known, n=5, cutoff=0.5) or known[:5]
        listed = ", ".join(f"'{FOLDER}/{other}'" for other in close) or "none"
        raise ArgumentError(
            "source", f"is '{FOLDER}/{name}', which is not under {folder}", f"nearest of the {len(known)} there: {listed}"
        )
    try:
        if not path.is_file():
            raise FileError(path, "does not exist", "only sets with one _R.dat file are read: choose another")
        _check_header(path)
        x, target = read_csv(path)
        stated = _stated(folder / name / f"{name}.txt")
    except OSError as error:
        raise FileError(path, f"cannot be read ({error.strerror or error})", "check the file and its permissions") from error
    if x.shape[1] < 2:
        raise FileError(path, "has no features between its row number and its class", "copy it again")
    if target.dtype.kind != "f" or not (target == np.round(target)).all() or target.min() < 0 or target.max() > 10**6:
        raise FileError(path, "has a class (last column) that is no whole number from 0", "copy it again")
    labels = target.astype(np.int64)
    counts = {"n_patrons1": len(x), "n_entradas": x.shape[1] - 1}
    for key, count in counts.items():
        if stated.get(key, count) != count:
            raise FileError(path, f"has {count} where {name}.txt says {key}={stated[key]}", "copy both again (truncated?)")
    if labels.max() >= stated.get("n_clases", labels.max() + 1):
        raise FileError(path, f"has class {labels.max()} where {name}.txt says n_clases={stated['n_clases']}", "copy both again")
    return Raw(np.ascontiguousarray(x[:, 1:]), labels)


def _check_header(path: Path) -> None:
    """The first line says that this is the format: an empty cell, then features, then ``clase``."""
    with path.open("rb") as file:
        cells = file.readline(1 << 20).decode("utf-8", "replace").rstrip("\r\n").split("\t")
    if len(cells) < 3 or cells[0] or cells[-1] != "clase":
        raise FileError(
            path,
            f"begins with {cells[0][:20]!r} and ends its first line with {cells[-1][:20]!r}",
            "a header '', f1, ..., 'clase' is wanted",
        )


def _stated(path: Path) -> dict[str, int]:
    """The counts in ``NAME.txt``, such as ``n_entradas= 4``; none if it is not there."""
    if not path.is_file():
        return {}
    with path.open("rb") as file:
        lines = file.read(MAX_TEXT).decode("utf-8", "replace").splitlines()
    pairs = (line.split("=", 1) for line in lines if "=" in line)
    return {key.strip(): int(value) for key, value in pairs if value.strip().isdecimal() and len(value) < 12}
