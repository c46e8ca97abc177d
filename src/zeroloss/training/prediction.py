r"""Losses and residuals at any step under a still kernel: gradient descent, its flow, momentum, and SGD in expectation; train and test."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.training.batches import Batches, make_batches
from zeroloss.training.filters import descent_filter, flow_filter, heavy_ball_filter
from zeroloss.training.linearised import decompose, linearise
from zeroloss.training.schedule import check_momentum
from zeroloss.training.sgd_moments import expected_squares

METHODS = ("gd", "flow", "sgd")


@dataclass(frozen=True, eq=False)
class Prediction:
    r"""A linearised run at the steps asked for; for SGD an expectation over its batches.

    Args:
        steps: the k's, in the order asked for.
        norms: $\|r_k\|$; for SGD $\sqrt{\mathbb E\|r_k\|^2}$.
        residuals: $r_k$ of every training row and output; for SGD $\mathbb Er_k$, which is that of gradient descent.
        test_residuals: the same of the test points; None without them.
        test_losses: $\tfrac12\|t_k\|^2$ over the test points' residuals $t_k$; for SGD $\tfrac12\mathbb E\|t_k\|^2$.
    """

    steps: Float[Tensor, " s"]
    norms: Float[Tensor, " s"]
    residuals: Float[Tensor, "s n k"]
    test_residuals: Float[Tensor, "s m k"] | None = None
    test_losses: Float[Tensor, " s"] | None = None

    @property
    def losses(self) -> Float[Tensor, " s"]:
        r"""$F_k=\tfrac12\|r_k\|^2$; for SGD its expectation."""
        return self.norms.square() / 2


def predict(
    kernel: Float[Tensor, "K K"],
    residual: Tensor,
    step: float,
    steps: Sequence[int | float] | Tensor,
    *,
    method: str = "gd",
    momentum: float = 0.0,
    batch: int | None = None,
    replacement: bool = False,
    cross: Tensor | None = None,
    test_residual: Tensor | None = None,
) -> Prediction:
    r"""The run on the squared loss that :func:`zeroloss.descend` would make if the kernel stood still, at any steps.

    In the kernel's eigenbasis $r_k=\sum_ip_k(\lambda_i)c_iv_i$, and at a test point
    $f(k)-y=f(0)-y-K_*\sum_is_k(\lambda_i)c_iv_i$ with $s_k=(1-p_k)/\lambda$ (:mod:`zeroloss.training.filters`). SGD draws every batch anew,
    uniformly, and independently of the others, and its moments are then exact (:mod:`zeroloss.training.sgd_moments`). ``descend`` draws so
    with replacement; without, it goes through permutations, whose batches depend on each other, and both moments are approximations.

    Cost: one eigendecomposition of the kernel, then nothing that grows with k but its logarithm, and K numbers a step asked for and
    output. SGD's second moments take every step up to the last, of about $4(K+M)K^2$ operations each.

    Args:
        kernel: finite Gram or limit kernel: n×n, applied to every output alike, or (nk)×(nk), sample-major.
        residual: $r_0=f(x)-y$, n or n×k.
        step: $\eta>0$.
        steps: the k's, any order, whole numbers from 0 (with ``"flow"`` any number from 0).
        method: ``"gd"``; ``"flow"``, $\dot\theta=-\nabla F$ at time $\eta k$; or ``"sgd"``.
        momentum: $\mu$ in [0, 1), heavy ball; not with the flow.
        batch: b in 1..n, for SGD.
        replacement: whether its rows are drawn with replacement.
        cross: $K_*=K(x_{test},x)$, m×n or (mk)×(nk).
        test_residual: $f(x_{test})-y_{test}$ at step 0, m or m×k, together with ``cross``; with $y_{test}=0$ it predicts outputs.

    Returns:
        The prediction, in float64; infinite where it overflows.

    Raises:
        ArgumentError: for shapes that do not fit, and arguments out of range or that do not go together.

    Source:
        DU section 3; THEORY 3.2. Test points: Jacot et al. 2018, Lee et al. 2019, section 2.

    Example:
        >>> K = torch.diag(torch.tensor([1.0, 0.5], dtype=torch.float64))
        >>> told = predict(K, torch.tensor([3.0, 4.0]), 1.0, [0, 1, 2], cross=K[1:], test_residual=torch.tensor([4.0]))
        >>> told.losses.tolist(), told.test_residuals.flatten().tolist()
        ([12.5, 2.0, 0.5], [4.0, 2.0, 1.0])
    """
    k, batches = _check(residual, step, steps, method, momentum, batch, replacement)
    values, vectors, columns = decompose(kernel, residual)
    p, s = _filters(values, step, k, method, momentum)
    outputs = residual.shape[1] if residual.ndim > 1 else 1
    rotated = vectors.T @ columns
    residuals = _mix(vectors, p, rotated).reshape(len(k), -1, outputs)
    test = _test_points(cross, test_residual, columns, outputs)
    seen = None
    if test is not None:
        seen = (test[1] - _mix(test[0] @ vectors, s, rotated)).reshape(len(k), -1, outputs)
    if batches is None:
        told = None if seen is None else seen.square().sum(dim=(1, 2)) / 2
        return Prediction(k, _norms(p, rotated), residuals, seen, told)
    if len(columns) % batches.n:
        raise ArgumentError("kernel", f"has {len(columns)} rows for {batches.n} samples", "pass the residual as n×k")
    matrix, start = vectors @ (values[:, None] * vectors.T), columns
    if test is not None:
        matrix, start = torch.cat([matrix, test[0]]), torch.cat([start, test[1]])
    squares, test_squares = expected_squares(matrix, start, step, momentum, batches, k)
    return Prediction(k, squares.clamp(min=0).sqrt(), residuals, seen, None if test is None else test_squares / 2)


def predict_descent(
    kernel: Float[Tensor, "K K"],
    residual: Tensor,
    step: float,
    steps: Sequence[int | float] | Tensor,
    *,
    method: str = "gd",
    momentum: float = 0.0,
    batch: int | None = None,
    replacement: bool = False,
) -> Float[Tensor, " s"]:
    r"""Residual norms that gradient descent would show if the kernel did not move.

    $\|r_k\| = \|(I-\eta K)^k r_0\|$, so the loss is half its square. For residuals, test points and the keywords see :func:`predict`.

    Args:
        kernel: finite Gram or limit kernel: n×n, or (nk)×(nk) sample-major.
        residual: $r_0 = f(x)-y$, n or n×k.
        step: $\eta > 0$.
        steps: the steps k to predict, any order.
        method: ``"gd"``, ``"flow"`` or ``"sgd"``; for the last the root of the expected square.
        momentum: $\mu$.
        batch: b, for SGD.
        replacement: whether its rows are drawn with replacement.

    Returns:
        One norm a step, float64.

    Raises:
        ArgumentError: for shapes that do not fit, a step that is not positive, or negative steps.

    Example:
        >>> predict_descent(torch.eye(2, dtype=torch.float64), torch.tensor([3.0, 4.0]), 0.5, [0, 1, 2])
        tensor([5.0000, 2.5000, 1.2500], dtype=torch.float64)
    """
    k, batches = _check(residual, step, steps, method, momentum, batch, replacement)
    if method == "gd" and not momentum:
        return linearise(kernel, residual).norms(step, k)
    if batches is not None:
        return predict(kernel, residual, step, k, method=method, momentum=momentum, batch=batch, replacement=replacement).norms
    values, vectors, columns = decompose(kernel, residual)
    return _norms(_filters(values, step, k, method, momentum)[0], vectors.T @ columns)


def _filters(values: Tensor, step: float, k: Tensor, method: str, momentum: float) -> tuple[Tensor, Tensor]:
    if method == "flow":
        return flow_filter(values, step, k)
    return heavy_ball_filter(values, step, momentum, k) if momentum else descent_filter(values, step, k)


def _mix(basis: Tensor, factors: Tensor, rotated: Tensor) -> Tensor:
    """The basis times every step's filtered coefficients; a direction without residual stays empty though its factor overflows."""
    filtered = torch.where(rotated[None] == 0, 0.0, factors[:, :, None] * rotated[None])
    return basis @ filtered


