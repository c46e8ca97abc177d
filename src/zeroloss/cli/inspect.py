"""``zeroloss claims``, ``zeroloss data`` and ``zeroloss report``: the commands that train nothing of the user's."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from zeroloss.claims import CLAIMS, Judgement, find_claim
from zeroloss.cli.show import console, show_data, show_verdicts
from zeroloss.cli.study import class_list
from zeroloss.data import load
from zeroloss.report import write_report
from zeroloss.study import check, read_result, summarise
from zeroloss.study.result import plain


def claims_command(parsed: argparse.Namespace) -> int:
    """Check claims, or list them.

    Returns:
        0, or 1 where one is violated.
    """
    claims = [find_claim(word) for word in parsed.ids] if parsed.ids else list(CLAIMS)
    out = console(parsed.json)
    if parsed.list:
        rows = [{"id": c.id, "statement": c.statement, "formula": c.formula, "source": c.source} for c in claims]
        if parsed.json:
            print(json.dumps(rows, indent=1))
            return 0
        table = Table()
        for name in ("id", "statement", "formula", "source"):
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*(escape(value) for value in row.values()))
        out.print(table)
        return 0
    verdicts = []
    for c in claims:
        with out.status(f"checking {c.id}: {escape(c.statement)}"):
            verdicts.append(check(c.id, parsed.budget))
    if parsed.json:
        print(json.dumps(plain([asdict(v) for v in verdicts]), indent=1))
    else:
        show_verdicts(out, verdicts, reasons=True)
    return int(any(v.status is Judgement.VIOLATED for v in verdicts))


def data_command(parsed: argparse.Namespace) -> int:
    """Describe a data set.

    Returns:
        0.
    """
    classes = None if parsed.classes is None else class_list(parsed.classes)
    how = parsed.normalise or "auto"
    summary = summarise(
        load(parsed.source, n=parsed.n, classes=classes, size=parsed.size, normalise=how, root=parsed.root, seed=parsed.seed)
    )
    if parsed.json:
        print(json.dumps(plain(asdict(summary)), indent=1))
    else:
        show_data(console(parsed.json), summary)
    return 0


def report_command(parsed: argparse.Namespace) -> int:
    """Write a report again.

    Returns:
        0.
    """
    path = write_report(read_result(parsed.folder), Path(parsed.folder))
    print(json.dumps({"report": str(path)}) if parsed.json else f"Report: {path}")
    return 0
