"""Synthetic study results: no training, the numbers of a plausible run."""

from __future__ import annotations

import math
from dataclasses import replace

from zeroloss.claims.verdict import Judgement, Verdict
from zeroloss.study.result import DataSummary, Forecast, NetworkResult, StudyResult
from zeroloss.study.specification import DEFAULT_NETWORKS, NetworkSpec, Study
from zeroloss.training import Probe

STEPS = 987
PROBED = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, STEPS)


def spaced(low: float, high: float, count: int) -> tuple[float, ...]:
    return tuple(low * (high / low) ** (i / max(1, count - 1)) for i in range(count))


def a_probe(step: int, layers: tuple[str, ...] = ("W1.weight", "W2.weight", "a.weight"), **changes: object) -> Probe:
    part = step / STEPS
    loss = 40 * 10 ** (-8 * part)
    settled = 1 - math.exp(-step / 60)
    values = {
        "step": step,
        "loss": loss,
        "largest_loss": loss / 9,
        "gradient_norm": math.sqrt(2 * loss * (420 + 2.6e4 * math.exp(-step / 20))),
        "smallest": 400 * (1 + 0.03 * settled),
        "largest": 5e4 * (1 + 0.01 * settled),
        "gram_drift": 0.021 * settled,
        "last_hidden_smallest": 120.0,
        "last_hidden_drift": 3.0 * settled,
        "weight_drift": {name: 0.9 * settled / (1 + i) for i, name in enumerate(layers)},
        "weight_drift_frobenius": {name: 1.3 * settled / (1 + i) for i, name in enumerate(layers)},
        "sign_changes": 0.0123 * settled,
        "whole": True,
        "forecast": 1012,
    }
    return Probe(**{**values, **changes})


def a_network(spec: NetworkSpec = DEFAULT_NETWORKS[1], **changes: object) -> NetworkResult:
    curve = tuple(range(STEPS + 1))
    result = NetworkResult(
        spec=spec,
        parameters=1_115_136,
        trained=1_115_136 if spec.scheme == "du" else 1_048_576,
        limit_spectrum=spaced(4e2, 5e4, 100),
        finite_spectrum=tuple(v * (1 + 0.12 * math.sin(i)) for i, v in enumerate(spaced(3.7e2, 5.2e4, 100))),
        kernel_gap=0.0431,
        last_hidden_limit=0.0123,
        step_size=1.9e-5,
        forecast=Forecast(1012, True, 1e-8, 130.0),
        status="CONVERGED",
        steps=STEPS,
        loss_ratio=9.6e-9,
        accuracy=1.0,
        fitted=12,
        curve_steps=curve,
        curve_loss=tuple(40 * (0.6 * math.exp(-k / 12) + 0.4 * 10 ** (-7.6 * k / STEPS)) for k in curve),
        curve_predicted=tuple(40 * (0.6 * math.exp(-k / 12) + 0.4 * 10 ** (-7.2 * k / STEPS)) for k in curve),
        probes=tuple(a_probe(step) for step in PROBED),
        explanation="Zero loss after 987 steps, 1,012 predicted: the Gram matrix moved by 2.1 %, so the network stayed in the kernel "
        "regime and its smallest eigenvalue, which never fell, carried the slowest direction down.",
    )
    return replace(result, **changes)


def a_verdict(index: int = 0, **changes: object) -> Verdict:
    verdict = Verdict(
        f"AZ-{index + 1}",
        Judgement.HOLDS,
        0.0123 * 7**index,
        1.5 * 7**index,
        (0.0101 * 7**index, 0.0149 * 7**index) if index % 2 else None,
        f"the fitted slope of the number of steps in the width is {0.01 * index:.2f}, and the statement allows at most 0",
        DEFAULT_NETWORKS[index % 3].name,
        "width 1,024 is below the 10³⁶ that the theorem asks for: seen outside the proven regime",
    )
    return replace(verdict, **changes)


def some_data(**changes: object) -> DataSummary:
    nearest = tuple(sorted(0.31 + 0.5 * abs(math.sin(i * 1.7)) ** 0.5 for i in range(100)))
    data = DataSummary("digits", "0" * 64, 100, 64, 1, ("3", "8"), (50, 50), nearest[0], nearest, (), (), 0.0)
    return replace(data, **changes)


def a_result(**changes: object) -> StudyResult:
    judgements = (*[Judgement.HOLDS] * 10, Judgement.VIOLATED, Judgement.NOT_APPLICABLE, Judgement.INCONCLUSIVE)
    result = StudyResult(
        study=Study(),
        data=some_data(),
        networks=tuple(a_network(spec) for spec in DEFAULT_NETWORKS),
        verdicts=tuple(a_verdict(i, status=status) for i, status in enumerate(judgements)),
        summary="All three networks reached zero loss on 100 digits, each within 5 % of the number of steps that its initial Gram "
        "matrix predicted. The rows are well separated, no labels conflict, and the kernel moved by about 2 % along the way.",
        environment={"zeroloss": "0.1.0", "torch": "2.13.0", "python": "3.12.3", "device": "cpu", "threads": "8"},
        timings={"data": 0.0213, "kernels": 1.37, "training": 11.2, "claims": 23.4},
    )
    return replace(result, **changes)
