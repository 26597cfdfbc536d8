"""Outcomes in snapshots: what strategies that compare candidates learn from, without metrics and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nas_core.architecture import Architecture
from nas_core.strategy import Outcome, Proposal, State


def stored(outcome: Outcome) -> dict[str, Any]:
    """The outcome as plain data."""
    return {
        "number": outcome.number,
        "arch": outcome.proposal.arch.to_json(),
        "note": dict(outcome.proposal.note),
        "state": str(outcome.state),
        "values": None if outcome.values is None else list(outcome.values),
        "violations": list(outcome.violations),
    }


def restored(state: Mapping[str, Any]) -> Outcome:
    """What `stored` was given."""
    values = None if state["values"] is None else tuple(state["values"])
    proposal = Proposal(Architecture.from_json(state["arch"]), note=state["note"])
    return Outcome(int(state["number"]), proposal, State(state["state"]), values, tuple(state["violations"]))
