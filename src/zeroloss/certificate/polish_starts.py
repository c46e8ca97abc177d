"""Other places to begin from, where steps from the weights as they are lead nowhere: the last layer's fit, and gradient descent."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import nn

from zeroloss.certificate.polish_newton import Budget, State, state_of
from zeroloss.certificate.polish_problem import Problem
from zeroloss.data import Dataset
from zeroloss.errors import ArgumentError
from zeroloss.gram import gram
from zeroloss.training import descend

RIDGES = (1e-14, 1e-12, 1e-10, 1e-8, 1e-6)  # of the last layer's mean Gram entry


def fit_last_layer(problem: Problem, state: State) -> State | None:
    r"""The smallest change of the last linear layer that fits, $\Delta W=-R^\top(HH^\top+\lambda I)^{-1}H$: no other unit moves.

    The outputs are linear in that layer, so that no kink is in the way; one n×n Gram serves all outputs.

    Args:
        problem: its module's last trained layer is fitted where it is an ``nn.Linear``.
        state: where to begin.

    Returns:
        The best of a few ridges $\lambda$; None where there is no such layer or it does not lower the residual.

    Example:
        >>> problem = Problem.of(nn.Sequential(nn.ReLU(), nn.Linear(2, 1)).double(), Dataset([[1.0, 0.0], [0.0, 1.0]], [5.0, -5.0]))
        >>> fit_last_layer(problem, state_of(problem)).norm < 1e-12
        True
    """
    layers = [layer for layer in problem.module.modules() if any(p.requires_grad for p in layer.parameters(recurse=False))]
    if not layers or not isinstance(layers[-1], nn.Linear):
        return None
    others = [p for p in problem.trained.values() if all(p is not own for own in layers[-1].parameters())]
    problem.put(state.values)
    try:
        for p in others:
            p.requires_grad_(False)
        last = replace(problem)  # reads anew what is trained
        start = last.values()
        kernel = gram(last.module, last.x, 0).detach() * last.root_weight[:, None] * last.root_weight
        mean = float(kernel.diagonal().mean())
        best: State | None = None
        for ridge in RIDGES:
            factor, info = torch.linalg.cholesky_ex(kernel + ridge * mean * torch.eye(len(kernel)).to(kernel))
            if int(info) or not mean > 0:
                continue
            last.put(start)
            for _ in range(2):  # the second time for what the first has left by rounding
                residual = last.residual()
                assert residual is not None
                z = torch.cholesky_solve(residual.reshape(problem.y.shape), factor)
                last.put(last.values(), last.pull(z.reshape(-1)), -1.0)
            after = float(last.residual().norm())  # type: ignore[union-attr]
            if after < (state.norm if best is None else best.norm):
                best = State({**state.values, **last.values()}, state.residual, after)
    finally:
        for p in others:
            p.requires_grad_(True)
    if best is None:
        problem.put(state.values)
        return None
    problem.put(best.values)
    return state_of(problem)


def go_down(problem: Problem, data: Dataset, state: State, steps: int, budget: Budget) -> State | None:
    """Gradient descent for a while: its steps of one size leave corners that no step of steepest descent leaves.

    Args:
        problem: its module moves.
        data: all rows, since those are what the loss sums over.
        state: where to begin.
        steps: how many.
        budget: shows the progress.

    Returns:
        Where it has come to; None where the loss does not depend on the weights, or it diverged.
    """
    problem.put(state.values)

    def show(_: int, loss: float) -> None:
        if budget.watch is not None:
            budget.watch(budget.used, (2 * loss) ** 0.5)

    try:
        descend(problem.module, data, max_steps=steps, until=1e-6, progress=show)
    except ArgumentError:  # a Gram of zeros
        problem.put(state.values)
        return None
    after = state_of(problem)
    return after if torch.isfinite(after.residual).all() and after.norm < 2 * state.norm else None
