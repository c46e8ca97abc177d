"""Where experiments are made: the rows, the networks, and the values that sweeps run over."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from zeroloss.claims import Run
from zeroloss.data import Dataset, shrink
from zeroloss.study.building import data_for
from zeroloss.study.specification import NetworkSpec

SEEDS = 5
SWEEP_ROWS = 10
WIDTHS = {"quick": (24, 48, 96, 192, 384, 768), "full": (64, 128, 256, 512, 1024, 2048, 4096)}
CHANNELS = {"quick": (8, 16, 32, 64, 128), "full": (16, 32, 64, 128, 256, 512)}  # a channel costs as much as q neurons a pixel
SWEEP_SIDE = 8  # pixels: sweeps over convolutional networks take images averaged down to this


@dataclass(frozen=True, eq=False)
class Setting:
    """Where experiments are made.

    Args:
        data: the rows.
        networks: whose architectures are swept.
        runs: finished runs on the data.
        budget: ``"quick"`` or ``"full"``, which decides the widths of the sweeps.
    """

    data: Dataset
    networks: tuple[NetworkSpec, ...]
    runs: tuple[Run, ...]
    budget: str = "quick"

    @property
    def few(self) -> Dataset:
        """Ten rows, evenly spread over the data: enough for a Gram, few enough for a sweep."""
        data = self.data
        chosen = torch.linspace(0, data.n - 1, min(SWEEP_ROWS, data.n)).round().long()
        return Dataset(data.x[chosen], data.y[chosen], name=data.name, image_shape=data.image_shape)

    def few_for(self, spec: NetworkSpec) -> Dataset:
        """Those rows as a network takes them; images are averaged down to 8×8 pixels, and their norms kept."""
        few = data_for(spec, self.few)
        if few.x.ndim == 2 or min(few.x.shape[2:]) <= SWEEP_SIDE:
            return few
        small = shrink(few.x, SWEEP_SIDE)
        norms = [torch.linalg.vector_norm(images.flatten(1), dim=1)[:, None, None, None] for images in (few.x, small)]
        return Dataset(small * (norms[0] / norms[1]), few.y, name=few.name)

    def widths(self, spec: NetworkSpec) -> tuple[int, ...]:
        """The widths of a sweep over a network."""
        return (CHANNELS if spec.images else WIDTHS)[self.budget]
