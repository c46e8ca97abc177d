r"""Compiled sums over all pairs of pixels of two images, for ReLU convolutions before global average pooling.

A convolution of stride 1 keeps the offset $D=r-l$ between the pixel l of one image and the pixel r of the other. So one plane
$\{(l,l+D)\}$ at a time goes through all layers: patch sums as sums over rows, then over a ring of row sums, and the dual of ReLU in
the same pass, in place. Lanes are pairs of images: the 16 (float64: 8) numbers that a register holds belong to as many pairs, and a
row of a plane is one flat loop over positions and lanes. Loops index flat arrays by unsigned offsets: slices and signed indices
cost more than the arithmetic of a short row.
"""

from __future__ import annotations

import math

import numpy as np

from zeroloss.kernels.arccosine import excess, turn
from zeroloss.kernels.compiling import compiled, inlined

U = np.uint64
ZERO, ONE = np.float32(0), np.float32(1)


@compiled
def clear(out, at, n):  # type: ignore[no-untyped-def]
    """Set n numbers to zero."""
    for i in range(n):
        out[at + i] = ZERO


@compiled
def add(out, at, values, start, n):  # type: ignore[no-untyped-def]
    """Add n numbers to others."""
    for i in range(n):
        out[at + i] += values[start + i]


@compiled
def across(out, at, values, start, n, lanes, taps):  # type: ignore[no-untyped-def]
    """Sums over so many neighbours in a row, the first of which is at ``start``."""
    if taps == U(3):
        for i in range(n):
            out[at + i] = values[start + i] + values[start + lanes + i] + values[start + lanes + lanes + i]
    else:
        for i in range(n):
            out[at + i] = values[start + i]
        for tap in range(U(1), taps):
            add(out, at, values, start + tap * lanes, n)


@compiled
def copy(out, at, values, start, n):  # type: ignore[no-untyped-def]
    """Copy n numbers."""
    for i in range(n):
        out[at + i] = values[start + i]


@compiled
def wrap(values, at, pad, n):  # type: ignore[no-untyped-def]
    """Beside a row that starts at ``at`` with its left border repeat its other end."""
    copy(values, at, values, at + n, pad)
    copy(values, at + pad + n, values, at + pad, pad)


@inlined
def enter(s, slot, row, saved, values, r, height, reach, stride, gap, pad, n, lanes, taps, circular):  # type: ignore[no-untyped-def]
    """Row r's sums over neighbours, of moments and tangent kernel, into a slot of the ring; r may lie above or below the image.

    Rows are overwritten as soon as nothing above needs them, so for a circular border the first ones' sums are kept for the last.
    """
    half = row // U(2)
    if circular and r >= height:
        copy(s, slot, s, saved + U(r - height) * row, row)
    elif circular or (r >= 0 and r < height):
        at = U((r if r >= 0 else r + height) * stride)
        if circular:
            wrap(values, at, pad, n)
            wrap(values, at + gap, pad, n)
        at += pad - taps // U(2) * lanes
        across(s, slot, values, at, n, lanes, taps)
        across(s, slot + half, values, at + gap, n, lanes, taps)
        if circular and r >= 0 and r < reach:
            copy(s, saved + U(r) * row, s, slot, row)
    else:
        clear(s, slot, n)
        clear(s, slot + half, n)


@inlined
def ring_rows(s, older, old, slot, high, extra, row, n):  # type: ignore[no-untyped-def]
    """Where the sums of a patch's rows stand: the last three slots, and for other heights than 3 one sum and zeros."""
    if high == 3:
        return older, old, slot
    half, nothing = row // U(2), extra + row
    clear(s, extra, n)
    clear(s, extra + half, n)
    for k in range(high):
        add(s, extra, s, U(k) * row, n)
        add(s, extra + half, s, U(k) * row + half, n)
    return extra, nothing, nothing


@compiled
def pack(out, values, images, first, count, lanes):  # type: ignore[no-untyped-def]
    """Lanes last: the numbers of one image after the other become a number of each image, side by side."""
    for lane in range(lanes):
        image = images[min(first + lane, count - 1)]
        for i in range(values.shape[1]):
            out[i * lanes + lane] = values[image, i]


