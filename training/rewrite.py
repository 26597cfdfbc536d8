"""A network made to compute something else than it does: other operations, by a torch function mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.overrides import TorchFunctionMode

Rule = Callable[[Any, Sequence[Any], Mapping[str, Any]], Any]
"""`rule(function, args, kwargs)` gives what is computed instead of `function(*args, **kwargs)`."""

NORMALISATIONS = frozenset(
    {"batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"}
)
"""Functions that normalise, by their names in `torch` and `functional`; the modules of `nn` call them."""


class Rewrite(TorchFunctionMode):
    """While it is active, every torch function whose name is in `rules` is computed by its rule.

    It hears of `functional.relu(x)` as of `nn.ReLU`; rules themselves compute with the functions as they are.
    """

    def __init__(self, rules: Mapping[str, Rule]) -> None:
        super().__init__()
        self._rules = rules

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        rule = self._rules.get(getattr(func, "__name__", ""))
        return func(*args, **kwargs) if rule is None else rule(func, args, kwargs)


def argument(args: Sequence[Any], kwargs: Mapping[str, Any], position: int, name: str, default: Any = None) -> Any:
    """An argument of a function call, however it was given."""
    return args[position] if position < len(args) else kwargs.get(name, default)


def unchanged(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """The rule that leaves an operation out: its input is its result, in memory of its own, as what follows may
    overwrite it."""
    return argument(args, kwargs, 0, "input").clone()
