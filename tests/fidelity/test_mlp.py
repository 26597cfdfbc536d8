"""The space for tables: AutoInt's attention, FinalMLP's streams, residual blocks, against plain sums and layers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from nas_core import moves
from nas_core.architecture import Architecture
from nas_core.choice import Value
from nas_core.config import SizeConfig
from nas_core.errors import UsageError
from nas_core.seeds import generator
from nas_core.task import TABULAR_CLASSIFICATION, TABULAR_REGRESSION, InputSpec, Task
from search_spaces.mlp.network import BilinearFusion, FieldAttention, FieldEmbedding, InputGate, VectorGate
from search_spaces.mlp.space import Mlp, Size

FIELDS = (1, 5, 1, 1, 3)
SPACE = Mlp()


def table(fields: tuple[int, ...] = FIELDS, outputs: int = 3, kind: str = TABULAR_CLASSIFICATION) -> Task:
    return Task(kind=kind, inputs=(InputSpec(name="x", shape=(sum(fields),), categories=fields),), outputs=outputs)


def rows(count: int = 7) -> Tensor:
    """Rows of `FIELDS`, with one-hot blocks where these are wide."""
    random = torch.Generator().manual_seed(5)
    blocks = []
    for width in FIELDS:
        numbers = torch.randn(count, 1, generator=random, dtype=torch.float64)
        levels = functional.one_hot(torch.randint(width, (count,), generator=random), width)
        blocks.append(numbers if width == 1 else levels.double())
    return torch.cat(blocks, dim=1)


@pytest.fixture(autouse=True)
def _double() -> Iterator[None]:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def randomised(module: nn.Module) -> nn.Module:
    """With weights of order one, so that nothing is near zero by its start."""
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return module


# AutoInt


@pytest.mark.parametrize("released", [False, True])
def test_attention_weights_sum_to_one(released: bool) -> None:
    attention = randomised(FieldAttention(6, 8, 4, released))
    weights = attention.weights(torch.randn(5, 9, 6))
    assert weights.shape == (5, 4, 9, 9)
    assert (weights.sum(-1) - 1).abs().max() < 1e-15
    assert (weights - 1 / 9).abs().max() > 0.1


def test_attention_on_two_fields_by_hand() -> None:
    """All matrices the identity: 0 and 1 are the scores of the first field, 0 and 4 those of the second."""
    attention = FieldAttention(2, 2, 1)
    for projection in (attention.query, attention.key, attention.value, attention.residual):
        projection.weight.data = torch.eye(2)
    fields = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    near = {"rtol": 0, "atol": 5e-5}
    torch.testing.assert_close(
        attention.weights(fields), torch.tensor([[[[0.7311, 0.2689], [0.0180, 0.9820]]]]), **near
    )
    torch.testing.assert_close(attention(fields), torch.tensor([[[1.7311, 0.5379], [0.0180, 3.9640]]]), **near)


def test_attention_is_even_where_queries_are_zero() -> None:
    attention = randomised(FieldAttention(4, 4, 2))
    attention.query.weight.data.zero_()
    assert torch.equal(attention.weights(torch.randn(3, 8, 4)), torch.full((3, 2, 8, 8), 1 / 8))


def test_attention_does_not_know_the_order_of_fields_but_the_head_does() -> None:
    layers = nn.Sequential(randomised(FieldAttention(5, 8, 2)), randomised(FieldAttention(8, 8, 2)))
    head = randomised(nn.Linear(6 * 8, 1))
    fields, order = torch.randn(4, 6, 5), torch.tensor([3, 0, 5, 1, 4, 2])
    before, after = layers(fields), layers(fields[:, order])
    torch.testing.assert_close(after, before[:, order], rtol=1e-12, atol=1e-12)
    blocks = nn.Linear(6 * 8, 1)
    blocks.weight.data = head.weight.view(1, 6, 8)[:, order].reshape(1, 48)
    blocks.bias.data = head.bias.data
    torch.testing.assert_close(blocks(after.flatten(1)), head(before.flatten(1)), rtol=1e-12, atol=1e-12)
    assert (head(after.flatten(1)) - head(before.flatten(1))).abs().min() > 1


def test_weights_of_three_layers_of_64() -> None:
    """Criteo's setting in the authors' program: vectors of 16, three layers of 64."""
    layers = [FieldAttention(wide, 64, 2) for wide in (16, 64, 64)]
    assert sum(parameter.numel() for layer in layers for parameter in layer.parameters()) == 36_864


def test_heads_attend_apart_from_one_another() -> None:
    """Two heads are two layers of one head on their halves of the projections."""
    both, halves = randomised(FieldAttention(5, 8, 2)), [FieldAttention(5, 4, 1) for _ in range(2)]
    for number, half in enumerate(halves):
        for name in ("query", "key", "value", "residual"):
            getattr(half, name).weight.data = getattr(both, name).weight.data[4 * number : 4 * number + 4]
    fields = torch.randn(3, 6, 5)
    torch.testing.assert_close(both(fields), torch.cat([half(fields) for half in halves], dim=2))


def test_the_released_form_scales_and_rectifies() -> None:
    """ReLU and biases on all projections, scores over the root of the head's width, layer normalisation last."""
    attention = randomised(FieldAttention(3, 4, 2, released=True))
    e = torch.randn(1, 5, 3)[0]
    q, k, v, r = (
        torch.relu(e @ layer.weight.T + layer.bias)
        for layer in (attention.query, attention.key, attention.value, attention.residual)
    )
    heads = []
    for head in (slice(0, 2), slice(2, 4)):
        scores = q[:, head] @ k[:, head].T / math.sqrt(2)
        heads.append(torch.exp(scores) / torch.exp(scores).sum(1, keepdim=True) @ v[:, head])
    added = torch.relu(torch.cat(heads, dim=1) + r)
    centred = added - added.mean(1, keepdim=True)
    normal = centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(attention(e[None])[0], normal * attention.norm.weight + attention.norm.bias)


