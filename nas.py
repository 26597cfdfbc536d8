"""Neural architecture search from Python, as thin as the commands are.

    import nas

    study = nas.search(space="nasbench201", data="digits", trials=20)
    study.best()["metrics"]
    study.train(epochs=40)
    network = nas.load(study.export("digits"))

What is stored is what the commands store: `nas show` and the others work on it, and a search that died here goes on by
`nas.resume` as by `nas resume`. torch and SQLAlchemy are imported by the first call.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas
    from torch import nn

    from nas_core.job import Job
    from nas_core.records import Run
    from studies import records
    from studies.executors.where import Where
    from studies.search.start import Watching
    from studies.store.store import Store

__all__ = ["Study", "create", "load", "resume", "search", "studies"]

DATABASE = "nas.db"
"""Where nothing is said, by `db` or in the environment (`NAS_DB`, `NAS_FILES`)."""


def search(
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    then: str | None = None,
    warm_start: str | None = None,
    watching: Watching | None = None,
    db: str | Path | None = None,
    files: str | Path | None = None,
    **options: Any,
) -> Study:
    """Search for an architecture until the budget is spent. With `then`, the study on the trained supernet.

    `options` are those of `nas search`, with underscores, several as a list: `objective=["val_loss", "params:min"]`.
    `config` is the file that it takes, or what one would hold: `{"strategy": {"name": "tpe", "startup": 5}}`. `db` is a
    SQLite file or an SQLAlchemy URL [default: `$NAS_DB`, `nas.db`], `files` the folder of checkpoints and weights
    [default: `$NAS_FILES`, `nas-files` beside the database].
    `watching` hears of every trial (`studies.search.start.Watching`).

    Raises UsageError, NotFoundError or MachineError (`nas_core.errors`) for whatever does not fit, before anything is
    stored.
    """
    from studies.search import start
    from studies.setup.configuration import asked_by, gather

    wanted = gather(Path(config) if isinstance(config, str) else config, (), asked_by(options))
    place = Place(db, files)
    with place.open(create=True) as store:
        plan = start.planned(wanted if then is None else start.supernet_first(wanted, then), store, warm_start)
        opened = start.start(store, plan)
        start.run(store, opened, where=wanted.where, watching=watching)
        if then is not None:
            opened = start.start(store, start.planned(start.on_supernet(wanted, then, opened.study), store))
            start.run(store, opened, where=wanted.where, watching=watching)
    return Study(opened.study.name, place)


def create(
    study: str,
    *,
    config: Mapping[str, Any] | str | Path | None = None,
    db: str | Path | None = None,
    files: str | Path | None = None,
    **options: Any,
) -> Study:
    """A study whose candidates you evaluate: `Study.ask` proposes, `Study.tell` says what came of it. Called again with
    the same options it is the same study.

    `options` and `config` are those of `search`; an objective that is told says what is better, `val_accuracy:max`.
    Raises as `search`.
    """
    from studies.search import start
    from studies.setup.configuration import asked_by, gather

    given = asked_by({"evaluator": "told", **options, "study": study})
    wanted = gather(Path(config) if isinstance(config, str) else config, (), given)
    place = Place(db, files)
    with place.open(create=True) as store:
        return Study(start.start(store, start.planned(wanted)).study.name, place)


def resume(
    study: str,
    *,
    trials: int | None = None,
    time: float | None = None,
    spend: float | None = None,
    workers: int = 1,
    executor: str = "auto",
    per_gpu: int | None = None,
    gpu_memory: float | None = None,
    watching: Watching | None = None,
    db: str | Path | None = None,
    files: str | Path | None = None,
) -> Study:
    """Go on with a study, however it stopped; `trials`, `time` and `spend` raise its budget. Raises as `search`."""
    from studies.executors.where import Where
    from studies.search import start

    where = Where(workers, executor, per_gpu, gpu_memory)
    place = Place(db, files)
    with place.open() as store:
        opened = start.resume(store, study, trials=trials, time=time, spend=spend)
        start.run(store, opened, where=where, watching=watching)
    return Study(study, place)


def studies(*, db: str | Path | None = None, files: str | Path | None = None) -> list[Study]:
    """All studies of a database. Raises NotFoundError where there is none."""
    place = Place(db, files)
    with place.open(only_reading=True) as store:
        return [Study(name, place) for name in store.study_names()]


def load(model: str | Path | Sequence[Path]) -> nn.Module:
    """The network of an export, in evaluation mode on the CPU: by its `.json`, its folder where that holds one only, or
    the list of files that `Study.export` gave.

    A space of your own is loaded from the copy of its Python file beside it: load only what you trust. Raises
    NotFoundError where nothing is there, UsageError for files that are damaged.
    """
    from nas_core.errors import NotFoundError, UsageError
    from training.export import load_network
    from training.infer.model import weights_beside

    path = Path(model) if isinstance(model, str | Path) else _description(model)
    if path.is_dir():
        found = sorted(path.glob("*.json"))
        if not found:
            raise NotFoundError(f"'{path}' holds no exported network (looked for .json)")
        if len(found) > 1:
            raise UsageError(f"'{path}' holds {len(found)} networks; name one of {', '.join(map(str, found))}")
        path = found[0]
    return load_network(path, weights_beside(path))


class Study:
    """A stored study. Every method reads or writes the database as it is then."""

    def __init__(self, name: str, place: Place) -> None:
        self.name, self._place = name, place
        self._asked: set[int] = set()  # numbers of trials that `ask` has given to this process

    def __repr__(self) -> str:
        return f"Study({self.name!r}, db={str(self._place.db)!r})"

    def best(self) -> dict[str, Any]:
        """The best feasible trial, as `nas best --json` has it. Raises NotFoundError or InfeasibleError."""
        from studies.analysis.queries import best_trial
        from studies.documents import View, trial_document

        with self._place.open(only_reading=True) as store:
            study = store.study(self.name)
            return trial_document(View.of(study), best_trial(store, study))

    def trials(self) -> list[dict[str, Any]]:
        """All trials, as `nas trials --json` has them."""
        from studies.documents import View, trial_document

        with self._place.open(only_reading=True) as store:
            study = store.study(self.name)
            view = View.of(study)
            return [trial_document(view, run) for run in store.trials(study, metrics=True)]

    def to_pandas(self) -> pandas.DataFrame:
        """All trials as a table: a column per metric, and one per choice (`architecture.NAME`)."""
        import pandas

        rows = []
        for trial in self.trials():
            apart = {f"architecture.{name}": value for name, value in trial.pop("architecture").items()}
            kept = {name: value for name, value in trial.items() if not isinstance(value, dict)}
            rows.append({**kept, **trial["metrics"], **apart})
        return pandas.DataFrame(rows)

    def ask(self, trials: int | None = None) -> dict[str, Any] | None:
        """The oldest trial that waits for its result and that this object has not given yet, as `nas ask --json` has
        it; None: the search is over. `trials` raises the number of evaluations.

        Asked again, it gives others, as many as the study's lag; a new process begins with the oldest again. Raises
        UsageError for a study that was not made by `create`, or where one of those given must be told first.
        """
        from nas_core.errors import UsageError
        from studies.documents import View, asked_document
        from studies.search import asking, start

        with self._place.open() as store:
            opened = start.resume(store, self.name, trials=trials)
            jobs, _ = asking.ask(store, opened)
            job = next((job for job in jobs if job.number not in self._asked), None)
            if job is None and jobs:
                raise UsageError(
                    f"{self.name}:{jobs[0].number} must be told first: the study's lag is {opened.study.spec.lag}"
                )
            if job is None:
                return None
            self._asked.add(job.number)
            return asked_document(View.of(opened.study), job)

    def tell(
        self,
        trial: Mapping[str, Any] | int,
        metrics: Mapping[str, float] | None = None,
        *,
        step: float | None = None,
        failed: str | None = None,
        seconds: float = 0.0,
    ) -> dict[str, Any]:
        """Store what came of a trial, which `ask` gave or which has this number; its document. With `step` the metrics
        are those of a step before the last, and the document's state is "pruned" where it was stopped early; `failed`
        says why there is no result.

        Raises UsageError for a metric that is missing, unknown or no finite number, and for a trial that waits for
        nothing, NotFoundError for one that is not there. Nothing is stored then.
        """
        from nas_core.errors import UsageError
        from studies.documents import View, trial_document
        from studies.search import asking, start

        number = trial if isinstance(trial, int) else int(trial["number"])
        if (metrics is None) == (failed is None) or (failed is not None and step is not None):
            raise UsageError("tell either metrics, with or without a step, or why the trial has failed")
        with self._place.open() as store:
            opened = start.resume(store, self.name)
            if metrics is None:
                run = asking.fail(store, opened, number, str(failed))
            elif step is not None:
                run = asking.report(store, opened, number, step, metrics)
            else:
                run = asking.tell(store, opened, number, metrics, seconds)
            return trial_document(View.of(opened.study), run)

    def network(self, trial: Mapping[str, Any] | int) -> nn.Module:
        """The untrained network of a trial at the search size, on the CPU, with the weights that a training of ours
        would begin with."""
        from nas_core.seeds import derive
        from studies.analysis.queries import addressed_trial
        from studies.setup.spaces import load_space, size_of
        from training.networks import build

        number = trial if isinstance(trial, int) else int(trial["number"])
        with self._place.open(only_reading=True) as store:
            study, run = addressed_trial(store, self._address(number))
        space, _ = load_space(study.spec.space)
        seed = derive(study.spec.seed, number, "train")
        return build(space, run.arch, study.spec.task, size_of(space, study.spec.size), seed)

    def train(
        self,
        trial: int | None = None,
        *,
        recipe: str = "standard",
        epochs: int | None = None,
        seeds: int = 1,
        workers: int = 1,
        executor: str = "auto",
        per_gpu: int | None = None,
        gpu_memory: float | None = None,
        size: str | None = None,
        data: str | None = None,
        device: str | None = None,
        metric: Sequence[str] = (),
        weights: str | None = None,
        teacher: str | None = None,
        settings: Mapping[str, Any] | None = None,
        split: Mapping[str, Any] | None = None,
        folds: bool = False,
    ) -> list[dict[str, Any]]:
        """Train a trial (by default the best) from scratch and keep the weights: one document per seed, with the test
        metrics. `workers` of them at a time, each in a process. `settings` are changes to the recipe:
        `{"lr": 0.05, "distillation": {"alpha": 0.5}}`, and `split` those to how the data are divided, `{"folds": 10,
        "fold": 3}`. With `folds` it is trained on every fold in turn: documents one fold after another, each with its
        number as `fold`.

        Called again, it goes on where it was. Raises as `search`, and NasError where a training fails.
        """
        from studies.analysis.queries import addressed_trial
        from studies.analysis.trained import start_of
        from studies.executors.where import Where
        from studies.jobs.teacher import teacher_of
        from studies.jobs.train import folds_of, split_of, training

        where = Where(workers, executor, per_gpu, gpu_memory)
        changes = {**(settings or {}), **({} if epochs is None else {"epochs": epochs})}
        with self._place.open() as store:
            study, run = addressed_trial(store, self._address(trial))
            start = None if weights is None else start_of(store, weights)
            taught = None if teacher is None else teacher_of(store, teacher)
            how = (recipe, changes, size, data, device, metric, start, taught, None)
            if not folds:
                plan = training(study.spec, *how, split_of(study.spec, data, split or {})).of(run.arch)
                return _driven(store, study, run, plan, seeds, where)
            found: list[dict[str, Any]] = []
            for fold, divided in enumerate(folds_of(study.spec, data, split or {})):
                plan = training(study.spec, *how, divided).of(run.arch)
                found += ({**one, "fold": fold} for one in _driven(store, study, run, plan, seeds, where))
            return found

    def compress(
        self,
        method: str | None = None,
        trial: int | None = None,
        *,
        of: str | None = None,
        target: Sequence[str] = (),
        recipe: str | None = None,
        epochs: int | None = None,
        distill: bool = False,
        recover: str = "weights",
        quantize: str | None = None,
        ignore: Sequence[str] = (),
        round_to: int = 1,
        seeds: int = 1,
        workers: int = 1,
        executor: str = "auto",
        per_gpu: int | None = None,
        gpu_memory: float | None = None,
        device: str | None = None,
        settings: Mapping[str, Any] | None = None,
        changes: Mapping[str, Any] | None = None,
    ) -> list[dict[str, Any]]:
        """Make the network of the best training of a trial (by default the best), or of the run `of` (`"train-2"`,
        `"compress-1"`), smaller: one document per seed. `settings` are those of the method, `changes` those to the
        recipe; everything else is as of `nas compress`.

        Called again, it goes on where it was. Raises as `train`, and VerificationError where the proof fails.
        """
        from studies.address import address_of
        from studies.analysis.queries import addressed_trial
        from studies.analysis.trained import addressed_training
        from studies.executors.where import Where
        from studies.jobs.compress import Asked, compression

        where = Where(workers, executor, per_gpu, gpu_memory)
        with self._place.open() as store:
            address = self._address(trial)
            if of is not None:
                address = f"{address_of(*addressed_trial(store, address))}/{of}"
            study, run, training = addressed_training(store, address)
            asked = Asked(method, settings or {}, target, ignore, round_to, distill, recover, quantize)
            plan = compression(store, study, run, training, asked, recipe, changes, epochs, device)
            return _driven(store, study, run, plan, seeds, where, training)

    def export(
        self,
        out: str | Path = "export",
        trial: int | None = None,
        *,
        format: Sequence[str] | None = None,
        verify: bool = True,
        raw: bool = False,
    ) -> list[Path]:
        """Write the best training of a trial (by default the best) as files that run without this program; the paths.
        Raises as `nas export` does."""
        from studies.analysis.trained import addressed_training
        from studies.jobs.export import export_trial

        with self._place.open(only_reading=True) as store:
            study, run, training = addressed_training(store, self._address(trial))
            return export_trial(store, study, run, training, format, Path(out), verify=verify, raw=raw)

    def _address(self, trial: int | None) -> str:
        return self.name if trial is None else f"{self.name}:{trial}"


class Place:
    """A database and the folder of its files."""

    def __init__(self, db: str | Path | None, files: str | Path | None) -> None:
        self.db = db or os.environ.get("NAS_DB") or DATABASE
        folder = files or os.environ.get("NAS_FILES")
        self._files = Path(folder) if folder else None

    @contextmanager
    def open(self, *, create: bool = False, only_reading: bool = False) -> Iterator[Store]:
        from studies.store.store import Store
        from training.reading import Silent, reading

        url = str(self.db) if "://" in str(self.db) else f"sqlite:///{self.db}"
        with reading(Silent()), Store(url, self._files, create=create, reading=only_reading) as store:
            yield store


def _driven(
    store: Store,
    study: records.Study,
    trial: Run,
    job: Job,
    seeds: int,
    where: Where,
    parent: Run | None = None,
) -> list[dict[str, Any]]:
    """The documents of the runs of a job on a trial. Raises UsageError, and NasError where one fails."""
    from nas_core.errors import NasError, UsageError
    from nas_core.strategy import State
    from studies.documents import View, training_document
    from studies.environment import environment
    from studies.executors import choose
    from studies.jobs.run import NAMES, Driver

    if seeds < 1:
        raise UsageError(f"seeds {seeds}: at least 1 is needed")
    with store.lock(study):
        facts = store.environment(environment(study.spec))
        place = store, study, trial, job, choose.executor(choose.job(store, study, job), where)
        done = Driver(*place, parent=parent, environment=facts).run(range(seeds))
    failed = next((ended for ended in done if ended.state != State.COMPLETE), None)
    if failed is not None:
        raise NasError(f"{NAMES[job.kind]} {study.name}:{trial.number} failed: {failed.verdict.reason}")
    view = View.of(study)
    return [training_document(view, store, trial, ended) for ended in done]


def _description(paths: Sequence[Path]) -> Path:
    from nas_core.errors import UsageError

    found = [path for path in paths if path.suffix == ".json"]
    if len(found) != 1:
        raise UsageError(f"the files of one export hold one .json, not {len(found)}; export it with the format json")
    return found[0]
