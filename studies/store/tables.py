"""The schema. Readable by a person: see the views `trials` and `trials_flat`.

JSON is stored as text, so that one schema serves SQLite and PostgreSQL, and a look with any tool shows it.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    ColumnElement,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    and_,
    literal_column,
    text,
)

metadata = MetaData()

BEFORE = "before"
"""Of a column's `info`: the name that it had in older schemas, with a sign where it had another one."""


def is_kind(row: Any, kind: str) -> Any:
    """Whether a row (a run, an artifact) is of a kind; of columns, the condition."""
    found = row.kind
    if found is runs.c.kind and kind != "trial":
        return and_(found == kind, found != "trial")  # as the index of other runs says it
    return found == kind


version = Table(
    "alembic_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)

studies = Table(
    "studies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("space", Text, nullable=False),  # reference
    Column("space_name", Text, nullable=False),
    Column("space_version", Integer, nullable=False),
    Column("space_hash", String(16)),  # of a user's file
    Column("size", Text, nullable=False),  # JSON
    Column("strategy", Text, nullable=False),  # reference
    Column("strategy_config", Text, nullable=False),  # JSON
    Column("evaluator", Text, nullable=False),  # JSON
    Column("task", Text, nullable=False),  # JSON
    Column("split_hash", Text, nullable=False),  # of the data, or the table
    Column("objectives", Text, nullable=False),  # JSON
    Column("constraints", Text, nullable=False),  # JSON
    Column("seed", BigInteger, nullable=False),
    Column("lag", Integer, nullable=False),
    Column("budget", Text, nullable=False),  # JSON; may be raised by a resume
    Column("created", Float, nullable=False),  # seconds since 1970, UTC
    Column("ordering", String(8), nullable=False, server_default="strict"),  # strict, free
    Column("early_stop", Text, info={BEFORE: "pruner"}),  # JSON
    Column("bench", ForeignKey("benches.id")),  # whose child it is
    Column("measured", Text),  # JSON: what the bench measured of it
    Column("scoring", Text),  # JSON: where the scores of predictors come from
    Column("warm_start", Text, info={BEFORE: "prior"}),  # JSON: what was known before the first trial
    Column("supernet", Text),  # JSON: what a one-shot search trains its supernet on
    Column("final_size", Text),  # JSON; empty in a study of before: its search size
    Column("files", Text),  # JSON: hashes of the user's files of strategy and predictors; empty: there are none
    Column("inputs", Text),  # JSON: what its networks need to know of their inputs; empty for a table
)
Index("studies_bench", studies.c.bench)

benches = Table(
    "benches",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("config", Text, nullable=False),  # JSON
    Column("created", Float, nullable=False),
)

architectures = Table(
    "architectures",
    metadata,
    Column("key", String(16), primary_key=True),
    Column("json", Text, nullable=False),
    sqlite_with_rowid=False,
)

environments = Table(
    "environments",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("json", Text, nullable=False, unique=True),
)

runs = Table(
    "runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study", ForeignKey("studies.id"), nullable=False),
    Column("kind", String(16), nullable=False),  # trial, retrain, compress, supernet, ...
    Column("number", Integer, nullable=False),  # of the trial; for other kinds counted per parent and kind
    Column("parent", ForeignKey("runs.id")),
    Column("architecture", ForeignKey("architectures.key"), nullable=False),  # of a supernet: without a choice
    Column("identity", Text, nullable=False),
    Column("budget", Float),
    Column("continues", Integer),  # number of the trial whose training goes on
    Column("transfer", Integer),  # number of the trial with whose weights it begins
    Column("recipe", Text),  # JSON; only where it is not the study's
    Column("repeat", Integer, nullable=False),
    Column("note", Text, nullable=False),  # JSON, the strategy's own
    Column("state", String(16), nullable=False),
    Column("reason", Text),
    Column("reuses", Integer, info={BEFORE: "source"}),  # number of the trial that this one repeats
    Column("attempt", Integer, nullable=False),
    Column("asked_after", Integer),  # how many outcomes had been told when this was asked
    Column("told", Integer),  # position among the told outcomes; empty: not told yet
    Column("objectives", Text),  # JSON, oriented: higher is better
    Column("violations", Text),  # JSON, per constraint, relative
    Column("objective", Float),  # the first of them, for sorting
    Column("feasible", Boolean),
    Column("started", Float),
    Column("ended", Float),
    Column("seconds", Float),  # measured, or the recorded ones of a table
    Column("environment", ForeignKey("environments.id")),
    Column("tries", Integer, nullable=False, server_default=text("0")),  # attempts since its last report
    Column("traceback", Text),  # of the exception that failed it: the frames of the user's own files
    Column("changes", Text),  # JSON: in what the network that it left differs from that of its space
    Column("derived", Text),  # JSON: keys of the architectures that a supernet has come to, best first
    CheckConstraint("kind <> 'trial' OR parent IS NULL", name="trials_have_no_parent"),
)
# Partial indexes: a row enters them once, when it ends, instead of moving with every change of its state.
_trial, _ended, _child = is_kind(runs.c, "trial"), runs.c.ended.isnot(None), runs.c.parent.isnot(None)
Index("trials_number", runs.c.study, runs.c.number, unique=True, sqlite_where=_trial)
Index(
    "runs_ended",
    *(runs.c.study, runs.c.kind, runs.c.state, runs.c.feasible, runs.c.budget, runs.c.objective, runs.c.number),
    sqlite_where=_ended,
)
Index("runs_children", runs.c.parent, runs.c.kind, sqlite_where=_child)
_transfer = runs.c.transfer.isnot(None)
Index("runs_transfers", runs.c.study, sqlite_where=_transfer, postgresql_where=_transfer)
Index("runs_others", runs.c.study, runs.c.kind, runs.c.number, sqlite_where=~_trial)


