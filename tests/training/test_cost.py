"""Parameters, multiply-accumulates and latency."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas_core.architecture import Architecture
from nas_core.choice import Choice
from nas_core.config import SizeConfig
from nas_core.errors import TrialError, UsageError
from nas_core.space import SearchSpace
from nas_core.task import Task
from search_spaces.nasbench201.space import OPERATIONS, NasBench201
from training import cost

IMAGES = Task(kind="image-classification", input_shape=(3, 9, 9), outputs=5)
GRAPH = Task(kind="node-classification", input_shape=(16,), outputs=3, nodes=20, edges=60)
CPU = torch.device("cpu")


class Convolution(SearchSpace):
    """One convolution of chosen width; it counts nothing by itself."""

    name = "convolution"
    choices = (Choice("width", (4, 8)),)
    tasks = frozenset({"image-classification"})

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        width, (channels, _, _) = int(arch.values["width"]), task.input_shape
        return nn.Sequential(
            nn.Conv2d(channels, width, 3, bias=False),
            nn.BatchNorm2d(width),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(width, task.outputs),
        )


class Nodes(Convolution):
    """A linear map of every node."""

    name = "nodes"
    tasks = frozenset({"node-classification"})

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        class Network(nn.Linear):
            def forward(self, x: Tensor, edge_index: Tensor | None = None) -> Tensor:
                assert edge_index is not None
                assert int(edge_index.max()) < len(x)
                return super().forward(x)

        return Network(task.input_shape[0], task.outputs)


def costs(space: SearchSpace, task: Task, names: list[str], width: int = 8) -> dict[str, float]:
    return cost.costs(space, Architecture(space.name, {"width": width}), task, SizeConfig(), names)


def test_counted_by_hand() -> None:
    # 7x7 outputs of 8 channels from 3x3x3 inputs, and a linear map 8 to 5.
    assert costs(Convolution(), IMAGES, ["params", "macs"]) == {
        "params": 27 * 8 + 2 * 8 + 8 * 5 + 5,
        "macs": 49 * 8 * 27 + 8 * 5,
    }
    assert costs(Convolution(), IMAGES, ["macs"]) == {"macs": 49 * 8 * 27 + 8 * 5}
    assert costs(Convolution(), IMAGES, ["params"], width=4) == {"params": 27 * 4 + 2 * 4 + 4 * 5 + 5}
    assert costs(Convolution(), IMAGES, []) == {}


def test_macs_are_of_one_sample_and_the_batch_multiplies() -> None:
    model = nn.Linear(6, 4)
    assert cost.macs(model, (torch.ones(1, 6),)) == 24
    assert cost.macs(model, (torch.ones(5, 6),)) == 120


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_transformer_is_counted_by_hand_though_its_fused_path_hides_it(device: str) -> None:
    layer = nn.TransformerEncoderLayer(16, 2, 64, batch_first=True, device=device)
    projections, attention, inner = 8 * 16 * (3 * 16 + 16), 2 * 2 * 8 * 8 * 8, 2 * 8 * 16 * 64
    network = nn.TransformerEncoder(layer, 3)
    assert cost.macs(network, (torch.ones(1, 8, 16, device=device),)) == 3 * (projections + attention + inner)
    assert torch.backends.mha.get_fastpath_enabled()


def test_shared_parameters_count_once() -> None:
    layer = nn.Linear(3, 3)
    assert cost.params(nn.Sequential(layer, nn.ReLU(), layer)) == 12


class OfAParameter(nn.Module):
    """Gives a module a view of a parameter, as layers do whose moments are of one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(6))
        self.inner = nn.Linear(6, 2)
        self.inner.bias.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(self.weight.reshape(1, 6))


def test_a_module_that_is_given_a_view_of_a_parameter_is_counted() -> None:
    model = OfAParameter()
    assert cost.macs(model, (torch.zeros(1, 2),)) == 12
    assert [each.requires_grad for each in model.parameters()] == [True, True, False]


def test_counting_changes_neither_mode_nor_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout())
    model[1].eval()
    cost.macs(model, cost.sample_inputs(IMAGES))
    assert [module.training for module in model] == [True, False, True]
    assert int(model[1].num_batches_tracked) == 0


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_spaces_own_count_is_that_of_the_counter(operation: str) -> None:
    space = NasBench201()
    size = space.Size(channels=4, cells=2)
    names = [choice.name for choice in space.choices]
    # Edges that all reach the output: one that does not is counted by the space but not computed.
    arch = Architecture(space.name, dict.fromkeys(names[:-1], "skip_connect") | {names[-1]: operation})
    own = cost.costs(space, arch, IMAGES, size, ["params", "macs"])
    model = space.build(arch, IMAGES, size)
    assert own == {"params": cost.params(model), "macs": cost.macs(model, cost.sample_inputs(IMAGES))}


