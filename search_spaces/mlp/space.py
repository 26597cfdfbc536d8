"""Networks for tables: residual MLPs, attention over fields (AutoInt), two gated streams (FinalMLP).

A row of fields (numbers, one-hot blocks) is taken as it is or embedded, a vector per field. What is predicted is
- `mlp`: a residual MLP (Gorishniy et al., "Revisiting Deep Learning Models for Tabular Data", NeurIPS 2021,
  arXiv 2106.11959, section 3.2): linear stem, 1 to 4 pre-normalised blocks, normalisation, activation, linear head;
- `autoint`: layers of multi-head self-attention over the embedded fields, a linear head on all of them (Song et al.,
  CIKM 2019, arXiv 1810.11921);
- `autoint+`: the sum of these two ("integrating implicit interactions" there);
- `finalmlp`: two gated streams and their bilinear fusion (Mao et al., AAAI 2023, arXiv 2304.00902). Without gates it is
  that paper's DualMLP.

Deviations: the heads give a logit per class, or a number, instead of the logit of one click; all widths are on small
grids; the context of a gate is nothing (a learnt vector) or all inputs, since a table does not say which of its fields
are the user's; fields have a bias. See `search_spaces.mlp.network` for the layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from nas_core.architecture import Architecture
from nas_core.choice import Choice, Value, When
from nas_core.config import SizeConfig
from nas_core.graph import ArchGraph
from nas_core.space import SearchSpace, check_legal
from nas_core.task import TABULAR_CLASSIFICATION, TABULAR_REGRESSION, Task

if TYPE_CHECKING:
    from torch import nn

MLP, AUTOINT, AUTOINT_PLUS, FINALMLP = MODELS = ("mlp", "autoint", "autoint+", "finalmlp")
RAW, FIELDS = EMBEDDINGS = ("none", "linear")
NONE, VECTOR, INPUTS = GATES = ("none", "vector", "inputs")
EQUATIONS, RELEASED = FORMS = ("equations", "released")
BLOCKS = 4
MULTIPLE = 8  # of which all widths are multiples, at any scale: what heads divide

_TRUNK = (When("model", (MLP, AUTOINT_PLUS)),)
_ATTENTION = (When("model", (AUTOINT, AUTOINT_PLUS)),)
_STREAMS = (When("model", (FINALMLP,)),)
_LAYERS = (When("model", (MLP, AUTOINT_PLUS, FINALMLP)),)


def _choices() -> Iterator[Choice]:
    yield Choice("model", MODELS, "model")
    yield Choice("embedding", EMBEDDINGS, "embedding")
    yield Choice("embedding/size", (4, 8, 16), "size", (When("embedding", (FIELDS,)),), ordered=True)
    yield Choice("attention/layers", (1, 2, 3), "layers", _ATTENTION, ordered=True)
    yield Choice("attention/width", (16, 32, 64), "width", _ATTENTION, ordered=True)
    yield Choice("attention/heads", (1, 2, 4), "heads", _ATTENTION, ordered=True)
    yield Choice("attention/form", FORMS, "form", _ATTENTION)
    yield Choice("streams/gates", GATES, "gates", _STREAMS)
    yield Choice("streams/heads", (1, 2, 4, 8), "heads", _STREAMS, ordered=True)
    for stream in (1, 2):
        yield Choice(f"stream{stream}/layers", (1, 2, 3), "layers", _STREAMS, ordered=True)
        yield Choice(f"stream{stream}/width", (64, 128, 256), "width", _STREAMS, ordered=True)
    yield Choice("width", (64, 128, 256), "width", _TRUNK, ordered=True)
    yield Choice("depth", tuple(range(1, BLOCKS + 1)), "layers", _TRUNK, ordered=True)
    for block in range(1, BLOCKS + 1):
        present = When("depth", tuple(range(block, BLOCKS + 1)))
        yield Choice(f"block{block}/expansion", (1, 2, 4), "expansion", (present,), ordered=True)
    yield Choice("activation", ("relu", "gelu", "silu"), "activation", _LAYERS)
    yield Choice("normalisation", ("none", "batch", "layer"), "normalisation", _LAYERS)
    yield Choice("dropout", (0.0, 0.1, 0.2, 0.4), "dropout", _LAYERS, ordered=True)


_USUAL: Mapping[str, Value] = {"activation": "relu", "normalisation": "batch", "dropout": 0.1}
_RESIDUAL: Mapping[str, Value] = {"width": 128, "depth": 2, "block1/expansion": 2, "block2/expansion": 2, **_USUAL}
_AUTOINT: Mapping[str, Value] = {
    "embedding": FIELDS,
    "embedding/size": 16,
    "attention/layers": 3,
    "attention/width": 64,
    "attention/heads": 2,
    "attention/form": EQUATIONS,
}
_DUAL: Mapping[str, Value] = {
    "embedding": FIELDS,
    "embedding/size": 8,
    "streams/heads": 2,
    "stream1/layers": 1,
    "stream1/width": 128,
    "stream2/layers": 1,
    "stream2/width": 256,
    **_USUAL,
}
_NAMED: Mapping[str, Mapping[str, Value]] = {
    "mlp": {"model": MLP, "embedding": RAW, **_RESIDUAL},
    "autoint": {"model": AUTOINT, **_AUTOINT},
    "autoint+": {"model": AUTOINT_PLUS, **_AUTOINT, **_RESIDUAL},
    "finalmlp": {"model": FINALMLP, "streams/gates": VECTOR, **_DUAL},
    "dualmlp": {"model": FINALMLP, "streams/gates": NONE, **_DUAL},
}


class Size(SizeConfig):
    """How much wider the layers are built than their choices say; embeddings stay."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {"width_scale": 0.5}, "full": {}}

    width_scale: float = Field(default=1.0, gt=0, le=16, description="factor on all widths but those of embeddings")

    def width(self, chosen: Value) -> int:
        """A chosen width at this scale: the nearest multiple of 8, at least 8."""
        return max(1, round(int(chosen) * self.width_scale / MULTIPLE)) * MULTIPLE


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of FinalMLP: `layers` linear layers of `width`."""

    layers: int
    width: int


class Mlp(SearchSpace):
    """Residual MLPs, AutoInt, their sum, and FinalMLP, on raw or embedded fields: 2,291,490 architectures.

    FinalMLP's streams are interchangeable: architectures that differ in their order share an `identity`.
    """

    name = "mlp"
    version = 1
    tasks = frozenset({TABULAR_CLASSIFICATION, TABULAR_REGRESSION})
    choices = tuple(_choices())
    Size = Size
    why_not_relaxable = (
        "its choices set depths and widths of whole networks, so the candidates of one have no common shape"
    )

    def __init__(self) -> None:
        in_order = {
            name: {choice.name: values[choice.name] for choice in self.choices if choice.name in values}
            for name, values in _NAMED.items()
        }
        self.named: Mapping[str, Architecture] = MappingProxyType(
            {name: Architecture(self.name, values) for name, values in in_order.items()}
        )

    def allowed(self, choice: Choice, prefix: Mapping[str, Value]) -> tuple[Value, ...]:
        """Attention needs embedded fields."""
        if choice.name == "embedding" and prefix["model"] in (AUTOINT, AUTOINT_PLUS):
            return (FIELDS,)
        return choice.options

    def identity(self, arch: Architecture) -> str:
        """The key, with the two streams in the order of their sizes: which one comes first changes no function."""
        if arch.values["model"] != FINALMLP:
            return arch.key
        first, second = sorted((stream.layers, stream.width) for stream in _streams(arch, Size()))
        ordered = {
            "stream1/layers": first[0],
            "stream1/width": first[1],
            "stream2/layers": second[0],
            "stream2/width": second[1],
        }
        return Architecture(self.name, {**arch.values, **ordered}).key

    def graph(self, arch: Architecture) -> ArchGraph:
        """Layers as nodes: embedding, then attention, residual blocks with an edge around each, or two streams."""
        values = arch.values
        labels, edges = ["input"], list[tuple[int, int]]()

        def add(label: str, *sources: int) -> int:
            labels.append(label)
            edges.extend((source, len(labels) - 1) for source in sources)
            return len(labels) - 1

        start = add(f"embedding {values['embedding/size']}", 0) if values["embedding"] == FIELDS else 0
        ends = []
        if "attention/layers" in values:
            last = start
            for _ in range(int(values["attention/layers"])):
                what = f"{values['attention/form']} {values['attention/width']} in {values['attention/heads']}"
                last = add(f"attention {what}", last)
            ends.append(last)
        layers = " ".join(str(values.get(name)) for name in ("activation", "normalisation", "dropout"))
        if "depth" in values:
            last = add(f"linear {values['width']}", start)
            for block in range(1, int(values["depth"]) + 1):
                inside = add(f"block x{values[f'block{block}/expansion']} {layers}", last)
                last = add("sum", inside, last)
            ends.append(last)
        if values["model"] == FINALMLP:
            streams = []
            for stream in _streams(arch, Size()):
                last = add(f"gate {values['streams/gates']}", start)
                for _ in range(stream.layers):
                    last = add(f"linear {stream.width} {layers}", last)
                streams.append(last)
            ends.append(add(f"fusion in {values['streams/heads']}", *streams))
        add("output", *ends)
        return ArchGraph(tuple(labels), tuple(edges))

    def build(self, arch: Architecture, task: Task, size: SizeConfig) -> nn.Module:
        """`model(x)`: rows `(n, width)` to `(n, task.outputs)`.

        Raises UsageError for an illegal architecture, a task without a table, or another space's size.
        """
        from torch import nn

        from search_spaces.mlp.network import FieldEmbedding, TableNetwork

        fields, size, values = task.table(), Size.own(size, self.name), arch.values
        check_legal(self, arch)
        embedding: nn.Module = nn.Identity()
        if values["embedding"] == FIELDS:
            embedding = FieldEmbedding(fields, int(values["embedding/size"]))
        parts = []
        if "attention/layers" in values:
            parts.append(_attention(values, fields, task.outputs, size))
        if "depth" in values:
            parts.append(_residual(values, _inputs(values, fields), task.outputs, size))
        if values["model"] == FINALMLP:
            parts.append(_two_streams(arch, _inputs(values, fields), task.outputs, size))
        return TableNetwork(embedding, parts)

    def costs(self, arch: Architecture, task: Task, size: SizeConfig) -> Mapping[str, float]:
        """`params`, and `macs`: multiply-adds of all matrix products for one row. The embedding is one product whose
        matrix has zeros; normalisation, activations, softmax, gates' products and biases count nothing."""
        fields, size, values = task.table(), Size.own(size, self.name), arch.values
        inputs, outputs = _inputs(values, fields), task.outputs
        params = macs = 0

        def linear(wide: int, out: int, bias: bool = True, rows: int = 1) -> None:
            nonlocal params, macs
            params += wide * out + bias * out
            macs += rows * wide * out

        norm = 2 * (values.get("normalisation", NONE) != NONE)  # per feature
        if values["embedding"] == FIELDS:
            params += (sum(fields) + len(fields)) * int(values["embedding/size"])
            macs += sum(fields) * inputs
        if "attention/layers" in values:
            released, width = values["attention/form"] == RELEASED, size.width(values["attention/width"])
            wide = int(values["embedding/size"])
            for _ in range(int(values["attention/layers"])):
                for _ in ("query", "key", "value", "residual"):
                    linear(wide, width, released, len(fields))
                params += 2 * width * released
                macs += 2 * len(fields) ** 2 * width
                wide = width
            linear(len(fields) * wide, outputs)
        if "depth" in values:
            width = size.width(values["width"])
            linear(inputs, width)
            for block in range(1, int(values["depth"]) + 1):
                hidden = width * int(values[f"block{block}/expansion"])
                params += norm * width
                linear(width, hidden)
                linear(hidden, width)
            params += norm * width
            linear(width, outputs)
        if values["model"] == FINALMLP:
            streams = _streams(arch, size)
            for stream in streams:
                if values["streams/gates"] == VECTOR:
                    params += inputs
                if values["streams/gates"] == INPUTS:
                    linear(inputs, stream.width)
                    linear(stream.width, inputs)
                wide = inputs
                for _ in range(stream.layers):
                    linear(wide, stream.width)
                    params += norm * stream.width
                    wide = stream.width
                linear(stream.width, outputs, bias=stream is streams[0])
            linear(streams[0].width, outputs * streams[1].width // int(values["streams/heads"]), bias=False)
        return {"params": params, "macs": macs}


def _attention(values: Mapping[str, Value], fields: Sequence[int], outputs: int, size: Size) -> nn.Module:
    """AutoInt from embedded fields to the outputs."""
    from torch import nn

    from search_spaces.mlp.network import FieldAttention

    wide, width = int(values["embedding/size"]), size.width(values["attention/width"])
    layers: list[nn.Module] = []
    for _ in range(int(values["attention/layers"])):
        layers.append(FieldAttention(wide, width, int(values["attention/heads"]), values["attention/form"] == RELEASED))
        wide = width
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(len(fields) * wide, outputs))


