"""Weights that gradient descent moves: in place where a float holds every late step, as start plus movement where it does not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from zeroloss.gram import own_copy, rows_of

_Part = tuple[Tensor, Tensor | None]  # of a gradient: the two factors of a product, or itself and None


@dataclass(frozen=True, eq=False)
class _Call:
    """One use of a linear layer: its layer, its inputs h, and where its outputs' derivatives can be read."""

    layer: nn.Linear
    inputs: Tensor
    edge: GradientEdge


@dataclass(frozen=True, eq=False)
class Pass:
    """A forward pass: its outputs n×k, in the graph where gradients are enabled, and the calls of linear layers in it."""

    outputs: Tensor
    calls: list[_Call]


class _Moving:
    r"""One trained parameter, its sum of steps, and its velocity where there is momentum.

    Near the end of a run a step is smaller than half a unit in the last place of a float32 weight, and adding it to the weight
    would lose it, every time: descent then stalls far from where the linear theory puts it. So below float64 the steps are summed
    apart, in $\Delta$, whose own last place is fine enough, and $\theta=\theta_0+\Delta$.
    """

    def __init__(self, parameter: nn.Parameter, momentum: float) -> None:
        self.parameter = parameter
        self._storage = parameter.detach()  # the same memory, outside the graph
        narrow = torch.finfo(parameter.dtype).bits < 64
        self._start = self._storage.clone() if narrow else None
        self.total = torch.zeros_like(self._storage) if narrow else self._storage
        self._momentum = momentum
        self.velocity = torch.zeros_like(self._storage) if momentum > 0 else None

    def step(self, parts: Iterable[_Part], eta: float) -> None:
        """Move by one step along the sum of the parts."""
        target = self.total
        if self.velocity is not None:
            target = self.velocity.mul_(self._momentum)
        for left, right in parts:
            if right is None:
                target.add_(left, alpha=-eta)
            else:
                target.addmm_(left, right, alpha=-eta)
        if self.velocity is not None:
            self.total.add_(self.velocity)
        self.write()

    def write(self) -> None:
        if self._start is not None:
            torch.add(self._start, self.total, out=self._storage)


