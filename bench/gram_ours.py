"""Our Gram in a process of its own, by the protocol of :mod:`bench.peers.measuring`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

sys.path.insert(
    0, str(Path(__file__).resolve().parents[1])
)  # a script among modules: its own folder is what Python would look into

from bench.peers.gram_networks import loaded
from bench.peers.measuring import serve
from zeroloss import __version__, gram


def prepare(request: dict[str, str], weights: dict[str, np.ndarray], inputs: np.ndarray) -> Callable[[], np.ndarray]:
    """Our call on the network and the inputs that were asked for."""
    net, x = loaded(request["network"], weights), torch.from_numpy(inputs)
    return lambda: gram(net, x, "mean").numpy()


if __name__ == "__main__":
    serve(prepare, lambda: {"zeroloss": __version__, "torch": torch.__version__})
