"""What generators have drawn for a study, as runs of it: stored before it is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from nas_core.architecture import Architecture
from nas_core.errors import NotFoundError
from nas_core.records import GENERATOR, Run, Verdict
from nas_core.strategy import Proposal, State
from studies.address import Address
from studies.records import Study
from studies.store.store import Store


def kept(store: Store, study: Study, config: Mapping[str, Any], document: Mapping[str, Any]) -> Run:
    """The run of what was drawn (`document`, plain data) by a configuration: a new one, or the one that is the same."""
    recipe = {"config": dict(config), "drawn": dict(document)}
    wanted = json.loads(json.dumps(recipe))
    runs = store.runs(study, GENERATOR)
    found = next((run for run in runs if run.recipe == wanted), None)
    if found is not None:
        return found
    every = Architecture(study.spec.space_name, {})  # no choice is made
    verdict = Verdict(State.COMPLETE)
    store.propose(study, len(runs) + 1, Proposal(every), every.key, verdict, kind=GENERATOR, recipe=recipe)
    return store.runs(study, GENERATOR)[-1]


def addressed(store: Store, address: Address) -> tuple[Run, dict[str, Any]]:
    """The run of `STUDY/generator-K`, and what was drawn. Raises NotFoundError."""
    study = store.study(address.study)
    runs = store.runs(study, GENERATOR)
    found = next((run for run in runs if run.number == address.number), None)
    if found is None or found.recipe is None:
        known = ", ".join(str(Address(study.name, kind=GENERATOR, number=run.number)) for run in runs)
        listing = f" (there are: {known})" if known else f"; run 'nas generate {study.name}' first"
        raise NotFoundError(f"there is no '{address}'{listing}")
    return found, found.recipe["drawn"]