class Weights:
    r"""A module's trained parameters under gradient descent with heavy-ball momentum.

    $\theta_{k+1}=\theta_k+v_{k+1}$, $v_{k+1}=\mu v_k-\eta_k\hat g_k$, $v_0=0$.

    A linear layer's gradient is $\delta^\top h$ (AZ Fact 2.6), and is added to the sum of steps by the very product that forms it, so
    that no gradient of the size of the weights is written and read again. Parameters of other layers, and of linear layers whose
    weights are used in ways that their calls do not show, go through automatic differentiation as a whole.

    Args:
        module: its parameters with ``requires_grad`` are moved in place.
        x: the inputs, in the module's dtype; a pass over a few tells which layers' gradients are $\delta^\top h$.
        momentum: $\mu$ in [0, 1).

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> with torch.no_grad():
        ...     _ = layer.weight.fill_(1.0)
        >>> weights = Weights(layer, torch.ones(1, 1))
        >>> for _ in range(1000):
        ...     weights.step(weights.forward(torch.ones(1, 1)), torch.ones(1, 1), 1e-8)  # each below float32's resolution at 1
        >>> round(float(layer.weight.detach()), 6)
        0.99999
    """

    def __init__(self, module: nn.Module, x: Tensor, momentum: float = 0.0) -> None:
        self._module = module
        self._moving = {name: _Moving(p, momentum) for name, p in module.named_parameters() if p.requires_grad}
        self._by_parameter: dict[Tensor, _Moving] = {moving.parameter: moving for moving in self._moving.values()}
        self._layers = {
            layer
            for layer in module.modules()
            if isinstance(layer, nn.Linear) and layer._parameters.get("weight") in self._by_parameter
        }
        few = own_copy(x[:16])  # enough to tell, at a small part of a step's cost
        self._writes = False
        self._layers -= self._irregular(few)
        self._writes = few._version > 0  # into its inputs, which must be the same again at the next step
        products = {layer.weight for layer in self._layers} | {layer.bias for layer in self._layers if layer.bias is not None}
        self._whole = [p for p in self._by_parameter if p not in products]

    @property
    def state(self) -> dict[str, Tensor]:
        """What :meth:`restore` needs: by parameter name the sum of steps (or, in float64, the parameter), and the velocity."""
        state = {f"sum:{name}": moving.total for name, moving in self._moving.items()}
        return state | {f"velocity:{name}": m.velocity for name, m in self._moving.items() if m.velocity is not None}

    def forward(self, x: Tensor) -> Pass:
        """Run the module, and record what :meth:`step` needs.

        Args:
            x: inputs, in the module's dtype and on its device.
        """
        calls: list[_Call] = []
        with self._recording(calls):
            return Pass(rows_of(self._module(own_copy(x) if self._writes else x), len(x)), calls)

    def step(self, done: Pass, derivative: Tensor, eta: float) -> None:
        r"""Move every parameter by one step along $\hat g=J^\top d$.

        Args:
            done: a forward pass at the weights as they are; it is used up.
            derivative: d, the estimate's derivative in its outputs, n×k.
            eta: the step size.
        """
        moves = self._parts(done, derivative)
        for parameter, moving in self._by_parameter.items():
            moving.step(moves[parameter], eta)

    def squared_norm(self, done: Pass, derivative: Tensor) -> float:
        r"""$\|J^\top d\|^2$ over the trained parameters, in float64.

        Of a product $\delta^\top h$ of few rows it is $\sum_{ij}(\delta\delta^\top\circ hh^\top)_{ij}$, without the product. The terms
        cancel where d is an eigenvector of a small eigenvalue, which costs float64 little.

        Args:
            done: a forward pass at the weights as they are; it can be used again.
            derivative: d, n×k.
        """
        return sum(_squared_norm(parts) for parts in self._parts(done, derivative, keep=True).values())

    def _parts(self, done: Pass, derivative: Tensor, keep: bool = False) -> dict[Tensor, list[_Part]]:
        """The gradient J^T d of every trained parameter, as a sum of parts."""
        edges = [*(call.edge for call in done.calls), *(get_gradient_edge(p) for p in self._whole)]
        parts = torch.autograd.grad(done.outputs, edges, derivative, retain_graph=keep, allow_unused=True)
        moves: dict[Tensor, list[_Part]] = {parameter: [] for parameter in self._by_parameter}
        for call, delta in zip(done.calls, parts, strict=False):
            if delta is not None:
                rows = delta.flatten(0, -2)
                moves[call.layer.weight].append((rows.T, call.inputs.flatten(0, -2)))
                if call.layer.bias in moves:
                    moves[call.layer.bias].append((rows.sum(dim=0), None))
        for parameter, gradient in zip(self._whole, parts[len(done.calls) :], strict=True):
            if gradient is not None:
                moves[parameter].append((gradient, None))
        return moves

    def at_rest(self, done: Pass, derivative: Tensor) -> bool:
        """Whether neither a gradient nor a velocity would move anything, so that no later step would differ.

        Args:
            done: a forward pass of all rows; it is used up.
            derivative: the loss's derivative in its outputs.
        """
        gradients = torch.autograd.grad(done.outputs, list(self._by_parameter), derivative, allow_unused=True)
        velocities = [moving.velocity for moving in self._moving.values()]
        return not any(t is not None and bool(t.any()) for t in (*gradients, *velocities))

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take up a :attr:`state` from a checkpoint.

        Args:
            state: as it was.

        Raises:
            ValueError: where it is not a state of these weights.
        """
        own = self.state
        if {key: (t.shape, t.dtype) for key, t in own.items()} != {key: (t.shape, t.dtype) for key, t in state.items()}:
            raise ValueError("tensors of other names, shapes or dtypes")
        for key, tensor in own.items():
            tensor.copy_(state[key])
        for moving in self._moving.values():
            moving.write()

    def _irregular(self, x: Tensor) -> set[nn.Linear]:
        """The linear layers whose gradient is not what their calls say: weights shared in other ways, or used by a function."""
        done = self.forward(x)
        derivative = torch.linspace(1, 2, done.outputs.numel()).reshape(done.outputs.shape).to(done.outputs)
        edges = [call.edge for call in done.calls]
        deltas = torch.autograd.grad(done.outputs, edges, derivative, retain_graph=True, allow_unused=True) if edges else ()
        sums: dict[Tensor, Tensor] = {}
        for call, delta in zip(done.calls, deltas, strict=True):
            if delta is None or delta.ndim < 2:
                continue
            rows = delta.flatten(0, -2)
            parts = [(call.layer.weight, rows.T @ call.inputs.flatten(0, -2)), (call.layer.bias, rows.sum(dim=0))]
            for parameter, part in parts:
                if parameter in self._by_parameter:
                    sums[parameter] = sums[parameter] + part if parameter in sums else part
        own = {layer: [p for p in (layer.weight, layer.bias) if p in self._by_parameter] for layer in self._layers}
        flat = [p for parameters in own.values() for p in parameters]
        exact = (
            dict(zip(flat, torch.autograd.grad(done.outputs, flat, derivative, allow_unused=True), strict=True)) if flat else {}
        )
        return {layer for layer, parameters in own.items() if not all(_same(sums.get(p), exact[p]) for p in parameters)}

    @contextlib.contextmanager
    def _recording(self, calls: list[_Call]) -> Iterator[None]:
        def record(layer: nn.Module, arguments: tuple[Tensor, ...], result: Tensor) -> None:
            assert isinstance(layer, nn.Linear)
            if result.requires_grad:  # an edge, not the tensor, which an activation that works in place may overwrite
                calls.append(_Call(layer, arguments[0].detach(), get_gradient_edge(result)))

        handles = [layer.register_forward_hook(record) for layer in self._layers]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _squared_norm(parts: list[_Part]) -> float:
    """The squared Frobenius norm of a sum of parts."""
    products = [(left, right) for left, right in parts if right is not None]
    if parts and len(products) == len(parts):
        left, right = torch.cat([a for a, _ in products], dim=1), torch.cat([b for _, b in products], dim=0)
        if len(right) < min(len(left), right.shape[1]):
            left, right = left.to(torch.float64), right.to(torch.float64)
            return max(0.0, float(((left.T @ left) * (right @ right.T)).sum()))
    total = sum(left if right is None else left @ right for left, right in parts)
    return float(torch.linalg.vector_norm(total, dtype=torch.float64)) ** 2 if isinstance(total, Tensor) else 0.0


def _same(ours: Tensor | None, true: Tensor | None) -> bool:
    if ours is None or true is None:
        return ours is None and true is None
    if not bool(true.any()):  # a head that starts at zero hides every use: zero equals zero and shows nothing
        return False
    return float((ours - true).norm()) <= 100 * torch.finfo(true.dtype).eps * float(true.norm())
