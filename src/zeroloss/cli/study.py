"""``zeroloss study``: flags to a specification, a run with progress, a table at the end."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from zeroloss.claims import Judgement
from zeroloss.cli.show import console, show_data, show_forecast, show_networks, show_verdicts
from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.report import write_report
from zeroloss.study import DataSpec, NetworkSpec, Study, Watch, default_folder, read_study, run_study, summarise
from zeroloss.study.building import load_data
from zeroloss.study.network_run import Prepared, prepare
from zeroloss.study.presets import PRESETS, find_preset
from zeroloss.study.result import NetworkResult, plain
from zeroloss.study.specification import FAMILIES, TrainingSpec

Spec = TypeVar("Spec", DataSpec, NetworkSpec, TrainingSpec)


def study_command(parsed: argparse.Namespace) -> int:
    """Run it.

    Args:
        parsed: the flags.

    Returns:
        0, or 1 where a claim was violated.
    """
    out = console(parsed.json)
    if parsed.list:
        return _list(out, parsed.json)
    study = study_of(parsed)
    if parsed.forecast:
        return _forecast(study, out, parsed.json)
    folder = Path(parsed.out) if parsed.out else default_folder(study)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[state]}"),
        TimeRemainingColumn(),
        console=console(json=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as bars:
        result = run_study(study, folder, _watch(out, bars, study))
    report = write_report(result, folder)
    if parsed.json:
        print(result.to_json(), end="")
    else:
        show_networks(out, result.networks)
        if result.verdicts:
            show_verdicts(out, result.verdicts)
        out.print(result.summary, markup=False)
        out.print(f"Report: {report}", markup=False, soft_wrap=True)
    return int(any(v.status is Judgement.VIOLATED for v in result.verdicts))


def _list(out: Console, as_json: bool) -> int:
    if as_json:
        print(
            json.dumps(
                [{"name": p.name, "statement": p.statement, "study": plain(dataclasses.asdict(p.study))} for p in PRESETS],
                indent=1,
            )
        )
        return 0
    table = Table(title="Presets: zeroloss study --preset NAME", title_justify="left")
    for name in ("name", "network", "data", "what it shows"):
        table.add_column(name, overflow="fold")
    for p in PRESETS:
        networks = ", ".join(escape(network.name) for network in p.study.networks)
        table.add_row(p.name, networks, f"{p.study.data.source}, n={p.study.data.n}", escape(p.statement))
    out.print(table)
    return 0


def _forecast(study: Study, out: Console, as_json: bool) -> int:
    data = load_data(study.data)
    show_data(out, summarise(data))
    rows = []
    for spec in study.networks:
        prepared = prepare(spec, data, study.training)
        show_forecast(out, prepared, study.training.max_steps)
        row = {
            **dataclasses.asdict(prepared.foresight.forecast),
            "step_size": prepared.step_size,
            "seconds_per_step": prepared.seconds_per_step,
        }
        rows.append({"network": spec.name, **row})
    if as_json:
        print(json.dumps(plain(rows), indent=1))
    return 0


def study_of(parsed: argparse.Namespace) -> Study:
    """The specification that the flags describe: a file's fields, or the default study's, each overridden by its flag."""
    if parsed.file and parsed.preset:
        raise ArgumentError("--preset", "is given with --from", "start from one of them")
    study = read_study(parsed.file) if parsed.file else find_preset(parsed.preset).study if parsed.preset else Study()
    if parsed.data is not None:
        # another source has other classes: start from all of them and every row
        study = dataclasses.replace(study, data=dataclasses.replace(study.data, source=parsed.data, n=None, classes=None))
    classes = study.data.classes if parsed.classes is None else class_list(parsed.classes)
    data = _override(
        study.data,
        n=parsed.n,
        normalise=parsed.normalise,
        size=parsed.size,
        root=parsed.root,
        seed=parsed.seed,
        labels=parsed.labels,
        noise=parsed.noise,
    )
    data = dataclasses.replace(data, classes=classes)
    training = _override(
        study.training,
        loss=parsed.loss,
        batch=parsed.batch,
        replacement=parsed.replacement,
        momentum=parsed.momentum,
        seed=parsed.seed,
        step=_number_or_word(parsed.step),
        max_steps=parsed.max_steps,
        until=parsed.until,
        dtype=parsed.dtype,
        device=parsed.device,
    )
    networks = study.networks
    if parsed.network:
        networks = tuple(_named(family, parsed.scheme) for family in parsed.network)
    elif parsed.scheme:
        raise ArgumentError("--scheme", "is given without --network", "name the family with --network too")
    if parsed.data is not None and parsed.size is None and any(s.images for s in networks):
        data = dataclasses.replace(data, size=_LARGE.get(parsed.data))
    if parsed.noise is not None and data.labels != "noisy":
        raise ArgumentError("--noise", "is given, but the labels are not noisy", "add --labels noisy")
    special = {
        "tau": _number_or_word(parsed.tau),
        "block": parsed.block,
        "kernel": parsed.kernel,
        "padding": parsed.padding,
    }
    special = {name: value for name, value in special.items() if value is not None}
    for name in special:
        if not any(_has(s, name) for s in networks):
            raise ArgumentError(f"--{name}", "fits none of the networks", "name one with --network and --scheme that has it")
    trained = parsed.train if parsed.train in (None, "all") else tuple(parsed.train.split(","))
    networks = tuple(
        _override(
            s,
            activation=parsed.activation,
            width=parsed.width,
            depth=parsed.depth,
            seed=parsed.seed,
            trained=trained,
            **{name: value for name, value in special.items() if _has(s, name)},
        )
        for s in networks
    )
    if parsed.network or parsed.activation:
        networks = tuple(dataclasses.replace(s, name=_title(s)) for s in networks)
    return dataclasses.replace(
        study, data=data, training=training, networks=networks, claims=study.claims and not parsed.no_claims
    )


def class_list(text: str) -> tuple[str | int, ...] | None:
    """``3,8`` as integers, ``cat,dog`` as names, ``all`` as None.

    Example:
        >>> class_list("3,8"), class_list("all")
        ((3, 8), None)
    """
    if text == "all":
        return None
    words = [word.strip() for word in text.split(",") if word.strip()]
    return tuple(int(word) if word.lstrip("-").isdigit() else word for word in words)


def _number_or_word(text: str | None) -> str | float | None:
    """What the specification takes either way; it refuses words that it does not know."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return text


