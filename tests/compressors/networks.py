"""Hand-written networks that ask everything of tracing that architectures of the spaces do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional


class Made(nn.Module):
    """Layers by name, and a function of them and the input."""

    def __init__(self, forward: Callable[[Made, Tensor], Tensor], **layers: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.function = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self, x)


def conv_norm(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def pooled(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def shuffled(x: Tensor, groups: int) -> Tensor:
    n, c, h, w = x.shape
    return x.view(n, groups, c // groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class Residual(nn.Module):
    """A basic block of a ResNet, with a projection where the shape changes."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.one, self.two = conv_norm(inputs, outputs, stride=stride), conv_norm(outputs, outputs)
        self.project = conv_norm(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.project(x) + self.two(functional.relu(self.one(x))))


class Shuffle(nn.Module):
    """A block of ShuffleNet v2: one half of a chunk goes on, the other through a branch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.into, self.depthwise, self.out = (
            conv_norm(half, half, 1),
            conv_norm(half, half, groups=half),
            conv_norm(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        passed, read = x.chunk(2, 1)
        made = functional.relu(self.out(self.depthwise(functional.relu(self.into(read)))))
        return shuffled(torch.cat([passed, made], 1), 2)


class SqueezeExcite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Conv2d(width, 4, 1), nn.Conv2d(4, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = functional.relu(self.squeeze(functional.adaptive_avg_pool2d(x, 1)))
        return x * torch.sigmoid(self.excite(squeezed))


class Attention(nn.Module):
    """With one map to queries, keys and values or (`apart`) three of them, as torch's function or (not `fused`) written
    out; `resized` sets the number of heads."""

    def __init__(self, width: int, heads: int, apart: bool, fused: bool) -> None:
        super().__init__()
        self.into = nn.ModuleList(nn.Linear(width, width if apart else 3 * width) for _ in range(3 if apart else 1))
        self.out = nn.Linear(width, width)
        self.heads, self.depth, self.fused = heads, width // heads, fused

    def resized(self) -> None:
        self.heads = self.out.in_features // self.depth

    def forward(self, x: Tensor) -> Tensor:
        n, length, _ = x.shape
        if len(self.into) == 1:
            q, k, v = self.into[0](x).reshape(n, length, 3, self.heads, self.depth).permute(2, 0, 3, 1, 4)
        else:
            q, k, v = (layer(x).view(n, length, self.heads, self.depth).transpose(1, 2) for layer in self.into)
        if self.fused:
            read = functional.scaled_dot_product_attention(q, k, v)
        else:
            read = (q @ k.transpose(-1, -2) * self.depth**-0.5).softmax(-1) @ v
        return self.out(read.transpose(1, 2).reshape(n, length, self.heads * self.depth))


class Gated(nn.Module):
    """A feed-forward layer one half of which gates the other."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(width, 2 * hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.into(x).chunk(2, -1)
        return self.out(functional.silu(gate) * value)


class Transformer(nn.Module):
    """Tokens, positions and a token of the class; pre-norm blocks with scaled branches."""

    def __init__(self, apart: bool = False, fused: bool = True) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 16)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 16)), nn.Parameter(torch.randn(1, 7, 16))
        self.first, self.second = nn.LayerNorm(16), nn.LayerNorm(16)
        self.attention, self.feed = Attention(16, 4, apart, fused), Gated(16, 12)
        self.scale = nn.Parameter(torch.randn(16))
        self.classify = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        x = x + self.scale * self.attention(self.first(x))
        x = x + self.feed(self.second(x))
        return self.classify(x[:, 0])


