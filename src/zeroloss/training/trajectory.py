"""What a run of gradient descent leaves behind: losses, probes, and how it ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zeroloss.training.rayleigh import Tracked


class Status(StrEnum):
    """How a run ended; each is an outcome, none an error."""

    CONVERGED = "CONVERGED"  # the loss fell below until times its first value, or every row is right where that was asked for
    DIVERGED = "DIVERGED"  # the loss became NaN, infinite, or a million times its first value
    MAX_STEPS = "MAX_STEPS"  # the budget ended first


@dataclass(frozen=True)
class Probe:
    r"""The theory's quantities at one checkpoint of a run, all evaluated in float64 at the weights reached there.

    Args:
        step: k.
        loss: $F(\theta_k)=\sum_i F_i$; for the squared loss $\tfrac12\sum_i\|f(x_i)-y_i\|^2$.
        largest_loss: $\max_i F_i$.
        gradient_norm: $\|\nabla F\|$, over the trained parameters, by automatic differentiation.
        smallest: $\lambda_{\min}(G(k))$ of the Gram over all outputs.
        largest: $\lambda_{\max}(G(k))$.
        gram_drift: $\|G(k)-G(0)\|_2/\|G(0)\|_2$.
        last_hidden_smallest: $\lambda_{\min}(G^{(H)}(k))$, the last trained hidden layer's share alone.
        last_hidden_drift: $\|G^{(H)}(k)-G^{(H)}(0)\|_2$.
        weight_drift: layer name to $\|W_l(k)-W_l(0)\|_2$ (spectral norm).
        weight_drift_frobenius: layer name to $\|W_l(k)-W_l(0)\|_F$.
        sign_changes: fraction of hidden pre-activations whose sign differs from that at step 0.
        whole: whether $G$ covers all nk outputs; else it is the n×n average over outputs, whose spectrum need not hold the quotient.
        forecast: the step at which the target would be reached if $G(k)$ stood still from here on; None where never, and where there
            is no closed form: losses other than the squared one, mini-batches, momentum, a schedule.
        output_gradient_norm: $\|\nabla_{\mathrm{out}}F\|$, over the nk outputs; None stands for the squared loss's $\sqrt{2F}$.
    """

    step: int
    loss: float
    largest_loss: float
    gradient_norm: float
    smallest: float
    largest: float
    gram_drift: float
    last_hidden_smallest: float
    last_hidden_drift: float
    weight_drift: dict[str, float]
    weight_drift_frobenius: dict[str, float]
    sign_changes: float
    whole: bool
    forecast: int | None
    output_gradient_norm: float | None = None

    @property
    def rayleigh(self) -> float:
        r"""$\|\nabla F\|^2/\|\nabla_{\mathrm{out}}F\|^2$, which lies between the ends of $G(k)$'s spectrum (THEORY 1.5).

        $\nabla F = J^\top\nabla_{\mathrm{out}}F$, so this is a Rayleigh quotient of $G=JJ^\top$ for any loss; for the squared one it is
        $\|\nabla F\|^2/(2F)$. NaN where the outputs' gradient is zero.
        """
        size = 2 * self.loss if self.output_gradient_norm is None else self.output_gradient_norm**2
        return self.gradient_norm * self.gradient_norm / size if size > 0 else float("nan")


@dataclass(frozen=True, eq=False)
class Trajectory:
    r"""A run of gradient descent.

    Args:
        loss: $F(\theta_k)$, over all rows, at every recorded step, float64.
        steps: the recorded steps k, 0 first; ``loss[i]`` belongs to ``steps[i]``. Full-batch descent records every step, mini-batches one
            step an epoch, and both the last.
        status: CONVERGED, DIVERGED or MAX_STEPS.
        step_size: $\eta$.
        probes: the theory's quantities at the checkpoints asked for.
        seconds: wall-clock time spent stepping, summed over interruptions; probes and set-up not counted.
        reason: one sentence on how it ended.
        accuracy: the share of rows classified right at every recorded step, float64; None where the targets are not classes.
        tracked: the ends of the Gram's spectrum at every recorded step, where that was asked for.
    """

    loss: Float[Tensor, " s"]
    steps: Int[Tensor, " s"]
    status: Status
    step_size: float
    probes: tuple[Probe, ...] = ()
    seconds: float = 0.0
    reason: str = ""
    accuracy: Float[Tensor, " s"] | None = None
    tracked: Tracked | None = None

    @property
    def fitted(self) -> int | None:
        """The first recorded step at which every row was classified right; None where there is none, or no classes."""
        if self.accuracy is None or not bool((self.accuracy == 1).any()):
            return None
        return int(self.steps[int((self.accuracy == 1).to(torch.int64).argmax())])

    @property
    def taken(self) -> int:
        """How many steps were taken."""
        return int(self.steps[-1])
