"""A recording on disk: JSON lines that any tool reads, and the weights at the start beside them."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from zeroloss.errors import FileError
from zeroloss.training import replace_file

FORMAT = "zeroloss-probes-1"


def write_record(path: Path, state: dict[str, Any]) -> None:
    """Write a recorder's state, each file all of it or none: a header, then a probe a line.

    Args:
        path: the file of lines; the weights go to ``path + ".start"``.
        state: of :meth:`zeroloss.callbacks.Recorder.state_dict`.
    """
    header = {"format": FORMAT, **{key: value for key, value in state.items() if key not in ("probes", "start")}}
    lines = [json.dumps(header), *(json.dumps(_strict(probe)) for probe in state["probes"])]
    replace_file(_beside(path), save_tensors({name: value.contiguous() for name, value in state["start"].items()}))
    replace_file(path, ("\n".join(lines) + "\n").encode())


def read_record(path: Path) -> dict[str, Any]:
    """Read a recorder's state back.

    Args:
        path: as for :func:`write_record`.

    Returns:
        The state.

    Raises:
        FileError: for files that are missing or damaged.
    """
    try:
        header, *probes = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        if not isinstance(header, dict) or header.pop("format", None) != FORMAT:
            raise FileError(path, "is not a zeroloss recording of this version", "pass a file that Recorder.save wrote")
        start = load_tensors(_beside(path).read_bytes())
        return {**header, "probes": [_loose(probe) for probe in probes], "start": start}
    except FileNotFoundError as error:
        raise FileError(error.filename, "is missing", "pass a file that Recorder.save wrote, its .start beside it") from error
    except (OSError, ValueError, SafetensorError, AttributeError, KeyError) as error:
        raise FileError(path, f"is damaged ({type(error).__name__})", "record again") from error


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".start")


def _strict(probe: dict[str, Any]) -> dict[str, Any]:
    """JSON has no infinity and no NaN: they are written as text."""
    return {key: str(value) if isinstance(value, float) and not math.isfinite(value) else value for key, value in probe.items()}


def _loose(probe: dict[str, Any]) -> dict[str, Any]:
    return {key: float(value) if isinstance(value, str) else value for key, value in probe.items()}
