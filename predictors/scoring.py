"""Scores of architectures, from untrained networks or from a table of recorded scores.

A score has the name of its predictor, `naswot`, with a proxy of several components `az_nas.trainability`. Settings
belong to the name: `gradsign(bn='calibrated')`. Higher is better; what cannot be scored has minus infinity.
"""

from __future__ import annotations

import hashlib
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nas_core import refs
from nas_core.architecture import Architecture
from nas_core.config import SizeConfig, validate
from nas_core.errors import NasError, TrialError, UsageError, unknown
from nas_core.seeds import derive
from nas_core.space import SearchSpace
from predictors import GROUP, PROXIES
from predictors.need import Need
from predictors.proxy import Proxy, Unscorable
from training.data.loading import Loading
from training.evaluators.rows import Rows, open_mapping
from training.evaluators.table_mapping import hashed
from training.spaces import check_kind

if TYPE_CHECKING:
    from training.data.protocol import Source

WORST = -math.inf
_COMPONENT = re.compile(r"(?P<predictor>[^.()]+(?:\(.*\))?)\.(?P<component>\w+)")


@dataclass(frozen=True, slots=True)
class Scored:
    """The scores of one architecture by name, what each cost in seconds, and why some are the worst."""

    arch: Architecture
    values: Mapping[str, float]
    seconds: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)


class Scores(Protocol):
    """Where scores come from. `context`: what they depend on besides the architecture and the predictor."""

    @property
    def context(self) -> Mapping[str, Any]: ...

    def predictors(self) -> tuple[str, ...]:
        """Every predictor that gives scores here."""
        ...

    def names(self, predictor: str) -> tuple[str, ...]:
        """The names of the scores that a predictor gives. Raises UsageError for one that gives none here."""
        ...

    def score(self, archs: Sequence[Architecture], predictors: Sequence[str]) -> Iterator[Scored]:
        """The scores of each architecture in turn, by all `predictors` in one pass over its network."""
        ...


def proxy(reference: str) -> tuple[str, Proxy]:
    """A proxy and its full name: `gradsign(reduction='mean')` with those settings that are not the defaults.

    Raises UsageError, NotFoundError or MachineError.
    """
    target, given = refs.split(reference, "proxy")
    kind = refs.find(target, PROXIES, GROUP, "proxy")
    config = validate(kind.Config, given, f"proxy {target}")
    changed = config.model_dump(exclude_defaults=True)
    settings = ", ".join(f"{key}={value!r}" for key, value in changed.items())
    return f"{target}({settings})" if settings else target, kind(config)


def split_score(name: str) -> tuple[str, str]:
    """The predictor and the component of a score's name: `az_nas.trainability` is ("az_nas", "trainability"), and
    `naswot` is ("naswot", ""). A dot within settings separates nothing."""
    match = _COMPONENT.fullmatch(name)
    return (match["predictor"], match["component"]) if match else (name, "")


def score_names(name: str, components: Sequence[str]) -> tuple[str, ...]:
    """The names of a proxy's scores; `name` is that of `proxy`."""
    return (name,) if len(components) == 1 else tuple(f"{name}.{component}" for component in components)


