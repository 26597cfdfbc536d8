"""Mirrors of five kinds of study in optuna-dashboard: its pages open, and it has the same best trials, fronts and
constraints."""

from __future__ import annotations

import contextlib
import json
import threading
import urllib.request
import wsgiref.simple_server
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from typing import Any

import pytest

from nas_cli.app import run
from studies.analysis.queries import best_trial, front_trials
from studies.store.store import Store
from tests.browser import Browser
from tests.cli.conftest import enter
from tests.cli.test_bench import write
from tests.cli.test_mirror import KINDS, WHERE

pytestmark = pytest.mark.slow  # tests/cli/test_mirror.py reads mirrors by Optuna alone
optuna_dashboard = pytest.importorskip("optuna_dashboard", reason="optuna-dashboard is not installed")
MIRROR = "sqlite:///optuna.db"


class Threads(ThreadingMixIn, wsgiref.simple_server.WSGIServer):
    """A page asks for several things at a time."""

    daemon_threads = True


class Silent(wsgiref.simple_server.WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def served() -> Iterator[str]:
    """The address of optuna-dashboard on the mirror."""
    app = optuna_dashboard.wsgi(MIRROR)
    with wsgiref.simple_server.make_server("127.0.0.1", 0, app, Threads, Silent) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mirrored")
    write(folder)
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        for name, words in KINDS.items():
            assert run(["search", *WHERE, *words, "--trials", "12", "--study", name]) == 0
            assert run(["mirror", name, "--optuna", MIRROR]) == 0
        with served() as found:
            yield found


def asked(url: str) -> Any:
    with urllib.request.urlopen(url) as answer:
        return json.load(answer)


def addresses(trials: list[dict[str, Any]]) -> set[str]:
    return {pair["value"] for trial in trials for pair in trial["user_attrs"] if pair["key"] == "address"}


@pytest.mark.parametrize("name", KINDS)
def test_it_has_the_same_best_front_and_constraints(address: str, name: str) -> None:
    number = next(one["study_id"] for one in asked(f"{address}/api/studies")["study_summaries"]
                  if one["study_name"] == name)  # fmt: skip
    shown = asked(f"{address}/api/studies/{number}?after=0")
    with Store("sqlite:///nas.db", reading=True) as store:
        study = store.study(name)
        runs = list(store.trials(study))
        front = {f"{name}:{run.number}" for run in front_trials(store, study)}
        best = best_trial(store, study)
    assert addresses(shown["trials"]) == {f"{name}:{run.number}" for run in runs}
    if name != "front":
        fit = [one for one in shown["trials"] if one["state"] == "Complete" and max(one["constraints"], default=0) <= 0]
        top = (max if shown["directions"] == ["maximize"] else min)(one["values"][0] for one in fit)
        assert f"{name}:{best.number}" in addresses([one for one in fit if one["values"][0] == top])
    if name != "constrained":  # of one objective its card of the best trial leaves constraints out
        assert addresses(shown["best_trials"]) >= (front if name == "front" else {f"{name}:{best.number}"})
    if name == "front":
        values = {tuple(one["values"]) for one in shown["best_trials"]}
        assert values == {tuple(one["values"]) for one in shown["trials"] if addresses([one]) <= front}
    if name == "constrained":
        unfit = {f"{name}:{run.number}" for run in runs if run.verdict.values and not run.verdict.feasible}
        assert unfit
        assert addresses([one for one in shown["trials"] if max(one["constraints"], default=0) > 0]) == unfit


def test_its_own_pages_open(browser: Browser, address: str) -> None:
    page = browser.page()
    page.look(1200)
    page.go(f"{address}/dashboard")
    for name in KINDS:
        page.until(f"document.body.innerText.includes({name!r})")
    for one in asked(f"{address}/api/studies")["study_summaries"]:
        page.go(f"{address}/dashboard/studies/{one['study_id']}/trials")
        page.until(f"document.body.innerText.includes({one['study_name']!r})")
        page.until("document.body.innerText.includes('address')")
    assert page.errors == []
