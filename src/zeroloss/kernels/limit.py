"""The limit kernels of a module, as a callable: NTK, NNGP, and DU's last-hidden Gram K^(H)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from torch import Tensor, nn

from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.kernels.convolution import convolutional_tiles
from zeroloss.kernels.layers import refuse_tied
from zeroloss.kernels.recursion import State
from zeroloss.kernels.replicates import REPLICATES, needs_particles, replicates
from zeroloss.kernels.tiles import tiles
from zeroloss.typing import Inputs

KINDS = ("ntk", "nngp", "last-hidden")


def limit_kernel(module: nn.Module, kind: str = "ntk", seed: int = 0, particles: int | None = None) -> LimitKernel:
    r"""The infinite-width kernel of a module's architecture and initial distribution; its current weights do not matter.

    torch's own layers draw uniform weights. With few inputs d the first layer's pre-activations are then not Gaussian at any width,
    and the limit here, which takes them to be, is off by 5 to 10 % at d = 1 and by less, like 1/d, beyond; later layers tend to it.

    Where an activation follows a skip (AZ's ResNet, Theorem 7) there is no closed form. The kernel is then the mean of 8
    independent sets of particles (:mod:`zeroloss.kernels.particles`), the same numbers at every call on the same rows, with a
    relative error of about 0.1 % for 10 rows and 0.2 % for 100; :meth:`LimitKernel.standard_error` measures it, and eigenvalues
    below it mean nothing.

    Args:
        module: a builder's network, or a ``torch.nn.Sequential`` of Linear, Conv2d (dilation 1, one group, zero or circular padding),
            average pooling, Flatten, activations, Scale, Residual, nested. One with a convolution takes n×c×h×w images (Conv1d: n×c×w
            sequences); any other takes rows, or images that it flattens.
        kind: ``"ntk"``, the tangent kernel of the trained layers, per output; ``"nngp"``, the covariance of one output at
            initialisation; ``"last-hidden"``, the last hidden layer's share of the tangent kernel (DU's $K^{(H)}$,
            Definitions 5.1 and 6.1, corrected as in THEORY 3.7 T1-T2).
        seed: of the particles, where they are needed.
        particles: how many in all; None for $2^{23}$ over the number of rows, at least 4096 and at most $2^{19}$.

    Returns:
        ``K(x1, x2=None, out=None)``, in the units of :func:`zeroloss.gram`: their ratio tends to 1 as the width grows.

    Raises:
        ArgumentError: for an unknown kind, or naming a layer that has no limit.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> x = torch.eye(2, dtype=torch.float64)
        >>> limit_kernel(fully_connected(2, 64, 3))(x).diagonal()  # mL/(2 d_out), THEORY 1.3
        tensor([96., 96.], dtype=torch.float64)
    """
    return LimitKernel(module, kind, seed, particles)


def layer_kernels(module: nn.Module, x: Inputs, seed: int = 0, particles: int | None = None) -> dict[str, Float[Tensor, "n n"]]:
    r"""The tangent kernel's share of every trained layer ($G^{(h)}_\infty$; they sum to the NTK).

    Args:
        module: as for :func:`limit_kernel`.
        x: n×d rows, or n×c×h×w images.
        seed: of the particles, as for :func:`limit_kernel`.
        particles: how many in all, likewise.

    Returns:
        Layer name to n×n kernel, first layer first.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> parts = layer_kernels(fully_connected(2, 8, 2, scheme="du"), torch.eye(2, dtype=torch.float64))
        >>> list(parts), round(float(sum(parts.values())[0, 0]), 12)
        (['W1', 'W2', 'a'], 3.0)
    """
    refuse_tied(module)
    layers = trained_layers(module)
    inputs = _inputs("x", x, module)
    result = inputs.new_empty(len(layers), len(inputs), len(inputs))
    parts: dict[nn.Module, int] = {layer: index for index, (_, layer) in enumerate(layers)}
    for rows, columns, tile in _pieces(module, inputs, None, parts, lambda state: state.tangent, seed, particles):
        result[:, columns, rows] = tile.mT
        result[:, rows, columns] = tile
    return {name: result[index] for index, (name, _) in enumerate(layers)}


def trained_layers(module: nn.Module) -> list[tuple[str, nn.Linear | nn.Conv1d | nn.Conv2d]]:
    """The linear layers and convolutions that gradient descent moves, with their names, in the order of the module."""
    layers = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)]
    return [(name, layer) for name, layer in layers if any(p.requires_grad for p in layer.parameters())]


class LimitKernel:
    """A limit kernel; see :func:`limit_kernel`, which makes it."""

    def __init__(self, module: nn.Module, kind: str, seed: int = 0, particles: int | None = None) -> None:
        if kind not in KINDS:
            raise unknown_name("kind", kind, KINDS)
        if particles is not None and particles < 2 * REPLICATES:
            raise ArgumentError("particles", f"is {particles}", f"pass at least {2 * REPLICATES}, or None for a default")
        refuse_tied(module)
        self.kind = kind
        self._seed, self._particles = seed, particles
        self._module = module
        layers: list[nn.Module] = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv1d | nn.Conv2d)]
        if kind == "last-hidden" and len(layers) < 2:
            raise ArgumentError("module", "has no hidden layer of weights", "ask for kind='ntk', or pass a deeper network")
        chosen = {"ntk": layers, "nngp": [], "last-hidden": layers[-2:-1]}[kind]
        self._parts = dict.fromkeys(chosen, 0)

    def __call__(self, x1: Tensor, x2: Tensor | None = None, out: Tensor | None = None) -> Float[Tensor, "n1 n2"]:
        r"""The kernel between two sets of inputs.

        Args:
            x1: n1×d rows or n1×c×h×w images; computed in float64 and returned in this dtype. Where the module is a stack of ReLU
                convolutions, float32 images are summed in float32: to 1e-6 relative, with global average pooling to 2e-5 where images
                are nearly of one colour.
            x2: n2 of the same, or None for $K(x_1,x_1)$, whose diagonal is exact.
            out: an n1×n2 tensor to write into.

        Returns:
            n1×n2 kernel (``out`` where it was given). Beside it and the inputs, a hundred megabytes or so of memory are used.

        Raises:
            ArgumentError: for inputs of the wrong shape, NaN or infinity, or an ``out`` of the wrong shape.
        """
        first, second = self._pair(x1, x2)
        shape = (len(first), len(first if second is None else second))
        if out is None:
            out = first.new_empty(shape, dtype=x1.dtype if x1.dtype.is_floating_point else torch.float64)
        elif out.shape != shape:
            raise ArgumentError("out", f"has shape {tuple(out.shape)}", f"pass one of shape {shape}")
        for rows, columns, tile in self._tiles(first, second, x1.dtype):
            if second is None:
                out[columns, rows] = tile.T
            out[rows, columns] = tile
        return out

    def standard_error(self, x1: Tensor, x2: Tensor | None = None) -> Float[Tensor, "n1 n2"]:
        """The standard error of every entry of the kernel, from the spread of the sets of particles; 0 for closed forms.

        Args:
            x1: n1×d rows.
            x2: n2×d rows, or None for the first set with itself.

        Returns:
            n1×n2 standard errors, float64. Entries share particles, so their errors are correlated.

        Example:
            >>> from zeroloss.networks import resnet
            >>> x = torch.eye(2, dtype=torch.float64)
            >>> K = limit_kernel(resnet(2, 8, 2), particles=80_000)
            >>> bool((K.standard_error(x) / K(x) < 0.01).all())
            True
        """
        first, second = self._pair(x1, x2)
        if not needs_particles(self._module):
            return first.new_zeros(len(first), len(first if second is None else second))
        states = replicates(self._module, first, second, self._parts, self._seed, self._particles)
        values = torch.stack([self._read(state) for state in states])
        error: Tensor = values.std(dim=0) / math.sqrt(REPLICATES)
        return error

    def _pair(self, x1: Tensor, x2: Tensor | None) -> tuple[Tensor, Tensor | None]:
        first = _inputs("x1", x1, self._module)
        second = None if x2 is None or x2 is x1 else _inputs("x2", x2, self._module)
        if second is not None and second.shape[1:] != first.shape[1:]:
            seen, wanted = (
                f"{t.shape[1]} columns" if t.ndim == 2 else f"images of {tuple(t.shape[1:])}" for t in (second, first)
            )
            raise ArgumentError("x2", f"has {seen} where x1 has {wanted}", "pass inputs of one shape")
        return first, second

    def _tiles(
        self, first: Tensor, second: Tensor | None, dtype: torch.dtype = torch.float64
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        return _pieces(self._module, first, second, self._parts, self._read, self._seed, self._particles, dtype)

    def _read(self, state: State) -> Tensor:
        return state.pairs.products if self.kind == "nngp" else state.tangent[0]

    def operator(self, x: Tensor) -> LinearOperator:
        """K(x, x) as a scipy LinearOperator that forms K tile by tile and stores none of it; a sampled K is formed once and kept.

        Args:
            x: n×d rows, or n×c×h×w images.

        Returns:
            An n×n symmetric operator; give it blocks of right-hand sides, since forming K is what costs.

        Example:
            >>> from zeroloss.networks import fully_connected
            >>> x = torch.eye(3, dtype=torch.float64)
            >>> K = limit_kernel(fully_connected(3, 8, 1))
            >>> bool(np.allclose(K.operator(x) @ np.ones(3), K(x).sum(1)))
            True
        """
        inputs = _inputs("x", x, self._module)
        n = len(inputs)
        if needs_particles(self._module):  # particles belong to all rows at once, so every product must see one matrix
            return aslinearoperator(self(inputs).cpu().numpy())

        def product(vectors: np.ndarray) -> np.ndarray:
            right = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float64)).to(inputs.device).reshape(n, -1)
            total = torch.zeros_like(right)
            for rows, columns, tile in self._tiles(inputs, None):
                total[rows] += tile @ right[columns]
                if rows != columns:
                    total[columns] += tile.T @ right[rows]
            result: np.ndarray = total.cpu().numpy().reshape(vectors.shape)
            return result

        return LinearOperator((n, n), matvec=product, matmat=product, rmatvec=product, rmatmat=product, dtype=np.float64)  # type: ignore[no-any-return, unused-ignore]


def _pieces(
    module: nn.Module,
    first: Tensor,
    second: Tensor | None,
    parts: Mapping[nn.Module, int],
    read: Callable[[State], Tensor],
    seed: int,
    particles: int | None,
    dtype: torch.dtype = torch.float64,
) -> Iterator[tuple[slice, slice, Tensor]]:
    """The kernel tile by tile; in one piece, the mean of the replicates, where it is sampled."""
    if not needs_particles(module):
        found = convolutional_tiles(module, first, second, parts, read, dtype)
        yield from tiles(module, first, second, parts, read) if found is None else found
        return
    total: Tensor | None = None
    for state in replicates(module, first, second, parts, seed, particles):
        value = read(state)
        total = value if total is None else total.add_(value)
    assert total is not None
    yield slice(0, total.shape[-2]), slice(0, total.shape[-1]), total / REPLICATES


def _inputs(name: str, x: Tensor, module: nn.Module) -> Inputs:
    """Float64 images for a module that convolves and rows for any other, or an error that says what is wrong with them."""
    wanted, what = _input_shape(module)
    if not isinstance(x, Tensor) or x.ndim < 2:
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ArgumentError(name, f"has shape {shape}", f"pass an {what}")
    if wanted > 2 and x.ndim != wanted:
        kind = "images" if wanted == 4 else "sequences"
        raise ArgumentError(name, f"has shape {tuple(x.shape)}, but the module convolves {kind}", f"pass an {what}")
    if x.dtype in (torch.float16, torch.bfloat16) or x.is_complex() or x.dtype == torch.bool:
        raise ArgumentError(name, f"has dtype {x.dtype}", "convert it to float32 or float64 first")
    rows = x.detach().flatten(1).to(torch.float64)
    if rows.shape[1] == 0:
        raise ArgumentError(name, f"has shape {tuple(x.shape)}", "pass inputs with at least one number each")
    bad = ~torch.isfinite(rows).all(dim=1)
    if bool(bad.any()):
        where = int(bad.nonzero()[0])
        raise ArgumentError(name, f"has NaN or infinity in {int(bad.sum())} rows (first: row {where})", "clean or drop them")
    return rows.reshape(x.shape) if wanted > 2 else rows


def _input_shape(module: nn.Module) -> tuple[int, str]:
    """How many dimensions the module's inputs have, and in words."""
    if any(isinstance(layer, nn.Conv2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d) for layer in module.modules()):
        return 4, "n×c×h×w tensor of images"
    if any(isinstance(layer, nn.Conv1d | nn.AvgPool1d | nn.AdaptiveAvgPool1d) for layer in module.modules()):
        return 3, "n×c×w tensor of sequences"
    return 2, "n×d tensor, one input a row"
