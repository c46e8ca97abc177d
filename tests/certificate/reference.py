"""A slow twin: outputs and the explicit Jacobian of a chain in 50 digits, by loops over the definition."""

from __future__ import annotations

from typing import Any

import mpmath
import numpy as np
import torch
from mpmath import mp, mpf

from zeroloss.certificate.stages import Activation, Chain, Conv2d, Fork, Join, Linear, Pool, Scale

mp.dps = 50
Array = Any
to_mp = np.frompyfunc(lambda v: mpf(float(v)), 1, 1)


def array(tensor: torch.Tensor) -> Array:
    return to_mp(tensor.numpy().astype(object))


def functions(sigma) -> tuple[Array, Array]:
    p, (low, high) = sigma.parameter, sigma.limits

    def phi(z):
        return mpmath.exp(-z * z / 2) / mpmath.sqrt(2 * mp.pi)

    def normal(z):
        return mpmath.erfc(-z / mpmath.sqrt(2)) / 2

    def logistic(z):
        return 1 / (1 + mpmath.exp(-z))

    table = {
        "relu": (lambda z: max(z, mpf(0)), lambda z: mpf(z > 0)),
        "leaky_relu": (lambda z: z if z > 0 else mpf(p) * z, lambda z: mpf(1) if z > 0 else mpf(p)),
        "abs": (abs, lambda z: mpf(1) if z > 0 else mpf(-1)),
        "hard_tanh": (lambda z: min(max(z, mpf(low)), mpf(high)), lambda z: mpf(low < z < high)),
        "softplus": (lambda z: mpmath.log1p(mpmath.exp(p * z)) / p, lambda z: logistic(p * z)),
        "tanh": (mpmath.tanh, lambda z: mpmath.sech(z) ** 2),
        "sigmoid": (logistic, lambda z: logistic(z) * logistic(-z)),
        "erf": (mpmath.erf, lambda z: 2 / mpmath.sqrt(mp.pi) * mpmath.exp(-z * z)),
        "gelu": (lambda z: z * normal(z), lambda z: normal(z) + z * phi(z)),
        "silu": (lambda z: z * logistic(z), lambda z: logistic(z) + z * logistic(z) * logistic(-z)),
    }
    value, slope = table[sigma.name]
    return np.frompyfunc(value, 1, 1), np.frompyfunc(slope, 1, 1)


