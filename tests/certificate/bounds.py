"""Lambda for the tests: the verifier's own M as floats, and a slow twin of the published formula for fully connected networks."""

from __future__ import annotations

from array import array

import numpy as np
from flint import arb

from tests.certificate.maker import Made, activation, flat
from zeroloss_verifier.ball import Ball
from zeroloss_verifier.balls import precision
from zeroloss_verifier.facts import BallFacts
from zeroloss_verifier.network import read_network
from zeroloss_verifier.passes import Passes, run_passes
from zeroloss_verifier.tensors import Tensor

CONSTANTS = {"relu": (1.0, 0.0), "tanh": (1.0, 4 / (3 * 3**0.5)), "softplus": (1.0, 0.25), "sigmoid": (0.25, 1 / (6 * 3**0.5))}


def passes_of(made: Made) -> tuple[Passes, list[arb]]:
    tensors = {name: Tensor(tuple(t.shape), array("d", t.flatten().tolist())) for name, t in made.tensors.items()}
    roots = [arb(float(count)).sqrt() for count in made.tensors["multiplicity"]]
    return run_passes(read_network(made.stages), tensors), roots


def own_bound(made: Made, R: float) -> float:
    """The norm of the verifier's M."""
    with precision(128):
        passes, roots = passes_of(made)
        facts = BallFacts(passes, roots)
        ball, size = Ball(passes, facts, arb(R)), len(facts.trained)
        M = [[float(ball.coefficients.get((a, b), arb(0))) for b in range(size)] for a in range(size)]
    return float(np.linalg.norm(np.array(M), 2))


def norm(matrix) -> float:
    return float(np.linalg.norm(np.asarray(matrix), 2))


def published_bound(made: Made, R: float) -> float:
    """CERTIFICATE's section on the Lipschitz constant, line by line, in float64, for linear and activation stages alone."""
    import torch

    layers = [s for s in flat(made.stages) if s["kind"] == "linear"]
    names = [s["name"] for s in flat(made.stages) if s["kind"] == "activation"]
    L, x, root = len(layers), made.tensors["x"], made.tensors["multiplicity"].sqrt()
    n, k = len(x), made.tensors["y"].shape[1]
    W = [made.tensors[s["weight"]].numpy() for s in layers]
    weight = [float("weight" in s["trained"]) for s in layers]
    trained = [bool(s["trained"]) for s in layers]

    def met(layer, h):
        parts = [h] if weight[layer] else []
        parts += [np.ones((n, 1))] if "bias" in layers[layer]["trained"] else []
        return np.hstack(parts) if parts else np.zeros((n, 1))

    h, H, slope = x.numpy(), [], []
    for i in range(L):
        H.append(h)
        z = torch.tensor(h @ W[i].T) + made.tensors.get(layers[i]["bias"], torch.zeros(1))
        if i < L - 1:
            z.requires_grad_()
            v = activation({"kind": "activation", "name": names[i]})(z)
            slope.append(torch.autograd.grad(v.sum(), z)[0].numpy())
            h = v.detach().numpy()
    T, S = [None] * L, [None] * L
    T[L - 1] = np.tile(np.eye(k), (n, 1, 1))
    for i in range(L - 2, -1, -1):
        S[i] = T[i + 1] @ W[i + 1]
        T[i] = S[i] * slope[i][:, None, :]
    c = [CONSTANTS[name] for name in names]
    own = [R if t else 0.0 for t in trained]
    reach = [R * w for w in weight]
    omega = [norm(W[i]) + reach[i] for i in range(L)]
    dH, dh = [0.0], [np.zeros(n)]  # of what enters layer i
    dz = []
    for i in range(L):
        before = met(i, H[i])
        z_batch = norm(W[i]) * dH[i] + own[i] * (norm(root.numpy()[:, None] * before) + weight[i] * dH[i])
        z_rows = norm(W[i]) * dh[i] + own[i] * (np.linalg.norm(before, axis=1) + weight[i] * dh[i])
        dz.append(z_rows)
        if i < L - 1:
            dH.append(c[i][0] * z_batch)
            dh.append(c[i][0] * z_rows)
    eta = [norm(root.numpy()[:, None] * met(i, H[i])) + weight[i] * dH[i] for i in range(L)]
    eta_row = [float((np.linalg.norm(met(i, H[i]), axis=1) + weight[i] * dh[i]).max()) for i in range(L)]
    t0 = [max(norm(t) for t in T[i]) for i in range(L)]
    D, B, dT = [0.0] * L, [0.0] * L, [0.0] * L
    D[L - 1] = 1.0
    for i in range(L - 2, -1, -1):
        dS = dT[i + 1] * omega[i + 1] + t0[i + 1] * reach[i + 1]
        columns = max(float(np.linalg.norm(s, axis=0).max()) for s in S[i])
        B[i] = columns + dS
        dT[i] = c[i][0] * dS + c[i][1] * columns * float(dz[i].max())
        D[i] = min(t0[i] + dT[i], c[i][0] * omega[i + 1] * D[i + 1])

    def gain(i, j, start):  # from layer j to the pre-activation i
        return start[j] * float(np.prod([c[m - 1][0] * omega[m] for m in range(j + 1, i + 1)]))

    first = next(i for i in range(L) if trained[i])
    before = root.numpy()[:, None] ** 0.5 * met(first, H[first])
    square = norm((before @ before.T) ** 2) ** 0.5
    M = np.zeros((L, L))
    for i in range(L):
        for j in range(i):
            if weight[i] and trained[j]:
                M[j, i] += D[i] * c[i - 1][0] * gain(i - 1, j, eta)
                M[i, j] = M[j, i]
    for i in range(L - 1):
        for a in range(i + 1):
            for b in range(i + 1):
                if trained[a] and trained[b]:
                    pair = min(gain(i, a, eta_row) * gain(i, b, eta), gain(i, a, eta) * gain(i, b, eta_row))
                    if a == b == first:
                        pair = min(pair, square * gain(i, a, [1.0] * L) ** 2)
                    M[a, b] += c[i][1] * B[i] * pair
    return norm(M)
