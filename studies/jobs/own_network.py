"""The study of a network that no search has found, such as one of the user's own, which trainings and whatever follows
belong to."""

from __future__ import annotations

from typing import Any

from nas_core.architecture import Architecture
from nas_core.errors import UsageError
from nas_core.records import Run, Verdict
from nas_core.space import SearchSpace
from nas_core.strategy import Proposal, State
from search_spaces.own_network import OwnNetwork
from studies.records import Study
from studies.search import start
from studies.setup.configuration import gather
from studies.setup.spaces import load_space
from studies.store.store import Store
from training.data.split import Split

STRATEGY = "random"  # there is nothing to choose


def study_of(store: Store, reference: str, data: str | None, device: str | None = None) -> tuple[Study, Run]:
    """The study of a network on such data, and its one trial, which nothing has evaluated: as they are stored, or new.

    Raises as `planned`.
    """
    plan = planned(store, reference, data, device)
    return stored(store, plan, architecture_of(plan.objects.space, reference))


def planned(store: Store, reference: str, data: str | None, device: str | None = None) -> start.Planned:
    """The study of a network of the user's own, not stored yet.

    Raises UsageError for what is no network, or without data; NotFoundError where there is none of that name.
    """
    architecture_of(load_space(reference)[0], reference)
    if data is None:
        raise UsageError(f"'{reference}' is a network: name what it is trained on by --data")
    return plan(store, reference, data, device)


def plan(
    store: Store, reference: str, data: str, device: str | None = None, split: Split | None = None
) -> start.Planned:
    """The study of one architecture of a space, not stored yet."""
    asked: dict[str, Any] = {"space": reference, "data": data, "strategy": STRATEGY, "trials": 1}
    given = {"device": device, "split": None if split is None else split.model_dump(mode="json")}
    return start.planned(
        gather(None, (), asked | {name: value for name, value in given.items() if value is not None}), store
    )


def stored(store: Store, plan: start.Planned, arch: Architecture) -> tuple[Study, Run]:
    """The study of a plan and the trial of the architecture, which nothing has evaluated: as they are stored, or
    new."""
    study = _stored(store, plan, arch) or start.start(store, plan).study
    trial = next(store.trials(study), None)
    if trial is None:
        with store.lock(study):
            store.propose(study, 0, Proposal(arch), arch.key, Verdict(State.WAITING), asked_after=0)
    return study, store.trial(study, 0)


def architecture_of(space: SearchSpace, reference: str) -> Architecture:
    """The one of a network of the user's own. Raises UsageError for a space."""
    if not isinstance(space, OwnNetwork):
        raise UsageError(
            f"'{reference}' is a search space: search it (nas search --space), then name a trial of the study"
        )
    return space.architecture


def has_weights(space: SearchSpace) -> bool:
    """Whether a network is made with the weights that it is to have: it is a module, not what makes one."""
    return isinstance(space, OwnNetwork) and space.has_weights


def _stored(store: Store, plan: start.Planned, arch: Architecture) -> Study | None:
    """The newest study of the same network on the same data."""
    same = ("space", "space_hash", "split_hash", "task", "strategy")
    found = None
    for study in store.every_study():
        if study.bench is None and all(getattr(study.spec, name) == getattr(plan.spec, name) for name in same):
            trials = list(store.trials(study))
            if not trials or (len(trials) == 1 and trials[0].state == State.WAITING and trials[0].arch == arch):
                found = study
    return found
