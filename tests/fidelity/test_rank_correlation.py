"""How well the rungs of a bracket foretell the top."""

from __future__ import annotations

import pytest

from nas_core import moves
from nas_core.evaluation import Fidelity, Objective
from nas_core.seeds import generator
from nas_core.strategy import Outcome, Proposal, Setting, State
from search_spaces.nasbench201.space import NasBench201
from strategies.multi_fidelity.bracket import rank_correlation
from strategies.multi_fidelity.successive_halving import SuccessiveHalving

SPACE = NasBench201()


def test_rank_correlation_of_candidates_that_reached_the_top() -> None:
    """Same order at 9, the opposite at 1 and 3; what stopped lower down says nothing."""
    outcomes = []
    number = 0
    for candidate in range(6):
        arch = moves.sample(SPACE, generator(candidate))
        for rung, (budget, sign) in enumerate(((1.0, -1), (3.0, -1), (9.0, 1), (27.0, 1))):
            note = {"bracket": 0, "rung": rung} | ({"promotes": number - 1} if rung else {})
            proposal = Proposal(arch, budget=budget, note=note)
            outcomes.append(Outcome(number, proposal, State.COMPLETE, (float(sign * candidate),)))
            number += 1
    for extra in range(5):
        proposal = Proposal(moves.sample(SPACE, generator("low", extra)), budget=1.0, note={"bracket": 0, "rung": 0})
        outcomes.append(Outcome(number + extra, proposal, State.COMPLETE, (float(extra),)))
    assert rank_correlation(outcomes) == pytest.approx({1.0: -1.0, 3.0: -1.0, 9.0: 1.0})
    assert rank_correlation(outcomes, least=7) == {}
    assert rank_correlation([]) == {}
    swapped = [
        Outcome(o.number, o.proposal, o.state, (1.5,)) if o.proposal.budget == 9 and o.values == (0.0,) else o
        for o in outcomes
    ]
    assert rank_correlation(swapped)[9.0] == pytest.approx((14 - 1) / 15)  # one of 15 pairs is turned round


def test_rank_correlation_leaves_out_what_does_not_differ() -> None:
    setting = Setting(SPACE, 3, (Objective("quality", "max"),), fidelity=Fidelity("epoch", 1, 9))
    strategy = SuccessiveHalving(setting, SuccessiveHalving.Config())
    outcomes: list[Outcome] = []
    for number in range(13 * 8):
        proposal = strategy.ask(number, ())
        assert proposal is not None
        value = 1.0 if proposal.budget == 1 else float(generator(proposal.arch.key).random())
        outcomes.append(Outcome(number, proposal, State.COMPLETE, (value,)))
        strategy.tell(outcomes[-1])
    assert list(rank_correlation(outcomes)) == [3.0]
