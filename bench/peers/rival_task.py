"""What every rival is given: a network, rows, a step size and twenty steps of full-batch gradient descent; one request, one process.

The rivals know the mean squared error, whose step is n/2 times that of the sum ½‖f−y‖²; answers are in the sum's units.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

STEPS = 20


def build(width: int = 256) -> nn.Sequential:
    """64-width×2-1, ReLU, torch's own initial weights."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1))


def kill(net: nn.Sequential) -> None:
    """Plant a dead layer: no unit of the second hidden layer is ever above zero."""
    with torch.no_grad():
        net[2].bias.fill_(-100.0)


def serve(answer: Callable[[nn.Sequential, torch.Tensor, torch.Tensor, float], dict], versions: Callable[[], dict]) -> None:
    """Ask a tool about one case.

    Args:
        answer: from network, rows n×64, targets n×1 and the step for the mean squared error: ``said``, what the tool shows, in a
            sentence; ``stable``, the largest step it holds for stable, in the mean's units, or None; ``suggested``, likewise, a
            step it suggests without a word on the user's; ``dead``, layers that its
            figures show as dead; ``alarmed``, whether a figure of its own marks the step as too large.
        versions: what took part.
    """
    case = json.load(sys.stdin)
    out, sys.stdout = sys.stdout, sys.stderr  # the tools print; the answer must stay alone
    net = build()
    if case["dead"]:
        kill(net)
    with np.load(case["rows"]) as file:
        x, y = (torch.from_numpy(file[key].astype(np.float32)) for key in ("x", "y"))
    torch.manual_seed(0)
    try:
        found = answer(net, x, y, case["step"] * len(x) / 2)
    except Exception as error:  # a tool that breaks on a case has answered it
        reason = (str(error).strip().splitlines() or [""])[0][:160]
        found = {"said": f"breaks: {type(error).__name__}: {reason}", "broke": True}
    for key in ("stable", "suggested"):
        if found.get(key) is not None:
            found[key] *= 2 / len(x)
    out.write(json.dumps({**found, "versions": versions()}) + "\n")
