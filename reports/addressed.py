"""What an address means for figures: a study, a run of it, or a bench."""

from __future__ import annotations

from dataclasses import replace

from nas_core.errors import NotFoundError, UsageError
from nas_core.records import GENERATOR, SUPERNET
from reports.kind import Subject
from studies.address import Address, is_object, is_path, parse
from studies.analysis.queries import subject_of
from studies.analysis.trained import named_run
from studies.records import Study
from studies.store.store import Store


def addressed(store: Store, text: str) -> Subject:
    """`STUDY`, `STUDY:17`, `STUDY/baseline-1`, `STUDY:17/train-2`, `STUDY:17/compress-1`, or the name of a bench where
    no study has it. Raises NotFoundError, UsageError."""
    if is_object(text) or is_path(text):
        raise UsageError(f"figures are drawn of what a database holds, and '{text}' is a file; name a study")
    if store.find_study(text) is None:
        bench = store.find_bench(text)
        if bench is not None:
            return Subject(store, text, bench=bench)
    place = parse(text)
    study = store.study(place.study)
    if place.kind in (SUPERNET, GENERATOR):
        raise UsageError(f"'{text}' is drawn with its study; write {place.study}")
    return _named(store, study, place, text)


def of_study(store: Store, study: Study, rest: str) -> Subject:
    """A run of a study by what an address has after the name and the colon: `17`, `17/train-2`, `/baseline-1`; for
    studies whose names addresses cannot hold. Raises NotFoundError."""
    try:
        place = parse(f"s{rest}" if rest.startswith("/") else f"s:{rest}")
    except UsageError:
        place = Address("")
    if place.study != "s" or (place.trial is None and place.baseline is None):
        raise NotFoundError(f"study '{study.name}' has no run '{rest}'")
    place = replace(place, study=study.name)
    return _named(store, study, place, str(place))


def _named(store: Store, study: Study, place: Address, text: str) -> Subject:
    if place.kind is not None:
        _, trial, run = named_run(store, place)
        return Subject(store, text, study, trial, run)
    if place.trial is None and place.baseline is None:
        return Subject(store, text, study)
    trial = subject_of(store, study, place)
    return Subject(store, text, study, trial, trial)
