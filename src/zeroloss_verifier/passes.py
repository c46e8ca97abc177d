"""Forward and backward through the stages at the given weights, in balls: values, residual, and the derivative of every output."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from flint import arb, arb_mat

from zeroloss_verifier.balls import ONE, ZERO, Row, exact, matrix, rows_of
from zeroloss_verifier.functions import Function, function_of
from zeroloss_verifier.geometry import Shape, Windows, conv_windows, linear_windows, pool_windows
from zeroloss_verifier.network import Activation, Affine, Flatten, Pool, Residual, Scale, Stage
from zeroloss_verifier.outcome import RejectedError, UnprovenError
from zeroloss_verifier.tensors import Tensor


@dataclass(eq=False)
class AffineNode:
    r"""A layer with weights: $z=W\,\text{window}(h)+b$ at every position.

    Args:
        stage: what the certificate says of it.
        windows: which inputs every position sees.
        weight: one row a unit or channel, one column an input of a window.
        inputs: n×inputs, what came in.
        constant: whether no trained parameter is before it, so that its input is the same all over the ball.
        adjoint: (nk)×outputs, the derivative of every network output in z; None where nothing needs it.
    """

    stage: Affine
    windows: Windows
    weight: arb_mat
    inputs: arb_mat
    constant: bool
    adjoint: arb_mat | None = None
    facts: dict[str, object] = field(default_factory=dict)

    @property
    def trained(self) -> frozenset[str]:
        """Which of weight and bias are trained."""
        return self.stage.trained

    def seen(self, sample: int) -> list[Row]:
        """What the trained parts meet at every position: the window, and a 1 for the bias."""
        index = self.windows.index
        if "weight" in self.trained:
            row = [self.inputs[sample, j] for j in range(self.windows.inputs)]
            seen = [[row[at] if at >= 0 else ZERO for at in window] for window in index]
        else:
            seen = [[] for _ in index]
        return [[*window, ONE] for window in seen] if "bias" in self.trained else seen


@dataclass(eq=False)
class ActivationNode:
    """An activation: what came in, and the derivative of every network output in what comes out."""

    function: Function
    inputs: list[Row]
    constant: bool
    adjoint: arb_mat | None = None
    facts: dict[str, object] = field(default_factory=dict)


@dataclass(eq=False)
class FixedNode:
    """A linear map without parameters: a factor, or averages over windows."""

    factor: arb
    windows: Windows | None


@dataclass(eq=False)
class ResidualNode:
    """A skip around some nodes."""

    nodes: list[Node]
    constant: bool


Node = AffineNode | ActivationNode | FixedNode | ResidualNode


@dataclass(eq=False)
class Passes:
    """What both passes found.

    Args:
        nodes: the stages, with what they met.
        outputs: n×k.
        samples: n.
        width: k.
        inputs: numbers of one input.
    """

    nodes: list[Node]
    outputs: arb_mat
    samples: int
    width: int
    inputs: int


def layout(stages: tuple[Stage, ...], tensors: dict[str, Tensor], shape: Shape) -> tuple[list[Windows | None], Shape]:
    """The windows of every stage in order (None: entry by entry), and the shape of what comes out.

    Raises:
        RejectedError: where shapes do not fit.
    """
    found: list[Windows | None] = []
    for stage in stages:
        windows = None
        if isinstance(stage, Affine):
            weight = tensors[stage.weight].shape
            make = linear_windows(weight, shape, stage.weight) if stage.kind == "linear" else conv_windows(stage, weight, shape)
            if stage.bias is not None and tensors[stage.bias].shape != weight[:1]:
                raise RejectedError(f"{stage.bias} has the shape {list(tensors[stage.bias].shape)}, not {list(weight[:1])}")
            windows, shape = make, make.shape
        elif isinstance(stage, Pool):
            windows = pool_windows(stage, shape)
            shape = windows.shape
        elif isinstance(stage, Flatten):
            shape = (math.prod(shape),)
        elif isinstance(stage, Residual):
            inside, after = layout(stage.stages, tensors, shape)
            if after != shape:
                raise RejectedError(f"a residual block turns the shape {list(shape)} into {list(after)}")
            found += inside
        found.append(windows)
    return found, shape


def run_passes(stages: tuple[Stage, ...], tensors: dict[str, Tensor]) -> Passes:
    """Both passes.

    Args:
        stages: the network.
        tensors: its parameters, and ``x``.

    Returns:
        The nodes with their inputs and adjoints.

    Raises:
        RejectedError: where shapes do not fit.
        UnprovenError: where a pre-activation that a trained parameter can move may lie on a kink.
    """
    x = tensors["x"]
    samples = x.shape[0]
    maker = _Maker(stages, tensors, x.shape[1:])
    values = exact(x.values, len(x.values) // samples)
    nodes, outputs, _ = maker.forward(stages, values, True)
    width = outputs.ncols()
    unit = [[ONE if o == p else ZERO for p in range(width)] for o in range(width)]
    _backward(nodes, matrix([row for _ in range(samples) for row in unit]), width)
    return Passes(nodes, outputs, samples, width, values.ncols())


class _Maker:
    def __init__(self, stages: tuple[Stage, ...], tensors: dict[str, Tensor], shape: Shape) -> None:
        self.tensors = tensors
        windows, after = layout(stages, tensors, shape)
        if len(after) != 1:
            raise RejectedError(f"the network's outputs have the shape {list(after)}; a row is needed")
        self.windows = iter(windows)

    def forward(self, stages: tuple[Stage, ...], values: arb_mat, constant: bool) -> tuple[list[Node], arb_mat, bool]:
        nodes: list[Node] = []
        for stage in stages:
            if isinstance(stage, Residual):
                inside, after, still = self.forward(stage.stages, values, constant)
                next(self.windows)
                nodes.append(ResidualNode(inside, constant))
                values, constant = values + after, still
                continue
            windows = next(self.windows)
            if isinstance(stage, Affine):
                assert windows is not None
                tensor = self.tensors[stage.weight]
                node = AffineNode(stage, windows, exact(tensor.values, windows.columns), values, constant)
                values = _shifted(apply(windows, values, node.weight), self._bias(stage, windows))
                constant = constant and not stage.trained
                nodes.append(node)
            elif isinstance(stage, Activation):
                function, rows = function_of(stage), rows_of(values)
                nodes.append(ActivationNode(function, rows, constant))
                values = matrix([[function.value(z) for z in row] for row in rows])
            elif isinstance(stage, Scale):
                nodes.append(FixedNode(arb(stage.factor), None))
                values = values * arb(stage.factor)
            elif isinstance(stage, Pool):
                nodes.append(FixedNode(ONE, windows))
                assert windows is not None
                values = _averages(windows, values)
        return nodes, values, constant

    def _bias(self, stage: Affine, windows: Windows) -> Row | None:
        if stage.bias is None:
            return None
        places = len(windows.index)
        return [arb(value) for value in self.tensors[stage.bias].values for _ in range(places)]


def apply(windows: Windows, values: arb_mat, weight: arb_mat) -> arb_mat:
    """The weight times every window of every row; outputs of a row channel by channel."""
    if windows.whole:
        return values * weight.transpose()
    places, channels = len(windows.index), weight.nrows()
    patches = [[row[at] if at >= 0 else ZERO for at in window] for row in rows_of(values) for window in windows.index]
    product = rows_of(matrix(patches) * weight.transpose())
    return matrix(
        [
            [product[i * places + place][channel] for channel in range(channels) for place in range(places)]
            for i in range(values.nrows())
        ]
    )


def apply_transposed(windows: Windows, rows: arb_mat, weight: arb_mat) -> arb_mat:
    """The adjoint of :func:`apply`: from derivatives in the outputs to derivatives in the inputs."""
    if windows.whole:
        return rows * weight
    places, channels = len(windows.index), weight.nrows()
    by_place = [
        [row[channel * places + place] for channel in range(channels)] for row in rows_of(rows) for place in range(places)
    ]
    product = rows_of(matrix(by_place) * weight)
    made = []
    for i in range(rows.nrows()):
        total = [ZERO] * windows.inputs
        for place, window in enumerate(windows.index):
            for at, entry in zip(window, product[i * places + place], strict=True):
                if at >= 0:
                    total[at] = total[at] + entry
        made.append(total)
    return matrix(made)


def _shifted(values: arb_mat, bias: Row | None) -> arb_mat:
    return values if bias is None else values + matrix([bias] * values.nrows())


def _averages(windows: Windows, values: arb_mat) -> arb_mat:
    return matrix([[sum((row[at] for at in window), ZERO) / len(window) for window in windows.index] for row in rows_of(values)])


def _backward(nodes: list[Node], adjoint: arb_mat, width: int) -> arb_mat | None:
    """From the derivative at the output of the last node to that at the input of the first, or None where no one needs it."""
    for node in reversed(nodes):
        if isinstance(node, AffineNode):
            node.adjoint = adjoint
            if node.constant:
                return None
            adjoint = apply_transposed(node.windows, adjoint, node.weight)
        elif isinstance(node, ActivationNode):
            if node.constant:
                return None
            node.adjoint = adjoint
            slopes = [[node.function.slope(z) for z in row] for row in node.inputs]
            if not all(slope.is_finite() for row in slopes for slope in row):
                raise UnprovenError("a pre-activation may lie on a kink, or is too large: its slope could not be decided")
            rows = rows_of(adjoint)
            adjoint = matrix([[s * d for s, d in zip(row, slopes[i // width], strict=True)] for i, row in enumerate(rows)])
        elif isinstance(node, FixedNode):
            adjoint = adjoint * node.factor if node.windows is None else _spread(node.windows, adjoint)
        else:
            inside = _backward(node.nodes, adjoint, width)
            if node.constant:
                return None
            assert inside is not None  # what can move before a block can move in it
            adjoint = adjoint + inside
    return adjoint


def _spread(windows: Windows, rows: arb_mat) -> arb_mat:
    made = []
    for row in rows_of(rows):
        total = [ZERO] * windows.inputs
        for entry, window in zip(row, windows.index, strict=True):
            for at in window:
                total[at] = total[at] + entry / len(window)
        made.append(total)
    return matrix(made)
