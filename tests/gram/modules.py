"""Modules of every kind that people train, small, for the battery: name to a builder and to its inputs."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class Tied(nn.Module):
    """Two layers that hold one parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))[:, :2]


class FunctionalUse(nn.Module):
    """An encoder whose weight is used again, transposed, without a call of its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.scale = nn.Linear(5, 3), nn.Parameter(torch.tensor(0.7))

    def forward(self, x):
        return self.scale * functional.linear(torch.tanh(self.e(x)), self.e.weight.T)


class Twice(nn.Module):
    """One layer called twice, beside one called once."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.last = nn.Linear(5, 5), nn.LayerNorm(5), nn.Linear(5, 2)

    def forward(self, x):
        return self.last(self.norm(torch.tanh(self.layer(self.norm(torch.tanh(self.layer(x)))))))


class Block(nn.Module):
    """A residual block of convolutions and normalisations in evaluation mode, with a strided shortcut."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, stride=2, padding=1, bias=False), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.na, self.nb, self.short = nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.Conv2d(2, 4, 1, stride=2)
        self.last = nn.Linear(4, 3)
        for norm in (self.na, self.nb):
            norm.running_mean.normal_()
            norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        h = functional.relu(self.na(self.a(x)), inplace=True)
        return self.last(torch.tanh(self.nb(self.b(h)) + self.short(x)).mean(dim=(2, 3)))


class Transformer(nn.Module):
    """Token and position embeddings, one encoder layer of torch's own, and a readout tied to the token embedding."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        self.tokens, self.places, self.tied = nn.Embedding(7, 4, padding_idx=0), nn.Embedding(6, 4), tied
        self.block = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True, norm_first=True)
        self.last = nn.Linear(4, 7 if tied else 2, bias=False)
        if tied:
            self.last.weight = self.tokens.weight

    def forward(self, x):
        h = self.tokens(x) + self.places(torch.arange(x.shape[1]))
        return self.last(self.block(h).mean(dim=1))


class Attention(nn.Module):
    """Attention written out with linear layers on tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.last = (nn.Linear(5, 5) for _ in range(4))
        self.norm = nn.LayerNorm(5)

    def forward(self, x):
        h = self.norm(x)
        weights = torch.softmax(self.q(h) @ self.k(h).mT / 5**0.5, dim=-1)
        return self.last(weights @ self.v(h)).mean(dim=1)[:, :2]


class Recurrent(nn.Module):
    """A recurrent cell over the tokens of a sample."""

    def __init__(self, cell: type[nn.Module]) -> None:
        super().__init__()
        self.cell, self.last = cell(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        state = None
        for t in range(x.shape[1]):
            state = self.cell(x[:, t], state)
        return self.last(state[0] if isinstance(state, tuple) else state)


class Sequence(nn.Module):
    """torch's fused recurrent layers, whose weights are no layer's of their own."""

    def __init__(self, layer: type[nn.Module], batch_first: bool = True) -> None:
        super().__init__()
        self.layer, self.last, self.first = layer(5, 3, batch_first=batch_first), nn.Linear(3, 2), batch_first

    def forward(self, x):
        h, _ = self.layer(x if self.first else x.transpose(0, 1))
        return self.last(h[:, -1] if self.first else h[-1])


class TimeFirst(nn.Module):
    """Linear layers on (time, samples, features): their rows are not samples."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x.transpose(0, 1)))).sum(dim=0)


class Flattened(nn.Module):
    """Linear layers on samples and tokens run together."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x.reshape(-1, 5)))).view(len(x), -1, 2).sum(dim=1)


class Mixture(nn.Module):
    """A user's own parameters: a soft gate over experts in one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(3, 5, 2))

    def forward(self, x):
        return torch.einsum("ne,nd,edk->nk", torch.softmax(x @ self.gate.T, dim=1), x, self.experts)


class Keyword(nn.Module):
    """A layer called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.b(torch.tanh(self.a(input=x)))


class Branches(nn.Module):
    """A choice in Python by the sample's own value, which cannot be vectorised."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.own = nn.Linear(5, 2), nn.Linear(5, 2), nn.Parameter(torch.ones(2))

    def forward(self, x):
        return torch.stack([self.own * (self.a if float(row[0]) > 0 else self.b)(row[None])[0] for row in x])


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))


def tokens(n: int) -> torch.Tensor:
    return torch.randint(0, 7, (n, 6), generator=torch.Generator().manual_seed(3))


def seq(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def conv(**options) -> nn.Sequential:
    return seq(nn.Conv2d(4, 6, 3, **options), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2))


