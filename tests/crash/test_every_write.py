"""A command that is killed, or refused by the disk, at any of its writes: the database opens, nothing is lost or
doubled, and the same command then ends as if nothing had been.

The gate kills a search at every 19th write; `-m slow` takes every write of all sessions, with a kill, a full disk and
an input/output error.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nas_core.errors import NotFoundError
from studies.store.store import Store
from tests.crash.injection import IO_ERROR, KILL, NO_SPACE, Point, Program, program
from tests.crash.sessions import MAPPING, SEARCH, TOY_BENCH, contents, kept, stored, write_toy

SCHEMAS = Path(__file__).parent.parent / "studies" / "schemas"
EXAMPLES = Path(__file__).parents[2] / "examples"
SHOWN = re.compile(r"^s: (\d+)/\d+ trials", re.MULTILINE)

PROGRAM = (
    "nas_cli.search",
    "studies.setup.configuration",
    "nas_cli.live",
    "nas_cli.ending",
    "strategies.evolution.regularized",
    "studies.environment",
    "studies.executors.inline",
    "studies.analysis.queries",
)
# With what trainings import late; of the eight seconds that one takes one and a half are left.
ALL = (
    *PROGRAM,
    "nas_cli.find_lr",
    "search_spaces.nasbench201.space",
    "sklearn.datasets",
    "strategies.basic.local_search",
    "studies.analysis.costs",
    "studies.jobs.export",
    "studies.search.supernet",
    "studies.jobs.compress",
    "studies.jobs.own_network",
    "studies.jobs.train",
    "studies.analysis.trained",
    "torch._dynamo",
    "torch.profiler",
    "training.changes",
    "training.data.bound",
    "training.data.digits",
    "training.evaluators.train",
    "training.export.write",
    "training.infer.classify",
)


@dataclass
class Session:
    """`commands` in a folder that `begin` has made; the last of them is the one that is disturbed.

    `left_out` are names of files that may differ from those of a session that nothing disturbed.
    """

    folder: Path
    begin: Callable[[Path], object]
    commands: Sequence[Sequence[str]]
    program: Program
    left_out: frozenset[str] = frozenset({"lock"})
    durations: bool = True
    hashes: bool = True  # files are equal to the bit; otherwise but for the durations in them
    watched: bool = True  # the calls are counted on the files of the session alone
    codes: frozenset[int] = frozenset()  # with which it may end beside those of errors of the machine
    before: Path = field(init=False)

    def __post_init__(self) -> None:
        """Keep what the first commands make, and how the session ends undisturbed."""
        self.before = self.folder.with_name("before")
        self.begin(self.before)
        for command in self.commands[:-1]:
            code, said = self.program.run(self.before, command)
            assert code == 0, said
        self._again()
        self.points, self.names = self.program.writes(self.folder, self.commands[-1], watched=self.watched)
        self.expected = self._rows()
        self.files = self._files()

    def check(self, point: Point, how: str) -> bool:
        """Disturb the session at a point; whether it took notice."""
        self._again()
        code, said = self.program.fail(self.folder, self.commands[-1], point, how, self.names)
        where = f"{how} at {point}: {said}"
        if how == KILL:
            assert code in {-9, 0, *self.codes}, where
        else:
            assert code in {5, 0, *self.codes}, where
            # SQLite keeps to itself why it could not flush or remove a file, or enlarge that of its shared memory.
            full = "disk is full|disk full|No space left|SQLITE_IOERR_(SHM|FSYNC|TRUNCATE|DELETE)"
            assert code == 0 or re.search(full if how == NO_SPACE else "(?i)input/output error", said), where
        self._look(said, where)
        again, said = self.program.run(self.folder, self.commands[-1])
        assert again == 0, f"{where}\nthen: {said}"
        assert self._rows() == self.expected, where
        assert self._files() == self.files, where
        return code != 0

    def _look(self, said: str, where: str) -> None:
        """The database can be read, and holds what had been shown."""
        shown = max((int(count) for count in SHOWN.findall(said)), default=0)
        try:
            with Store(f"sqlite:///{self.folder}/nas.db", reading=True) as store:
                counted = {
                    name: sum(run.finished for run in store.trials(store.study(name))) for name in store.study_names()
                }
        except NotFoundError:  # there is none yet, or an empty one
            assert not shown, where
        else:
            assert counted.get("s", 0) >= shown, where

    def _again(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.before, self.folder)

    def _rows(self) -> dict[str, list[tuple[object, ...]]]:
        return contents(self.folder / "nas.db", self.durations, self.hashes)

    def _files(self) -> dict[str, object]:
        found = (path for path in self.folder.rglob("*") if path.is_file() and not path.name.startswith("nas.db"))
        return {
            str(path.relative_to(self.folder)): path.read_bytes() if self.hashes else kept(path)
            for path in found
            if path.name not in self.left_out
        }


@pytest.fixture(scope="module")
def searching() -> Iterator[Program]:
    with program(*PROGRAM) as found:
        yield found


@pytest.fixture(scope="module")
def everything() -> Iterator[Program]:
    with program(*ALL) as found:
        yield found


def first_search(folder: Path, searching: Program, trials: int = 12) -> Session:
    return Session(folder / "work", write_toy, [[*SEARCH, "--study", "s", "--trials", str(trials)]], searching)


def upgrade(folder: Path, searching: Program) -> Session:
    """A search in a database of the first release."""

    def begin(place: Path) -> None:
        write_toy(place)
        with sqlite3.connect(place / "nas.db") as connection:
            connection.executescript((SCHEMAS / "0001.sql").read_text())
        connection.close()

    return Session(folder / "work", begin, [[*SEARCH, "--study", "s", "--trials", "2"]], searching)


def scores(folder: Path, searching: Program) -> Session:
    def begin(place: Path) -> None:
        write_toy(place)
        (place / "toy.yaml").write_text(f"{MAPPING}scores:\n  pics: {{hint: {{column: acc}}}}\n")

    search = [*SEARCH, "--study", "s", "--trials", "1"]
    score = ["score", "--proxies", "hint", "--space", "toy.py:space", "--data", "pics", "--scores", "toy.csv"]
    return Session(folder / "work", begin, [search, [*score, "--sample", "20"]], searching)


def bench(folder: Path, searching: Program) -> Session:
    commands = [[*TOY_BENCH, "--jobs", "1", "--queries", "4", "--seeds", "1"]]
    return Session(folder / "work", write_toy, commands, searching, durations=False, codes=frozenset({1}))


TRAINED = [
    *("search", "--study", "s", "--data", "digits", "-s", "split.limit=120", "--size", "channels=4,cells=1"),
    *("--epochs", "2", "--threads", "1", "-s", "checkpoint_seconds=0", "--strategy", "local-search", "--lag", "2"),
]


def training(folder: Path, searching: Program) -> Session:
    command = [*TRAINED, "--trials", "2"]
    return Session(folder / "work", Path.mkdir, [command], searching, durations=False)


def retraining(folder: Path, searching: Program) -> Session:
    commands = [[*TRAINED, "--trials", "1"], ["train", "s:0", "--recipe", "quick", "--epochs", "2", "--seeds", "2"]]
    return Session(folder / "work", Path.mkdir, commands, searching, durations=False)


def compression(folder: Path, searching: Program) -> Session:
    def begin(place: Path) -> None:
        place.mkdir()
        for name in ("my_net.py", "my_compressor.py"):
            (place / name).write_text((EXAMPLES / name).read_text())

    train = ["train", "my_net.py:resnet(width=4,blocks=1)", "--data", "digits", "--recipe", "quick", "--epochs", "1"]
    method = ["--method", "my_compressor.py:InnerChannels", "-s", "rounds=2", "-s", "keep=0.7"]
    commands = [train, ["compress", "resnet-digits-1", *method, "--epochs", "1"]]
    return Session(folder / "work", begin, commands, searching, durations=False, hashes=False)


def export(folder: Path, searching: Program) -> Session:
    commands = [
        [*TRAINED, "--trials", "1"],
        ["train", "s:0", "--recipe", "quick", "--epochs", "1"],
        ["export", "s:0", "--format", "safetensors,json", "--no-verify"],
    ]
    # The card has measured latencies; the folder that the files are written to first has a name of its own each time.
    return Session(
        folder / "work", Path.mkdir, commands, searching, frozenset({"lock", "s-0.md"}), durations=False, watched=False
    )


SESSIONS = {
    "search": first_search,
    "upgrade": upgrade,
    "scores": scores,
    "bench": bench,
    "training": training,
    "retraining": retraining,
    "compression": compression,
    "export": export,
}


def test_a_search_that_is_killed_at_every_19th_write(tmp_path: Path, searching: Program) -> None:
    session = first_search(tmp_path, searching, trials=6)
    assert len(session.points) > 60
    noticed = [session.check(point, KILL) for point in session.points[3::19]]
    assert all(noticed)


@pytest.mark.slow
@pytest.mark.parametrize("how", [KILL, NO_SPACE, IO_ERROR])
@pytest.mark.parametrize("name", SESSIONS)
def test_every_write(tmp_path: Path, everything: Program, name: str, how: str) -> None:
    session = SESSIONS[name](tmp_path, everything)
    noticed = [session.check(point, how) for point in session.points]
    # What tidies up may fail without a word: the last copying of the log into the database, and what is removed.
    assert sum(noticed) >= (0.9 if how == KILL else 0.6) * len(noticed)


def check_server(folder: Path, postgresql: Callable[[], str], searching: Program, step: int) -> None:
    """Kill a search that speaks to a server at every `step`-th message."""
    folder = write_toy(folder / "work")
    command, db = [*SEARCH, "--study", "s", "--trials", "5", "--files", "files"], postgresql()
    log = folder.with_suffix(".strace")
    code, said = searching.run(folder, command, strace=["-e", "trace=sendto", "-o", str(log)], db=db)
    assert code == 0, said
    with Store(db, reading=True) as store:
        expected = stored(store)
    messages = log.read_text().count("sendto(")
    assert messages > 40
    for number in range(1, messages, step):
        db = postgresql()
        inject = ["-e", "trace=sendto", "-e", f"inject=sendto:{KILL}:when={number}", "-o", os.devnull]
        code, said = searching.run(folder, command, strace=inject, db=db)
        assert code == -9, (number, said)
        code, said = searching.run(folder, command, db=db)
        assert code == 0, (number, said)
        with Store(db, reading=True) as store:
            assert stored(store) == expected, number


def test_a_search_on_a_server_that_is_killed(tmp_path: Path, postgresql: Callable[[], str], searching: Program) -> None:
    check_server(tmp_path, postgresql, searching, 37)


@pytest.mark.slow
def test_a_search_on_a_server_that_is_killed_at_every_message(
    tmp_path: Path, postgresql: Callable[[], str], searching: Program
) -> None:
    check_server(tmp_path, postgresql, searching, 1)
