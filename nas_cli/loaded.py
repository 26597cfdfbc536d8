"""A stored study with its space, as far as that can be loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from nas_cli.listing import objective
from nas_core.architecture import Architecture
from nas_core.errors import NasError
from nas_core.evaluation import Objective
from nas_core.graph import ArchGraph
from nas_core.records import Run, Study, StudySpec
from nas_core.space import HasNotation, SearchSpace, builds

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class View:
    """A study with its space, where that can be loaded; `trouble` says why not."""

    study: Study
    objectives: tuple[Objective, ...]
    space: SearchSpace | None
    trouble: str

    @classmethod
    def of(cls, study: Study) -> View:
        from studies.setup.reading import load_space  # 'nas ls' needs nothing of it, and it imports numpy

        objectives = objectives_of(study.spec)
        try:
            space, file_hash = load_space(study.spec.space)
        except NasError as error:
            return cls(study, objectives, None, str(error))
        except Exception as error:  # a user's file may raise anything; the stored trial is shown all the same
            return cls(study, objectives, None, f"{type(error).__name__}: {error}")
        changed = file_hash != study.spec.space_hash or not builds(space, study.spec.space_version)
        return cls(study, objectives, space, "it has changed since the study was made" if changed else "")

    def address(self, run: Run) -> str:
        return f"{self.study.name}:{run.number}"

    def values(self, run: Run) -> dict[str, float]:
        """The objectives' metrics as they were reported."""
        values = run.verdict.values or ()
        return {o.metric: o.orient(value) for o, value in zip(self.objectives, values, strict=False)}

    def notation(self, arch: Architecture) -> str | None:
        """The space's official text of an architecture, where it has one."""
        space = self.space
        return self._ask(arch, space.to_text)[0] if isinstance(space, HasNotation) else None

    def graph(self, arch: Architecture) -> tuple[ArchGraph | None, str]:
        """The architecture's graph, or why there is none."""
        return (None, self.trouble) if self.space is None else self._ask(arch, self.space.graph)

    def _ask(self, arch: Architecture, question: Callable[[Architecture], T]) -> tuple[T | None, str]:
        """The space's answer about an architecture that it knows, or why there is none."""
        assert self.space is not None
        try:
            reason = self.space.illegal(arch)
            if reason is None:
                return question(arch), ""
        except Exception as error:  # a user's code again
            reason = f"{type(error).__name__}: {error}"
        return None, f"{reason} (the space: {self.trouble})" if self.trouble else reason


def objectives_of(spec: StudySpec) -> tuple[Objective, ...]:
    """The objectives as stored, `metric:goal`, without the evaluator that declares their metrics."""
    return tuple(objective(text) for text in spec.objectives)
