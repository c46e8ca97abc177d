"""Probes in Hugging Face's Trainer (extra ``transformers``)."""

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
    from transformers import TrainerCallback
except ImportError as error:
    _missing, TrainerCallback = error, object

FILE = "zeroloss_probes.jsonl"  # in every checkpoint's folder


class TrainerRecorder(TrainerCallback):  # type: ignore[misc, unused-ignore]  # no types where transformers is not installed
    """Records probes while the Trainer trains; :class:`zeroloss.callbacks.Recorder` says what, and leaves training untouched.

    Steps are the Trainer's ``global_step``. The recording lies in every checkpoint that the Trainer writes, and goes on from there when
    training is resumed from one in its output folder; only the main process records.

    Args:
        data: as for the recorder; for a text classifier ``({"input_ids": ..., "attention_mask": ...}, labels)``.
        every: likewise.
        loss: likewise; a classifier's is ``"cross_entropy"``.
        rows: likewise.
        module: picks what to measure from the model; None measures the model's ``logits``.
        path: where to save the recording when training ends; None nowhere.

    Attributes:
        recorder: the recorder, from the start of training on.

    Raises:
        ImportError: where transformers is not installed, with the command that installs it.

    Example:
        >>> TrainerRecorder.__mro__[1].__name__ in ("TrainerCallback", "object")  # object where transformers is not installed
        True
    """

    def __init__(
        self,
        data: Dataset | tuple[Inputs, Tensor],
        every: int | Iterable[int] = 100,
        *,
        loss: str | Loss = "cross_entropy",
        rows: int = 32,
        module: Callable[[Any], nn.Module] | None = None,
        path: str | Path | None = None,
    ) -> None:
        if _missing is not None:
            raise ImportError("TrainerRecorder needs transformers; pip install 'zeroloss[transformers]'") from _missing
        self.recorder: Recorder | None = None
        self._make = partial(Recorder, data=data, every=every, loss=loss, rows=rows)
        self._pick, self._path = module, path

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:  # noqa: ARG002
        """Measure where training starts, or go on where a checkpoint left off."""
        if not state.is_world_process_zero:
            return
        self.recorder = self._make(model if self._pick is None else self._pick(model))
        found = _folder(args, state) / FILE
        if state.global_step > 0 and found.exists():
            self.recorder.load(found)
        self.recorder(state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Measure where a probe is due."""
        if self.recorder is not None:
            self.recorder(state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Put the recording into the checkpoint that was just written."""
        if self.recorder is not None and _folder(args, state).is_dir():
            self.recorder.save(_folder(args, state) / FILE)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        """Save, where that was asked for."""
        if self.recorder is not None and self._path is not None:
            self.recorder.save(self._path)


def _folder(args: Any, state: Any) -> Path:
    return Path(args.output_dir) / f"checkpoint-{state.global_step}"
