"""The per-layer Gram beside torch's own recipe, which forms the n×P Jacobian, at two numbers of rows."""

from __future__ import annotations

import torch

from bench.timing import by_turns
from zeroloss import fully_connected, gram


def main() -> None:
    print("\nGram, 784-512x3-1, float32: torch.func's Jacobian recipe over ours")
    net = fully_connected(784, 512, 3, scheme="du", activation="erf", dtype=torch.float32)
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    for n in (50, 100):
        x = torch.randn(n, 784, generator=torch.Generator().manual_seed(0))

        def recipe(x=x) -> torch.Tensor:
            def one(values, row):
                return torch.func.functional_call(net, values, (row[None],))[0, 0]

            rows = torch.func.vmap(torch.func.grad(one), (None, 0))(parameters, x)
            return sum(g.flatten(1) @ g.flatten(1).T for g in rows.values())

        gap = float((recipe() - gram(net, x)).norm() / gram(net, x).norm())
        a, b = by_turns(recipe, lambda x=x: gram(net, x), rounds=3)
        print(f"  n={n}: recipe {1e3 * a:.0f} ms, ours {1e3 * b:.1f} ms, ratio {a / b:.0f}, relative difference {gap:.1e}")
