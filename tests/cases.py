"""The table of networks that every battery is crossed with."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zeroloss.networks import Network, fully_connected, resnet


@dataclass(frozen=True)
class Case:
    family: str
    scheme: str
    activation: str

    def build(self, inputs: int, width: int, depth: int, outputs: int = 1, seed: int = 0) -> Network:
        builder = fully_connected if self.family == "fully_connected" else resnet
        return builder(inputs, width, depth, outputs, activation=self.activation, scheme=self.scheme, seed=seed)

    def __str__(self) -> str:
        return f"{self.scheme}-{self.family}-{self.activation}"


CASES = (
    Case("fully_connected", "allen-zhu", "relu"),
    *(Case("fully_connected", "du", a) for a in ("relu", "softplus", "tanh", "erf", "gelu")),
    Case("fully_connected", "du", "hard_tanh"),
    Case("resnet", "du", "swish"),
    *(Case("resnet", "du", a) for a in ("relu", "softplus", "tanh", "erf", "gelu")),
)


def rows(n: int, d: int, seed: int = 0, unit: bool = True) -> torch.Tensor:
    """Random rows in float64, on the unit sphere or with norms between 0.5 and 1.5."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.nn.functional.normalize(torch.randn(n, d, dtype=torch.float64, generator=generator))
    return x if unit else x * torch.linspace(0.5, 1.5, n, dtype=torch.float64)[:, None]
