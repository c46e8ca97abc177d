"""Experiments on the papers' convolutional and residual networks: norms, growth with depth, and rival recursions."""

from __future__ import annotations

import dataclasses
import math

import torch

from zeroloss.claims import Evidence, Gap, LayerNorms, Point, Rivals, Run, Sweep
from zeroloss.data import Dataset
from zeroloss.gram import gram, layer_grams, rows_of, trace
from zeroloss.kernels import layer_kernels, limit_kernel
from zeroloss.kernels.printed import printed_conv_resnet, printed_resnet
from zeroloss.networks import Network, activation_of
from zeroloss.spectrum import extremes
from zeroloss.study.building import build_for, with_width
from zeroloss.study.explanation import SINGULAR
from zeroloss.study.setting import SEEDS, Setting
from zeroloss.training import AUTO_FRACTION, descend, linearise

DRAWS = 20
SCALES = ("1", "1/sqrt(L)", "1/L")  # tau = L^-a for a = 0, 1/2, 1
GROWTH_DEPTHS = {"quick": (2, 8, 32), "full": (2, 4, 8, 16, 32)}
GROWTH_WIDTH = {"quick": 128, "full": 512}
DEPTHS = (2, 4, 8, 16, 32, 64)
DEPTH_WIDTH = {"quick": 128, "full": 1024}
NORM_CHANNELS = {"quick": 128, "full": 256}
RIVAL_DRAWS = 112  # many narrow draws: noise falls like 1/sqrt(m) and cost grows like m^2
RIVAL_WIDTH = {"quick": 512, "full": 2048}
RIVAL_CHANNELS = {"quick": 32, "full": 256}
RIVAL_NORMS = (0.4, 1.6)  # Definition 6.1's slip shows only between rows of different norm
TARGET = 1e-6
RUN_STEPS, RUN_TARGET = 400, 1e-9  # far enough down that a short run has many tenths