class Encoder(nn.Module):
    """torch's own transformer."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
        self.embed = nn.Linear(5, 16)
        self.encode = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.classify = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.encode(self.embed(x)).mean(1))


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase], both: bool = True, layers: int = 2) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 6)
        self.recur = kind(6, 8, layers, batch_first=True, bidirectional=both)  # type: ignore[call-arg]
        self.classify = nn.Linear(16 if both else 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.recur(self.embed(x))[0][:, -1])


class Experts(nn.Module):
    """A mixture of experts, each of which sees every sample: dense dispatch, or those chosen alone: by index."""

    def __init__(self, dense: bool = True) -> None:
        super().__init__()
        self.embed, self.route = nn.Linear(5, 8), nn.Linear(8, 3)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 10), nn.ReLU(), nn.Linear(10, 8)) for _ in range(3))
        self.classify, self.dense = nn.Linear(8, 3), dense

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.embed(x))
        shares = self.route(x).softmax(-1)
        if self.dense:
            made = torch.stack([expert(x) for expert in self.experts], 1)
            return self.classify((shares.unsqueeze(-1) * made).sum(1))
        made = torch.zeros_like(x)
        chosen = shares.argmax(-1)
        for number, expert in enumerate(self.experts):
            rows = chosen == number
            if rows.any():
                made[rows] = expert(x[rows])
        return self.classify(made)


def images() -> tuple[Tensor, ...]:
    return (torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)


def sequences() -> tuple[Tensor, ...]:
    return (torch.randn(2, 7, 5, generator=torch.Generator().manual_seed(0)),)


def tokens() -> tuple[Tensor, ...]:
    return (torch.randint(0, 11, (2, 6), generator=torch.Generator().manual_seed(0)),)


def rows() -> tuple[Tensor, ...]:
    return (torch.randn(4, 5, generator=torch.Generator().manual_seed(0)),)


def dense_net(self: Made, x: Tensor) -> Tensor:
    for layer in (self.one, self.two, self.three):
        x = torch.cat([x, functional.relu(layer(x))], 1)
    return self.classify(pooled(x))


def flattened(self: Made, x: Tensor) -> Tensor:
    x = torch.cat([functional.relu(self.one(x)), functional.relu(self.two(x))], 1)
    return self.classify(functional.relu(self.hidden(functional.max_pool2d(x, 2).flatten(1))))


def two_branches(self: Made, x: Tensor) -> Tensor:
    left, right = functional.relu(self.stem(x)).chunk(2, 1)
    return self.classify(pooled(torch.cat([functional.relu(self.left(left)), self.right(right)], 1)))


def twice(self: Made, x: Tensor) -> Tensor:
    x = functional.relu(self.stem(x))
    return self.classify(pooled(functional.relu(self.mix(torch.cat([x, x], 1)))))


def boundaries(self: Made, x: Tensor) -> Tensor:
    one = torch.cat([self.a(x), self.b(x)], 1)
    other = torch.cat([self.c(x), self.d(x)], 1)
    return self.classify(pooled(functional.relu(one + other)))


def shared(self: Made, x: Tensor) -> Tensor:
    x = functional.relu(self.stem(x))
    for _ in range(2):
        x = functional.relu(x + self.again(x))
    return self.classify(pooled(x))


def grouped(self: Made, x: Tensor) -> Tensor:
    x = functional.relu(self.stem(x))
    x = functional.relu(self.depthwise(functional.relu(self.grouped(x))))
    return self.classify(pooled(functional.relu(self.wider(x))))


def shuffle_net(self: Made, x: Tensor) -> Tensor:
    return self.classify(pooled(self.last(self.second(self.first(functional.relu(self.stem(x)))))))


def gated_channels(self: Made, x: Tensor) -> Tensor:
    return self.classify(pooled(functional.relu(self.mix(self.excite(functional.silu(self.stem(x)))))))


NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "resnet": (
        lambda: nn.Sequential(
            conv_norm(3, 8),
            nn.ReLU(),
            Residual(8, 8, 1),
            Residual(8, 12, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(12, 5),
        ),
        images,
    ),
    "densenet": (
        lambda: Made(
            dense_net, one=conv_norm(3, 4), two=conv_norm(7, 6), three=conv_norm(13, 8), classify=nn.Linear(21, 5)
        ),
        images,
    ),
    "concat-flatten-linear": (
        lambda: Made(
            flattened, one=conv_norm(3, 6), two=conv_norm(3, 4, 1), hidden=nn.Linear(160, 12), classify=nn.Linear(12, 5)
        ),
        images,
    ),
    "shufflenet": (
        lambda: Made(
            shuffle_net,
            stem=conv_norm(3, 16),
            first=Shuffle(16),
            second=Shuffle(16),
            last=conv_norm(16, 8),
            classify=nn.Linear(8, 5),
        ),
        images,
    ),
    "chunk-into-branches": (
        lambda: Made(
            two_branches, stem=conv_norm(3, 12), left=conv_norm(6, 5), right=conv_norm(6, 4), classify=nn.Linear(9, 5)
        ),
        images,
    ),
    "same-tensor-twice": (
        lambda: Made(twice, stem=conv_norm(3, 6), mix=conv_norm(12, 8), classify=nn.Linear(8, 5)),
        images,
    ),
    "other-boundaries": (
        lambda: Made(
            boundaries,
            a=conv_norm(3, 4),
            b=conv_norm(3, 8),
            c=conv_norm(3, 6),
            d=conv_norm(3, 6),
            classify=nn.Linear(12, 5),
        ),
        images,
    ),
    "shared-module": (
        lambda: Made(shared, stem=conv_norm(3, 8), again=conv_norm(8, 8), classify=nn.Linear(8, 5)),
        images,
    ),
    "grouped": (
        lambda: Made(
            grouped,
            stem=conv_norm(3, 8),
            grouped=conv_norm(8, 12, groups=2),
            depthwise=conv_norm(12, 12, groups=12),
            wider=conv_norm(12, 24, groups=12),
            classify=nn.Linear(24, 5),
        ),
        images,
    ),
    "squeeze-excite": (
        lambda: Made(
            gated_channels, stem=conv_norm(3, 8), excite=SqueezeExcite(8), mix=conv_norm(8, 6), classify=nn.Linear(6, 5)
        ),
        images,
    ),
    "transformer": (Transformer, tokens),
    "three-maps": (lambda: Transformer(apart=True), tokens),
    "plain-attention": (lambda: Transformer(apart=True, fused=False), tokens),
    "transformer-encoder": (Encoder, sequences),
    "lstm": (lambda: Recurrent(nn.LSTM), sequences),
    "gru": (lambda: Recurrent(nn.GRU), sequences),
    "rnn": (lambda: Recurrent(nn.RNN, both=False, layers=1), sequences),
    "experts": (Experts, rows),
}
"""By name: how a network is made, and inputs for it."""