def oriented(place: int, dialect: str) -> ColumnElement[float]:
    """An objective of runs, counted from 0. SQLite reads those after the first from their text, where the last digit
    may come out as another one: what is decided by them is decided by the text."""
    if place == 0:
        return runs.c.objective
    on_file, on_server = f"json_extract(objectives, '$[{place}]')", f"(objectives::json ->> {place})::float8"
    return literal_column(on_file if dialect == "sqlite" else f"({on_server})", Float)


def several(dialect: str) -> str:
    """The index of runs with several objectives, in SQL: one expression per objective after the first. All that a
    front is made of is in it."""
    second, third = (oriented(place, dialect) for place in (1, 2))
    return (
        "CREATE INDEX IF NOT EXISTS runs_several ON runs (study, kind, state, feasible, budget, "
        f"{second}, {third}, objective, number, objectives) WHERE ended IS NOT NULL AND {second} IS NOT NULL"
    )


metrics = Table(
    "metrics",
    metadata,
    Column("run", ForeignKey("runs.id"), primary_key=True),
    Column("step", Float, primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("value", Float),  # empty where `number` is not finite: databases disagree about NaN
    Column("number", String(6), nullable=False),  # finite, nan, +inf, -inf
    sqlite_with_rowid=False,
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("study", ForeignKey("studies.id"), primary_key=True),
    Column("told", Integer, primary_key=True),  # how many outcomes the strategy had been told
    Column("state", Text, nullable=False),  # JSON, arrays by name
    Column("arrays", LargeBinary, nullable=False),  # safetensors
    Column("sha256", String(64), nullable=False),  # of both
)

contexts = Table(
    "contexts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("json", Text, nullable=False, unique=True),  # what scores depend on beside architecture and predictor
)

scores = Table(
    "scores",
    metadata,
    Column("context", ForeignKey("contexts.id"), primary_key=True),
    Column("predictor", String(200), primary_key=True),
    Column("architecture", ForeignKey("architectures.key"), primary_key=True),
    Column("value", Float),  # empty where `number` is not finite
    Column("number", String(6), nullable=False),  # finite, +inf, -inf
    Column("seconds", Float),  # what it took to compute
    sqlite_with_rowid=False,
)

artifacts = Table(
    "artifacts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("run", ForeignKey("runs.id"), nullable=False),
    Column("kind", String(32), nullable=False),
    Column("path", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created", Float, nullable=False),
    UniqueConstraint("run", "path"),
)

epochs = Table(
    "epochs",
    metadata,
    # Of the supernet, whose epochs are all kept; or of a training of layers of experts, of which the last one is.
    Column("run", ForeignKey("runs.id"), primary_key=True, info={BEFORE: "-study"}),
    Column("epoch", Integer, primary_key=True),  # finished epochs of the training
    Column("architecture", ForeignKey("architectures.key")),  # derived then; empty: there is none
    Column("metrics", Text, nullable=False),  # JSON
    # JSON: per group the weights of its operations; per layer of experts the share of its work that each does.
    Column("strengths", Text, nullable=False, info={BEFORE: "scores"}),
    Column("seconds", Float, nullable=False),
    sqlite_with_rowid=False,
)

queues = Table(
    "queues",
    metadata,
    Column("study", ForeignKey("studies.id"), primary_key=True),
    Column("session", String(32), nullable=False),  # of the newest driver
    Column("driver", Text, nullable=False),  # HOST:PID
    Column("version", Text, nullable=False),  # of the program
    Column("lease", Float, nullable=False),  # seconds without a sign after which a worker counts as gone
    Column("seen", Float),  # the driver's last sign, by the database's clock; empty: it has ended in good order
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Integer, primary_key=True),  # never given twice: the token by which a late worker is told apart
    Column("study", ForeignKey("studies.id"), nullable=False),
    Column("session", String(32), nullable=False),  # of the driver that wants it
    Column("work", Text, nullable=False),  # JSON: whose kind of work it is; empty for the study's evaluator
    Column("folder", Text, nullable=False),  # of the run, below that of all files
    Column("number", Integer, nullable=False),
    Column("job", Text, nullable=False),  # JSON
    Column("state", String(8), nullable=False),  # waiting, running, over
    Column("halting", Boolean, nullable=False),  # it is to stop at its next checkpoint
    Column("begun", Boolean, nullable=False),  # the driver has counted it
    Column("worker", Text),  # HOST:PID
    Column("claimed", Float),  # by the database's clock
    Column("until", Float),  # by the database's clock: the end of the worker's lease
    Column("said", Integer, nullable=False),  # messages
    sqlite_autoincrement=True,
)
Index("attempts_study", attempts.c.study, attempts.c.state)

messages = Table(
    "messages",
    metadata,
    Column("attempt", ForeignKey("attempts.id"), primary_key=True),
    Column("number", Integer, primary_key=True),  # from 1 on
    Column("body", Text, nullable=False),  # JSON
    sqlite_with_rowid=False,
)

VIEWS = {
    # `source` is what `reuses` was called; queries of users may hold it for one release.
    "trials": """
        SELECT s.name AS study, r.number, r.state, r.reason, r.objective, r.feasible, r.reuses, r.budget, r.continues,
               r.seconds, r.started, r.ended, r.attempt, a.json AS architecture, r.identity, r.note, r.reuses AS source
        FROM runs r JOIN studies s ON s.id = r.study JOIN architectures a ON a.key = r.architecture
        WHERE r.kind = 'trial'""",
    "trials_flat": """
        SELECT s.name AS study, r.number, r.state, m.step, m.name AS metric, m.value, m.number AS kind_of_number
        FROM runs r JOIN studies s ON s.id = r.study JOIN metrics m ON m.run = r.id
        WHERE r.kind = 'trial'
          AND m.step = (SELECT MAX(last.step) FROM metrics last WHERE last.run = r.id)""",
}
