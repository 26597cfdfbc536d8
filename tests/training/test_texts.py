"""Texts: split by position, windows and what follows them, answers at every position, what a deployed network reads."""

from __future__ import annotations

import gzip
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from nas_core.batch import PARTS, Batch
from nas_core.errors import NotFoundError, TrialError, UsageError
from nas_core.task import image_task, text_task
from training import tasks
from training.causal import check_causal
from training.data import load
from training.data.loading import Loading
from training.data.split import Split
from training.data.text import TextSource, text_source
from training.export.formats import signature_of
from training.export.python.inputs import text as python_of
from training.export.script import script
from training.export.write import onnx_bytes, trace
from training.infer import classify, continued, open_model, read
from training.infer.model import properties
from training.inputs.texts import TextInputs
from training.loss import Criterion, balanced_weights
from training.metrics import perplexity
from training.outputs import logits_of
from training.recipe import recipe
from training.testing.toy_networks import OfTokens

TEXT = "the cat sat on the mat; the rat ran. " * 30
TASK = text_task(8, 6, "bpc")


def source(text: str = TEXT, window: int = 8, **split: Any) -> TextSource:
    return text_source("made", text, window, Split(**split))


def shown(found: TextSource, tokens: Tensor) -> str:
    return "".join(found.inputs.outputs[number] for number in tokens.flatten().tolist())


# -- data -----------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=50)
@given(length=st.integers(40, 900), window=st.integers(1, 9), test=st.floats(0.1, 0.5), valid=st.floats(0.1, 0.5))
def test_parts_follow_one_another_and_share_no_character(length: int, window: int, test: float, valid: float) -> None:
    text = "".join(chr(256 + place) for place in range(length))  # every character occurs once
    try:
        found = source(text, window, test=test, valid=valid)
    except UsageError:
        return
    seen = []
    for name, starts in found.parts.items():
        assert (np.diff(starts) == window).all()
        data = found.bind("cpu", Loading(batch_size=4))
        seen.append(set(range(starts[0], starts[-1] + window + 1)))  # read, or predicted
        assert len(data.targets(name)) == len(starts) == found.sizes[name]
    assert max(seen[0]) < min(seen[1])
    assert max(seen[1]) < min(seen[2])
    assert max(seen[2]) < length
    left_out = length - sum(map(len, seen))
    assert left_out <= 3 * (window - 1)
    assert len(seen[0]) + len(seen[1]) + len(seen[2]) >= length - 3 * window
    assert abs(min(seen[2]) - (1 - test) * length) <= 1


def test_what_is_predicted_is_what_follows() -> None:
    found = source()
    data = found.bind("cpu", Loading(batch_size=5))
    for part in PARTS:
        for batch in data.batches(part, 0, 0):
            for tokens, target in zip(batch.inputs[0], batch.target, strict=True):
                text = shown(found, torch.cat([tokens, target[-1:]]))
                assert text in TEXT
                assert shown(found, target) == text[1:]
    assert shown(found, next(iter(data.batches("valid", 0, 0))).inputs[0][0]) == found.text


def test_windows_are_shuffled_anew_in_every_epoch_and_characters_are_not() -> None:
    found = source()
    data = found.bind("cpu", Loading(batch_size=4))

    def passed(part: str, epoch: int, seed: int = 0) -> list[str]:
        return [shown(found, row) for batch in data.batches(part, epoch, seed) for row in batch.inputs[0]]

    first = passed("train", 0)
    assert first != passed("train", 1)
    assert first != passed("train", 0, 1)
    assert first == passed("train", 0)
    whole = sorted(TEXT[start : start + 8] for start in found.parts.train)
    assert sorted(first) == sorted(passed("train", 1)) == whole
    assert "".join(passed("valid", 0)) in TEXT  # in order


def test_the_vocabulary_is_that_of_the_training_part() -> None:
    found = source("ab" * 240 + "abc" * 20 + "xay" * 40)
    assert found.inputs.characters == "ab"
    assert found.task.outputs == 3
    data = found.bind("cpu")
    assert set(data.targets("train").unique().tolist()) == {1, 2}
    assert 0 in data.targets("test").unique().tolist()
    assert found.unknown["train"] == 0
    assert found.unknown["test"] == int((data.targets("test") == 0).sum())
    (told,) = (text for text in found.warnings if "the test part" in text)
    share = found.unknown["test"] / (8 * found.sizes["test"])
    assert 0.5 < share < 0.7
    assert told.startswith(f"{found.unknown['test']} characters of the test part ({share:.2%}) do not occur")
    assert found.inputs.encode("ab?a").tolist() == [1, 2, 0, 1]
    assert TextInputs(kind="language-modelling", window=3, characters="").encode("ab").tolist() == [0, 0]


