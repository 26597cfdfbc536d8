"""`nas report`: one file that needs nothing beside it and says what the store does."""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_cli.app import run
from nas_core.architecture import Architecture
from nas_core.evaluation import Report
from nas_core.records import COMPRESS, RETRAIN, StopAt, Verdict
from nas_core.strategy import Proposal, State
from reports.texts import number
from studies.setup.assemble import describe
from studies.setup.configuration import gather
from studies.store.store import Store
from studies.store.testing import SPEC
from tests.cli.test_bench import write
from tests.html_pages import Element, loaded, read, scripted

Say = Callable[..., tuple[int, str, str]]

ODD = '<script>alert(\'$x_1$ & "\u00e9")</script>'
SETTINGS = {"split_hash": SPEC.split_hash, "recipe_name": "quick", "size": {"channels": 4}, "data": "digits",
            "device": "cpu", "changes": {}, "split": {}}  # fmt: skip
COMPRESSED = {"method": "magnitude", "targets": ["macs<=0.5x"], "ignore": [], "epochs": 1, "round_to": 1, "config": {}}
SEARCH = ["--space", "dials.py:space", "--table", "dials.csv", "--data", "made", "--seed", "1"]


def trial(store: Store, study: object, number: int, value: float | None, state: State = State.COMPLETE,
          reason: str | None = None, seconds: float = 2.0, violation: float = -0.5) -> int:  # fmt: skip
    """One of a study of the metric `score`."""
    arch = Architecture("letters", {"a": number % 3, ODD: f"{ODD}{number % 2}"})
    values = None if value is None else (value,)
    verdict = Verdict(state, reason, values, () if value is None else (violation,), seconds)
    metrics = {} if value is None else {"score": value, "params": 4.0}
    return store.propose(
        study, number, Proposal(arch), f"i{number}", verdict, report=Report(1, metrics) if metrics else None
    )  # type: ignore[arg-type]


@pytest.fixture
def stored(folder: Path) -> Path:
    """A search with failures and rejections, a random one of the same problem, trainings and a compression."""
    with Store("sqlite:///nas.db", create=True) as store:
        study = store.create_study("s", SPEC.model_copy(update={"strategy": "regularized-evolution"}), StopAt(trials=9))
        values = [0.5, 0.25, 0.75, 0.625, 0.875, 0.7]
        ids = [trial(store, study, place, value) for place, value in enumerate(values)]
        trial(store, study, 6, None, State.FAILED, f"exception: ValueError: {ODD}")
        trial(store, study, 7, None, State.REJECTED, "blind: no signal", 0.5)
        trial(store, study, 8, 0.99, violation=0.25)  # the best, were it feasible
        other = store.create_study("r", SPEC, StopAt())
        for place, value in enumerate([0.1, 0.6, 0.3, 0.95, 0.2, 0.5, 0.4, 0.4, 0.97]):
            trial(store, other, place, value)
        parent = store.trial(study, 4)
        for kind, count in ((RETRAIN, 3), (COMPRESS, 1)):
            for repeat in range(count):
                recipe = {**SETTINGS, **(COMPRESSED if kind == COMPRESS else {})}
                child = store.propose(study, repeat + 1, parent.proposal, "i4", Verdict(State.RUNNING), kind=kind,
                                      parent=ids[4], repeat=repeat, recipe=recipe)  # fmt: skip
                measured = {"score": 0.8 + repeat / 8, "test_accuracy": 0.5 + repeat / 16, "params": 4.0 - repeat}
                measured |= {"base_params": 8.0, "base_score": 1.0} if kind == COMPRESS else {}
                store.finish(child, Verdict(State.COMPLETE, seconds=60.0), Report(1, measured))
        store.create_study("empty", SPEC, StopAt())
    return folder


def report(say: Say, address: str, *more: str) -> Element:
    """The page, of which nothing is loaded from elsewhere, and nothing is executed."""
    assert say("report", address, *more) == (0, "report: report.html\n", "")
    text = Path("report.html").read_text()
    assert len(text.encode()) < 5_000_000
    page = read(text)
    assert (loaded(page), scripted(page)) == ([], [])
    style = "".join(one.text for one in page.every("style"))
    assert "@import" not in style
    assert re.findall(r"url\((?!#)", text) == []
    ids = [one.attributes["id"] for one in page.every() if "id" in one.attributes]
    assert len(ids) == len(set(ids))  # figures do not share marks
    named = {one.attributes["href"] for one in page.every("a")}
    assert named <= {f"#{name}" for name in ids}
    return page