def _norms(p: Tensor, rotated: Tensor) -> Tensor:
    size = rotated.norm(dim=1)
    left: Tensor = torch.where(size == 0, 0.0, p * size).square().sum(dim=1).sqrt()
    return left  # in the eigenbasis: no cancellation where it is tiny


def _check(
    residual: Tensor,
    step: float,
    steps: Sequence[int | float] | Tensor,
    method: str,
    momentum: float,
    batch: int | None,
    replacement: bool,
) -> tuple[Tensor, Batches | None]:
    """The steps as float64, and SGD's batches."""
    if isinstance(step, bool) or not isinstance(step, int | float) or not (math.isfinite(step) and step > 0):
        raise ArgumentError("step", f"is {step!r}", "pass a positive number")
    k = torch.as_tensor(steps, dtype=torch.float64).reshape(-1)
    if not bool((k >= 0).all()):
        raise ArgumentError("steps", "contains a negative step or NaN", "count steps from 0")
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if method != "flow" and not bool(((k == k.round()) & (k < 2**53)).all()):
        raise ArgumentError("steps", "contains a fraction or infinity", "pass whole numbers")
    check_momentum(momentum)
    if method == "flow" and momentum:
        raise ArgumentError("momentum", f"is {momentum!r} with the flow", "pass method='gd' or 'sgd'")
    if not isinstance(residual, Tensor) or residual.ndim < 1 or len(residual) == 0:
        seen = f"has shape {tuple(residual.shape)}" if isinstance(residual, Tensor) else f"is {type(residual).__name__}"
        raise ArgumentError("residual", seen, "pass n or n×k numbers, n of at least 1")
    if method == "sgd":
        if batch is None:
            raise ArgumentError("batch", "is None with method='sgd'", f"pass a whole number from 1 to {len(residual)}")
        return k, make_batches(len(residual), batch, replacement)
    if batch is not None or replacement:
        raise ArgumentError(
            "batch, replacement", f"are {batch!r} and {replacement!r} with method={method!r}", "pass method='sgd'"
        )
    return k, None