def test_a_limit_keeps_the_first_windows_and_the_whole_test_part() -> None:
    whole, few = source(), source(limit=10)
    assert few.sizes["train"] + few.sizes["valid"] == 10
    for part in ("train", "valid"):
        assert few.parts.__dict__[part].tolist() == whole.parts.__dict__[part][: few.sizes[part]].tolist()
    assert few.parts.test.tolist() == whole.parts.test.tolist()
    assert source(limit=10_000).split_hash == whole.split_hash
    with pytest.raises(UsageError, match="limit 2 is too small: at least 3 windows"):
        source(limit=2)


def test_the_hash_is_of_text_windows_and_parts() -> None:
    hashes = [
        source().split_hash,
        source(TEXT[:-1] + "!").split_hash,
        source(window=9).split_hash,
        source(test=0.3).split_hash,
        source(limit=12).split_hash,
    ]
    assert len(set(hashes)) == len(hashes)
    assert source().split_hash == hashes[0]


def test_files_are_read_plain_and_gzipped(tmp_path: Path) -> None:
    plain, packed = tmp_path / "t.txt", tmp_path / "t.txt.gz"
    text = "Zoë, naïve – 猫\r\n" * 120
    plain.write_bytes(text.encode())
    packed.write_bytes(gzip.compress(text.encode()))
    one, two = (load(f"text:{path}?window=16") for path in (plain, packed))
    assert one.split_hash == two.split_hash == text_source("made", text, 16, Split()).split_hash
    assert isinstance(one, TextSource)
    assert set(one.inputs.characters) == set(text)
    assert one.task.tokens() == (16, len(set(text)) + 1)
    assert load(f"text:{plain}").task.tokens()[0] == 128


