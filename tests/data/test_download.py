"""Downloads, with the fetcher replaced: into the caller's folder only, by checksum, and no name in an archive is a path."""

from __future__ import annotations

import io
import sys
import tarfile
import types
from pathlib import Path

import pytest

from tests.data.makers import images, put_cifar10, put_idx
from zeroloss.data import load
from zeroloss.data.download import unpack
from zeroloss.errors import FileError


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that stands for the network; the file of a url is the one of its last part."""
    place = tmp_path / "published"
    place.mkdir()

    def retrieve(url: str, known_hash: str, fname: str, path: Path) -> str:
        assert known_hash.startswith("md5:")
        source = place / url.rsplit("/", 1)[1]
        if not source.exists():
            raise OSError("no\nnetwork")
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(source.read_bytes())
        return str(path / fname)

    monkeypatch.setitem(sys.modules, "pooch", types.SimpleNamespace(retrieve=retrieve))
    return place


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The caller's folder, empty."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST/raw"), ("fashion_mnist", "FashionMNIST/raw")])
def test_idx(published: Path, root: Path, name: str, folder: str) -> None:
    put_idx(published, *images(), packed=True)
    assert load(name, root=root).n == 12
    assert sorted(p.name for p in (root / folder).iterdir()) == ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"]


def archive(path: Path, *members: tuple[str, bytes | None, str]) -> Path:
    """A tar archive of files (content) and links (their target)."""
    with tarfile.open(path, "w:gz") as file:
        for name, content, target in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.linkname = tarfile.SYMTYPE, target
            else:
                info.size = len(content)
            file.addfile(info, io.BytesIO(content or b""))
    return path


def test_cifar(published: Path, root: Path) -> None:
    x, _ = put_cifar10(published)
    batches = sorted((published / "cifar-10-batches-py").iterdir())
    files = [(f"cifar-10-batches-py/{batch.name}", batch.read_bytes(), "") for batch in batches]
    archive(published / "cifar-10-python.tar.gz", *files, ("../evil", b"x", ""), ("/tmp/evil", b"x", ""))
    assert load("cifar10", root=root, flat=False, normalise="none").x.shape == x.shape
    assert sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()) == sorted(
        [name for name, _, _ in files] + ["cifar-10-python.tar.gz"]
    )
    assert not (root.parent / "evil").exists()


def test_no_network(published: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        FileError, match=r"has no cifar10 \(cifar10.npz, .*the download failed \(https://cave.*no network"
    ) as caught:
        load("cifar10", root=root)
    assert "\n" not in str(caught.value)
    monkeypatch.setenv("ZEROLOSS_DATA", str(root))
    with pytest.raises(FileError, match="has no cifar10; put there one of"):
        load("cifar10")
    assert list(root.iterdir()) == []


def test_no_pooch(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(
        FileError, match=r"has no mnist \(mnist.npz, MNIST/raw/.*; put them there, or pip install 'zeroloss.download.'"
    ):
        load("mnist", root=root)


def test_hostile_archives(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "a.tar.gz"
    outside = tmp_path / "outside"
    outside.write_bytes(b"kept")
    for members, message in [
        ([("d/f", None, str(outside))], "holds 'd/f' as a link"),
        ([("../d/f", b"x", "")], "has no 'd/f'"),
        ([], "has no 'd/f'"),
    ]:
        with pytest.raises(FileError, match=message):
            unpack(archive(path, *members), ("d/f",), root)
    whole = archive(path, ("d/f", bytes(range(256)) * 100, "")).read_bytes()
    for content in (b"", b"no tar", whole[:60], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(FileError, match=r"cannot be unpacked|has no 'd/f'"):
            unpack(path, ("d/f",), root)
        assert not (root / "d" / "f").exists()
    assert outside.read_bytes() == b"kept"
