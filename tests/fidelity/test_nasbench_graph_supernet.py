"""The relaxation of NAS-Bench-Graph: mixed inputs, raw features that are passed on, leaf gates, the sliced head."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest

from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.config import validate
from nas_core.one_shot import Compute
from nas_core.relax import Mix, Style
from nas_core.strategy import Setting
from nas_core.task import NODE_CLASSIFICATION, Task
from search_spaces.nasbench_graph.space import NAMES, OPERATIONS, TOPOLOGIES, GraphSize, NasBenchGraph

if TYPE_CHECKING:
    from torch import Tensor

    from search_spaces.supernet.supernet import Supernet

SPACE = NasBenchGraph()
TASK = Task(kind=NODE_CLASSIFICATION, input_shape=(12,), outputs=3, nodes=20, edges=40)
SIZE = GraphSize.preset("search", hidden=8)
SKIP = OPERATIONS.index("skip")


def graph(task: Task = TASK) -> tuple[Tensor, Tensor]:
    import torch

    generator = torch.Generator().manual_seed(0)
    features = torch.randn((task.nodes or 0, task.input_shape[0]), generator=generator)
    return features, torch.randint(0, task.nodes or 0, (2, task.edges or 0), generator=generator)


def supernet(task: Task = TASK, size: GraphSize = SIZE, style: Style = Style.SUPERNET) -> Supernet:
    """In evaluation mode, with running statistics that passes have moved."""
    import torch

    from search_spaces.supernet.supernet import Supernet

    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = Supernet(SPACE, task, size, style)
        with torch.no_grad():
            for _ in range(2):
                made(graph(task), made.mix(soft(made)))
    return made.eval()


def soft(made: Supernet) -> dict[str, Tensor]:
    import torch

    return {name: torch.randn(len(group.options)).softmax(0) for name, group in made.groups.items()}


def values(topology: str, operations: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(("topology", *NAMES), (topology, *operations), strict=True))


def one_hot(made: Supernet, taken: dict[str, Any]) -> dict[str, Tensor]:
    import torch

    return {
        name: torch.tensor([float(option == taken[name]) for option in group.options])
        for name, group in made.groups.items()
    }


PATTERNS = [
    Architecture(
        SPACE.name, values(topology, tuple("skip" if skip else OPERATIONS[(seed + 3 * k) % 8] for k, skip in skips))
    )
    for seed, (topology, pattern) in enumerate(product(TOPOLOGIES, product((False, True), repeat=4)))
    if not all(pattern)
    for skips in [list(enumerate(pattern))]
]
"""Every topology with every pattern of skips."""


# -- the built network is what it was ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("notation", "training", "evaluation"),
    [
        ("0011:gat,cheb,sage,skip", (-0.646507, -0.520094, 0.217500), (-0.681179, -0.555045, 0.329597)),
        ("0122:skip,arma,gin,gcn", (0.045210, -0.192236, 0.027998), (0.063038, -0.466075, 0.139771)),
        ("0013:graph,fc,gcn,gat", (0.070588, -0.232324, 0.062789), (-0.125637, -0.185120, 0.022320)),
    ],
)
def test_built_networks_kept_weights_and_outputs(
    notation: str, training: tuple[float, ...], evaluation: tuple[float, ...]
) -> None:
    """Recorded before the description was relaxed: the same draws, in the same order."""
    import torch

    torch.manual_seed(0)
    model = SPACE.build(SPACE.from_text(notation), TASK, SIZE)
    assert model(*graph())[0].tolist() == pytest.approx(training, abs=2e-5)
    assert model.eval()(*graph())[0].tolist() == pytest.approx(evaluation, abs=2e-5)
    heads = {name.rsplit(".", 1)[0] for name, _ in model.named_parameters() if not name.startswith("operations")}
    assert heads == {"norms.0", "norms.1", "norms.2", "norms.3", "join", "classify"}


# -- groups ------------------------------------------------------------------------------------------


def test_groups() -> None:
    groups = supernet().groups
    assert tuple(groups) == ("topology", *NAMES)
    assert groups["topology"].options == TOPOLOGIES
    assert not any(groups["topology"].weighted)
    for name in NAMES:
        assert groups[name].options == OPERATIONS
        assert groups[name].weighted == (*[True] * 8, False)


def test_assignment_is_the_representative() -> None:
    arch = SPACE.from_text("0121:gcn,gin,fc,cheb")
    assert SPACE.assignment(arch) == values("0112", ("gcn", "gin", "cheb", "fc")) == dict(arch.values)
    skips = Architecture(SPACE.name, values("0000", ("gcn", "skip", "fc", "gat")))
    assert SPACE.assignment(skips) == values("0111", ("skip", "gat", "gcn", "fc"))


def test_derived_architectures_are_representatives() -> None:
    import torch

    made = supernet()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for _ in range(50):
            derived = made.derive(soft(made))
            assert SPACE.to_text(derived) == SPACE.identity(derived)
    for arch in PATTERNS:
        assert SPACE.identity(made.derive(one_hot(made, dict(arch.values)))) == SPACE.identity(arch)


def test_four_skips_derive_the_next_operation() -> None:
    import torch

    made = supernet()
    scores = {name: torch.zeros(9) for name in made.groups}
    for name in NAMES:
        scores[name][SKIP] = 0.6
        scores[name][OPERATIONS.index("sage")] = 0.4
    assert SPACE.to_text(made.derive(scores)) == "0123:skip,skip,skip,sage"


# -- the mixture -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [TASK, TASK.model_copy(update={"input_shape": (SIZE.hidden,)})], ids=["12", "8"])
def test_all_topologies_and_skips(task: Task) -> None:
    """A path is the extracted network: whatever reads raw features, passes them on or is a leaf, and also where the
    shapes of operations on raw and on hidden features do not tell them apart."""
    import torch

    made, inputs = supernet(task), graph(task)
    with torch.no_grad():
        for arch in PATTERNS if task == TASK else PATTERNS[::5]:
            path = made(inputs, made.mix_of(arch))
            assert torch.isfinite(path).all()
            torch.testing.assert_close(path, made.extract(arch)(*inputs), atol=1e-5, rtol=1e-5)


def test_a_mixture_is_what_the_formulas_say() -> None:
    """With P[k, j] the share in which node k reads node j: R_k = sum_j P[k, j] r_j, r_k = R_k w_skip, and
    h_k = R_k sum_o w_o o_raw(x) + (1 - R_k) sum_o w_o o_hidden(relu(norm(sum_j P[k, j] h_j)))."""
    import torch

    made, inputs = supernet(), graph()
    features, edges = inputs
    with torch.random.fork_rng():
        torch.manual_seed(1)
        weights = soft(made)
    network = made.network
    P, gates = torch.zeros(5, 5), torch.zeros(5)
    for weight, topology in zip(weights["topology"], TOPOLOGIES, strict=True):
        for node, digit in enumerate(topology, start=1):
            P[node, int(digit)] += weight
            gates[node] += weight * (str(node) not in topology)
    r, h = torch.zeros(5), torch.zeros(5, 20, 8)
    r[0] = 1
    with torch.no_grad():
        for node in range(1, 5):
            w, R = weights[NAMES[node - 1]], P[node] @ r
            place = network.operations[node - 1]
            raw = (place if node == 1 else place["raw"]).operations
            h[node] = R * sum(w[o] * raw[o](features, edges) for o in range(8))
            if node > 1:
                norm = network.norms[node - 1]
                state = torch.relu(norm(torch.einsum("j,jnd->nd", P[node], h)))
                h[node] += (1 - R) * sum(w[o] * place["hidden"].operations[o](state, edges) for o in range(9))
            r[node] = R * w[SKIP]
        slices = [torch.relu(h[n]) * gates[n] @ network.join.slices[str(n)].T for n in range(1, 5)]
        expected = network.classify(sum(slices) + network.join.bias)
        torch.testing.assert_close(made(inputs, made.mix(weights)), expected, atol=1e-5, rtol=1e-5)


def test_a_path_runs_its_operations_and_no_others() -> None:
    import torch

    made, inputs = supernet(), graph()
    calls: list[str] = []
    for name, module in made.network.operations.named_modules():
        if name.rpartition(".")[0].endswith("operations"):
            module.register_forward_pre_hook(lambda module, inputs, name=name: calls.append(name))
    for notation, expected in {
        "0123:skip,gcn,fc,gat": ["1.raw.operations.1", "2.hidden.operations.7", "3.hidden.operations.0"],
        "0000:gat,gcn,gin,fc": [
            "0.operations.0", "1.raw.operations.1", "2.raw.operations.2", "3.raw.operations.7",
        ],
        "0112:gcn,gat,skip,gin": [
            "0.operations.1", "1.hidden.operations.0", "2.hidden.operations.8", "3.hidden.operations.2",
        ],
    }.items():  # fmt: skip
        calls.clear()
        with torch.no_grad():
            made(inputs, made.mix_of(SPACE.from_text(notation)))
        assert calls == expected


def test_edges_are_prepared_once_per_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three ways to normalise them, for 21 layers that need one."""
    import torch

    from search_spaces.layers import graph_batch as gnn

    made, inputs, calls = supernet(), graph(), []
    normalise = gnn.gcn_norm
    monkeypatch.setattr(gnn, "gcn_norm", lambda *given, **named: calls.append(1) or normalise(*given, **named))
    with torch.no_grad():
        made(inputs, made.mix(soft(made)))
    assert len(calls) == 3


