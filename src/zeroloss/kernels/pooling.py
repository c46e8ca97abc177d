"""Average pooling, and the way from all pairs of pixels to those at one place."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from zeroloss.errors import ArgumentError
from zeroloss.kernels.pairs import Pairs
from zeroloss.kernels.particles import gaussian_particles
from zeroloss.kernels.pixels import aligned, average_both, average_rows, averages_of, pooled_pairs
from zeroloss.kernels.state import State


def through_pool(layer: nn.Module, state: State, name: str) -> State:
    r"""Means over pixels: of all their pairs in the moments and in the tangent kernel. Means of jointly Gaussian pixels are Gaussian.

    Args:
        layer: one of :data:`zeroloss.kernels.pixels.AVERAGES`.
        state: the state before it.
        name: its dotted name, for errors.

    Returns:
        The state after it.

    Raises:
        ArgumentError: for what is no image, or an image too small for the window.
    """
    if state.canvas is None:
        raise ArgumentError("module", f"pools at {name!r} what is no image", "put the pooling before nn.Flatten")
    state = state.settled()
    assert state.canvas is not None
    weights, size = averages_of(layer, state.pixels, name)
    weights = weights.to(state.tangent.device)
    pairs = pooled_pairs(weights, state.pairs, state.canvas, name)
    tangent = average_both(weights, state.tangent)
    return replace(
        state,
        pairs=pairs,
        mean_left=average_rows(weights, state.mean_left),
        mean_right=average_rows(weights, state.mean_right),
        tangent=tangent,
        law=partial(gaussian_particles, pairs, tangent) if state.gaussian else None,
        canvas=replace(state.canvas, size=size),
    )


def align(state: State, size: torch.Size) -> State:
    """Of all pairs of pixels keep those at one place.

    Args:
        state: one with a canvas.
        size: height and width of the image.

    Returns:
        The same without it.
    """
    pairs = state.pairs
    left, right, mean_left, mean_right = (
        v.reshape(-1, *size) for v in (pairs.left, pairs.right, state.mean_left, state.mean_right)
    )
    return replace(
        state,
        pairs=Pairs(left, right, aligned(pairs.versine, size)),
        mean_left=mean_left,
        mean_right=mean_right,
        tangent=aligned(state.tangent, size),
        canvas=None,
    )
