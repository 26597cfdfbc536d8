"""What a loss of power leaves: a file is flushed before it gets its name, and `--durable` flushes every commit."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.crash.injection import program
from tests.crash.sessions import SEARCH, write_toy


class Disk:
    """Notes, by name, what reaches the disk and what is renamed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.events: list[tuple[str, ...]] = []
        fsync, replace = os.fsync, os.replace

        def flush(handle: int) -> None:
            place = Path(f"/proc/self/fd/{handle}").readlink()
            self.events.append(("flush", place.name, str(place.stat().st_size if place.is_file() else 0)))
            fsync(handle)

        def rename(source: Path, target: Path) -> None:
            self.events.append(("rename", Path(source).name, Path(target).name))
            replace(source, target)

        monkeypatch.setattr(os, "fsync", flush)
        monkeypatch.setattr(os, "replace", rename)


def test_a_file_is_whole_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from nas_core.files import write_atomically
    from training import checkpoint

    disk = Disk(monkeypatch)
    folder = tmp_path / "trial-0"
    write_atomically(folder / "weights", b"x" * 1000)
    assert disk.events == [
        ("flush", "weights.tmp", "1000"),
        ("rename", "weights.tmp", "weights"),
        ("flush", "trial-0", "0"),
    ]
    disk.events.clear()
    checkpoint.save(folder, checkpoint.Checkpoint(1, {"w": torch.zeros(3)}, {}))
    names = [event[2] for event in disk.events if event[0] == "rename"]
    assert names == ["checkpoint-000001.safetensors", "checkpoint-000001.json"]  # the JSON says that all is there
    assert len(disk.events) == 6


def test_exported_files_are_whole_before_they_have_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from training import export

    disk = Disk(monkeypatch)
    export._write(tmp_path / "model.onnx", b"x" * 1000)
    assert disk.events == [("flush", "model.onnx", "1000")]


def test_what_a_killed_export_has_left_goes_with_the_next(tmp_path: Path) -> None:
    from training.export.aside import aside

    (tmp_path / ".s-0-killed").mkdir()
    (tmp_path / ".s-0-killed" / "half").write_bytes(b"x")
    with aside(tmp_path, "s-0") as first, aside(tmp_path, "s-0") as second:
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted((first.name, second.name))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("durable", [True, False])
def test_durable_waits_for_the_disk_at_every_commit(tmp_path: Path, durable: bool) -> None:
    """Nothing is said before what it says has reached the disk."""
    folder = write_toy(tmp_path / "work")
    log = tmp_path / "strace"
    with program("nas_cli.search") as nas:
        command = [*SEARCH, "--study", "s", "--trials", "3", *(["--durable"] if durable else [])]
        calls = ["-y", "-e", "trace=pwrite64,write,fdatasync,fsync", "-o", str(log)]
        assert nas.run(folder, command, strace=calls)[0] == 0
    waiting = late = said = 0
    for line in log.read_text().splitlines():
        if "nas.db-wal>" in line:
            waiting = waiting + 1 if "pwrite64(" in line else 0
        elif re.search(r"write\(2<", line) and "trials" in line:
            said += 1
            late += waiting > 0
    assert said >= 2
    assert (late == 0) is durable
