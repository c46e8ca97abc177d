"""Curves kept on disk: what a deep network's limit takes a second to compile, the next process reads in a millisecond.

One small JSON file a curve, named by the hash of everything that the curve depends on, under the user's cache folder or the one that
``ZEROLOSS_CACHE`` names; an empty name keeps nothing. A file that cannot be read or written is as good as none.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import nn

from zeroloss.kernels.curve import LARGEST_DEGREE, Curve, Side
from zeroloss.kernels.initial import bias_variance, weight_variance
from zeroloss.kernels.structure import WEIGHTED
from zeroloss.networks import Scale, activation_of

VERSION = 1  # of the file's form


def remembered(
    key: tuple[object, ...],
    module: nn.Module,
    initial: Mapping[nn.Module, tuple[float, float]],
    make: Callable[[], Curve | None],
) -> Curve | None:
    """The curve of a module, from disk where it is there, else made and kept.

    Args:
        key: what it depends on beside the module.
        module: the module; one with functions of the user's own is never kept, since they have no name that lasts.
        initial: variances of weights and bias that were given.
        make: makes the curve, or None where there is none (which is kept too).

    Returns:
        What ``make`` returns.

    Example:
        >>> side = Side(False, 0.0, (1.0,))
        >>> remembered(("doctest",), nn.Linear(2, 1), {}, lambda: Curve(1.0, side, side, 0.0, 0.0)).diagonal
        1.0
    """
    folder, shape = cache_folder(), describe(module, initial)
    if folder is None or shape is None:
        return make()
    name = hashlib.sha256(repr((VERSION, _sources(), torch.__version__, key, shape)).encode()).hexdigest()
    path = folder / f"{name}.json"
    try:
        return _read(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError):
        pass
    curve = make()
    _write(path, None if curve is None else asdict(curve))
    return curve


@lru_cache(maxsize=1)
def _sources() -> str:
    """A hash of the code that curves come from: no curve outlives a change of a recursion, and no test reads one of another's."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted((*package.glob("kernels/*.py"), *package.glob("networks/*.py"))):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def cache_folder() -> Path | None:
    """Where curves are kept, None for nowhere."""
    named = os.environ.get("ZEROLOSS_CACHE")
    if named == "":
        return None
    try:
        return (Path(named) if named else user_cache_path("zeroloss")) / "curves"
    except (OSError, RuntimeError):  # no home
        return None


def describe(module: nn.Module, initial: Mapping[nn.Module, tuple[float, float]], by_values: bool = False) -> object | None:
    """Everything about a module that its limit depends on, as plain values; None where something in it has no lasting name.

    Args:
        module: the module.
        initial: variances of weights and bias that were given.
        by_values: take a function of the user's own for what it gives on a grid, rather than return None.

    Example:
        >>> describe(nn.Sequential(nn.Linear(2, 1, bias=False), nn.ReLU()), {})[1][0][1][:2]
        (2, 1)
        >>> from zeroloss.networks import Elementwise
        >>> describe(Elementwise(lambda z: torch.sin(z)), {}) is None
        True
    """
    kind = f"{type(module).__module__}.{type(module).__qualname__}"
    if (sigma := activation_of(module)) is not None:
        source = sigma.source
        made = source.func if isinstance(source, partial) else source
        owner = str(getattr(made, "__module__", ""))
        given = (source.args, sorted(source.keywords.items())) if isinstance(source, partial) else ((), [])
        lasting = isinstance(made, type) and owner.split(".")[0] in ("torch", "zeroloss")
        if lasting and all(isinstance(value, int | float | str) for value in (*given[0], *dict(given[1]).values())):
            return ("activation", made.__qualname__, given, sigma.kinks)
        return ("function", sigma.kinks, sigma.function(torch.linspace(-4, 4, 97)).tolist()) if by_values else None
    trained = tuple((name, p.requires_grad) for name, p in module.named_parameters(recurse=False))
    if isinstance(module, WEIGHTED):
        variances = initial.get(module, (weight_variance(module), bias_variance(module)))
        return (kind, (*module.weight.shape[1::-1], variances, trained, _plain(module)))
    children = [describe(child, initial, by_values) for child in module._modules.values() if child is not None]
    if any(child is None for child in children):
        return None
    known = isinstance(module, Scale) or bool(children) or kind.startswith(("torch.", "zeroloss."))
    return (kind, children, _plain(module), trained) if known else None


def _plain(module: nn.Module) -> list[tuple[str, object]]:
    """Everything that a layer was told: sizes, strides, options."""
    kinds = (int, float, str, tuple, type(None))
    return sorted((name, value) for name, value in vars(module).items() if name[0] != "_" and isinstance(value, kinds))


def _read(found: Any) -> Curve | None:
    if found["curve"] is None:
        return None
    curve = dict(found["curve"])
    for name in ("same", "opposite"):
        side = curve[name]
        curve[name] = Side(bool(side["root"]), float(side["pull"]), tuple(map(float, side["coefficients"])))
        plain = all(map(math.isfinite, curve[name].coefficients)) and 0 <= curve[name].pull < math.inf
        if not plain or not 0 < len(curve[name].coefficients) <= LARGEST_DEGREE + 1:
            raise ValueError("coefficients out of range")
    numbers = {name: float(curve[name]) for name in ("diagonal", "error", "steepness")}
    if not all(0 <= number < math.inf for number in numbers.values()):
        raise ValueError("numbers out of range")
    return Curve(same=curve["same"], opposite=curve["opposite"], **numbers)


def _write(path: Path, curve: object) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump({"curve": curve}, file)
            Path(name).replace(path)
        except OSError:
            Path(name).unlink(missing_ok=True)
    except OSError:  # a full or read-only disk
        pass
