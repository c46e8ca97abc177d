r"""The limit kernels of a module, as a callable: NTK, NNGP, and DU's last-hidden Gram $K^{(H)}$.

Rows of one norm, and rows of any norms where the module is homogeneous, go through a curve (:mod:`zeroloss.kernels.curve`): one product
and one polynomial an entry at any depth. Other kernels take the recursion over layers for every entry, in tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from scipy.sparse.linalg import LinearOperator, aslinearoperator
from torch import Tensor, nn

from zeroloss.errors import ArgumentError, unknown_name
from zeroloss.kernels.collapse import collapse, row_width
from zeroloss.kernels.curve import Curve
from zeroloss.kernels.engine import RowKernel, survey_sets
from zeroloss.kernels.gradient import differentiable
from zeroloss.kernels.homogeneity import is_homogeneous
from zeroloss.kernels.initial import Initial, resolve
from zeroloss.kernels.inputs import check_inputs, check_out, check_pair, shares_memory
from zeroloss.kernels.memory import describe, remembered
from zeroloss.kernels.replicates import REPLICATES, needs_particles, replicates
from zeroloss.kernels.state import State
from zeroloss.kernels.store import write_blocks
from zeroloss.kernels.structure import WEIGHTED, check_module, layers_of
from zeroloss.kernels.tile_stream import refuse_overflow, tile_stream

KINDS = ("ntk", "nngp", "last-hidden")
ESTIMATE, ESTIMATE32 = 2e-12, 2e-4  # of the largest entry: what kernels without a curve may err by, several times what was seen
LARGEST = 1e300  # variance: beyond it nothing is computed
FEW = 4096  # pairs: fewer than a curve has nodes, so that the recursion itself is quicker


def limit_kernel(
    module: nn.Module, kind: str = "ntk", seed: int = 0, particles: int | None = None, initial: Initial | None = None
) -> LimitKernel:
    r"""The infinite-width kernel of a module's architecture and initial distribution; its current weights do not matter.

    torch's own layers draw uniform weights. With few inputs d the first layer's pre-activations are then not Gaussian at any width,
    and the limit here, which takes them to be, is off by 5 to 10 % at d = 1 and by less, like 1/d, beyond; later layers tend to it.

    Where an activation follows a skip (AZ's ResNet, Theorem 7) there is no closed form. The kernel is then the mean of 8
    independent sets of particles (:mod:`zeroloss.kernels.particles`), the same numbers at every call on the same rows, with a
    relative error of about 0.1 % for 10 rows and 0.2 % for 100; :meth:`LimitKernel.standard_error` measures it, and eigenvalues
    below it mean nothing.

    Args:
        module: a builder's network, or a ``torch.nn.Sequential`` of Linear, Conv1d and Conv2d (dilation 1, one group, zero or circular
            padding), average pooling, Flatten, activations, LayerNorm or RMSNorm over all features, BatchNorm in eval mode before it
            has seen a batch, Dropout in eval mode, Identity, Scale, Residual, nested. Trained gains and shifts of normalising layers
            count in the tangent kernel. One with a convolution takes n×c×h×w images or n×c×w sequences; any other takes rows, or
            images that it flattens.
        kind: ``"ntk"``, the tangent kernel of the trained layers, per output; ``"nngp"``, the covariance of one output at
            initialisation; ``"last-hidden"``, the last hidden layer's share of the tangent kernel (DU's $K^{(H)}$,
            Definitions 5.1 and 6.1, corrected as in THEORY 3.7 T1-T2).
        seed: of the particles, where they are needed.
        initial: for layers whose weights were drawn anew, dotted name to the variance of the weights (and no bias drawn), or to a pair:
            that of the weights and that of the bias. Others have what they draw by themselves: torch's $1/(3\,\mathrm{fan\_in})$
            for both, ours as built. :func:`measured_variances` reads all of them off the module.
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
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1))
        >>> for layer in (net[0], net[2]):
        ...     _ = torch.nn.init.kaiming_normal_(layer.weight), torch.nn.init.zeros_(layer.bias)
        >>> limit_kernel(net, "nngp", initial={"0": 2 / 2, "2": 2 / 64})(x).diagonal()  # |x|^2, times 2 * 1/2 for ReLU
        tensor([1., 1.], dtype=torch.float64)
    """
    return LimitKernel(module, kind, seed, particles, initial)


class LimitKernel:
    """A limit kernel; see :func:`limit_kernel`, which makes it."""

    def __init__(
        self, module: nn.Module, kind: str, seed: int = 0, particles: int | None = None, initial: Initial | None = None
    ) -> None:
        if kind not in KINDS:
            raise unknown_name("kind", kind, KINDS)
        if particles is not None and particles < 2 * REPLICATES:
            raise ArgumentError("particles", f"is {particles}", f"pass at least {2 * REPLICATES}, or None for a default")
        check_module(module)
        self.kind = kind
        self._seed, self._particles = seed, particles
        self.module = module
        self._initial = resolve(module, initial)
        everything = [layer for _, layer in layers_of(module)]
        layers: list[nn.Module] = [layer for layer in everything if isinstance(layer, WEIGHTED)]
        if kind == "last-hidden" and len(layers) < 2:
            raise ArgumentError("module", "has no hidden layer of weights", "ask for kind='ntk', or pass a deeper network")
        chosen: dict[str, list[nn.Module]] = {"ntk": everything, "nngp": [], "last-hidden": layers[-2:-1]}
        self._parts = dict.fromkeys(chosen[kind], 0)
        self._curves: dict[tuple[object, ...], Curve | None] = {}

    def __call__(self, x1: Tensor, x2: Tensor | None = None, out: Tensor | np.ndarray | None = None) -> Float[Tensor, "n1 n2"]:
        r"""The kernel between two sets of inputs.

        Args:
            x1: n1×d rows, n1×c×h×w images or n1×c×w sequences, in whose dtype the kernel is returned. Rows that go through a curve
                (module docstring) are computed in it, and so are images of a stack of ReLU convolutions: in float32 to 1e-6
                relative, with global average pooling to 1e-4 where images are nearly of one colour. Everything else is computed in
                float64. A homogeneous network's kernel of rows has derivatives in them.
            x2: n2 of the same, or None for $K(x_1,x_1)$, whose diagonal is exact.
            out: an n1×n2 tensor, array or memory map to write into, float32 or float64.

        Returns:
            n1×n2 kernel (``out`` where it was given). Beside it and the inputs, a hundred megabytes or so of memory are used.

        Raises:
            ArgumentError: for inputs of the wrong shape, NaN or infinity, or an ``out`` of the wrong shape.
        """
        first, second = check_pair(x1, x2, self.module)
        shape = (len(first), len(first if second is None else second))
        into = None if out is None else check_out(out, shape, first)
        if into is not None:
            # near pairs are formed again from the rows themselves, which must not have been written over by then
            first = first.clone() if shares_memory(first, into) else first
            second = second.clone() if second is not None and shares_memory(second, into) else second
        graph = torch.is_grad_enabled() and (first.requires_grad or (second is not None and second.requires_grad))
        # derivatives are the curve's, for few pairs too
        rows = self._rows(first.detach(), None if second is None else second.detach(), few=0 if graph else FEW)
        if graph:
            if into is not None:
                raise ArgumentError("out", "is given for inputs that require gradients", "leave it out")
            if rows is None or not self._homogeneous:
                why = "no derivatives are implemented for this module's limit, which is not homogeneous and of rows"
                raise ArgumentError("x1", f"requires gradients, and {why}", "pass x1.detach()")
            return differentiable(rows, first, second)
        if into is None:
            into = first.new_empty(shape, dtype=x1.dtype if x1.dtype.is_floating_point else torch.float64)
        if rows is not None:
            rows.fill(into)
            return into
        for place, columns, tile in self._tiles(*_doubles(first, second), first.dtype):
            refuse_overflow(tile, into.dtype)
            if second is None:
                into[columns, place] = tile.T.to(into.dtype)
            into[place, columns] = tile.to(into.dtype)
        return into

    def entry_error(self, x1: Tensor, x2: Tensor | None = None) -> float:
        r"""A bound on the error of every entry of ``K(x1, x2)``, the forming of the products included.

        For kernels that go through a curve (rows of one norm, or a homogeneous module) it is twice the curve's measured error, the
        products' for any order of summation, and the last roundings. Otherwise it is an estimate with a margin, and no proof: 2e-12 of
        the largest diagonal entry in float64, 2e-4 in float32 (where pooled images of nearly one colour lose most). Where the
        kernel is sampled, see :meth:`standard_error`.

        Args:
            x1: as for the kernel.
            x2: likewise.

        Returns:
            The bound, in the kernel's units: $\lambda_{\min}$ is then known to n times that
            (:func:`zeroloss.extremes` takes it).

        Example:
            >>> from zeroloss.networks import fully_connected
            >>> x = torch.eye(100, dtype=torch.float64)
            >>> K = limit_kernel(fully_connected(100, 8, 3))
            >>> 0 < K.entry_error(x) < 1e-11 * float(K(x)[0, 0])
            True
        """
        first, second = check_pair(x1, x2, self.module)
        rows = self._rows(first.detach(), None if second is None else second.detach(), few=0)
        if rows is not None:
            return rows.error
        if needs_particles(self.module):
            raise ArgumentError("module", "has a limit that is sampled, whose error is statistical", "ask for standard_error(x)")
        largest = 0.0
        for one in _doubles(first, second):
            if one is not None and len(one):
                longest = int(one.flatten(1).norm(dim=1).argmax())
                largest = max(largest, float(self(one[[longest]])))
        return (ESTIMATE if first.dtype == torch.float64 else ESTIMATE32) * largest

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
        first, second = _doubles(*check_pair(x1, x2, self.module))
        if not needs_particles(self.module):
            return first.new_zeros(len(first), len(first if second is None else second))
        states = replicates(self.module, first, second, self._parts, self._seed, self._particles, self._initial)
        values = torch.stack([self._read(state) for state in states])
        error: Tensor = values.std(dim=0) / math.sqrt(REPLICATES)
        return error

    def _tiles(
        self, first: Tensor, second: Tensor | None, dtype: torch.dtype = torch.float64
    ) -> Iterator[tuple[slice, slice, Tensor]]:
        return tile_stream(self.module, first, second, self._parts, self._read, self._seed, self._particles, self._initial, dtype)

    def _read(self, state: State) -> Tensor:
        return state.pairs.products if self.kind == "nngp" else state.tangent[0]

    def operator(self, x: Tensor) -> LinearOperator:
        """K(x, x) as a scipy LinearOperator that forms K tile by tile and stores none of it; a sampled K is formed once and kept.

        Args:
            x: n×d rows, or n×c×h×w images.

        Returns:
            An n×n symmetric operator; give it blocks of right-hand sides, since forming K is what costs. Its products' last digits
            depend on the number of threads.

        Example:
            >>> from zeroloss.networks import fully_connected
            >>> x = torch.eye(3, dtype=torch.float64)
            >>> K = limit_kernel(fully_connected(3, 8, 1))
            >>> bool(np.allclose(K.operator(x) @ np.ones(3), K(x).sum(1)))
            True
        """
        inputs = check_inputs("x", x, self.module).detach()
        if len(inputs) == 0:
            raise ArgumentError("x", "has no rows", "pass at least one")
        n, dtype = len(inputs), np.float32 if inputs.dtype == torch.float32 else np.float64
        if needs_particles(self.module):  # particles belong to all rows at once, so every product must see one matrix
            return aslinearoperator(self(inputs).cpu().numpy())
        rows = self._rows(inputs, None)

        def product(vectors: np.ndarray) -> np.ndarray:
            if np.iscomplexobj(vectors):
                raise ArgumentError("vectors", "are complex", "multiply real and imaginary parts on their own")
            right = torch.from_numpy(np.ascontiguousarray(vectors, dtype=dtype)).to(inputs.device).reshape(n, -1)
            if rows is not None:
                total = rows.times(right)
            else:
                total = torch.zeros_like(right)
                for place, columns, tile in self._tiles(inputs.to(torch.float64), None, inputs.dtype):
                    total[place] += tile.to(right.dtype) @ right[columns]
                    if place != columns:
                        total[columns] += tile.T.to(right.dtype) @ right[place]
            result: np.ndarray = total.cpu().numpy().reshape(vectors.shape)
            return result

        return LinearOperator((n, n), matvec=product, matmat=product, rmatvec=product, rmatmat=product, dtype=dtype)  # type: ignore[no-any-return, unused-ignore]

    def write(
        self, path: str | Path, x1: Tensor, x2: Tensor | None = None, progress: Callable[[int, int], None] | None = None
    ) -> np.ndarray:
        """Write the kernel to a ``.npy`` file block by block, for kernels larger than memory; the same call resumes.

        Args:
            path: the file; ``<file>.json`` beside it says how much of it is done.
            x1: as for the kernel; the file has this dtype (float64 for integers).
            x2: likewise.
            progress: called with the rows done and n1 after every block.

        Returns:
            The file's array, memory-mapped and read-only.

        Raises:
            ArgumentError: as the kernel, for a path that is not ``.npy``, and for a kernel that is sampled.
            FileError: where the file holds something else, which is left alone.

        Example:
            >>> import tempfile
            >>> from zeroloss.networks import fully_connected
            >>> place = Path(tempfile.mkdtemp()) / "K.npy"
            >>> limit_kernel(fully_connected(2, 64, 3)).write(place, torch.eye(2, dtype=torch.float64)).diagonal()
            memmap([96., 96.])
        """
        if needs_particles(self.module):  # particles belong to all rows at once
            raise ArgumentError("module", "has a limit that is sampled over all rows at once", "call the kernel itself")
        first, second = (None if x is None else x.detach() for x in check_pair(x1, x2, self.module))
        assert first is not None
        identity = repr((self.kind, describe(self.module, self._initial, by_values=True)))

        def block(some: Tensor, others: Tensor | None) -> Tensor:
            # through the one curve, however few: a resumed file must not differ in its last digits
            rows = self._rows(some, others, few=0)
            if rows is None:
                return self(some, others)
            rows.fill(out := some.new_empty(rows.shape))
            return out

        return write_blocks(block, identity, Path(path), first, second, progress)

    def _rows(self, first: Tensor, second: Tensor | None, few: int = FEW) -> RowKernel | None:
        """The kernel through a curve, where there is one and there are pairs enough to be worth making it."""
        pairs = len(first) * len(first if second is None else second)
        if first.ndim != 2 or row_width(self.module) != first.shape[1] or needs_particles(self.module) or pairs <= few:
            return None
        surveyed = survey_sets(first, second)
        norm = 1.0 if self._homogeneous else surveyed.one_norm
        if norm is None:
            return None
        variance = 1.0 if self._homogeneous else norm * (norm / first.shape[1])
        if variance > LARGEST:
            raise ArgumentError("x1", f"has rows of norm {norm:.3g}", "divide them by a number")
        flags = (*(p.requires_grad for p in self.module.parameters()), *(layer.training for layer in self.module.modules()))
        key = (variance, surveyed.x1.dtype, flags)
        if key not in self._curves:
            self._curves[key] = self._collapsed(variance, surveyed.x1.dtype)
        curve = self._curves[key]
        return None if curve is None else surveyed.kernel(curve, self._homogeneous)

    def _collapsed(self, variance: float, dtype: torch.dtype) -> Curve | None:
        def fitted() -> Curve | None:
            return collapse(self.module, self._parts, self._read, self._initial, variance, dtype)

        return remembered((self.kind, variance, str(dtype)), self.module, self._initial, fitted)

    @property
    def _homogeneous(self) -> bool:
        return is_homogeneous(self.module, self._initial)


def _doubles(first: Tensor, second: Tensor | None) -> tuple[Tensor, Tensor | None]:
    return first.detach().to(torch.float64), None if second is None else second.detach().to(torch.float64)
