"""Probes in PyTorch Lightning (extra ``lightning``)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from zeroloss.callbacks.recorder import Recorder
from zeroloss.callbacks.rows import Inputs
from zeroloss.data import Dataset
from zeroloss.training import Loss

_missing: ImportError | None = None
try:
    from lightning.pytorch import Callback
except ImportError as first:
    try:
        from pytorch_lightning import Callback
    except ImportError:
        _missing, Callback = first, object


class LightningRecorder(Callback):  # type: ignore[misc, unused-ignore]  # no types where Lightning is not installed
    """Records probes while Lightning's Trainer trains; :class:`zeroloss.callbacks.Recorder` says what, and leaves training untouched.

    Steps are the Trainer's ``global_step``. The recording is part of the Trainer's checkpoints and goes on from there; only the main
    process records.

    Args:
        data: as for the recorder; not taken from the Trainer's loader, whose order it would disturb.
        every: likewise.
        loss: likewise.
        rows: likewise.
        module: picks what to measure from the LightningModule; None measures its own ``forward``.
        path: where to save the recording when training ends; None nowhere.

    Attributes:
        recorder: the recorder, from the start of training on.

    Raises:
        ImportError: where Lightning is not installed, with the command that installs it.

    Example:
        >>> LightningRecorder.__mro__[1].__name__ in ("Callback", "object")  # object where Lightning is not installed
        True
    """

    def __init__(
        self,
        data: Dataset | tuple[Inputs, Tensor],
        every: int | Iterable[int] = 100,
        *,
        loss: str | Loss = "squared",
        rows: int = 32,
        module: Callable[[Any], nn.Module] | None = None,
        path: str | Path | None = None,
    ) -> None:
        if _missing is not None:
            raise ImportError("LightningRecorder needs Lightning; pip install 'zeroloss[lightning]'") from _missing
        self.recorder: Recorder | None = None
        self._make = partial(Recorder, data=data, every=every, loss=loss, rows=rows)
        self._pick, self._path = module, path
        self._found: dict[str, Any] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Measure where training starts, or go on where a checkpoint left off."""
        if not trainer.is_global_zero:
            return
        self.recorder = self._make(pl_module if self._pick is None else self._pick(pl_module))
        if self._found is not None:
            self.recorder.load_state_dict(self._found)
        self.recorder(trainer.global_step)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:  # noqa: ARG002
        """Measure where a probe is due."""
        if self.recorder is not None:
            self.recorder(trainer.global_step)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
        """Save, where that was asked for."""
        if self.recorder is not None and self._path is not None:
            self.recorder.save(self._path)

    def state_dict(self) -> dict[str, Any]:
        """What goes into the Trainer's checkpoint."""
        return self.recorder.state_dict() if self.recorder is not None else self._found or {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what a checkpoint held until training starts."""
        self._found = dict(state_dict) or None
