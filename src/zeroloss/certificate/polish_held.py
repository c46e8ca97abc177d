r"""A damped Gauss-Newton step under side conditions: the outputs go where they should while some pre-activations stay, or move aside."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.certificate.polish_problem import Problem, Values
from zeroloss.gram import jacobian_operator

SINGULAR = 1e-12  # of the side conditions' own Gram: those that nearly follow from others have no say


def held_step(
    problem: Problem,
    residual: Float[Tensor, " N"],
    factor: Float[Tensor, "N N"],
    rows: Float[Tensor, "M P"],
    moves: Float[Tensor, " M"],
) -> Values:
    r"""The smallest damped step $\Delta=-(J^\top z+g^\top\mu)$ with $J\Delta\approx-r$ and $g\Delta=t$.

    $$\begin{pmatrix}G+\lambda I&B\\B^\top&C\end{pmatrix}\begin{pmatrix}z\\\mu\end{pmatrix}=\begin{pmatrix}r\\-t\end{pmatrix},\qquad
    B=Jg^\top,\quad C=gg^\top,$$ by the Schur complement of the block that is factored already.

    Args:
        problem: at the weights where the step begins.
        residual: r, weighted.
        factor: Cholesky factor of $G+\lambda I$.
        rows: g, the gradients of M pre-activations.
        moves: t, by how much each is to move.

    Returns:
        The step, by parameter.

    Example:
        >>> from torch import nn
        >>> from zeroloss.data import Dataset
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> problem = Problem.of(layer, Dataset([[1.0, 0.0]], [0.0]))
        >>> one = torch.eye(1, dtype=torch.float64)
        >>> held_step(problem, one[0], one, torch.tensor([[0.0, 1.0]], dtype=torch.float64), 5 * one[0])["weight"]
        tensor([[-1.,  5.]], dtype=torch.float64)
    """
    J = jacobian_operator(problem.module, problem.x, problem.rows)
    columns = [torch.from_numpy(np.asarray(J @ g.cpu().numpy())).to(g).reshape(problem.y.shape) for g in rows]
    B = torch.stack([problem.weighted(column) for column in columns], dim=1)
    C = rows @ rows.T
    solved = torch.cholesky_solve(torch.column_stack([B, residual]), factor)
    schur = C - B.T @ solved[:, :-1]
    values, vectors = torch.linalg.eigh((schur + schur.T) / 2)
    keep = values > SINGULAR * float(C.diagonal().max())
    kept = vectors[:, keep]
    mu = kept @ ((kept.T @ (-moves - B.T @ solved[:, -1])) / values[keep])
    change = problem.pull(solved[:, -1] - solved[:, :-1] @ mu)
    parts = torch.split(rows.T @ mu, [p.numel() for p in problem.trained.values()])
    return {name: -change[name] - part.view(change[name].shape) for name, part in zip(problem.trained, parts, strict=True)}