# without a choice of scheme, a family is its own paper's; sizes with which 100 small images take seconds to a few minutes
_SCHEMES = {"fully_connected": "allen-zhu", "resnet": "du", "cnn": "allen-zhu", "conv_resnet": "du"}
_WIDTHS = {"fully_connected": 1024, "resnet": 1024, "cnn": 32, "conv_resnet": 32}
_LARGE = {
    "mnist": 14,
    "fashion_mnist": 14,
    "cifar10": 16,
    "cifar100": 16,
}  # what convolutional networks take of these unless told
_FAMILIES = {"fully_connected": "fully connected", "resnet": "ResNet", "cnn": "CNN", "conv_resnet": "conv ResNet"}


def _named(family: str, scheme: str | None) -> NetworkSpec:
    if family not in FAMILIES:
        raise unknown_name("--network", family, FAMILIES)
    chosen = scheme or _SCHEMES[family]
    images = family in ("cnn", "conv_resnet")
    activation = "relu" if chosen == "allen-zhu" else "erf"
    depth = 2 if images or (family, chosen) == ("fully_connected", "du") else 3
    return NetworkSpec(family, family, chosen, activation, _WIDTHS[family], depth)


def _has(spec: NetworkSpec, option: str) -> bool:
    """Whether a network has an option that only some have."""
    skips = spec.scheme == "allen-zhu" and spec.family in ("resnet", "conv_resnet")
    return {"tau": skips, "block": skips and not spec.images, "kernel": spec.images, "padding": spec.images}[option]


def _title(spec: NetworkSpec) -> str:
    paper = "AZ" if spec.scheme == "allen-zhu" else "DU"
    activation = "ReLU" if spec.activation == "relu" else spec.activation
    return f"{paper} {_FAMILIES[spec.family]}, {activation}"


def _override(spec: Spec, **flags: object) -> Spec:
    given = {name: value for name, value in flags.items() if value is not None}
    return dataclasses.replace(spec, **given) if given else spec  # type: ignore[arg-type]


def _watch(out: Console, bars: Progress, study: Study) -> Watch:
    tasks: dict[str, TaskID] = {}
    text = bars.console if bars.live.is_started else out

    def prepared(p: Prepared) -> None:
        show_forecast(text, p, study.training.max_steps)
        told = p.foresight.forecast.steps
        total = study.training.max_steps if told is None else min(told, study.training.max_steps)
        tasks[p.spec.name] = bars.add_task(p.spec.name, total=total, state="")

    def step(name: str, k: int, loss: float) -> None:
        task = tasks[name]
        total = bars.tasks[bars.task_ids.index(task)].total or 0
        bars.update(task, completed=k, total=max(total, k + 1), state=f"step {k:,}, loss {loss:.2e}")

    def trained(result: NetworkResult) -> None:
        bars.remove_task(tasks[result.spec.name])

    def claim(name: str) -> None:
        if "claims" not in tasks:
            tasks["claims"] = bars.add_task("claims", total=None, state="")
        bars.update(tasks["claims"], state=name)

    return Watch(data=lambda d: show_data(text, d), prepared=prepared, step=step, trained=trained, claim=claim)
