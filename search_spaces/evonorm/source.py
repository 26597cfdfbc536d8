"""A layer as Python source that needs torch alone: a line per node.

Values are `[n, groups, channels of a group, positions]`, as in `layer`; the conventions are those of `primitives`.
"""

from __future__ import annotations

from collections.abc import Iterator

from nas_core.parts import PartSource
from search_spaces.evonorm.graph import INITIAL, V0, V1, ZERO, Graph, Node
from search_spaces.evonorm.primitives import AGGREGATIONS, BATCH, GROUPS, INDEX_SETS, STATISTICS, of_batch

CLASS = "Layer"
AXES = {over: tuple(sorted(axis + 4 for axis in axes)) for over, axes in INDEX_SETS.items()}
BINARY = {"add": "{} + {}", "mul": "{} * {}", "div": "{} / {}", "max": "torch.maximum({}, {})"}
UNARY = {
    "neg": "-{}",
    "square": "{0} * {0}",
    "sqrt": "{0}.sign() * ({0}.abs() + self.eps).sqrt()",
    "log": "{0}.sign() * ({0}.abs() + self.eps).log()",
}
STARTS = {"mean": "torch.zeros(channels)", "square": "torch.ones(channels)", "var": "torch.ones(channels)"}
MOMENTS = {"mean": "mean", "rms": "square", "std": "var", "var": "var"}
OF = {"mean": "{}.mean({}, keepdim=True)", "square": "{0}.square().mean({1}, keepdim=True)"}
OF |= {"var": "{}.var({}, correction=0, keepdim=True)"}

AVERAGED = '''
    def of_batch(self, what: str, value: Tensor, moment: str, x: Tensor) -> Tensor:
        """The moment of the batch in training mode, its moving average in evaluation mode."""
        running = self.get_buffer(what)
        if not self.training:
            return running.to(x.dtype).reshape(1, x.shape[1], x.shape[2], 1)
        count = x.shape[0] * x.shape[3]
        if count < 2:
            raise ValueError("one value per channel has no statistics: use larger batches")
        if moment == "var":
            found = value.var((0, 3), correction=0, keepdim=True)
        else:
            found = (value if moment == "mean" else value.square()).mean((0, 3), keepdim=True)
        with torch.no_grad():
            unbiased = found * (count / (count - 1) if moment == "var" else 1)
            running.lerp_(unbiased.expand(1, *x.shape[1:3], 1).reshape(-1).to(running.dtype), self.momentum)
        return found
'''


def source(graph: Graph, channels: int) -> PartSource:
    """The class of a layer, and the call that makes it for so many channels."""
    live = graph.live()
    code = "\n".join(_lines(live)) + "\n" + (AVERAGED if _batched(live) else "")
    usage = f"{CLASS}(64) stands where a normalisation of 64 channels and its activation stood."
    return PartSource(code, f"{CLASS}({channels})", (4, channels, 5, 3), usage)


def _lines(graph: Graph) -> Iterator[str]:
    used = graph.used
    grouped = any(node.op in AGGREGATIONS and AGGREGATIONS[node.op][1] == "group" for node in graph.nodes)
    averages = {_average(number, node): MOMENTS[AGGREGATIONS[node.op][0]] for number, node in _batched(graph)}
    yield f"class {CLASS}(nn.Module):"
    yield '    """The formula above, then a scale and a shift per channel: [n, channels, ...] to the same shape."""'
    yield ""
    momentum = ", momentum: float = 0.1" if averages else ""
    yield f"    def __init__(self, channels: int, eps: float = 1e-5{momentum}) -> None:"
    yield "        super().__init__()"
    yield "        self.eps = eps"
    if averages:
        yield "        self.momentum = momentum"
    size = f"channels // math.gcd(channels, {GROUPS})" if grouped else "1"
    yield f"        self.size = {size}  # channels of a group"
    for place, name, start in ((V0, "v0", "zeros"), (V1, "v1", "ones")):
        if place in used:
            yield f"        self.{name} = nn.Parameter(torch.{start}(channels))"
    yield "        self.weight = nn.Parameter(torch.ones(channels))"
    yield "        self.bias = nn.Parameter(torch.zeros(channels))"
    for name, moment in averages.items():
        yield f'        self.register_buffer("{name}", {STARTS[moment]})'
    yield ""
    yield "    def forward(self, inputs: Tensor) -> Tensor:"
    yield "        if inputs.dim() < 2 or inputs.shape[1] != len(self.weight):"
    yield '            raise ValueError(f"{list(inputs.shape)} is not [n, {len(self.weight)}, *positions]")'
    yield "        parts = (len(inputs), inputs.shape[1] // self.size, self.size, -1)  # groups, channels, positions"
    yield "        x = inputs.to(self.weight.dtype).reshape(parts)"
    if ZERO in used:
        yield "        zero = x.new_zeros(1, 1, 1, 1)"
    for place, name in ((V0, "v0"), (V1, "v1")):
        if place in used:
            yield f"        {name} = self.{name}.reshape(1, -1, self.size, 1)"
    for number, node in enumerate(graph.nodes):
        yield f"        {_name(number + len(INITIAL))} = {_expression(number, node)}"
    yield "        weight, bias = (value.reshape(1, -1, self.size, 1) for value in (self.weight, self.bias))"
    yield f"        y = ({_name(len(graph.nodes) - 1 + len(INITIAL))} * weight + bias).expand(x.shape)"
    yield "        return y.reshape(inputs.shape).to(inputs.dtype)"


def _batched(graph: Graph) -> list[tuple[int, Node]]:
    return [(number, node) for number, node in enumerate(graph.nodes) if of_batch(node.op)]


def _average(number: int, node: Node) -> str:
    return f"running_{MOMENTS[AGGREGATIONS[node.op][0]]}_{number + 1}"


def _name(place: int) -> str:
    return ("x", "zero", "v0", "v1")[place] if place < len(INITIAL) else f"y{place - len(INITIAL) + 1}"


def _expression(number: int, node: Node) -> str:
    inputs = [_name(place) for place in node.inputs]
    if node.op in BINARY:
        return BINARY[node.op].format(*inputs)
    if node.op not in AGGREGATIONS:
        return UNARY.get(node.op, f"{{}}.{node.op}()").format(*inputs)
    what, over = AGGREGATIONS[node.op]
    if over == BATCH:
        found = f'self.of_batch("{_average(number, node)}", {inputs[0]}, "{MOMENTS[what]}", x)'
    else:
        axes = AXES[over]
        found = OF[MOMENTS[what]].format(inputs[0], axes[0] if len(axes) == 1 else axes)
    return f"({found} + self.eps).sqrt()" if STATISTICS[what][1] else found
