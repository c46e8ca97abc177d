"""Probes in a training loop of one's own: as a plain object, in PyTorch Lightning, and in Hugging Face's Trainer.

The two frameworks are loaded when their callbacks are asked for, not before.
"""

from __future__ import annotations

from importlib import import_module

from zeroloss.callbacks.recorder import Recorder

__all__ = ["LightningRecorder", "Recorder", "TrainerRecorder"]  # the first and the last come from __getattr__
_LAZY = {"LightningRecorder": "zeroloss.callbacks.lightning_recorder", "TrainerRecorder": "zeroloss.callbacks.trainer_recorder"}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
