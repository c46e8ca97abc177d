"""Weights that gradient descent moves, kept as start plus movement so that float32 loses no late step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn


class Weights:
    r"""A module's trained parameters as $\theta_0 + \Delta$, with $\Delta$ summed apart.

    Near the end of a run a step is smaller than half a unit in the last place of a float32 weight, and adding it to the weight
    would lose it, every time: descent then stalls far from where the linear theory puts it. $\Delta$ is small, so its own last
    place is fine enough. It is also all that a checkpoint needs, the start being what the seed gives.

    Args:
        module: its parameters with ``requires_grad`` are moved in place.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = layer.weight.fill_(1.0)
        >>> weights = Weights(layer)
        >>> for _ in range(1000):
        ...     weights.step([torch.full((1, 1), 1.0)], 1e-8)  # each step is below float32's resolution at 1
        >>> round(float(layer.weight.detach()), 6)
        0.99999
    """

    def __init__(self, module: nn.Module) -> None:
        trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.names = list(trained)
        self.parameters = list(trained.values())
        self._storage = [p.detach() for p in self.parameters]  # the same memory, outside the graph
        self._start = [p.clone() for p in self._storage]
        self._moved = [torch.zeros_like(p) for p in self._storage]

    @property
    def movement(self) -> dict[str, Tensor]:
        r"""$\Delta$ by parameter name."""
        return dict(zip(self.names, self._moved, strict=True))

    def step(self, gradients: Iterable[Tensor], eta: float) -> None:
        r"""$\Delta \leftarrow \Delta - \eta g$, and the parameters with it.

        Args:
            gradients: one a parameter.
            eta: the step size.
        """
        torch._foreach_add_(self._moved, list(gradients), alpha=-eta)
        self._write()

    def restore(self, movement: Mapping[str, Tensor]) -> None:
        r"""Take up a $\Delta$ from a checkpoint.

        Args:
            movement: by parameter name.
        """
        for name, moved in zip(self.names, self._moved, strict=True):
            moved.copy_(movement[name])
        self._write()

    def _write(self) -> None:
        for parameter, start, moved in zip(self._storage, self._start, self._moved, strict=True):
            torch.add(start, moved, out=parameter)
