"""EvoNorm: figures of the published layers, graphs against plain modules, identities, and what is told as unsound."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.batch import Batch
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.task import image_task
from predictors.forward_pass import ForwardPass
from predictors.function_hooks import activations
from predictors.need import Need
from predictors.proxy import Unscorable
from predictors.zero_cost.gradsign import GradSign
from predictors.zero_cost.naswot import Naswot
from predictors.zero_cost.zen import Zen
from search_spaces.evonorm.graph import V0, V1, ZERO, X, evaluate
from search_spaces.evonorm.layer import TORCH, EvoNormLayer
from search_spaces.evonorm.primitives import EPS, apply
from search_spaces.evonorm.rewriting import canonical
from search_spaces.evonorm.space import NODES, EvoNorm
from search_spaces.hosts.resnet import resnet
from search_spaces.hosts.slot import ChannelsLast
from search_spaces.layers.known import LAYERS
from training.recalibration import recalibrate

SPACE = EvoNorm()

PAIRS = (("bn", "bhw", "relu"), ("bn", "bhw", "silu"), ("gn", "group", "relu"), ("gn", "group", "silu"))
# What the plain modules call the parameters of ours.
APART = ("weight", "bias", "beta")  # of FRN, which has no scale at the end, and its shift before the threshold
NAMES = {"norm.weight": "v1", "norm.bias": "v0", "gamma": "v1", "threshold": "v0"}

# Mean and largest value of an independent implementation, in training mode on the input of `published`.
FIGURES = {
    "evonorm-b0": (0.09881, 0.79666),
    "evonorm-b1": (-0.02393, 0.50525),
    "evonorm-b2": (0.58035, 3.9488),
    "evonorm-s0": (0.60472, 3.91447),
    "evonorm-s1": (0.60472, 3.91447),
    "evonorm-s2": (0.53205, 3.3234),
}
PARAMETERS = {**dict.fromkeys(FIGURES, 64), "evonorm-b0": 96, "evonorm-s0": 96}  # of 32 channels

# Never a layer that anybody wants, with the words that they may be rejected with.
PLANTED: Mapping[str, str] = {
    "x + 0": "linear",
    "max(x, 0)": "explodes",
    "exp(exp(x))": "explodes",
    "square(x)": "explodes",
    "exp(0)": "blind",
    "x - x": "blind",
    "std_bhw(x)": "constant",
    "x / 0": "not finite",
    "tanh(x)": "collapses",
    "sigmoid(x)": "one",
    "log(rms_hw(x))": "flat",
}


def layer(name: str, channels: int, eps: float = EPS) -> EvoNormLayer:
    arch = SPACE.named[name] if name in SPACE.named else SPACE.from_text(name)
    return EvoNormLayer(SPACE.layer(arch), channels, eps)


@pytest.mark.parametrize("name", FIGURES)
def test_published_layers_give_the_figures_of_another_implementation(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 32, 6, 6, dtype=torch.float64) * 2 + 1
    made = layer(name, 32, 1e-3 if name == "evonorm-b0" else EPS).double()
    # Their 32 groups have one channel each, as ours of 32 channels have.
    y = made(x).detach()
    assert (float(y.mean()), float(y.max())) == pytest.approx(FIGURES[name], abs=1e-4)
    assert sum(parameter.numel() for parameter in made.parameters()) == PARAMETERS[name]


# -- plain modules -------------------------------------------------------------------------------------------------

EvoNormForward = Callable[["Published", Tensor], Tensor]


class Published(nn.Module):
    """The published formulas, with a running variance for the moments of the batch."""

    variance: Tensor

    def __init__(self, channels: int, formula: EvoNormForward) -> None:
        super().__init__()
        self.formula = formula
        self.v1, self.weight, self.bias = (nn.Parameter(torch.zeros(channels)) for _ in range(3))
        self.register_buffer("variance", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        y = self.formula(self, x)
        return y * self.weight[:, None, None] + self.bias[:, None, None]

    def batch(self, x: Tensor) -> Tensor:
        if not self.training:
            return (self.variance + EPS).sqrt()[:, None, None]
        spread = x.var((0, 2, 3), correction=0)
        count = x.numel() / x.shape[1]
        self.variance = self.variance * 0.9 + 0.1 * spread.detach() * count / (count - 1)
        return (spread + EPS).sqrt()[:, None, None]


def _instance(x: Tensor) -> Tensor:
    return (x.var((2, 3), correction=0, keepdim=True) + EPS).sqrt()


def _power(x: Tensor) -> Tensor:
    return (x.square().mean((2, 3), keepdim=True) + EPS).sqrt()


def _grouped(x: Tensor, centred: bool) -> Tensor:
    parts = x.reshape(len(x), 32, -1)
    found = parts.var(2, correction=0) if centred else parts.square().mean(2)
    return (found + EPS).sqrt().repeat_interleave(x.shape[1] // 32, 1)[:, :, None, None]


FORMULAS: Mapping[str, EvoNormForward] = {
    "evonorm-b0": lambda m, x: x / torch.maximum(m.batch(x), m.v1[:, None, None] * x + _instance(x)),
    "evonorm-b1": lambda m, x: x / torch.maximum(m.batch(x), (x + 1) * _power(x)),
    "evonorm-b2": lambda m, x: x / torch.maximum(m.batch(x), _power(x) - x),
    "evonorm-s0": lambda m, x: x * torch.sigmoid(m.v1[:, None, None] * x) / _grouped(x, centred=True),
    "evonorm-s1": lambda m, x: x * torch.sigmoid(x) / _grouped(x, centred=True),
    "evonorm-s2": lambda m, x: x * torch.sigmoid(x) / _grouped(x, centred=False),
}


class Pair(nn.Module):
    """A normalisation of torch and an activation, with a scale and shift after it."""

    def __init__(self, norm: nn.Module, activation: Callable[[Tensor], Tensor], channels: int) -> None:
        super().__init__()
        self.norm, self.activation = norm, activation
        self.weight, self.bias = (nn.Parameter(torch.zeros(channels)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.norm(x)) * self.weight[:, None, None] + self.bias[:, None, None]


class Frn(nn.Module):
    """Filter response normalisation and thresholded linear unit (Singh and Krishnan, CVPR 2020)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma, self.beta, self.threshold = (nn.Parameter(torch.zeros(channels)) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = self.gamma[:, None, None] * x / _power(x) + self.beta[:, None, None]
        return torch.maximum(y, self.threshold[:, None, None])


def twin(name: str, ours: EvoNormLayer) -> nn.Module:
    """The plain module with the parameters of ours."""
    channels = len(ours.weight)
    if name in FORMULAS:
        made: nn.Module = Published(channels, FORMULAS[name])
        names = {"v1": ours.v1, "weight": ours.weight, "bias": ours.bias}
    elif name == "frn":
        made = Frn(channels)
        assert ours.v0 is not None
        names = {"gamma": ours.v1, "beta": ours.bias, "threshold": nn.Parameter(ours.v0 + ours.bias)}
    else:
        norm = nn.BatchNorm2d(channels) if name.startswith("bn") else nn.GroupNorm(32, channels)
        made = Pair(norm, functional.relu if name.endswith("relu") else functional.silu, channels)
        names = {"norm.weight": ours.v1, "norm.bias": ours.v0, "weight": ours.weight, "bias": ours.bias}
    with torch.no_grad():
        for parameter, value in names.items():
            if value is not None:
                made.get_parameter(parameter).copy_(value)
    return made


def trained(made: EvoNormLayer, seed: int) -> EvoNormLayer:
    """With parameters unlike those of a new layer."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter += 0.4 * torch.randn_like(parameter)
            if name == "weight" and made.v0 is not None and len(made.graph.nodes) == 4:  # FRN has no scale at the end
                parameter.fill_(1)
    return made


@pytest.mark.parametrize("name", SPACE.named)
def test_named_layers_are_the_modules_that_they_are_named_after(name: str) -> None:
    """In training mode, then with the averages of three batches; of 64 channels in groups of two."""
    ours = trained(layer(name, 64), 1)
    plain = twin(name, ours)
    for _ in range(3):
        x = torch.randn(6, 64, 5, 5) * 1.5 + 0.5
        torch.testing.assert_close(ours(x), plain(x), rtol=1e-5, atol=1e-5)
    ours.eval(), plain.eval()
    torch.testing.assert_close(ours(x), plain(x), rtol=1e-5, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        y = ours(x.bfloat16())
        assert ours(x).dtype == torch.float32
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y, plain(x.bfloat16().float()).bfloat16(), rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("shape", [(5, 64), (5, 64, 4, 3)])
@pytest.mark.parametrize("name", SPACE.named)
def test_sequences_and_rows_are_images_of_other_shapes(name: str, shape: tuple[int, ...]) -> None:
    made = trained(layer(name, 64), 2)
    x = torch.randn(shape)
    y = made(x)
    assert y.shape == x.shape
    wide = x if len(shape) == 4 else x[:, :, None, None]
    last = ChannelsLast(made)
    torch.testing.assert_close(last(wide.flatten(2).transpose(1, 2)), made(wide).flatten(2).transpose(1, 2))


@pytest.mark.parametrize("shape", [(8,), (2, 6), (2, 6, 8, 8)])
@pytest.mark.parametrize("name", LAYERS)
def test_what_is_no_input_of_a_layer_is_said(name: str, shape: tuple[int, ...]) -> None:
    for training in (True, False):
        with pytest.raises(ValueError, match=r"of 8 channels takes \[n, 8, \*positions\], and was given \[[\d, ]+\]$"):
            LAYERS[name].made(8).train(training)(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(1, 8), (1, 8, 1, 1)])
@pytest.mark.parametrize("name", LAYERS)
def test_one_value_per_channel(name: str, shape: tuple[int, ...]) -> None:
    """Has no statistics of the batch; whatever else a layer has is finite."""
    made, x = LAYERS[name].made(8), torch.randn(shape)
    assert made.eval()(x).isfinite().all()
    if LAYERS[name].batch:
        with pytest.raises(ValueError, match=r"(1|one) value per channel"):
            made.train()(x)
    else:
        assert made.train()(x).isfinite().all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SPACE.named)
def test_gradients_are_those_of_the_modules(name: str, training: bool) -> None:
    ours = trained(layer(name, 64), 3).double()
    plain = twin(name, ours).double()
    x = torch.randn(6, 64, 5, 5, dtype=torch.float64) * 1.5 + 0.5
    ours(x), plain(x)
    found = []
    for made in (ours.train(training), plain.train(training)):
        own = x.clone().requires_grad_()
        values = {n: p for n, p in made.named_parameters() if name != "frn" or n not in APART}
        gradients = torch.autograd.grad(made(own).square().sum(), [own, *values.values()], allow_unused=True)
        named = dict(zip(("x", *values), gradients, strict=True))
        found.append({NAMES.get(n, n): gradient for n, gradient in named.items() if gradient is not None})
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-5)


# What torch has as one function, and what is none: the expected steps, without what each reads.
STEPS: Mapping[str, Sequence[str]] = {
    **{SPACE.to_text(SPACE.named[f"{norm}-{act}"]): [f"normalised_{over} {act}"] for norm, over, act in PAIRS},
    "(x - mean_bhw(x)) / std_bhw(x)": ["normalised_bhw"],
    "v1 + v0*((-mean_hw(x) + x) / std_hw(x))": ["normalised_hw"],
    "x*sigmoid((x - mean_chw(x)) / std_chw(x))": ["normalised_chw", "sigmoid", "mul"],
    "(tanh(x) - mean_group(tanh(x))) / std_group(tanh(x))*v0": ["tanh", "normalised_group"],
    "(v1 - mean_bhw(v1)) / std_bhw(v1) + x": ["normalised_bhw", "add"],
    "(v1 - mean_chw(v1)) / std_chw(v1)": ["normalised_chw"],
    "(x - mean_bhw(x)) / std_bhw(x) + mean_bhw(x)": ["mean_bhw", "neg", "add", "std_bhw", "div", "add"],
    "(x - mean_hw(x)) / std_bhw(x)": ["mean_hw", "neg", "add", "std_bhw", "div"],
    "(x - mean_hw(x)) / std_hw(x*v1)": ["mean_hw", "neg", "add", "mul", "std_hw", "div"],
    "((x - mean_hw(x)) / std_hw(x) + v0)*v1": ["normalised_hw", "add", "mul"],
    "max((x - mean_hw(x)) / std_hw(x), 0) - (x - mean_hw(x)) / std_hw(x)": ["normalised_hw", "relu", "neg", "add"],
    "tanh(x)*sigmoid(tanh(x)) - sigmoid(tanh(x))": ["tanh", "sigmoid", "mul", "neg", "add"],
    "max(0, 0) + x*sigmoid(x)": ["relu", "silu", "add"],
}


@pytest.mark.parametrize("formula", STEPS)
def test_steps(formula: str) -> None:
    """They are those that are expected, and the layer is its graph computed node by node: values and gradients."""
    made = trained(layer(formula, 64), 4).double()
    assert [f"{step.op} {step.activation}".strip() for step in made.steps] == STEPS[formula]
    _as_nodes(made)


def test_steps_of_random_layers() -> None:
    rng = generator("steps")
    for name in SPACE.named:
        for _ in range(12):
            arch = SPACE.mutate(SPACE.mutate(SPACE.named[name], rng), rng)
            if SPACE.unsound(arch) is None:
                _as_nodes(trained(EvoNormLayer(SPACE.layer(arch), 64).double(), 5))


def _as_nodes(made: EvoNormLayer) -> None:
    """Whether the layer is its graph, in training mode: of channels in groups, of maps that are channels_last."""
    x = (torch.randn(6, 64, 3, 4, dtype=torch.float64) * 1.5 + 0.5).to(memory_format=torch.channels_last)
    x.requires_grad_()
    parts = x.reshape(6, 64 // made.size, made.size, 12)
    values = {X: parts, ZERO: parts.new_zeros(1, 1, 1, 1)}
    for place, parameter in ((V0, made.v0), (V1, made.v1)):
        if parameter is not None:
            values[place] = parameter.reshape(1, -1, made.size, 1)
    y = evaluate(made.graph, values, lambda number, op, one, other: apply(TORCH, op, one, other, EPS))
    wanted = y.expand(parts.shape).reshape(x.shape) * made.weight[:, None, None] + made.bias[:, None, None]
    with torch.no_grad():
        torch.testing.assert_close(made(x), wanted, rtol=1e-9, atol=1e-9)
    sources = [x, *made.parameters()]
    gradients = [torch.autograd.grad(each.square().mean(), sources, allow_unused=True) for each in (made(x), wanted)]
    scale = max(float(each.abs().max()) for each in gradients[1] if each is not None)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-9 * scale)


@pytest.mark.parametrize("momentum", [0.1, None])
def test_averages_move_as_those_of_a_module_do(momentum: float | None) -> None:
    """Where mean and variance are one step, and where they are apart."""
    one, apart = layer("bn-relu", 8), layer("(x - mean_bhw(x)) / (std_bhw(x) + mean_bhw(x))", 8)
    norm = nn.BatchNorm2d(8, momentum=momentum)
    moments = [*one.moments.values(), *apart.moments.values()]
    for moment in moments:
        moment.momentum = momentum
    for _ in range(3):
        x = torch.randn(5, 8, 3, 3) * 2 + 1
        one(x), apart(x), norm(x)
    both, mean, variance = moments
    for found in ((mean.running, variance.running), (both.running_mean, both.running_var)):
        torch.testing.assert_close(found, (norm.running_mean, norm.running_var))
    assert [int(moment.num_batches_tracked) for moment in moments] == [3, 3, 3]


@pytest.mark.parametrize("name", ["bn-relu", "evonorm-b0"])
def test_one_value_per_channel_has_no_statistics(name: str) -> None:
    made = layer(name, 8)
    with pytest.raises(ValueError, match="value per channel"):
        made(torch.randn(1, 8, 1, 1))
    assert made.eval()(torch.randn(1, 8, 1, 1)).isfinite().all()


def test_evaluation_leaves_input_and_averages_as_they_are() -> None:
    """Also of a layer whose output is a moving average."""
    x = torch.randn(1, 8, 1, 1)
    for name in ("bn-relu", "gn-silu", "mean_bhw(x)", "mean_hw(x)", "-x"):
        made = trained(layer(name, 8), 6).eval()
        state, before = {key: value.clone() for key, value in made.state_dict().items()}, x.clone()
        with torch.no_grad():
            made(x)
        assert torch.equal(x, before)
        assert all(torch.equal(value, state[key]) for key, value in made.state_dict().items())


def test_scale_invariance() -> None:
    """B2 is invariant but for eps, B0 almost (eps 1e-3), the others are not."""
    torch.manual_seed(0)
    x = torch.randn(8, 32, 6, 6, dtype=torch.float64) * 2 + 1
    changes = {}
    for name in FIGURES:
        made = layer(name, 32, 1e-3 if name == "evonorm-b0" else EPS).double()
        one, ten = made(x).detach(), made(10 * x).detach()
        changes[name] = float((one - ten).abs().mean() / one.abs().mean())
    assert changes["evonorm-b2"] < 5e-5
    assert changes["evonorm-b0"] < 4e-3
    assert min(changes[f"evonorm-{name}"] for name in ("b1", "s0", "s1", "s2")) > 0.1


def _answer(network: nn.Module, batch: Batch) -> Tensor:
    answer: Tensor = network(*batch.inputs)
    return answer


def test_statistics_of_batches_are_made_anew() -> None:
    """Recalibration gives the plain mean of the moments of all batches, also where mean and variance are apart."""
    made, apart = layer("bn-relu", 8), layer("(x - mean_bhw(x)) / (std_bhw(x) + mean_bhw(x))", 8)
    x = torch.randn(4, 8, 3, 3) * 3 + 2
    for each in (made, apart):
        each.train()(x * 100)
    norm = nn.BatchNorm2d(8)
    batches = [x, x + 1]
    for each in (made, apart, norm):
        recalibrate(each, partial(_answer, each), (Batch((b,), b) for b in batches))
        assert not each.training
    [moments] = made.moments.values()
    mean, variance = (moment.running for moment in apart.moments.values())
    for found in ((mean, variance), (moments.running_mean, moments.running_var)):
        torch.testing.assert_close(found, (norm.running_mean, norm.running_var))


@pytest.mark.parametrize(("bn", "stages"), [("instance", 2), ("calibrated", 2), ("instance", 4)])
def test_gradsign_of_the_graph_is_that_of_the_pair(bn: Literal["instance", "calibrated"], stages: int) -> None:
    """Batch normalisation and ReLU as a graph, and as modules of torch; the network is left as it was. With four stages
    maps end with one value, of which a sample alone has no statistics."""
    graph = SPACE.layer(SPACE.named["bn-relu"])
    slots: Sequence[Callable[[int], nn.Module]] = (
        lambda channels: EvoNormLayer(graph, channels),
        lambda channels: nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU()),
    )
    batch = Batch((torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(1)),), torch.arange(12) % 5)
    scores = []
    for slot in slots:
        forward = ForwardPass(
            partial(resnet, 3, 5, 8, (1,) * stages, slot),
            batch,
            lambda output, part: functional.cross_entropy(output, part.target),
            image_task((3, 8, 8), 5),
        )
        before = {name: value.clone() for name, value in forward.model.state_dict().items()}
        scores.append(GradSign(GradSign.Config(bn=bn)).score(forward)["gradsign"])
        assert all(torch.equal(value, before[name]) for name, value in forward.model.state_dict().items())
        assert not any("forward" in vars(module) for module in forward.model.modules())
    assert scores[0] == pytest.approx(scores[1], rel=0.01)
    assert scores[0] > 0


# -- identity ------------------------------------------------------------------------------------------------------


def test_no_named_layer_is_merged_with_another() -> None:
    assert len({SPACE.identity(arch) for arch in SPACE.named.values()}) == len(SPACE.named) == 11


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("v1*x + 0", "x*v1"),
        ("max(x, 0) + neg(neg(x))", "x + max(0, x)"),
        ("abs(neg(square(x)))", "x*x"),
        ("x*exp(0)", "x / exp(0)"),
        ("x / (v0 - v0)", "x / 0"),
        ("std_hw(-x)", "std_hw(x)"),
        ("mean_hw(std_hw(x))", "std_hw(x)"),
        ("log(exp(exp(exp(exp(x)))) + 0)", "log(exp(exp(exp(exp(max(x, x))))))"),
    ],
)
def test_layers_that_compute_the_same_have_one_identity(one: str, other: str) -> None:
    assert SPACE.identity(SPACE.from_text(one)) == SPACE.identity(SPACE.from_text(other))
    assert SPACE.identity(SPACE.from_text(one)) != SPACE.identity(SPACE.from_text("tanh(x)"))


@pytest.mark.parametrize(
    ("formula", "simple"),
    [
        ("x*0 + tanh(x)", "tanh(x)"),
        ("max(v1*x, x*v1)", "mul(v1,x)"),
        ("abs(sigmoid(x))", "sigmoid(x)"),
        ("x*x", "square(x)"),
        ("var_hw(exp(0) + exp(0))", "0.0"),
        ("rms_chw(abs(x))", "rms_chw(x)"),
        ("x / 0", "div(x,0.0)"),
    ],
)
def test_rewriting(formula: str, simple: str) -> None:
    assert canonical(SPACE.layer(SPACE.from_text(formula))) == simple


def test_layers_of_one_identity_agree_on_other_inputs_and_parameters() -> None:
    """Relative to the largest value, in training mode, among random layers and mutants of the named ones."""
    rng = generator("merged")
    drawn = [moves.sample(SPACE, rng) for _ in range(300)]
    for arch in SPACE.named.values():
        drawn += [SPACE.mutate(arch, rng) for _ in range(25)]
    classes: dict[str, dict[str, Architecture]] = defaultdict(dict)
    for arch in drawn:
        classes[SPACE.identity(arch)].setdefault(SPACE.to_text(arch), arch)
    merged = [list(members.values()) for identity, members in classes.items() if identity.startswith("~")]
    assert sum(len(members) > 1 for members in merged) > 20
    torch.manual_seed(3)
    x = torch.randn(5, 64, 4, 4, dtype=torch.float64) * 2 - 0.5
    values = {name: torch.randn(64, dtype=torch.float64) for name in ("v0", "v1", "weight", "bias")}
    for first, *others in (members for members in merged if len(members) > 1):
        wanted = _with(first, values)(x)
        for other in others:
            found = _with(other, values)(x)
            close = 1e-4 * float(wanted.detach().abs().max())
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=close, msg=f"{first} and {other}")


def _with(arch: Architecture, values: Mapping[str, Tensor]) -> nn.Module:
    made = EvoNormLayer(SPACE.layer(arch), 64).double()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            parameter.copy_(values[name])
    return made


# -- soundness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPACE.named)
def test_named_layers_are_sound(name: str) -> None:
    assert SPACE.unsound(SPACE.named[name]) is None


@pytest.mark.parametrize("formula", PLANTED)
def test_planted_layers_are_rejected(formula: str) -> None:
    reason = SPACE.unsound(SPACE.from_text(formula))
    assert reason is not None
    assert reason.split(":")[0] == PLANTED[formula]


def test_most_random_layers_are_unsound() -> None:
    """Published is that few are worth training; of ours 1.4% pass."""
    told = [SPACE.unsound(moves.sample(SPACE, generator("random layers", number))) for number in range(1500)]
    assert 0.965 < sum(reason is not None for reason in told) / len(told) < 0.998
    blind = sum(reason is not None and reason.startswith("blind") for reason in told) / len(told)
    assert 0.65 < blind < 0.85


# -- texts, moves, arguments ---------------------------------------------------------------------------------------


def test_formulas_are_read_back() -> None:
    assert SPACE.to_text(SPACE.named["evonorm-b0"]) == "x / max(std_bhw(x), v1*x + std_hw(x))"
    for name, arch in SPACE.named.items():
        assert SPACE.from_text(SPACE.to_text(arch)) == arch, name
    for text in ("x - (v0 - v1)", "-(x*x) / -x", "x - -x", "--x + -v0*x", "x / (x / x)", "max(-x, x - v1*x)"):
        assert SPACE.to_text(SPACE.from_text(text)) == text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x / max(x", r"position 10 of .*: the end instead of ','"),
        ("x + sigmod(x)", r"position 5 of .*: 'sigmod' .*did you mean 'sigmoid'"),
        ("x ? 0", r"position 3 of .*: '\?' instead of the end"),
        ("tanh(x, x)", r"position 7 of .*: ',' instead of '\)'"),
        ("x", "has no operation"),
        ("(" * 500 + "x", "nested more than 100"),
        ("tanh(" * (NODES + 1) + "x" + ")" * (NODES + 1), f"more than {NODES} nodes"),
    ],
)
def test_formulas_that_are_none(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SPACE.from_text(text)


def test_mutation_draws_one_node_anew() -> None:
    rng = generator("one node")
    arch = SPACE.named["evonorm-b0"]
    nodes = set()
    for _ in range(200):
        child = SPACE.mutate(arch, rng)
        names = {name for name in {*arch.values, *child.values} if arch.values.get(name) != child.values.get(name)}
        (node,) = {name.partition("/")[0] for name in names}
        nodes.add(node)
    assert len(nodes) == NODES


def test_without_moments_of_the_batch() -> None:
    space = EvoNorm(batch=False)
    assert list(space.named) == ["gn-relu", "gn-silu", "frn", "evonorm-s0", "evonorm-s1", "evonorm-s2"]
    assert not any("bhw" in option for choice in space.choices for option in map(str, choice.options))
    with pytest.raises(ValueError, match="std_bhw, a moment of the batch"):
        space.from_text("x / std_bhw(x)")
    with pytest.raises(UsageError, match="batch is 3"):
        EvoNorm(batch=3)  # type: ignore[arg-type]


def test_signatures_and_screens_use_no_matrix_product_of_a_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose bits would depend on the number of threads."""

    def refused(*args: object, **named: object) -> None:
        raise AssertionError("a matrix product")

    for name in ("dot", "matmul", "tensordot", "inner"):
        monkeypatch.setattr(numpy, name, refused)
    for arch in SPACE.named.values():
        SPACE.identity(arch), SPACE.unsound(arch)


def test_networks_have_the_layer_in_every_slot() -> None:
    size = SPACE.Size(width=4, depth=2, stages=2)
    network = SPACE.build(SPACE.named["evonorm-b0"], image_task((3, 8, 8), 5), size)
    layers = [module for module in network.modules() if isinstance(module, EvoNormLayer)]
    assert [len(each.weight) for each in layers] == [4, 4, 4, 4, 4, 8, 8, 8, 8]
    assert not any(isinstance(module, nn.BatchNorm2d | nn.ReLU) for module in network.modules())
    assert network(torch.randn(2, 3, 8, 8)).shape == (2, 5)


# -- what proxies see ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "each"), [("bn-relu", 1), ("gn-silu", 1), ("evonorm-s0", 1), ("evonorm-b0", 0), ("frn", 0)]
)
def test_patterns_of_activations_are_seen(name: str, each: int) -> None:
    """Of max(x, 0), of silu and of the sigmoid of a gate: one per layer."""
    network = resnet(3, 5, 8, (1, 1), lambda channels, act=True: layer(name, channels))
    layers = [module for module in network.modules() if isinstance(module, EvoNormLayer)]
    assert len(activations(network, (torch.randn(2, 3, 8, 8),))) == each * len(layers) == each * 5


