"""The store: verbs on plain records, one transaction per verb.

Crash rule: a proposal is committed before its evaluation starts; a result is committed at once, with
`told` empty; `told` is committed with the next proposal (or by `tell` when there is none). So after a kill
at any moment, finished trials that were not told are told again in the order of their numbers.

One driver per study is its only writer (`Store.lock`); several drivers may share a database.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from nas_core.architecture import Architecture
from nas_core.errors import MachineError, NasError, NotFoundError, UsageError, nearest
from nas_core.evaluation import Report
from nas_core.records import TRIAL, Artifact, Run, StopAt, Study, StudySpec, Verdict
from nas_core.strategy import Proposal, State
from studies.store import tables as t
from studies.store.schema import prepare

T = TypeVar("T")

_JSON_FIELDS = ("size", "strategy_config", "evaluator", "task", "objectives", "constraints")


def _dump(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


_dump_note = lru_cache(maxsize=256)(lambda items: _dump(dict(items)))


class Store:
    """An open study database. `url` is a SQLAlchemy URL; `files` is the folder for the files of runs.

    Raises MachineError when the database cannot be reached, is newer than this program, or cannot be written.
    """

    def __init__(self, url: str, files: Path | None = None, *, durable: bool = False, create: bool = True) -> None:
        parsed = _parse(url)
        self.url = url
        self.files = files or _default_files(parsed)
        if parsed.get_backend_name() == "sqlite":
            _check_sqlite_path(parsed, create)
        try:
            self._engine = sa.create_engine(parsed)
            if parsed.get_backend_name() == "sqlite":
                _set_pragmas(self._engine, durable)
            self._connection: Connection = self._engine.connect()
        except DBAPIError as error:
            raise _explain(error, self.place) from None
        except (SQLAlchemyError, ModuleNotFoundError) as error:
            hint = "; run: pip install 'nas[postgresql]'" if isinstance(error, ModuleNotFoundError) else ""
            raise MachineError(f"cannot reach the database {self.place}: {_short(error)}{hint}") from None
        with self._errors():
            prepare(self._connection, create)
        self._sql = _Statements(self._connection.dialect)

    def close(self) -> None:
        self._connection.close()
        self._engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- studies ------------------------------------------------------------------------------------------

    def create_study(self, name: str, spec: StudySpec, stop_at: StopAt) -> Study:
        """A new study. Raises UsageError when the name is taken."""
        row = spec.model_dump(mode="json")
        row.update({field: _dump(row[field]) for field in _JSON_FIELDS})
        row.update(name=name, budget=stop_at.model_dump_json(), created=time.time())
        if self.find_study(name):
            raise UsageError(f"study '{name}' exists already; choose another --study or 'nas resume {name}'")
        self._write(lambda c: c.execute(t.studies.insert(), row))
        return self.study(name)

    def study(self, name: str) -> Study:
        """Raises NotFoundError with the nearest name."""
        found = self.find_study(name)
        if found is None:
            names = self.study_names()
            listing = f" (there are: {', '.join(names[:8])}{', ...' if len(names) > 8 else ''})" if names else ""
            raise NotFoundError(f"no study '{name}' in {self.place}{nearest(name, names)}{listing}")
        return found

    def find_study(self, name: str) -> Study | None:
        rows = self.read(sa.select(t.studies).where(t.studies.c.name == name))
        return _study(rows[0]) if rows else None

    def study_names(self) -> list[str]:
        return [row.name for row in self.read(sa.select(t.studies.c.name).order_by(t.studies.c.id))]

    def set_stop_at(self, study: Study, stop_at: StopAt) -> None:
        change = t.studies.update().where(t.studies.c.id == study.id).values(budget=stop_at.model_dump_json())
        self._write(lambda c: c.execute(change))

    @contextmanager
    def lock(self, study: Study) -> Iterator[None]:
        """Hold the study as its only driver; released by the system when the process dies.

        Raises UsageError when another process holds it.
        """
        folder = self.folder(study)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise MachineError(
                f"cannot write in '{folder}' ({error.strerror}); choose another folder by --files"
            ) from None
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(f"study '{study.name}' is being run by another process; stop that one first") from None
            yield
        finally:
            os.close(handle)

    def folder(self, study: Study, run: Run | None = None) -> Path:
        """The folder of a study's or run's files."""
        folder = self.files / study.name
        if run is None:
            return folder
        return folder / (str(run.number) if run.kind == TRIAL else f"{run.kind}-{run.id}")

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
        source: int | None = None,
        repeat: int = 0,
        recipe: Mapping[str, Any] | None = None,
        report: Report | None = None,
        asked_after: int | None = None,
        told: tuple[int, int] | None = None,
        environment: int | None = None,
    ) -> int:
        """Commit a run and return its id; `told` = (run, position) marks another run as told with it.

        The verdict's state is RUNNING when the evaluation starts at once, WAITING when it does not, or
        final (rejected, reused), with a report where there is one.
        """
        now = time.time()
        final = verdict.state not in (State.WAITING, State.RUNNING)
        row = {
            "study": study.id,
            "kind": kind,
            "number": number,
            "parent": parent,
            "architecture": proposal.arch.key,
            "identity": identity,
            "budget": proposal.budget,
            "recipe": None if recipe is None else _dump(dict(recipe)),
            "repeat": repeat,
            "note": _dump_note(tuple(proposal.note.items())),
            "source": source,
            "attempt": 0 if verdict.state == State.WAITING else 1,
            "asked_after": asked_after,
            "told": None,
            "started": None if verdict.state == State.WAITING else now,
            "environment": environment,
            **_verdict_row(verdict, now if final else None),
        }
        arch = {"key": proposal.arch.key, "json": proposal.arch.to_json()}

        def work(connection: Connection) -> int:
            if told:
                self._sql.run(connection, "tell", {"id": told[0], "told": told[1]})
            self._sql.run(connection, "architecture", arch)
            run_id = self._sql.insert_run(connection, row)
            if report is not None:
                self._insert_metrics(connection, run_id, report.step, report.metrics)
            return run_id

        return self._write(work)

    def start(self, run_id: int, environment: int | None) -> None:
        """Commit that an attempt begins."""
        r = t.runs.c
        change = (
            t.runs.update()
            .where(r.id == run_id)
            .values(state=State.RUNNING, attempt=r.attempt + 1, started=time.time(), environment=environment)
        )
        self._write(lambda c: c.execute(change))

    def report(self, run_id: int, report: Report) -> None:
        """Commit the metrics of a step; a step reported again replaces itself."""
        self._write(lambda c: self._insert_metrics(c, run_id, report.step, report.metrics))

    def finish(self, run_id: int, verdict: Verdict, report: Report | None = None) -> None:
        """Commit the result of a run, with its last report where that is not stored yet."""
        row = {"id": run_id, **_verdict_row(verdict, time.time())}

        def work(connection: Connection) -> None:
            if report is not None:
                self._insert_metrics(connection, run_id, report.step, report.metrics)
            self._sql.run(connection, "finish", row)

        self._write(work)

    def tell(self, run_id: int, position: int) -> None:
        """Commit that the strategy has been told of a run."""
        self._write(lambda c: self._sql.run(c, "tell", {"id": run_id, "told": position}))

    def trials(self, study: Study, *, metrics: bool = False, since: int = 0) -> Iterator[Run]:
        """The study's trials from number `since` on, in the order of their numbers."""
        r = t.runs.c
        return self._runs(sa.and_(r.study == study.id, r.kind == TRIAL, r.number >= since), metrics)

    def trial(self, study: Study, number: int) -> Run:
        """Raises NotFoundError."""
        r = t.runs.c
        found = list(self._runs(sa.and_(r.study == study.id, r.kind == TRIAL, r.number == number), True))
        if not found:
            raise NotFoundError(f"study '{study.name}' has no trial {number}; see 'nas trials {study.name}'")
        return found[0]

    def children(self, run: Run, kind: str) -> list[Run]:
        """The runs of a kind that belong to a run, in the order of their numbers."""
        r = t.runs.c
        return list(self._runs(sa.and_(r.parent == run.id, r.kind == kind), True))

    def curve(self, run: Run) -> list[Report]:
        """All reports of a run."""
        m = t.metrics.c
        steps: dict[float, dict[str, float]] = {}
        for row in self.read(sa.select(t.metrics).where(m.run == run.id).order_by(m.step, m.name)):
            steps.setdefault(row.step, {})[row.name] = _number(row)
        return [Report(step, metrics) for step, metrics in steps.items()]

    # -- files and environments ---------------------------------------------------------------------------

    def add_artifact(self, run: Run, kind: str, path: Path) -> Artifact:
        """Record a written file of a run, with its SHA-256; the same path again replaces the record."""
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        artifact = Artifact(run.id, kind, os.path.relpath(path, self.files), digest, time.time())
        a = t.artifacts.c

        def work(connection: Connection) -> None:
            connection.execute(t.artifacts.delete().where(a.run == run.id, a.path == artifact.path))
            connection.execute(t.artifacts.insert(), asdict(artifact))

        self._write(work)
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
            known = connection.execute(sa.select(e.id).where(e.json == text)).scalar()
            if known is not None:
                return int(known)
            return int(connection.execute(t.environments.insert().returning(e.id), {"json": text}).scalar_one())

        return self._write(work)

    # -- reading and writing ------------------------------------------------------------------------------

    def read(self, statement: sa.Executable, parameters: Mapping[str, Any] | None = None) -> Sequence[Any]:
        """All rows of a query."""
        with self._errors(), self._connection.begin():
            return self._connection.execute(statement, dict(parameters or {})).fetchall()

    def query(self, query: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Column names and rows of a person's SQL, in a transaction that cannot write.

        Raises UsageError with the database's own message where it refuses the query.
        """
        sqlite = self._connection.dialect.name == "sqlite"
        try:
            with self._connection.begin() as transaction:
                if sqlite:
                    self._connection.connection.driver_connection.set_authorizer(_only_reading)  # type: ignore[union-attr]
                else:
                    self._connection.exec_driver_sql("SET TRANSACTION READ ONLY")
                result = self._connection.exec_driver_sql(query)
                if not result.returns_rows:
                    raise UsageError("the query returns no rows; write a SELECT (the database is read-only here)")
                columns, rows = list(result.keys()), [tuple(row) for row in result.fetchall()]
                transaction.rollback()
                return columns, rows
        except SQLAlchemyError as error:
            raise UsageError(f"the database refuses the query: {_short(error)}") from None
        finally:
            if sqlite:
                self._connection.connection.driver_connection.set_authorizer(None)  # type: ignore[union-attr]

    @property
    def place(self) -> str:
        """Where the database is, for messages; without a password."""
        return _parse(self.url).render_as_string(hide_password=True)

    def _runs(self, where: Any, metrics: bool) -> Iterator[Run]:
        """Runs in pages, so that a long study does not have to fit into memory."""
        r, last = t.runs.c, -1
        columns = sa.select(t.runs, t.architectures.c.json.label("arch_json")).join(t.architectures)
        while True:
            page = self.read(columns.where(where, r.number > last).order_by(r.number).limit(2000))
            found = self._last_metrics([row.id for row in page]) if metrics and page else {}
            for row in page:
                yield _run(row, found.get(row.id, {}))
            if len(page) < 2000:
                return
            last = page[-1].number

    def _last_metrics(self, ids: Sequence[int]) -> dict[int, dict[str, float]]:
        """Per run the newest value of each metric: a metric that is reported once stays visible."""
        m = t.metrics.c
        result: dict[int, dict[str, float]] = {}
        for start in range(0, len(ids), 500):
            statement = sa.select(t.metrics).where(m.run.in_(ids[start : start + 500])).order_by(m.run, m.step, m.name)
            for row in self.read(statement):
                result.setdefault(row.run, {})[row.name] = _number(row)
        return result

    def _insert_metrics(self, connection: Connection, run_id: int, step: float, values: Mapping[str, float]) -> None:
        self._sql.run_many(
            connection,
            "metric",
            [
                {"run": run_id, "step": step, "name": name, "value": value if finite else None, "number": kind}
                for name, value in values.items()
                for finite, kind in (_kind_of(value),)
            ],
        )

    def _write(self, work: Callable[[Connection], T]) -> T:
        with self._errors(), self._connection.begin():
            return work(self._connection)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise _explain(error, self.place) from None


class _Statements:
    """The hot statements, compiled once to the driver's own SQL: half the time per trial of the ORM-less Core."""

    def __init__(self, dialect: sa.Dialect) -> None:
        insert: Any
        if dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert
        else:
            from sqlalchemy.dialects.sqlite import insert
        metric = insert(t.metrics)
        r = t.runs.c
        outcome = ("state", "reason", "objectives", "violations", "objective", "feasible", "ended", "seconds")
        statements: dict[str, Any] = {
            "architecture": insert(t.architectures).on_conflict_do_nothing(),
            "metric": metric.on_conflict_do_update(
                index_elements=["run", "step", "name"],
                set_={"value": metric.excluded.value, "number": metric.excluded.number},
            ),
            "run": insert(t.runs)
            .values({c.name: sa.bindparam(c.name) for c in t.runs.c if c.name != "id"})
            .returning(r.id),
            "tell": t.runs.update().where(r.id == sa.bindparam("id_")).values(told=sa.bindparam("told")),
            "finish": t.runs.update()
            .where(r.id == sa.bindparam("id_"))
            .values({name: sa.bindparam(name) for name in outcome}),
        }
        self._compiled = {name: self._compile(statement, dialect) for name, statement in statements.items()}

    @staticmethod
    def _compile(statement: Any, dialect: sa.Dialect) -> tuple[str, Callable[[Mapping[str, Any]], Any]]:
        compiled = statement.compile(dialect=dialect)
        names = compiled.positiontup
        rename = {"id_": "id"}
        if names is None:
            named = [(name, rename.get(name, name)) for name in compiled.params]
            return str(compiled), lambda row: {name: row[key] for name, key in named}
        keys = [rename.get(name, name) for name in names]
        return str(compiled), lambda row: tuple([row[key] for key in keys])

    def run(self, connection: Connection, name: str, row: Mapping[str, Any]) -> None:
        sql, order = self._compiled[name]
        connection.exec_driver_sql(sql, order(row))

    def run_many(self, connection: Connection, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        sql, order = self._compiled[name]
        if rows:
            connection.exec_driver_sql(sql, [order(row) for row in rows])

    def insert_run(self, connection: Connection, row: Mapping[str, Any]) -> int:
        sql, order = self._compiled["run"]
        return int(connection.exec_driver_sql(sql, order(row)).scalar_one())


def _verdict_row(verdict: Verdict, ended: float | None) -> dict[str, Any]:
    values = verdict.values
    return {
        "state": str(verdict.state),
        "reason": verdict.reason,
        "objectives": None if values is None else _dump(values),
        "violations": _dump(verdict.violations) if verdict.violations else None,
        "objective": values[0] if values else None,
        "feasible": verdict.feasible if values is not None else None,
        "seconds": verdict.seconds,
        "ended": ended,
    }


def _kind_of(value: float) -> tuple[bool, str]:
    if math.isfinite(value):
        return True, "finite"
    return False, "nan" if math.isnan(value) else "+inf" if value > 0 else "-inf"


def _number(row: Any) -> float:
    return float(row.value) if row.number == "finite" else float(row.number)


def _study(row: Any) -> Study:
    values = {field: getattr(row, field) for field in StudySpec.model_fields}
    values.update({field: json.loads(values[field]) for field in _JSON_FIELDS})
    return Study(row.id, row.name, StudySpec(**values), StopAt.model_validate_json(row.budget), row.created)


def _run(row: Any, metrics: Mapping[str, float]) -> Run:
    values = None if row.objectives is None else tuple(json.loads(row.objectives))
    violations = () if row.violations is None else tuple(json.loads(row.violations))
    return Run(
        id=row.id,
        kind=row.kind,
        number=row.number,
        parent=row.parent,
        proposal=Proposal(Architecture.from_json(row.arch_json), row.budget, json.loads(row.note)),
        identity=row.identity,
        repeat=row.repeat,
        recipe=None if row.recipe is None else json.loads(row.recipe),
        verdict=Verdict(State(row.state), row.reason, values, violations, row.seconds),
        source=row.source,
        attempt=row.attempt,
        asked_after=row.asked_after,
        told=row.told,
        started=row.started,
        ended=row.ended,
        metrics=metrics,
    )


def _parse(url: str) -> URL:
    try:
        return make_url(url)
    except (SQLAlchemyError, ValueError):
        raise UsageError(
            f"'{url}' is not a database URL; write sqlite:///FILE or postgresql+psycopg://USER@HOST/NAME"
        ) from None


def _default_files(url: URL) -> Path:
    """Beside a SQLite file `nas.db`: the folder `nas-files`; elsewhere `nas-files` in the working folder."""
    if url.get_backend_name() == "sqlite" and url.database and url.database != ":memory:":
        path = Path(url.database)
        return path.with_name(f"{path.stem}-files")
    return Path("nas-files")


def _only_reading(action: int, *_: object) -> int:
    """SQLite's authorizer for a person's query: no writing, no pragmas, no other files."""
    allowed = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)
    return sqlite3.SQLITE_OK if action in allowed else sqlite3.SQLITE_DENY


def _check_sqlite_path(url: URL, create: bool) -> None:
    if not url.database or url.database == ":memory:":
        return
    path = Path(url.database)
    if not path.exists() and not create:
        raise NotFoundError(f"there is no database '{path}'; start with 'nas search', or name one by --db")
    folder = path.parent if str(path.parent) else Path()
    if not folder.is_dir():
        raise MachineError(f"the folder '{folder}' of database '{path}' does not exist; make it or choose another --db")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise MachineError(f"no permission to write '{path}'; choose another place by --db sqlite:///FILE")


def _set_pragmas(engine: sa.Engine, durable: bool) -> None:
    def on_connect(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        cursor.execute("PRAGMA busy_timeout = 60000")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA foreign_keys = ON")
        # A checkpoint waits for the disk: every 32 MiB instead of every 4 nearly doubles the trials per second.
        cursor.execute("PRAGMA wal_autocheckpoint = 8000")
        cursor.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        cursor.close()

    sa.event.listen(engine, "connect", on_connect)


def _explain(error: DBAPIError, place: str) -> NasError:
    text = _short(error)
    low = text.lower()
    if "full" in low or "disk i/o" in low:
        free = shutil.disk_usage(".").free // 2**20
        return MachineError(f"the disk is full ({free} MiB free here): {place}: {text}; what was committed is safe")
    if "readonly" in low or "read-only" in low:
        return MachineError(f"no permission to write {place}: {text}")
    if "not a database" in low or "malformed" in low:
        return MachineError(f"{place} is not a study database, or is damaged: {text}")
    if "unable to open" in low or "connect" in low:
        return MachineError(f"cannot reach the database {place}: {text}")
    return MachineError(f"{place}: {text}")


def _short(error: BaseException) -> str:
    cause = getattr(error, "orig", None) or error
    return str(cause).strip().splitlines()[0] if str(cause).strip() else type(cause).__name__
