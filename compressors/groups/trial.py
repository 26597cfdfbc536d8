"""What was found is tried: on a copy of the network, units are removed, and what fails for it is fixed."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from compressors.comparison import answers, difference, randomise
from compressors.groups.groups import Fixed, Group, Groups
from compressors.groups.removal import masked, remove, uneven

FORWARD = "forward"

TRIED = 1e-4
"""How much an output may differ from that of the masked twin, relative to the largest."""


def tried(network: nn.Module, found: Groups, inputs: Sequence[Tensor]) -> Groups:
    """What of the groups can be removed of this network in truth; it is a copy, and is changed."""
    randomise(network)

    def problem(groups: Sequence[Group]) -> str:
        exact = [group for group in groups if group.exact]
        wrong = _problem(network, found, uneven(exact), inputs, compared=True) if exact else ""
        if wrong or len(exact) == len(groups):
            return wrong
        return _problem(network, found, uneven(groups), inputs, compared=False)

    if not problem(found.groups):
        return found
    kept: list[Group] = []
    fixed: list[Fixed] = []
    for group in found.groups:
        wrong = problem([*kept, group])
        if wrong:
            fixed.append(Fixed(group.name, len(group.units), FORWARD, group.name, wrong))
        else:
            kept.append(group)
    gone = {one.name for one in fixed}
    products = tuple(
        replace(
            product,
            factors=tuple(
                replace(factor, per={name: per for name, per in factor.per.items() if name not in gone})
                for factor in product.factors
            ),
        )
        for product in found.products
    )
    return replace(found, groups=tuple(kept), fixed=(*found.fixed, *fixed), products=products)


def _problem(
    network: nn.Module, found: Groups, removed: Mapping[str, Collection[int]], inputs: Sequence[Tensor], compared: bool
) -> str:
    """What is wrong once these units are removed, an empty text where nothing is."""
    try:
        smaller = copy.deepcopy(network)
        remove(smaller, found, removed)
        with torch.no_grad():
            answer = answers(smaller(*inputs))
            expected = answers(masked(network, found, removed)(*inputs)) if compared else answer
    except Exception as error:
        said = str(error).strip().splitlines() or [type(error).__name__]
        return f"its code does not run with fewer: {said[0]}"
    if [one.shape for one in answer] != [one.shape for one in expected]:
        return "its output has another shape with fewer"
    if any(difference(one, other) > TRIED for one, other in zip(answer, expected, strict=True)):
        return "the output is not that of the network in which they are 0"
    return ""
