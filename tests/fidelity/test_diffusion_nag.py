"""DiffusionNAG: operation matrices, noise-aware predictors, guidance, and the search that is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy
import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor

import search_spaces
from nas_core import moves, refs
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import validate
from nas_core.errors import UsageError
from nas_core.evaluation import Objective
from nas_core.graph import ArchGraph
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Outcome, Pending, Proposal, Setting, State, Wanted
from search_spaces.nasbench201.space import NasBench201
from strategies.diffusion import reverse
from strategies.diffusion.config import NoisyConfig
from strategies.diffusion.nag import DiffusionNag
from strategies.diffusion.noisy import NoisyEnsemble, NoisyPropertyBound
from strategies.diffusion.operation_matrix import OperationMatrix
from strategies.diffusion.sde import VE, UniformTime

QUALITY = (Objective("quality", "max"),)
CELLS = NasBench201()
MATRICES = OperationMatrix(CELLS)
SHAPE = (MATRICES.count, len(MATRICES.vocabulary))
WORTH = dict(zip(CELLS.choices[0].options, (-1.0, 0.5, 0.7, 1.0, -0.2), strict=True))


def quality(arch: Architecture) -> float:
    """A sum over the operations, the later edges counting more."""
    return sum((1 + place / 5) * WORTH[value] for place, value in enumerate(arch.values.values()))


def convolutions(arch: Architecture) -> float:
    return float(sum("conv" in str(value) for value in arch.values.values()))


def some(count: int, *words: int | str) -> list[Architecture]:
    rng = generator(*words)
    return [moves.sample(CELLS, rng) for _ in range(count)]


# -- operation matrices -----------------------------------------------------------------------------------


def test_the_vocabulary_is_the_published_one() -> None:
    assert MATRICES.vocabulary == (
        "input", "output", "none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3",
    )  # fmt: skip


def test_nodes_are_numbered_as_published() -> None:
    """`get_adj` of the published code."""
    rows = {0: {1, 2, 3}, 1: {4, 5}, 2: {6}, 3: {7}, 4: {6}, 5: {7}, 6: {7}, 7: set()}
    assert {node: set(numpy.flatnonzero(row)) for node, row in enumerate(MATRICES.adjacency)} == rows


def test_the_mask_is_the_closure_with_every_node_itself() -> None:
    rows = {0: set(range(8)), 1: {1, 4, 5, 6, 7}, 2: {2, 6, 7}, 3: {3, 7}, 4: {4, 6, 7}, 5: {5, 7}, 6: {6, 7}, 7: {7}}
    assert {node: set(numpy.flatnonzero(row)) for node, row in enumerate(MATRICES.reach)} == rows


def test_edges_are_the_nodes_they_lead_between() -> None:
    """Edges 1<-0, 2<-0, 3<-0, 2<-1, 3<-1, 3<-2, as the adjacency has them."""
    named = [(choice.name, label[0]) for choice, label in zip(CELLS.choices, MATRICES.labels, strict=True) if label]
    assert sorted(named, key=lambda one: one[1]) == [
        ("cell/edge.0-1", 1), ("cell/edge.0-2", 2), ("cell/edge.0-3", 3),
        ("cell/edge.1-2", 4), ("cell/edge.1-3", 5), ("cell/edge.2-3", 6),
    ]  # fmt: skip


def test_every_architecture_comes_back() -> None:
    archs = list(moves.enumerate_all(CELLS))
    matrices = MATRICES.encode(archs)
    assert matrices.shape == (15_625, *SHAPE)
    assert set(numpy.unique(matrices)) == {-1.0, 1.0}
    assert (matrices.sum(-1) == 2 - SHAPE[1]).all()
    noise = generator("noise").uniform(-0.99, 0.99, matrices.shape)
    assert MATRICES.decode(matrices + noise) == archs


@pytest.mark.parametrize(
    ("node", "label", "entry"),
    [
        (3, "none", 0.01),  # two ones
        (3, None, -0.01),  # no one
        (0, "none", 1.0),  # the input is no operation
        (7, "input", 1.0),
        (4, "input", 1.0),  # an operation is no input
        (4, "output", 1.0),
    ],
)
def test_no_architecture(node: int, label: str | None, entry: float) -> None:
    """A one is an entry above 0 (0.5 before the scaling). Rows have exactly one; input and output have their places."""
    arch = moves.complete(CELLS, {}, lambda choice, options: "skip_connect")
    row = MATRICES.encode([arch, arch])
    if label is None or entry == 1.0:
        row[0, node] = min(entry, -0.01)
    if label is not None:
        row[0, node, MATRICES.vocabulary.index(label)] = entry
    assert MATRICES.decode(row) == [None, arch]


@pytest.mark.parametrize(
    ("name", "reason"),
    {
        "nasbench_graph": "choice 'topology' changes which nodes or edges there are",
        "regnet": "choice 'depth' changes which nodes or edges there are",
        "ae-cnn": "choice 'length' changes which nodes or edges there are",
        "darts": "changes which nodes or edges there are",
        "nasnet": "changes which nodes or edges there are",
    }.items(),
)
def test_spaces_without_a_fixed_topology_are_refused(name: str, reason: str) -> None:
    space = refs.load(name, search_spaces.BUILTIN, search_spaces.GROUP, "space").object
    with pytest.raises(UsageError, match=reason) as refused:
        DiffusionNag(Setting(space, 0, QUALITY), DiffusionNag.Config())
    assert str(refused.value).endswith("; use diffusion")
    assert f"'{name}'" in str(refused.value)
    assert refused.value.exit_code == 2


class Chain(SearchSpace):
    """A chain of three nodes whose labels are the values of three choices."""

    name = "chain"
    tasks = frozenset({"image-classification"})
    choices: tuple[Choice, ...] = tuple(Choice(name, ("a", "b", "c")) for name in ("x", "y", "z"))

    def labels(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        return tuple(str(value) for value in values.values())

    def graph(self, arch: Architecture) -> ArchGraph:
        labels = ("in", *self.labels(arch.values), "out")
        return ArchGraph(labels, tuple((node, node + 1) for node in range(len(labels) - 1)), fixed_topology=True)


class Undeclared(Chain):
    def graph(self, arch: Architecture) -> ArchGraph:
        return ArchGraph(super().graph(arch).nodes, super().graph(arch).edges)


class Twice(Chain):
    def labels(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        return (str(values["x"]), str(values["y"]), f"{values['x']} again")


class Joined(Chain):
    def labels(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        return (str(values["x"]), f"{values['y']}{values['z']}", "fixed")


class Alike(Chain):
    def labels(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        return (str(values["x"]), str(values["y"]), "a" if values["z"] == "a" else "b or c")


class Depending(Chain):
    def labels(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        return (str(values["x"]), f"after {values['x']}: {values['y']}", str(values["z"]))


class Conditional(Chain):
    choices = (*Chain.choices[:2], Choice("z", ("a", "b"), when=(When("x", ("a",)),)))

    def labels(self, values: Mapping[str, Value]) -> tuple[str, ...]:
        return (str(values["x"]), str(values["y"]), str(values.get("z", "none")))


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (Undeclared, r"graphs are not declared .* \(ArchGraph.fixed_topology\)"),
        (Twice, "choice 'x' changes the labels of 2 nodes"),
        (Joined, "choices 'y' and 'z' label the same node"),
        (Alike, "'[bc]' and '[bc]' of choice 'z' are the same graph"),
        (Depending, "choice 'x' changes the labels of 2 nodes"),
        (Conditional, "choice 'z' is not always there"),
    ],
)
def test_the_reason_says_which_choice_does_what(space: type[SearchSpace], reason: str) -> None:
    with pytest.raises(UsageError, match=f"in space 'chain' .*{reason}; use diffusion"):
        OperationMatrix(space())


class Rising(Chain):
    """No choice is followed by an earlier letter, and one has no options left to choose from."""

    choices = (*Chain.choices, Choice("w", ("only",)))

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        return tuple(option for option in choice.options if all(value <= option for value in prefix.values()))  # type: ignore[operator]


def test_matrices_of_what_a_space_does_not_allow_are_none() -> None:
    matrix = OperationMatrix(Rising())
    archs = list(moves.enumerate_all(matrix.space))
    assert len(archs) == 10
    assert matrix.decode(matrix.encode(archs)) == archs
    illegal = Architecture("chain", {"x": "b", "y": "a", "z": "c", "w": "only"})
    assert matrix.decode(matrix.encode([illegal])) == [None]


# -- noise-aware predictors -------------------------------------------------------------------------------


levels = UniformTime(VE())


@pytest.fixture(scope="module")
def predictor() -> NoisyEnsemble:
    archs = some(120, "examples")
    values = numpy.array([quality(arch) for arch in archs])
    made = NoisyEnsemble(MATRICES, NoisyConfig(), 0)
    made.fit(MATRICES.encode(archs), (values - values.mean()) / values.std(), levels)
    return made


def noisy(archs: Sequence[Architecture], sigma: float) -> Tensor:
    clean = torch.from_numpy(MATRICES.encode(archs))
    return clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 4.0])
def test_the_gradient_is_that_of_finite_differences(predictor: NoisyEnsemble, sigma: float) -> None:
    """Along itself, where the difference is largest, and along random directions."""
    x = noisy(some(64, "points"), sigma)
    gradient = predictor.gradient(x, torch.full((64,), sigma))
    step = 2e-3 * sigma
    for direction in (gradient, torch.randn(x.shape, generator=torch.Generator().manual_seed(3))):
        unit = direction / direction.flatten(1).norm(dim=1).clamp_min(1e-9)[:, None, None]
        ends = [predictor.predict((x + side * step * unit).numpy(), sigma)[0] for side in (1, -1)]
        expected = (gradient * unit).sum((1, 2)).double().numpy()
        found = (ends[0] - ends[1]) / (2 * step)
        assert numpy.median(numpy.abs(found - expected)) < 0.02 * numpy.abs(expected).max()
        assert numpy.corrcoef(found, expected)[0, 1] > 0.99


def test_what_is_expected_is_the_less_the_noisier(predictor: NoisyEnsemble) -> None:
    archs = some(500, "others")
    truth = [quality(arch) for arch in archs]
    found = [predictor.predict(noisy(archs, sigma).numpy(), sigma)[0] for sigma in (0.1, 0.7, 1.5, 5.0)]
    ranks = [float(spearmanr(truth, means)[0]) for means in found]
    assert ranks == sorted(ranks, reverse=True)
    assert ranks[0] > 0.9
    assert ranks[1] > 0.5
    assert ranks[-1] < 0.3
    assert found[-1].std() < 0.5 * found[0].std()  # it shrinks to the mean of all


def test_predictors_depend_on_their_seed_alone() -> None:
    archs = some(20, "few")
    values = numpy.array([quality(arch) for arch in archs])
    config = NoisyConfig(steps=5, members=2)
    found = []
    for seed, threads in ((0, 1), (0, 2), (1, 1)):
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        torch.manual_seed(threads)
        expected = torch.Generator().manual_seed(threads).get_state()
        made = NoisyEnsemble(MATRICES, config, seed)
        made.fit(MATRICES.encode(archs), values, levels)
        mean, deviation = made.predict(MATRICES.encode(archs))
        assert torch.equal(torch.get_rng_state(), expected)  # torch's own generator is left alone
        torch.set_num_threads(before)
        assert (deviation > 0).all()  # members differ
        found.append(mean.tolist())
    assert found[0] == found[1] != found[2]


def test_a_bound_is_the_share_of_what_satisfies_it() -> None:
    """In much noise the probability is that of all architectures, in none that of the one."""
    archs = some(400, "costs")
    wanted = Wanted(tuple(archs), tuple(map(convolutions, archs)), 1, True)
    bound = NoisyPropertyBound(MATRICES, wanted, levels, 0, NoisyConfig(members=1, steps=300, batch=64))
    others = some(300, "others")
    truth = numpy.array([convolutions(arch) <= 1 for arch in others])
    assert (bound.met(others) == truth).mean() > 0.98
    clean = bound.log_probability(noisy(others, 0.1), torch.full((300,), 0.1)).exp().numpy()
    assert ((clean > 0.5) == truth).mean() > 0.95
    blind = bound.log_probability(noisy(others, 5.0), torch.full((300,), 5.0)).exp().numpy()
    assert abs(blind.mean() - (0.6**6 + 6 * 0.4 * 0.6**5)) < 0.08
    assert blind.std() < 0.15


# -- guidance ---------------------------------------------------------------------------------------------


class Exact:
    """The score of the uniform distribution over the cells: rows are independent, so it is known."""

    schedule = VE()

    def levels(self, count: int, random: torch.Generator) -> Tensor:
        return levels(count, random)

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma[:, None, None].square()
        likely = (2 * x / level).masked_fill(~torch.from_numpy(MATRICES.support), -math.inf).softmax(-1)
        return (2 * likely - 1 - x) / level


def drawn(guidance: Callable[[Tensor, Tensor], Tensor] | None, count: int = 64) -> list[Architecture]:
    rows = reverse.heun(Exact(), (count, *SHAPE), torch.Generator().manual_seed(1), guidance=guidance)
    found = [arch for arch in MATRICES.decode(rows.numpy()) if arch is not None]
    assert len(found) >= 0.95 * count
    return found


def test_guidance_leads_to_what_is_predicted_to_be_good(predictor: NoisyEnsemble) -> None:
    means = []
    for scale in (0.0, 1.0, 4.0, 16.0):

        def guidance(x: Tensor, sigma: Tensor, scale: float = scale) -> Tensor:
            return scale * predictor.gradient(x, sigma)

        archs = drawn(guidance if scale else None)
        means.append((predictor.predict(MATRICES.encode(archs))[0].mean(), numpy.mean([quality(a) for a in archs])))
    assert means == sorted(means)
    predicted, real = zip(*means, strict=True)
    assert predicted[-1] > predicted[0] + 1  # a standard deviation of random architectures
    assert real == tuple(sorted(real))


# -- the search -------------------------------------------------------------------------------------------


class Nag(DiffusionNag):
    """With the exact score in place of a trained network."""

    @cached_property
    def score(self) -> Any:  # type: ignore[override]
        return Exact()


def setting(seed: int = 0, **given: Any) -> Setting:
    return Setting(CELLS, seed, QUALITY, identity=CELLS.identity, **given)


def told(strategy: DiffusionNag, archs: Sequence[Architecture]) -> None:
    for number, arch in enumerate(archs):
        strategy.tell(Outcome(number, Proposal(arch), State.COMPLETE, (quality(arch),)))


def different(count: int, *words: int | str) -> list[Architecture]:
    found = {CELLS.identity(arch): arch for arch in some(2 * count, *words)}
    return list(found.values())[:count]


SMALL: dict[str, Any] = {"pool": 32, "predictor": {"steps": 80}}


def made(given: Setting, **config: Any) -> Nag:
    return Nag(given, validate(Nag.Config, {**SMALL, **config}, "strategy"))


def test_it_begins_with_random_candidates_and_goes_on_with_generated_ones() -> None:
    strategy = made(setting())
    starts = []
    for number in range(10):
        proposal = strategy.ask(number, ())
        assert dict(proposal.note) == {"role": "start"}
        told(strategy, [proposal.arch])
        starts.append(proposal.arch)
    proposal = strategy.ask(10, ())
    assert proposal.note["role"] == "generated"
    assert proposal.note["scale"] in Nag.Config().scales
    assert CELLS.identity(proposal.arch) not in set(map(CELLS.identity, starts))
    second = strategy.ask(11, (Pending(10, proposal),))
    assert CELLS.identity(second.arch) not in {CELLS.identity(arch) for arch in (proposal.arch, *starts)}


def test_generated_candidates_are_better_than_random_ones() -> None:
    strategy = made(setting(1))
    told(strategy, different(30, "known"))
    pending: list[Pending] = []
    for number in range(30, 35):
        pending.append(Pending(number, strategy.ask(number, tuple(pending))))
    chosen = [quality(trial.proposal.arch) for trial in pending]
    assert numpy.mean(chosen) > numpy.quantile([quality(arch) for arch in some(2_000, "all")], 0.95)


def test_a_note_has_the_rates_of_its_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 matrices 2 are none; of the other 8 architectures 4 are different candidates, of which 3 are new."""
    known, *fresh = different(14, "cells")
    rows = MATRICES.encode([*[known] * 3, *fresh[:3], fresh[0], fresh[1], known, known])
    rows[8, 2], rows[9, 5] = -1, 1
    monkeypatch.setattr(reverse, "heun", lambda *given, **settings: torch.from_numpy(rows))
    strategy = made(setting(), pool=10, batch=2)
    told(strategy, [known, *fresh[4:]])
    note = strategy.ask(20, ()).note
    assert {name: note[name] for name in ("valid", "unique", "new")} == {"valid": 0.8, "unique": 0.5, "new": 0.75}


