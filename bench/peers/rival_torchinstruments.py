"""torchinstruments over the first steps: statistics of activations and of their gradients, layer by layer."""

from __future__ import annotations

import json
import math
import tempfile
from pathlib import Path

import torch
import torchinstruments
from rival_task import STEPS, serve
from torch import nn


def answer(net: nn.Sequential, x: torch.Tensor, y: torch.Tensor, step: float) -> dict:
    optimizer, losses = torch.optim.SGD(net.parameters(), lr=step), []
    with tempfile.TemporaryDirectory() as folder:
        sampler = torchinstruments.EveryNForwardsSampler(1)
        torchinstruments.inject_observer(net, sampler=sampler, output_dir=folder)
        try:
            for _ in range(STEPS):
                optimizer.zero_grad()
                loss = nn.functional.mse_loss(net(x), y)
                loss.backward()
                optimizer.step()
                losses.append(float(loss.detach()))
        finally:
            torchinstruments.remove_observer(net)
        shown = json.loads(next(Path(folder).rglob("result.json")).read_text())
    found = {
        (layer["layer"], tensor["signal"], name): figure["mean"]
        for layer in shown
        for tensor in layer["tensors"]
        for name, figure in tensor["statistics"].items()
    }
    dead = [layer for (layer, signal, name), value in found.items() if (signal, name, value) == ("output", "zero_fraction", 1.0)]
    broken = any(name == "nonfinite_fraction" and value is not None and value > 0 for (_, _, name), value in found.items())
    said = f"{len(found)} figures (means, quantiles, zero fractions) of {len(shown)} modules, no judgement"
    if dead:
        said += f"; zero fraction 1 in the outputs of layers {', '.join(dead)}"
    if broken or not math.isfinite(losses[-1]):
        said += "; values that are not finite"
    return {"said": said, "stable": None, "dead": dead, "alarmed": broken}


if __name__ == "__main__":
    serve(answer, lambda: {"torchinstruments": torchinstruments.__version__})
