"""Questions: what passages hold, spans as answers, and that keys can be learned to be looked up."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nas_core import moves
from nas_core.choice import Value
from nas_core.errors import UsageError
from nas_core.task import PADDING, question_task
from search_spaces.layers.moe import MixtureOfExperts
from search_spaces.moe import Moe, Size
from training import tasks
from training.data import load
from training.data.loading import Loading
from training.data.questions import DOMAINS, END, FIRST, IS, PARTS, SECOND, SEEN, QuestionSource, sample
from training.data.split import Split
from training.fit import fit
from training.infer import read
from training.inputs.questions import LONGEST, QuestionInputs
from training.networks import build
from training.recipe import recipe
from training.tasks.question_answering import exact_match, f1, spans

TASK = question_task(19, 136, "exact_match")


def questions(reference: str, **split: float) -> QuestionSource:
    found = load(reference, Split(**split))  # type: ignore[arg-type]
    assert isinstance(found, QuestionSource)
    return found


def pairs_of(tokens: list[int]) -> list[tuple[tuple[int, int], list[int], int]]:
    """Keys, values, and where the values begin."""
    found, place = [], 4
    while tokens[place] >= FIRST:
        assert tokens[place + 2] == IS
        stop = tokens.index(END, place)
        found.append(((tokens[place], tokens[place + 1]), tokens[place + 3 : stop], place + 3))
        place = stop + 1
    return found


def test_the_first_sample_is_known() -> None:
    tokens, span = sample(2, [0], *PARTS["train"], 0)
    assert tokens == [1, 21, 64, 2, 21, 40, 3, 73, 4, 21, 64, 3, 113, 4, 2]
    assert span == (12, 12)


@pytest.mark.parametrize("pairs", [1, 2, 8, 40])
@pytest.mark.parametrize("part", PARTS)
def test_the_answer_is_the_value_of_the_key_that_is_asked_for(pairs: int, part: str) -> None:
    number, domains = PARTS[part]
    lengths, shared = set(), []
    for seed in range(40):
        tokens, (start, end) = sample(pairs, [seed], number, domains, 3)
        held = pairs_of(tokens)
        assert len(held) == pairs == len({key for key, _, _ in held})
        ((values, place),) = [(values, place) for key, values, place in held if key == (tokens[1], tokens[2])]
        assert (start, tokens[start : end + 1]) == (place, values)
        lengths.add(len(values))
        (domain,) = {(first - FIRST + second - SECOND) % DOMAINS for (first, second), _, _ in held}
        assert domain in domains
        shared.append(sum(key[half] == tokens[1 + half] for key, _, _ in held for half in (0, 1)) / 2)
    assert lengths == {1, 2, 3}
    if pairs == 8:  # no key is told by one of its halves: 3 of the 15 others of a grid share one, and 7 are drawn
        assert np.mean(shared) == pytest.approx(1 + 7 * 3 / 15, abs=0.4)


def test_unseen_keys_are_other_keys_of_the_same_tokens() -> None:
    seen, other = questions("questions?pairs=8&samples=3000"), questions("questions?pairs=8&samples=3000&keys=unseen")
    for part in ("train", "valid"):
        rows = seen.parts.__dict__[part]
        assert np.array_equal(seen.tokens[rows], other.tokens[other.parts.__dict__[part]])
    assert seen.split_hash != other.split_hash

    def keys(source: QuestionSource, part: str) -> set[tuple[int, int]]:
        rows = source.tokens[source.parts.__dict__[part]].tolist()
        return {key for row in rows for key, _, _ in pairs_of(row)}

    known, unknown = keys(seen, "train"), keys(other, "test")
    assert len(known) == len(SEEN) * 128
    assert keys(seen, "test") <= known
    assert not unknown & known
    for half in (0, 1):
        assert {key[half] for key in unknown} <= {key[half] for key in known}


def test_a_sample_does_not_depend_on_how_many_there_are() -> None:
    few, many = questions("questions?pairs=3&samples=50"), questions("questions?pairs=3&samples=80")
    for part in ("train", "valid", "test"):
        count = few.sizes[part]
        one, two = (source.tokens[source.parts.__dict__[part]][:count] for source in (few, many))
        assert np.array_equal(one, two)
    assert questions("questions?pairs=3&samples=50&seed=1").split_hash != few.split_hash
    assert questions("questions?pairs=3&samples=50", seed=1).split_hash != few.split_hash
    assert sum(questions("questions?pairs=3&samples=50", limit=20).sizes[part] for part in ("train", "valid")) == 20


@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("questions?pairs=0", "pairs"),
        ("questions?pairs=129", "pairs"),
        ("questions?pair=2", "unknown option 'pair'; did you mean 'pairs'"),
        ("questions?keys=new", "keys"),
        ("questions?samples=10", "parts of"),
        ("questions:FILE", "questions is embedded and takes no argument"),
    ],
)
def test_mistakes_are_named(reference: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(reference, Split(valid=0.01))


# -- spans ------------------------------------------------------------------------------------------------------


def test_the_likeliest_span_is_that_of_all_pairs_of_ends() -> None:
    torch.manual_seed(0)
    outputs = torch.randn(40, 11, 2)
    for row, found in zip(outputs, spans(outputs).tolist(), strict=True):
        every = [(first, last) for first in range(11) for last in range(first, min(first + LONGEST, 11))]
        assert tuple(found) == max(every, key=lambda span: float(row[span[0], 0] + row[span[1], 1]))
    inputs = QuestionInputs(kind="question-answering", length=11, vocabulary=136)
    assert inputs.in_own_unit(outputs.numpy()).tolist() == spans(outputs).tolist()


def said(length: int, found: list[tuple[int, int]]) -> Tensor:
    """Logits of networks that are sure."""
    outputs = torch.zeros(len(found), length, 2)
    for row, ends in enumerate(found):
        for end, place in enumerate(ends):
            outputs[row, place, end] = 9.0
    return outputs


def test_figures_are_those_of_the_places() -> None:
    targets = torch.tensor([3 * 19 + 5, 3 * 19 + 5, 3 * 19 + 5, 7 * 19 + 7])
    outputs = said(19, [(3, 5), (4, 6), (8, 8), (7, 8)])
    assert exact_match(outputs, targets).tolist() == [True, False, False, False]
    assert f1(outputs, targets).tolist() == pytest.approx([1, 2 / 3, 0, 2 / 3])
    kind = tasks.find("question-answering")
    torch.manual_seed(0)
    outputs = torch.randn(4, 19, 2)
    ends = [
        functional.cross_entropy(outputs[:, :, 0], targets // 19),
        functional.cross_entropy(outputs[:, :, 1], targets % 19),
    ]
    assert float(kind.loss(outputs, targets)) == pytest.approx(float(sum(ends)) / 2)
    assert float(kind.divergence(outputs, outputs, 2.0)) == pytest.approx(0, abs=1e-6)
    assert float(kind.divergence(outputs, -outputs, 2.0)) > 0.1
    assert kind.agreement(outputs, outputs) == 1


def test_gold_spans_and_random_pairs_reach_what_they_must() -> None:
    source = questions("questions?pairs=8&samples=2000")
    length, targets = source.tokens.shape[1], torch.from_numpy(source.targets)
    gold = said(length, [(target // length, target % length) for target in source.targets.tolist()])
    assert float(exact_match(gold, targets).float().mean()) == float(f1(gold, targets).mean()) == 1
    draws = np.random.default_rng(0)
    chosen = []
    for row in source.tokens.tolist():
        held = pairs_of(row)
        _, values, place = held[int(draws.integers(len(held)))]
        chosen.append((place, place + len(values) - 1))
    share = float(exact_match(said(length, chosen), targets).float().mean())
    assert abs(share - 1 / 8) < 4 * (1 / 8 * 7 / 8 / 2000) ** 0.5


def test_questions_of_a_file(tmp_path: Path) -> None:
    inputs = QuestionInputs(kind="question-answering", length=19, vocabulary=136)
    np.savez(tmp_path / "q.npz", tokens=np.ones((3, 15), np.int32))
    (tokens,) = read(inputs, f"npz:{tmp_path / 'q.npz'}").tensors
    assert tokens.shape == (3, 19)
    assert tokens[:, 15:].tolist() == [[0] * 4] * 3
    for wrong, text in ((np.ones((3, 20), int), "at most 19"), (np.full((3, 4), 136), "knows 0 to 135")):
        np.savez(tmp_path / "q.npz", tokens=wrong)
        with pytest.raises(UsageError, match=text):
            read(inputs, f"npz:{tmp_path / 'q.npz'}")
    with pytest.raises(UsageError, match="holds no questions"):
        read(inputs, "text:q.txt")


def test_what_is_of_classes_alone_is_refused() -> None:
    for changes in ({"label_smoothing": 0.1}, {"class_weights": "balanced"}):
        with pytest.raises(UsageError, match=next(iter(changes))):
            recipe("quick", TASK, **changes)


# -- networks ---------------------------------------------------------------------------------------------------


def learned(stages: Mapping[int, int], samples: int, width: int, lr: float, ffn: str = "dense") -> list[float]:
    """The exact match of a network after each stage of so many epochs, on passages of more and more pairs."""
    space = Moe("text")
    second: dict[str, Value] = {"experts": 4, "block1/ffn": "dense", "block2/ffn": "experts", "block3/ffn": "dense"}
    chosen: dict[str, Value] = {"ffn": ffn, "depth": 3, "expansion": 2.0, **(second if ffn == "switch" else {})}
    arch = moves.complete(space, chosen, moves.first)
    found, weights = [], None
    for pairs, epochs in stages.items():
        source = questions(f"questions?pairs={pairs}&samples={samples}", test=0.1, valid=0.1)
        model = build(space, arch, source.task, Size(width=width), 0)
        if weights is not None:
            model.load_state_dict(weights)
        plan, data = recipe("quick", source.task, epochs=epochs, lr=lr), source.bind("cpu", Loading(batch_size=64))
        *_, last = fit(model, data, plan, device=torch.device("cpu"), seed=0)
        weights = model.state_dict()
        found.append(last.metrics["val_exact_match"])
    return found


def test_a_passage_is_read_in_both_directions() -> None:
    space = Moe("text")
    network = build(space, space.named["dense"], TASK, Size(width=16), 0).eval()
    tokens = torch.randint(136, (2, 19), generator=torch.Generator().manual_seed(0))
    other = tokens.clone()
    other[:, 15] = (other[:, 15] + 1) % 136
    with torch.no_grad():
        assert not torch.allclose(network(tokens)[:, :15], network(other)[:, :15])


@pytest.mark.parametrize("name", ["dense", "switch", "sparsely-gated"])
def test_padding_is_no_part_of_a_sample(name: str) -> None:
    space, kind, longer = Moe("text"), tasks.find("question-answering"), question_task(25, 136, "exact_match")
    tokens = torch.randint(1, 136, (3, 19), generator=torch.Generator().manual_seed(0))
    tokens[1, 12:] = tokens[2, 5:] = PADDING
    places = torch.tensor([[17, 18], [3, 4], [1, 1]])
    weights = build(space, space.named[name], TASK, Size(width=16), 0).state_dict()
    answers, losses = [], []
    for task in (TASK, longer):
        network = build(space, space.named[name], task, Size(width=16), 0)
        network.load_state_dict(weights)
        given = functional.pad(tokens, (0, task.input_shape[0] - 19), value=PADDING)
        torch.manual_seed(1)
        answers.append(network(given)[:, :19])
        targets = places[:, 0] * task.input_shape[0] + places[:, 1]
        found = {"loss": kind.loss(network(given), targets)}
        for layer in network.modules():
            if isinstance(layer, MixtureOfExperts):
                terms, statistics = layer.take()
                found |= {**terms, **statistics, "least": layer.loads.min()}
        losses.append({which: float(value.detach()) for which, value in found.items()})
        answer = network.eval()(given)
        assert (spans(answer)[:, 1] < torch.tensor([19, 12, 5])).all()
        assert torch.isfinite(network(torch.full_like(given, PADDING))).all()
    assert torch.allclose(*answers, atol=1e-5)
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert ("balance_loss" in losses[0]) == (name == "switch")


def test_costs_are_those_of_the_longest_passage() -> None:
    (tokens,) = tasks.sample_inputs(TASK, 50)
    assert set(tokens.unique().tolist()) == set(range(1, 136))


def test_spans_of_values_are_learned_first() -> None:
    """Which of the two pairs is asked for takes longer; that a value is the answer does not. A random span reaches 1
    in 40."""
    (reached,) = learned({2: 2}, 2000, 32, 3e-3)
    assert reached > 0.35


@pytest.mark.slow
@pytest.mark.parametrize("ffn", ["dense", "switch"])
def test_keys_are_looked_up_among_eight(ffn: str) -> None:
    """By passages of 2, 4 and 8 pairs. One half of the key alone reaches .48."""
    assert learned({2: 5, 4: 10, 8: 8}, 6000, 64, 2e-3, ffn)[-1] >= 0.9