def _residual(values: Mapping[str, Value], inputs: int, outputs: int, size: Size) -> nn.Module:
    """The residual MLP from `inputs` values to the outputs."""
    from torch import nn

    from search_spaces.mlp.network import ACTIVATIONS, ResidualBlock, dropped, normalised

    width, share, kind = size.width(values["width"]), float(values["dropout"]), str(values["normalisation"])
    activation = ACTIVATIONS[str(values["activation"])]
    layers: list[nn.Module] = [nn.Flatten(), nn.Linear(inputs, width)]
    for block in range(1, int(values["depth"]) + 1):
        hidden = width * int(values[f"block{block}/expansion"])
        inner = [*normalised(kind, width), nn.Linear(width, hidden), activation(), *dropped(share)]
        layers.append(ResidualBlock(nn.Sequential(*inner, nn.Linear(hidden, width), *dropped(share))))
    return nn.Sequential(*layers, *normalised(kind, width), activation(), nn.Linear(width, outputs))


def _two_streams(arch: Architecture, inputs: int, outputs: int, size: Size) -> nn.Module:
    """FinalMLP from `inputs` values to the outputs; a layer is linear, normalisation, activation, dropout."""
    from torch import nn

    from search_spaces.mlp.network import (
        ACTIVATIONS,
        BilinearFusion,
        InputGate,
        TwoStreams,
        VectorGate,
        dropped,
        normalised,
    )

    values, streams = arch.values, _streams(arch, size)
    share, kind, activation = float(values["dropout"]), str(values["normalisation"]), str(values["activation"])
    built: list[nn.Module] = []
    for stream in streams:
        layers: list[nn.Module] = [nn.Flatten()]
        if values["streams/gates"] == VECTOR:
            layers.append(VectorGate(inputs))
        if values["streams/gates"] == INPUTS:
            layers.append(InputGate(inputs, stream.width))
        wide = inputs
        for _ in range(stream.layers):
            layers += [nn.Linear(wide, stream.width), *normalised(kind, stream.width)]
            layers += [ACTIVATIONS[activation](), *dropped(share)]
            wide = stream.width
        built.append(nn.Sequential(*layers))
    first, second = streams
    fusion = BilinearFusion(first.width, second.width, int(values["streams/heads"]), outputs)
    return TwoStreams(built[0], built[1], fusion)


def _streams(arch: Architecture, size: Size) -> tuple[Stream, Stream]:
    """FinalMLP's two streams as they are built."""
    values = arch.values
    first, second = (
        Stream(int(values[f"stream{number}/layers"]), size.width(values[f"stream{number}/width"])) for number in (1, 2)
    )
    return first, second


def _inputs(values: Mapping[str, Value], fields: Sequence[int]) -> int:
    """How many values an MLP reads: those of the row, or of all embedded fields."""
    return len(fields) * int(values["embedding/size"]) if values["embedding"] == FIELDS else sum(fields)
