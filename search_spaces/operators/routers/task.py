"""Routers that know the task of a sample."""

from __future__ import annotations

from torch import Tensor, nn

from search_spaces.layers.dispatch import Chosen, Mixed
from search_spaces.layers.probabilities import probabilities
from search_spaces.operators.routers.balance import check_active


class TaskRouter(nn.Module):
    """The experts of a task: the `active` largest of softmax(W e) of its embedding e, weighted by it over the sum of
    those. All tokens of a task have the same (Kudugunta et al., "Beyond Distillation: Task-level Mixture-of-Experts",
    2021, arXiv 2110.03742, section 3.2), so that the network of one task is a part of the whole. Raises UsageError for
    an impossible number of active experts; `forward` raises ValueError where no tasks are given."""

    def __init__(self, features: int, experts: int, active: int, tasks: int) -> None:
        super().__init__()
        check_active("task", active, experts)
        self.active = active
        self.embedding = nn.Embedding(tasks, features)
        self.gate = nn.Linear(features, experts, bias=False)

    def forward(self, x: Tensor, condition: Tensor | None) -> Chosen:
        # Of all tasks together, so that the rest of a batch is nothing to them, not even in the last bit.
        shares = probabilities(self.gate(self.embedding.weight))[known(condition, "task")]
        shares = shares.unsqueeze(1).expand(-1, x.shape[1], -1)
        weights, chosen = shares.topk(self.active, -1)
        return Chosen(chosen, weights / weights.sum(-1, keepdim=True), shares)


class GatePerTask(nn.Module):
    """Multi-gate mixture of experts: a softmax gate of its own for each task, over all experts (Ma et al., "Modeling
    Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018, equations 5 to 7).
    `active` is no choice here: all are computed."""

    def __init__(self, features: int, experts: int, active: int, tasks: int) -> None:
        super().__init__()
        self.active = experts
        self.gates = nn.ModuleList(nn.Linear(features, experts, bias=False) for _ in range(tasks))

    def forward(self, x: Tensor, condition: Tensor | None) -> Mixed:
        task = known(condition, "mmoe")
        shares = 0
        for number, gate in enumerate(self.gates):
            shares = shares + probabilities(gate(x)) * (task == number).to(x.dtype)[:, None, None]
        return Mixed(shares, shares)


def known(condition: Tensor | None, name: str) -> Tensor:
    """The condition. Raises ValueError where there is none."""
    if condition is None:
        raise ValueError(f"router {name} goes by a sample's task, and these data have none; take another router")
    return condition