def windows(op: Conv2d, kernel: tuple[int, ...], shape: tuple[int, ...]) -> tuple[list[list[int]], tuple[int, int]]:
    """For every position the flat numbers of the inputs in its window, -1 for padding."""
    (_, channels, kh, kw), (_, height, width) = kernel, shape
    found, sizes = [], []
    for side, k, axis in ((height, kh, 0), (width, kw, 1)):
        sizes.append((side + 2 * op.padding[axis] - op.dilation[axis] * (k - 1) - 1) // op.stride[axis] + 1)
    for i in range(sizes[0]):
        for j in range(sizes[1]):
            window = []
            for c in range(channels):
                for a in range(kh):
                    for b in range(kw):
                        row = i * op.stride[0] - op.padding[0] + a * op.dilation[0]
                        column = j * op.stride[1] - op.padding[1] + b * op.dilation[1]
                        if op.padding_mode == "circular":
                            row, column = row % height, column % width
                        inside = 0 <= row < height and 0 <= column < width
                        window.append((c * height + row) * width + column if inside else -1)
            found.append(window)
    return found, (sizes[0], sizes[1])


def offsets(chain: Chain) -> dict[str, int]:
    found, at = {}, 0
    for name in chain.order:
        found[name] = at
        at += chain.tensors[name].numel()
    return found


def evaluate(chain: Chain, x: torch.Tensor, theta: Array | None = None) -> tuple[Array, Array]:
    """f (n×k) and J (nk×P), in 50 digits; at other trained parameters than the chain's where theta is given."""
    at, P = offsets(chain), chain.parameters
    tensors = {name: array(t) for name, t in chain.tensors.items()}
    if theta is not None:
        for name in chain.order:
            tensors[name] = theta[at[name] : at[name] + tensors[name].size].reshape(tensors[name].shape)
    outputs, rows = [], []
    for sample in array(x):
        h, shape = sample.reshape(-1), sample.shape
        d = np.full((h.size, P), mpf(0), dtype=object)
        kept = []
        for op in chain.tape:
            if isinstance(op, Linear | Conv2d):
                h, d, shape = _affine(op, tensors, at, h, d, shape)
            elif isinstance(op, Activation):
                value, slope = functions(op.sigma)
                d = d * slope(h)[:, None]
                h = value(h)
            elif isinstance(op, Scale):
                h, d = h * mpf(op.factor), d * mpf(op.factor)
            elif isinstance(op, Pool):
                h, d, shape = _pool(op, h, d, shape)
            elif isinstance(op, Fork):
                kept.append((h, d))
            elif isinstance(op, Join):
                before = kept.pop()
                h, d = h + before[0], d + before[1]
            else:
                shape = (h.size,)
        outputs.append(h)
        rows.append(d)
    return np.stack(outputs), np.concatenate(rows)


def _affine(op, tensors, at, h, d, shape):
    weight = tensors[op.weight]
    if isinstance(op, Linear):
        index, places, new = [list(range(h.size))], 1, (len(weight),)
    else:
        index, sizes = windows(op, weight.shape, shape)
        places, new = len(index), (len(weight), *sizes)
    flat = weight.reshape(len(weight), -1)
    zero = mpf(0)
    met = np.array([[h[i] if i >= 0 else zero for i in window] for window in index], dtype=object)
    z = flat.dot(met.T)
    dz = np.full((len(weight), places, d.shape[1]), zero, dtype=object)
    for p, window in enumerate(index):
        inside = [s for s, i in enumerate(window) if i >= 0]
        dz[:, p] = flat[:, inside].dot(d[[window[s] for s in inside]])
        for o in range(len(weight)):
            if "weight" in op.trained:
                first = at[op.weight] + o * flat.shape[1]
                dz[o, p, first : first + flat.shape[1]] += met[p]
            if "bias" in op.trained:
                dz[o, p, at[op.bias] + o] += 1
    if op.bias is not None:
        z = z + tensors[op.bias][:, None]
    return z.reshape(-1), dz.reshape(-1, d.shape[1]), new


def _pool(op, h, d, shape):
    c, height, width = shape
    a, b = height // op.to[0], width // op.to[1]
    values = h.reshape(c, op.to[0], a, op.to[1], b).sum((2, 4)) / (a * b)
    slopes = d.reshape(c, op.to[0], a, op.to[1], b, -1).sum((2, 4)) / (a * b)
    return values.reshape(-1), slopes.reshape(-1, d.shape[1]), (c, *op.to)


def norm(values: Array) -> mpf:
    return mpmath.sqrt(mpmath.fsum(v * v for v in np.asarray(values).reshape(-1)))


def singular_values(J: Array) -> list[mpf]:
    """Of a wide matrix, ascending."""
    values = mpmath.eigsy(mpmath.matrix(J.dot(J.T).tolist()), eigvals_only=True)
    return [mpmath.sqrt(max(v, mpf(0))) for v in values]


def newton_root(chain: Chain, x: torch.Tensor, y: torch.Tensor, steps: int = 12) -> tuple[mpf, mpf]:
    """Gauss-Newton in 50 digits from the chain's own weights: how far it went, and the residual it ended with."""
    start = np.concatenate([array(chain.tensors[name]).reshape(-1) for name in chain.order])
    theta, target = start, array(y).reshape(-1)
    left = mpf(1)
    for _ in range(steps):
        f, J = evaluate(chain, x, theta)
        r = f.reshape(-1) - target
        left = norm(r)
        if left < mpf(10) ** -40:
            break
        z = mpmath.lu_solve(mpmath.matrix(J.dot(J.T).tolist()), mpmath.matrix(r.tolist()))
        theta = theta - J.T.dot(np.array([z[i] for i in range(len(r))], dtype=object))
    return norm(theta - start), left