def test_what_no_leaf_needs_stays_as_it_is() -> None:
    """Slices of the head of nodes that are read, and both kinds of an operation that is taken in one of them."""
    import torch

    made, inputs = supernet().train(), graph()
    optimizer = torch.optim.SGD(made.parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    made(inputs, made.mix(soft(made))).square().mean().backward()
    optimizer.step()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    made.zero_grad(set_to_none=True)
    made(inputs, made.mix_of(SPACE.from_text("0112:gcn,gin,fc,gat"))).square().mean().backward()  # leaves 3 and 4
    optimizer.step()
    for node, moved in enumerate((False, False, True, True), start=1):
        assert torch.equal(made.network.join.slices[str(node)], before[f"network.join.slices.{node}"]) != moved
    for node in range(2, 5):
        raw = made.network.operations[node - 1]["raw"]
        assert all(parameter.grad is None for parameter in raw.parameters())


def test_the_head_is_joined_from_the_slices_of_the_leaves() -> None:
    import torch

    made = supernet()
    extracted = made.extract(SPACE.from_text("0112:gcn,gin,fc,gat"))
    slices = made.network.join.slices
    assert torch.equal(extracted.join.weight, torch.cat([slices["3"], slices["4"]], dim=1))
    assert torch.equal(extracted.join.bias, made.network.join.bias)


def test_in_search_style_the_mixing_weight_is_the_scale() -> None:
    """Every operation but skip ends normalised, without parameters of the normalisation."""
    import torch

    made = supernet().train()
    features, edges = graph()
    for mixed in (made.network.operations[0], made.network.operations[2]["raw"]):
        for position, candidate in enumerate(mixed.operations):
            if position != SKIP:
                output = candidate(1000 * features, edges)
                assert torch.allclose(output.mean(0), torch.zeros(8), atol=1e-4)
                assert torch.all(output.var(0, unbiased=False) < 1.01)
    names = [name for name, _ in made.named_parameters()]
    assert not any("norm" in name for name in names)
    assert any("norms.0.weight" in name for name, _ in supernet(style=Style.STANDALONE).named_parameters())


def test_sparse_features_in_evaluation() -> None:
    """Of a graph that travels with its edges a bag of words is multiplied as a sparse matrix; of plain tensors not."""
    import torch

    from search_spaces.layers.graph_batch import GraphBatch

    made, (features, edges) = supernet(), graph()
    words = (features > 2.0).float()
    batch = GraphBatch(edges, len(words))
    carrier = batch.carrier(words)
    assert batch.sparse(words) is not None
    arch = SPACE.from_text("0011:gat,cheb,gin,fc")
    with torch.no_grad():
        torch.testing.assert_close(
            made((words, carrier), made.mix_of(arch)), made.extract(arch)(words, edges), atol=1e-5, rtol=1e-5
        )


def test_nothing_but_skips_is_still_a_network() -> None:
    """A sampler that draws every group by itself can draw it: the answer is the head's, with its gradients, and the
    topology's weights get theirs as numbers."""
    import torch

    made, inputs = supernet().train(), graph()
    active = {"topology": (0,), **dict.fromkeys(NAMES, (SKIP,))}
    output = made(inputs, Mix(active))
    assert torch.equal(output, made.network.classify(made.network.join.bias).expand(20, 3))
    output.sum().backward()
    assert made.network.join.bias.grad is not None
    weights = {name: torch.tensor([1.0] + [0.0] * 8, requires_grad=True) for name in made.groups}
    scalars = {name: tuple(i for i in range(9) if i not in active[name]) for name in made.groups}
    made(inputs, Mix(active, weights, scalars)).sum().backward()
    assert weights["topology"].grad is not None
    assert weights["topology"].grad[1:].abs().min() > 0


def test_the_unselected_are_added_as_numbers() -> None:
    """Once per kind of operation that runs, and for topologies to the joined leaves."""
    import torch

    made, inputs = supernet(), graph()
    arch = SPACE.from_text("0123:gcn,gin,fc,gat")
    path = made.mix_of(arch)
    for name in made.groups:
        weights = {name: one_hot(made, dict(arch.values))[name].requires_grad_()}
        others = tuple(i for i in range(9) if i not in path.active[name])
        output = made(inputs, Mix(path.active, weights, {name: others}))
        assert torch.allclose(output, made(inputs, path), atol=1e-6)
        output.sum().backward()
        gradient = weights[name].grad
        assert gradient is not None
        assert len(set(gradient[list(others)].tolist())) == 1
        if name == "topology":
            assert float(gradient[others[0]]) == pytest.approx(20 * made.network.classify.weight.sum().item(), rel=1e-4)


# -- strategies --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["darts", "gdas", "spos"])
def test_strategies_run_resume_and_derive(name: str) -> None:
    """Three epochs on a graph; after the first again from its state: the same weights to the bit."""
    import torch

    import strategies
    from nas_core.space import SearchSpace
    from search_spaces.supernet.supernet import Supernet
    from training.data import load

    data = load("karate").bind("cpu")
    kind = refs.find(name, strategies.ONE_SHOT, strategies.GROUP, "strategy")
    config = validate(kind.Config, {"epochs": 3}, name)

    def make() -> Supernet:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Supernet(SPACE, data.task, SIZE)

    def start() -> Any:
        strategy = kind(Setting(SPACE, 5, ()), config)
        torch.manual_seed(0)
        strategy.start(make, data, Compute())
        return strategy

    def go_on(strategy: Any, first: int) -> Any:
        for epoch in range(first, 3):
            torch.manual_seed(epoch)
            progress = strategy.step(epoch)
            if progress.arch is not None:
                assert SearchSpace.illegal(SPACE, progress.arch) is None
        return strategy

    whole, part, resumed = start(), start(), start()
    torch.manual_seed(0)
    part.step(0)
    resumed.load_state_dict(part.state_dict())
    go_on(whole, 0)
    go_on(resumed, 1)
    state = whole.supernet.state_dict()
    assert any(not torch.equal(state[key], tensor) for key, tensor in make().state_dict().items())
    assert all(torch.equal(state[key], tensor) for key, tensor in resumed.supernet.state_dict().items())
    assert [arch.key for arch in whole.result()] == [arch.key for arch in resumed.result()]
    assert len(whole.result()) == (name != "spos")
