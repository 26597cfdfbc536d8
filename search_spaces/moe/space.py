"""Mixtures of experts: which feed-forward layers of a network are of experts, and of which.

A network is a backbone (`backbones`: a residual MLP for tables, a causal transformer for texts, mixers of patches for
images with one task, and with several) of 2 to 6 blocks. Its feed-forward layers are dense, or of experts: a router of
the catalogue (`search_spaces.operators.routers`), with what is to be chosen of it, 2 to 32 experts of one kind or mixed
(`search_spaces.operators.experts`), 1 to 4 active ones where the router chooses, shared ones, one layer or two in the
place of a dense one, and a capacity where tokens choose. All layers of experts of a network are of one layout; which
feed-forward layers they are is chosen block by block.

Experts have as many hidden units as give the layer as many active parameters as the dense one has, router included, or
a factor of the features. Beside them stand the two dense networks that say whether experts pay: `dense`, of equal
active parameters, and `dense-total`, whose layers have the parameters that plain experts (GELU, noisy top-k gates)
would have in all. `moe(ffn=dense)` and `moe(ffn=dense-total)` hold these alone.

Which routers a backbone can have is said by what they need (`routers.facts`). The softmax after the choice of one
expert is 1 and teaches the router nothing: that is not allowed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import SizeConfig
from nas_core.errors import UsageError, unknown
from nas_core.evaluation import Metric
from nas_core.graph import ArchGraph
from nas_core.space import SearchSpace, check_legal
from nas_core.task import Task
from search_spaces.moe.backbones import BACKBONES
from search_spaces.moe.named import DEPTH, EXPANSION, LAYOUTS, Known
from search_spaces.operators.experts import EXPERT, UNMERGED, WITHOUT_HIDDEN
from search_spaces.operators.operator import Operator
from search_spaces.operators.routers import ROUTER, facts_of
from search_spaces.operators.routers.facts import CHOSEN, CONDITION, ONE

if TYPE_CHECKING:
    from torch import nn

    from search_spaces.moe.layers import Layout

ANY, DENSE, DENSE_TOTAL = FFNS = ("any", "dense", "dense-total")
BLOCKS = 6
EXPERTS = (2, 4, 8, 16, 32)
EQUAL, FREE = ("equal-active", "free")
STATISTICS = ("load_ratio", "router_entropy", "dead_share", "dropped_share")
PLAIN = ("noisy-top-k", "gelu")  # what the layers are of that `dense-total` has the parameters of


class Size(SizeConfig):
    """How wide networks are built."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {"width": 32}, "full": {}}

    width: int = Field(default=128, ge=4, le=4096, description="features of a token between the blocks")