@compiled
def products(out, at, x, left, y, right, n, channels, plane):  # type: ignore[no-untyped-def]
    """Inner products over the channels."""
    for i in range(n):
        out[at + i] = x[left + i] * y[right + i]
    for c in range(U(1), channels):
        for i in range(n):
            out[at + i] += x[left + c * plane + i] * y[right + c * plane + i]


@inlined
def dual(k, scale, one, tiny):  # type: ignore[no-untyped-def]
    r"""$s_xs_y\,\kappa_1(\rho)$ and $\kappa_0(\rho)$ of $\rho=k/(s_xs_y)$."""
    rho = k / (scale if scale > tiny else tiny)
    a = abs(rho)
    a = a if a < one else ONE
    square = ONE - a
    root = math.sqrt(square)
    angle = root * turn(a)
    return ((rho if rho > ZERO else ZERO) + root * square * excess(a)) * scale, angle if rho < ZERO else ONE - angle


@compiled
def duals(s, top, middle, bottom, half, x, left, y, right, out, at, gap, shift, gain, carry, add_s, add_1, one, tiny, n):  # type: ignore[no-untyped-def]
    r"""A row through ReLU: $\kappa_1$ and $\kappa_0$ of $\rho = (P+\text{shift})/(s_xs_y)$, for moments and tangent kernel."""
    for i in range(n):
        k = s[top + i] + s[middle + i] + s[bottom + i] + shift
        t = (s[top + half + i] + s[middle + half + i] + s[bottom + half + i]) * carry + (k * add_s + add_1)
        moment, slope = dual(k, x[left + i] * y[right + i], one, tiny)
        out[at + i] = moment * gain
        out[at + gap + i] = t * slope


@compiled
def last_duals(s, top, middle, bottom, half, x, left, y, right, out, at, gap, shift, gain, carry, add_s, add_1, one, tiny, n):  # type: ignore[no-untyped-def]
    """The same for the last layer, of which only sums are kept."""
    for i in range(n):
        k = s[top + i] + s[middle + i] + s[bottom + i] + shift
        t = (s[top + half + i] + s[middle + half + i] + s[bottom + half + i]) * carry + (k * add_s + add_1)
        moment, slope = dual(k, x[left + i] * y[right + i], one, tiny)
        out[at + i] += moment * gain
        out[at + gap + i] += t * slope


