"""The SQLite store: places it cannot be, other schemas, locks, views, disk full, read-only queries."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from nas_core.architecture import Architecture
from nas_core.errors import MachineError, NotFoundError, UsageError, VerificationError
from nas_core.evaluation import Report
from nas_core.records import Verdict
from nas_core.strategy import Proposal, State
from studies.records import final_size_of
from studies.store import SCHEMA, tables
from studies.store.schema import upgrade
from studies.store.store import Store
from studies.store.testing import SPEC

RELEASED = sorted((Path(__file__).parent / "schemas").glob("*.sql"))


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match="does not exist"):
        Store(f"sqlite:///{tmp_path}/none/nas.db")


def test_a_place_that_cannot_be_written() -> None:
    with pytest.raises(MachineError, match=r"cannot reach|permission"):
        Store("sqlite:////proc/nas.db")


def test_a_url_that_is_none() -> None:
    with pytest.raises(UsageError, match="not a database URL"):
        Store("nas:db:what")


def test_a_server_that_does_not_answer() -> None:
    with pytest.raises(MachineError, match="cannot reach"):
        Store("postgresql+psycopg://nobody:secret@127.0.0.1:1/none")


def test_no_database_where_none_is_created(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no database"):
        Store(f"sqlite:///{tmp_path}/nas.db", create=False)
    assert not (tmp_path / "nas.db").exists()


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "nas.db").write_text("no database at all " * 100)
    with pytest.raises(MachineError, match="not a study database"):
        Store(f"sqlite:///{tmp_path}/nas.db")


def test_a_database_of_something_else(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "other.db") as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
    with pytest.raises(MachineError, match="other tables"):
        Store(f"sqlite:///{tmp_path}/other.db")


def test_a_newer_database(tmp_path: Path) -> None:
    Store(f"sqlite:///{tmp_path}/nas.db").close()
    with sqlite3.connect(tmp_path / "nas.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(MachineError, match="newer than this program's"):
        Store(f"sqlite:///{tmp_path}/nas.db")


def test_the_migrations_make_the_tables(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path}/migrated.db")
    with engine.connect() as connection:
        upgrade(connection)
        assert compare_metadata(MigrationContext.configure(connection), tables.metadata) == []
        views = connection.execute(sa.text("SELECT name FROM sqlite_master WHERE type = 'view'")).scalars().all()
        assert set(views) == set(tables.VIEWS)
        assert connection.execute(sa.select(tables.version.c.version_num)).scalar() == SCHEMA
    with sqlite3.connect(tmp_path / "migrated.db") as migrated:
        made = Store(f"sqlite:///{tmp_path}/made.db")
        made.close()
        with sqlite3.connect(tmp_path / "made.db") as direct:
            assert _schema(migrated) == _schema(direct)


def _schema(connection: sqlite3.Connection) -> set[str]:
    """Columns, foreign keys and indexes: what a table is, not how its SQL was written."""
    found = set()
    for name, sql, kind in connection.execute("SELECT name, sql, type FROM sqlite_master WHERE sql IS NOT NULL"):
        if kind == "index":
            found.add(f"{name}: {' '.join(sql.split())}")
        elif kind == "table":
            columns = connection.execute(f"PRAGMA table_info({name})").fetchall()
            found |= {f"{name}: column {' '.join(map(str, column[1:]))}" for column in columns}
            keys = connection.execute(f"PRAGMA foreign_key_list({name})").fetchall()
            found |= {f"{name}: key {' '.join(map(str, key[2:]))}" for key in keys}
            found.add(f"{name}: check {'CHECK' in sql}, rowid {'WITHOUT ROWID' not in sql}")
    return found


@pytest.mark.parametrize("script", RELEASED, ids=lambda path: path.stem)
def test_released_databases_open(tmp_path: Path, script: Path) -> None:
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.executescript(script.read_text())
    with Store(f"sqlite:///{tmp_path}/old.db") as store:
        (name,) = store.study_names()
        runs = list(store.trials(store.study(name), metrics=True))
        assert [run.state for run in runs] == [State.COMPLETE, State.REUSED, State.FAILED]
        assert runs[0].metrics["score"] == 0.75
        assert (store.study(name).spec.ordering, runs[0].proposal.continues) == ("strict", None)
        final = {"channels": 8} if script.stem >= "0005" else store.study(name).spec.size
        assert final_size_of(store.study(name).spec) == final


def test_every_schema_has_a_released_database() -> None:
    assert [path.stem for path in RELEASED] == [
        "0001",
        "0002",
        "0003",
        "0004",
        "0005",
        "0006",
        "0007",
        "0008",
        "0009",
        "0010",
    ]
    assert RELEASED[-1].stem == SCHEMA


def test_a_result_and_its_last_report_are_one_transaction(bench: Any) -> None:
    """Killed between two, a process would leave a finished trial without its metrics."""
    store = bench.store()
    study = bench.study(store)
    run = store.propose(study, 0, Proposal(Architecture("edges", {"edge0": "a"})), "a", Verdict(State.RUNNING))
    commits: list[Any] = []
    sa.event.listen(store._connection.engine, "commit", commits.append)
    store.finish(run, Verdict(State.COMPLETE, None, (1.0,)), Report(1, {"score": 0.5}))
    assert len(commits) == 1
    assert store.trial(study, 0).metrics["score"] == 0.5


def test_a_full_disk_loses_nothing(tmp_path: Path, bench: Any) -> None:
    store = bench.store()
    study = bench.study(store)
    first = Proposal(Architecture("edges", {"edge0": "a"}))
    store.finish(store.propose(study, 0, first, "a", Verdict(State.RUNNING)), Verdict(State.COMPLETE, None, (1.0,)))
    pages = store.read(sa.text("PRAGMA page_count"))[0][0]
    store._connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    store._connection.rollback()

    def fill() -> None:
        for number in range(1, 10_000):
            arch = Architecture("edges", {f"edge{number}": "a" * 500})
            store.propose(study, number, Proposal(arch), arch.key, Verdict(State.RUNNING))

    with pytest.raises(MachineError, match="full"):
        fill()
    store.close()
    with bench.store() as again:
        runs = list(again.trials(again.study("s")))
        assert runs[0].verdict == Verdict(State.COMPLETE, None, (1.0,))
        assert [run.number for run in runs] == list(range(len(runs)))


def test_one_process_runs_a_study(bench: Any) -> None:
    store = bench.store()
    study = bench.study(store)
    hold = (
        "import sys, time\nfrom studies.store.store import Store\n"
        f"store = Store('sqlite:///{bench.folder}/nas.db')\n"
        "with store.lock(store.study('s')):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", hold], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match="another process"), store.lock(study):
            pass
        process.kill()
        process.wait()
    with store.lock(study):
        pass


def test_queries_cannot_write(bench: Any) -> None:
    store = bench.store()
    bench.study(store)
    assert store.query("SELECT name, seed FROM studies") == (["name", "seed"], [("s", 5)])
    for text in (
        "DELETE FROM studies",
        "UPDATE studies SET name = 'x'",
        "SELECT nothing FROM nowhere",
        "what",
        "PRAGMA journal_mode = DELETE",
        f"ATTACH '{bench.folder}/other.db' AS other",
    ):
        with pytest.raises(UsageError):
            store.query(text)
    assert store.study_names() == ["s"]
    assert not (bench.folder / "other.db").exists()
    bench.study(store, "t")


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE runs SET note = '{bad'",
        "UPDATE runs SET state = 'weird'",
        "UPDATE architectures SET json = '[]'",
        "UPDATE studies SET task = '{}'",
        "UPDATE studies SET budget = 'oops'",
    ],
)
def test_damaged_rows_are_named(bench: Any, damage: str) -> None:
    store = bench.store()
    study = bench.study(store)
    store.propose(study, 0, Proposal(Architecture("edges", {"edge0": "a"})), "a", Verdict(State.RUNNING))
    with sqlite3.connect(bench.folder / "nas.db") as connection:
        connection.execute(damage)
    connection.close()
    with pytest.raises(VerificationError, match="is damaged"):
        list(store.trials(store.study("s")))


def test_views_are_readable(bench: Any) -> None:
    store = bench.store()
    study = bench.study(store)
    run = store.propose(study, 0, Proposal(Architecture("edges", {"edge0": "a"})), "a", Verdict(State.RUNNING))
    store.report(run, Report(1, {"score": 0.5}))
    store.finish(run, Verdict(State.COMPLETE, None, (0.75,), (), 3.0), Report(2, {"score": 0.75}))
    _, rows = store.query("SELECT study, number, state, objective FROM trials")
    assert rows == [("s", 0, "complete", 0.75)]
    _, rows = store.query("SELECT number, metric, value FROM trials_flat")
    assert rows == [(0, "score", 0.75)]


def test_a_study_spec_round_trips(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path}/nas.db") as store:
        from nas_core.records import StopAt

        assert store.create_study("s", SPEC, StopAt()).spec == SPEC
