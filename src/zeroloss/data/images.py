"""The image sets on disk: MNIST, Fashion-MNIST, CIFAR-10 and CIFAR-100, in whichever of their file formats is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zeroloss.data import class_names
from zeroloss.data.cifar_file import read_cifar
from zeroloss.data.download import Remote, fetch
from zeroloss.data.files import read_file
from zeroloss.data.idx_file import read_idx
from zeroloss.data.raw import Raw
from zeroloss.data.root import data_folder
from zeroloss.errors import FileError

IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")

_MNIST_BEGINS, _FASHION_BEGINS = (5, 0, 4, 1, 9, 2, 1, 3, 1, 4), (9, 0, 0, 3, 0, 2, 7, 2, 5, 5)


@dataclass(frozen=True)
class ImageSet:
    """An image set: what it holds, and where it may lie below a root.

    Attributes:
        name: as ``load`` calls it.
        shape: (c, h, w).
        classes: the name of label v at place v.
        npz: names of archives with x_train (n×h×w×c bytes) and y_train.
        idx: folders for its IDX files.
        batches: CIFAR's pickled files.
        label_key: the labels' key in them.
        remotes: where they can be had.
        not_these: the first labels of the set whose IDX files have the same names.

    Example:
        >>> ImageSet("tiny", (1, 2, 2), ("no", "yes")).npz
        ()
    """

    name: str
    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    npz: tuple[str, ...] = ()
    idx: tuple[str, ...] = ()
    batches: tuple[str, ...] = ()
    label_key: str = "labels"
    remotes: tuple[Remote, ...] = ()
    not_these: tuple[int, ...] = ()

    def wanted(self) -> str:
        """The files that would do, for errors."""
        kinds = [*self.npz]
        if self.idx:
            kinds += [f"{self.idx[0]}/{name}[.gz]" for name in IDX_FILES]
        if self.batches:
            kinds.append(self.batches[0] + (f" to {len(self.batches)}" if len(self.batches) > 1 else ""))
        return ", ".join(kinds)


def read_images(what: ImageSet, root: Path | None) -> Raw:
    """The training rows of an image set: its ``.npz``, else its IDX files, else its pickled batches, else a download.

    Args:
        what: the set.
        root: the caller's folder; None for the one that ``ZEROLOSS_DATA`` names, into which nothing is ever downloaded.

    Returns:
        n×c×h×w bytes with the divisor 255, and the labels.

    Raises:
        ArgumentError: if no folder is named.
        FileError: if no file is there and none can be fetched, or the first one there is damaged, hostile or another set's.
    """
    folder = data_folder(what.name, root)
    found = _read(what, folder)
    if found is None and root is not None:
        for remote in what.remotes:
            fetch(remote, folder, f"{what.name} ({what.wanted()})")
        found = _read(what, folder)
    if found is None:
        raise FileError(folder, f"has no {what.name}", f"put there one of: {what.wanted()}")
    path, x, labels = found
    if x.dtype != np.uint8 or x.shape[1:] != what.shape:
        raise FileError(
            path, f"holds {x.dtype} of shape {x.shape[1:]} as images of {what.name}", f"uint8 of shape {what.shape} is wanted"
        )
    if labels.dtype.kind not in "iu" or int(labels.min()) < 0 or int(labels.max()) >= len(what.classes):
        raise FileError(path, f"has labels beyond the {len(what.classes)} of {what.name}", "check that it is the right file")
    return Raw(x, labels, what.classes, images=True, divisor=255.0)


def _read(what: ImageSet, folder: Path) -> tuple[Path, NDArray[Any], NDArray[Any]] | None:
    """The first kind of file that is there, with the name that errors shall give."""
    for name in what.npz:
        if (folder / name).is_file():
            raw = read_file(folder / name)
            return folder / name, raw.x, raw.target
    for place in what.idx:
        images, labels = (_plain_or_gzipped(folder / place / name) for name in IDX_FILES)
        if images.is_file() or labels.is_file():
            return _read_idx_pair(what, images, labels)
    paths = [folder / name for name in what.batches]
    if any(path.is_file() for path in paths):
        _require(paths)
        return paths[0], *read_cifar(paths, what.label_key)
    return None


def _read_idx_pair(what: ImageSet, images: Path, labels: Path) -> tuple[Path, NDArray[Any], NDArray[Any]]:
    """IDX images with their labels, unless they are the other set of these file names."""
    _require([images, labels])
    y = read_idx(labels, ())
    if what.not_these and tuple(y[:10].tolist()) == what.not_these:
        raise FileError(
            labels, f"has another set's labels, not those of {what.name}", f"put {what.name}'s files into {what.idx[0]}"
        )
    x = read_idx(images, what.shape[1:])
    if len(x) != len(y):
        raise FileError(images, f"has {len(x)} images, but {labels.name} {len(y)} labels", "copy both again")
    return images, x[:, None], y.astype(np.int64)


def _plain_or_gzipped(path: Path) -> Path:
    """The file itself if it is there, else its gzipped form."""
    return path if path.is_file() else path.with_name(path.name + ".gz")


def _require(paths: list[Path]) -> None:
    """A set of files of which only some are there is an error and not a smaller set."""
    for path in paths:
        if not path.is_file():
            there = next(other.name for other in paths if other.is_file())
            raise FileError(path, f"does not exist, though {there} does", "put it beside the others")


def _idx_remotes(folder: str, base: str, images: str, labels: str) -> tuple[Remote, ...]:
    """The two gzipped IDX files of a training set."""
    sums = zip(IDX_FILES, (images, labels), strict=True)
    return tuple(Remote((f"{base}/{name}.gz",), md5, f"{folder}/{name}.gz") for name, md5 in sums)


def _cifar_remote(archive: str, md5: str, members: tuple[str, ...]) -> tuple[Remote, ...]:
    """CIFAR's archive, at its publisher's old and new address."""
    urls = (f"https://www.cs.toronto.edu/~kriz/{archive}", f"https://cave.cs.toronto.edu/kriz/{archive}")
    return (Remote(urls, md5, archive, members),)


_CIFAR10_BATCHES = tuple(f"cifar-10-batches-py/data_batch_{i}" for i in range(1, 6))
_CIFAR100_BATCHES = ("cifar-100-python/train",)

IMAGE_SETS = {
    what.name: what
    for what in (
        ImageSet(
            "mnist",
            (1, 28, 28),
            class_names.MNIST,
            npz=("mnist.npz",),
            idx=("MNIST/raw", "mnist", "."),
            not_these=_FASHION_BEGINS,
            remotes=_idx_remotes(
                "MNIST/raw",
                "https://ossci-datasets.s3.amazonaws.com/mnist",
                "f68b3c2dcbeaaa9fbdd348bbdeb94873",
                "d53e105ee54ea40749a09fcbcd1e9432",
            ),
        ),
        ImageSet(
            "fashion_mnist",
            (1, 28, 28),
            class_names.FASHION,
            npz=("fashion_mnist.npz",),
            idx=("FashionMNIST/raw", "fashion_mnist", "."),
            not_these=_MNIST_BEGINS,
            remotes=_idx_remotes(
                "FashionMNIST/raw",
                "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
                "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                "25c81989df183df01b3e8a0aad5dffbe",
            ),
        ),
        ImageSet(
            "cifar10",
            (3, 32, 32),
            class_names.CIFAR10,
            npz=("cifar10.npz", "cifar10_train5k.npz"),
            batches=_CIFAR10_BATCHES,
            remotes=_cifar_remote("cifar-10-python.tar.gz", "c58f30108f718f92721af3b95e74349a", _CIFAR10_BATCHES),
        ),
        ImageSet(
            "cifar100",
            (3, 32, 32),
            class_names.CIFAR100,
            npz=("cifar100.npz", "cifar100_small.npz"),
            batches=_CIFAR100_BATCHES,
            label_key="fine_labels",
            remotes=_cifar_remote("cifar-100-python.tar.gz", "eb9058c3a382ffc7106e4002c42a8d85", _CIFAR100_BATCHES),
        ),
    )
}


def mnist(root: Path | None = None) -> Raw:
    """60 000 handwritten digits of 28×28 pixels (LeCun et al. 1998), training rows.

    Args:
        root: the folder with ``mnist.npz`` or IDX files; None for the one that ``ZEROLOSS_DATA`` names.

    Returns:
        n×1×28×28 bytes and the labels 0 to 9.
    """
    return read_images(IMAGE_SETS["mnist"], root)


def fashion_mnist(root: Path | None = None) -> Raw:
    """60 000 pictures of clothing of 28×28 pixels (Xiao, Rasul and Vollgraf 2017), training rows.

    Args:
        root: the folder with ``fashion_mnist.npz`` or IDX files; None for the one that ``ZEROLOSS_DATA`` names.

    Returns:
        n×1×28×28 bytes and the labels 0 to 9.
    """
    return read_images(IMAGE_SETS["fashion_mnist"], root)


def cifar10(root: Path | None = None) -> Raw:
    """Colour photographs of 32×32 pixels in ten classes (Krizhevsky 2009), training rows.

    CIFAR's own batches give 50 000 rows; ``cifar10_train5k.npz`` gives 5000, 500 a class, of which rows 4750 and up went through
    JPEG and so differ a little from the originals.

    Args:
        root: the folder with an archive or ``cifar-10-batches-py``; None for the one that ``ZEROLOSS_DATA`` names.

    Returns:
        n×3×32×32 bytes and the labels 0 to 9.
    """
    return read_images(IMAGE_SETS["cifar10"], root)


def cifar100(root: Path | None = None) -> Raw:
    """Colour photographs of 32×32 pixels in a hundred classes (Krizhevsky 2009), training rows with their fine labels.

    Args:
        root: the folder with an archive or ``cifar-100-python``; None for the one that ``ZEROLOSS_DATA`` names.

    Returns:
        n×3×32×32 bytes and the labels 0 to 99.
    """
    return read_images(IMAGE_SETS["cifar100"], root)