@compiled
def pooled_sums(x, x_roots, y, y_roots, rows, columns, table, kernels, size, circular, lanes_, one, tiny, sums):  # type: ignore[no-untyped-def]
    r"""Sums over all pairs of pixels of the last layer's moments and tangent kernel, for a list of pairs of images.

    Args:
        x: the first set's pixels, n1×(channels·h·w), scaled so that inner products are the moments in their unit.
        x_roots: $s_x$ at every layer, n1×(layers·h·w).
        y: the second set's pixels.
        y_roots: theirs.
        rows: image of the first set, one a pair.
        columns: image of the second set.
        table: shift, gain, carry, add_s, add_1 of every layer (:func:`duals`), layers×5.
        kernels: height and width of every layer's patches, odd, layers×2.
        size: h and w.
        circular: whether the image's other side lies beside it; zeros otherwise.
        lanes_: how many pairs at a time.
        one: the correlation from which on it counts as 1, since rounding leaves no more of it.
        tiny: what stands for a product of roots below it, so that 0/0 is 0.
        sums: where the results go, 2×pairs, float64.
    """
    height, width = size
    layers, channels = len(table), x.shape[1] // (height * width)
    lanes, plane = U(lanes_), U(height * width * lanes_)
    pad = U(kernels[:, 1].max() // 2 * lanes_)
    stride, high = width * lanes_ + 2 * int(pad), kernels[:, 0].max()
    row, half, gap = U(2 * stride), U(stride), U(height * stride)
    extra, saved = U(high) * row, U(high + 2) * row  # after the ring a row for longer sums, one of zeros, and those to keep
    s = np.zeros((high + 2 + high // 2) * 2 * stride, x.dtype)
    values = np.zeros(2 * height * stride, x.dtype)
    total, end = np.zeros(2 * width * lanes_, x.dtype), U(width * lanes_)
    left, left_roots = np.empty(x.shape[1] * lanes_, x.dtype), np.empty(x_roots.shape[1] * lanes_, x.dtype)
    right, right_roots = np.empty(y.shape[1] * lanes_, x.dtype), np.empty(y_roots.shape[1] * lanes_, x.dtype)
    for first in range(0, len(rows), lanes_):
        whole = np.zeros((2, lanes_), np.float64)
        pack(left, x, rows, first, len(rows), lanes_)
        pack(left_roots, x_roots, rows, first, len(rows), lanes_)
        pack(right, y, columns, first, len(rows), lanes_)
        pack(right_roots, y_roots, columns, first, len(rows), lanes_)
        for down in range(0 if circular else 1 - height, height):
            for over in range(0 if circular else 1 - width, width):
                # l and l+D are both in the image, or, where it is circular, l is anywhere and l+D goes around
                h, w = (height, width) if circular else (height - abs(down), width - abs(over))
                i0, j0 = (0, 0) if circular else (max(0, -down), max(0, -over))
                n, turn_at = U(w * lanes_), U((width - over) * lanes_ if circular else w * lanes_)
                for i in range(h):
                    at = U(i * stride)
                    clear(values, at, pad)
                    clear(values, at + pad + n, pad)
                    clear(values, at + gap, n + pad + pad)
                    here, line = U((i0 + i) * width + j0) * lanes, (i0 + i + down) % height * width
                    there = U(line + j0 + over) * lanes
                    products(values, at + pad, left, here, right, there, turn_at, U(channels), plane)
                    if turn_at < n:
                        rest = n - turn_at
                        products(
                            values, at + pad + turn_at, left, here + turn_at, right, U(line) * lanes, rest, U(channels), plane
                        )
                clear(total, U(0), U(len(total)))
                for layer in range(layers):
                    shift, gain, carry = table[layer, 0], table[layer, 1], table[layer, 2]
                    add_s, add_1 = table[layer, 3], table[layer, 4]
                    tall, taps = kernels[layer, 0], U(kernels[layer, 1])
                    reach, last = tall // 2, U(tall - 1) * row
                    older, old, slot = last, last, last
                    for r in range(-reach, h + reach):  # r is the row whose sums enter the ring, i the one that is then complete
                        older, old, slot = old, slot, slot + row if slot < last else U(0)
                        enter(s, slot, row, saved, values, r, h, reach, stride, gap, pad, n, lanes, taps, circular)
                        i = r - reach
                        if i < 0:
                            continue
                        top, middle, bottom = ring_rows(s, older, old, slot, tall, extra, row, n)
                        here = U((layer * height + i0 + i) * width + j0) * lanes
                        other = i0 + i + down
                        line = (layer * height + (other if other < height else other - height)) * width
                        for part in range(2 if turn_at < n else 1):  # a row that goes around is two
                            there = U(line + j0 + over if part == 0 else line) * lanes
                            skip = U(0) if part == 0 else turn_at
                            count = turn_at if part == 0 else n - turn_at
                            a, b, c = top + skip, middle + skip, bottom + skip
                            at = U(i * stride) + pad + skip
                            if layer < layers - 1:
                                duals(s, a, b, c, half, left_roots, here + skip, right_roots, there, values, at, gap,
                                      shift, gain, carry, add_s, add_1, one, tiny, count)  # fmt: skip
                            else:
                                last_duals(s, a, b, c, half, left_roots, here + skip, right_roots, there, total, skip, end,
                                           shift, gain, carry, add_s, add_1, one, tiny, count)  # fmt: skip
                for j in range(w):
                    for lane in range(lanes_):
                        whole[0, lane] += total[j * lanes_ + lane]
                        whole[1, lane] += total[(width + j) * lanes_ + lane]
        for lane in range(min(lanes_, len(rows) - first)):
            sums[0, first + lane] = whole[0, lane]
            sums[1, first + lane] = whole[1, lane]