@pytest.mark.parametrize(
    ("content", "argument", "said"),
    [
        (b"", "", "is empty; a text is needed"),
        (b"ab\xffcd" * 99, "", r"is not UTF-8: byte 0xff at offset 2 \(invalid start byte\); save the text as UTF-8"),
        (
            b"abc" * 30,
            "",
            r"the train part has 65 characters; windows of 128 need at least 257; take a longer text, or",
        ),
        (b"abc" * 200, "?window=48", "the valid part has 48 characters; windows of 48 need at least 50"),
        (b"abc" * 30, "?window=0", "window"),
        (b"abc" * 30, "?windows=8", "unknown option 'windows'; did you mean 'window'"),
    ],
)
def test_bad_texts_are_named(content: bytes, argument: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        load(f"text:{tmp_path / 't.txt'}{argument}")


def test_a_missing_text_is_named() -> None:
    with pytest.raises(NotFoundError, match=r"data 'text:none.txt': none.txt does not exist"):
        load("text:none.txt")
    with pytest.raises(UsageError, match="needs a path"):
        load("text:")


def test_tiny_shakespeare(shared_data: Path) -> None:
    found = load(f"text:{shared_data / 'tinyshakespeare.txt.gz'}?window=64")
    assert isinstance(found, TextSource)
    assert len(found.tokens) == 1_115_394
    assert found.sizes == {"train": 12_548, "valid": 1_394, "test": 3_485}
    assert found.task.outputs == 1 + len(found.inputs.characters) <= 66


# -- answers at every position ----------------------------------------------------------------------------------


def test_losses_and_metrics_are_means_over_all_characters() -> None:
    kind, data = tasks.find("language-modelling"), source().bind("cpu", Loading(batch_size=4))
    batch = next(iter(data.batches("train", 0, 0)))
    torch.manual_seed(0)
    output = torch.randn(*batch.target.shape, data.task.outputs)
    each = [
        -float(output[row, place].log_softmax(0)[batch.target[row, place]])
        for row in range(len(output))
        for place in range(8)
    ]
    assert float(data.loss(output, batch)) == pytest.approx(np.mean(each), rel=1e-5)
    sums = data.metrics(output, batch)
    assert int(sums["count"]) == len(each)
    assert float(sums["loss"]) == pytest.approx(sum(each), rel=1e-5)
    assert float(sums["bpc"]) == pytest.approx(sum(each) / math.log(2), rel=1e-5)
    assert int(sums["accuracy"]) == int((output.argmax(2) == batch.target).sum())
    rows, targets = batch.answered(output)
    assert perplexity(rows, targets) == pytest.approx(math.exp(np.mean(each)), rel=1e-5)
    assert float(kind.divergence(rows, rows, 2.0)) == pytest.approx(0, abs=1e-6)
    assert kind.agreement(rows, rows) == 1


def test_label_smoothing_and_class_weights_are_those_of_the_flattened_answers() -> None:
    data = source().bind("cpu", Loading(batch_size=4))
    batch = next(iter(data.batches("train", 0, 0)))
    output = torch.randn(*batch.target.shape, data.task.outputs)
    plan = recipe("quick", data.task, label_smoothing=0.1, class_weights="balanced")
    weights = balanced_weights(data.targets("train").flatten(), data.task.outputs)
    wanted = functional.cross_entropy(output.flatten(0, 1), batch.target.flatten(), weight=weights, label_smoothing=0.1)
    assert float(Criterion(plan, data)(output, batch)) == pytest.approx(float(wanted), rel=1e-6)


def test_answers_of_samples_and_of_nodes_are_scored_as_they_were() -> None:
    output, target = torch.randn(6, 3), torch.arange(6) % 3
    assert Batch((), target).scored(output) == (output, target)
    numbers = torch.randn(6, 1)
    assert Batch((), numbers).scored(numbers)[0] is numbers
    rows, chosen = Batch((), target, torch.tensor([1, 4])).scored(output)
    assert torch.equal(rows, output[[1, 4]])
    assert torch.equal(chosen, target[[1, 4]])


def test_a_wrong_shape_is_said() -> None:
    logits_of(torch.zeros(3, 8, 6), 3, TASK)
    with pytest.raises(TrialError, match=r"3 windows of 8 positions and 6 characters need shape \(3, 8, 6\)"):
        logits_of(torch.zeros(3, 6), 3, TASK)


def test_a_task_says_what_is_read_and_answered() -> None:
    assert (TASK.tokens(), TASK.answer) == ((8, 6), (8, 6))
    assert image_task((1, 8, 8), 10).answer == (10,)
    assert "positions" not in image_task((1, 8, 8), 10).model_dump(mode="json")
    assert type(TASK).model_validate_json(TASK.model_dump_json()) == TASK
    with pytest.raises(UsageError, match="needed are sequences"):
        image_task((1, 8, 8), 10).tokens()
    with pytest.raises(UsageError, match="needed are images"):
        TASK.images()


# -- what comes later -------------------------------------------------------------------------------------------


class Later(nn.Module):
    """Answers with the next character as well."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.embedding, self.share = nn.Embedding(6, 6), share

    def forward(self, tokens: Tensor) -> Tensor:
        now = self.embedding(tokens)
        return now + self.share * now.roll(-1, 1)


def test_a_network_that_sees_what_it_predicts_is_refused() -> None:
    torch.manual_seed(0)
    check_causal(OfTokens(6, 8, 6), TASK)
    check_causal(Later(0.0), TASK)
    network = Later(0.01).train()
    with pytest.raises(TrialError, match="answers to the first 4 characters change with those after") as raised:
        check_causal(network, TASK)
    assert raised.value.reason == "sees-the-future"
    assert network.training
    random = nn.Sequential(OfTokens(6, 8, 6), nn.Dropout())
    before = torch.get_rng_state()
    check_causal(random, TASK)
    assert torch.equal(before, torch.get_rng_state())


# -- deployed ---------------------------------------------------------------------------------------------------


INPUTS = TextInputs(kind="language-modelling", window=8, characters="\n abc")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    network = OfTokens(6, 16, 6).eval()
    with torch.no_grad():
        for one in network.parameters():
            one *= 3  # so that answers are unlike each other
    signature, example = signature_of(TASK), (torch.zeros(2, 8, dtype=torch.int64),)
    file = tmp_path_factory.mktemp("net") / "net.onnx"
    file.write_bytes(onnx_bytes(trace(network, example, signature), signature, properties(INPUTS, raw=False)))
    return network, file


@pytest.mark.parametrize("text", ["a", "abc", "abc abca", "abc abcab", "ab\ncab cab cab ", "cab " * 9 + "x"])
def test_a_text_is_read_in_windows_and_its_characters_are_predicted(
    text: str, model: tuple[nn.Module, Path], tmp_path: Path
) -> None:
    network, file = model
    path = tmp_path / "new.txt"
    path.write_text(text)
    tokens = torch.from_numpy(INPUTS.encode(text)).long()
    (answer,), note = classify(open_model(file), f"text:{path}", top=3)
    assert ("hold characters that the training part does not have (1)" in note) == ("x" in text)
    losses, right = [], []
    with torch.no_grad():
        for place in range(1, len(text)):  # from those before it in its window
            start = (place - 1) // 8 * 8
            logits = network(tokens[None, start:place])[0, -1]
            losses.append(-float(logits.log_softmax(0)[tokens[place]]))
            right.append(int(logits.argmax()) == int(tokens[place]))
        odds, names = network(tokens[None, -8:])[0, -1].softmax(0), INPUTS.outputs
    if losses:
        assert answer.figures["predicted"] == len(text) - 1
        assert answer.figures["loss"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert answer.figures["bpc"] == pytest.approx(np.mean(losses) / math.log(2), rel=1e-5)
        assert answer.figures["accuracy"] == pytest.approx(np.mean(right))
    else:
        assert not answer.figures
    best = odds.argsort(descending=True)[:3]
    assert [name for name, _ in answer.classes] == [names[number] for number in best]
    assert [odd for _, odd in answer.classes] == pytest.approx(odds[best].tolist(), rel=1e-5)


def test_a_text_goes_on_with_what_the_network_expects(model: tuple[nn.Module, Path], tmp_path: Path) -> None:
    network, file = model
    opened, path = open_model(file), tmp_path / "new.txt"
    path.write_text("cab ab")
    greedy = continued(opened, str(path), 20, 0, 0.0)
    text = "cab ab"
    with torch.no_grad():
        for _ in range(20):
            tokens = torch.from_numpy(INPUTS.encode(text[-8:])).long()
            text += INPUTS.characters[int(network(tokens[None])[0, -1, 1:].argmax())]
    assert greedy == text[6:]
    drawn = continued(opened, str(path), 200, 1, 1.0)
    assert drawn == continued(opened, str(path), 200, 1, 1.0)
    assert drawn != continued(opened, str(path), 200, 2, 1.0)
    assert set(drawn) <= set(INPUTS.characters)
    assert continued(opened, str(path), 20, 1, 1e-4) == greedy
    # As often as the network says, after the same character.
    tokens = torch.from_numpy(INPUTS.encode("cab ab")).long()
    odds = network(tokens[None])[0, -1, 1:].softmax(0)
    first = [continued(opened, str(path), 1, seed, 1.0) for seed in range(300)]
    for character, share in zip(INPUTS.characters, odds.tolist(), strict=True):
        assert abs(first.count(character) / 300 - share) < 4 * math.sqrt(share * (1 - share) / 300) + 1e-9


def test_other_networks_do_not_go_on(model: tuple[nn.Module, Path]) -> None:
    with pytest.raises(UsageError, match="--continue is for language models; this network is for image-classific"):
        tasks.find("image-classification").continued(None, open_model(model[1]).run, "x.png", 5, 0, 1.0)


def test_programs_without_ours_read_a_text_alike(
    model: tuple[nn.Module, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file, path = model[1], tmp_path / "new.txt"
    text = script(INPUTS, str(file))
    assert text is not None
    for content in ("ab\nc", "cab cab\ncab cab", "x"):
        path.write_text(content)
        monkeypatch.setattr("sys.argv", ["script", str(path)])
        exec(compile(text, "script", "exec"), {})
        printed = [line.rsplit(" ", 1) for line in capsys.readouterr().out.splitlines()]
        (answer,), _ = classify(open_model(file), str(path))
        assert [name for name, _ in printed] == [repr(name) for name, _ in answer.classes]
        assert [float(odds) for _, odds in printed] == pytest.approx([odds for _, odds in answer.classes], abs=1e-4)
        names: dict[str, Any] = {"torch": torch, "Tensor": Tensor, "CLASSES": INPUTS.outputs}
        exec(python_of(INPUTS)["encode"], names)
        last = read(INPUTS, str(path)).tensors[0][-1:]
        assert torch.equal(names["encode"](content), torch.from_numpy(last))
