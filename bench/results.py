"""Write docs/results/study.md and study.png from a finished default study: ``make results``."""

from __future__ import annotations

import sys
from pathlib import Path

from matplotlib.figure import Figure

from zeroloss import Study, run_study
from zeroloss.study import StudyResult, default_folder

OUT = Path(__file__).parents[1] / "docs" / "results"


def main() -> None:
    """Run (or read) the default study and write both files."""
    folder = default_folder(Study())
    result = run_study(Study(), folder)
    OUT.mkdir(parents=True, exist_ok=True)
    picture(result).savefig(OUT / "study.png", dpi=110)
    (OUT / "study.md").write_text(page(result), encoding="utf-8")
    sys.stdout.write(f"{OUT / 'study.md'}\n")


def picture(result: StudyResult) -> Figure:
    """Loss and forecast of every network, relative to the first loss."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    axes = figure.subplots()
    for network, colour in zip(result.networks, ("#0072B2", "#D55E00", "#009E73"), strict=False):
        first = network.curve_loss[0]
        loss, told = ([v / first for v in values] for values in (network.curve_loss, network.curve_predicted))
        axes.semilogy(network.curve_steps, loss, color=colour, label=network.spec.name)
        axes.semilogy(network.curve_steps, told, color=colour, linestyle="--", linewidth=1)
    axes.axhline(result.study.training.until, color="0.5", linewidth=0.8)
    axes.set(xlabel="step", ylabel="loss / first loss", ylim=(result.study.training.until / 10, 2))
    axes.legend(frameon=False)
    return figure


def page(result: StudyResult) -> str:
    """The figures as Markdown."""
    e, data = result.environment, result.data
    lines = [
        "# The default study",
        "",
        f"`make study`: {data.n} rows of {data.name}, classes {' and '.join(data.classes)}, separation {data.separation:.3f}. "
        f"torch {e['torch']}, Python {e['python']}, {e['threads']} threads, {e['device']}, {e['system']}; "
        f"{result.timings['total']:.0f} s in all. Written by `make results`.",
        "",
        result.summary,
        "",
        "| network | status | steps | forecast | miss | condition | λ_min G(0) | λ_min limit | gap of G(0) to the limit |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for n in result.networks:
        told = n.forecast.steps or 0
        lines.append(
            f"| {n.spec.name} | {n.status} | {n.steps} | {told} | {100 * (n.steps / told - 1):.1f} % | {n.forecast.condition:.3g} "
            f"| {n.probes[0].smallest:.3g} | {n.limit_spectrum[0]:.3g} | {100 * n.kernel_gap:.1f} % |"
        )
    lines += ["", "| claim | verdict | subject | reason | regime |", "|---|---|---|---|---|"]
    for v in result.verdicts:
        reason = v.reason.replace("|", "\\|")
        lines.append(f"| {v.claim} | {v.status} | {v.subject} | {reason} | {v.regime or '–'} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
