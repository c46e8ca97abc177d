"""AZ's explicit gradient: back matrices and Fact 2.6, an independent second way to what automatic differentiation gives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zeroloss.errors import ArgumentError
from zeroloss.networks import Network
from zeroloss.typing import Rows, Targets


def formula_gradient(network: Network, x: Rows, y: Targets) -> dict[str, Tensor]:
    r"""$\nabla_{W_l}F = \sum_i D_{i,l}\,(\mathrm{Back}_{i,l+1}^\top \mathrm{loss}_i)\,h_{i,l-1}^\top$ (AZ Definition 2.5, Fact 2.6).

    $\mathrm{Back}_{i,l} = B D_{i,L}W_L \cdots D_{i,l}W_l$, $\mathrm{Back}_{i,L+1}=B$, $D_{i,l}=\mathrm{diag}\,1[g_{i,l}\ge 0]$,
    $\mathrm{loss}_i = Bh_{i,L}-y_i$. (torch takes the derivative 0 at $g=0$ where the paper takes 1; with Gaussian weights and
    non-zero inputs no $g$ is 0.)

    Args:
        network: a fully connected network with AZ's scheme and ReLU.
        x: n×d inputs.
        y: n×k targets.

    Returns:
        Layer name ``W1`` ... ``WL`` to its gradient.

    Raises:
        ArgumentError: for another kind of network.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> net = fully_connected(2, 4, 1)
        >>> x, y = torch.eye(2, dtype=torch.float64), torch.ones(2, 1, dtype=torch.float64)
        >>> loss = 0.5 * (net(x) - y).square().sum()
        >>> torch.allclose(formula_gradient(net, x, y)["W1"], torch.autograd.grad(loss, net.W1.weight)[0])
        True
    """
    a = network.architecture
    if (a.family, a.scheme, a.activation) != ("fully_connected", "allen-zhu", "relu"):
        raise ArgumentError(
            "network",
            f"is {a.family} with scheme {a.scheme!r} and {a.activation}",
            "pass fully_connected(..., scheme='allen-zhu')",
        )
    weights = [layer.weight.detach() for layer in network if isinstance(layer, nn.Linear)]
    first, hidden, last = weights[0], weights[1:-1], weights[-1]
    g = x @ first.T
    h, signs = [g.clamp(min=0)], [g >= 0]
    for w in hidden:
        g = h[-1] @ w.T
        h.append(g.clamp(min=0))
        signs.append(g >= 0)
    back = last.expand(len(x), -1, -1)  # n x k x m, one Back matrix a sample
    loss = h[-1] @ last.T - y
    gradients: dict[str, Tensor] = {}
    for index in range(len(hidden), 0, -1):
        v = torch.einsum("nkm,nk->nm", back, loss) * signs[index]
        gradients[f"W{index}"] = v.T @ h[index - 1]
        back = (back * signs[index][:, None, :]) @ hidden[index - 1]
    return dict(reversed(gradients.items()))
