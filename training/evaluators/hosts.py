"""Candidates that are layers, each trained in several hosts: one ordinary training per host, epoch by epoch in turn."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from nas_core import refs
from nas_core.errors import Rejected, TrialError, UsageError
from nas_core.evaluation import Budget, Context, Evaluator, Metric, Report
from nas_core.space import HasHosts
from nas_core.strategy import Proposal
from training.evaluators.kinds import opened
from training.evaluators.screened import Screened
from training.evaluators.settings import Facts, Opened, Problem, Request, Settled
from training.evaluators.train import check_files
from training.evaluators.wrapping import WrapperOptions, WrapperSettings

if TYPE_CHECKING:
    from torch import nn

    from nas_core.architecture import Architecture
    from nas_core.config import SizeConfig

OF_HOST = "val_"
"""What the name of a metric begins with that is also reported of each host."""


def listed(texts: Sequence[str]) -> list[str]:
    """`["a,b", "c"]` as `["a", "b", "c"]`. Raises UsageError for brackets that do not match."""
    try:
        return [name.strip() for text in texts for name in refs.separated(text) if name.strip()]
    except ValueError as error:
        raise UsageError(f"hosts '{error}' are malformed; write names with commas between them") from None


def _listed(given: Any) -> Any:
    texts = [given] if isinstance(given, str) else given
    return listed(texts) if isinstance(texts, list | tuple) and all(isinstance(one, str) for one in texts) else given


class HostsSettings(WrapperSettings):
    """The trainings of `inner`, one for each of `hosts`. `hashes`: of the user's files that hosts are in."""

    kind: Literal["hosts"] = "hosts"
    hosts: tuple[str, ...] = Field(min_length=1)
    hashes: dict[str, str] = Field(default_factory=dict)

    @property
    def facts(self) -> Facts:
        inner = self.inner.facts
        return replace(inner, files={**inner.files, **self.hashes}, hosts=self.hosts)


class HostsOptions(WrapperOptions):
    """What a configuration asks of hosts."""

    kind: Literal["hosts"] = "hosts"
    hosts: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        min_length=1, description="networks in which a layer is trained: resnet, vgg, ..., FILE.py:OBJECT"
    )

    def settle(self, request: Request) -> Settled:
        """Raises UsageError for a space or an evaluator without networks of hosts, for hosts that the space does not
        know or that do not learn the data, and for one that is named twice."""
        problem = request.problem
        if not isinstance(problem.space, HasHosts):
            raise UsageError(
                f"--hosts {','.join(self.hosts)} are networks in which a layer is tried, and the architectures of "
                f"space '{problem.space.name}' are no layers; leave it out"
            )
        by_label = labels(self.hosts)
        said = getattr(problem.size, "host", None)
        if said not in (None, self.hosts[0]):
            raise UsageError(
                f"--size has the host '{said}', and --hosts begins with '{self.hosts[0]}'; name it there only"
            )
        objectives = tuple(of_mean(text, by_label) for text in request.objectives)
        first = replace(request, problem=_at(problem, self.hosts[0]), objectives=objectives)
        settings, evaluator, read = self.inner.settle(first)
        if not settings.facts.trains:
            raise UsageError(
                f"--hosts {','.join(self.hosts)} trains a network of each host, and evaluator '{settings.kind}' "
                "trains none; leave it out"
            )
        others = _sharing(evaluator, [opened(settings, _at(problem, host)).evaluator for host in self.hosts[1:]])
        made = Hosts(dict(zip(by_label, [evaluator, *others], strict=True)))
        hashes = refs.hashes([*self.hosts])
        return Settled(HostsSettings(inner=settings, hosts=self.hosts, hashes=hashes), made, read)


