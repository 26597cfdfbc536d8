"""What is stored of studies, as plain data: for JSON, notebooks, reports and dashboards. Objectives are stored so that
higher is better; here values are as their metrics have them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from nas_core.architecture import Architecture
from nas_core.choice import Value
from nas_core.errors import NasError
from nas_core.evaluation import Objective
from nas_core.graph import ArchGraph
from nas_core.records import COMPRESS, RETRAIN, Run
from nas_core.space import HasHiddenUnits, HasNotation, SearchSpace, builds
from studies.address import address_of
from studies.analysis.summary import objective
from studies.executors import Job
from studies.records import Study, StudySpec, final_size_of
from studies.store.queue import Queue
from studies.store.store import Store

if TYPE_CHECKING:
    from studies.analysis.baselines import Comparison
    from studies.analysis.queries import Rejection

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
        from studies.setup.spaces import load_space  # 'nas ls' needs nothing of it, and it imports numpy

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
        return address_of(self.study, run)

    def values(self, run: Run) -> dict[str, float]:
        """The objectives' metrics as they were reported."""
        values = run.verdict.values or ()
        return {o.metric: o.orient(value) for o, value in zip(self.objectives, values, strict=False)}

    def notation(self, arch: Architecture) -> str | None:
        """The space's official text of an architecture, where it has one."""
        space = self.space
        return self._ask(arch, space.to_text)[0] if isinstance(space, HasNotation) else None

    def recipe(self, arch: Architecture) -> Mapping[str, Value]:
        """The fields of the recipe that an architecture decides, where the space can tell."""
        return {} if self.space is None else self._ask(arch, self.space.recipe)[0] or {}

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


def search_costs(view: View, run: Run) -> dict[str, float]:
    """Parameters and MACs at the search size, where that is not the final size and the space can tell."""
    spec = view.study.spec
    if spec.size == final_size_of(spec) or view.space is None or view.trouble:
        return {}
    from studies.analysis import costs

    try:
        return costs.search_costs(spec, view.space, run.arch)
    except Exception:  # the trial is shown all the same, whatever a user's code raises
        return {}


def hidden_units(view: View, run: Run) -> dict[str, int]:
    """Those of a trial's network as it was trained, where no choice says them and the space can tell."""
    space, spec = view.space, view.study.spec
    if view.trouble or not isinstance(space, HasHiddenUnits):
        return {}
    from studies.setup.spaces import size_of

    try:
        return dict(space.hidden_units(run.arch, spec.task, size_of(space, spec.size)))
    except Exception:  # as above
        return {}


def hypervolume_of(view: View, runs: Sequence[Run], reference: Mapping[str, float]) -> float:
    """Of the runs' objectives, in the product of their units."""
    from nas_core.pareto import hypervolume

    corner = [objective.orient(reference[objective.metric]) for objective in view.objectives]
    return hypervolume([run.verdict.values or () for run in runs], corner)


def rank_correlation(store: Store, study: Study) -> dict[float, float]:
    """How well each smaller budget of a bracket foretold the order at the largest; empty for other strategies."""
    if "eta" not in study.spec.strategy_config:
        return {}
    from strategies.multi_fidelity.bracket import rank_correlation as correlation

    return correlation([run.outcome() for run in store.trials(study) if run.finished])


def baselines_document(view: View, found: Sequence[tuple[Run, Sequence[Comparison]]]) -> list[dict[str, Any]]:
    """Baselines as trials with their names, each with how the study's best trial compares with it."""
    return [
        {
            "name": name_of(run),
            **trial_document(view, run),
            "compared": [{**asdict(one), "difference": one.difference} for one in comparisons],
        }
        for run, comparisons in found
    ]


def study_document(
    view: View,
    states: Mapping[str, int],
    best: Run | None,
    correlation: Mapping[float, float],
    rejected: Sequence[Rejection],
    baselines: Sequence[tuple[Run, Sequence[Comparison]]],
) -> dict[str, Any]:
    study = view.study
    return {
        "study": study.name,
        "created": study.created,
        "budget": study.stop_at.model_dump(),
        "states": dict(states),
        "rejections": [asdict(one) for one in rejected],
        "baselines": baselines_document(view, baselines),
        "best": None if best is None else trial_document(view, best),
        "rank_correlation": {f"{budget:g}": tau for budget, tau in correlation.items()},
        **study.spec.model_dump(mode="json"),
    }


