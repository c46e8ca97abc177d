r"""The subject's tangent kernel: the full Gram in float64, and $\lambda_{\max}$ over rows too many to form it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from zeroloss.errors import ArgumentError
from zeroloss.gram import gram, match, rows_of
from zeroloss.spectrum.extremes import largest_eigenvalue
from zeroloss.typing import Inputs

BYTES = 2**27  # for gradients held at once where no per-layer formula applies
WORK = 2e10  # rows times parameters up to which the largest eigenvalue of all rows is computed, in about a minute


def full_gram(module: nn.Module, x: Inputs) -> Float[Tensor, "N N"]:
    r"""$JJ^\top$ over all nk outputs, sample-major: layer by layer where every trained layer has a formula, else from gradients.

    Args:
        module: any module that automatic differentiation runs through, samples kept apart.
        x: inputs, one a row.

    Returns:
        Symmetric, float64, on the CPU.

    Raises:
        ArgumentError: where samples are mixed.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> full_gram(layer, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([[ 5., 11.],
                [11., 25.]], dtype=torch.float64)
    """
    try:
        with torch.random.fork_rng(devices=[]):
            matrix = gram(module, x, "full")
    except ArgumentError:
        matrix = gram_of_gradients(module, x)
    matrix = matrix.detach().to(device="cpu", dtype=torch.float64)
    return (matrix + matrix.T) / 2


def gram_of_gradients(module: nn.Module, x: Inputs) -> Float[Tensor, "N N"]:
    r"""The same from the gradients of every output of every row, some parameters at a time, so that no nk×P Jacobian is held.

    Args:
        module: as for :func:`full_gram`; a row is run on its own, so samples are kept apart whatever the module does.
        x: inputs, one a row.

    Returns:
        (nk)×(nk), in the module's dtype.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False)
        >>> gram_of_gradients(layer, torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        tensor([[ 5., 11.],
                [11., 25.]])
    """
    inputs = match(module, x)
    trained = [p for p in module.parameters() if p.requires_grad]
    k = rows_of(module(inputs[:1]), 1).shape[1]
    size = len(inputs) * k
    total = inputs.new_zeros(size, size)
    for group in _groups(trained, size):
        jacobian = inputs.new_zeros(size, sum(p.numel() for p in group))
        for i in range(len(inputs)):
            outputs = rows_of(module(inputs[i : i + 1]), 1)[0]
            for a in range(k):
                if not outputs[a].requires_grad:
                    continue
                found = torch.autograd.grad(outputs[a], group, retain_graph=a < k - 1, allow_unused=True)
                parts = [torch.zeros_like(p) if g is None else g for p, g in zip(group, found, strict=True)]
                torch.cat([part.flatten() for part in parts], out=jacobian[i * k + a])
        total.addmm_(jacobian, jacobian.T)
    return total


def rows_operator(module: nn.Module, x: Inputs, rows: int = 256) -> LinearOperator:
    r"""$v\mapsto JJ^\top v$ over all nk outputs, some rows at a time: by backward passes alone, which every module has.

    $Jg$ is the derivative in $u$ of $\langle J^\top u, g\rangle$, so a second backward pass stands for the forward-mode one.

    Args:
        module: as for :func:`full_gram`.
        x: inputs.
        rows: how many are in memory at once.

    Returns:
        A symmetric (nk)×(nk) operator.

    Example:
        >>> layer = nn.Linear(2, 1, bias=False).double()
        >>> rows_operator(layer, torch.eye(2, dtype=torch.float64)) @ np.array([1.0, 2.0])
        array([1., 2.])
    """
    inputs = match(module, x)
    trained = [p for p in module.parameters() if p.requires_grad]
    with torch.no_grad():
        k = rows_of(module(inputs[:1]), 1).shape[1]
    blocks = torch.split(inputs, rows)

    def product(vector: np.ndarray) -> np.ndarray:
        values = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64)).reshape(len(inputs), k).to(inputs)
        pulled = [torch.zeros_like(p) for p in trained]
        with _differentiable():
            for block, part in zip(blocks, torch.split(values, rows), strict=True):
                found = torch.autograd.grad(rows_of(module(block), len(block)), trained, part, allow_unused=True)
                for sum_, gradient in zip(pulled, found, strict=True):
                    if gradient is not None:
                        sum_ += gradient
            pushed = [_pushed(module, block, trained, pulled) for block in blocks]
        result: np.ndarray = torch.cat(pushed).to(device="cpu", dtype=torch.float64).numpy().reshape(np.shape(vector))
        return result

    size = len(inputs) * k
    return LinearOperator((size, size), matvec=product, rmatvec=product, dtype=np.float64)  # type: ignore[no-any-return, unused-ignore]


def largest_over_rows(module: nn.Module, x: Inputs, sample_largest: float, sampled: int) -> tuple[float, bool]:
    r"""$\lambda_{\max}$ over all rows, where only some are in the Gram that was formed.

    Args:
        module: the subject's.
        x: all inputs.
        sample_largest: $\lambda_{\max}$ over the sampled rows.
        sampled: how many those are.

    Returns:
        The eigenvalue, and whether it was computed over all rows; else it is $n/m$ times the sample's, whose expectation is not below
        the true one, since $\lambda_{\max}$ is convex.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False).double()
        >>> largest_over_rows(layer, torch.ones(4, 1, dtype=torch.float64), 2.0, 2)
        (4.0, True)
    """
    parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    if len(x) * parameters > WORK:
        return sample_largest * len(x) / sampled, False
    return round_off(largest_eigenvalue(rows_operator(module, x), tolerance=1e-4)), True


def round_off(value: float) -> float:
    """A number without its last three digits, which summation order decides.

    Example:
        >>> round_off(0.1 + 0.2)
        0.3
    """
    return float(f"{value:.13g}")


def _pushed(module: nn.Module, block: Tensor, trained: list[nn.Parameter], direction: list[Tensor]) -> Tensor:
    outputs = rows_of(module(block), len(block))
    dummy = torch.zeros_like(outputs, requires_grad=True)
    found = torch.autograd.grad(outputs, trained, dummy, create_graph=True, allow_unused=True)
    pairs = [(g, d) for g, d in zip(found, direction, strict=True) if g is not None and g.requires_grad]
    if not pairs:
        return torch.zeros_like(outputs)
    total = torch.stack([(g * d).sum() for g, d in pairs]).sum()
    (pushed,) = torch.autograd.grad(total, dummy, allow_unused=True)
    return torch.zeros_like(outputs) if pushed is None else pushed.detach()


def _groups(parameters: list[nn.Parameter], size: int) -> Iterator[list[nn.Parameter]]:
    """Parameters whose gradients fit into memory together."""
    group: list[nn.Parameter] = []
    held = 0
    for parameter in parameters:
        needed = parameter.numel() * size * parameter.element_size()
        if group and held + needed > BYTES:
            yield group
            group, held = [], 0
        group.append(parameter)
        held += needed
    yield group


@contextlib.contextmanager
def _differentiable() -> Iterator[None]:
    """Gradients on, and attention in the form that can be differentiated twice."""
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        yield
