"""The limit kernels of a module, as a callable: NTK, NNGP, and DU's last-hidden Gram K^(H)."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator
from torch import Tensor, nn

from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.kernels.recursion import State, walk
from zeroloss.typing import Rows

KINDS = ("ntk", "nngp", "last-hidden")
BLOCK = 512  # rows of K that the matrix-free product holds at a time


def limit_kernel(module: nn.Module, kind: str = "ntk") -> LimitKernel:
    r"""The infinite-width kernel of a module's architecture and initial distribution; its current weights do not matter.

    torch's own layers draw uniform weights. With few inputs d the first layer's pre-activations are then not Gaussian at any width,
    and the limit here, which takes them to be, is off by 5 to 10 % at d = 1 and by less, like 1/d, beyond; later layers tend to it.

    Args:
        module: a builder's network, or a ``torch.nn.Sequential`` of Linear, activations, Scale, Residual, nested.
        kind: ``"ntk"``, the tangent kernel of the trained layers, per output; ``"nngp"``, the covariance of one output at
            initialisation; ``"last-hidden"``, the last hidden layer's share of the tangent kernel (DU's $K^{(H)}$,
            Definitions 5.1 and 6.1, corrected as in THEORY 3.7 T1-T2).

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
    return LimitKernel(module, kind)


def layer_kernels(module: nn.Module, x: Rows) -> dict[str, Float[Tensor, "n n"]]:
    r"""The tangent kernel's share of every trained linear layer ($G^{(h)}_\infty$; they sum to the NTK).

    Args:
        module: as for :func:`limit_kernel`.
        x: n×d rows.

    Returns:
        Layer name to n×n kernel, first layer first.

    Example:
        >>> from zeroloss.networks import fully_connected
        >>> parts = layer_kernels(fully_connected(2, 8, 2, scheme="du"), torch.eye(2, dtype=torch.float64))
        >>> list(parts), round(float(sum(parts.values())[0, 0]), 12)
        (['W1', 'W2', 'a'], 3.0)
    """
    layers = trained_layers(module)
    state = walk(module, _rows("x", x), None, {layer: index for index, (_, layer) in enumerate(layers)})
    return {name: state.tangent[index] for index, (name, _) in enumerate(layers)}


def trained_layers(module: nn.Module) -> list[tuple[str, nn.Linear]]:
    """The linear layers that gradient descent moves, with their names, in the order of the module."""
    linear = [(name, layer) for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    return [(name, layer) for name, layer in linear if any(p.requires_grad for p in layer.parameters())]


class LimitKernel:
    """A limit kernel; see :func:`limit_kernel`, which makes it."""

    def __init__(self, module: nn.Module, kind: str) -> None:
        if kind not in KINDS:
            raise unknown_name("kind", kind, KINDS)
        self.kind = kind
        self._module = module
        layers: list[nn.Module] = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        if kind == "last-hidden" and len(layers) < 2:
            raise ArgumentError("module", "has no hidden linear layer", "ask for kind='ntk', or pass a deeper network")
        chosen = {"ntk": layers, "nngp": [], "last-hidden": layers[-2:-1]}[kind]
        self._parts = dict.fromkeys(chosen, 0)

    def __call__(self, x1: Tensor, x2: Tensor | None = None, out: Tensor | None = None) -> Float[Tensor, "n1 n2"]:
        r"""The kernel between two sets of rows.

        Args:
            x1: n1×d rows; computed in float64 and returned in this dtype.
            x2: n2×d rows, or None for $K(x_1,x_1)$, whose diagonal is exact.
            out: an n1×n2 tensor to write into.

        Returns:
            n1×n2 kernel (``out`` where it was given).

        Raises:
            ArgumentError: for rows of the wrong shape, NaN or infinity, or an ``out`` of the wrong shape.
        """
        first = _rows("x1", x1)
        second = None if x2 is None or x2 is x1 else _rows("x2", x2)
        if second is not None and second.shape[1] != first.shape[1]:
            raise ArgumentError("x2", f"has {second.shape[1]} columns where x1 has {first.shape[1]}", "pass rows of one length")
        result = self._read(walk(self._module, first, second, self._parts))
        if x1.dtype.is_floating_point:
            result = result.to(x1.dtype)
        if out is None:
            return result
        if out.shape != result.shape:
            raise ArgumentError("out", f"has shape {tuple(out.shape)}", f"pass one of shape {tuple(result.shape)}")
        return out.copy_(result)

    def _read(self, state: State) -> Tensor:
        return state.pairs.products if self.kind == "nngp" else state.tangent[0]

    def operator(self, x: Tensor) -> LinearOperator:
        """K(x, x) as a scipy LinearOperator that forms K in row blocks and stores none of it.

        Args:
            x: n×d rows.

        Returns:
            An n×n symmetric operator; give it blocks of right-hand sides, since forming K is what costs.

        Example:
            >>> from zeroloss.networks import fully_connected
            >>> x = torch.eye(3, dtype=torch.float64)
            >>> K = limit_kernel(fully_connected(3, 8, 1))
            >>> bool(np.allclose(K.operator(x) @ np.ones(3), K(x).sum(1)))
            True
        """
        rows = _rows("x", x)
        n = len(rows)

        def product(vectors: np.ndarray) -> np.ndarray:
            right = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float64)).to(rows.device).reshape(n, -1)
            blocks = [self._block(rows, start) @ right for start in range(0, n, BLOCK)]
            result: np.ndarray = torch.cat(blocks).cpu().numpy().reshape(vectors.shape)
            return result

        return LinearOperator((n, n), matvec=product, matmat=product, rmatvec=product, rmatmat=product, dtype=np.float64)  # type: ignore[no-any-return, unused-ignore]

    def _block(self, rows: Tensor, start: int) -> Tensor:
        stop = min(start + BLOCK, len(rows))
        block = self._read(walk(self._module, rows[start:stop], rows, self._parts))
        own = self._read(walk(self._module, rows[start:stop], None, self._parts))
        block[:, start:stop] = own  # the block with itself has the exact diagonal
        return block


def _rows(name: str, x: Tensor) -> Rows:
    """Rows as float64, or an error that says what is wrong with them."""
    if not isinstance(x, Tensor) or x.ndim < 2:
        shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
        raise ArgumentError(name, f"has shape {shape}", "pass an n×d tensor, one input a row")
    if x.dtype in (torch.float16, torch.bfloat16) or x.is_complex() or x.dtype == torch.bool:
        raise ArgumentError(name, f"has dtype {x.dtype}", "convert it to float32 or float64 first")
    rows = x.detach().flatten(1).to(torch.float64)
    if rows.shape[1] == 0:
        raise ArgumentError(name, f"has shape {tuple(x.shape)}", "pass rows with at least one column")
    bad = ~torch.isfinite(rows).all(dim=1)
    if bool(bad.any()):
        where = int(bad.nonzero()[0])
        raise ArgumentError(name, f"has NaN or infinity in {int(bad.sum())} rows (first: row {where})", "clean or drop them")
    return rows