def test_a_pool_without_news_is_drawn_again_with_half_the_guidance(monkeypatch: pytest.MonkeyPatch) -> None:
    archs = different(30, "cells")
    known, fresh = archs[:12], archs[12:24]
    pools = iter([known, known, fresh])
    monkeypatch.setattr(reverse, "heun", lambda *given, **settings: torch.from_numpy(MATRICES.encode(next(pools))))
    strategy = made(setting(), pool=12, scales=[8.0])
    told(strategy, known)
    proposal = strategy.ask(20, ())
    assert proposal.arch in fresh
    assert dict(proposal.note) == {"role": "generated", "scale": 2.0, "valid": 1.0, "unique": 1.0, "new": 1.0}


def test_where_all_that_is_generated_is_known_candidates_are_random(monkeypatch: pytest.MonkeyPatch) -> None:
    known = different(12, "cells")
    monkeypatch.setattr(reverse, "heun", lambda *given, **settings: torch.from_numpy(MATRICES.encode(known)))
    strategy = made(setting(), pool=12)
    told(strategy, known)
    proposal = strategy.ask(20, ())
    assert proposal.note["role"] == "start"
    assert CELLS.identity(proposal.arch) not in set(map(CELLS.identity, known))


@pytest.mark.parametrize("acquisition", ["ucb", "ei", "pi", "its"])
def test_acquisitions(acquisition: str) -> None:
    """Only Thompson sampling depends on the number of the proposal; all choose what is generated and likely good."""
    strategy = made(setting(2), acquisition=acquisition)
    told(strategy, different(30, "known"))
    chosen = [strategy.ask(number, ()) for number in range(30, 36)]
    assert {proposal.note["role"] for proposal in chosen} == {"generated"}
    assert (len({proposal.arch for proposal in chosen}) > 1) == (acquisition == "its")
    assert numpy.mean([quality(proposal.arch) for proposal in chosen]) > 2.0


