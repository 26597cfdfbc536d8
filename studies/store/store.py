"""The store: verbs on plain records, one transaction per verb.

Crash rule: a proposal is committed before its evaluation starts; a result is committed at once, with
`told` empty; `told` is committed with the next proposal (or by `tell` when there is none). So after a kill
at any moment, finished trials that were not told are told again in the order of their numbers.

One driver per study is its only writer (`Store.lock`); several drivers may share a database.

One file, because the verbs are one class over one connection; what they need is beside it (`rows`, `urls`, `sqlite`).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from nas_core.architecture import Architecture
from nas_core.errors import MachineError, NasError, NotFoundError, UsageError, nearest
from nas_core.evaluation import LOADS, Report
from nas_core.model import UNCHANGED, Changes
from nas_core.records import BASELINE, TRIAL, Artifact, Baseline, Bench, Proposed, Run, StopAt, Verdict
from nas_core.strategy import Proposal, State
from studies.address import hint
from studies.records import Study, StudySpec
from studies.store import SCHEMA, locks, rows, snapshots, sqlite, urls
from studies.store import tables as t
from studies.store.drivers import driven, outlast, take
from studies.store.schema import check_unchanged, look, prepare
from studies.store.statements import Statements

T = TypeVar("T")

PAGE = 2_000  # rows that are read at a time
FIRST_PAGE = 100  # of runs: often the first ones are all that is wanted


class Store:
    """An open study database. `url` is a SQLAlchemy URL; `files` is the folder for the files of runs.

    One that is opened for `reading` stays as it is: it may be older than this program, or on a read-only medium.
    Otherwise it is created or upgraded first. Raises MachineError when the database cannot be reached, is newer than
    this program or damaged, or cannot be written; NotFoundError where there is none and none is to be made.
    """

    def __init__(
        self,
        url: str,
        files: Path | None = None,
        *,
        durable: bool = False,
        create: bool = True,
        reading: bool = False,
    ) -> None:
        parsed = urls.parse(url)
        self.url = url
        self.default_files = urls.default_files(parsed)
        self.files = files or self.default_files
        self._file = Path(parsed.database or "") if parsed.get_backend_name() == "sqlite" else None
        if self._file is not None:
            urls.check_file(self._file, create=create and not reading, reading=reading)
        try:
            self._connection, self.risks = urls.connect(parsed, durable=durable, reading=reading)
        except DBAPIError as error:
            raise urls.explain(error, self.place, self._file) from None
        except (SQLAlchemyError, ModuleNotFoundError) as error:
            hint = "; run: pip install 'psycopg[binary]'" if isinstance(error, ModuleNotFoundError) else ""
            raise MachineError(f"cannot reach the database {self.place}: {urls.short(error)}{hint}") from None
        self.reading = reading
        self.schema = SCHEMA  # that the database has
        self._driving: set[int] = set()  # studies whose locks on a server this connection holds
        self._lost: MachineError | None = None  # a server went away and did not come back
        self._refused = False  # another process has written to the file for longer than is waited
        with self._errors():
            if reading:
                self.schema = look(self._connection)
                urls.forbid_writing(self._connection)
            else:
                prepare(self._connection, lambda connection: driven(connection, self.default_files), create=create)
        self._sql = Statements(self._connection.dialect)

    def close(self) -> None:
        self._connection.close()
        self._connection.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- studies ------------------------------------------------------------------------------------------

    def create_study(self, name: str, spec: StudySpec, stop_at: StopAt, *, bench: int | None = None) -> Study:
        """A new study, or child of a bench. Raises UsageError when the name is taken, or as `study_or_new`."""
        study, new = self._study_or_new(name, spec, stop_at, bench)
        if not new:
            raise UsageError(f"study '{name}' exists already; choose another --study or 'nas resume {name}'")
        return study

    def study_or_new(
        self,
        name: str,
        spec: StudySpec,
        stop_at: StopAt,
        *,
        bench: int | None = None,
        baselines: Sequence[Baseline] = (),
    ) -> Study:
        """The study of that name, which may have another spec, or a new one with these baselines.

        Raises UsageError where the spec has another definition of a space that the database knows by the same name.
        """
        return self._study_or_new(name, spec, stop_at, bench, baselines)[0]

    def create_numbered_study(
        self, stem: str, spec: StudySpec, stop_at: StopAt, baselines: Sequence[Baseline] = ()
    ) -> Study:
        """A new study with the first free name of STEM-1, STEM-2, ... Raises as `study_or_new`."""

        def work(connection: Connection) -> str:
            urls.hold(connection, t.studies)
            name = _free(connection, t.studies, stem)
            self._insert_study(connection, name, spec, stop_at, None, baselines)
            return name

        return self.study(self.write(work))

    def add_baselines(self, study: Study, baselines: Sequence[Baseline]) -> None:
        """Commit those that the study does not have yet."""
        self.write(lambda connection: self._insert_baselines(connection, study.id, baselines))

    def _insert_baselines(self, connection: Connection, study: int, baselines: Sequence[Baseline]) -> None:
        r = t.runs.c
        stored = connection.execute(sa.select(r.architecture).where(r.study == study, t.is_kind(r, BASELINE)))
        known = set(stored.scalars())
        for one in baselines:
            if one.arch.key not in known:
                known.add(one.arch.key)
                row = _run_row(study, BASELINE, len(known), Proposal(one.arch), one.identity, Verdict(State.WAITING))
                self._sql.run(connection, "architecture", {"key": one.arch.key, "json": one.arch.to_json()})
                self._sql.insert_run(connection, {**row, "recipe": rows.dump({"name": one.name})})

    def _study_or_new(
        self, name: str, spec: StudySpec, stop_at: StopAt, bench: int | None, baselines: Sequence[Baseline] = ()
    ) -> tuple[Study, bool]:
        def work(connection: Connection) -> bool:
            urls.hold(connection, t.studies)
            if connection.execute(sa.select(t.studies.c.id).where(t.studies.c.name == name)).first():
                return False
            self._insert_study(connection, name, spec, stop_at, bench, baselines)
            return True

        new = self.write(work)
        return self.study(name), new

    def _insert_study(
        self,
        connection: Connection,
        name: str,
        spec: StudySpec,
        stop_at: StopAt,
        bench: int | None,
        baselines: Sequence[Baseline],
    ) -> None:
        """One database holds one definition per name of a space: results of two would be mixed up."""
        s = t.studies.c
        if bench is None:
            same = sa.and_(s.bench.is_(None), s.space_name == spec.space_name)
            differs = s.space_hash.is_distinct_from(spec.space_hash)
            other = connection.execute(sa.select(s.name, s.space_hash).where(same, differs).order_by(s.id)).first()
            if other:
                raise UsageError(
                    f"study '{other.name}' in this database has another definition of space '{spec.space_name}' "
                    f"({other.space_hash or 'built in'}; this one: {spec.space_hash or 'built in'}); "
                    "give the space a new name, or use another --db"
                )
        connection.execute(t.studies.insert(), rows.study_row(name, spec, stop_at, bench, time.time()))
        if baselines:
            study = connection.execute(sa.select(s.id).where(s.name == name)).scalar_one()
            self._insert_baselines(connection, int(study), baselines)

    def study(self, name: str) -> Study:
        """Raises NotFoundError with the nearest name."""
        found = self.find_study(name)
        if found is None:
            names = self.study_names()
            listing = f" (there are: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''})" if names else ""
            raise NotFoundError(f"no study '{name}' in {self.place}{nearest(name, names)}{listing}{hint(name)}")
        return found

    def find_study(self, name: str) -> Study | None:
        found = self.read(sa.select(t.studies).where(t.studies.c.name == name))
        return rows.study(found[0]) if found else None

    def study_names(self) -> list[str]:
        """In the order of their creation, without the children of benches."""
        s = t.studies.c
        return [row.name for row in self.read(sa.select(s.name).where(s.bench.is_(None)).order_by(s.id))]

    def studies_by(self, strategy: str) -> list[Study]:
        """Those that search by a strategy, in the order of their creation, without the children of benches."""
        s = t.studies.c
        found = self.read(sa.select(t.studies).where(s.strategy == strategy, s.bench.is_(None)).order_by(s.id))
        return [rows.study(row) for row in found]

    def every_study(self) -> Iterator[Study]:
        """All studies, the children of benches too, in the order of their creation."""
        for row in self.read(sa.select(t.studies).order_by(t.studies.c.id)):
            yield rows.study(row)

    def run_count(self, study: Study) -> int:
        """How many runs a study has, of all kinds."""
        return int(self.read(sa.select(sa.func.count()).where(t.runs.c.study == study.id))[0][0])

    def set_stop_at(self, study: Study, stop_at: StopAt) -> None:
        change = t.studies.update().where(t.studies.c.id == study.id).values(budget=stop_at.model_dump_json())
        self.write(lambda c: c.execute(change))

    # -- benches ------------------------------------------------------------------------------------------

    def create_bench(self, name: str, config: Mapping[str, Any]) -> Bench:
        """A new bench. Raises UsageError when the name is taken."""

        def work(connection: Connection) -> None:
            urls.hold(connection, t.benches)
            if connection.execute(sa.select(t.benches.c.id).where(t.benches.c.name == name)).first():
                raise UsageError(f"bench '{name}' exists already; choose another name")
            connection.execute(t.benches.insert(), _bench_row(name, config))

        self.write(work)
        return self.bench(name)

    def create_numbered_bench(self, stem: str, config: Mapping[str, Any]) -> Bench:
        """A new bench with the first free name of STEM-1, STEM-2, ..."""

        def work(connection: Connection) -> str:
            urls.hold(connection, t.benches)
            name = _free(connection, t.benches, stem)
            connection.execute(t.benches.insert(), _bench_row(name, config))
            return name

        return self.bench(self.write(work))

    def bench(self, name: str) -> Bench:
        """Raises NotFoundError with the nearest name."""
        found = self.find_bench(name)
        if found is None:
            raise NotFoundError(f"no bench '{name}' in {self.place}{nearest(name, self.bench_names())}")
        return found

    def find_bench(self, name: str) -> Bench | None:
        found = self.read(sa.select(t.benches).where(t.benches.c.name == name))
        return rows.bench(found[0]) if found else None

    def bench_names(self) -> list[str]:
        return [row.name for row in self.read(sa.select(t.benches.c.name).order_by(t.benches.c.id))]

    def studies_of(self, bench: Bench) -> list[Study]:
        """The bench's children, in the order of their creation."""
        s = t.studies.c
        return [rows.study(row) for row in self.read(sa.select(t.studies).where(s.bench == bench.id).order_by(s.id))]

    def set_measured(self, study: Study, measured: Mapping[str, float]) -> None:
        """Commit what a bench measured of its child."""
        change = t.studies.update().where(t.studies.c.id == study.id).values(measured=rows.dump(dict(measured)))
        self.write(lambda c: c.execute(change))

    # -- drivers ------------------------------------------------------------------------------------------

    @contextmanager
    def lock(self, study: Study) -> Iterator[None]:
        """Hold the study as its only driver; released by the system when the process dies.

        Raises UsageError when another process holds it, MachineError where the files cannot be written, NotFoundError
        where the study has been removed meanwhile.
        """
        taken = UsageError(f"study '{study.name}' is being run by another process; stop that one first")
        folder = self.folder(study)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # Beside the database, wherever the files are: two drivers of one study must meet there.
            handle = locks.take(self.default_files / study.name / locks.NAME)
        except OSError as error:
            raise MachineError(
                f"cannot write in '{folder}' ({error.strerror}); choose another folder by --files"
            ) from None
        if handle is None:
            raise taken
        server = self._connection.dialect.name == "postgresql"  # drivers on other machines
        try:
            self.write(check_unchanged)
            if server and not self.write(lambda connection: take(connection, study.id)):
                raise taken
            self._driving |= {study.id} if server else set()
            try:
                if self.study(study.name).created != study.created:
                    raise NotFoundError(f"study '{study.name}' has been removed meanwhile, and made anew")
                yield
            finally:
                self._driving.discard(study.id)
                if server and self._lost is None and not self._connection.invalidated:
                    self.read(sa.text("SELECT pg_advisory_unlock(:id)"), {"id": study.id})
        finally:
            os.close(handle)

    def folder(self, study: Study, run: Run | None = None) -> Path:
        """The folder of a study's or run's files."""
        folder = self.files / study.name
        if run is None:
            return folder
        return folder / (f"trial-{run.number}" if t.is_kind(run, TRIAL) else f"{run.kind}-{run.id}")

    # -- runs ---------------------------------------------------------------------------------------------

    def propose(
        self,
        study: Study,
        number: int,
        proposal: Proposal,
        identity: str,
        verdict: Verdict,
        *,
        kind: str = TRIAL,
        parent: int | None = None,
        reuses: int | None = None,
        repeat: int = 0,
        recipe: Mapping[str, Any] | None = None,
        report: Report | None = None,
        asked_after: int | None = None,
        told: tuple[int, int] | None = None,
        environment: int | None = None,
        tries: int = 0,
    ) -> int:
        """Commit a run and return its id; `told` = (run, position) marks another run as told with it.

        The verdict's state is RUNNING when the evaluation starts at once, WAITING when it does not, or
        final (rejected, reused), with a report where there is one.
        """
        row = {
            **_run_row(study.id, kind, number, proposal, identity, verdict),
            "parent": parent,
            "recipe": None if recipe is None else rows.dump(dict(recipe)),
            "repeat": repeat,
            "reuses": reuses,
            "asked_after": asked_after,
            "environment": environment,
            "tries": tries,
        }
        return self.write(lambda connection: self._insert_run(connection, proposal.arch, row, report, told))

    def propose_all(self, study: Study, proposed: Sequence[Proposed]) -> list[int]:
        """Commit trials together, and return their ids."""

        def work(connection: Connection) -> list[int]:
            ids = []
            for one in proposed:
                row = {
                    **_run_row(study.id, TRIAL, one.number, one.proposal, one.identity, one.verdict),
                    "reuses": one.reuses,
                    "asked_after": one.asked_after,
                    "environment": one.environment,
                    "tries": one.tries,
                    "told": one.told,
                }
                ids.append(self._insert_run(connection, one.proposal.arch, row, one.report, one.tells))
            return ids

        return self.write(work)

    def _insert_run(
        self,
        connection: Connection,
        arch: Architecture,
        row: Mapping[str, Any],
        report: Report | None,
        told: tuple[int, int] | None,
    ) -> int:
        if told:
            self._sql.run(connection, "tell", {"id": told[0], "told": told[1]})
        self._sql.run(connection, "architecture", {"key": arch.key, "json": arch.to_json()})
        run_id = self._sql.insert_run(connection, row)
        if report is not None:
            self._insert_report(connection, run_id, report)
        return run_id

    def start(self, run_id: int, environment: int | None, tries: int = 0) -> None:
        """Commit that an attempt begins; `tries` of them, with this one, have begun since the last report."""
        r = t.runs.c
        change = (
            t.runs.update()
            .where(r.id == run_id)
            .values(
                state=State.RUNNING, attempt=r.attempt + 1, started=time.time(), environment=environment, tries=tries
            )
        )
        self.write(lambda c: c.execute(change))

    def count_tries(self, run_id: int, tries: int) -> None:
        """Commit how many attempts have begun since the last report, but those that were stopped in good order."""
        change = t.runs.update().where(t.runs.c.id == run_id).values(tries=tries)
        self.write(lambda c: c.execute(change), repeatable=True)

    def report(self, run_id: int, report: Report, *, tries: int | None = None) -> None:
        """Commit the metrics of a step; a step reported again replaces itself. `tries`: attempts that count from now
        on, where that has changed."""

        def work(connection: Connection) -> None:
            self._insert_report(connection, run_id, report)
            if tries is not None:
                connection.execute(t.runs.update().where(t.runs.c.id == run_id).values(tries=tries))

        self.write(work, repeatable=True)

    def finish(
        self, run_id: int, verdict: Verdict, report: Report | None = None, *, changes: Changes = UNCHANGED
    ) -> None:
        """Commit the result of a run, with its last report where that is not stored yet."""
        row = {"id": run_id, "tries": 0, **rows.verdict_row(verdict, time.time())}

        def work(connection: Connection) -> None:
            if changes:
                change = t.runs.update().where(t.runs.c.id == run_id).values(changes=changes.model_dump_json())
                connection.execute(change)
            if report is not None:
                self._insert_report(connection, run_id, report)
            self._sql.run(connection, "finish", row)

        self.write(work, repeatable=True)

    def tell(self, run_id: int, position: int) -> None:
        """Commit that the strategy has been told of a run."""
        self.write(lambda c: self._sql.run(c, "tell", {"id": run_id, "told": position}), repeatable=True)

    def trials(self, study: Study, *, metrics: bool = False, since: int = 0) -> Iterator[Run]:
        """The study's trials from number `since` on, in the order of their numbers."""
        r = t.runs.c
        return self._runs(sa.and_(r.study == study.id, t.is_kind(r, TRIAL), r.number >= since), metrics)

    def trial(self, study: Study, number: int) -> Run:
        """Raises NotFoundError."""
        r = t.runs.c
        found = list(self._runs(sa.and_(r.study == study.id, t.is_kind(r, TRIAL), r.number == number), True))
        if not found:
            raise NotFoundError(f"study '{study.name}' has no trial {number}; see 'nas trials {study.name}'")
        return found[0]

    def some_trials(self, study: Study, numbers: Sequence[int], *, metrics: bool = True) -> Iterator[Run]:
        """Trials by their numbers, in the order in which they are given; what is not there is left out."""
        r = t.runs.c
        for start in range(0, len(numbers), PAGE):
            wanted = numbers[start : start + PAGE]
            where = sa.and_(r.study == study.id, t.is_kind(r, TRIAL), r.number.in_(wanted))
            found = {run.number: run for run in self._runs(where, metrics)}
            yield from (found[number] for number in wanted if number in found)

    def runs(self, study: Study, kind: str) -> list[Run]:
        """All runs of a kind of a study, in the order of their numbers."""
        r = t.runs.c
        return list(self._runs(sa.and_(r.study == study.id, t.is_kind(r, kind)), True))

    def children(self, run: Run, kind: str) -> list[Run]:
        """The runs of a kind that belong to a run, in the order of their numbers."""
        r = t.runs.c
        return list(self._runs(sa.and_(r.parent == run.id, t.is_kind(r, kind)), True))

    def below(self, run: Run, kind: str) -> list[Run]:
        """The runs of a kind that belong to a run, or to one that does, in the order of their numbers."""
        r = t.runs
        belongs = sa.select(r.c.id).where(r.c.parent == run.id).cte(recursive=True)
        belongs = belongs.union_all(sa.select(r.c.id).join(belongs, r.c.parent == belongs.c.id))
        return list(self._runs(sa.and_(r.c.id.in_(sa.select(belongs.c.id)), t.is_kind(r.c, kind)), True))

    def curve(self, run: Run) -> list[Report]:
        """All reports of a run."""
        m = t.metrics.c
        steps: dict[float, dict[str, float]] = {}
        for row in self.read(sa.select(t.metrics).where(m.run == run.id).order_by(m.step, m.name)):
            steps.setdefault(row.step, {})[row.name] = rows.number(row)
        return [Report(step, metrics) for step, metrics in steps.items()]

    def loads(self, run: Run) -> dict[str, tuple[float, ...]]:
        """Per layer of experts the share of its work that each of them did in the last epoch; empty without any."""
        found = self.read(sa.select(t.epochs.c.strengths).where(t.epochs.c.run == run.id))
        return {name: tuple(shares) for row in found for name, shares in json.loads(row.strengths).items()}

    def curves(self, study: Study, metric: str) -> dict[int, list[tuple[float, float]]]:
        """Per trial number the (step, value) pairs of a metric."""
        r, m = t.runs.c, t.metrics.c
        statement = (
            sa.select(r.number.label("trial"), m.step, m.value, m.number)
            .join(t.metrics, m.run == r.id)
            .where(r.study == study.id, t.is_kind(r, TRIAL), m.name == metric)
            .order_by(r.number, m.step)
        )
        found: dict[int, list[tuple[float, float]]] = {}
        for row in self.read(statement):
            found.setdefault(row.trial, []).append((row.step, rows.number(row)))
        return found

    # -- snapshots ----------------------------------------------------------------------------------------

    def save_snapshot(self, study: Study, told: int, state: Mapping[str, Any]) -> None:
        """Commit a strategy's state after `told` outcomes; the two newest are kept."""
        text, arrays = snapshots.pack(state)
        s = t.snapshots.c
        row = {
            "study": study.id,
            "told": told,
            "state": text,
            "arrays": arrays,
            "sha256": snapshots.digest(text, arrays),
        }

        def work(connection: Connection) -> None:
            connection.execute(t.snapshots.delete().where(s.study == study.id, s.told == told))
            connection.execute(t.snapshots.insert(), row)
            newest = sa.select(s.told).where(s.study == study.id).order_by(s.told.desc()).limit(2)
            kept = [found.told for found in connection.execute(newest)]
            connection.execute(t.snapshots.delete().where(s.study == study.id, s.told.not_in(kept)))

        self.write(work)

    def snapshots(self, study: Study) -> Iterator[tuple[int, dict[str, Any]]]:
        """(told, state) of the intact snapshots, newest first."""
        s = t.snapshots.c
        for row in self.read(sa.select(t.snapshots).where(s.study == study.id).order_by(s.told.desc())):
            if snapshots.digest(row.state, row.arrays) == row.sha256:
                yield row.told, snapshots.unpack(row.state, row.arrays)

    # -- scores -------------------------------------------------------------------------------------------

    def find_context(self, facts: Mapping[str, Any]) -> int | None:
        """The id of what scores depend on beside the architecture and the predictor; None where none are stored."""
        c = t.contexts.c
        found = self.read(sa.select(c.id).where(c.json == json.dumps(dict(facts), sort_keys=True)))
        return found[0].id if found else None

    def context(self, facts: Mapping[str, Any]) -> int:
        """The same id; what is not there is stored, once."""
        text = json.dumps(dict(facts), sort_keys=True)
        c = t.contexts.c

        def work(connection: Connection) -> int:
            self._sql.run(connection, "context", {"json": text})
            return int(connection.execute(sa.select(c.id).where(c.json == text)).scalar_one())

        return self.write(work)

    def scores(self, context: int, predictor: str) -> dict[str, float]:
        """All stored scores of a predictor, by the key of the architecture."""
        s = t.scores.c
        statement = sa.select(s.architecture, s.value, s.number).where(s.context == context, s.predictor == predictor)
        return {row.architecture: rows.number(row) for row in self.read(statement)}

    def score_seconds(self, context: int, predictor: str) -> dict[str, float]:
        """What the stored scores of a predictor took to compute, by architecture, where that is known."""
        s = t.scores.c
        statement = sa.select(s.architecture, s.seconds).where(s.context == context, s.predictor == predictor)
        return {row.architecture: row.seconds for row in self.read(statement) if row.seconds is not None}

    def save_scores(self, context: int, scored: Iterable[tuple[Architecture, str, float, float | None]]) -> None:
        """Commit scores: (architecture, predictor, value, seconds). What is stored already stays as it is."""
        found = list(scored)

        def work(connection: Connection) -> None:
            archs = {arch.key: arch for arch, *_ in found}
            self._sql.run_many(
                connection, "architecture", [{"key": key, "json": arch.to_json()} for key, arch in archs.items()]
            )
            self._sql.run_many(
                connection,
                "score",
                [rows.score_row(context, name, arch, value, seconds) for arch, name, value, seconds in found],
            )

        self.write(work)

    # -- files and environments ---------------------------------------------------------------------------

    def add_artifact(self, run: Run, kind: str, path: Path) -> Artifact:
        """Record a written file of a run, with its SHA-256; the same path again replaces the record."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        artifact = Artifact(run.id, kind, os.path.relpath(path, self.files), digest, time.time())
        a = t.artifacts.c

        def work(connection: Connection) -> None:
            connection.execute(t.artifacts.delete().where(a.run == run.id, a.path == artifact.path))
            connection.execute(t.artifacts.insert(), asdict(artifact))

        self.write(work)
        return artifact

    def artifacts(self, run: Run) -> list[Artifact]:
        a = t.artifacts.c
        statement = sa.select(a.run, a.kind, a.path, a.sha256, a.created).where(a.run == run.id).order_by(a.id)
        return [Artifact(*row) for row in self.read(statement)]

    def study_artifacts(self, study: Study) -> dict[int, list[Artifact]]:
        """The recorded files of all runs of a study, by run."""
        a = t.artifacts.c
        statement = sa.select(a.run, a.kind, a.path, a.sha256, a.created).join(t.runs).where(t.runs.c.study == study.id)
        found: dict[int, list[Artifact]] = {}
        for row in self.read(statement.order_by(a.id)):
            found.setdefault(row.run, []).append(Artifact(*row))
        return found

    def environment(self, facts: Mapping[str, Any]) -> int:
        """The id of a description of the machine and its software, stored once."""
        text = json.dumps(dict(facts), sort_keys=True)
        e = t.environments.c

        def work(connection: Connection) -> int:
            self._sql.run(connection, "environment", {"json": text})  # of two processes that race one inserts
            return int(connection.execute(sa.select(e.id).where(e.json == text)).scalar_one())

        return self.write(work)

    # -- reading and writing ------------------------------------------------------------------------------

    def read(self, statement: sa.Executable, parameters: Mapping[str, Any] | None = None) -> Sequence[Any]:
        """All rows of a query."""
        while True:
            self._check_lost()
            try:
                with self._connection.begin():
                    return self._connection.execute(statement, dict(parameters or {})).fetchall()
            except DBAPIError as error:
                self._outlast(error)

    def stream(self, statement: sa.Select[Any]) -> Iterator[Sequence[Any]]:
        """The rows of a query in parts, so that they do not have to fit into memory. While they are read nothing else
        can be."""
        with self._errors(), self._connection.begin():
            result = self._connection.execute(statement, execution_options={"yield_per": PAGE})
            yield from result.partitions()

    @property
    def dialect(self) -> str:
        """The kind of database: sqlite or postgresql."""
        return self._connection.dialect.name

    def query(self, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows of a person's SQL: see `asked`."""
        with self.asked(query) as (columns, found):
            return columns, list(found)

    @contextmanager
    def asked(self, query: str) -> Iterator[tuple[list[str], Iterable[tuple[Any, ...]]]]:
        """Column names and rows of a person's SQL, in a transaction that cannot write; rows are read as they are asked
        for, and nothing else meanwhile.

        Raises UsageError with the database's own message where it refuses the query, also while rows are read.
        """
        on_file = self._connection.dialect.name == "sqlite"
        try:
            with self._connection.begin() as transaction:
                if on_file:
                    self._connection.connection.driver_connection.set_authorizer(sqlite.only_reading)  # type: ignore[union-attr]
                else:
                    self._connection.exec_driver_sql("SET TRANSACTION READ ONLY")
                result = self._connection.exec_driver_sql(query)
                if not result.returns_rows:
                    raise UsageError("the query returns no rows; write a SELECT (the database is read-only here)")
                yield list(result.keys()), (tuple(row) for part in result.partitions(PAGE) for row in part)
                result.close()
                transaction.rollback()
        except SQLAlchemyError as error:
            reason = urls.short(error).replace("not authorized", "it would change something, and here one only reads")
            raise UsageError(f"the database refuses the query: {reason}") from None
        finally:
            if on_file:
                self._connection.connection.driver_connection.set_authorizer(None)  # type: ignore[union-attr]

    def spare_bytes(self) -> int:
        """What `compact` would give back to the disk; a server looks after that itself."""
        if self._file is None:
            return 0
        (free,), (size,) = (self.read(sa.text(f"PRAGMA {what}"))[0] for what in ("freelist_count", "page_size"))
        return int(free * size)

    def compact(self) -> None:
        """Write the database file anew without the pages that are free. Needs as much room again meanwhile."""
        with self._errors(), self._connection.begin():  # without a transaction, which VACUUM does not bear
            self._connection.exec_driver_sql("VACUUM")
            self._connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    @property
    def place(self) -> str:
        """Where the database is, for messages; without a password."""
        return urls.shown(urls.parse(self.url))

    @property
    def shareable(self) -> str:
        """The database's URL for files that are passed on: no password, no absolute path."""
        return urls.shareable(urls.parse(self.url))

    def _runs(self, where: Any, metrics: bool) -> Iterator[Run]:
        """Runs in pages, so that a long study does not have to fit into memory."""
        r, size, last = t.runs.c, FIRST_PAGE, (-1, -1)
        columns = sa.select(t.runs, t.architectures.c.json.label("arch_json")).join(t.architectures)
        while True:
            # Runs of other kinds than trials have the same numbers below other parents.
            after = sa.tuple_(r.number, r.id) > sa.tuple_(*map(sa.literal, last))
            page = self.read(columns.where(where, after).order_by(r.number, r.id).limit(size))
            found = self._last_metrics([row.id for row in page]) if metrics and page else {}
            for row in page:
                yield rows.run(row, found.get(row.id, {}))
            if len(page) < size:
                return
            last, size = (page[-1].number, page[-1].id), PAGE

    def _last_metrics(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        """Per run the newest value of each metric: a metric that is reported once stays visible."""
        m = t.metrics.c
        result: dict[int, dict[str, float]] = {}
        for start in range(0, len(ids), 500):
            statement = sa.select(t.metrics).where(m.run.in_(ids[start : start + 500])).order_by(m.run, m.step, m.name)
            for row in self.read(statement):
                result.setdefault(row.run, {})[row.name] = rows.number(row)
        return result

    def _insert_report(self, connection: Connection, run_id: int, report: Report) -> None:
        step, values = report.step, report.metrics
        self._sql.run_many(
            connection, "metric", [rows.metric_row(run_id, step, name, value) for name, value in values.items()]
        )
        loads = (report.detail or {}).get(LOADS)
        if loads is not None:  # of the epoch that was reported last
            connection.execute(t.epochs.delete().where(t.epochs.c.run == run_id))
            connection.execute(t.epochs.insert(), rows.loads_row(run_id, report, loads))

    def write(self, work: Callable[[Connection], T], *, repeatable: bool = False) -> T:
        """Do some work in a transaction of its own; where a server goes away in it, once more when that is back.
        `repeatable`: also where it may have been committed, for doing it twice is doing it once."""
        while True:
            self._check_lost()
            committing = False
            try:
                with urls.writing(self._connection):
                    result = work(self._connection)
                    committing = True
                if self._refused:
                    self._wait(sqlite.WAIT)
                return result
            except DBAPIError as error:
                if committing and error.connection_invalidated and not repeatable:
                    raise MachineError(
                        f"{self.place} went away while something was being committed: {urls.short(error)}; what was "
                        "committed before is kept"
                    ) from None
                self._outlast(error)

    def _outlast(self, error: DBAPIError) -> None:
        """Wait for a server that has gone away. Raises MachineError where it is another error, or it does not come
        back."""
        if self.reading or not error.connection_invalidated:
            if urls.busy(error):
                self._wait(sqlite.BRIEFLY)  # a command that ends has more to write, and has waited
            raise self._explained(error) from None
        self._lost = MachineError(f"{self.place} went away: {urls.short(error)}; what was committed is kept")
        try:
            outlast(self._connection, self._driving, self.place)
        except MachineError as final:
            self._lost = final
            raise
        self._lost = None

    def _wait(self, seconds: float) -> None:
        """From now on wait so long for another process that writes to the same SQLite file."""
        self._refused = seconds != sqlite.WAIT
        with self._connection.begin():
            self._connection.exec_driver_sql(f"PRAGMA busy_timeout = {round(1000 * seconds)}")

    def _check_lost(self) -> None:
        """Once a server is lost nothing may connect again in silence, without the locks: raises MachineError."""
        if self._lost is not None:
            raise self._lost

    def _explained(self, error: DBAPIError) -> NasError:
        if self.schema == SCHEMA and not self.reading and urls.misses(error):
            try:
                with urls.writing(self._connection):
                    check_unchanged(self._connection)
            except MachineError as changed:
                return changed
            except DBAPIError:
                pass  # it has lost its version, say
        return urls.explain(error, self.place, self._file)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise self._explained(error) from None


def _run_row(study: int, kind: str, number: int, proposal: Proposal, identity: str, verdict: Verdict) -> dict[str, Any]:
    """A new run that belongs to no other one."""
    now, waiting = time.time(), verdict.state == State.WAITING
    return {
        "study": study,
        "kind": kind,
        "number": number,
        "parent": None,
        "architecture": proposal.arch.key,
        "identity": identity,
        "budget": proposal.budget,
        "continues": proposal.continues,
        "transfer": proposal.transfer,
        "recipe": None,
        "repeat": 0,
        "note": rows.dump_note(tuple(proposal.note.items())),
        "reuses": None,
        "attempt": 0 if waiting else 1,
        "asked_after": None,
        "told": None,
        "started": None if waiting else now,
        "environment": None,
        "tries": 0,
        "changes": None,
        "derived": None,
        **rows.verdict_row(verdict, None if waiting or verdict.state == State.RUNNING else now),
    }


def _free(connection: Connection, table: sa.Table, stem: str) -> str:
    """The first name of STEM-1, STEM-2, ... that no row has."""
    names = sa.select(table.c.name).where(table.c.name.startswith(f"{stem}-", autoescape=True))
    taken = set(connection.execute(names).scalars())
    return next(name for number in count(1) if (name := f"{stem}-{number}") not in taken)


def _bench_row(name: str, config: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "config": rows.dump(dict(config)), "created": time.time()}
