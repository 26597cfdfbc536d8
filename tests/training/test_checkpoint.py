"""Checkpoints: exact, checksummed, two generations, complete or not there."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas_core.errors import MachineError, Notice
from training.checkpoint import (
    Checkpoint,
    CheckpointError,
    adopt,
    load,
    optimizer_state,
    restore_optimizer,
    save,
    write_atomically,
)
from training.optimizer import make_optimizer, parameter_groups
from training.recipe import Recipe


def example(epoch: int) -> Checkpoint:
    weight = torch.arange(12.0).reshape(1, 3, 2, 2).contiguous(memory_format=torch.channels_last) + epoch
    tensors = {"w": weight, "same": weight, "steps": torch.tensor(epoch), "half": torch.ones(3, dtype=torch.bfloat16)}
    return Checkpoint(epoch, tensors, {"reports": [[1, {"loss": 0.1 + 0.2}, 1e-3]], "name": "ü"})


def newest(folder: Path, suffix: str) -> Path:
    return sorted(folder.glob(f"checkpoint-*{suffix}"))[-1]


def test_round_trip_is_exact(tmp_path: Path) -> None:
    save(tmp_path / "new", example(3))
    found = load(tmp_path / "new")
    assert found is not None
    assert (found.epoch, found.state) == (3, example(3).state)
    for name, tensor in example(3).tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    assert load(tmp_path) is None
    assert load(tmp_path / "absent") is None


def test_two_generations_are_kept(tmp_path: Path) -> None:
    for epoch in (1, 2, 3, 10):
        save(tmp_path, example(epoch))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checkpoint-000003.json",
        "checkpoint-000003.safetensors",
        "checkpoint-000010.json",
        "checkpoint-000010.safetensors",
    ]
    found = load(tmp_path)
    assert found is not None
    assert found.epoch == 10


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def rewrite(path: Path) -> None:
    document = json.loads(path.read_text())
    document["state"]["reports"][0][1]["loss"] = 0.0
    path.write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("damage", "suffix"),
    [(flip, ".safetensors"), (cut, ".safetensors"), (os.remove, ".safetensors"), (cut, ".json"), (rewrite, ".json")],
)
def test_a_damaged_generation_falls_back_to_the_one_before(tmp_path: Path, damage: object, suffix: str) -> None:
    save(tmp_path, example(1))
    save(tmp_path, example(2))
    assert callable(damage)
    damage(newest(tmp_path, suffix))
    with pytest.warns(Notice, match=r"checkpoint-000002 in '.*' is damaged \(.*\); going on from epoch 1"):
        found = load(tmp_path)
    assert found is not None
    assert found.epoch == 1
    assert torch.equal(found.tensors["w"], example(1).tensors["w"])


def test_where_all_are_damaged_the_training_begins_again(tmp_path: Path) -> None:
    for epoch in (3, 4):
        save(tmp_path, example(epoch))
        flip(newest(tmp_path, ".safetensors"))
    with pytest.warns(Notice, match=r"000004 in .* is damaged \(.*checksum.*000003 .*none is left, .*begins again"):
        assert load(tmp_path) is None
    for epoch in (1, 2):  # which are newer than what was damaged
        save(tmp_path, example(epoch))
        found = load(tmp_path)
        assert found is not None
        assert found.epoch == epoch


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b'"text"', b"{}", b"\xff\xfe", b'{"sha256": 1}'])
def test_what_is_no_checkpoint_is_none(tmp_path: Path, content: bytes) -> None:
    save(tmp_path, example(1))
    newest(tmp_path, ".json").write_bytes(content)
    with pytest.warns(Notice, match="is damaged"):
        assert load(tmp_path) is None


def test_a_file_that_cannot_be_read_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, example(1))

    def refused(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", refused)
        with pytest.raises(MachineError, match=r"cannot read the checkpoint .*denied"):
            load(tmp_path)
    assert load(tmp_path) is not None


def test_a_newer_format_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.checkpoint.FORMAT", 2)
    save(tmp_path, example(1))
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="of format 2, newer than this program's 1"):
        load(tmp_path)


def test_an_interrupted_write_does_not_count(tmp_path: Path) -> None:
    save(tmp_path, example(1))
    (tmp_path / "checkpoint-000002.safetensors").write_bytes(b"half")
    (tmp_path / "checkpoint-000002.json.tmp").write_bytes(b"{")
    found = load(tmp_path)
    assert found is not None
    assert found.epoch == 1
    save(tmp_path, example(3))
    assert {path.stem for path in tmp_path.iterdir()} == {"checkpoint-000001", "checkpoint-000003"}


def test_a_full_disk_is_a_machine_error_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, example(1))

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(MachineError, match=r"disk full: cannot write .* free some space"):
        save(tmp_path, example(2))
    monkeypatch.undo()
    assert not list(tmp_path.glob("*.tmp"))
    found = load(tmp_path)
    assert found is not None
    assert found.epoch == 1


def test_a_path_that_cannot_be_written_is_a_machine_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"cannot write '.*file/weights'"):
        write_atomically(tmp_path / "file" / "weights", b"")


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_an_optimiser_continues_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    recipe = Recipe.model_validate({"epochs": 1, "optimizer": optimizer, "lr": 0.01})

    def network() -> nn.Module:
        torch.manual_seed(0)
        # Never used: a parameter without gradient has no state.
        layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 1), nn.Flatten(), nn.Linear(180, 3))
        layers.register_parameter("unused", nn.Parameter(torch.ones(2)))
        return layers.to(memory_format=torch.channels_last)

    def step(model: nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
        torch.manual_seed(seed)
        optimiser.zero_grad()
        x: Tensor = torch.randn(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)
        model(x).square().sum().backward()
        optimiser.step()

    whole = network()
    optimiser = make_optimizer(recipe, parameter_groups(whole), torch.device("cpu"))
    for seed in (1, 2, 3):
        step(whole, optimiser, seed)

    first = network()
    optimiser = make_optimizer(recipe, parameter_groups(first), torch.device("cpu"))
    for seed in (1, 2):
        step(first, optimiser, seed)
    tensors, plain = optimizer_state(optimiser)
    save(tmp_path, Checkpoint(2, tensors, json.loads(json.dumps(plain))))
    found = load(tmp_path)
    assert found is not None
    second = network()
    second.load_state_dict(first.state_dict())
    optimiser = make_optimizer(recipe, parameter_groups(second), torch.device("cpu"))
    restore_optimizer(optimiser, found.tensors, found.state)
    step(second, optimiser, 3)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_training_is_adopted_by_another_folder(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    assert not adopt(source, target)
    assert not target.exists()
    save(source, example(2))
    save(source, example(3))
    before = files(source)
    assert adopt(source, target)
    assert files(source) == before
    assert files(target) == {name: content for name, content in before.items() if "000003" in name}


def test_adopting_again_keeps_what_has_gone_on_since(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    save(source, example(3))
    save(target, example(2))
    before = files(target)
    assert adopt(source, target)
    assert files(target) == before
    assert adopt(tmp_path / "absent", target)


def test_only_an_intact_generation_is_adopted(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    save(source, example(2))
    save(source, example(3))
    flip(newest(source, ".safetensors"))
    save(target, example(1))
    cut(newest(target, ".json"))
    with pytest.warns(Notice, match="is damaged"):
        assert adopt(source, target)
    found = load(target)
    assert found is not None
    assert found.epoch == 2
    damaged = tmp_path / "damaged"
    save(damaged, example(1))
    flip(newest(damaged, ".safetensors"))
    with pytest.warns(Notice, match="begins again"):
        assert not adopt(damaged, tmp_path / "nothing")


def test_an_interrupted_copy_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    save(source, example(3))
    replace = os.replace

    def fail(old: str, new: Path) -> None:
        if str(new).endswith(".json"):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace(old, new)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(MachineError, match="disk full"):
        adopt(source, target)
    assert load(target) is None
    monkeypatch.undo()
    assert adopt(source, target)
    found = load(target)
    assert found is not None
    assert found.epoch == 3