def tiles(page: Element) -> dict[str, tuple[str, str]]:
    found = [one for one in page.every("div") if one.attributes.get("class") == "tile"]
    return {name.text: (value.text, note.text) for name, value, note in (one.every() for one in found)}


def test_a_study_is_what_the_store_holds(stored: Path, say: Say) -> None:
    page = report(say, "s")
    assert [one.attributes["id"] for one in page.every("section")] == [
        "result", "trust", "figures", "architecture", "networks", "search", "costs", "repeat",
    ]  # fmt: skip
    assert tiles(page) == {
        "best score": ("0.875", "s:4"),
        "test_accuracy": ("0.562 ± 0.062", "mean and deviation of 3 trainings"),
        "trials evaluated": ("8", "1 failed, 1 rejected"),
        "time of evaluation": ("16.5 s", tiles(page)["time of evaluation"][1]),
        "parameters of the best": ("4", ""),
    }
    (top,) = page.one("result").tables()
    assert [row[0] for row in top[1:]] == ["s:4", "s:2", "s:5", "s:3", "s:0", "s:1"]  # best first, feasible ones alone
    assert [row[1] for row in top[1:]] == ["0.875", "0.75", "0.7", "0.625", "0.5", "0.25"]
    assert {"failed", "rejected", "complete"} <= {row[1] for row in page.one("costs").tables()[0]}
    assert page.one("search").pairs()["strategy"] == "regularized-evolution"


def test_why_it_can_be_trusted_is_counted(stored: Path, say: Say) -> None:
    trust = report(say, "s").one("trust")
    seeds, beside, rejected, failed = trust.tables()
    assert seeds[0] == ["metric", "mean ± deviation", "least", "most", "trainings"]
    values = [0.5, 0.5625, 0.625]
    mean, deviation = statistics.fmean(values), statistics.stdev(values)
    assert seeds[1] == ["test_accuracy", f"{mean:.3f} ± {deviation:.3f}", "0.5", "0.625", "3"]
    # The random search had 0.97 in the end, and 0.95 after as many evaluations.
    assert beside == [["after equal cost", "score"], ["this search", "0.875"], ["r", "0.95"]]
    assert "Random search at equal cost: 8 evaluations" in trust.text
    assert "worse, by 0.075" in trust.text
    assert rejected[1:] == [["blind", "1", "11.1%", "0.5 s"]]
    assert failed[1:] == [[f"exception: ValueError: {ODD}", "1", "s:6"]]
    assert "11.1% of all trials failed" in trust.text
    assert "Test figures were measured after the search had ended" in trust.text


def test_names_are_texts(stored: Path, say: Say) -> None:
    page = report(say, "s")
    assert page.one("architecture").pairs()[ODD] == f"{ODD}0"
    assert ODD in page.one("trust").text
    assert any(ODD in text.text for text in page.one("figures").every("text"))  # of the pictures


def test_the_same_study_is_the_same_file(stored: Path, say: Say) -> None:
    report(say, "s")
    first = Path("report.html").read_bytes()
    report(say, "s")
    assert Path("report.html").read_bytes() == first


def test_networks_and_a_compression(stored: Path, say: Say) -> None:
    networks = report(say, "s").one("networks").tables()[0]
    assert [row[:3] for row in networks[1:]] == [
        ["s:4/compress-1", "magnitude", "complete"], *(["s:4/train-" + n, "quick", "complete"] for n in "321"),
    ]  # fmt: skip
    page = report(say, "s:4/compress-1")
    assert page.one("result").tables()[0] == [
        ["metric", "before", "now", "change", "share"],
        ["params", "8", "4", "-4", "50.0%"],
        ["score", "1", "0.8", "-0.2", ""],
    ]
    assert tiles(page)["params"] == ("4", "of 8")
    assert page.one("how").pairs()["targets"] == "macs<=0.5x"


def test_a_trial(stored: Path, say: Say) -> None:
    page = report(say, "s:8")
    assert page.one("result").pairs()["score"] == "0.99"
    assert "params<=5: violated by 25.0%." in page.one("result").text
    assert f"exception: ValueError: {ODD}" in report(say, "s:6").one("result").text


def test_a_study_without_results_says_so(stored: Path, say: Say) -> None:
    page = report(say, "empty")
    assert "study 'empty' has no complete trial yet" in page.one("result").text
    assert "no figure 'history'" in page.one("figures").text


