"""A user's own network from a Python file that defines ``build()``; it is executed, and trusted as far as running it by hand would."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zeroloss.errors import FileError, ZerolossError


def read_build(path: str, seed: int) -> tuple[Callable[[int | None], nn.Module], int | None]:
    """Execute a file and find its ``build``.

    Args:
        path: a Python file that defines ``build()``, or ``build(width=...)`` with a default, giving an ``nn.Module``.
        seed: of torch's generator before every build.

    Returns:
        A function from a width (None for the file's own) to a network, and the file's own width; None where build takes none.

    Raises:
        FileError: for a file that is missing, fails, or has no such function; naming the line where it failed.
    """
    file = Path(path)
    if not file.is_file():
        raise FileError(path, "is not there", "name a Python file that defines build()")
    spec = importlib.util.spec_from_file_location("zeroloss_diagnosed", file)
    if spec is None or spec.loader is None:
        raise FileError(path, "is not a Python file", "name one that ends in .py and defines build()")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickling look their module up
    sys.path.insert(0, str(file.resolve().parent))  # for what it imports from beside it
    loader = spec.loader
    _guarded(path, lambda: loader.exec_module(module))
    build = getattr(module, "build", None)
    if not callable(build):
        raise FileError(path, "defines no function build()", "let it define build(), giving an nn.Module")
    takes = inspect.signature(build).parameters.get("width")
    width = None if takes is None else takes.default
    if takes is not None and (isinstance(width, bool) or not isinstance(width, int)):
        raise FileError(path, "has a build(width) without a whole number as default", "write build(width=64)")

    def make(other: int | None) -> nn.Module:
        torch.manual_seed(seed)
        network = _guarded(path, lambda: build() if other is None else build(width=other))
        if not isinstance(network, nn.Module):
            raise FileError(path, f"has a build() that gives {type(network).__name__}", "return a torch.nn.Module")
        return network

    return make, width


def _guarded(path: str, call: Callable[[], Any]) -> Any:
    """Run the user's code; whatever it raises is one line that says where."""
    try:
        return call()
    except ZerolossError:
        raise
    except SyntaxError as error:
        raise FileError(path, f"is not Python (line {error.lineno}: {error.msg})", "mend it") from error
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).name == Path(path).name
        ]
        where = f" in line {lines[-1]}" if lines else ""
        said = str(error).strip().splitlines()
        what = f"{type(error).__name__}: {said[0][:200]}" if said else type(error).__name__
        raise FileError(path, f"failed{where} ({what})", "mend it, or run it by itself to see more") from error


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """What the user's code prints must not enter the result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
