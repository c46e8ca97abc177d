r"""Layers of weights: independent draws make the next coordinate a Gaussian, with a variance and a tangent part of its own.

A linear map with weight variance $v$ takes $S \mapsto v\,m\,S$ and $T \mapsto v\,m\,T + [\text{trained}]\,m\,S$; a convolution does the
same to patch sums of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from zeroloss.errors import ArgumentError
from zeroloss.kernels.initial import bias_variance, weight_variance
from zeroloss.kernels.particles import gaussian_particles
from zeroloss.kernels.patches import patches_of
from zeroloss.kernels.pixels import patch_sums_of_pairs
from zeroloss.kernels.state import State
from zeroloss.kernels.structure import Weighted


def through_linear(layer: nn.Linear, state: State, parts: Mapping[nn.Module, int], name: str) -> State:
    """The state after a linear map of rows.

    Args:
        layer: the map.
        state: the state before it.
        parts: which slice of the tangent kernel each trained layer adds to.
        name: the layer's dotted name, for errors.

    Returns:
        The state after it.

    Raises:
        ArgumentError: for images, or another number of features than the layer takes.
    """
    if state.pixels:
        raise ArgumentError("module", f"applies Linear at {name!r} to images of {state.size}", "put nn.Flatten before it")
    if layer.in_features != state.width:
        raise ArgumentError(
            "module",
            f"expects {layer.in_features} features at {name!r} but gets {state.width}",
            "pass rows with as many columns as the first layer has inputs",
        )
    return _weights(layer, layer.out_features, state, parts)


def through_convolution(layer: nn.Conv1d | nn.Conv2d, state: State, parts: Mapping[nn.Module, int], name: str) -> State:
    """The state after a convolution of images.

    Args:
        layer: the convolution.
        state: the state before it.
        parts: which slice of the tangent kernel each trained layer adds to.
        name: the layer's dotted name, for errors.

    Returns:
        The state after it.

    Raises:
        ArgumentError: for rows, another number of channels than the layer takes, or images too small for its patches.
    """
    if len(state.pixels) != 2:
        raise ArgumentError(
            "module", f"applies {type(layer).__name__} at {name!r} to rows", "pass n×c×h×w images, and Flatten later"
        )
    if layer.in_channels != state.width:
        raise ArgumentError(
            "module",
            f"expects {layer.in_channels} channels at {name!r} but gets {state.width}",
            "pass images with as many channels as the first layer has",
        )
    patches = patches_of(layer, name)
    height, width = state.pixels
    if min(patches.out_size((height, width))) < 1:
        raise ArgumentError("module", f"leaves nothing of images of {state.size} at {name!r}", "pass larger images, or pad them")
    state = state.settled()
    if state.canvas is None:
        pairs, tangent, canvas = patches.pairs(state.pairs), patches.sums(state.tangent), None
    else:
        pairs, tangent = patch_sums_of_pairs(patches, state.pairs, state.tangent, state.pixels)
        canvas = replace(state.canvas, size=torch.Size(patches.out_size((height, width))))
    means = (torch.zeros_like(pairs.left), torch.zeros_like(pairs.right))  # of sums with fresh weights
    carried = replace(state, pairs=pairs, mean_left=means[0], mean_right=means[1], tangent=tangent, canvas=canvas)
    return _weights(layer, layer.out_channels, carried, parts)


def _weights(layer: Weighted, width: int, state: State, parts: Mapping[nn.Module, int]) -> State:
    """Independent weights, one for each of the state's coordinates (for a convolution: of its patch sums'), and a bias."""
    state = state.settled()
    variance, shift = state.initial.get(layer) or (weight_variance(layer), bias_variance(layer))
    gain = variance * state.width
    tangent = state.tangent * gain
    part = parts.get(layer)
    if part is not None and layer.weight.requires_grad:
        tangent[part] += state.width * state.pairs.products
    pairs = state.pairs.times(gain)
    if layer.bias is not None:
        pairs = pairs.plus_constant(shift)
        if part is not None and layer.bias.requires_grad:
            tangent[part] += 1.0
    return replace(
        state,
        pairs=pairs,
        mean_left=torch.zeros_like(pairs.left),
        mean_right=torch.zeros_like(pairs.right),
        tangent=tangent,
        width=width,
        gaussian=True,
        fresh=True,
        law=partial(gaussian_particles, pairs, tangent),
    )
