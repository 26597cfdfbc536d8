"""The study of a network of the user's own, which trainings and whatever follows belong to."""

from __future__ import annotations

from typing import Any

from nas_core.errors import UsageError
from nas_core.records import Run, Verdict
from nas_core.strategy import Proposal, State
from search_spaces.own_network import OwnNetwork
from studies.records import Study
from studies.search import start
from studies.setup.configuration import gather
from studies.setup.spaces import load_space
from studies.store.store import Store

STRATEGY = "random"  # there is nothing to choose


def study_of(store: Store, reference: str, data: str | None, device: str | None = None) -> tuple[Study, Run]:
    """The study of a network on such data, and its one trial, which nothing has evaluated: as they are stored, or new.

    Raises UsageError for what is no network, or without data; NotFoundError where there is none of that name.
    """
    space, _ = load_space(reference)
    if not isinstance(space, OwnNetwork):
        raise UsageError(
            f"'{reference}' is a search space: search it (nas search --space), then name a trial of the study"
        )
    if data is None:
        raise UsageError(f"'{reference}' is a network: name what it is trained on by --data")
    asked: dict[str, Any] = {"space": reference, "data": data, "strategy": STRATEGY, "trials": 1}
    plan = start.planned(gather(None, (), asked | ({} if device is None else {"device": device})), store)
    study = _stored(store, plan) or start.start(store, plan).study
    trial = next(store.trials(study), None)
    if trial is None:
        arch = space.architecture
        with store.lock(study):
            store.propose(study, 0, Proposal(arch), arch.key, Verdict(State.WAITING), asked_after=0)
    return study, store.trial(study, 0)


def _stored(store: Store, plan: start.Planned) -> Study | None:
    """The newest study of the same network on the same data."""
    same = ("space", "space_hash", "split_hash", "task", "strategy")
    found = None
    for study in store.every_study():
        if study.bench is None and all(getattr(study.spec, name) == getattr(plan.spec, name) for name in same):
            found = study
    return found
