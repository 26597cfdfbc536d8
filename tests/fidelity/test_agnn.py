"""Auto-GNN's conservative controller: one kind per child, the guider's numbers, one encoder per step, Cora."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy
import pytest

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.errors import UsageError
from nas_core.evaluation import Fidelity, Objective
from nas_core.seeds import generator
from nas_core.space import SearchSpace
from nas_core.strategy import Outcome, Proposal, Setting, State
from nas_core.testing.trait_spaces import UnitList
from search_spaces.auto_gnn.space import AutoGnn
from search_spaces.nasbench201.space import NasBench201
from strategies.basic.random_search import RandomSearch
from strategies.reinforcement.agnn import AutoGNN, guide

QUALITY = (Objective("quality", "max"),)
SIZES = {"hidden": 7, "attention": 7, "heads": 6, "aggregate": 3, "combine": 2, "activation": 8}


class Layers(SearchSpace):
    """The paper's space: two layers of six classes."""

    name = "layers"
    choices = tuple(
        Choice(f"layer{layer}/{kind}", tuple(range(size)), kind=kind)
        for layer in range(2)
        for kind, size in SIZES.items()
    )


class Conditional(SearchSpace):
    """Without kinds; `slope` exists for one activation only, and `width` limits `heads`."""

    name = "conditional"
    choices = (
        Choice("width", (1, 2, 4)),
        Choice("activation", ("relu", "leaky")),
        Choice("slope", (0.1, 0.2, 0.3), when=(When("activation", ("leaky",)),)),
        Choice("heads", (1, 2, 4)),
    )

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        return tuple(o for o in choice.options if choice.name != "heads" or int(o) <= int(prefix["width"]))


def make(space: SearchSpace, seed: int = 0, **config: Any) -> AutoGNN:
    return AutoGNN(Setting(space, seed, QUALITY), AutoGNN.Config(**{"units": 12, "founders": 3, **config}))


def total(arch: Architecture) -> float:
    return float(sum(int(value) for value in arch.values.values()))


def tell(strategy: AutoGNN, number: int, proposal: Proposal, value: float) -> None:
    strategy.tell(Outcome(number, proposal, State.COMPLETE, (value,)))


def drive(strategy: AutoGNN, trials: int) -> list[tuple[Proposal, Architecture | None]]:
    """The proposals, each with what was the best architecture when it was asked for."""
    found = []
    for number in range(trials):
        before = strategy.best.proposal.arch if strategy.best else None
        found.append((strategy.ask(number, ()), before))
        tell(strategy, number, found[-1][0], total(found[-1][0].arch))
    return found


def test_a_child_differs_from_the_best_in_one_class_at_all_positions() -> None:
    """Card, check 1."""
    changed: Counter[int] = Counter()
    best = -math.inf
    for proposal, base in drive(make(Layers()), 150):
        if base is None or proposal.note["role"] == "founder":
            best = max(best, total(proposal.arch))
            continue
        assert total(base) == best
        best = max(best, total(proposal.arch))
        different = [name for name, value in proposal.arch.values.items() if base.values[name] != value]
        assert {name.split("/")[1] for name in different} <= {proposal.note["kind"]}
        changed[len(different)] += 1
    assert changed[2] > 50  # a mutation of single genes would change one


def test_the_guiders_numbers() -> None:
    """Card, check 2: uniform encoders, two layers."""
    strategy = make(Layers())
    drive(strategy, 3)
    for encoder in strategy.encoders.values():
        encoder.weights[:] = 0.0
    strategy._entropies.clear()
    entropies = strategy.entropies()
    expected = {
        "hidden": 3.8918, "attention": 3.8918, "heads": 3.5835, "aggregate": 2.1972, "combine": 1.3863,
        "activation": 4.1589,
    }  # fmt: skip
    assert {kind: round(entropy, 4) for kind, entropy in entropies.items()} == expected
    chances = guide(list(entropies.values()), "softmax")
    assert [round(chance, 4) for chance in chances] == [0.2322, 0.2322, 0.1706, 0.0427, 0.019, 0.3033]
    assert guide(list(entropies.values()), "argmax") == [0, 0, 0, 0, 0, 1]


def test_kinds_are_drawn_with_the_guiders_chances() -> None:
    strategy = make(Layers())
    drive(strategy, 10)
    chances = dict(zip(strategy.entropies(), guide(list(strategy.entropies().values()), "softmax"), strict=True))
    drawn = Counter(strategy.ask(number, ()).note["kind"] for number in range(2000))
    for kind, chance in chances.items():
        assert abs(drawn[kind] - 2000 * chance) < 5 * math.sqrt(2000 * chance * (1 - chance)) + 1
    strategy = make(Layers(), guide="argmax")
    drive(strategy, 10)
    highest = max(strategy.entropies(), key=strategy.entropies().__getitem__)
    assert {strategy.ask(number, ()).note["kind"] for number in range(20)} == {highest}