def test_a_network_that_the_meta_device_refuses_is_counted_on_the_cpu() -> None:
    class Picky(Convolution):
        def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
            model = super().build(arch, task, size)
            assert next(model.parameters()).abs().sum().item() > 0  # a value is read
            return model

    for names in (["params"], ["macs"], ["params", "macs"]):
        assert costs(Picky(), IMAGES, names) == costs(Convolution(), IMAGES, names)


def test_nothing_is_built_where_the_space_counts_and_a_latency_builds_once() -> None:
    built: list[str] = []

    class Watched(Convolution):
        def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
            model = super().build(arch, task, size)
            built.append(next(model.parameters()).device.type)
            return model

    class Counting(Watched):
        def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> dict[str, float]:
            return {"params": 3, "macs": 4}

    for space, names, wanted in (
        (Watched(), ["params", "macs"], ["meta"]),
        (Watched(), list(cost.COSTS), ["cpu"]),
        (Counting(), ["params", "macs"], []),
        (Counting(), list(cost.COSTS), ["cpu"]),
    ):
        built.clear()
        found = costs(space, IMAGES, names)
        assert (built, list(found)) == (wanted, names)
    assert costs(Counting(), IMAGES, ["macs"]) == {"macs": 4}


def test_counting_parameters_draws_no_random_numbers() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    costs(Convolution(), IMAGES, ["params", "macs"])
    assert torch.equal(torch.rand(2), wanted)


class Messages(Nodes):
    """The nodes before an edge, added up at its end: a layer of the library's, or by hand."""

    def __init__(self, way: str) -> None:
        self.way = way

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        from torch_geometric.nn import GCNConv, SimpleConv

        way = self.way

        class ByHand(nn.Module):
            def forward(self, x: Tensor, edge_index: Tensor) -> Tensor:
                if way == "index":
                    return torch.zeros_like(x).index_add(0, edge_index[1], x[edge_index[0]])
                if way == "scatter":
                    return torch.zeros_like(x).scatter_add(
                        0, edge_index[1].unsqueeze(1).expand(-1, 16), x[edge_index[0]]
                    )
                links = torch.sparse_coo_tensor(edge_index.flip(0), torch.ones(60), (20, 20), check_invariants=False)
                return torch.sparse.mm(links, x) if way == "sparse" else links @ x

        return {"layer": SimpleConv(), "gcn": GCNConv(16, 3, add_self_loops=False)}.get(way) or ByHand()


@pytest.mark.parametrize("way", ["layer", "index", "scatter", "sparse", "product"])
def test_messages_cost_one_per_feature(way: str) -> None:
    assert costs(Messages(way), GRAPH, ["macs"]) == {"macs": 60 * 16}


def test_degrees_are_no_messages() -> None:
    assert costs(Messages("gcn"), GRAPH, ["macs"]) == {"macs": 20 * 16 * 3 + 60 * 3}


@pytest.mark.skipif(not hasattr(torch.nn.functional, "grouped_mm"), reason="a later torch has them on the CPU")
def test_grouped_products() -> None:
    """Two groups of the rows, of the inner dimension, of the columns; and a product per group."""
    ends = torch.tensor([16, 24], dtype=torch.int32)
    rows, wide, square = torch.ones(24, 16), torch.ones(16, 24), torch.ones(2, 16, 8)
    for one, other, offsets, wanted in (
        (rows, square, ends, 24 * 16 * 8),
        (wide, rows, ends, 16 * 24 * 16),
        (square.transpose(1, 2), wide, ends, 8 * 16 * 24),
        (square.transpose(1, 2), square, None, 2 * 8 * 16 * 8),
    ):

        class Grouped(nn.Module):
            def forward(self, one: Tensor, other: Tensor, offsets: Tensor | None) -> Tensor:
                return torch._grouped_mm(one.bfloat16(), other.bfloat16(), offs=offsets)

        assert cost.macs(Grouped(), (one, other, offsets)) == wanted


def test_graph_networks() -> None:
    assert costs(Nodes(), GRAPH, ["params", "macs"]) == {"params": 16 * 3 + 3, "macs": 20 * 16 * 3}
    assert costs(Nodes(), GRAPH, ["latency_ms"])["latency_ms"] > 0
    with pytest.raises(UsageError, match="set nodes and edges"):
        costs(Nodes(), GRAPH.model_copy(update={"nodes": None}), ["latency_ms"])


def test_errors() -> None:
    class Broken(Convolution):
        def build(self, arch: Architecture, task: Task, size: SizeConfig) -> Any:
            raise RuntimeError("too wide")

    with pytest.raises(UsageError, match="unknown cost 'param'; did you mean 'params'"):
        costs(Convolution(), IMAGES, ["param"])
    for name in cost.COSTS:
        with pytest.raises(TrialError, match="exception: RuntimeError: too wide"):
            costs(Broken(), IMAGES, [name])
