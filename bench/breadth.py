"""Every architecture on digits and CIFAR-10, true and random labels, by every optimiser: writes docs/results/breadth.md (``make breadth``).

Each row is a study of one network without claims, kept in its own folder under runs/breadth: an interrupted table goes on where it was.
Rows run two at a time with one thread each, so that seconds compare within the table.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from joblib import Parallel, delayed

from zeroloss.study import DataSpec, NetworkSpec, Study, StudyResult, TrainingSpec, read_result, run_study
from zeroloss.study.folder import slug

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "results" / "breadth.md"
RUNS = ROOT / "runs" / "breadth"
ROWS = 100
NETWORKS = (
    NetworkSpec("AZ fully connected, ReLU", "fully_connected", "allen-zhu", "relu", 256, 2),
    NetworkSpec("AZ CNN, ReLU", "cnn", "allen-zhu", "relu", 32, 2),
    NetworkSpec("AZ ResNet, ReLU", "resnet", "allen-zhu", "relu", 256, 2),
    NetworkSpec("DU fully connected, erf", "fully_connected", "du", "erf", 256, 2),
    NetworkSpec("DU ResNet, erf", "resnet", "du", "erf", 256, 3),
    NetworkSpec("DU conv ResNet, erf", "conv_resnet", "du", "erf", 32, 2),
)
DATA = {
    "digits": (DataSpec("digits", n=ROWS, classes=(3, 8)), 1e-6),
    "cifar10": (DataSpec("cifar10", n=ROWS, classes=("cat", "dog")), 1e-4),
}
TEN = {"digits": DataSpec("digits", n=ROWS), "cifar10": DataSpec("cifar10", n=ROWS)}
SIDE = 16  # of CIFAR-10's images for convolutional networks
METHODS = {
    "GD": {"max_steps": 5_000},
    "SGD b=n": {"batch": ROWS, "replacement": True, "max_steps": 5_000},
    "SGD b=10": {"batch": 10, "max_steps": 10_000},
    "SGD b=1": {"batch": 1, "max_steps": 40_000},
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        data: digits or cifar10.
        labels: true or random.
        method: GD, or SGD with its batch.
        study: what runs.
    """

    data: str
    labels: str
    method: str
    study: Study

    @property
    def folder(self) -> Path:
        """Where it runs."""
        spec, training = self.study.networks[0], self.study.training
        return RUNS / slug(f"{spec.name}-{self.data}-{self.labels}-{self.method}-{training.loss}-{self.study.key}")


def rows(root: str | None) -> list[Row]:
    """All rows, in the order of the table.

    Args:
        root: the folder of CIFAR-10; None for what ZEROLOSS_DATA names.
    """
    found = []
    for network in NETWORKS:
        for name, (spec, until) in DATA.items():
            for labels in ("true", "random"):
                for loss in ("squared", "cross_entropy"):
                    fitted = loss == "cross_entropy"
                    data = replace(TEN[name] if fitted else spec, labels=labels, root=root)
                    if network.images and name == "cifar10":
                        data = replace(data, size=SIDE)
                    for method, options in METHODS.items():
                        if fitted and method in ("SGD b=n", "SGD b=1"):
                            continue
                        training = TrainingSpec(loss=loss, until=until, stop_when_fitted=fitted, device="cpu", **options)
                        found.append(Row(name, labels, method, Study(data, (network,), training, claims=False)))
    return found


def run(row: Row) -> StudyResult:
    """Train one row, or read it back."""
    import torch

    torch.set_num_threads(1)
    result = run_study(row.study, row.folder)
    n = result.networks[0]
    sys.stderr.write(f"{row.data} {row.labels} {row.study.training.loss} {row.method} {n.spec.name}: {n.status} {n.steps}\n")
    return result


def line(row: Row, result: StudyResult) -> str:
    """One line of the Markdown table."""
    n, training = result.networks[0], row.study.training
    told = (
        f"{n.forecast.steps:,}"
        if n.forecast.steps is not None
        else f"> {training.max_steps:,}"
        if n.forecast.bounded
        else "never"
    )
    if n.forecast.steps is None or not n.forecast.within_budget:
        told += f" ({n.forecast.loss_ratio:.1e} at the budget)"
    reached = "yes" if n.status == "CONVERGED" else "no"
    accuracy = "–" if n.accuracy is None else f"{100 * n.accuracy:.0f} %"
    seconds = result.timings[f"{n.spec.name}: training"]
    size = f"{result.data.features} features"
    width = n.spec.width if isinstance(n.spec.width, int) else list(n.spec.width)
    cells = [n.spec.name, row.data, size, row.labels, training.loss, row.method, width, n.trained, f"{n.steps:,}", told]
    return "| " + " | ".join(map(str, [*cells, f"{n.loss_ratio:.1e}", accuracy, reached, f"{seconds:.1f}"])) + " |"


def page(table: list[tuple[Row, StudyResult]]) -> str:
    """The whole file."""
    e = table[0][1].environment
    done = sum(result.networks[0].status == "CONVERGED" for _, result in table)
    head = [
        "# Breadth: every architecture, data set, kind of label and optimiser",
        "",
        f"Written by `make breadth`: {len(table)} runs on {ROWS} rows each, {done} of which reached their target: squared loss below "
        f"1e-6 of its start on digits (3 against 8), below 1e-4 on CIFAR-10 (cat against dog; averaged to {SIDE}×{SIDE} for "
        f"convolutional networks), or for cross-entropy 100 % training accuracy on ten classes. Inputs less their mean image, unit norm. "
        f"Random labels are drawn anew for every row. Steps of GD are full batches; b=n draws n rows with replacement, b=10 and b=1 go "
        f"through permutations; step sizes are `auto`. *Predicted* is the number of steps of the same run with the initial Gram held "
        f"still; where it exceeds the budget the loss foretold for the budget's end stands beside it. "
        f"torch {e['torch']}, Python {e['python']}, one thread a run, two runs at a time, {e['device']}, {e['system']}.",
        "",
        "| network | data | size | labels | loss | method | width | trained parameters | steps | predicted | loss / first | accuracy "
        "| reached | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    return "\n".join([*head, *(line(row, result) for row, result in table)]) + "\n"


def main() -> None:
    """Run what is missing and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default=os.environ.get("ZEROLOSS_DATA"), help="the folder that holds CIFAR-10")
    parser.add_argument("--only", default="", help="rows whose folder's name contains this")
    parsed = parser.parse_args()
    chosen = [row for row in rows(parsed.root) if parsed.only in row.folder.name]
    Parallel(n_jobs=2)(delayed(run)(row) for row in chosen)
    table = [(row, read_result(row.folder)) for row in chosen]
    if parsed.only:
        sys.stdout.write("\n".join(line(*entry) for entry in table) + "\n")
    else:
        OUT.parent.mkdir(parents=True, exist_ok=True)
        OUT.write_text(page(table), encoding="utf-8")
        sys.stdout.write(f"{OUT}\n")


if __name__ == "__main__":
    main()
