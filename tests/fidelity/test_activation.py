"""The space of activations: known ones against torch, identities, what is told as unsound, formulas, networks."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.task import image_task
from predictors.function_hooks import activations
from search_spaces.activation import screens
from search_spaces.activation.layer import TORCH, NormalisedActivation, TreeActivation
from search_spaces.activation.space import FORMULAS, UNITS, ActivationSpace
from search_spaces.activation.units import BINARY, CONSTANT, FIRST, UNARY, Operand, Unit, computed
from search_spaces.layers.rational import Rational

SPACE = ActivationSpace()
TREES = [name for name, text in FORMULAS.items() if not text.startswith("rational")]
KNOWN: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "leaky-relu": functional.leaky_relu,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "tanh": torch.tanh,
    "mish": functional.mish,
    "swish": functional.silu,
}

# Never an activation that anybody wants, with the words that they are rejected with.
PLANTED: Mapping[str, str] = {
    "add(b, b)": "blind",
    "sub(x, x)": "constant",
    "near(x, x)": "constant",
    "x": "linear",
    "add(x, leak(x))": "linear",
    "neg(shift(x))": "linear",
    "div(x, sub(x, x))": "linear",  # eps keeps it finite
    "exp(exp(x))": "not finite",
    "exp(cube(x))": "not finite",
    "sinh(sinh(x))": "not finite",
}


def tree_of(text: str) -> TreeActivation:
    tree = SPACE.tree(SPACE.from_text(text))
    assert tree is not None
    return TreeActivation(tree, 4)


def network(name: str, **size: int) -> nn.Module:
    task = image_task((3, 8, 8), 5)
    return SPACE.build(SPACE.named[name], task, SPACE.Size(**{"width": 4, "depth": 1, "stages": 2, **size}))


@pytest.mark.parametrize("name", TREES)
def test_named_activations_are_those_of_torch(name: str) -> None:
    """Values and gradients."""
    assert set(KNOWN) == set(TREES)
    made = tree_of(FORMULAS[name]).double()
    x = torch.linspace(-6, 6, 4 * 50, dtype=torch.float64).reshape(1, 4, 50, 1).requires_grad_()
    y, wanted = made(x), KNOWN[name](x)
    torch.testing.assert_close(y, wanted, rtol=1e-9, atol=1e-9)
    gradients = [torch.autograd.grad(each.sum(), x)[0] for each in (y, wanted)]
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)
    assert (made.b is not None) == (name == "swish")


@pytest.mark.parametrize("version", ["A", "B", "C", "D"])
def test_named_rational_functions_start_as_what_they_say(version: str) -> None:
    arch = SPACE.from_text(f"rational(7/6, {version}, gelu, own)")
    task = image_task((3, 8, 8), 5)
    made = SPACE.build(arch, task, SPACE.Size(width=4, depth=1, stages=1)).eval()
    rationals = [module for module in made.modules() if isinstance(module, Rational)]
    x = torch.linspace(-3, 3, 100)
    for each in rationals:
        assert each.version == version
        assert len(each.numerator) == 8
        assert float((each(x) - functional.gelu(x)).detach().abs().max()) < 0.05


def test_functions_are_the_same_in_numpy_and_torch() -> None:
    x = numpy.linspace(-2.2, 2.3, 40)
    b = numpy.array([[1.0], [0.6]])
    units = [Unit(FIRST, Operand(unary)) for unary in UNARY]
    units += [Unit(binary, Operand("scale"), Operand("tanh")) for binary in BINARY if binary != FIRST]
    for unit in units:
        ours = numpy.broadcast_to(computed((unit,), screens.NUMPY, x, b), (2, 40))
        theirs = computed((unit,), TORCH, torch.tensor(x), torch.tensor(b)).expand(2, 40)
        numpy.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-7, atol=1e-12, err_msg=str(unit))


# -- networks ------------------------------------------------------------------------------------------------------


def test_networks_normalise_and_then_activate() -> None:
    made = network("mish", depth=2)
    layers = [module for module in made.modules() if isinstance(module, NormalisedActivation)]
    assert [layer.norm.num_features for layer in layers] == [4, 4, 4, 4, 4, 8, 8, 8, 8]
    x = torch.randn(5, 4, 6, 6)
    wanted = functional.mish(functional.batch_norm(x, None, None, training=True))
    torch.testing.assert_close(layers[0](x), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layers[0](x[:, :, 0, 0]).shape, x[:, :, 0, 0].shape)
    assert made(torch.randn(2, 3, 8, 8)).shape == (2, 5)


def test_without_the_batch_groups_are_normalised() -> None:
    space = ActivationSpace(batch=False)
    task = image_task((3, 8, 8), 5)
    made = space.build(space.named["relu"], task, space.Size(host="mobilenet", width=4))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in made.modules())
    assert sum(isinstance(module, nn.GroupNorm) for module in made.modules()) > 3
    with pytest.raises(UsageError, match="batch is 3"):
        ActivationSpace(batch=3)  # type: ignore[arg-type]


def test_recurrent_rational_functions_are_one() -> None:
    """In every layer the same module, whose coefficients all layers move, and which a file of weights gives back."""
    torch.manual_seed(0)
    own, shared = network("rational"), network("recurrent-rational")
    count = {len({id(module) for module in made.modules() if isinstance(module, Rational)}) for made in (own, shared)}
    assert count == {5, 1}
    shared(torch.randn(4, 3, 8, 8)).square().sum().backward()
    (one,) = {module for module in shared.modules() if isinstance(module, Rational)}
    assert one.numerator.grad is not None
    with torch.no_grad():
        one.numerator += 0.1
    again = network("recurrent-rational")
    again.load_state_dict({name: value.clone() for name, value in shared.state_dict().items()})
    x = torch.randn(2, 3, 8, 8)
    assert torch.equal(again.eval()(x), shared.eval()(x))


@pytest.mark.parametrize(("name", "seen"), [("relu", 5), ("silu", 5), ("mish", 10), ("gelu", 0)])
def test_patterns_of_activations_are_seen(name: str, seen: int) -> None:
    """Where a function of torch that counts as an activation computes them; x*phi(x) has none."""
    assert len(activations(network(name), (torch.randn(2, 3, 8, 8),))) == seen


# -- identity and soundness ----------------------------------------------------------------------------------------


def test_no_named_activation_is_merged_with_another() -> None:
    assert len({SPACE.identity(arch) for arch in SPACE.named.values()}) == len(SPACE.named) == 9


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("mul(x, sigmoid(x))", "gate(x, x)"),
        ("max(x, neg(x))", "abs(x)"),
        ("add(relu(x), negative(x))", "neg(neg(x))"),
        ("mul(x, mul(x, x))", "cube(x)"),
        ("blend(x, tanh(x))", "add(scale(x), sub(tanh(x), scale(tanh(x))))"),
        ("exp(exp(exp(x)))", "exp(exp(exp(x)))"),
        ("mul(x, b)", "scale(x)"),
    ],
)
def test_activations_that_compute_the_same_have_one_identity(one: str, other: str) -> None:
    assert SPACE.identity(SPACE.from_text(one)) == SPACE.identity(SPACE.from_text(other))
    assert SPACE.identity(SPACE.from_text(one)) != SPACE.identity(SPACE.from_text("atan(x)"))


def test_activations_of_one_identity_agree_elsewhere() -> None:
    """On other inputs and with other b."""
    rng = generator("merged activations")
    classes: dict[str, dict[str, Architecture]] = defaultdict(dict)
    for _ in range(1500):
        arch = moves.sample(SPACE, rng)
        if SPACE.tree(arch) is not None:
            classes[SPACE.identity(arch)].setdefault(SPACE.to_text(arch), arch)
    merged = [list(found) for identity, found in classes.items() if identity.startswith("~") and len(found) > 1]
    assert len(merged) > 10
    x = torch.linspace(-2.7, 2.9, 400, dtype=torch.float64).reshape(1, 4, 100, 1)
    for first, *others in merged:
        made = [tree_of(text).double() for text in (first, *others)]
        for each in made:
            if each.b is not None:
                nn.init.constant_(each.b, 0.83)
        wanted = made[0](x).detach()
        for other in made[1:]:
            close = 1e-3 * float(wanted.abs().max())
            torch.testing.assert_close(other(x).detach(), wanted, rtol=1e-3, atol=close, msg=f"{first} and {others}")


@pytest.mark.parametrize("name", FORMULAS)
def test_named_activations_are_sound(name: str) -> None:
    assert SPACE.unsound(SPACE.named[name]) is None


@pytest.mark.parametrize("text", PLANTED)
def test_planted_activations_are_rejected(text: str) -> None:
    reason = SPACE.unsound(SPACE.from_text(text))
    assert reason is not None
    assert reason.split(":")[0] == PLANTED[text]


def test_what_only_training_bends_is_sound() -> None:
    """max(x, b*x) starts as a line, and is none with another b."""
    assert SPACE.unsound(SPACE.from_text("max(x, scale(x))")) is None


# -- formulas ------------------------------------------------------------------------------------------------------


def test_formulas_are_read_back() -> None:
    for name, arch in SPACE.named.items():
        assert SPACE.to_text(arch) == FORMULAS[name]
        assert SPACE.from_text(SPACE.to_text(arch)) == arch, name
    text = "blend(sin(add(x, b)), mul(add(x, b), sigmoid(x)))"
    assert SPACE.to_text(SPACE.from_text(text)) == text
    tree = SPACE.tree(SPACE.from_text(text))
    assert tree is not None
    assert len(tree) == UNITS  # add(x, b) is one unit, though it is written twice


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mul(x", r"position 6 of .*: the end instead of ','"),
        ("mul(x, sigmod(x))", r"position 8 of .*: 'sigmod' .*did you mean 'sigmoid'"),
        ("tanh(x, x)", r"position 7 of .*: ',' instead of '\)'"),
        ("tanh(x) x", r"position 9 of .*: 'x' instead of the end"),
        ("?", r"position 1 of .*: '\?' instead of x"),
        ("tanh(" * 500 + "x", "nested more than 50"),
        ("exp(exp(exp(exp(x))))", f"more than {UNITS} units"),
        ("rational(5/4, A)", "is not rational"),
        ("rational(5/4, E, silu, own)", "version is 'E', not one of A, B, C, D"),
    ],
)
def test_formulas_that_are_none(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SPACE.from_text(text)


def test_units_that_nothing_reads_are_left_out() -> None:
    arch = SPACE.from_text("mul(x, tanh(softplus(x)))")
    values = {**arch.values, "unit2/in2": "x"}
    bare = moves.complete(SPACE, values, moves.first)
    assert SPACE.to_text(bare) == "mul(x, tanh(x))"
    assert SPACE.graph(bare).nodes == ("input", "id", "tanh", "mul", "output")
    assert SPACE.graph(arch).nodes == ("input", "softplus", "id", "tanh", "mul", "output")
    assert CONSTANT in SPACE.graph(SPACE.from_text("add(x, b)")).nodes
