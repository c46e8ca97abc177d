"""A run folder: one study, everything it writes, and nothing written anywhere else."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from filelock import FileLock, Timeout

from zeroloss.errors import FileError
from zeroloss.study.specification import Study, read_study
from zeroloss.training import replace_file


def default_folder(study: Study) -> Path:
    """Where a study goes when no folder is named: ``runs/`` and a name that says what it is, with the study's key.

    Example:
        >>> default_folder(Study()).parent.name
        'runs'
    """
    data = study.data
    parts = [Path(data.source).stem, *map(str, data.classes or ()), *([f"n{data.n}"] if data.n else [])]
    return Path("runs") / f"{slug('-'.join(parts))}-{study.key}"


def slug(name: str) -> str:
    """A name as a file name: lower case, letters, digits and dashes.

    Example:
        >>> slug("AZ fully connected, ReLU")
        'az-fully-connected-relu'
    """
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:80] or "unnamed"


def claim_folder(folder: Path, study: Study) -> FileLock:
    """Make a folder this study's own, or refuse it.

    Args:
        folder: where to run; made where it is not there.
        study: what will run in it.

    Returns:
        A held lock; release it when the run is over.

    Raises:
        FileError: for a folder that holds another study or other files, is not a folder, or in which a study is running.
    """
    if folder.exists() and not folder.is_dir():
        raise FileError(folder, "is a file", "name a folder")
    own = folder / "study.toml"
    if own.exists():
        if read_study(own).key != study.key:
            raise FileError(folder, "holds another study", "name another folder with --out")
    elif folder.exists() and any(p.name not in (".lock", "study.toml.partial") for p in folder.iterdir()):
        raise FileError(folder, "holds files that are not a study's", "name an empty or new folder with --out")
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise FileError(folder, "is in use by another run", "wait for it, or name another folder with --out") from error
    try:
        if not own.exists():
            replace_file(own, study.to_toml().encode())
    except OSError:
        lock.release()
        raise
    return lock


def write_table(path: Path, header: tuple[str, ...], rows: list[tuple[object, ...]]) -> None:
    """Write a CSV file, all of it or none.

    Args:
        path: where.
        header: column names.
        rows: values.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    replace_file(path, text.getvalue().encode())