class Hosts:
    """Evaluators of one kind, one per host, by the host's name. In all else it is the first of them.

    A report tells of all hosts at one epoch: each metric as its mean over the hosts, and those of the validation part
    also as `NAME.HOST`. Costs are those of the network of the first host, whose size is that of the study. A host whose
    training ends early counts with its last figures. The folder of a trial has one for each host, in which its training
    goes on from its checkpoint; what one host has ahead of the others is waited for.

    Screens look at the networks of all hosts before any is trained. `evaluate` raises as the inner evaluators, with the
    host in the message.
    """

    Settings = HostsSettings
    Options = HostsOptions

    transfers = False

    @classmethod
    def open(cls, settings: HostsSettings, problem: Problem) -> Opened:
        """Raises like the inner evaluator, and UsageError where a user's file has changed."""
        check_files(settings.hashes, refs.hashes([*settings.hosts]))
        found = [opened(settings.inner, _at(problem, host)) for host in settings.hosts]
        first, *others = (one.evaluator for one in found)
        each = dict(zip(labels(settings.hosts), [first, *_sharing(first, others)], strict=True))
        return Opened(cls(each), found[0].read)

    def __init__(self, evaluators: Mapping[str, Any]) -> None:
        """`evaluators`: such that have `made` and `trained` as `training.evaluators.train.Train`. Raises UsageError for
        a host that does not learn the data."""
        self._evaluators = dict(evaluators)
        self._first = next(iter(self._evaluators.values()))
        for evaluator in self._evaluators.values():
            evaluator.size.fitted(evaluator.task)
        inner: Evaluator = self._first
        self._learned = [metric for metric in inner.metrics if not metric.cost]
        own = [metric for metric in self._learned if metric.name.startswith(OF_HOST)]
        self.metrics: tuple[Metric, ...] = (
            *inner.metrics,
            *(replace(metric, name=f"{metric.name}.{host}") for metric in own for host in self._evaluators),
        )
        self.fidelity = inner.fidelity
        self.deterministic, self.in_process = inner.deterministic, inner.in_process

    def __getattr__(self, name: str) -> Any:
        """What else an evaluator has, such as its task or its device."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._first, name)

    def identity(self, arch: Architecture) -> str | None:
        answer: str | None = self._first.identity(arch)
        return answer

    def costs(self, arch: Architecture, names: Sequence[str]) -> Mapping[str, float]:
        """Those of the first host."""
        answer: Mapping[str, float] = self._first.costs(arch, names)
        return answer

    def evaluate(self, proposal: Proposal, budget: Budget | None, context: Context) -> Iterator[Report]:
        """A report per epoch up to `budget`; continues what is in the folders of the hosts."""
        contexts = {host: replace(context, workdir=context.workdir / host) for host in self._evaluators}
        models = self._passed(proposal, contexts)
        with ExitStack() as stack:
            running = {}
            for host, evaluator in self._evaluators.items():
                reports = evaluator.trained(models[host], proposal, budget, contexts[host])
                running[host] = stack.enter_context(closing(reports))
            yield from self._in_turn(running)

    def _passed(self, proposal: Proposal, contexts: Mapping[str, Context]) -> dict[str, nn.Module]:
        """The networks before their first steps, which screens have let pass."""
        begun, models = time.monotonic(), {}
        for host, evaluator in self._evaluators.items():
            with _of_host(host, time.monotonic() - begun):
                if isinstance(evaluator, Screened):
                    models[host] = evaluator.passed(proposal, contexts[host])
                else:
                    models[host] = evaluator.made(proposal.arch, contexts[host].seed)
        return models

    def _in_turn(self, running: dict[str, Generator[Report, None, None]]) -> Iterator[Report]:
        """Each host's next report, then all of them together, until all have ended."""
        latest: dict[str, Report] = {}
        waited: dict[str, float] = {}  # seconds between the beginning of the first host and that of this one
        while running:
            for host in list(running):
                waited.setdefault(host, _seconds(latest, waited))
                with _of_host(host, waited[host]):
                    report = next(running[host], None)
                if report is None:
                    del running[host]
                else:
                    latest[host] = report
            if running:
                yield Report(
                    max(report.step for report in latest.values()), self._together(latest), _seconds(latest, waited)
                )

    def _together(self, latest: Mapping[str, Report]) -> dict[str, float]:
        """The metrics of all hosts as those of one report."""
        found: dict[str, float] = {}
        for name in (metric.name for metric in self._learned):
            values = {host: report.metrics[name] for host, report in latest.items() if name in report.metrics}
            if len(values) < len(latest):
                continue
            found[name] = sum(values.values()) / len(values)
            if name.startswith(OF_HOST):
                found |= {f"{name}.{host}": value for host, value in values.items()}
        learned = {metric.name for metric in self._learned}
        first = next(iter(latest.values()))
        return found | {name: value for name, value in first.metrics.items() if name not in learned}


def labels(hosts: Sequence[str]) -> list[str]:
    """What hosts are called in metrics and folders: their names, of those of a file the object's. Raises UsageError
    where two are called the same."""
    found: list[str] = []
    for host in hosts:
        label = refs.split(host, "host")[0].rpartition(":")[2]
        if label in found:
            raise UsageError(f"--hosts {','.join(hosts)}: two hosts are called '{label}'; name each host once")
        found.append(label)
    return found


def at_first(size: SizeConfig, hosts: Sequence[str]) -> SizeConfig:
    """The size of a study: where it has several hosts, that of the first one."""
    hosted: Any = size
    return hosted.at(hosts[0]) if hosts else size


def _sharing(first: Any, others: Sequence[Any]) -> Sequence[Any]:
    """The others, which learn from the data that the first one has in memory."""
    for other in others:
        other.share(first)
    return others


def _at(problem: Problem, host: str) -> Problem:
    size = at_first(problem.size, [host])
    return replace(problem, size=size, final_size=problem.final_size and at_first(problem.final_size, [host]))


def of_mean(objective: str, hosts: Sequence[str]) -> str:
    """`val_f1.vgg:max` as `val_f1:max`."""
    name, colon, goal = objective.partition(":")
    metric, _, host = name.rpartition(".")
    return f"{metric}{colon}{goal}" if host in hosts else objective


def _seconds(latest: Mapping[str, Report], waited: Mapping[str, float]) -> float:
    """How long all trainings have taken together. What each says is since its own beginning, and holds the time of the
    others since then."""
    return max((report.seconds + waited[host] for host, report in latest.items()), default=0.0)


@contextmanager
def _of_host(host: str, waited: float) -> Iterator[None]:
    """What goes wrong in it is said to be of that host; what was waited for before is part of what it took."""
    try:
        yield
    except Rejected as error:
        raise Rejected(error.reason, _said(error, host), error.seconds + waited) from error
    except TrialError as error:
        raise TrialError(error.reason, _said(error, host)) from error.__cause__


def _said(error: TrialError, host: str) -> str:
    return f"host {host}: {str(error).removeprefix(f'{error.reason}: ')}"
