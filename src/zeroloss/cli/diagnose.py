"""``zeroloss diagnose``: a user's own network, from a Python file, beside data; sentences, JSON and a page.

The file is Python and is executed: this command trusts it as far as running it by hand would.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from zeroloss.cli.show import console
from zeroloss.cli.study import class_list
from zeroloss.cli.user_file import read_build, stdout_to_stderr
from zeroloss.data import load
from zeroloss.doctor import Diagnosis, Severity, diagnose
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
    with console(json=True).status("reading the file") as shown, stdout_to_stderr():
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
