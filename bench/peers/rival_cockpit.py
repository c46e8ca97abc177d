"""cockpit with its full configuration over the first steps."""

from __future__ import annotations

import importlib.metadata
import statistics
import warnings

import torch
from rival_task import STEPS, serve
from torch import nn

warnings.simplefilter("ignore")

from backpack import extend  # noqa: E402
from cockpit import Cockpit, quantities  # noqa: E402
from cockpit.utils.configuration import configuration  # noqa: E402


def answer(net: nn.Sequential, x: torch.Tensor, y: torch.Tensor, step: float) -> dict:
    net, mean, each = extend(net), extend(nn.MSELoss()), nn.MSELoss(reduction="none")
    cockpit = Cockpit(net.parameters(), quantities=configuration("full"))
    optimizer = torch.optim.SGD(net.parameters(), lr=step)
    for k in range(STEPS):
        optimizer.zero_grad()
        outputs = net(x)
        loss = mean(outputs, y)
        if not bool(torch.isfinite(loss)):
            break
        info = {"batch_size": len(x), "individual_losses": each(outputs, y)[:, 0], "loss": loss, "optimizer": optimizer}
        with cockpit(k, info=info):
            loss.backward(create_graph=cockpit.create_graph(k))
        optimizer.step()
    shown = {type(quantity): quantity.get_output() for quantity in cockpit.quantities}
    curvature = float(shown[quantities.HessMaxEV][0])
    alphas = [float(value) for value in shown[quantities.Alpha].values() if value is not None]
    norms = shown[quantities.GradNorm][0]
    moving = {name.split(".")[0] for (name, _), norm in zip(net.named_parameters(), norms, strict=True) if float(norm) > 0}
    dead = [name for name, layer in net.named_children() if isinstance(layer, nn.Linear) and name not in moving]
    losses = [float(value) for value in shown[quantities.Loss].values()]
    stable = 2 / curvature if curvature > 0 else None
    alpha = statistics.median(alphas) if alphas else float("nan")
    said = f"largest Hessian eigenvalue {curvature:.3g}; median alpha {alpha:.2f}; loss {losses[0]:.3g} to {losses[-1]:.3g}"
    if dead:
        said += f"; gradient norm 0 in layers {', '.join(dead)}"
    return {"said": said, "stable": stable, "dead": dead, "alarmed": alpha > 1}


if __name__ == "__main__":
    serve(answer, lambda: {"cockpit-for-pytorch": importlib.metadata.version("cockpit-for-pytorch")})
