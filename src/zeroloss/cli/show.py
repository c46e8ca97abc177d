"""Results as terminal text: tables and short lines, with the status always written out."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zeroloss.claims import Verdict
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
    out.print(
        f"[bold]{escape(data.name)}[/]: {data.n} rows, {data.features} features, {data.outputs} outputs{what}; "
        f"separation {number(data.separation)}"
    )
    if data.duplicates:
        out.print(f"  {len(data.duplicates)} groups of identical rows (first: {list(data.duplicates[0])[:6]})")
    if data.conflicts:
        out.print(
            f"  [red]{len(data.conflicts)} groups of identical rows carry different targets[/] (first: "
            f"{list(data.conflicts[0])[:6]}): no network gets below a loss of {number(data.loss_floor)}"
        )


def show_forecast(out: Console, prepared: Prepared, max_steps: int) -> None:
    """What theory says before the run."""
    f = prepared.forecast
    steps = "never reaches the target" if f.steps is None else f"{f.steps:,} steps to the target"
    shown = max_steps if not f.within_budget or f.steps is None else f.steps
    time = duration(shown * prepared.seconds_per_step)
    out.print(f"[bold]{escape(prepared.spec.name)}[/]: condition {number(f.condition)}, forecast {steps}, about {time}")
    if not f.within_budget:
        out.print(
            f"  [yellow]the budget of {max_steps:,} steps ends first[/], at {number(f.loss_ratio)} of the first loss by forecast"
        )


def show_networks(out: Console, networks: Iterable[NetworkResult]) -> None:
    """A table, one row a network."""
    table = Table(title="Networks", title_justify="left")
    table.add_column("network", overflow="fold")
    table.add_column("status", no_wrap=True)
    for name in ("steps", "forecast", "loss ratio", "smallest G", "condition"):
        table.add_column(name, justify="right", overflow="fold")
    for n in networks:
        told = "never" if n.forecast.steps is None else f"{n.forecast.steps:,}"
        smallest = number(n.probes[0].smallest if n.probes else None)
        row = (f"{n.steps:,}", told, number(n.loss_ratio), smallest, number(n.forecast.condition))
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
        table.add_column(name, justify="right", overflow="fold")
    if reasons:
        table.add_column("reason", overflow="fold")
    for v in shown:
        reason = [escape(v.reason)] if reasons else []
        table.add_row(v.claim, status(v.status), escape(v.subject), number(v.observed), number(v.bound), *reason)
    out.print(table)
    for v in shown:
        if not reasons and v.status != "HOLDS":
            out.print(f"{v.claim} is {status(v.status)} for {escape(v.subject)}: {escape(v.reason)}")
