r"""DU's residual recursions as their Definitions 6.1 and 7.1 print them: wrong on purpose (THEORY 3.7, T2 to T5).

Claim DU-02 needs something to reject. What is wrong: the cross terms pair each mean with its own input's activation (T2, T3); from the
second convolution on, a pixel covariance stands where a patch covariance belongs, and the skip adds patch covariances to pixel
covariances (T4); the last layer of the convolutional network lacks $c_{res}^2/H^2$ (T5). The index slip T1 is read as meant. The right
recursion is :func:`zeroloss.kernels.layer_kernels`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from zeroloss.errors import ArgumentError
from zeroloss.kernels.dual import Dual, dual
from zeroloss.kernels.pairs import Pairs, from_half_distances, input_pairs
from zeroloss.kernels.patches import Patches
from zeroloss.networks import c_sigma, find_activation


def printed_resnet(
    x: Float[Tensor, "n d"], depth: int, *, activation: str = "relu", c_res: float = 0.9
) -> Float[Tensor, "layers n n"]:
    r"""Definition 6.1 as printed: $K^{(h)} = K^{(h-1)} + \alpha(b_i\mu_i + b_j\mu_j) + \alpha^2\mathbb{E}[\sigma\sigma]$.

    Here $\alpha = c_{res}/H$, $b_i$ is the mean of layer h-1 and $\mu_i = \mathbb{E}\sigma(u_i)$; the right cross terms are
    $b_i\mu_j + b_j\mu_i$. The two agree where all rows have one norm. A correlation above 1, to which the printed terms lead between
    nearly parallel rows of different norm, is taken as 1.

    Args:
        x: n×d rows, float64.
        depth: H, at least 2.
        activation: its name.
        c_res: $0 < c_{res} < 1$.

    Returns:
        Shares of the tangent kernel: $G^{(1)}, \dots, G^{(H)}$ (the last is the printed $K^{(H)}$), then $G^{(H+1)} = K$ of the
        readout's inputs; in the order of :func:`zeroloss.kernels.layer_kernels` on :func:`zeroloss.networks.resnet`.

    Raises:
        ArgumentError: for a depth below 2 or an unknown activation.

    Example:
        >>> x = torch.eye(2, dtype=torch.float64)
        >>> printed_resnet(x, 3).shape
        torch.Size([4, 2, 2])
    """
    return _shares(x.detach()[:, :, None, None], depth, (1, 1), activation, c_res)


def printed_conv_resnet(
    x: Float[Tensor, "n c h w"],
    depth: int,
    kernel: tuple[int, int] = (3, 3),
    *,
    activation: str = "relu",
    c_res: float = 0.9,
) -> Float[Tensor, "layers n n"]:
    r"""Definition 7.1 as printed: $H^{(h)} = K^{(h-1)} + \dots$ and $K^{(h)} = \mathcal{P}(H^{(h)})$ for $h \ge 2$, but $K^{(1)}$ as it is.

    Args:
        x: n×c×h×w images, float64.
        depth: H, at least 2.
        kernel: the patch's height and width, both odd; the border is zeros.
        activation: its name.
        c_res: $0 < c_{res} < 1$.

    Returns:
        Shares of the tangent kernel, summed over pixels: $G^{(1)}, \dots, G^{(H)}$ (the last is the printed $K^{(H)}$, without its
        $c_{res}^2/H^2$), then $G^{(H+1)} = \mathrm{tr}\,H^{(H)}$.

    Raises:
        ArgumentError: for a depth below 2, an even kernel or an unknown activation.

    Example:
        >>> printed_conv_resnet(torch.ones(2, 1, 4, 4, dtype=torch.float64), 2).shape
        torch.Size([3, 2, 2])
    """
    if any(size % 2 == 0 for size in kernel):
        raise ArgumentError("kernel", f"is {kernel}", "pass two odd sizes")
    shares = _shares(x.detach(), depth, kernel, activation, c_res)
    shares[depth - 1] /= (c_res / depth) ** 2  # T5
    return shares


def _shares(x: Tensor, depth: int, kernel: tuple[int, int], activation: str, c_res: float) -> Tensor:
    """Both definitions but for T5: rows are images of one pixel, where patch and pixel are the same."""
    if depth < 2:
        raise ArgumentError("depth", f"is {depth}", "pass at least 2, since the first layer has no skip")
    sigma, alpha = find_activation(activation), c_res / depth
    scale = [c_sigma(sigma), *[alpha**2] * (depth - 1)]
    around = (kernel[0] // 2, kernel[1] // 2)
    patches = Patches(kernel, (1, 1), around, around, circular=False)
    inputs = [patches.pairs(input_pairs(x).times(float(x.shape[1])))]  # what every layer's weights see
    after = dual(sigma, inputs[0])
    slopes, mean = [after.slope], scale[0] ** 0.5 * after.mean_left
    pixel = after.pairs.times(scale[0])
    inputs.append(pixel)  # T4: no patch sums
    for _ in range(2, depth + 1):
        after = dual(sigma, inputs[-1])
        slopes.append(after.slope)
        pixel = _printed_skip(inputs[-1], after, mean, alpha)
        inputs.append(patches.pairs(pixel))
        mean = mean + alpha * after.mean_left
    beta = torch.ones_like(pixel.versine)
    shares = [pixel.products]
    for gain, before, slope in zip(scale[::-1], inputs[-2::-1], slopes[::-1], strict=True):
        passed = gain * slope * beta
        shares.append(before.products * passed)
        beta = beta + patches.sums(passed)
    return torch.stack([share.sum(dim=(-2, -1)) for share in shares[::-1]])


def _printed_skip(before: Pairs, after: Dual, mean: Tensor, alpha: float) -> Pairs:
    r"""The skip with T2, T3 and T4 in it.

    The printed $b_i\mu_i + b_j\mu_j$ add nothing to half distances, where the right ones add $(b_i-b_j)(\mu_i-\mu_j)$.
    """
    diagonal = before.left + 2 * alpha * mean * after.mean_left + alpha**2 * after.pairs.left
    half = before.half_distances + alpha**2 * after.pairs.half_distances
    return from_half_distances(diagonal, diagonal, half)
