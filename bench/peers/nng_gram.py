"""nngeometry beside us: its Gram over all outputs, averaged; run by the peer's own Python."""

from __future__ import annotations

import importlib.metadata

import numpy as np
import torch
from gram_networks import loaded
from measuring import serve
from nngeometry.gram import GramMatrix
from torch.utils.data import DataLoader, TensorDataset


def prepare(request: dict, weights: dict, inputs: np.ndarray):
    net = loaded(request["network"], weights)
    loader = DataLoader(TensorDataset(torch.from_numpy(inputs)), batch_size=len(inputs))

    def compute() -> np.ndarray:
        full = GramMatrix(model=net, loader=loader, function=lambda row: net(row)).to_torch()  # outputs × n × outputs × n
        return torch.einsum("aiaj->ij", full).div(full.shape[0]).detach().numpy()

    return compute


if __name__ == "__main__":
    serve(prepare, lambda: {"nngeometry": importlib.metadata.version("nngeometry"), "torch": torch.__version__})
