r"""The ends of the Gram's spectrum followed between probes: $v^\top G(k)v=\|J^\top v\|^2$, one backward pass for one vector.

For a unit v, $\lambda_{\min}(G)\le v^\top Gv\le\lambda_{\max}(G)$ (Courant and Fischer). With v the eigenvector of an end at the last
probe, the quotient equals that end there, and afterwards differs from it by the square of the angle that the true eigenvector has turned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zeroloss.training.weights import Pass, Weights


@dataclass(frozen=True, eq=False)
class Tracked:
    r"""Both ends of $G(k)$'s spectrum from inside, at every recorded step.

    Args:
        steps: the k's.
        above_smallest: at each, a number that $\lambda_{\min}(G(k))$ is not above.
        below_largest: at each, a number that $\lambda_{\max}(G(k))$ is not below.
    """

    steps: Int[Tensor, " s"]
    above_smallest: Float[Tensor, " s"]
    below_largest: Float[Tensor, " s"]


class Tracker:
    r"""Follows both ends along a run, with the run's own forward passes.

    In float32 the gradient errs by roundings of $\|J\|$, so a quotient of the size $\lambda$ by about
    $10^{-7}(\lambda_{\max}\lambda)^{1/2}$; its squares are summed in float64.

    Args:
        weights: the run's.
    """

    def __init__(self, weights: Weights) -> None:
        self._weights = weights
        self._ends = torch.zeros(0, 2, dtype=torch.float64)
        self._steps: list[int] = []
        self._values: list[tuple[float, float]] = []

    def add(self, step: int, done: Pass, ends: Float[Tensor, "N 2"] | None, keep: bool) -> None:
        """Measure both quotients at a step.

        Args:
            step: k.
            done: a forward pass of all rows at the weights as they are, with its graph, which is kept.
            ends: the eigenvectors of both ends, where they have just been probed; else those kept before serve.
            keep: whether to keep them for the steps to come. Where a budget happens to end is not a property of the run: a run that
                goes on from there with a larger one goes on with the vectors from before.
        """
        vectors = self._ends if ends is None else ends
        if ends is not None and keep:
            self._ends = ends
        seeds = [vector.to(done.outputs).reshape(done.outputs.shape) for vector in vectors.unbind(1)]
        low, high = (self._weights.squared_norm(done, seed) / float(seed.to(torch.float64).square().sum()) for seed in seeds)
        self._steps.append(step)
        self._values.append((low, high))

    @property
    def tracked(self) -> Tracked:
        """What was measured so far."""
        values = torch.tensor(self._values, dtype=torch.float64).reshape(-1, 2)
        return Tracked(torch.tensor(self._steps, dtype=torch.int64), values[:, 0], values[:, 1])

    @property
    def state(self) -> dict[str, Tensor]:
        """What :meth:`restore` needs."""
        values = torch.tensor(self._values, dtype=torch.float64).reshape(-1, 2)
        return {"ends": self._ends.contiguous(), "steps": torch.tensor(self._steps, dtype=torch.int64), "values": values}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :attr:`state` from a checkpoint.

        Args:
            state: as it was.

        Raises:
            ValueError: where it is not a state of a tracker.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        count = len(state["steps"]) if "steps" in state else -1
        if shapes.get("ends", (0,))[1:] != (2,) or shapes.get("steps") != (count,) or shapes.get("values") != (count, 2):
            raise ValueError("tracked numbers of unequal length")
        self._ends, self._steps = state["ends"], state["steps"].tolist()
        self._values = [(low, high) for low, high in state["values"].tolist()]

    def forget(self, step: int) -> None:
        """Drop what was measured at a step and later."""
        kept = sum(k < step for k in self._steps)
        self._steps, self._values = self._steps[:kept], self._values[:kept]