def test_encoders_learn_to_write_what_is_good() -> None:
    """Of every kind, where the best option is the one of the largest number."""
    strategy = make(Layers(), learning_rate=0.05, entropy=0.0)
    drive(strategy, 120)
    assert strategy.best is not None
    rng = generator(0, "written")
    shares = []  # 0: the worst option, 1: the best
    for kind, size in SIZES.items():
        written = [strategy._write(kind, strategy.best.proposal.arch, rng)[0] for _ in range(10)]
        shares += [int(arch.values[f"layer{layer}/{kind}"]) / (size - 1) for arch in written for layer in range(2)]
    assert statistics.fmean(shares) > 0.7


def test_only_the_chosen_encoder_learns() -> None:
    """Card, check 3: the other five are equal to the bit."""
    strategy = make(Layers())
    drive(strategy, 10)
    learned = set()
    for number in range(10, 40):
        before = {kind: encoder.state_dict() for kind, encoder in strategy.encoders.items()}
        proposal = strategy.ask(number, ())
        tell(strategy, number, proposal, total(proposal.arch))
        for kind, encoder in strategy.encoders.items():
            same = all(numpy.array_equal(before[kind][key], value) for key, value in encoder.state_dict().items())
            assert same == (kind != proposal.note["kind"])
        learned.add(proposal.note["kind"])
    assert len(learned) > 2


def test_the_encoder_reads_the_other_kinds() -> None:
    """What an encoder writes depends on the best architecture's other decisions, and not on its own kind's."""
    strategy = make(Layers())
    drive(strategy, 3)
    encoder = strategy.encoders["hidden"]
    encoder.weights *= 20
    own = {"layer0/hidden", "layer1/hidden"}

    def entropy(changes: dict[str, Value]) -> float:
        assert strategy.best is not None
        base = Architecture("layers", {**strategy.best.proposal.arch.values, **changes})
        return strategy._write("hidden", base, numpy.random.default_rng(0))[1].entropy

    before = entropy({})
    assert all(entropy({name: value}) == before for name in own for value in range(7))
    assert entropy({"layer0/attention": 0}) != entropy({"layer0/attention": 1})


def test_the_update_is_conservative() -> None:
    strategy = make(Layers(), founders=1)
    values = [0.5, 0.2, 0.5, 0.7, 0.6]
    bests = []
    for number, value in enumerate(values):
        tell(strategy, number, strategy.ask(number, ()), value)
        assert strategy.best is not None
        bests.append(strategy.best.number)
    assert bests == [0, 0, 0, 3, 3]
    assert strategy.ask(5, ()).note["of"] == 3


def test_conditional_and_coupled_choices() -> None:
    """Choices without a kind are kinds of their own; children are legal, and inactive kinds are not altered."""
    space = Conditional()
    strategy = make(space)
    kinds = set()
    for number in range(80):
        active = set(strategy.best.proposal.arch.values) if strategy.best else set()
        assert set(strategy.entropies()) == active
        proposal = strategy.ask(number, ())
        assert space.illegal(proposal.arch) is None
        kinds.add(proposal.note.get("kind"))
        tell(strategy, number, proposal, float(number % 7))
    assert kinds == {None, "width", "activation", "slope", "heads"}


def test_a_space_with_one_kind_is_refused() -> None:
    with pytest.raises(UsageError, match=r"space 'nasbench201' are of kind 'operation'; use reinforce or ppo") as error:
        make(NasBench201())
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_cora(benches: Any) -> None:
    """Card, check 5: 400 queries reach a mean best validation of at least 81.1 percent. The fast test is the next."""
    found = benches["cora"].incumbents(AutoGNN, AutoGNN.Config(), seeds=50, queries=400)
    assert statistics.fmean(metrics["val_accuracy"] for metrics in found) >= 81.1


@pytest.mark.parametrize(("seeds", "queries"), [(3, 100), pytest.param(8, 200, marks=pytest.mark.slow)])
def test_beats_random_search(benches: Any, seeds: int, queries: int) -> None:
    """Validation of the incumbent on cs with the default settings."""
    found = benches["cs"].incumbents(AutoGNN, AutoGNN.Config(), seeds=seeds, queries=queries)
    uninformed = benches["cs"].incumbents(RandomSearch, RandomSearch.Config(), seeds=30, queries=queries)
    means = [statistics.fmean(run["val_accuracy"] for run in runs) for runs in (found, uninformed)]
    assert means[0] > means[1] + 0.1


EPOCHS = Fidelity("epochs", 1, 200, continues=True)


def shares(space: SearchSpace | None = None, fidelity: Fidelity | None = EPOCHS, **config: Any) -> AutoGNN:
    setting = Setting(space or AutoGnn(), 0, QUALITY, fidelity=fidelity)
    return AutoGNN(setting, AutoGNN.Config(**{"units": 8, "founders": 3, "sharing": True, **config}))


def quality(arch: Architecture) -> float:
    """The fewer heads the better, and most of all with attention."""
    return float(arch.values["layer0/attention"] == "gat") - sum(
        0.01 * int(value) for name, value in arch.values.items() if name.endswith("heads")
    )