def test_a_real_search_can_be_asked_for_again(folder: Path, say: Say) -> None:
    write(folder)
    for name, strategy in (("one", "local-search"), ("chance", "random")):
        assert say("search", *SEARCH, "--strategy", strategy, "--trials", "20", "--study", name)[0] == 0
    page = report(say, "one")
    best = json.loads(say("best", "one", "--json")[1])
    assert page.one("result").pairs()["val_accuracy"] == number(best["values"]["val_accuracy"])
    assert page.one("architecture").pairs()["key"] == best["key"]
    values = {one["address"]: one["values"]["val_accuracy"] for one in json.loads(say("trials", "one", "--json")[1])}
    for row in page.one("result").tables()[0][1:]:
        assert row[1] == number(values[row[0]])
    assert "better, by" in page.one("trust").text or "worse, by" in page.one("trust").text
    assert page.one("environment").pairs()["cores"] == str(os.cpu_count())
    assert str(folder) not in Path("report.html").read_text()
    commands, file = page.one("repeat").every("pre")
    assert commands.text.startswith("nas search one.yaml nas verify one")
    (folder / "one.yaml").write_text("".join(str(child) for child in file.every("code")[0].children))
    with Store("sqlite:///nas.db", reading=True) as store:
        assert describe(gather(Path("one.yaml"), (), {})).spec == store.study("one").spec


def test_a_bench(folder: Path, say: Say) -> None:
    write(folder)
    words = ["--strategies", "random,ea=regularized-evolution", "--queries", "8", "--seeds", "2", "--jobs", "1"]
    where = ["--space", "dials.py:space", "--table", "dials.csv", "--name", "small", "-s", "ea.population=4"]
    assert say("bench", "strategies", *words, *where, "-s", "ea.sample=2")[0] == 0
    page = report(say, "small")
    found = json.loads(say("bench", "show", "small", "--json")[1])
    ranks = {one["strategy"]: f"{one['rank']:.2f}" for one in map(dict, found["strategies"])}
    ranking = page.one("result").tables()[-1]
    assert {row[0]: row[1] for row in ranking[1:]} == {
        "random": ranks["random"], "ea": ranks["regularized-evolution"],
    }  # fmt: skip
    assert len(page.one("figures").every("figure")) == 2
    again = page.one("repeat").every("code")[0].text
    assert "-s ea.population=4" in again
    assert say(*again.split("nas bench show")[0].split()[1:], "--jobs", "1")[0] == 0  # it is a command
    assert (
        json.loads(say("bench", "show", "small-again", "--json")[1])["strategies"][1]["config"]
        == found["strategies"][1]["config"]
    )


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["nobody"], 3, "no study 'nobody'"),
        (["s", "--out", "report.pdf"], 2, "--out 'report.pdf': reports are .html"),
        (["s", "--out", "no/report.html"], 2, "there is no folder 'no'"),
        (["s:99"], 3, "has no trial 99"),
        (["./s.json"], 2, "'./s.json' is a file; name a study"),
        (["s", "--db", "none.db"], 3, "none.db"),
        (["s", "--pdf"], 5, "--pdf needs Chromium, and there is none on the PATH; install it"),
    ],
)
def test_mistakes_are_a_line(
    stored: Path, say: Say, monkeypatch: pytest.MonkeyPatch, words: list[str], code: int, said: str
) -> None:
    monkeypatch.setenv("PATH", str(stored))
    found, out, err = say("report", *words)
    assert (found, out) == (code, "")
    assert said in err
    assert len(err.splitlines()) <= 2
    assert not Path("report.html").exists()


@pytest.mark.parametrize(
    ("does", "code"), [('for w in "$@"; do case $w in --print-to-pdf=*) echo %PDF > "${w#*=}";; esac; done', 0),
                       ("echo it is ill >&2; exit 1", 5)]
)  # fmt: skip
def test_a_pdf_is_printed_by_the_browser(
    stored: Path, say: Say, monkeypatch: pytest.MonkeyPatch, does: str, code: int
) -> None:
    program = stored / "chromium"
    program.write_text(f"#!/bin/sh\n{does}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stored}:{os.environ['PATH']}")
    found, out, err = say("report", "empty", "--pdf", "--out", "e.html")
    assert found == code
    if code:
        assert "has printed nothing: it is ill" in err
    else:
        assert out == "report: e.html\nreport: e.pdf\n"
        assert Path("e.pdf").read_text() == "%PDF\n"


def test_it_is_among_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["report", "--help"]) == 0
    assert "opens offline" in capsys.readouterr().out
