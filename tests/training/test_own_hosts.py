"""Networks of a user's own as hosts: what a file may hold, which pairs are replaced, and what is said of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_core.errors import NotFoundError, UsageError
from nas_core.task import image_task
from search_spaces.evonorm.layer import EvoNormLayer
from search_spaces.evonorm.space import EvoNorm
from search_spaces.hosts.network import HostSize
from search_spaces.hosts.own import OwnHost, reports
from search_spaces.hosts.pairs import replaced
from search_spaces.hosts.slot import ChannelsLast, LayerSlot
from training.networks import build

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_host.py"
TASK = image_task((3, 8, 8), 5)
SPACE = EvoNorm()

FILE = """
from torch import nn

class Blind(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 20, 1), nn.BatchNorm2d(20), nn.SiLU(), nn.Flatten(), nn.Linear(1280, 5))

    def forward(self, x):
        return self.body(x)

made = Blind(None)

def slots(task, slot, width=4):
    return nn.Sequential(nn.Conv2d(3, width, 1), slot(width), slot(width, act=False), nn.Flatten(),
                         nn.Linear(64 * width, task.outputs))

def flat(slot):
    return nn.Sequential(nn.Flatten(0), slot(4), nn.Linear(4, 5))

def other(slot):
    return nn.Sequential(nn.Conv2d(3, 6, 1), slot(4), nn.Flatten(), nn.Linear(384, 5))

def narrow(slot):
    return nn.Sequential(nn.Conv2d(1, 6, 1), slot(6))

def unused(slot):
    return nn.Linear(1, 1)

def wrong(slot):
    return slot("wide")

def no_module(task):
    return task

def broken(task):
    raise ValueError("no such width")

def pairless():
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.Linear(8, 5))

number = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(FILE)
    return str(tmp_path / "mine.py")


def network(reference: str, layer: str = "evonorm-s0", seed: int = 0) -> nn.Module:
    return build(SPACE, SPACE.named[layer], TASK, HostSize(host=reference), seed)


def layers(model: nn.Module) -> list[int]:
    return [len(module.weight) for module in model.modules() if isinstance(module, EvoNormLayer)]


def test_the_example_is_short_and_works() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 40
    for name, channels in (("net", [12, 12, 12]), ("plain", [12, 24])):
        model = network(f"{EXAMPLE}:{name}")
        assert layers(model) == channels
        assert not any(isinstance(module, nn.ReLU | nn.BatchNorm2d) for module in model.modules())
        assert model(torch.randn(4, 3, 8, 8)).shape == (4, 5)


@pytest.mark.parametrize(
    ("name", "channels"), [("Blind", [20]), ("made", [20]), ("slots", [4]), ("slots(width=6)", [6])]
)
def test_what_a_file_may_hold(file: str, name: str, channels: list[int]) -> None:
    """A class, a module that is there, a function with a slot, and one with arguments."""
    assert layers(network(f"{file}:{name}")) == channels


def test_places_without_activation_have_the_family_of_the_layer(file: str) -> None:
    for layer, norm in (("evonorm-s0", nn.GroupNorm), ("evonorm-b0", nn.BatchNorm2d)):
        assert [type(one) for one in network(f"{file}:slots", layer)][2] is norm  # type: ignore[attr-defined]


