"""What takes up room and serves no resume: files that killed processes or earlier versions left, free pages of the
database; and the removal of whole studies."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from nas_core.errors import UsageError
from nas_core.records import SUPERNET, TRIAL, Bench
from nas_core.strategy import FINISHED, State
from studies.records import Study
from studies.store import locks, removal
from studies.store import tables as t
from studies.store.store import Store
from training.transfer import LEAVES

CHECKPOINTS = "checkpoint-*"
UNFINISHED = "*.tmp"  # what `training.checkpoint.write_atomically` was writing


@dataclass(frozen=True)
class Spare:
    """Files of a study that no resume needs."""

    study: str
    what: str
    files: tuple[Path, ...]

    @property
    def bytes(self) -> int:
        return sum(size_of(file) for file in self.files)


def spare(store: Store, study: Study) -> list[Spare]:
    """What could be freed of a study that no process runs.

    Checkpoints of a training that is not finished stay, and so do those of a complete trial with a budget, which a
    strategy may ask to go on, until another trial has gone on from them.
    """
    folder = store.folder(study)
    places = list(_finished(store, study))
    kinds = {
        "checkpoints of finished trainings": {file for place in places for file in (folder / place).rglob(CHECKPOINTS)},
        "files whose writing was cut short": set(folder.rglob(UNFINISHED)),
    }
    checkpoints, cut_short = kinds
    kinds[checkpoints] -= kinds[cut_short]
    return [Spare(study.name, what, tuple(sorted(files))) for what, files in kinds.items() if files]


def free(store: Store, study: Study) -> int:
    """Remove what `spare` finds once no other process can run the study; the bytes that it took.

    Raises UsageError while another process runs it.
    """
    with store.lock(study):
        freed = 0
        for found in spare(store, study):
            freed += found.bytes
            for file in found.files:
                file.unlink(missing_ok=True)
                if file.parent != store.folder(study) and not any(file.parent.iterdir()):
                    file.parent.rmdir()
    return freed


def remove(store: Store, study: Study) -> None:
    """Remove a study with its files. The files go first: a new study of that name must not find them.

    Raises UsageError while another process runs it, or where another study searches on its supernet.
    """
    _check_unused(store, [study])
    with store.lock(study):
        for files in {store.files, store.default_files}:
            _remove_files(files / study.name, kept=_children_of_bench(store, study.name))
        removal.remove_study(store, study)
        _remove_lock(store, study)


def remove_bench(store: Store, bench: Bench) -> None:
    """Remove a bench with its searches. Raises as `remove`."""
    children = store.studies_of(bench)
    with ExitStack() as stack:
        for child in children:
            stack.enter_context(store.lock(child))
        for child in children:
            for files in {store.files, store.default_files}:
                _remove_files(files / child.name)
        removal.remove_bench(store, bench)
        for child in children:
            _remove_lock(store, child)


def files_of(store: Store, studies: Iterable[Study]) -> list[Path]:
    """All files of studies but their locks."""
    found = (file for study in studies for file in store.folder(study).rglob("*"))
    return [file for file in found if file.is_file() and file.name != locks.NAME]


def size_of(file: Path) -> int:
    """In bytes; 0 where it has gone meanwhile."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _finished(store: Store, study: Study) -> Iterator[str]:
    """Names of the folders of those trainings that have ended and that nothing can ask to go on."""
    r = t.runs.c
    columns = sa.select(r.id, r.kind, r.number, r.state, r.budget, r.continues, r.reuses)
    rows = store.read(columns.where(r.study == study.id, r.state.in_(FINISHED)))
    trials = {row.number: row for row in rows if t.is_kind(row, TRIAL)}
    gone_on = {row.continues for row in trials.values() if row.state == State.COMPLETE and row.continues is not None}
    # A trial that repeats another one has no files: those of the other one are meant.
    holders = {trials[n].reuses if n in trials and trials[n].state == State.REUSED else n for n in gone_on}
    for row in rows:
        if row.kind == SUPERNET:
            if row.state == State.COMPLETE:
                yield SUPERNET
        elif row.kind != TRIAL:
            yield f"{row.kind}-{row.id}"
        elif row.state != State.COMPLETE or row.budget is None or row.number in holders:
            name = f"trial-{row.number}"
            if not (store.folder(study) / name / LEAVES).is_file():  # the search removes what none begins with
                yield name


def _check_unused(store: Store, removed: Iterable[Study]) -> None:
    names = {study.name for study in removed}
    for name in store.study_names():
        source = store.study(name).spec.evaluator.facts.supernet
        if name not in names and source is not None and source.study in names:
            raise UsageError(f"study '{name}' searches on the supernet of '{source.study}'; remove '{name}' first")


def _children_of_bench(store: Store, name: str) -> set[str]:
    """Folders of a bench's searches, which lie beside those of a study of the same name."""
    bench = store.find_bench(name)
    return set() if bench is None else {child.name.split("/")[1] for child in store.studies_of(bench)}


def _remove_files(folder: Path, kept: Iterable[str] = ()) -> None:
    for path in list(folder.glob("*")):
        if path.name in {*kept, locks.NAME}:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _remove_lock(store: Store, study: Study) -> None:
    """Whoever opens the lock of a study that is gone finds that it is no longer there."""
    for files in (store.default_files, store.files):
        place = files / study.name
        (place / locks.NAME).unlink(missing_ok=True)
        while place != files and place.is_dir() and not any(place.iterdir()):
            place.rmdir()
            place = place.parent