class Networks:
    """Scores of untrained networks with default initialisation on one training batch, the same for all of them.

    `device` and `threads` are where it is computed. Raises UsageError for data that the space is not for.
    """

    def __init__(
        self,
        space: SearchSpace,
        size: SizeConfig,
        source: Source,
        *,
        batch: int = 64,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        if batch < 2:
            raise UsageError(f"--batch {batch}: proxies compare samples; at least 2 are needed")
        check_kind(space, source.task.kind, source.reference)
        self.space, self.size, self.task, self._seed = space, size, source.task, seed
        self._data = source.bind(device, Loading(batch_size=batch))
        self._batch = next(iter(self._data.batches("train", 0, derive(seed, "batch"))))
        self.context = {
            "from": "networks",
            "space": space.name,
            "version": space.version,
            "size": size.model_dump(mode="json"),
            "data": source.reference,
            "split_hash": source.split_hash,
            "batch": batch,
            "seed": seed,
        }
        self._proxies: dict[str, tuple[str, Proxy]] = {}

    def predictors(self) -> tuple[str, ...]:
        """The built-in proxies for this kind of task."""
        return tuple(name for name in PROXIES if self.task.kind in refs.find(name, PROXIES, GROUP, "proxy").tasks)

    def names(self, predictor: str) -> tuple[str, ...]:
        name, found = self._proxy(predictor)
        return score_names(name, found.components)

    def score(self, archs: Sequence[Architecture], predictors: Sequence[str]) -> Iterator[Scored]:
        """Raises NasError for a network that cannot be built or computed."""
        wanted = dict(self._proxy(predictor) for predictor in predictors)
        for arch in archs:
            yield self._scored(arch, wanted)

    def _proxy(self, reference: str) -> tuple[str, Proxy]:
        if reference not in self._proxies:
            name, found = proxy(reference)
            if self.task.kind not in found.tasks:
                raise UsageError(
                    f"proxy '{name}' is for {', '.join(sorted(found.tasks))}; the data is {self.task.kind}; "
                    "leave it out (see 'nas predictors list')"
                )
            self._proxies[reference] = (name, found)
        return self._proxies[reference]

    def _scored(self, arch: Architecture, wanted: Mapping[str, Proxy]) -> Scored:
        from predictors.forward_pass import ForwardPass
        from training.outputs import logits_of

        needs = Need.NOTHING
        for found in wanted.values():
            needs |= found.needs
        begun = time.perf_counter()
        try:
            forward = ForwardPass(
                lambda: self.space.build(arch, self.task, self.size),
                self._batch,
                self._data.loss,
                self.task,
                needs=needs,
                seed=self._seed,
            )
            if needs:
                logits_of(forward.passed.output, forward.batch.samples, self.task)
        except TrialError as error:
            raise NasError(f"cannot score {dict(arch.values)}: {error}") from error
        except NasError:
            raise
        except Exception as error:
            raise NasError(_failure(arch, "its network", error)) from error
        users = [name for name, found in wanted.items() if found.needs]
        shared = (time.perf_counter() - begun) / (len(users) or len(wanted) or 1)
        values: dict[str, float] = {}
        seconds: dict[str, float] = {}
        reasons: dict[str, str] = {}
        for name, found in wanted.items():
            begun = time.perf_counter()
            try:
                components = found.score(forward)
            except Unscorable as error:
                components = dict.fromkeys(found.components, WORST)
                reasons[name] = str(error)
            except NasError:
                raise
            except Exception as error:
                raise NasError(_failure(arch, f"proxy '{name}'", error)) from error
            if set(components) != set(found.components):
                raise NasError(
                    f"proxy '{name}' gives {sorted(components)}, but its components are {sorted(found.components)}"
                )
            spent = time.perf_counter() - begun + (shared if name in users or not users else 0.0)
            for component, score in zip(found.components, score_names(name, found.components), strict=True):
                value = float(components[component])
                values[score] = WORST if math.isnan(value) else value
                seconds[score] = spent / len(found.components)
        return Scored(arch, values, seconds, reasons)


class ScoreTable:
    """Recorded scores: the `scores` of a mapping for one data set. An empty cell is the worst score.

    Raises NotFoundError for a missing file, UsageError where file, mapping, space and data set do not fit together.
    """

    def __init__(self, space: SearchSpace, file: Path, data: str, mapping: str | Path | None = None) -> None:
        self.file = Path(file)
        self.mapping_file, found = open_mapping(space, self.file, mapping)
        if not found.scores:
            raise UsageError(
                f"mapping '{self.mapping_file.name}' has no scores; docs/tables.md shows a table of scores"
            )
        if data not in found.scores:
            raise unknown(f"data set of the scores '{self.file.name}'", data, found.scores)
        columns = found.scores[data]
        self._rows = Rows(space, self.file, self.mapping_file, found, list(columns.values()))
        self._columns = dict(zip(columns, self._rows.columns, strict=True))
        content = self.file.read_bytes() + hashed(self.mapping_file) + data.encode()
        self.context = {
            "from": "table",
            "table": self.file.name,
            "data": data,
            "hash": hashlib.sha256(content).hexdigest()[:16],
        }

    def predictors(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(split_score(name)[0] for name in self._columns))

    def names(self, predictor: str) -> tuple[str, ...]:
        found = tuple(name for name in self._columns if predictor in (name, split_score(name)[0]))
        if not found:
            raise unknown(f"score in '{self.file.name}'", predictor, self._columns)
        return found

    def score(self, archs: Sequence[Architecture], predictors: Sequence[str]) -> Iterator[Scored]:
        """Raises NasError for an architecture without a row."""
        names = [name for predictor in predictors for name in self.names(predictor)]
        for arch in archs:
            row = self._rows.find(arch)
            if row is None:
                raise NasError(f"table of scores '{self.file.name}' has no row for {self._rows.key(arch)}")
            found = {name: float(self._columns[name][row]) for name in names}
            yield Scored(arch, {name: WORST if math.isnan(value) else value for name, value in found.items()})


def _failure(arch: Architecture, what: str, error: Exception) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return f"cannot score {dict(arch.values)}: {what} fails with {text}"
