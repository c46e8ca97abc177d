"""PyTorch's own recipe for the tangent kernel: the Jacobian of every sample by ``torch.func``, then its product with itself."""

from __future__ import annotations

import numpy as np
import torch
from gram_networks import loaded
from measuring import serve


def prepare(request: dict, weights: dict, inputs: np.ndarray):
    net = loaded(request["network"], weights)
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    rows = torch.from_numpy(inputs)

    def outputs(values: dict, row: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(net, values, (row[None],))[0]

    jacobians = torch.func.vmap(torch.func.jacrev(outputs), (None, 0))

    def compute() -> np.ndarray:
        found = [part.flatten(2) for part in jacobians(parameters, rows).values()]
        total = sum(torch.einsum("iap,jap->ij", part, part) for part in found)
        return (total / found[0].shape[1]).numpy()

    return compute


if __name__ == "__main__":
    serve(prepare, lambda: {"torch": torch.__version__})
