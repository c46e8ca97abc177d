"""What a study found: plain numbers and words, the same whether the run was interrupted or not, with timings kept apart."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from zeroloss.claims.verdict import Judgement, Verdict
from zeroloss.errors import FileError
from zeroloss.study.specification import NetworkSpec, Study, study_from
from zeroloss.training import Probe, replace_file


@dataclass(frozen=True)
class DataSummary:
    r"""The data's geometry.

    Args:
        name: the source.
        sha256: of inputs and targets, as normalised: a finished study is not read back for other data.
        n: rows.
        features: d.
        outputs: k.
        classes: class names in order, empty for regression.
        counts: rows a class.
        separation: $\delta=\min_{i\ne j}\|x_i-x_j\|$.
        nearest: distance from each row to its nearest other row, sorted.
        duplicates: groups of identical rows.
        conflicts: groups of identical rows whose targets differ.
        loss_floor: the summed squared loss that no network can undercut because of the conflicts.
    """

    name: str
    sha256: str
    n: int
    features: int
    outputs: int
    classes: tuple[str, ...]
    counts: tuple[int, ...]
    separation: float
    nearest: tuple[float, ...]
    duplicates: tuple[tuple[int, ...], ...]
    conflicts: tuple[tuple[int, ...], ...]
    loss_floor: float


@dataclass(frozen=True)
class Forecast:
    r"""What was said before the run.

    Args:
        steps: predicted number of steps to the target loss with the initial Gram held still; None where it is never reached, or not
            within the budget where ``bounded``.
        within_budget: whether that is at most ``max_steps``.
        loss_ratio: predicted $F_k/F_0$ at the smaller of budget and predicted steps.
        condition: $\kappa$ of the initial Gram.
        bounded: whether the forecast looked no further than the budget, having no closed form.
    """

    steps: int | None
    within_budget: bool
    loss_ratio: float
    condition: float
    bounded: bool = False


@dataclass(frozen=True)
class NetworkResult:
    r"""One network of the study: what theory said, and what happened.

    Args:
        spec: what was built.
        parameters: all parameters.
        trained: parameters that gradient descent moves.
        limit_spectrum: eigenvalues of the infinite-width NTK on the data, ascending (per output).
        finite_spectrum: eigenvalues of the initial Gram averaged over outputs, ascending.
        kernel_gap: $\|G(0)-\Theta\|_F/\|\Theta\|_F$.
        last_hidden_limit: $\lambda_{\min}(K^{(H)})$.
        step_size: $\eta$.
        forecast: made before the run.
        status: CONVERGED, DIVERGED or MAX_STEPS.
        steps: how many were taken.
        loss_ratio: final $F/F_0$.
        accuracy: share of rows classified right at the end; None where the targets are not classes.
        fitted: the first recorded step at which that was 1; None where there is none.
        curve_steps: recorded steps of the two curves (thinned; the full trajectory is in ``trajectories/``).
        curve_loss: $F$ there.
        curve_predicted: the linearised prediction of $F$ there.
        probes: the theory's quantities along the run.
        explanation: plain words: what happened and why.
    """

    spec: NetworkSpec
    parameters: int
    trained: int
    limit_spectrum: tuple[float, ...]
    finite_spectrum: tuple[float, ...]
    kernel_gap: float
    last_hidden_limit: float
    step_size: float
    forecast: Forecast
    status: str
    steps: int
    loss_ratio: float
    accuracy: float | None
    fitted: int | None
    curve_steps: tuple[int, ...]
    curve_loss: tuple[float, ...]
    curve_predicted: tuple[float, ...]
    probes: tuple[Probe, ...]
    explanation: str


@dataclass(frozen=True)
class StudyResult:
    """A finished study.

    Args:
        study: what was asked.
        data: the data's geometry.
        networks: one result a network.
        verdicts: the claims, judged on these runs and on small sweeps over the same data.
        summary: one paragraph of plain words.
        environment: versions, device, threads.
        timings: seconds by name; the only part that differs between two runs of one study.
    """

    study: Study
    data: DataSummary
    networks: tuple[NetworkResult, ...]
    verdicts: tuple[Verdict, ...]
    summary: str
    environment: dict[str, str]
    timings: dict[str, float]

    def to_json(self) -> str:
        """The result as JSON, which has no NaN or infinity: those stand as ``{"float": "nan"}``."""
        return json.dumps(plain(asdict(self)), indent=1, allow_nan=False) + "\n"


def write_result(result: StudyResult, folder: Path) -> Path:
    """Write ``result.json`` into a run folder, all of it or none."""
    path = folder / "result.json"
    replace_file(path, result.to_json().encode())
    return path


def read_result(folder: str | Path) -> StudyResult:
    """Read a finished study back from its run folder.

    Args:
        folder: a run folder.

    Returns:
        The result.

    Raises:
        FileError: where there is none, or it is damaged.
    """
    path = Path(folder) / "result.json"
    try:
        table = _restore(json.loads(path.read_text(encoding="utf-8")))
        networks = tuple(
            NetworkResult(
                **{
                    **_tuples(n),
                    "spec": NetworkSpec(**_tuples(n["spec"])),
                    "forecast": Forecast(**n["forecast"]),
                    "probes": tuple(Probe(**p) for p in n["probes"]),
                }
            )
            for n in table["networks"]
        )
        verdicts = tuple(
            Verdict(**{**v, "status": Judgement(v["status"]), "interval": v["interval"] and tuple(v["interval"])})
            for v in table["verdicts"]
        )
        return StudyResult(
            study_from(table["study"]),
            DataSummary(**{k: _deep_tuple(v) for k, v in table["data"].items()}),
            networks,
            verdicts,
            table["summary"],
            table["environment"],
            table["timings"],
        )
    except OSError as error:
        raise FileError(path, "is not there", "name the folder of a finished run") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FileError(path, f"is damaged ({type(error).__name__})", "delete it and run the study again") from error


def plain(value: Any) -> Any:
    """Plain values that JSON can hold: tuples as lists, NaN and infinity as ``{"float": "nan"}``."""
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": str(value)}
    return value


def _restore(value: Any) -> Any:
    if isinstance(value, dict):
        return float(value["float"]) if value.keys() == {"float"} else {k: _restore(v) for k, v in value.items()}
    return [_restore(v) for v in value] if isinstance(value, list) else value


def _deep_tuple(value: Any) -> Any:
    return tuple(_deep_tuple(v) for v in value) if isinstance(value, list) else value


def _tuples(table: dict[str, Any]) -> dict[str, Any]:
    return {k: _deep_tuple(v) for k, v in table.items()}