def drive_sharing(strategy: AutoGNN, trials: int) -> list[Proposal]:
    found = []
    for number in range(trials):
        found.append(strategy.ask(number, ()))
        tell(strategy, number, found[-1], quality(found[-1].arch))
    return found


def homogeneous(one: Architecture, other: Architecture) -> set[int]:
    """Layers of both of the same shapes, attention and activation, by the values alone."""
    same = set()
    for layer in range(2):
        names = [f"layer{layer}/{kind}" for kind in ("hidden", "attention", "heads", "combine", "activation")]
        alike = all(one.values.get(name) == other.values.get(name) for name in names)
        widths = [
            int(arch.values["layer0/hidden"]) * int(arch.values["layer0/heads"]) if layer else 0
            for arch in (one, other)
        ]
        if alike and widths[0] == widths[1]:
            same.add(layer)
    return same


def test_a_child_begins_with_weights_of_the_most_homogeneous_trial() -> None:
    """Card, constrained sharing: none where no layer is, and then it is trained in full, as founders are."""
    proposals = drive_sharing(shares(ancestors=6), 60)
    begun = 0
    for number, proposal in enumerate(proposals):
        if proposal.note["role"] == "founder":
            assert (proposal.transfer, proposal.budget) == (None, None)
            continue
        kept = range(max(0, number - 6), number)
        many = {each: len(homogeneous(proposals[each].arch, proposal.arch)) for each in kept}
        most = max(many.values())
        if most == 0:
            assert (proposal.transfer, proposal.budget) == (None, None)
            continue
        begun += 1
        assert proposal.transfer == max(each for each in kept if many[each] == most)
        assert proposal.budget == 20
    assert 10 < begun < 57


def test_only_trained_trials_are_ancestors_and_only_the_last_ones() -> None:
    strategy = shares(ancestors=2)
    for number, state in enumerate((State.COMPLETE, State.FAILED, State.COMPLETE, State.REJECTED, State.COMPLETE)):
        proposal = strategy.ask(number, ())
        values = (0.5,) if state == State.COMPLETE else None
        strategy.tell(Outcome(number, proposal, state, values, (1.0,) if state == State.REJECTED else ()))
    assert list(strategy.donors() or ()) == [2, 4]
    assert make(Layers()).donors() is None


def test_a_search_with_sharing_goes_on_from_its_state() -> None:
    whole = drive_sharing(shares(), 40)
    strategy = shares()
    for number in range(40):
        again = shares()
        if number:
            again.load_state_dict(strategy.state_dict())
        strategy = again
        proposal = strategy.ask(number, ())
        assert proposal == whole[number]
        tell(strategy, number, proposal, quality(proposal.arch))
    assert any(proposal.transfer is not None for proposal in whole)


def test_sharing_changes_nothing_else() -> None:
    """The architectures of a search are those without, as long as they are worth the same."""
    plain = shares(sharing=False)
    assert [each.arch for each in drive_sharing(plain, 30)] == [each.arch for each in drive_sharing(shares(), 30)]


def test_sharing_on_layers_with_conditions() -> None:
    strategy = shares(UnitList())
    for number in range(30):
        proposal = strategy.ask(number, ())
        assert proposal.transfer is None or proposal.transfer in (strategy.donors() or ())
        tell(strategy, number, proposal, float(number % 5))


@pytest.mark.parametrize(
    ("make_it", "message"),
    [
        (lambda: shares(Layers()), r"sharing: space 'layers' does not say which layers .* leave it off"),
        (lambda: shares(fidelity=None), r"sharing: children with weights are trained briefly, and nothing here can be"),
        (lambda: shares(warm_up=300), r"warm_up: 300 is no budget in epochs; use 1 to 200"),
        (lambda: shares(fidelity=Fidelity("epochs", 1, 9, (1, 9)), warm_up=3), r"warm_up: 3 is no budget .* use 1, 9"),
        (lambda: shares(sharing=False, warm_up=3), r"warm_up: is of use with sharing=true only"),
        (lambda: shares(sharing=False, ancestors=3), r"ancestors: is of use with sharing=true only"),
    ],
)
def test_errors_of_sharing(make_it: Callable[[], AutoGNN], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_it()


@pytest.mark.parametrize(
    ("fidelity", "warm_up"),
    [
        (Fidelity("epochs", 1, 2), 2),
        (Fidelity("epochs", 12, 200, (12, 50, 200)), 12),
        (Fidelity("epochs", 1, 9, (1, 9)), 9),
        (Fidelity("epochs", 50, 200, (50, 200)), 50),
    ],
)
def test_a_warm_up_that_is_not_given_is_one_that_a_training_can_have(fidelity: Fidelity, warm_up: float) -> None:
    proposals = drive_sharing(shares(fidelity=fidelity), 30)
    assert {proposal.budget for proposal in proposals} == {None, warm_up}
