"""Typed configuration: frozen pydantic models that refuse unknown keys, with errors a person can use."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self, TypeVar

from pydantic import BaseModel, SerializerFunctionWrapHandler, ValidationError, model_serializer

from nas_core.errors import UsageError, nearest, unknown
from nas_core.frozen import Config
from nas_core.plain import from_json
from nas_core.refs import separated
from nas_core.task import Task

__all__ = ["Config", "SizeConfig", "parse_assignments", "parse_value", "restore", "size_text", "validate"]


class SizeConfig(Config):
    """How large the networks of a space are built; `presets` must hold "search" and "full"."""

    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"search": {}, "full": {}}
    # Fields whose default is what stored sizes mean, and what they are in a size that a user asks for.
    unsaid: ClassVar[Mapping[str, Any]] = {}
    # Fields that came later: left out of records at their defaults.
    later: ClassVar[frozenset[str]] = frozenset()

    def fitted(self, task: Task) -> Self:
        """The size with whatever is chosen by the task's inputs; by default there is nothing."""
        return self

    def unused(self, task: Task) -> Mapping[str, str]:
        """Fields that say nothing of networks for this task, and why; by default there are none."""
        return {}

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        defaults = {name: type(self).model_fields[name].default for name in self.later}
        return {name: value for name, value in handler(self).items() if name not in defaults or value != defaults[name]}

    @classmethod
    def preset(cls, name: str, **changes: Any) -> Self:
        """The named preset with some fields changed. Raises UsageError for an unknown preset or field."""
        if name not in cls.presets:
            raise unknown("size preset", name, cls.presets)
        return validate(cls, {**cls.unsaid, **cls.presets[name], **changes}, "size")

    @classmethod
    def parse(cls, size: str | Mapping[str, Any]) -> Self:
        """From a preset (`full`), changes to the search preset (`channels=8,cells=1`), or both (`full,channels=8`), or
        from fields. Raises UsageError."""
        if not isinstance(size, str):
            return validate(cls, size, "size")
        preset, changes = cls.words(size)
        return cls.preset(preset, **changes)

    @classmethod
    def words(cls, size: str) -> tuple[str, Mapping[str, str]]:
        """The preset and the changes that a text says. Raises UsageError."""
        preset, changes = "search", {}
        try:
            parts = separated(size)  # a value may be a reference with arguments
        except ValueError:
            raise UsageError(f"size '{size}' is malformed; write a preset, or changes: full,channels=8") from None
        for part in filter(None, (part.strip() for part in parts)):
            name, separator, value = part.partition("=")
            if separator:
                changes[name.strip()] = value.strip()
            else:
                preset = part
        return preset, changes

    def unused_fields(self, said: str | Mapping[str, Any], task: Task) -> Iterator[str]:
        """A line for each field that `said`, which this size was parsed of, names though it says nothing for the task,
        with another value than it has by default."""
        named = self.words(said)[1] if isinstance(said, str) else said
        for name, why in self.unused(task).items():
            value = getattr(self, name)
            if name in named and value != type(self).model_fields[name].default:
                yield f"size {name}={value} says nothing: {why}"

    @classmethod
    def own(cls, size: SizeConfig, space: str) -> Self:
        """The size, which must be one of this class, that of the space. Raises UsageError."""
        if not isinstance(size, cls):
            fields = ", ".join(cls.model_fields)
            raise UsageError(f"space '{space}' needs its own Size ({fields}), got {type(size).__name__}")
        return size

    def __str__(self) -> str:
        """As it is typed: `channels=8,cells=1`."""
        return size_text(self.model_dump(mode="json"))


def size_text(fields: Mapping[str, Any]) -> str:
    """The fields of a size as they are typed: `channels=8,cells=1`."""
    return ",".join(f"{key}={value}" for key, value in fields.items())


C = TypeVar("C", bound=BaseModel)
D = TypeVar("D", bound=Config)


def validate(model: type[C], values: Mapping[str, Any], what: str) -> C:
    """`model` built from `values`; UsageError with the offending key, value and nearest name otherwise."""
    if not isinstance(values, Mapping):  # data out of a file may be anything
        raise UsageError(f"{what}: {values!r} are no keys with values")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise UsageError("\n".join(_explain(model, problem, what) for problem in error.errors()[:2])) from None


def restore(model: type[D], values: Mapping[str, Any], what: str) -> D:
    """`model` from settings that were stored, perhaps before it had all of its fields. Raises as `validate`."""
    return validate(model, {**model.when_absent, **values}, what)


def _explain(model: type[BaseModel], problem: Any, what: str) -> str:
    path = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        fields = list(_fields_at(model, problem["loc"][:-1]))
        return f"{what}: unknown key '{path}'{nearest(str(problem['loc'][-1]), fields)} (known: {', '.join(fields)})"
    message = problem["msg"].removeprefix("Value error, ")
    where = f"{what}: {path}" if path else what
    return f"{where}: {message} (got {problem['input']!r})"


def _fields_at(model: Any, path: Iterable[Any]) -> Iterable[str]:
    for part in path:
        field = getattr(model, "model_fields", {}).get(part)
        model = field.annotation if field else None
    return getattr(model, "model_fields", {})


def parse_value(text: str) -> Any:
    """`3` -> 3, `true` -> True, `[1, 2]` -> list, anything that is not JSON -> the text itself."""
    try:
        return from_json(text)
    except ValueError:
        return text


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """`["a.b=1", "c=x"]` -> `{"a": {"b": 1}, "c": "x"}`. Raises UsageError for text without `=`."""
    result: dict[str, Any] = {}
    for text in assignments:
        path, separator, value = text.partition("=")
        if not separator or not path.strip():
            raise UsageError(f"'{text}' is not an assignment; write key=value, for example strategy.population=20")
        *parents, last = path.strip().split(".")
        node = result
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UsageError(f"'{text}': '{parent}' was already given a value")
        node[last] = parse_value(value.strip())
    return result
