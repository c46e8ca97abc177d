"""The networks whose Grams are timed, in plain torch: small enough that every library can be given the same one."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions with BatchNorm and a shortcut without parameters, as in the ResNets for CIFAR (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)])
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """Images to images."""
        around = nn.functional.pad(
            x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more - self.more // 2)
        )
        inner = self.norms[0](self.first(x)).relu()
        return (around + self.norms[1](self.second(inner))).relu()


def dense(outputs: int, width: int = 1024) -> nn.Module:
    """784-width×3-outputs, ReLU, with biases."""
    sizes = [784, width, width, width, outputs]
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutional(width: int = 64) -> nn.Module:
    """Three 3×3 convolutions, global average pooling, ten outputs."""
    layers: list[nn.Module] = []
    for channels in (3, width, width):
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def resnet(stages: int = 3, blocks: int = 3) -> nn.Module:
    """ResNet-20 for 32×32 images; its BatchNorms have statistics as after some training."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    channels = 16
    for stage in range(stages):
        for block in range(blocks):
            wider = 16 * 2**stage
            layers.append(Block(channels, wider, 2 if stage and not block else 1))
            channels = wider
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    generator = torch.Generator().manual_seed(1)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)
            layer.running_var.uniform_(0.5, 1.5, generator=generator)
    return net


# name: the network, the shape of an input, how many outputs; the small ones are for trying the benchmark out
NETWORKS = {
    "dense": (lambda: dense(1), (784,), 1),
    "dense-10": (lambda: dense(10), (784,), 10),
    "convolutional": (convolutional, (3, 16, 16), 10),
    "resnet-20": (resnet, (3, 32, 32), 10),
    "small-dense": (lambda: dense(1, 32), (784,), 1),
    "small-dense-10": (lambda: dense(10, 32), (784,), 10),
    "small-convolutional": (lambda: convolutional(4), (3, 16, 16), 10),
    "small-resnet": (lambda: resnet(2, 1), (3, 32, 32), 10),
}


def network(name: str) -> nn.Module:
    """The network of that name in evaluation mode, float32, always the same weights."""
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        return NETWORKS[name][0]().eval()


def loaded(name: str, weights: dict) -> nn.Module:
    """The network with weights from a file, so that no library draws its own."""
    net = network(name)
    net.load_state_dict({key: torch.from_numpy(value) for key, value in weights.items()})
    return net
