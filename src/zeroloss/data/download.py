"""Fetching a published file into the caller's folder, with its checksum; nothing is ever written anywhere else."""

from __future__ import annotations

import shutil
import tarfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from zeroloss.errors import FileError

MAX_BYTES = 2**30  # of one unpacked file


@dataclass(frozen=True)
class Remote:
    """A published file.

    Attributes:
        urls: where it is, in the order to be tried.
        md5: its publisher's checksum.
        file: where it goes, below the root.
        members: the files to unpack from it if it is a tar archive; each goes to its own name below the root.

    Example:
        >>> Remote(("https://example.org/a.gz",), "d41d8cd98f00b204e9800998ecf8427e", "raw/a.gz").members
        ()
    """

    urls: tuple[str, ...]
    md5: str
    file: str
    members: tuple[str, ...] = ()


def fetch(remote: Remote, root: Path, what: str) -> None:
    """Download a file into ``root`` and unpack what is wanted of it.

    Args:
        remote: the file.
        root: a folder that exists.
        what: the data set and its files, for errors.

    Raises:
        FileError: without pooch, without a network, for a wrong checksum, and for an archive without its members.
    """
    try:
        import pooch
    except ImportError:
        raise FileError(root, f"has no {what}", "put them there, or pip install 'zeroloss[download]' to fetch them") from None
    target = root / remote.file
    failure = ""
    for url in remote.urls:
        try:
            pooch.retrieve(url=url, known_hash=f"md5:{remote.md5}", fname=target.name, path=target.parent)
            break
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong checksum is a ValueError
            failure = f"{url}: {str(error)[:200]}"
    else:
        raise FileError(root, f"has no {what}, and the download failed ({failure})", "put them there yourself")
    if remote.members:
        unpack(target, remote.members, root)


def unpack(archive: Path, members: tuple[str, ...], root: Path) -> None:
    """Copy the named files out of a gzipped tar archive; no name in the archive ever becomes a path.

    Args:
        archive: the file.
        members: the only members that are looked at, and their paths below ``root``.
        root: a folder.

    Raises:
        FileError: if one is missing, a link or another special file, or beyond ``MAX_BYTES``, and for a damaged archive.
    """
    missing = set(members)
    try:
        with tarfile.open(archive, "r:gz") as content:
            for info in content:
                if info.name not in missing:
                    continue
                stream = content.extractfile(info) if info.isreg() and info.size <= MAX_BYTES else None
                if stream is None:
                    raise FileError(
                        archive, f"holds {info.name!r} as a link or as more than 1 GiB", "delete it and fetch it again"
                    )
                target = root / info.name
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(target.name + ".part")
                with stream, part.open("wb") as file:
                    shutil.copyfileobj(stream, file, 1 << 20)
                part.replace(target)
                missing.discard(info.name)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise FileError(
            archive, f"cannot be unpacked ({type(error).__name__}: {error})", "delete it and fetch it again"
        ) from error
    if missing:
        raise FileError(archive, f"has no {sorted(missing)[0]!r}", "delete it and fetch it again")
