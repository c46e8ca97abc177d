"""Checkpoints in safetensors, replaced in one move, so that a kill at any moment leaves the last whole one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from zeroloss.data import Dataset
from zeroloss.errors import FileError
from zeroloss.training.trajectory import Probe

FORMAT = "zeroloss-checkpoint-2"


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Where a run stands before it evaluates step ``step``.

    Args:
        step: k.
        step_size: eta; a resumed run keeps it, since computed again with other threads it may differ in its last bits.
        steps: the recorded steps below k (k too where the run has ended).
        loss: the loss at each.
        accuracy: likewise; empty where the targets are not classes.
        probes: those taken so far.
        seconds: time spent stepping.
        status: empty while the run goes on; else how it ended.
        weights: the state of :class:`zeroloss.training.weights.Weights`.
        tracked: the state of :class:`zeroloss.training.rayleigh.Tracker`; empty where nothing is tracked.
    """

    step: int
    step_size: float
    steps: list[int]
    loss: list[float]
    accuracy: list[float]
    probes: tuple[Probe, ...]
    seconds: float
    status: str
    weights: Mapping[str, Tensor]
    tracked: Mapping[str, Tensor] = field(default_factory=dict)


def fingerprint(module: nn.Module, data: Dataset, settings: str) -> str:
    """A hash of everything that decides a run's course: initial weights, data, settings.

    Args:
        module: at its initial weights.
        data: what it trains on.
        settings: loss, step and the like, as text.

    Returns:
        Hexadecimal sha256.
    """
    digest = hashlib.sha256(settings.encode())
    for name, tensor in [*module.state_dict().items(), ("x", data.x), ("y", data.y)]:
        digest.update(f"{name}:{tuple(tensor.shape)}:{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write_checkpoint(path: Path, checkpoint: Checkpoint, mark: str) -> None:
    """Write a checkpoint, all of it or none.

    Args:
        path: where.
        checkpoint: what.
        mark: the run's fingerprint.
    """
    tensors = {f"weights:{name}": value.cpu().contiguous() for name, value in checkpoint.weights.items()}
    tensors |= {f"tracked:{name}": value.contiguous() for name, value in checkpoint.tracked.items()}
    tensors["steps"] = torch.tensor(checkpoint.steps, dtype=torch.int64)
    tensors["loss"] = torch.tensor(checkpoint.loss, dtype=torch.float64)
    tensors["accuracy"] = torch.tensor(checkpoint.accuracy, dtype=torch.float64)
    state = {
        "step": checkpoint.step,
        "step_size": checkpoint.step_size,
        "seconds": checkpoint.seconds,
        "status": checkpoint.status,
        "probes": [asdict(p) for p in checkpoint.probes],
    }
    replace_file(path, save(tensors, {"format": FORMAT, "mark": mark, "state": json.dumps(state)}))


def read_checkpoint(path: Path, mark: str) -> Checkpoint | None:
    """Read a checkpoint back.

    Args:
        path: where it would be.
        mark: the fingerprint of the run that wants to go on.

    Returns:
        The checkpoint, or None where there is no file.

    Raises:
        FileError: for a file that is damaged or belongs to another run.
    """
    if not path.exists():
        return None
    if path.is_dir():
        raise FileError(path, "is a folder", "name a file")
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if header.get("format") != FORMAT:
            raise FileError(path, "is not a zeroloss checkpoint of this version", "move it away")
        state = json.loads(header["state"])
        probes = tuple(Probe(**p) for p in state["probes"])
        steps, loss, accuracy = (tensors.pop(name).tolist() for name in ("steps", "loss", "accuracy"))
        found = Checkpoint(
            int(state["step"]),
            float(state["step_size"]),
            steps,
            loss,
            accuracy,
            probes,
            float(state["seconds"]),
            str(state["status"]),
            _under("weights:", tensors),
            _under("tracked:", tensors),
        )
        if not (steps and len(steps) == len(loss) and len(accuracy) in (0, len(steps)) and steps[0] == 0):
            raise ValueError("records of unequal length")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise FileError(path, f"is damaged ({type(error).__name__})", "delete it to train from the start") from error
    if header.get("mark") != mark:
        raise FileError(path, "belongs to a run with other weights, data or settings", "delete it, or use another folder")
    return found


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that readers see the old content or the new, never a part (write beside it, flush, rename).

    Args:
        path: where; its folder is made.
        content: what.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