def images(setting: Setting) -> list[Evidence]:
    """How AZ's convolutional networks keep norms, over draws, and a short run of one of them."""
    found: list[Evidence] = []
    for spec in (s for s in setting.networks if s.scheme == "allen-zhu" and s.family == "cnn"):
        few = setting.few_for(spec)
        width = NORM_CHANNELS[setting.budget]
        with torch.no_grad():
            ratios = torch.stack([_norm_ratios(build_for(with_width(spec, width, seed), few), few.x) for seed in range(DRAWS)])
        net = build_for(with_width(spec, width, spec.seed), few)
        step = AUTO_FRACTION / extremes(gram(net, few.x, "full")).largest
        path = descend(net, few, step=step, max_steps=RUN_STEPS, until=RUN_TARGET, probes=(0, RUN_STEPS // 8))
        largest = float(torch.linalg.vector_norm(few.x.flatten(1), dim=1).max())
        run = Run(
            spec.name,
            net.architecture,
            few.n,
            few.separation,
            largest,
            path.loss,
            path.step_size,
            path.probes,
            last_hidden_limit=0.0,
        )
        found.append(LayerNorms(spec.name, net.architecture, spec.variance in (None, "preserve"), ratios, run))
    return found


def growth(setting: Setting) -> list[Evidence]:
    r"""$\|h_L\|^2/\|h_0\|^2$ of AZ's residual networks, over depths, scales and draws; without the plain last layer some of them have."""
    found: list[Evidence] = []
    for spec in (s for s in setting.networks if s.scheme == "allen-zhu" and s.family == "resnet"):
        few = setting.few_for(spec)
        points = []
        for depth in GROWTH_DEPTHS[setting.budget]:
            for seed in range(DRAWS):
                drawn = dataclasses.replace(
                    spec, width=GROWTH_WIDTH[setting.budget], depth=depth, seed=seed, last_plain=False, trained=None
                )
                values = {scale: _growth(build_for(dataclasses.replace(drawn, tau=scale), few), few.x) for scale in SCALES}
                points.append(Point(depth, seed, values))
        first = build_for(dataclasses.replace(drawn, depth=GROWTH_DEPTHS[setting.budget][0]), few)
        found.append(Sweep(spec.name, first.architecture, tuple(points), {}, "L"))
    return found


def depths(setting: Setting) -> list[Evidence]:
    r"""Steps to the target at DU Theorem 6.1's $\eta=\lambda H^2/n^2$, as the initial Gram foretells them, and the theorem's bound."""
    found: list[Evidence] = []
    for spec in (s for s in setting.networks if s.scheme == "du" and s.family == "resnet"):
        few = setting.few_for(spec)
        points = []
        for depth in DEPTHS:
            deep = dataclasses.replace(spec, width=DEPTH_WIDTH[setting.budget], depth=depth, trained=None)
            ends = extremes(limit_kernel(build_for(deep, few), "last-hidden")(few.x))
            smallest = ends.smallest if ends.smallest > SINGULAR * ends.largest else 0.0
            for seed in range(SEEDS):
                net = build_for(dataclasses.replace(deep, seed=seed), few)
                points.append(Point(depth, seed, _theory_steps(net, few, smallest)))
        first = build_for(dataclasses.replace(deep, depth=DEPTHS[0]), few)
        found.append(Sweep(spec.name, first.architecture, tuple(points), {}, "H"))
    return found


def printed(setting: Setting) -> list[Evidence]:
    """The mean Gram of some draws of DU's residual networks against the corrected recursion and the printed one.

    Rows are scaled to different norms; images have pixels of different norms as they are. Networks of one layer, circular padding and
    smooth dense networks are left out: the definitions say nothing of them, or nothing that a draw could tell.
    """
    found: list[Evidence] = []
    for spec in (s for s in setting.networks if s.scheme == "du" and s.depth > 1):
        few = setting.few_for(spec)
        width = (RIVAL_CHANNELS if spec.images else RIVAL_WIDTH)[setting.budget]
        whole = dataclasses.replace(spec, trained=None)
        first = build_for(with_width(whole, width, 0), few)
        a = first.architecture
        if spec.family == "conv_resnet" and a.padding == "zeros":
            x = few.x
            theirs = printed_conv_resnet(x, a.depth, a.kernel, activation=a.activation, c_res=a.c_res)
            shown = {"G^(2)": 1, "S^(H)": -1}
        elif spec.family == "resnet" and a.activation == "relu":
            norms = torch.linspace(*RIVAL_NORMS, few.n, dtype=few.x.dtype)[:, None]
            x = few.x / torch.linalg.vector_norm(few.x, dim=1, keepdim=True) * norms
            theirs = printed_resnet(x, a.depth, activation=a.activation, c_res=a.c_res)
            shown = {"G^(H)": -2, "S^(H)": -1}
        else:
            continue
        ours = torch.stack(list(layer_kernels(first, x).values()))
        drawn = torch.stack([_shares(build_for(with_width(whole, width, seed), few), x) for seed in range(RIVAL_DRAWS)])
        gaps = {name: _gap(drawn[:, index], ours[index], theirs[index]) for name, index in shown.items()}
        found.append(Rivals(spec.name, a, gaps))
    return found


def _norm_ratios(net: Network, x: torch.Tensor) -> torch.Tensor:
    """Norm of every hidden layer, over all its points, over that of the input; mean over the inputs."""
    h, found = x, []
    for layer in net:
        h = layer(h)
        if activation_of(layer) is not None:
            found.append((h.flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)).mean())
    return torch.stack(found)


def _growth(net: Network, x: torch.Tensor) -> float:
    _, calls = trace(net, x)
    first, last = (torch.linalg.vector_norm(calls[index].inputs, dim=1) for index in (1, -1))
    return float((last / first).square().mean())


def _theory_steps(net: Network, few: Dataset, smallest: float) -> dict[str, float]:
    step = smallest * net.architecture.depth**2 / few.n**2
    if not 0 < step * smallest < 2:
        return {"steps": math.nan, "bound": math.nan}
    with torch.no_grad():
        residual = rows_of(net(few.x), few.n) - few.y
    steps = linearise(gram(net, few.x, "full"), residual).steps_to(step, TARGET)
    return {"steps": math.nan if steps is None else float(steps), "bound": math.log(TARGET) / math.log1p(-step * smallest / 2)}


def _shares(net: Network, x: torch.Tensor) -> torch.Tensor:
    return torch.stack(list(layer_grams(net, x).values()))


def _gap(drawn: torch.Tensor, ours: torch.Tensor, theirs: torch.Tensor) -> Gap:
    """Frobenius distances, in units of the mean's norm."""
    mean = drawn.mean(dim=0)
    noise = float(((drawn - mean).square().sum() / (len(drawn) * (len(drawn) - 1))).sqrt())
    apart = [float((a - b).norm()) for a, b in ((mean, ours), (mean, theirs), (ours, theirs))]
    size = float(mean.norm())
    return Gap(apart[0] / size, apart[1] / size, apart[2] / size, noise / size)
