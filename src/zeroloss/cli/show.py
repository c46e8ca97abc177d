"""Results as terminal text: tables and short lines, with the status always written out."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zeroloss.claims import Verdict
from zeroloss.study.explanation import count
from zeroloss.study.network_run import Prepared
from zeroloss.study.result import DataSummary, NetworkResult

COLOURS = {
    "CONVERGED": "green",
    "HOLDS": "green",
    "DIVERGED": "red",
    "VIOLATED": "red",
    "MAX_STEPS": "yellow",
    "INCONCLUSIVE": "yellow",
    "NOT_APPLICABLE": "dim",
}


def console(json: bool) -> Console:
    """Where text for people goes: standard output, or standard error where JSON has the output to itself."""
    return Console(stderr=json, highlight=False, soft_wrap=False)


def number(value: float | None) -> str:
    """A number with three digits, or a dash.

    Example:
        >>> number(1234.5), number(None)
        ('1.23e+03', '-')
    """
    return "-" if value is None else f"{value:.3g}"


def duration(seconds: float) -> str:
    """A time that a person reads at a glance.

    Example:
        >>> duration(0.4), duration(75.0), duration(7300.0)
        ('0.4 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def status(word: str) -> str:
    """A status with its colour, as rich markup."""
    return f"[{COLOURS.get(word, 'default')}]{word}[/]"


def show_data(out: Console, data: DataSummary) -> None:
    """One paragraph on the data, warnings last."""
    classes = ", ".join(f"{escape(c)}: {k}" for c, k in zip(data.classes, data.counts, strict=False))
    what = f" ({classes})" if classes else ""
    sizes = f"{count(data.n, 'row')}, {count(data.features, 'feature')}, {count(data.outputs, 'output')}"
    out.print(f"[bold]{escape(data.name)}[/]: {sizes}{what}; separation {number(data.separation)}")
    if data.duplicates:
        first = list(data.duplicates[0])[:6]
        out.print(f"  {count(len(data.duplicates), 'group')} of identical inputs, as normalised (first: rows {first})")
    if data.conflicts:
        first = list(data.conflicts[0])[:6]
        out.print(
            f"  [red]{count(len(data.conflicts), 'group')} of them with different targets[/] (first: rows {first}): "
            f"no network gets below a loss of {number(data.loss_floor)}"
        )


def show_forecast(out: Console, prepared: Prepared, max_steps: int) -> None:
    """What theory says before the run."""
    f = prepared.foresight.forecast
    never = "not at the target within the budget" if f.bounded else "never at the target"
    steps = never if f.steps is None else f"{count(f.steps, 'step')} to the target"
    head = f"[bold]{escape(prepared.spec.name)}[/]: condition {number(f.condition)}, forecast {steps}"
    if f.within_budget and f.steps is not None:
        out.print(f"{head}, about {duration(f.steps * prepared.seconds_per_step)}")
        return
    out.print(head)
    out.print(
        f"  [yellow]the budget of {count(max_steps, 'step')} ends first[/], after about {duration(max_steps * prepared.seconds_per_step)}, "
        f"at {number(f.loss_ratio)} of the first loss by forecast"
    )


def show_networks(out: Console, networks: Iterable[NetworkResult]) -> None:
    """A table, one row a network."""
    table = Table(title="Networks", title_justify="left")
    table.add_column("network", overflow="fold")
    for name in ("status", "steps", "forecast", "loss ratio", "condition"):
        table.add_column(name, justify="left" if name == "status" else "right", no_wrap=True)
    for n in networks:
        never = "> budget" if n.forecast.bounded else "never"
        told = never if n.forecast.steps is None else f"{n.forecast.steps:,}"
        row = (f"{n.steps:,}", told, number(n.loss_ratio), number(n.forecast.condition))
        table.add_row(escape(n.spec.name), status(n.status), *row)
    out.print(table)


def show_verdicts(out: Console, verdicts: Iterable[Verdict], reasons: bool = False) -> None:
    """A table, one row a claim and subject.

    Args:
        out: where.
        verdicts: which.
        reasons: whether to give every reason; without, only those of verdicts other than HOLDS are given, below the table.
    """
    shown = list(verdicts)
    table = Table(title="Claims", title_justify="left")
    table.add_column("claim", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("subject", overflow="fold")
    for name in ("observed", "bound"):
        table.add_column(name, justify="right", no_wrap=True)
    if reasons:
        table.add_column("reason", overflow="fold")
    for v in shown:
        reason = [escape(v.reason)] if reasons else []
        table.add_row(v.claim, status(v.status), escape(v.subject), number(v.observed), number(v.bound), *reason)
    out.print(table)
    for v in shown:
        if not reasons and v.status != "HOLDS":
            out.print(f"{v.claim} is {status(v.status)} for {escape(v.subject)}: {escape(v.reason)}")