def test_weights_depend_on_the_seed_but_those_of_a_module_are_kept(file: str) -> None:
    def weight(model: nn.Module) -> Tensor:
        return next(model.get_submodule("body.0").parameters())

    for name, kept in (("Blind", False), ("made", True)):
        assert torch.equal(*(weight(network(f"{file}:{name}", seed=seed)) for seed in (1, 2))) is kept
    with torch.no_grad():
        weight(network(f"{file}:made")).zero_()
    assert weight(network(f"{file}:made")).abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("flat", r"gives slot\(4\) a tensor \[384\], and a layer takes \[n, 4, \*positions\]"),
        ("other", r"gives slot\(4\) a tensor \[2, 6, 8, 8\]"),
        ("narrow", r"does not run on \[2, 3, 8, 8\]: RuntimeError"),
        ("unused", r"never calls slot\(channels\)"),
        ("wrong", r"slot\('wide'\): the number of channels"),
        ("no_module", "makes a Task, not a torch.nn.Module"),
        ("broken", "cannot be made: ValueError: no such width"),
        ("pairless", "no pair.*looked for a normalisation.*found 2 .ReLU., 3 .BatchNorm1d.; replace one by hand"),
        ("number", "is a int; name a network"),
        ("made(width=3)", "is made already; it takes no arguments"),
    ],
)
def test_what_is_no_host_is_refused(file: str, name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        list(reports([f"{file}:{name}"], TASK))


def test_what_is_not_there_and_sizes(file: str) -> None:
    with pytest.raises(NotFoundError, match="no object 'nett'"):
        HostSize(host=f"{file}:nett").fitted(TASK)
    with pytest.raises(UsageError, match="has a size of its own; leave out width"):
        HostSize(host=f"{file}:made", width=8).fitted(TASK)
    assert HostSize(host=f"{file}:made").fitted(TASK).at("vgg").fitted(TASK).width == 12


def test_reports(file: str) -> None:
    [said] = reports(["resnet", f"{file}:Blind", None], TASK)
    assert "1 pair replaced: body.1 (BatchNorm2d) with body.2 (SiLU); nothing of either kind is left" in said
    assert "4 of 20 channels" in said
    [said] = reports([f"{file}:slots"], TASK)
    assert "1 place of the layer and 1 of a plain normalisation" in said


# -- pairs ---------------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """Functional and shared activations, a normalisation before a sum, one that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = (nn.Conv2d(6, 6, 3, padding=1, bias=False) for _ in range(2))
        self.norm1, self.norm2, self.norm3, self.norm4 = (nn.BatchNorm2d(6) for _ in range(4))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        y = self.relu(x + y)
        z = functional.silu(self.norm3(y))
        twice = self.norm4(z)
        return twice + torch.relu(twice)


def doubled(channels: int) -> nn.Module:
    """A layer that is told from all others."""
    return nn.GroupNorm(1, channels)


def test_only_pairs_are_replaced_and_all_else_computes_what_it_did() -> None:
    torch.manual_seed(0)
    host, x = Residual(), torch.randn(4, 6, 5, 5)
    made, pairs, left = replaced(host, LayerSlot(doubled, True, 2))
    assert pairs == ["norm1 (BatchNorm2d) with relu (ReLU)", "norm3 (BatchNorm2d) with silu"]
    assert left == ["norm2 (BatchNorm2d)", "relu (ReLU)", "norm4 (BatchNorm2d)", "relu"]
    assert set(made.state_dict()) == {
        name for name in host.state_dict() if not name.startswith(("norm1.r", "norm1.n"))
    } - {f"norm3.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    for training in (False, True):
        made.train(training)
        y = host.conv2(functional.group_norm(host.conv1(x), 1))
        y = torch.relu(x + made.norm2(y))  # type: ignore[operator]
        twice = made.norm4(functional.group_norm(y, 1))  # type: ignore[operator]
        torch.testing.assert_close(made(x), twice + torch.relu(twice))


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.act, self.drop = nn.LayerNorm(6), nn.GELU(), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.act(self.norm(x)))


def test_layer_normalisation_has_its_channels_last() -> None:
    made, pairs, left = replaced(Tokens().eval(), LayerSlot(nn.InstanceNorm1d, False, 1))
    assert (pairs, left) == (["norm (LayerNorm) with act (GELU)"], [])
    assert isinstance(made.norm, ChannelsLast)
    assert not made.training
    x = torch.randn(3, 7, 6)
    torch.testing.assert_close(made.eval()(x).mean(1), torch.zeros(3, 6), atol=1e-5, rtol=0)
    assert (made.train()(x) == 0).any()  # dropout is still one


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


class Dropping(Tokens):
    def forward(self, x: Tensor) -> Tensor:
        return functional.dropout(self.act(self.norm(x)), training=self.training)


@pytest.mark.parametrize(
    ("host", "message"),
    [(Branching(), "cannot be traced .*control flow.*by hand"), (Dropping(), "something else while it trains")],
)
def test_what_a_trace_cannot_follow_is_refused(host: nn.Module, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        replaced(host, LayerSlot(doubled, True, 2))


def test_an_own_host_is_what_its_reference_says(file: str) -> None:
    assert OwnHost(f"{file}:made").sized("search", {}) == {}
