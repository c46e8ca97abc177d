"""``zeroloss diagnose``: a user's own network, from a Python file, beside data; sentences, JSON and a page.

The file is Python and is executed: this command trusts it as far as running it by hand would.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import inspect
import json
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.text import Text
from torch import nn

from zeroloss.cli.show import console
from zeroloss.cli.study import class_list
from zeroloss.data import load
from zeroloss.doctor import Diagnosis, Severity, diagnose
from zeroloss.errors import FileError, ZerolossError
from zeroloss.study.result import plain
from zeroloss.training import replace_file

_COLOURS = {Severity.CRITICAL: "bold red", Severity.SERIOUS: "yellow", Severity.NOTICE: "cyan"}


def diagnose_command(parsed: argparse.Namespace) -> int:
    """Examine the network that the file builds.

    Args:
        parsed: the flags.

    Returns:
        0, whatever was found.
    """
    classes = None if parsed.classes is None else class_list(parsed.classes)
    data = load(
        parsed.data,
        n=parsed.n,
        classes=classes,
        size=parsed.size,
        normalise=parsed.normalise or "auto",
        root=parsed.root,
        seed=parsed.seed,
    )
    out = console(parsed.json)
    with console(json=True).status("reading the file") as shown, _stdout_to_stderr():
        make, width = read_build(parsed.file, parsed.seed)
        module = make(None)
        found = diagnose(
            module,
            data,
            parsed.step,
            loss=parsed.loss,
            build=None if width is None else make,
            width=width,
            budget=parsed.budget,
            seed=parsed.seed,
            progress=shown.update,
        )
    pages = {}
    if parsed.out is not None:
        from zeroloss.report.diagnosis_page import write_diagnosis  # matplotlib and jinja2, only where a page is asked for

        pages["page"] = str(write_diagnosis(found, data, parsed.out))
        pages["json"] = str(Path(parsed.out) / "diagnosis.json")
        replace_file(Path(pages["json"]), json.dumps(as_json(found), indent=1).encode())
    if parsed.json:
        print(json.dumps(as_json(found) | pages, indent=1))
        return 0
    show(out, found)
    if pages:
        out.print(f"Page: {pages['page']}", markup=False, soft_wrap=True)
    return 0


def as_json(found: Diagnosis) -> dict[str, Any]:
    """The diagnosis as plain values, its text among them.

    Args:
        found: which.

    Returns:
        What JSON can hold.
    """
    table = asdict(found) | {
        "headline": found.headline,
        "text": found.text,
        "predicted_steps": {f"{ratio:.0e}": steps for ratio, steps in found.predicted_steps.items()},
        "step_intervals": {f"{ratio:.0e}": ends for ratio, ends in found.step_intervals.items()},
        "slowest_samples": found.slowest_samples,
    }
    result: dict[str, Any] = plain(table)
    return result


def show(out: Console, found: Diagnosis) -> None:
    """Print the page of sentences, severities in colour, whole lines where the output is a pipe.

    Args:
        out: where.
        found: what.
    """
    for line in found.text.splitlines():
        text = Text(line)
        for severity, colour in _COLOURS.items():
            if line.startswith(severity.value):
                text.stylize(colour, 0, len(severity.value))
        out.print(text, soft_wrap=not out.is_terminal)


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
def _stdout_to_stderr() -> Iterator[None]:
    """What the user's code prints must not enter the result."""
    with contextlib.redirect_stdout(sys.stderr):
        yield
