"""Small networks of every kind that a certificate can be about: stages, shapes of parameters, inputs."""

from __future__ import annotations

from functools import cache

import torch

from tests.certificate.bounds import own_bound
from tests.certificate.maker import Made, act, conv, linear, make

HALF = (0.5).hex()


def rows(n: int = 6, d: int = 5) -> torch.Tensor:
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return x / x.norm(dim=1, keepdim=True)


def images(n: int = 4, c: int = 2, h: int = 5, w: int = 6) -> torch.Tensor:
    return torch.randn(n, c, h, w, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


NETWORKS = {
    "relu": ([linear("A"), act("relu"), linear("B")], {"A.weight": (40, 5), "B.weight": (1, 40)}, rows()),
    "allen_zhu": (
        [linear("A", ()), act("relu"), linear("W"), act("leaky_relu", slope=0.25), linear("B", ())],
        {"A.weight": (20, 5), "W.weight": (20, 20), "B.weight": (2, 20)},
        rows(),
    ),
    "biases": (
        [
            linear("A", ("weight", "bias"), bias=True),
            act("tanh"),
            linear("C", ("bias",), bias=True),
            act("softplus"),
            linear("B", (), bias=True),
        ],
        {"A.weight": (30, 5), "A.bias": (30,), "C.weight": (30, 30), "C.bias": (30,), "B.weight": (2, 30), "B.bias": (2,)},
        rows(),
    ),
    "last": ([linear("A", ()), act("erf"), linear("B")], {"A.weight": (20, 5), "B.weight": (2, 20)}, rows()),
    "residual": (
        [
            linear("A"),
            act("silu"),
            {"kind": "residual", "stages": [linear("C"), act("gelu"), {"kind": "scale", "factor": HALF}]},
            {"kind": "residual", "stages": [linear("D")]},
            act("sigmoid"),
            linear("B"),
        ],
        {"A.weight": (20, 5), "C.weight": (20, 20), "D.weight": (20, 20), "B.weight": (2, 20)},
        rows(),
    ),
    "kinked_residual": (
        [
            linear("A", ()),
            act("relu"),
            {"kind": "residual", "stages": [linear("C")]},
            act("hard_tanh", low=-0.25, high=2.0),
            linear("B"),
        ],
        {"A.weight": (20, 5), "C.weight": (20, 20), "B.weight": (1, 20)},
        rows(),
    ),
    "convolution": (
        [
            conv("A", ("weight", "bias"), bias=True),
            act("relu"),
            conv("C", stride=(2, 1), mode="circular"),
            act("abs"),
            {"kind": "average_pool", "to": [2, 3]},
            {"kind": "flatten"},
            linear("B"),
        ],
        {"A.weight": (6, 2, 3, 3), "A.bias": (6,), "C.weight": (5, 6, 3, 3), "B.weight": (2, 30)},
        images(),
    ),
    "strided": (
        [
            conv("A", stride=(2, 3), padding=(0, 1), dilation=(2, 1)),
            act("softplus", beta=2.0),
            {"kind": "residual", "stages": [conv("C", padding=(1, 1)), act("tanh")]},
            {"kind": "flatten"},
            linear("B"),
        ],
        {"A.weight": (9, 2, 2, 2), "C.weight": (9, 9, 3, 3), "B.weight": (2, 9 * 2 * 3)},
        images(),
    ),
}


@cache
def small(name: str, repeats: bool = True) -> Made:
    stages, shapes, x = NETWORKS[name]
    return make(stages, shapes, x, lipschitz=own_bound, repeats=[1, 2, 1, 4, 3, 1][: len(x)] if repeats else None)
