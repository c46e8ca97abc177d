"""Networks and data with planted faults, and healthy ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zeroloss import Dataset, load
from zeroloss.doctor import Diagnosis, Severity


def digits(n: int = 40, classes: tuple[int, ...] | None = (3, 8)) -> Dataset:
    return load("digits", n=n, classes=classes)


def with_row_again(data: Dataset, row: int, target: Tensor) -> Dataset:
    """The data with one row appended once more, under another target or the same."""
    return Dataset(
        torch.cat([data.x, data.x[row : row + 1]]), torch.cat([data.y, target]), None, data.name, data.classes, data.image_shape
    )


def mlp(inputs: int = 64, width: int = 64, outputs: int = 1, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs))


def convolutional(outputs: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(72, outputs),
    )


class RowTransformer(nn.Module):
    """The rows of a digit as tokens: projection, learned positions, one block of attention and LayerNorm, mean, head."""

    def __init__(self, outputs: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.project = nn.Linear(8, 16)
        self.position = nn.Embedding(8, 16)
        self.block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
        self.head = nn.Linear(16, outputs)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.project(x.reshape(len(x), 8, 8))
        tokens = tokens + self.position(torch.arange(8, device=x.device))
        return self.head(self.block(tokens).mean(dim=1))


def titles(diagnosis: Diagnosis, *severities: Severity) -> list[str]:
    return [f.title for f in diagnosis.findings if not severities or f.severity in severities]


def first_lines(diagnosis: Diagnosis, lines: int = 8) -> str:
    return "\n".join(diagnosis.text.splitlines()[:lines])
