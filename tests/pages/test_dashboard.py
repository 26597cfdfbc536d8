"""`nas dashboard`: what its pages say, that they only read, and that names in them are texts."""

from __future__ import annotations

import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nas_cli.app import run
from nas_core.records import StopAt
from nas_core.strategy import State
from reports.dashboard.listing import SIZE
from studies.store.store import Store
from studies.store.testing import SPEC
from tests.cli.conftest import enter
from tests.cli.test_bench import write
from tests.html_pages import Element, loaded, scripted
from tests.pages.serving import Served, served, study, trial, url_of

pytest.importorskip("starlette")

ROUTES = ("/", "/study", "/run", "/bench", "/running", "/compare", "/figure.json", "/events", "/static/style.css")
OURS = ["/static/style.css", "/static/plotly.js", "/static/dashboard.js"]
ODD = [
    "<script>window.hit=1</script>", "<img src=x onerror=window.hit=1>", "\"><svg onload=window.hit=1>",
    "'; DROP TABLE runs; --", "../../etc/passwd", "a/b:17/train-1", "%2e%2e%2f", "{{ 7*7 }}", "${7*7}", "a&b=c?d#e",
    "</title><script>window.hit=1</script>", "javascript:window.hit=1", "\u202egnp.exe", "\u00e9\u4e2d\U0001f600",
    "a  b", "]]>", "<!--", "\\x3cscript\\x3e", "' onmouseover='window.hit=1", "$x_1$", "NULL", "0", "a\tb", "%s%n",
]  # fmt: skip