def workers(store: Store, study: Study) -> list[dict[str, Any]]:
    """Who does what a driver wants of workers (`nas worker`): the run, for how many seconds, and how long ago the last
    sign was."""
    return [
        {
            "worker": attempt.worker,
            "run": attempt.folder.rpartition("/")[2],
            "seconds": attempt.claimed,
            "silent": attempt.silent,
        }
        for attempt in Queue(store, study).attempts()
    ]


def name_of(baseline: Run) -> str:
    """What a baseline is called in its space."""
    return str((baseline.recipe or {}).get("name", baseline.number))


def trial_document(view: View, run: Run) -> dict[str, Any]:
    """Everything stored with a trial but its curve, children and files."""
    verdict = run.verdict
    return {
        "address": view.address(run),
        "study": view.study.name,
        "number": run.number,
        "state": str(run.state),
        "reason": verdict.reason,
        "traceback": verdict.traceback,
        "values": view.values(run),
        "violations": dict(zip(view.study.spec.constraints, verdict.violations, strict=False)),
        "feasible": verdict.feasible if verdict.values is not None else None,
        "metrics": dict(run.metrics),
        "architecture": dict(run.arch.values),
        "key": run.arch.key,
        "notation": view.notation(run.arch),
        "identity": run.identity,
        "recipe": dict(view.recipe(run.arch)),
        "budget": run.proposal.budget,
        "continues": run.proposal.continues,
        "transfer": run.proposal.transfer,
        "note": dict(run.note),
        "same_as": run.reuses,
        "attempt": run.attempt,
        "asked_after": run.asked_after,
        "told": run.told,
        "seconds": verdict.seconds,
        "started": run.started,
        "ended": run.ended,
    }


def asked_document(view: View, job: Job) -> dict[str, Any]:
    """A trial that waits for its result, for whoever evaluates it. `step` is the last one, None where there are none;
    `seed` is the one that a training of ours would have."""
    arch = job.proposal.arch
    return {
        "address": f"{view.study.name}:{job.number}",
        "study": view.study.name,
        "number": job.number,
        "architecture": dict(arch.values),
        "key": arch.key,
        "notation": view.notation(arch),
        "step": job.target or None,
        "continues": job.proposal.continues,
        "transfer": job.proposal.transfer,
        "seed": job.seed,
    }


def front_document(
    view: View, runs: Sequence[Run], reference: Mapping[str, float], baselines: Sequence[Run] = ()
) -> dict[str, Any]:
    """The trials of a front and the hypervolume that they dominate, and what the study is compared with."""
    return {
        "study": view.study.name,
        "reference": dict(reference),
        "hypervolume": hypervolume_of(view, runs, reference),
        "front": [trial_document(view, run) for run in runs],
        "baselines": [{"name": name_of(run), **trial_document(view, run)} for run in baselines],
    }


def full_document(view: View, store: Store, run: Run) -> dict[str, Any]:
    """A trial with its graph, curve, retrainings and files."""
    graph, _ = view.graph(run.arch)
    return {
        **trial_document(view, run),
        "graph": None if graph is None else {"nodes": graph.nodes, "edges": graph.edges},
        "final_size": final_size_of(view.study.spec),
        "search_size_costs": search_costs(view, run),
        "hidden_units": hidden_units(view, run),
        "curve": [{"step": report.step, **report.metrics} for report in store.curve(run)],
        "loads": loads_of(view, store, run),
        "retrainings": [training_document(view, store, run, child) for child in store.below(run, RETRAIN)],
        "compressions": [training_document(view, store, run, child) for child in store.below(run, COMPRESS)],
        "files": _files(store, run),
    }


def loads_of(view: View, store: Store, run: Run) -> Mapping[str, Sequence[float]]:
    """Per layer of experts the share of its work that each of them did in the last epoch of a training, that of a
    reused trial in the one that it repeats; empty without such layers."""
    return store.loads(run if run.reuses is None else store.trial(view.study, run.reuses))


def training_document(view: View, store: Store, run: Run, child: Run) -> dict[str, Any]:
    """A training or a compression of a trial with its files."""
    return {
        "address": address_of(view.study, run, child),
        "recipe": child.recipe,
        "repeat": child.repeat,
        "state": str(child.state),
        "reason": child.verdict.reason,
        "metrics": dict(child.metrics),
        "loads": store.loads(child),
        "seconds": child.verdict.seconds,
        "files": _files(store, child),
    }


def _files(store: Store, run: Run) -> list[dict[str, Any]]:
    return [
        {"kind": artifact.kind, "path": str(store.files / artifact.path), "sha256": artifact.sha256}
        for artifact in store.artifacts(run)
    ]