class Moe(SearchSpace):
    """Networks of a `backbone` (table, text, patches, tasks) whose feed-forward layers are dense or of experts. `ffn`:
    "any", or one of the dense kinds alone; `routers`, `kinds`: those of the catalogues that are searched, or your own,
    `my_routers.py:Mine`.

    Raises UsageError for unknown ones, for a router that the backbone does not give what it needs, and for one that
    merges experts where all kinds are mixed ones.
    """

    name = "moe"
    Size = Size
    counted = ("params", "active_params", "macs")
    why_not_relaxable = (
        "its choices set numbers and widths of experts of whole networks, so the candidates of one have no common shape"
    )

    def __init__(
        self,
        backbone: str = "table",
        ffn: str = ANY,
        routers: Sequence[str] | None = None,
        kinds: Sequence[str] = tuple(EXPERT.table),
    ) -> None:
        if backbone not in BACKBONES:
            raise unknown("backbone of moe", str(backbone), BACKBONES)
        if ffn not in FFNS:
            raise unknown("ffn of moe", str(ffn), FFNS)
        self.backbone = BACKBONES[backbone]
        self.tasks = self.backbone.kinds
        others = [other for other in BACKBONES.values() if other is not self.backbone]
        self.elsewhere = {kind: f"moe(backbone={other.name})" for other in others for kind in other.kinds}
        self.kinds = {kind.label: kind for kind in EXPERT.operators(kinds)}
        self._merged = tuple(label for label, kind in self.kinds.items() if kind.name not in UNMERGED)
        self.routers = {router.label: router for router in self._routers(routers)}
        self._ffns = (DENSE, DENSE_TOTAL, *self.routers) if ffn == ANY else (ffn,)
        self._facts = {label: facts_of(router) for label, router in self.routers.items()}
        self.choices = tuple(self._choices())
        known = {name: self._known(layout) for name, layout in LAYOUTS.items()}
        self.named: Mapping[str, Architecture] = MappingProxyType(
            {name: found for name, found in known.items() if isinstance(found, Architecture)}
        )
        self.left_out = {name: found for name, found in known.items() if isinstance(found, str)}

    def _routers(self, asked: Sequence[str] | None) -> Sequence[Operator]:
        if asked is None:
            every = ROUTER.operators(tuple(ROUTER.table))
            given = [router for router in every if facts_of(router).missing(self.backbone.gives) is None]
            return [router for router in given if self._merged or facts_of(router).computes != ONE]
        found = ROUTER.operators(asked)
        for router in found:
            need = facts_of(router).missing(self.backbone.gives)
            if need is not None:
                able = ", ".join(router.label for router in self._routers(None))
                raise UsageError(
                    f"router {router.label} needs {need}, which the backbone {self.backbone.name} has not; use {able}"
                )
            if facts_of(router).computes == ONE and not self._merged:
                able = ", ".join(kind for kind in EXPERT.table if kind not in UNMERGED)
                raise UsageError(
                    f"router {router.label} merges its experts, and those of {', '.join(self.kinds)} are of several "
                    f"kinds; add another kind ({able}), or leave the router out"
                )
        return found

    def _choices(self) -> Iterator[Choice]:
        blocks = range(1, BLOCKS + 1)
        yield Choice("ffn", self._ffns, "ffn")
        yield Choice("depth", tuple(blocks[1:]), "depth", ordered=True)
        yield Choice("expansion", (0.5, 1.0, 2.0, 4.0), "expansion", ordered=True)
        several = tuple(ffn for ffn in self._ffns if ffn != DENSE)
        if not several:
            return
        layered, mixed = When("ffn", several), tuple(ffn for ffn in several if ffn != DENSE_TOTAL)
        choosing = tuple(label for label in mixed if self._facts[label].computes == CHOSEN)
        yield Choice("experts", EXPERTS, "experts", (layered,), ordered=True)
        counted = tuple(ffn for ffn in several if ffn in (DENSE_TOTAL, *choosing))
        if counted:
            yield Choice("active", (1, 2, 4), "active", (When("ffn", counted),), ordered=True)
        yield Choice("shared", (0, 1, 2), "shared", (layered,), ordered=True)
        yield Choice("layers", (1, 2), "layers", (layered,), ordered=True)
        if mixed:
            yield from self._of_experts(mixed)
        for block in blocks:
            present = When("depth", tuple(range(max(block, 2), BLOCKS + 1)))
            for place in self.backbone.places:
                yield Choice(f"block{block}/{place}", ("experts", "dense"), "layer", (layered, present))

    def _of_experts(self, mixed: tuple[str, ...]) -> Iterator[Choice]:
        there = When("ffn", mixed)
        yield Choice("expert", tuple(self.kinds), "expert", (there,))
        if sized := tuple(kind for kind in self.kinds if self.kinds[kind].name not in WITHOUT_HIDDEN):
            yield Choice("width", (EQUAL, FREE), "width", (When("expert", sized),))
            yield Choice("factor", (0.25, 0.5, 1.0, 2.0), "factor", (When("width", (FREE,)),), ordered=True)
        for label in mixed:
            for option, values in self._facts[label].options.items():
                ordered = not isinstance(values[0], str | bool)
                yield Choice(f"{label}/{option}", values, option, (When("ffn", (label,)),), ordered=ordered)
        if dropping := tuple(label for label in mixed if self._facts[label].drops):
            yield Choice("drops", (False, True), "drops", (When("ffn", dropping),))
            yield Choice("capacity", (1.0, 1.25, 1.5, 2.0), "capacity", (When("drops", (True,)),), ordered=True)

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        """Active experts are some of the experts, as many as the router can choose; one alone has no softmax of its
        own; experts that a router merges are of one kind; some layer is of experts."""
        ffn = str(prefix.get("ffn"))
        facts = self._facts.get(ffn)
        if choice.name == "active":
            most = int(prefix["experts"])
            if facts is not None and facts.most is not None:
                most = min(most, facts.most)
            return tuple(option for option in choice.options if int(option) <= most)
        if choice.name == "expert" and facts is not None and facts.computes == ONE:
            return self._merged
        if choice.kind == "layer" and self._last(choice.name, int(prefix["depth"])):
            before = [value for given, value in prefix.items() if given.startswith("block")]
            return choice.options if "experts" in before else ("experts",)
        if facts is not None and prefix.get("active") == 1:
            return facts.alone.get(choice.name.removeprefix(f"{ffn}/"), choice.options)
        return choice.options

    def _last(self, name: str, depth: int) -> bool:
        return name == f"block{depth}/{self.backbone.places[-1]}"

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        """`model(x)`: `(n, *task.input_shape)` to `(n, task.outputs)`.

        Raises UsageError for an illegal architecture, a task that the backbone does not learn, or another space's size.
        """
        own = Size.own(size, self.name)
        check_legal(self, arch)
        return self.backbone.network(task, own.width, int(arch.values["depth"]), self._layers(arch, task))

    def hidden_units(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, int]:
        """Per expert and per dense layer, of each place in a block where there are several. An expert's are its own:
        those with more parameters per unit have fewer."""
        import torch

        from search_spaces.moe.layers import hidden_units

        own, made, found = Size.own(size, self.name), self._layers(arch, task), dict[str, int]()

        def layer(block: int, place: str, features: int) -> nn.Module:
            one = made(block, place, features)
            what, units = hidden_units(one)
            if units is not None:
                found[what if len(self.backbone.places) == 1 else f"{what} of {place}"] = units
            return one

        with torch.device("meta"):
            self.backbone.network(task, own.width, int(arch.values["depth"]), layer)
        return found

    def _layers(self, arch: Architecture, task: Task) -> Callable[[int, str, int], nn.Module]:
        """The feed-forward layers of a block at a place, with so many features."""
        from search_spaces.moe import layers

        values = arch.values
        layout, expansion = self.layout(arch, len(task.heads)), float(values["expansion"])

        def layer(block: int, place: str, features: int) -> nn.Module:
            hidden = max(1, round(expansion * features))
            if layout is None or values[f"block{block}/{place}"] == DENSE:
                return layers.dense(features, hidden)
            if values["ffn"] == DENSE_TOTAL:
                return layers.dense_of_total(layout, features, hidden)
            return layout.made(features, hidden)

        return layer

    def reports(self, task: Task) -> Sequence[Metric]:
        """What layers of experts hand over (`search_spaces.layers.moe`): the mean over the layers, and that of the
        worst one. Networks without experts have none of these."""
        ratio, entropy, dead, dropped = (f"train_{name}" for name in STATISTICS)
        worst = [Metric(f"{name}_max", "min") for name in (ratio, dead, dropped)]
        return Metric(ratio, "min"), Metric(entropy), Metric(dead, "min"), Metric(dropped, "min"), *worst

    def layout(self, arch: Architecture, tasks: int = 0) -> Layout | None:
        """What its layers of experts are, of `dense-total` those that it has the parameters of; None: it has none.
        `tasks`: how many there are, for routers that go by them."""
        from search_spaces.moe.layers import Layout

        values, label = arch.values, str(arch.values["ffn"])
        if label == DENSE:
            return None
        facts = self._facts.get(label)
        router, expert = ROUTER.operator(PLAIN[0]), EXPERT.operator(PLAIN[1])
        if facts is not None:
            router, expert = self.routers[label], self.kinds[str(values["expert"])]
        return Layout(
            router,
            expert,
            experts=int(values["experts"]),
            chosen=int(values.get("active", 1)),
            shared=int(values["shared"]),
            layers=int(values["layers"]),
            factor=float(values["factor"]) if "factor" in values else None,
            capacity=float(values["capacity"]) if "capacity" in values else None,
            options={} if facts is None else {name: values[f"{label}/{name}"] for name in facts.options},
            tasks=tasks,
        )

    def why_no_task_network(self, arch: Architecture) -> str | None:
        """Routers that look at tokens may need any expert for any task."""
        if CONDITION not in self.backbone.gives:
            return (
                f"networks of the backbone {self.backbone.name} are not told a task; those of moe(backbone=tasks) are"
            )
        facts, label = self._facts.get(str(arch.values["ffn"])), arch.values["ffn"]
        if facts is None or facts.by_task:
            return None
        able = ", ".join(other for other, its in self._facts.items() if its.by_task)
        return (
            f"router {label} goes by the tokens of a sample, so that any task may need any expert and none can be "
            f"left out; routers that go by the task alone are {able}"
        )

    def task_network(self, network: nn.Module, arch: Architecture, number: int) -> nn.Module:
        """Images to the logits of one head (`search_spaces.moe.of_task`)."""
        from search_spaces.moe.of_task import of_task
        from search_spaces.moe.tasks import TaskNetwork

        assert isinstance(network, TaskNetwork)
        return of_task(network, number)

    def graph(self, arch: Architecture) -> ArchGraph:
        """Feed-forward layers as nodes, each with a sum that an edge leads to around it."""
        values = arch.values
        apart = {"depth", "expansion"} | {name for name in values if name.startswith("block")}
        inside = " ".join(f"{name.partition('/')[2] or name}={v}" for name, v in values.items() if name not in apart)
        labels, edges, last = ["input"], list[tuple[int, int]](), 0
        for block in range(1, int(values["depth"]) + 1):
            for place in self.backbone.places:
                experts = values.get(f"block{block}/{place}", DENSE) != DENSE
                labels += [f"{place} x{values['expansion']} {inside if experts else DENSE}", "sum"]
                edges += [(last, len(labels) - 2), (len(labels) - 2, len(labels) - 1), (last, len(labels) - 1)]
                last = len(labels) - 1
        return ArchGraph((*labels, "output"), (*edges, (last, len(labels))))

    def _known(self, known: Known) -> Architecture | str:
        """A layout as an architecture, or why it is none of this space."""
        values, places = {**known.values, "depth": DEPTH, "expansion": EXPANSION}, self.backbone.places
        ffn, kind = str(values["ffn"]), str(values.setdefault("expert", PLAIN[1]))
        if known.whole and len(places) == 1:
            return f"all mixing of its blocks is of experts, and those of the backbone {self.backbone.name} mix nothing"
        if ffn not in self._ffns:
            return f"its layers are {ffn}, and those of this space {', '.join(self._ffns)}"
        if kind not in self.kinds and ffn in self.routers:
            return f"its experts are {kind}, and those of this space {', '.join(self.kinds)}"
        for block in range(1, DEPTH + 1):
            for place in places:
                here = block in known.blocks and (known.whole or place == places[-1])
                values[f"block{block}/{place}"] = "experts" if here else DENSE
        return moves.complete(self, values, moves.first)