def test_naswot_and_zen_of_the_graph_are_those_of_the_pair() -> None:
    batch = Batch((torch.randn(12, 3, 8, 8, generator=torch.Generator().manual_seed(1)),), torch.arange(12) % 5)
    scores: list[dict[str, float]] = []
    for slot in (
        lambda c, act=True: layer("bn-relu", c),
        lambda c, act=True: nn.Sequential(nn.BatchNorm2d(c), nn.ReLU()),
    ):
        forward = ForwardPass(
            partial(resnet, 3, 5, 8, (1, 1), slot),
            batch,
            lambda output, part: functional.cross_entropy(output, part.target),
            image_task((3, 8, 8), 5),
            needs=Need.CODES,
        )
        scores.append({**Naswot(Naswot.Config()).score(forward), **Zen(Zen.Config()).score(forward)})
    assert scores[0] == pytest.approx(scores[1], rel=1e-3)


def test_one_layer_has_no_codes_and_says_so() -> None:
    """B0 bends by a maximum of two computed values, which is no activation that is told by a sign."""
    batch = Batch((torch.randn(4, 3, 8, 8),), torch.arange(4) % 5)
    forward = ForwardPass(
        partial(resnet, 3, 5, 4, (1,), lambda c, act=True: layer("evonorm-b0", c)),
        batch,
        lambda output, part: functional.cross_entropy(output, part.target),
        image_task((3, 8, 8), 5),
        needs=Need.CODES,
    )
    with pytest.raises(Unscorable, match="no elementwise activation"):
        Naswot(Naswot.Config()).score(forward)
