"""A user's training loop with everything in it that a careless recorder would disturb, and what it leaves behind."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

GENERATOR = torch.Generator().manual_seed(5)
X = torch.randn(40, 6, generator=GENERATOR)
LABELS = torch.randint(3, (40,), generator=GENERATOR)


def _numpy_draw() -> float:
    return float(np.random.rand())  # noqa: NPY002


class Net(nn.Module):
    """BatchNorm with buffers, dropout, and a forward pass that draws from three generators even in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.drop = nn.Linear(6, 24), nn.BatchNorm1d(24, affine=False), nn.Dropout(0.3)
        self.last, self.drawn = nn.Linear(24, 3), 0.0

    def forward(self, x: Tensor) -> Tensor:
        self.drawn = random.random() + _numpy_draw() + float(torch.rand(()))
        return self.last(self.drop(self.norm(self.first(x)).relu()))


def seeded() -> Net:
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002  # the generator that users' loops share
    torch.manual_seed(1)
    return Net()


def train(net: Net, record: Callable[[int], object], steps: int = 12, start: int = 0) -> dict[str, object]:
    """Train with batches drawn from torch's generator; ``record`` is called amid the step, where gradients are there to be lost.

    Returns:
        Everything that recording could have changed: weights, buffers, gradients, modes, the losses and all generators.
    """
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    losses = []
    net.train()
    for step in range(start, start + steps):
        rows = torch.randperm(40)[:8]
        loss = nn.functional.cross_entropy(net(X[rows]), LABELS[rows])
        if step % 2:
            record(step)
        optimizer.zero_grad()
        loss.backward()
        if not step % 2:
            record(step)
        optimizer.step()
        losses.append(loss.item())
    return {
        "state": {name: value.clone() for name, value in net.state_dict().items()},
        "gradients": [p.grad for p in net.parameters()],
        "modes": [part.training for part in net.modules()],
        "trained": [p.requires_grad for p in net.parameters()],
        "losses": losses,
        "drawn": [net.drawn, random.random(), _numpy_draw(), torch.get_rng_state()],
        "grad": torch.is_grad_enabled(),
    }


def same(a: object, b: object) -> bool:
    """Equality to the bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(map(same, a, b))
    return a == b
