r"""Stochastic gradient descent on a still kernel, in expectation: exact second moments of the residuals under independent batches.

With $D=(n/b)\operatorname{diag}(m_1,\dots,m_n)$, $m_i$ the number of times that row i is in the batch, a step is
$r'=r-\eta KDr$ and $\mathbb ED=I$. The moments of D are $\mathbb E[D_{ii}^2]=d$ and $\mathbb E[D_{ii}D_{jj}]=a$ for $i\ne j$:

- without replacement $a=\frac{n(b-1)}{b(n-1)}$, $d=\frac nb$;
- with replacement $a=1-\frac1b$, $d=1+\frac{n-1}b$.

So with $\Sigma=\mathbb E[rr^\top]$ and $S=a\Sigma+(d-a)\operatorname{blockdiag}(\Sigma)$, where a block is a row's outputs,
$\Sigma'=\Sigma-\eta(K\Sigma+\Sigma K)+\eta^2KSK$.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.training.batches import Batches


def draw_moments(batches: Batches) -> tuple[float, float]:
    r"""$a=\mathbb E[D_{ii}D_{jj}]$, $i\ne j$, and $d=\mathbb E[D_{ii}^2]$ of a draw of b of n rows; see the module.

    Args:
        batches: n, b and whether rows are drawn with replacement; every batch has b rows and is drawn anew.

    Returns:
        (a, d).

    Example:
        >>> draw_moments(Batches(4, 2)), draw_moments(Batches(4, 4)), draw_moments(Batches(4, 2, replacement=True))
        ((0.6666666666666666, 2.0), (1.0, 1.0), (0.5, 2.5))
    """
    n, b = batches.n, batches.size
    if batches.replacement:
        return 1 - 1 / b, 1 + (n - 1) / b
    return (n * (b - 1) / (b * (n - 1)), n / b) if n > 1 else (1.0, 1.0)


def expected_squares(
    kernel: Float[Tensor, "N K"],
    start: Float[Tensor, "N k"],
    step: float,
    momentum: float,
    batches: Batches,
    steps: Float[Tensor, " s"],
) -> tuple[Float[Tensor, " s"], Float[Tensor, " s"]]:
    r"""$\mathbb E\|r_k\|^2$ of the training rows, and of the rows below them, exactly.

    The state is $A=\mathbb E[z_kr_k^\top]$, N×K, of all rows $z=(r,t)$ with the training rows r, and the squares of t alone: no matrix over
    pairs of test points. Under heavy ball, $z_{k+1}=(1+\mu)z_k-\mu z_{k-1}-\eta\hat KDr_k$, also $\mathbb E[z_kr_{k-1}^\top]$,
    $\mathbb E[z_{k-1}r_k^\top]$ and $\mathbb E[z_{k-1}r_{k-1}^\top]$ are carried. Cost: about $4NK^2$ operations a step, with momentum
    $6NK^2$, up to the last step asked for; K = 100 takes half a millisecond a step.

    Args:
        kernel: $\hat K$, the training rows' kernel with that of the test points and the training rows below it.
        start: $z_0$, one column for each of the outputs on which the kernel acts alike.
        step: $\eta$.
        momentum: $\mu$.
        batches: n, b and replacement; K/n entries of r are a row's outputs.
        steps: whole k's, any order.

    Returns:
        The two expectations at every step, summed over rows and outputs; infinite where they overflow.

    Example:
        >>> one, z = torch.ones(1, 1, dtype=torch.float64), torch.tensor([[2.0]], dtype=torch.float64)
        >>> expected_squares(one, z, 0.5, 0.0, Batches(1, 1), torch.tensor([0.0, 1.0]).double())[0].tolist()
        [4.0, 1.0]
    """
    size = kernel.shape[1]
    own, other = kernel[:size], kernel[size:]
    alike, alone = draw_moments(batches)
    mu, keep = momentum, 1 + momentum
    A = start @ start[:size].T
    squares = start[size:].square().sum(dim=1)  # E t², one a test row
    # (z_k, r_{k-1}), (z_{k-1}, r_k), (z_{k-1}, r_{k-1}), and for t alone (t_k, t_{k-1}), (t_{k-1}, t_{k-1}): all as at rest
    C, X, P, between, before = A, A, A, squares, squares
    wanted = steps.to(torch.int64).tolist()
    found: dict[int, tuple[float, float]] = {}
    asked, last = set(wanted), max(wanted, default=0)
    for k in range(last + 1):
        if k in asked:
            found[k] = (float(A[:size].trace()), float(squares.sum()))
        if k == last or not torch.isfinite(A[:size].diagonal()).all():
            break
        pushed = kernel @ A[:size]
        noise = (alike - 1) * pushed + (alone - alike) * _times_blocks(kernel, A[:size], size // batches.n)  # K^(E[DΣD] - Σ)
        moved = keep * A - mu * X - step * pushed  # E[z_{k+1} r_k^T]
        if len(other):
            pull, lag = _dots(other, A[size:]), _dots(other, X[size:])
            energy = _dots(pushed[size:] + noise[size:], other)
            squares, between, before = (
                keep**2 * squares
                - 2 * keep * mu * between
                + mu**2 * before
                - 2 * step * (keep * pull - mu * lag)
                + step**2 * energy,
                keep * squares - mu * between - step * pull,
                squares,
            )
        forward = keep * moved - step * ((moved - step * noise) @ own)
        if mu:
            forward -= mu * (keep * C - mu * P - step * (kernel @ C[:size]))
            C, X, P = moved, keep * A - mu * C - step * (A @ own), A
        A = forward
        A[:size] = (A[:size] + A[:size].T) / 2
    lost = (float("inf"), float("inf") if len(other) else 0.0)
    pairs = torch.tensor([found.get(k, lost) for k in wanted], dtype=torch.float64).reshape(-1, 2)
    pairs = torch.where(pairs.isnan(), torch.inf, pairs)
    return pairs[:, 0], pairs[:, 1]


def _times_blocks(kernel: Tensor, moments: Tensor, block: int) -> Tensor:
    """The kernel times the blocks on the moments' diagonal, without the zeros between them."""
    if block == 1:
        return kernel * moments.diagonal()
    n = len(moments) // block
    blocks = moments.reshape(n, block, n, block).diagonal(dim1=0, dim2=2).permute(2, 0, 1)  # n×block×block
    return torch.einsum("Nia,iab->Nib", kernel.reshape(-1, n, block), blocks).reshape(kernel.shape)


def _dots(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(dim=1)
