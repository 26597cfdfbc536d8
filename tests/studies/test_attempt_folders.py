"""The folders of attempts: what one has left another goes on from, and no two of them ever share a file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from studies.executors.attempt_folders import abandon, begin, hand_in


def tree(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


def write(folder: Path, **files: str) -> Path:
    for name, content in files.items():
        path = folder / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def test_an_attempt_begins_with_what_is_there_and_hands_in_what_it_leaves(tmp_path: Path) -> None:
    run = write(tmp_path / "trial-1", checkpoint="one", round__kept="old")
    own = begin(run, 7)
    assert own.parent == run
    assert tree(own) == {"checkpoint": "one", "round/kept": "old"}
    write(own, checkpoint="two", round__kept="new", weights="w")
    assert begin(run, 7) == own  # given back, and taken again
    assert tree(own)["checkpoint"] == "two"
    assert (run / "checkpoint").read_text() == "one"
    hand_in(run, 7)
    assert tree(run) == {"checkpoint": "two", "round/kept": "new", "weights": "w"}
    hand_in(run, 7)
    assert tree(run) == {"checkpoint": "two", "round/kept": "new", "weights": "w"}


def test_a_handing_in_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    run = write(tmp_path / "trial-1", first="old", second="old")
    own = write(begin(run, 7), first="new", second="new")
    (own / "first").replace(run / "first")
    hand_in(run, 7)
    assert tree(run) == {"first": "new", "second": "new"}


def test_a_late_worker_harms_nobody(tmp_path: Path) -> None:
    """Whatever it writes, before and after another one goes on from what it had left."""
    run = tmp_path / "trial-1"
    late = write(begin(run, 7), checkpoint="seven")
    write(late, **{"half.tmp": "torn"})
    with open(late / "checkpoint", "r+") as open_file:
        own = begin(run, 9)
        assert tree(own) == {"checkpoint": "seven"}
        open_file.write("LATE!")
    write(late, checkpoint="later", weights="late")
    assert tree(own) == {"checkpoint": "seven"}
    write(own, checkpoint="nine", weights="nine")
    third = begin(run, 12)  # of the two that are there, the one that was begun last
    assert tree(third) == {"checkpoint": "nine", "weights": "nine"}
    write(late, weights="late again")
    hand_in(run, 12)
    assert tree(run) == {"checkpoint": "nine", "weights": "nine"}


def test_what_is_abandoned(tmp_path: Path) -> None:
    run = tmp_path / "trial-1"
    write(begin(run, 7), checkpoint="seven")
    abandon(run, 7, wanted=True)
    assert tree(begin(run, 9)) == {"checkpoint": "seven"}
    write(run / "attempt-7", checkpoint="late")
    abandon(run, 7, wanted=True)  # the other one has begun with its own copy
    assert tree(run) == {"attempt-9/checkpoint": "seven"}
    abandon(run, 9, wanted=False)
    assert not run.exists()
    abandon(run, 9, wanted=False)


def test_a_checkpoint_that_is_replaced_meanwhile_is_copied_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "trial-1"
    late = write(begin(run, 7), a="1", b="1")
    copies, whole = 0, shutil.copyfile

    def copyfile(source: Path, target: Path) -> None:
        nonlocal copies
        copies += 1
        if copies == 1:  # the late worker writes its next generation and removes this one
            for name in ("a", "b"):
                (late / name).unlink()
            write(late, c="2", d="2")
        whole(source, target)

    monkeypatch.setattr(shutil, "copyfile", copyfile)
    assert tree(begin(run, 9)) == {"c": "2", "d": "2"}


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(source: Path, target: Path) -> None:
        raise FileNotFoundError(2, "No such file", str(source))

    run = write(tmp_path / "trial-1", a="1")
    monkeypatch.setattr(shutil, "copyfile", gone)
    with pytest.raises(FileNotFoundError):
        begin(run, 7)
    assert tree(run) == {"a": "1"}
