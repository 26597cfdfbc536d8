"""Proxy filter: another strategy proposes several candidates, and the best of them by a predictor is evaluated.

The general form of the assisted searches of Zhang and Jia, "GradSign: Model Performance Inference with Theoretical
Insights", ICLR 2022, section 5.3: around random search the best of a scored sample is trained, around regularised
evolution the best of several mutants of one parent, around REINFORCE the best of several actions.

The inner strategy is asked as often as there are `candidates`, each time for another number; what is known already
gives way to what is new. It learns from the outcomes of what was chosen, as if it had proposed nothing else. Where
it answers every number alike, as local search does within a climb, there is nothing to choose from, and nothing is
scored. A proposal's note says how many architectures were scored for it; when all proposals together have reached
`scored`, those of the inner strategy pass as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.seeds import derive
from nas_core.strategy import Exhausted, Outcome, Pending, Proposal, Setting, Snapshots, Transfers
from predictors.ranking import ranking
from strategies.basic.random_search import known_to
from strategies.parts.scored_pool import SCORED, scores_of
from strategies.wrappers.inner import InnerConfig, adopt

NOTE = "scored"
"""Key of a proposal's note: how many architectures were scored for it."""


class ProxyFilter:
    """The best of several proposals; it has snapshots where the inner strategy has them."""

    class Config(InnerConfig):
        """What proposes, how much, and what decides."""

        inner: str = Field(
            "regularized-evolution", description="strategy that proposes the candidates: a name, or FILE.py:CLASS"
        )
        predictor: str = Field("logsynflow", description='a score, or a ranking of the candidates such as "vote"')
        candidates: int = Field(10, ge=1, le=SCORED, description="proposals of which one is evaluated (k)")
        scored: int = Field(SCORED, ge=1, le=100_000, description="architectures that are scored in all")

    def __init__(self, setting: Setting, config: Config) -> None:
        """Raises UsageError for a setting without the predictor's scores."""
        self._setting, self._config = setting, config
        self._score = scores_of(setting, "proxy-filter", config.predictor)
        self.inner = config.make(setting)
        self._known: set[str] = set()
        self._scored = 0
        if isinstance(self.inner, Snapshots):
            self.state_dict, self.load_state_dict = self._state_dict, self._load_state_dict
        if isinstance(self.inner, Transfers):
            self.donors = self.inner.donors

    def ask(self, number: int, pending: Sequence[Pending]) -> Proposal | None:
        bare = [Pending(trial.number, _bare(trial.proposal)) for trial in pending]
        first = self.inner.ask(number, bare)
        left = self._config.scored - self._scored - sum(int(trial.proposal.note.get(NOTE, 0)) for trial in pending)
        count = min(self._config.candidates, left)
        if first is None or count < 2:
            return first
        found = {first.arch: first}
        for place in range(1, count):
            with suppress(Exhausted):
                other = self.inner.ask(derive(number, "candidate", place), bare)
                if other is not None:
                    found.setdefault(other.arch, other)
        known = known_to(self._setting, self._known, pending)
        new = [arch for arch in found if not known(self._setting.identity(arch))]
        if len(new) < 2:
            return found[new[0]] if new else first
        scores = ranking(self._config.predictor, new, self._score)
        chosen = found[new[max(range(len(new)), key=scores.__getitem__)]]
        return replace(chosen, note={**chosen.note, NOTE: len(new)})

    def adopt(self, proposal: Proposal, arch: Architecture) -> Proposal:
        return adopt(self.inner, proposal, arch)

    def tell(self, outcome: Outcome) -> None:
        self._known.add(self._setting.identity(outcome.proposal.arch))
        self._scored += int(outcome.proposal.note.get(NOTE, 0))
        self.inner.tell(replace(outcome, proposal=_bare(outcome.proposal)))

    def _state_dict(self) -> dict[str, Any]:
        inner: Any = self.inner
        return {"scored": self._scored, "known": sorted(self._known), "inner": inner.state_dict()}

    def _load_state_dict(self, state: Mapping[str, Any]) -> None:
        inner: Any = self.inner
        self._scored, self._known = int(state["scored"]), set(state["known"])
        inner.load_state_dict(state["inner"])


def _bare(proposal: Proposal) -> Proposal:
    """The proposal as the inner strategy made it."""
    return replace(proposal, note={name: value for name, value in proposal.note.items() if name != NOTE})