FLAT, IMAGES, TOKENS, WIDE = (
    (lambda n: rows(n, 5)),
    (lambda n: rows(n, 2, 6, 5)),
    (lambda n: rows(n, 4, 5)),
    (lambda n: rows(n, 4, 7, 6)),
)
MODULES = {
    "linear": (lambda: nn.Linear(5, 3), FLAT),
    "mlp": (lambda: seq(nn.Linear(5, 6), nn.GELU(), nn.Linear(6, 4, bias=False), nn.SiLU(inplace=True), nn.Linear(4, 2)), FLAT),
    "twice": (Twice, FLAT),
    "tied": (Tied, FLAT),
    "functional use": (FunctionalUse, FLAT),
    "keyword": (Keyword, FLAT),
    "own parameters": (Mixture, FLAT),
    "python branch": (Branches, FLAT),
    "prelu": (lambda: seq(nn.Linear(5, 4), nn.PReLU(4), nn.Linear(4, 2)), FLAT),
    "bilinear head": (lambda: seq(nn.Linear(5, 4), nn.Tanh(), nn.utils.parametrizations.weight_norm(nn.Linear(4, 2))), FLAT),
    "spectral norm": (lambda: seq(nn.Linear(5, 4), nn.Tanh(), nn.utils.parametrizations.orthogonal(nn.Linear(4, 4))), FLAT),
    "layer norm": (lambda: seq(nn.Linear(5, 4), nn.LayerNorm(4), nn.Tanh(), nn.Linear(4, 2)), FLAT),
    "rms norm": (lambda: seq(nn.Linear(5, 4), nn.RMSNorm(4), nn.Tanh(), nn.Linear(4, 2)), FLAT),
    "batch norm 1d": (lambda: seq(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)), FLAT),
    "conv 1d": (lambda: seq(nn.Conv1d(4, 3, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(15, 2)), TOKENS),
    "conv 3d": (lambda: seq(nn.Unflatten(1, (1, 4)), nn.Conv3d(1, 3, (2, 3, 3), stride=(1, 2, 1)), nn.Tanh(), nn.Flatten()), WIDE),
    "stride, dilation": (lambda: conv(stride=2, dilation=2, padding=2), WIDE),
    "groups": (lambda: conv(groups=2, padding=1), WIDE),
    "depthwise": (lambda: seq(nn.Conv2d(4, 8, 3, groups=4), nn.Tanh(), nn.Conv2d(8, 2, 1), nn.AdaptiveAvgPool2d(1)), WIDE),
    "circular": (lambda: conv(padding=1, padding_mode="circular"), WIDE),
    "same, reflected": (lambda: conv(padding="same", padding_mode="reflect"), WIDE),
    "transposed": (lambda: seq(nn.ConvTranspose2d(4, 3, 2, stride=2), nn.Tanh(), nn.MaxPool2d(3), nn.Flatten(), nn.LazyLinear(2)), WIDE),
    "group norm": (lambda: seq(nn.Conv2d(4, 6, 3), nn.GroupNorm(3, 6), nn.Tanh(), nn.AdaptiveAvgPool2d(1)), WIDE),
    "instance norm": (lambda: seq(nn.Conv2d(4, 3, 3), nn.InstanceNorm2d(3, affine=True), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2)), WIDE),
    "layer norm on images": (lambda: seq(nn.LayerNorm([2, 6, 5]), nn.Conv2d(2, 2, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(1)), IMAGES),
    "residual block": (Block, IMAGES),
    "token mlp": (lambda: seq(nn.Linear(5, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)), TOKENS),
    "attention": (Attention, TOKENS),
    "time first": (TimeFirst, TOKENS),
    "samples and tokens together": (Flattened, TOKENS),
    "multi-head attention layer": (lambda: seq(nn.TransformerEncoderLayer(5, 1, 4, dropout=0.0, batch_first=True), nn.Flatten()), TOKENS),
    "transformer": (lambda: Transformer(False), tokens),
    "transformer, tied readout": (lambda: Transformer(True), tokens),
    "embedding bag of words": (lambda: seq(nn.Embedding(7, 3, padding_idx=2), nn.Tanh(), nn.Flatten(), nn.Linear(18, 2)), tokens),
    "recurrent cell": (lambda: Recurrent(nn.RNNCell), TOKENS),
    "gru cell": (lambda: Recurrent(nn.GRUCell), TOKENS),
    "lstm cell": (lambda: Recurrent(nn.LSTMCell), TOKENS),
    "lstm": (lambda: Sequence(nn.LSTM), TOKENS),
    "gru, time first": (lambda: Sequence(nn.GRU, batch_first=False), TOKENS),
}  # fmt: skip


def make(name: str, n: int) -> tuple[nn.Module, torch.Tensor]:
    """A module in float64 and evaluation mode, and n of its inputs."""
    build, inputs = MODULES[name]
    torch.manual_seed(1)
    net, x = build().double().eval(), inputs(n)
    with torch.no_grad():
        net(x)  # layers that wait for their sizes
        for parameter in net.parameters():  # norms start at scales of one and shifts of zero
            parameter.add_(0.1 * torch.randn_like(parameter))
    return net, x
