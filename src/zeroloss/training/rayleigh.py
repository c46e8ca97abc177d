r"""The ends of the Gram's spectrum followed between probes: $v^\top G(k)v=\|J^\top v\|^2$, one backward pass for one vector.

For a unit v, $\lambda_{\min}(G)\le v^\top Gv\le\lambda_{\max}(G)$ (Courant and Fischer). With v the eigenvector of an end at the last
probe, the quotient equals that end there, and afterwards differs from it by the square of the angle that the true eigenvector has turned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


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


def rayleigh_quotient(outputs: Float[Tensor, "n k"], parameters: list[nn.Parameter], vector: Float[Tensor, " N"]) -> float:
    r"""$v^\top Gv/v^\top v=\|J^\top v\|^2/\|v\|^2$ by one backward pass.

    In float32 the gradient errs by roundings of $\|J\|$, so the quotient by about $10^{-7}\lambda_{\max}^{1/2}\lambda^{1/2}$ at the size λ.

    Args:
        outputs: in the graph, which is kept.
        parameters: what J differentiates by.
        vector: v over all nk outputs, sample-major.

    Returns:
        The quotient, its squares summed in float64.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
        >>> rayleigh_quotient(layer(x), [layer.weight], torch.tensor([1.0, 0.0]).double())
        5.0
    """
    seed = vector.to(outputs).reshape(outputs.shape)
    gradients = torch.autograd.grad(outputs, parameters, seed, retain_graph=True, allow_unused=True)
    norms = [float(torch.linalg.vector_norm(g, dtype=torch.float64)) for g in (*gradients, seed) if g is not None]
    return sum(norm * norm for norm in norms[:-1]) / (norms[-1] * norms[-1])


class Tracker:
    """Follows both ends along a run, in the run's own dtype and with its own forward passes.

    Args:
        module: the module that is being trained.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        self._ends = torch.zeros(0, 2, dtype=torch.float64)
        self._steps: list[int] = []
        self._values: list[tuple[float, float]] = []

    def add(self, step: int, outputs: Float[Tensor, "n k"], ends: Float[Tensor, "N 2"] | None, keep: bool) -> None:
        """Measure both quotients at a step.

        Args:
            step: k.
            outputs: of all rows at the weights as they are, in the graph, which is kept.
            ends: the eigenvectors of both ends, where they have just been probed; else those kept before serve.
            keep: whether to keep them for the steps to come. Where a budget happens to end is not a property of the run: a run that
                goes on from there with a larger one goes on with the vectors from before.
        """
        vectors = self._ends if ends is None else ends
        if ends is not None and keep:
            self._ends = ends
        low, high = (rayleigh_quotient(outputs, self._parameters, vector) for vector in vectors.unbind(1))
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