def test_the_published_sampler_leads_there_too() -> None:
    strategy = made(setting(5), sampler="pc", steps=150, pool=16)
    told(strategy, different(30, "known"))
    proposal = strategy.ask(30, ())
    assert proposal.note["role"] == "generated"
    assert float(proposal.note["valid"]) > 0.9
    assert quality(proposal.arch) > numpy.quantile([quality(arch) for arch in some(2_000, "all")], 0.9)


def test_another_study_leads_the_first_proposals() -> None:
    """The transferable setting: nothing is evaluated, yet proposals are generated, and good."""
    others = different(120, "source")
    strategy = made(setting(3, warm_start=tuple((arch, 100 + 7 * quality(arch)) for arch in others)))
    pending: list[Pending] = []
    for number in range(5):
        pending.append(Pending(number, strategy.ask(number, tuple(pending))))
    assert {trial.proposal.note["role"] for trial in pending} == {"generated"}
    chosen = [quality(trial.proposal.arch) for trial in pending]
    assert numpy.mean(chosen) > numpy.quantile([quality(arch) for arch in some(2_000, "all")], 0.95)


def test_a_bound_leads_what_is_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    """With at most two convolutions, which half of all have, and better than those of that half."""
    monkeypatch.setattr("strategies.diffusion.noisy.BOUND", NoisyConfig(members=1, steps=500, batch=64))
    strategy = made(setting(4))
    told(strategy, different(60, "known"))
    shown = some(400, "costs")
    wanted = Wanted(tuple(shown), tuple(map(convolutions, shown)), 2, True)
    found = strategy.generate(60, generator("generate"), [wanted])
    assert len(found) == 60
    assert numpy.mean([convolutions(arch) <= 2 for arch in found]) >= 0.9
    satisfied = [quality(arch) for arch in some(2_000, "all") if convolutions(arch) <= 2]
    assert numpy.mean([quality(arch) for arch in found]) > numpy.mean(satisfied) + 0.3
    free = strategy.generate(60, generator("generate"))
    assert numpy.mean([convolutions(arch) for arch in free]) > 3
    assert numpy.mean([quality(arch) for arch in free]) > numpy.mean([quality(arch) for arch in found])