def odd(count: int) -> list[str]:
    """Names, each once: those above, pairs and repetitions of them."""
    found = list(ODD)
    found += [f"{one}{other}" for one in ODD for other in ODD]
    return found[:count]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with studies and a bench."""
    place = tmp_path_factory.mktemp("shown")
    write(place)
    words = ["--strategies", "random,ea=regularized-evolution", "--queries", "6", "--seeds", "2", "--jobs", "1"]
    where = ["--space", "dials.py:space", "--table", "dials.csv", "--name", "small", "-s", "ea.population=4"]
    with pytest.MonkeyPatch.context() as patch:
        enter(place, patch)
        assert run(["bench", "strategies", *words, *where, "-s", "ea.sample=2"]) == 0
    with Store(url_of(place)) as store:
        one = study(store, "s", strategy="tpe")
        for number in range(130):
            state = State.FAILED if number % 10 == 3 else State.COMPLETE
            value = None if state == State.FAILED else (number * 37 % 101) / 100
            trial(store, one, number, value, state, reason="exception: no <b>" if state == State.FAILED else None)
        trial(store, one, 130, None, State.RUNNING)
        other = study(store, "loss", "loss:min", seed=7)
        for number, value in enumerate([3.0, 1.0, 2.0]):
            trial(store, other, number, -value)
    return place


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Served]:
    with served(url_of(folder)) as found, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield found


def rows(page: Element, name: str = "rows") -> list[list[str]]:
    (found,) = page.one(name).tables()
    return found[1:]


def checked(page: Element) -> Element:
    """It loads our own files and executes nothing else."""
    assert [one for one in loaded(page) if not one.startswith(("/", "?"))] == []
    assert [one.attributes.get("src", "") for one in page.every("script")] == OURS[1:]
    assert [one for one in scripted(page) if one] == []
    return page


def test_studies_are_listed_filtered_and_sorted(server: Served) -> None:
    page = checked(server.page("/"))
    assert [row[1] for row in rows(page)] == ["loss", "s"]  # the newest first, and no children of benches
    assert rows(page)[1][2:] == ["letters", "tpe", "130/40", "score 1", "13", rows(page)[1][7]]
    assert rows(page)[0][5] == "loss 1"
    assert [row[1] for row in rows(server.page("/", sort="name"))] == ["loss", "s"]
    assert [row[1] for row in rows(server.page("/", sort="-evaluated"))] == ["s", "loss"]
    assert [row[1] for row in rows(server.page("/", text="TPE letters"))] == ["s"]
    assert "No study is called so." in server.page("/", text="nobody").one("rows").text
    assert rows(page, "benches") == [["small", "dials", "4/4", "random, ea"]]


def test_trials_are_filtered_sorted_and_paged_by_the_server(server: Served) -> None:
    def numbers(**query: Any) -> list[int]:
        return [int(row[0]) for row in rows(server.page("/study", name="s", **query))]

    values = {n: (n * 37 % 101) / 100 for n in range(130) if n % 10 != 3}
    best = sorted(values, key=lambda n: (-values[n], n))
    assert numbers() == list(range(130, 130 - SIZE, -1))
    assert numbers(sort="score", state="complete") == best[:SIZE]
    assert numbers(sort="score", state="complete", page=3) == best[2 * SIZE :]
    assert numbers(sort="-score", state="complete")[0] == min(values, key=lambda n: (values[n], n))
    assert numbers(sort="number", page=99) == list(range(2 * SIZE, 131))  # the last one
    assert numbers(state="failed", sort="number") == list(range(3, 130, 10))
    assert numbers(text="NO <B>", sort="number") == list(range(3, 130, 10))
    assert len(numbers(text="a1")) == SIZE
    page = checked(server.page("/study", name="s", state="failed"))
    assert "13 trials" in page.one("rows").text
    assert rows(page)[0] == ["123", "failed", "", "4 s", "exception: no <b>"]
    heads = [one.attributes for one in page.one("rows").every("th")]
    assert [one.get("aria-sort") for one in heads] == ["descending", None, None, None, None]


def test_a_study_a_trial_and_others_beside_it(server: Served) -> None:
    page = checked(server.page("/study", name="s"))
    assert "13 failed" in page.one("tiles").text
    assert "No random search of the same problem" in page.one("trust").text
    page = checked(server.page("/run", study="s", run="17"))
    assert page.one("result").pairs()["score"] == "0.23"
    page = checked(server.page("/compare", name=["s", "loss"]))
    (table,) = page.tables()
    assert [row[0] for row in table[1:]] == ["s", "loss"]
    assert [row[6] for row in table[1:]] == ["score 1", "loss 1"]
    assert rows(checked(server.page("/running")))[0][:2] == ["s", "trial 130"]
    assert "random" in checked(server.page("/bench", name="small")).one("result").text


def test_figures_are_those_of_nas_plot(server: Served, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from reports import make, plotly_figure
    from reports.addressed import addressed

    status, _, text = server.ask("/figure.json", kind="history", study="s")
    with Store(url_of(folder), reading=True) as store:
        made = plotly_figure.data(make.figures(addressed(store, "s"), ["history"])[0])
    assert (status, json.loads(text)) == (200, json.loads(json.dumps(made)))
    compared = json.loads(server.ask("/figure.json", kind="compare", name=["s", "loss"])[2])
    lines = {one["name"]: one for one in compared["data"]}
    assert lines["loss"]["x"] == [1, 2, 3]
    assert lines["loss"]["y"] == [3.0, 1.0, 1.0]
    assert lines["s"]["y"][-1] == 1.0
    assert "trouble" in json.loads(server.ask("/figure.json", kind="ranks", study="s")[2])
    assert server.ask("/figure.json", kind="alphas", study="s")[0] == 400


@pytest.mark.parametrize(
    ("path", "query", "status", "said"),
    [
        ("/study", {"name": "nobody"}, 404, "no study 'nobody'"),
        ("/study", {"name": "s", "page": "x"}, 400, "page 'x' is no number"),
        ("/study", {"name": "s", "sort": "score; DROP"}, 400, "unknown sort key"),
        ("/study", {"name": "s", "state": "complte"}, 400, "did you mean 'complete'?"),
        ("/run", {"study": "s", "run": "999"}, 404, "has no trial 999"),
        ("/run", {"study": "s", "run": "../x"}, 404, "has no run '../x'"),
        ("/bench", {"name": "<b>"}, 404, "no bench '<b>'"),
        ("/nowhere", {}, 404, ""),
        ("/static/../app.py", {}, 404, ""),
    ],
)
def test_mistakes_are_a_page(server: Served, path: str, query: dict[str, str], status: int, said: str) -> None:
    found, _, text = server.ask(path, **query)
    assert found == status
    if said:
        from tests.html_pages import read

        assert said in checked(read(text)).one("main").text


def test_nothing_writes(server: Served, folder: Path) -> None:
    def dump() -> list[str]:
        with sqlite3.connect(folder / "nas.db") as connection:
            return list(connection.iterdump())

    before, files = dump(), sorted(path.name for path in folder.rglob("*"))
    for route in ROUTES:
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
            status, headers, _ = server.ask(route, method)
            assert (status, headers["allow"]) == (405, "GET, HEAD")
    for route in ROUTES[:-2]:
        server.ask(route, name="s", study="s", run="1", kind="history")
    assert dump() == before
    assert sorted(path.name for path in folder.rglob("*") if not path.name.startswith("nas.db-")) == [
        name for name in files if not name.startswith("nas.db-")
    ]


def test_a_page_may_do_nothing_that_it_does_not_need(server: Served) -> None:
    for route in ("/", "/study?name=s", "/static/dashboard.js", "/nowhere"):
        _, headers, _ = server.ask(route)
        assert "default-src 'none'; script-src 'self';" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_who_has_no_token_sees_nothing(folder: Path) -> None:
    with served(url_of(folder), token="s3cret") as server:
        for route in ROUTES:
            assert server.ask(route)[0] == 401
            assert server.ask(route, token="s3cre")[0] == 401
            assert server.ask(route, headers={"cookie": "nas-token=s3cre"})[0] == 401
        status, headers, _ = server.ask("//elsewhere.example/", token="s3cret", name="s")
        assert (status, headers["location"]) == (303, "/elsewhere.example/?name=s")
        cookie = headers["set-cookie"]
        assert "httponly" in cookie.lower()
        assert "samesite=strict" in cookie.lower()
        assert server.ask("/", headers={"cookie": cookie.partition(";")[0]})[0] == 200
        assert server.ask("/", headers={"authorization": "Bearer s3cret"})[0] == 200


def test_it_answers_under_its_own_names_alone(folder: Path) -> None:
    with served(url_of(folder), hosts=("localhost", "127.0.0.1")) as server:
        assert server.ask("/")[0] == 200
        assert server.ask("/", headers={"host": f"elsewhere.example:{server.port}"})[0] == 400


def test_what_is_new_is_told(tmp_path: Path) -> None:
    with Store(url_of(tmp_path), create=True) as store:
        one = study(store, "s")
        with served(url_of(tmp_path)) as server, socket.create_connection(("127.0.0.1", server.port), 60) as stream:
            stream.sendall(b"GET /events?study=s HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            heard = b""
            while b"event: version" not in heard:
                heard += stream.recv(4096)
            assert b"data: changed" not in heard
            trial(store, one, 0, 0.5)
            limit = time.monotonic() + 60  # signs of life, which come all the time, are no news
            while b"data: changed" not in heard:
                part = stream.recv(4096)
                assert part
                assert time.monotonic() < limit
                heard += part


def test_a_search_writes_meanwhile(tmp_path: Path) -> None:
    """As fast as it can, beside readers; no write waits for one in vain, and all of them are seen in the end."""
    with Store(url_of(tmp_path), create=True) as store, served(url_of(tmp_path)) as server:
        one = study(store, "s")
        trial(store, one, 0, 0.5)
        over, statuses = threading.Event(), set[int]()

        def look() -> None:
            while not over.is_set():
                statuses.add(server.ask("/study", name="s", sort="score")[0])
                statuses.add(server.ask("/figure.json", kind="history", study="s")[0])

        readers = [threading.Thread(target=look) for _ in range(2)]
        for reader in readers:
            reader.start()
        for number in range(1, 250):
            trial(store, one, number, number / 250)
        over.set()
        for reader in readers:
            reader.join()
        assert statuses == {200}
        assert "250 trials" in server.page("/study", name="s").one("rows").text


def test_pages_of_long_studies_read_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(url_of(tmp_path), create=True) as store:
        one = study(store, "s", strategy="tpe")
        trial(store, one, 0, 0.5)
        trial(store, study(store, "r"), 0, 0.5)  # a random search that it could be compared with
    count = 20_000
    with sqlite3.connect(tmp_path / "nas.db") as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(runs)") if row[1] not in ("id", "number")]
        connection.executemany(
            f"INSERT INTO runs (number, {', '.join(columns)}) SELECT ?, {', '.join(columns)} FROM runs WHERE id = 1",
            [(number,) for number in range(1, count)],
        )
        connection.execute("UPDATE runs SET objective = number % 97, ended = started + 1 WHERE study = 1")
    connection.close()
    read, seen = Store.read, list[int]()

    def counted(self: Store, *given: Any) -> Any:
        found = read(self, *given)
        seen.append(len(found))
        return found

    monkeypatch.setattr(Store, "read", counted)
    with served(url_of(tmp_path)) as server:
        for query in ({}, {"sort": "score"}, {"sort": "-seconds", "page": 300}, {"state": "complete"}, {"text": "a1"}):
            seen.clear()
            page = server.page("/study", name="s", **query)
            assert f"{count:,} trials" in page.one("rows").text or query.get("text")
            assert max(seen) <= 2 * SIZE
        seen.clear()
        server.page("/")
        server.page("/running")
        assert max(seen) <= SIZE


def named(folder: Path, names: list[str]) -> Iterator[tuple[str, str, str]]:
    """Makes a study of each name with choices and a metric of that name: its name, that of its metric, and the name."""
    with Store(url_of(folder), create=True) as store:
        for place, name in enumerate(names):
            metric = name.replace(":", ";")[:60]
            unique = (
                f"{place} {name}".replace("../", "..").replace("//", "/ /").strip("/")
            )  # a store refuses such names
            one = store.create_study(
                unique, SPEC.model_copy(update={"objectives": (f"{metric}:max",), "space": name, "strategy": name,
                                                "constraints": ()}), StopAt()
            )  # fmt: skip
            for number in range(2):
                trial(store, one, number, number / 2, choice=name)
            trial(store, one, 2, None, State.FAILED, choice=name, reason=f"exception: {name}")
            yield unique, metric, name


def plain(text: str) -> str:
    return " ".join("".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split())).split())


@pytest.mark.parametrize("count", [len(ODD), pytest.param(500, marks=pytest.mark.slow)])
def test_names_are_texts(tmp_path: Path, count: int) -> None:
    names = list(named(tmp_path, odd(count)))
    with served(url_of(tmp_path)) as server:
        for name, metric, raw in names:
            page = checked(server.page("/study", name=name))
            assert plain(page.every("h1")[0].text) == plain(name)
            heads = [plain(one.text) for one in page.one("rows").every("th")]
            assert plain(metric) in heads
            assert plain(f"exception: {raw}") in plain(page.one("rows").text)
            checked(server.page("/run", study=name, run="1"))
            status, _, text = server.ask("/figure.json", kind="history", study=name)
            assert status == 200
            assert "<script" not in text.lower()
            assert "<img" not in text.lower()
            assert "<svg" not in text.lower()
        listed = checked(server.page("/", text=names[0][0].split()[0]))
        assert len(rows(listed)) >= 1
        links = [one.attributes["href"] for one in listed.one("rows").every("a") if "/study?" in one.attributes["href"]]
        assert all(server.ask(link)[0] == 200 for link in links)


@pytest.fixture
def say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    enter(tmp_path, monkeypatch)

    def command(*words: str) -> tuple[int, str, str]:
        code = run(words)
        return code, *capsys.readouterr()

    return command


def test_mistakes_of_the_command_are_a_line(say: Callable[..., Any], tmp_path: Path) -> None:
    assert say("dashboard") == (
        3, "", "nas: there is no database 'nas.db'; start with 'nas search', or name one by --db\n"
    )  # fmt: skip
    (tmp_path / "not.db").write_text("not a database at all, but long enough to be looked at " * 20)
    code, out, err = say("dashboard", "--db", "not.db")
    assert (code, out, len(err.splitlines())) == (5, "", 1)
    Store(url_of(tmp_path), create=True).close()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, out, err = say("dashboard", "--port", str(taken.getsockname()[1]))
    assert (code, out) == (2, "")
    assert "cannot be used (Address already in use); take another one by --port, or a free one by --port 0" in err
    code, out, err = say("dashboard", "--host", "nowhere.invalid")
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_without_the_packages_the_line_that_installs_them(
    say: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    code, _, err = say("dashboard")
    assert code == 5
    assert "pip install 'nas-search[dashboard]'" in err


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_the_command_serves_until_it_is_stopped(folder: Path, host: str) -> None:
    """On this machine alone without a token, elsewhere with one that nobody can guess."""
    words = [
        sys.executable,
        "-m",
        "nas_cli",
        "dashboard",
        "--host",
        host,
        "--port",
        "0",
        "--db",
        str(folder / "nas.db"),
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")}
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline().strip()
            address, _, token = line.partition("?token=")
            assert address.startswith(f"http://{host}:")
            assert bool(token) == (host == "0.0.0.0")
            server = Served(int(address.rstrip("/").rpartition(":")[2]))
            priority = os.getpriority(os.PRIO_PROCESS, process.pid)
            assert priority > os.getpriority(os.PRIO_PROCESS, 0)  # searches come first
            assert server.ask("/")[0] == (401 if token else 200)
            assert server.ask("/", headers={"authorization": f"Bearer {token}"})[0] == 200
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=120)
        finally:
            process.kill()
    assert process.returncode == 0, err
    assert "Traceback" not in err
