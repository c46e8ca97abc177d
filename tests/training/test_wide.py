"""The linear prediction on the default data at width 4096: within 5 % at every step, and how close it was is printed."""

from __future__ import annotations

import pytest
import torch

from zeroloss import descend, fully_connected, gram, load, predict_descent


@pytest.mark.slow
def test_500_steps_at_width_4096_follow_the_prediction():
    data = load("digits", n=100, classes=(3, 8))
    exact = fully_connected(64, 4096, 2, scheme="du", activation="erf")
    kernel, residual = gram(exact, data.x), (exact(data.x) - data.y).detach()
    del exact
    net = fully_connected(64, 4096, 2, scheme="du", activation="erf", dtype=torch.float32)
    run = descend(net, data, max_steps=500, until=0.0)
    predicted = predict_descent(kernel, residual, run.step_size, run.steps)
    actual = (2 * run.loss).sqrt()
    error = ((predicted - actual) / actual).abs()
    print(
        f"largest relative error over 500 steps: {100 * float(error.max()):.2f} % (at step 300: {100 * float(error[300]):.2f} %)"
    )
    assert float(error.max()) < 0.05
