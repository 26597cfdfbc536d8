"""The options of commands that make a study, made of the list of what a search can be asked for."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nas_cli import complete
from studies.setup.options import OPTIONS

if TYPE_CHECKING:
    from studies.setup.options import Option


def with_options(command: Callable[..., int], names: Collection[str] | None = None) -> Callable[..., int]:
    """A command whose last parameter, `options`, is a mapping, as one with every option of the list, or with those that
    are named, in its place."""
    own = list(inspect.signature(command, eval_str=True).parameters.values())
    listed = [_parameter(option) for option in OPTIONS if option.flags and (names is None or option.name in names)]

    def called(**given: Any) -> int:
        options = {one.name: _plain(given.pop(one.name)) for one in listed}
        return command(**given, options=options)

    called.__name__, called.__doc__ = command.__name__, command.__doc__
    parameters = [*own[:1], *listed, *(one for one in own[1:] if one.name != "options")]
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    called.__annotations__ = {one.name: one.annotation for one in parameters} | {"return": int}
    return called


def listed(name: str) -> Any:
    """The option of that name, for another command that asks for the same."""
    return _option(next(one for one in OPTIONS if one.name == name))


def _option(option: Option) -> Any:
    return typer.Option(
        *option.flags,
        help=option.means,
        metavar=option.metavar,
        autocompletion=None if option.words is None else getattr(complete, option.words),
    )


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _parameter(option: Option) -> inspect.Parameter:
    """None, or False, where it is not given."""
    one: Any = list[str] if option.several else option.type
    annotation: Any = Annotated[bool if option.type is bool else one | None, _option(option)]
    default = False if option.type is bool else None
    place = inspect.Parameter.POSITIONAL_OR_KEYWORD
    return inspect.Parameter(option.name, place, default=default, annotation=annotation)


Executor = Annotated[str, listed("executor")]
PerGpu = Annotated[int | None, listed("per_gpu")]
GpuMemory = Annotated[float | None, listed("gpu_memory")]