def _test_points(
    cross: Tensor | None, test_residual: Tensor | None, columns: Tensor, outputs: int
) -> tuple[Tensor, Tensor] | None:
    """The cross kernel and the test points' first residuals, as columns like the training rows'."""
    if cross is None and test_residual is None:
        return None
    if cross is None or test_residual is None:
        raise ArgumentError("cross, test_residual", "are not both given", "pass K(x_test, x) and f(x_test) - y_test together")
    matrix, flat = (t.detach().to(device="cpu", dtype=torch.float64) for t in (cross, test_residual))
    fits = matrix.ndim == 2 and matrix.shape[1] == len(columns) and flat.numel() == len(matrix) * columns.shape[1]
    if not (fits and flat.ndim in (1, 2) and (flat.shape[1] if flat.ndim > 1 else 1) == outputs):
        raise ArgumentError(
            "cross, test_residual",
            f"have shapes {tuple(cross.shape)} and {tuple(test_residual.shape)} for a kernel of size {len(columns)}",
            "pass m×n with m×k, or (mk)×(nk) with m×k",
        )
    for name, tensor in (("cross", matrix), ("test_residual", flat)):
        if not bool(torch.isfinite(tensor).all()):
            raise ArgumentError(name, "has NaN or infinity", "start from finite kernels, outputs and targets")
    return matrix, flat.reshape(len(matrix), -1)