def test_fields_are_embedded_one_by_one() -> None:
    embedding = FieldEmbedding(FIELDS, 4)
    x = rows()
    embedded = embedding(x)
    assert embedded.shape == (7, len(FIELDS), 4)
    start = 0
    for field, width in enumerate(FIELDS):
        vectors, values = embedding.vectors.T[start : start + width], x[:, start : start + width]
        # A number scales its vector; a level picks one.
        expected = values * vectors if width == 1 else vectors[values.argmax(1)]
        torch.testing.assert_close(embedded[:, field], expected + embedding.bias[field])
        start += width
    assert torch.equal(embedding(torch.zeros(1, 11))[0], embedding.bias)


# FinalMLP


def test_bilinear_fusion_by_hand() -> None:
    fusion = BilinearFusion(4, 4, 2, 1)
    for parameter in fusion.parameters():
        parameter.data.zero_()
    fusion.weight.data = torch.tensor([[[1.0, 0.0], [2.0, 1.0]], [[0.0, 1.0], [1.0, -1.0]]])
    one, two = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[0.5, -1.0, 2.0, 0.0]])
    assert fusion(one, two).item() == 8.5
    first_half = torch.tensor([[1.0, 2.0, 0.0, 0.0]])
    assert fusion(first_half, two).item() == 0.5


