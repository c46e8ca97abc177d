"""neural-tangents beside us: its empirical kernel of the same network and weights; run by the peer's own Python."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import neural_tangents
import numpy as np
from jax._src import source_info_util
from jax.interpreters import ad
from measuring import serve

# its structured derivatives look here for what this jax keeps elsewhere
ad.source_info_util, ad.config = source_info_util, jax.config
METHODS = {"default": 1, "structured": 3}


def dense(values: list, x: jax.Array) -> jax.Array:
    for weight, bias in values[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    return x @ values[-1][0] + values[-1][1]


def convolutional(values: list, x: jax.Array) -> jax.Array:
    for weight, bias in values[:-1]:
        x = jax.lax.conv_general_dilated(x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        x = jax.nn.relu(x + bias)
    return x.mean(axis=(1, 2)) @ values[-1][0] + values[-1][1]


def arranged(array: np.ndarray) -> jax.Array:
    """Channels last, as its own layers have them: its structured derivatives know a product by the parameter itself, not by a transpose."""
    return jnp.asarray(array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T)


def prepare(request: dict, weights: dict, inputs: np.ndarray):
    layers = sorted({name.split(".")[0] for name in weights}, key=int)
    values = [(arranged(weights[f"{layer}.weight"]), jnp.asarray(weights[f"{layer}.bias"])) for layer in layers]
    rows = jnp.asarray(inputs.transpose(0, 2, 3, 1) if inputs.ndim == 4 else inputs)
    function = convolutional if inputs.ndim == 4 else dense
    kernel = neural_tangents.empirical_ntk_fn(function, trace_axes=(-1,), vmap_axes=0, implementation=METHODS[request["method"]])
    compiled = jax.jit(lambda x, parameters: kernel(x, None, parameters))
    return lambda: np.asarray(compiled(rows, values).block_until_ready())


if __name__ == "__main__":
    serve(prepare, lambda: {"neural-tangents": neural_tangents.__version__, "jax": jax.__version__})
