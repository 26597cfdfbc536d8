"""The graph of a network, with the sizes that were met where they depend on data, and with messages marked."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from types import FrameType, TracebackType
from typing import Any
from unittest import mock

import torch
from torch import Tensor, fx, nn

from compressors.comparison import answers
from compressors.groups.removal import named_tensors
from nas_core.errors import UsageError
from search_spaces.counter import passes_messages
from search_spaces.unfused import unfused
from training.export.write import quiet

torch.library.define("nas::message", "(Tensor x) -> Tensor")
torch.library.impl("nas::message", "CompositeExplicitAutograd", lambda x: x.clone())
"""What marks the messages of a layer in a graph; they are counted (`search_spaces.counter`)."""


@dataclass(frozen=True)
class Program:
    """An exported program; `met`: by node what it makes, as a tensor (which may have no data) or a number."""

    exported: Any
    met: Mapping[fx.Node, Any]


def program_of(network: nn.Module, inputs: Sequence[Tensor]) -> Program:
    """The program of a network in evaluation mode. Raises UsageError."""
    exported = _exported(network, inputs)
    met = {node: node.meta.get("val") for node in exported.graph.nodes}
    if not all(isinstance(size, int) for found in met.values() for one in answers(found) for size in one.shape):
        met = _Met(exported.graph_module, network, exported, inputs).found  # sizes that depend on data
    return Program(exported, met)


class _Met(fx.Interpreter):
    """What every node makes of these inputs."""

    def __init__(self, module: fx.GraphModule, network: nn.Module, exported: Any, inputs: Sequence[Tensor]) -> None:
        super().__init__(module)
        self.found: dict[fx.Node, Any] = {}
        named = {**exported.constants, **dict(named_tensors(network))}
        given = iter(inputs)
        specs = exported.graph_signature.input_specs
        with torch.no_grad():
            self.run(*(next(given) if spec.target is None else named[spec.target] for spec in specs))

    def run_node(self, n: fx.Node) -> Any:
        self.found[n] = super().run_node(n)
        return self.found[n]


def _exported(network: nn.Module, inputs: Sequence[Tensor]) -> Any:
    try:
        with _marked(network), unfused(), torch.no_grad(), quiet():
            return torch.export.export(network, tuple(inputs), strict=False)
    except Exception as error:
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "data-dependent" in said:
            said = "what is computed there depends on the values of data"
        raise UsageError(
            f"the network cannot be traced, so nothing of it can be removed: {_where(network, error)}{said}"
        ) from error


def _where(network: nn.Module, error: Exception) -> str:
    """The module and the line of its code that failed, the innermost that is none of torch's where there is one."""
    frames = [one.tb_frame for one in _traceback(error) if isinstance(_first(one.tb_frame), nn.Module)]
    own = [frame for frame in frames if not frame.f_globals.get("__name__", "").startswith("torch.")]
    if not (own or frames):
        return ""
    frame = (own or frames)[-1]
    module = _first(frame)
    path = next((name for name, one in network.named_modules() if one is module), "")
    name = f"'{path}' ({type(module).__name__})" if path else type(module).__name__
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
    return f"in {name} at `{line}`: "


def _first(frame: FrameType) -> Any:
    """The first argument of the function that a frame is of."""
    return next((frame.f_locals.get(name) for name in frame.f_code.co_varnames), None)


def _traceback(error: BaseException) -> Iterator[TracebackType]:
    """All of it, that of what caused it first."""
    for one in (error.__cause__, error):
        place = None if one is None else one.__traceback__
        while place is not None:
            yield place
            place = place.tb_next


@contextmanager
def _marked(network: nn.Module) -> Iterator[None]:
    """Layers of message passing, and graphs that propagate, show what they send."""
    senders: list[Any] = [module for module in network.modules() if passes_messages(module)]
    graphs = sys.modules.get("search_spaces.layers.graph_batch")
    with ExitStack() as stack:
        for sender in (*senders, *([graphs.GraphBatch] if graphs else [])):
            stack.enter_context(mock.patch.object(sender, "message", _showing(sender.message)))
        yield


def _showing(message: Callable[..., Tensor]) -> Callable[..., Any]:
    return lambda *given, **named: torch.ops.nas.message(message(*given, **named))


# The walk.
