"""What the verifier says of a whole ball holds at the worst point of it that an optimiser finds, and is not far above it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from flint import arb
from torch import Tensor

from tests.certificate.bounds import own_bound, passes_of
from tests.certificate.maker import Made, act, linear, make, run
from tests.certificate.networks import rows
from zeroloss_verifier.ball import Ball
from zeroloss_verifier.balls import precision
from zeroloss_verifier.facts import BallFacts
from zeroloss_verifier.jacobian import affine_nodes

RADIUS = 0.5


def network(share: float) -> Made:
    block = [linear("C"), act("tanh"), {"kind": "scale", "factor": share.hex()}]
    stages = [linear("A"), act("silu"), {"kind": "residual", "stages": block}, linear("D"), act("softplus"), linear("B")]
    shapes = {"A.weight": (8, 5), "C.weight": (8, 8), "D.weight": (7, 8), "B.weight": (2, 7)}
    return make(stages, shapes, rows(), lipschitz=own_bound, gap=1e-12, repeats=[1, 2, 1, 4, 3, 1])


def worst(made: Made, measure: Callable[[dict[str, Tensor]], Tensor]) -> float:
    """The largest value found by normalised ascent from some starts, kept to the ball."""
    found = 0.0
    for seed in range(3):
        g = torch.Generator().manual_seed(seed)
        moved = {name: torch.randn(made.tensors[name].shape, generator=g, dtype=torch.float64) for name in made.trained}
        for step in range(40):
            size = torch.cat([m.flatten() for m in moved.values()]).norm()
            moved = {name: (m * RADIUS / size).detach().requires_grad_() for name, m in moved.items()}
            value = measure({**made.tensors, **{name: made.tensors[name] + m for name, m in moved.items()}})
            found = max(found, float(value.detach()))
            slopes = torch.autograd.grad(value, list(moved.values()), allow_unused=True)
            length = torch.cat([s.flatten() for s in slopes if s is not None]).norm()
            rate = RADIUS * 2 / (1 + step / 8) / length
            moved = {
                name: m.detach() + (0 if s is None else rate * s) for (name, m), s in zip(moved.items(), slopes, strict=True)
            }
    return found


def inputs(made: Made, parameters: dict[str, Tensor], name: str) -> Tensor:
    met: dict[str, Tensor] = {}
    run(made.stages, parameters, made.tensors["x"], met)
    return met[name]


def adjoint(made: Made, parameters: dict[str, Tensor], name: str, sample: int) -> Tensor:
    """The k×m derivative of one sample's outputs in what a layer meets or gives."""
    met: dict[str, Tensor] = {}
    out = run(made.stages, parameters, made.tensors["x"], met)
    rows_ = [torch.autograd.grad(f, met[name], retain_graph=True, create_graph=True)[0][sample] for f in out[sample]]
    return torch.stack(rows_)


@pytest.mark.parametrize("share", [0.01, 1.0])
def test_drifts_and_suprema_hold_on_the_ball(share):
    made = network(share)
    roots = made.tensors["multiplicity"].sqrt()[:, None]
    with precision(128):
        passes, weights = passes_of(made)
        facts = BallFacts(passes, weights)
        ball = Ball(passes, facts, arb(RADIUS))
        nodes = {node.stage.weight: node for node in affine_nodes(passes.nodes)}
        for name in ("C.weight", "D.weight", "B.weight"):
            drift, layer = ball.before[id(nodes[name])], ball.layers[ball.place[id(nodes[name])]]
            start = inputs(made, made.tensors, name)
            pairs = {
                "batch": (worst(made, lambda p, n=name, s=start: ((inputs(made, p, n) - s) * roots).norm()), float(drift.batch)),
                "sample": (worst(made, lambda p, n=name, s=start: (inputs(made, p, n) - s)[3].norm()), float(drift.sample[3])),
                "entry": (worst(made, lambda p, n=name, s=start: (inputs(made, p, n) - s)[3, 2].abs()), float(drift.entry[3][2])),
                "eta": (
                    worst(made, lambda p, n=name: torch.linalg.matrix_norm(inputs(made, p, n) * roots, 2)),
                    float(layer.batch),
                ),
                "eta row": (
                    max(worst(made, lambda p, n=name, i=i: inputs(made, p, n)[i].norm()) for i in range(2)),
                    float(layer.sample),
                ),
            }
            for what, (seen, bound) in pairs.items():
                assert seen <= bound * (1 + 1e-9), (name, what)
                assert seen >= bound / 25, (name, what)
        # at the block's input both ways through it add up
        places = {"C.weight": passes.nodes[1], "C.weight gives": nodes["C.weight"], "D.weight gives": nodes["D.weight"]}
        for name, node in places.items():
            bound = float(ball.suprema[id(node)])
            base = max(float(torch.linalg.matrix_norm(adjoint(made, leaves(made), name, i).detach(), 2)) for i in range(3))
            seen = max(worst(made, lambda p, n=name, i=i: torch.linalg.matrix_norm(adjoint(made, p, n, i), 2)) for i in range(3))
            assert base <= seen
            assert seen <= bound * (1 + 1e-9), name
            assert seen >= bound / 12, name


def leaves(made: Made) -> dict[str, Tensor]:
    return {name: tensor.clone().requires_grad_() if name in made.trained else tensor for name, tensor in made.tensors.items()}
