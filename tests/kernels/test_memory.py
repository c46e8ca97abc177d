"""Curves kept on disk: the same ones back, whatever lies there, and never one module's for another's."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from zeroloss import fully_connected, limit_kernel
from zeroloss.kernels import limit as limits
from zeroloss.kernels.curve import Curve, Side
from zeroloss.kernels.memory import describe, remembered
from zeroloss.networks import Activation, Elementwise, GaussianLinear, Scale, leaky_relu

SAME, OPPOSITE = Side(True, 0.5, (1.0, 1 / 3, -1e-17)), Side(False, 0.0, (0.1,))
CURVE = Curve(7 / 3, SAME, OPPOSITE, 1e-15, 2.2)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZEROLOSS_CACHE", str(tmp_path))
    return tmp_path / "curves"


def refuse() -> Curve:
    raise AssertionError("made again")


def ask(
    module: nn.Module, initial: object = None, make: object = lambda: CURVE, key: tuple[object, ...] = ("ntk", 1.0)
) -> object:
    return remembered(key, module, initial or {}, make)


def test_a_curve_comes_back_to_the_bit(folder):
    """From a file, without being made; and one that does not exist is remembered as that."""
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU())
    assert ask(module) is CURVE
    assert ask(nn.Sequential(nn.Linear(3, 4), nn.ReLU()), make=refuse) == CURVE
    assert ask(nn.Linear(3, 4), make=lambda: None) is None
    assert ask(nn.Linear(3, 4), make=refuse) is None
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".json"]


def test_a_kernel_takes_its_curve_from_disk(folder, monkeypatch):
    """The second kernel of one architecture never fits, and gives the same numbers to the bit."""
    x = torch.nn.functional.normalize(torch.randn(70, 5, dtype=torch.float64))
    first = limit_kernel(fully_connected(5, 8, 2, seed=0))(x)
    monkeypatch.setattr(limits, "collapse", lambda *_: refuse())
    assert torch.equal(limit_kernel(fully_connected(5, 8, 2, seed=1))(x), first)
    with pytest.raises(AssertionError, match="made again"):
        limit_kernel(fully_connected(5, 9, 2))(x)


GOOD = json.dumps(
    {
        "curve": {
            "diagonal": 1.0,
            "same": {"root": True, "pull": 0.0, "coefficients": [1.0]},
            "opposite": {"root": True, "pull": 0.0, "coefficients": [1.0]},
            "error": 0.0,
            "steepness": 0.0,
        }
    }
)
HOSTILE = {
    "empty": "",
    "cut": GOOD[:-30],
    "binary": "\x00\x01",
    "list": "[]",
    "number": "3",
    "text": '"curve"',
    "other": '{"other": 1}',
    "curve is a number": '{"curve": 5}',
    "curve is text": '{"curve": "abc"}',
    "no side": GOOD.replace('"same"', '"some"'),
    "side is null": '{"curve": {"same": null, "opposite": null}}',
    "nan": GOOD.replace('"diagonal": 1.0', '"diagonal": NaN'),
    "infinite": GOOD.replace('"error": 0.0', '"error": Infinity'),
    "negative error": GOOD.replace('"error": 0.0', '"error": -1.0'),
    "nan coefficient": GOOD.replace("[1.0]", "[NaN]"),
    "nan pull": GOOD.replace('"pull": 0.0', '"pull": NaN'),
    "negative pull": GOOD.replace('"pull": 0.0', '"pull": -1.0'),
    "text coefficient": GOOD.replace("[1.0]", '["one"]'),
    "no coefficients": GOOD.replace("[1.0]", "[]"),
    "huge degree": GOOD.replace("[1.0]", json.dumps([1.0] * 1000)),
    "huge number": GOOD.replace('"diagonal": 1.0', '"diagonal": 1' + "0" * 400),
    "deep": "[" * 100_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_spoilt_file_is_ignored_and_written_again(text, folder):
    module = nn.Linear(3, 4)
    ask(module)
    (path,) = folder.iterdir()
    whole = path.read_text()
    path.write_text(text)
    assert ask(module) is CURVE
    assert path.read_text() == whole
    assert ask(module, make=refuse) == CURVE


def test_a_file_that_is_no_text_or_a_folder_is_no_error(folder):
    module = nn.Linear(3, 4)
    ask(module)
    (path,) = folder.iterdir()
    path.write_bytes(b"\xff\xfe\xff")
    assert ask(module) is CURVE
    path.unlink()
    path.mkdir()
    assert ask(module) is CURVE
    assert list(folder.iterdir()) == [path]  # and nothing half written is left


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    """Read-only (which root may write to), below a file, or a disk that is full."""
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0o500)
    (tmp_path / "file").write_text("")
    for name in (closed, tmp_path / "file"):
        monkeypatch.setenv("ZEROLOSS_CACHE", str(name))
        assert ask(nn.Linear(3, 4)) is CURVE
    closed.chmod(0o700)
    full = tmp_path / "full"
    monkeypatch.setenv("ZEROLOSS_CACHE", str(full))
    monkeypatch.setattr(json, "dump", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert ask(nn.Linear(3, 4)) is CURVE
    assert list((full / "curves").iterdir()) == []


def test_an_empty_name_keeps_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("ZEROLOSS_CACHE", "")
    monkeypatch.chdir(tmp_path)
    made: list[int] = []
    for _ in range(2):
        ask(nn.Linear(3, 4), make=lambda: made.append(1) or CURVE)
    assert len(made) == 2
    assert list(tmp_path.rglob("*.json")) == []
    assert os.listdir(tmp_path) == []


def net(slope: float = 0.1, width: int = 4, depth: int = 1, **options: object) -> nn.Module:
    return fully_connected(3, width, depth, activation=leaky_relu(slope), **options)


def frozen() -> nn.Module:
    module = net()
    module.W1.weight.requires_grad_(False)
    return module


def thawed() -> nn.Module:
    module = net()
    module.A.weight.requires_grad_(True)
    return module


def stack(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), *layers, nn.Linear(4, 1))


MODULES = [
    net(),
    net(slope=0.1000001),
    net(width=5),
    net(depth=2),
    net(outputs=2),
    net(scheme="du"),
    frozen(),
    thawed(),
    stack(),
    stack(nn.ReLU()),
    stack(nn.Tanh()),
    stack(nn.GELU()),
    stack(nn.GELU("tanh")),
    stack(nn.Softplus(2.0, 40)),
    stack(nn.Softplus(2.0000001, 40)),
    stack(nn.Hardtanh(-1, 1)),
    stack(nn.Hardtanh(-1, 1.0000001)),
    stack(nn.ELU(1.0)),
    stack(nn.ELU(1.0000001)),
    stack(nn.CELU(1.0)),
    stack(Scale(2.0)),
    stack(Scale(2.0000001)),
    stack(nn.LayerNorm(4)),
    stack(nn.LayerNorm(4, eps=1e-6)),
    stack(nn.LayerNorm(4, elementwise_affine=False)),
    stack(nn.RMSNorm(4)),
    stack(nn.BatchNorm1d(4)),
    stack(nn.BatchNorm1d(4).eval()),
    stack(nn.Dropout(0.1)),
    stack(nn.Dropout(0.1).eval()),
    nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1, bias=False)),
    nn.Sequential(GaussianLinear(3, 4, variance=0.5, generator=torch.Generator())),
    nn.Sequential(GaussianLinear(3, 4, variance=0.5000001, generator=torch.Generator())),
]


def test_modules_that_differ_in_one_number_have_different_files(folder):
    """Each keeps its own curve; so do kinds, norms and dtypes, and variances that were given."""
    for count, module in enumerate(MODULES, 1):
        ask(module)
        assert len(list(folder.iterdir())) == count, module
    for module in MODULES:
        ask(module, make=refuse)
    first = MODULES[0]
    for key in (("nngp", 1.0), ("ntk", 1.0000000000000002), ("ntk", 1.0, "torch.float32")):
        count = len(list(folder.iterdir()))
        ask(first, key=key)
        assert len(list(folder.iterdir())) == count + 1
    for initial in ({first.W1: (0.3, 0.0)}, {first.W1: (0.3, 0.1)}, {first.A: (0.3, 0.0)}):
        count = len(list(folder.iterdir()))
        ask(first, initial)
        assert len(list(folder.iterdir())) == count + 1


def test_kernels_of_other_dtypes_and_norms_have_other_files(folder):
    """As the kernel itself asks: float32 and float64, and two norms of a module that is not homogeneous."""
    x = torch.nn.functional.normalize(torch.randn(70, 3, dtype=torch.float64))
    relu, erf = limit_kernel(fully_connected(3, 4, 1)), limit_kernel(fully_connected(3, 4, 1, activation="erf"))
    for count, call in enumerate((lambda: relu(x), lambda: relu(x.float()), lambda: erf(x), lambda: erf(2 * x)), 1):
        call()
        assert len(list(folder.iterdir())) == count
    relu(2 * x)
    limit_kernel(fully_connected(3, 4, 1), "nngp")(x)
    assert len(list(folder.iterdir())) == 5


class Own(nn.Module):
    """A layer of a user's, known by its attribute."""

    zeroloss_activation = Activation("own", torch.sin)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(x)


@pytest.mark.parametrize(
    "layer",
    [
        Elementwise(lambda z: torch.sin(z)),
        Elementwise(torch.sin),
        Activation("mine", lambda z: torch.sin(z)).module(),
        Activation("mine", partial(Elementwise, torch.sin)).module(),
        Own(),
    ],
    ids=["lambda", "torch function", "activation", "partial", "class"],
)
def test_a_users_function_is_never_kept(layer, folder):
    """Two of them may share every name; their values tell them apart where that is asked for."""
    module = stack(layer)
    assert describe(module, {}) is None
    ask(module)
    assert not folder.exists()
    other = stack(Elementwise(lambda z: torch.sin(1.0001 * z)))
    assert describe(module, {}, by_values=True) not in (None, describe(other, {}, by_values=True))
