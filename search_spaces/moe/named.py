"""Layouts of papers, at one depth and one expansion, so that they, the dense networks and one another can be compared.

Numbers of experts are those of the papers where the space has them; where a paper has no feed-forward layers of its own
(Shazeer et al., Eigen et al.), its layers are in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nas_core.choice import Value

DEPTH, EXPANSION = 4, 4.0
EVERY, SECOND, LATER, LAST = (1, 2, 3, 4), (2, 4), (3, 4), (4,)


@dataclass(frozen=True)
class Known:
    """What is chosen, and in which blocks layers are of experts: the last one of a block, or, `whole`, all of a block
    that has several."""

    values: Mapping[str, Value]
    blocks: tuple[int, ...] = EVERY
    whole: bool = False


LAYOUTS: Mapping[str, Known] = {
    "dense": Known({"ffn": "dense"}, ()),
    # Of as many parameters as "sparsely-gated".
    "dense-total": Known({"ffn": "dense-total", "experts": 8, "active": 2}),
    # Shazeer et al., ICLR 2017, arXiv 1701.06538: noisy top-k gates, importance and load.
    "sparsely-gated": Known(
        {
            "ffn": "noisy-top-k",
            "experts": 8,
            "active": 2,
            "noisy-top-k/softmax": "after",
            "noisy-top-k/importance": 0.1,
            "noisy-top-k/load": 0.1,
        }
    ),
    # Fedus et al., JMLR 2022, arXiv 2101.03961, section 2: every second layer, capacity 1.25, loss 0.01.
    "switch": Known(
        {"ffn": "switch", "experts": 8, "active": 1, "switch/balance": 0.01, "drops": True, "capacity": 1.25}, SECOND
    ),
    # Liu et al., 2024, arXiv 2409.12136: two of 16 in every layer, none dropped.
    "grin": Known({"ffn": "grin", "experts": 16, "active": 2, "grin/balance": 0.01}),
    # Muqeeth et al., TMLR 2024, arXiv 2306.03745, with its dropout of experts.
    "smear": Known({"ffn": "smear", "experts": 8, "smear/dropout": 0.1}),
    # Kudugunta et al., 2021, arXiv 2110.03742, section 4: two of 32 in every second layer, chosen by the task.
    "task-moe": Known({"ffn": "task", "experts": 32, "active": 2}, SECOND),
    # Eigen et al., 2013, arXiv 1312.4314: two layers of experts, one after the other.
    "deep-moe": Known({"ffn": "softmax", "experts": 4, "layers": 2}, LAST),
    # Genet and Inzirillo, 2024, arXiv 2409.15161: KAN experts under a gate of KAN layers; 3 there.
    "kamoe": Known({"ffn": "grkan", "experts": 4, "expert": "kan"}),
    # Lou et al., 2021, arXiv 2109.02008: token and channel mixing of the later blocks.
    "sparse-mlp": Known({"ffn": "switch", "experts": 4, "active": 1, "switch/balance": 0.01}, LATER, whole=True),
}