@pytest.mark.parametrize(("one", "two", "heads", "outputs"), [(6, 4, 2, 1), (8, 8, 4, 3), (6, 9, 1, 2)])
def test_heads_are_a_bilinear_form_of_blocks(one: int, two: int, heads: int, outputs: int) -> None:
    fusion = randomised(BilinearFusion(one, two, heads, outputs))
    a, b = torch.randn(5, one), torch.randn(5, two)
    answers = a @ fusion.first.weight.T + b @ fusion.second.weight.T + fusion.first.bias
    for output in range(outputs):
        blocks = [block.view(one // heads, outputs, two // heads)[:, output] for block in fusion.weight]
        answers[:, output] += ((a @ torch.block_diag(*blocks)) * b).sum(1)
    torch.testing.assert_close(fusion(a, b), answers, rtol=1e-12, atol=1e-12)
    assert fusion.weight.numel() == outputs * one * two // heads


def test_a_gate_of_zeros_hands_its_input_on() -> None:
    x = torch.randn(3, 5)
    assert torch.equal(VectorGate(5)(x), x)
    gate = InputGate(5, 4)
    gate.logits.weight.data.zero_()
    gate.logits.bias.data.zero_()
    assert torch.equal(gate(x), x)
    randomised(gate)
    expected = 2 / (1 + torch.exp(-gate.logits(torch.relu(gate.hidden(x))))) * x
    torch.testing.assert_close(gate(x), expected)


def test_a_gate_without_context_wakes_up() -> None:
    """Every logit moves in the first step; behind dead hidden ReLUs only the last bias would."""
    gate = VectorGate(5)
    gate(torch.randn(8, 5)).square().sum().backward()
    assert (gate.logits.grad != 0).all()


# Whole networks


def plain(values: Mapping[str, Value], weights: Iterator[Tensor], x: Tensor) -> Tensor:
    """The network in sums over fields, heads, chunks, with batch statistics; `weights` are its parameters in order."""

    def linear(x: Tensor, bias: bool = True) -> Tensor:
        answer = torch.einsum("...i,oi->...o", x, next(weights))
        return answer + next(weights) if bias else answer

    def norm(x: Tensor, kind: object, eps: float = 1e-5) -> Tensor:
        if kind == "none":
            return x
        axis = 0 if kind == "batch" else -1
        centred = x - x.mean(axis, keepdim=True)
        return centred / (centred.square().mean(axis, keepdim=True) + eps).sqrt() * next(weights) + next(weights)

    def activate(x: Tensor) -> Tensor:
        kind = values["activation"]
        if kind == "relu":
            return x.clamp(min=0)
        return x / (1 + torch.exp(-x)) if kind == "silu" else x * (1 + torch.erf(x / math.sqrt(2))) / 2

    fields = x
    if values["embedding"] == "linear":
        vectors, biases = next(weights), next(weights)
        columns = [list(range(sum(FIELDS[:m]), sum(FIELDS[: m + 1]))) for m in range(len(FIELDS))]
        fields = torch.stack([x[:, c] @ vectors[:, c].T + biases[m] for m, c in enumerate(columns)], dim=1)
    flat = fields.reshape(len(x), -1)
    answer = torch.zeros(())
    if "attention/layers" in values:
        released, heads = values["attention/form"] == "released", int(values["attention/heads"])
        for _ in range(int(values["attention/layers"])):
            q, k, v, r = (linear(fields, released) for _ in range(4))
            if released:
                q, k, v, r = (each.clamp(min=0) for each in (q, k, v, r))
            width, mixed = q.shape[2] // heads, []
            for head in range(heads):
                mine = slice(head * width, (head + 1) * width)
                scores = torch.einsum("nmi,nki->nmk", q[..., mine], k[..., mine])
                if released:
                    scores = scores / math.sqrt(width)
                mixed.append(torch.einsum("nmk,nki->nmi", scores.softmax(2), v[..., mine]))
            fields = (torch.cat(mixed, dim=2) + r).clamp(min=0)
            if released:
                fields = norm(fields, "layer")
        answer = answer + linear(fields.reshape(len(x), -1))
    if "depth" in values:
        kind, hidden = values["normalisation"], linear(flat)
        for _ in range(int(values["depth"])):
            hidden = hidden + linear(activate(linear(norm(hidden, kind))))
        answer = answer + linear(activate(norm(hidden, kind)))
    if values["model"] == "finalmlp":
        streams = []
        for number in (1, 2):
            stream = flat
            if values["streams/gates"] == "vector":
                stream = 2 * torch.sigmoid(next(weights)) * stream
            if values["streams/gates"] == "inputs":
                stream = 2 * torch.sigmoid(linear(linear(flat).clamp(min=0))) * stream
            for _ in range(int(values[f"stream{number}/layers"])):
                stream = activate(norm(linear(stream), values["normalisation"]))
            streams.append(stream)
        bilinear = next(weights)
        answer = answer + linear(streams[0]) + linear(streams[1], bias=False)
        chunks = [stream.chunk(len(bilinear), dim=1) for stream in streams]
        for head, matrix in enumerate(bilinear):
            each = matrix.view(matrix.shape[0], answer.shape[1], -1)
            answer = answer + torch.einsum("ni,icj,nj->nc", chunks[0][head], each, chunks[1][head])
    return answer


def drawn(count: int) -> list[Architecture]:
    """All named ones, and some that are drawn."""
    return [*SPACE.named.values(), *(moves.sample(SPACE, generator("mlp", number)) for number in range(count))]


@pytest.mark.parametrize("number", range(16))
def test_networks_are_what_plain_sums_give(number: int) -> None:
    arch = drawn(11)[number]
    values = {**arch.values, **({"dropout": 0.0} if "dropout" in arch.values else {})}
    network = SPACE.build(Architecture("mlp", values), table(), Size(width_scale=0.25))
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    weights = iter(network.parameters())
    expected = plain(values, weights, rows())
    assert list(weights) == []
    torch.testing.assert_close(network.train()(rows()), expected, rtol=1e-9, atol=1e-9)


def test_dropout_is_where_it_is_chosen() -> None:
    counts = {}
    for name in ("mlp", "autoint", "finalmlp"):
        network = SPACE.build(SPACE.named[name], table(), Size())
        counts[name] = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    assert counts == {"mlp": [0.1] * 4, "autoint": [], "finalmlp": [0.1] * 2}


@pytest.mark.parametrize("size", [Size(), Size.preset("search"), Size(width_scale=0.3)])
def test_costs_are_those_of_the_built_network(size: Size) -> None:
    tasks = (table(), table((1, 1), 1, TABULAR_REGRESSION), table((4,), 2))
    for number, arch in enumerate(drawn(25)):
        task = tasks[number % 3]
        costs = SPACE.costs(arch, task, size)
        with torch.device("meta"):
            network = SPACE.build(arch, task, size).eval()
            with FlopCounterMode(display=False) as counter:
                assert network(torch.empty(1, *task.input_shape)).shape == (1, task.outputs)
        assert costs["params"] == sum(parameter.numel() for parameter in network.parameters()), arch
        assert costs["macs"] == counter.get_total_flops() / 2, arch


def test_streams_in_the_other_order_are_the_same_function() -> None:
    """With the weights of the streams exchanged, and the matrices of the fusion transposed."""
    arch = SPACE.named["finalmlp"]
    first = {name: value for name, value in arch.values.items() if name.startswith("stream1/")}
    second = {name: value for name, value in arch.values.items() if name.startswith("stream2/")}
    moved = {f"stream2{name[7:]}": value for name, value in first.items()}
    moved |= {f"stream1{name[7:]}": value for name, value in second.items()}
    other = Architecture("mlp", {**arch.values, **moved})
    assert SPACE.illegal(other) is None
    assert other != arch
    assert SPACE.identity(other) == SPACE.identity(arch)
    assert SPACE.graph(other).wl_hash() == SPACE.graph(arch).wl_hash()
    assert SPACE.costs(other, table(), Size()) == SPACE.costs(arch, table(), Size())
    one, two = (SPACE.build(each, table(), Size()).eval() for each in (arch, other))
    randomised(one)
    theirs, mine = two.parts[0], one.parts[0]
    two.embedding.load_state_dict(one.embedding.state_dict())
    theirs.first.load_state_dict(mine.second.state_dict())
    theirs.second.load_state_dict(mine.first.state_dict())
    theirs.fusion.first.weight.data = mine.fusion.second.weight.data
    theirs.fusion.first.bias.data = mine.fusion.first.bias.data
    theirs.fusion.second.weight.data = mine.fusion.first.weight.data
    heads, left, _ = mine.fusion.weight.shape
    by_output = mine.fusion.weight.data.view(heads, left, 3, -1)
    theirs.fusion.weight.data = by_output.permute(0, 3, 2, 1).reshape(theirs.fusion.weight.shape)
    torch.testing.assert_close(two(rows()), one(rows()), rtol=1e-10, atol=1e-10)


def test_identities_merge_nothing_else() -> None:
    """Two draws share an identity only where their streams are exchanged."""
    found: dict[str, set[str]] = {}
    archs = [moves.sample(SPACE, generator("identity", number)) for number in range(40)]
    # Two steps from equal streams lies every pair of streams in both orders.
    equal = {**SPACE.named["dualmlp"].values, "stream1/width": 256}
    archs += moves.neighbours(SPACE, Architecture("mlp", equal))
    archs += [near for arch in archs for near in moves.neighbours(SPACE, arch)]
    for arch in set(archs):
        values = dict(arch.values)
        if values["model"] == "finalmlp":
            pair = [tuple(values.pop(f"stream{n}/{what}") for what in ("layers", "width")) for n in (1, 2)]
            values["streams"] = str(sorted(pair))
        found.setdefault(SPACE.identity(arch), set()).add(str(values))
    assert all(len(texts) == 1 for texts in found.values())
    assert len(set.union(*found.values())) == len(found) < len(set(archs))


def test_architectures_are_counted() -> None:
    """Residual MLPs, attention, their products, pairs of streams."""
    settings = 3 * 3 * 4
    residual, attention = 3 * (3 + 3**2 + 3**3 + 3**4) * settings, 3 * 3**3 * 2
    streams = 4 * 3 * 4 * (3 * 3) ** 2 * settings
    assert 4 * residual + attention + attention * residual + streams == 2_291_490
    assert "2,291,490 architectures" in (Mlp.__doc__ or "")


def test_attention_has_embedded_fields() -> None:
    raw = {**SPACE.named["autoint"].values, "embedding": "none"}
    del raw["embedding/size"]
    assert "not allowed for choice 'embedding'" in str(SPACE.illegal(Architecture("mlp", raw)))
    with pytest.raises(UsageError, match="has no network for"):
        SPACE.build(Architecture("mlp", raw), table(), Size())


def test_widths_are_multiples_of_the_heads() -> None:
    assert [Size(width_scale=scale).width(64) for scale in (0.01, 0.3, 0.5, 1, 2)] == [8, 16, 32, 64, 128]


def test_what_is_no_table_is_refused() -> None:
    images = Task(kind="image-classification", input_shape=(1, 8, 8), outputs=10)
    for what in (SPACE.build, SPACE.costs):
        with pytest.raises(UsageError, match="rows of a table"):
            what(SPACE.named["mlp"], images, Size())
        with pytest.raises(UsageError, match=r"its own Size \(width_scale\)"):
            what(SPACE.named["mlp"], table(), SizeConfig())
