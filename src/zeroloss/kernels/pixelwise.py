r"""Compiled sums over equal pixels of two images, for ReLU convolutions before Flatten.

Only pairs of pixels at one place count, so half distances $H=\tfrac12\mathbb{E}(h_i-h_j)^2$ go through the layers as they are:
half distances of patch sums are patch sums of half distances. With $g=\tfrac12(s_x-s_y)^2$ the versine is $w=(\mathcal{P}H-g)/(s_xs_y)$,
ReLU makes $w'=w-(\sin\theta-\theta\cos\theta)/\pi$ of it, and $H'=\tfrac12(g+s_xs_yw')$: near duplicates keep their digits, in
float32 too. Lanes are images of the second set.
"""

from __future__ import annotations

import math

import numpy as np

from zeroloss.kernels.arccosine import excess, turn
from zeroloss.kernels.compiling import compiled
from zeroloss.kernels.planes import ONE, ZERO, U, clear, enter, ring_rows

HALF, TWO = np.float32(0.5), np.float32(2)


@compiled
def spread(out, values, image, start, count, lanes):  # type: ignore[no-untyped-def]
    """A row of one image, every number once for each lane."""
    for j in range(count):
        value = values[image, start + j]
        for lane in range(lanes):
            out[j * lanes + lane] = value


@compiled
def distances(out, at, x, y, start, n):  # type: ignore[no-untyped-def]
    """Half the squared differences, added up."""
    for i in range(n):
        difference = x[i] - y[start + i]
        out[at + i] += HALF * difference * difference


@compiled
def versines(s, top, middle, bottom, half, x, y, there, out, at, gap, gain, carry, add_s, add_1, tiny, n):  # type: ignore[no-untyped-def]
    """A row through ReLU: half distances and tangent kernel."""
    for i in range(n):
        h = s[top + i] + s[middle + i] + s[bottom + i]
        t = (s[top + half + i] + s[middle + half + i] + s[bottom + half + i]) * carry
        left, right = x[i], y[there + i]
        scale, apart = left * right, left - right
        apart = HALF * apart * apart
        w = (h - apart) / (scale if scale > tiny else tiny)
        w = w if w > ZERO else ZERO
        w = w if w < TWO else TWO
        rho = ONE - w
        square = w if w < ONE else TWO - w
        a = ONE - square
        root = math.sqrt(square)
        angle = root * turn(a)
        out[at + i] = (apart + scale * ((w if w < ONE else ONE) - root * square * excess(a))) * gain
        out[at + gap + i] = (t + (scale * rho * add_s + add_1)) * (ONE - angle if w < ONE else angle)


@compiled
def aligned_sums(x, x_roots, y, y_roots, upto, table, kernels, size, circular, lanes_, tiny, sums):  # type: ignore[no-untyped-def]
    r"""Sums over the pixels of the last layer's half distances and tangent kernel, for every image of x with all lanes of y.

    Args:
        x: the first set's pixels, n1×(channels·h·w), scaled so that inner products are the moments in their unit.
        x_roots: $s_x$ at every layer, n1×(layers·h·w).
        y: pixels of as many images as there are lanes, (channels·h·w·lanes), images side by side.
        y_roots: theirs.
        upto: how many images of x.
        table: as for :func:`zeroloss.kernels.planes.pooled_sums`.
        kernels: height and width of every layer's patches, odd, layers×2.
        size: h and w.
        circular: whether the image's other side lies beside it; zeros otherwise.
        lanes_: how many images of y.
        tiny: what stands for a product of roots below it, so that 0/0 is 0.
        sums: where the results go, 2×n1×lanes, float64.
    """
    height, width = size
    layers, channels, plane = len(table), x.shape[1] // (height * width), height * width
    lanes, n = U(lanes_), U(width * lanes_)
    pad = U(kernels[:, 1].max() // 2 * lanes_)
    stride, high = width * lanes_ + 2 * int(pad), kernels[:, 0].max()
    row, half, gap = U(2 * stride), U(stride), U(height * stride)
    extra, saved = U(high) * row, U(high + 2) * row
    s = np.zeros((high + 2 + high // 2) * 2 * stride, x.dtype)
    values = np.zeros(2 * height * stride, x.dtype)  # zeros stay beside the image unless it is circular
    wide = np.zeros(width * lanes_, x.dtype)
    for image in range(upto):
        clear(values, U(0), U(len(values)))
        for c in range(channels):
            for i in range(height):
                start = c * plane + i * width
                spread(wide, x, image, start, width, lanes_)
                distances(values, U(i * stride) + pad, wide, y, U(start) * lanes, n)
        for layer in range(layers):
            gain, carry, add_s, add_1 = table[layer, 1], table[layer, 2], table[layer, 3], table[layer, 4]
            tall, taps = kernels[layer, 0], U(kernels[layer, 1])
            reach, last = tall // 2, U(tall - 1) * row
            older, old, slot = last, last, last
            for r in range(-reach, height + reach):
                older, old, slot = old, slot, slot + row if slot < last else U(0)
                enter(s, slot, row, saved, values, r, height, reach, stride, gap, pad, n, lanes, taps, circular)
                i = r - reach
                if i < 0:
                    continue
                top, middle, bottom = ring_rows(s, older, old, slot, tall, extra, row, n)
                start = (layer * height + i) * width
                spread(wide, x_roots, image, start, width, lanes_)
                versines(s, top, middle, bottom, half, wide, y_roots, U(start) * lanes, values,
                         U(i * stride) + pad, gap, gain, carry, add_s, add_1, tiny, n)  # fmt: skip
        for i in range(height):
            for j in range(width):
                at = i * stride + int(pad) + j * lanes_
                for lane in range(lanes_):
                    sums[0, image, lane] += values[at + lane]
                    sums[1, image, lane] += values[int(gap) + at + lane]
