"""`--strategy command:PROGRAM`: an outside program proposes, and whatever it does, nothing of the study is lost."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from nas_core.config import validate
from nas_core.errors import NasError
from nas_core.evaluation import Objective
from nas_core.strategy import Setting, Strategy
from nas_core.testing.strategy import SCENARIOS, check
from nas_core.testing.trait_spaces import TRAIT_SPACES
from strategies.external.command import running
from studies.store.store import Store
from tests.crash.sessions import contents, write_toy

Said = Callable[..., tuple[int, str, str]]
EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "my_proposer.py"
SEARCH = ["search", "--space", "toy.py:space", "--table", "toy.csv", "--data", "pics", "--lag", "2", "--seed", "3"]

# Draws a legal architecture of any space without `allowed` from the seed of each question.
HEAD = """
import json, random, sys

def draw(seed):
    rng, values = random.Random(seed), {}
    for choice in choices:
        if all(values.get(one["name"]) in one["values"] for one in choice.get("when", ())):
            values[choice["name"]] = rng.choice(choice["options"])
    return values

def say(**answer):
    print(json.dumps(answer), flush=True)

asked = open("asked", "a")
for line in sys.stdin:
    message = json.loads(line)
    if "study" in message:
        choices = message["study"]["choices"]
    if "ask" in message:
        ask = message["ask"]
        print(ask["number"], file=asked, flush=True)
        number, pending, arch = ask["number"], ask["pending"], draw(ask["seed"])
"""
PLAIN = "        say(architecture=arch)\n"


@pytest.fixture
def search(folder: Path, say: Said) -> Callable[..., tuple[int, str, str]]:
    """Searches the toy space with a program whose lines follow `HEAD`."""
    write_toy(folder / "toy")
    for file in (folder / "toy").iterdir():
        file.rename(folder / file.name)

    def command(body: str, *more: str) -> tuple[int, str, str]:
        (folder / "mine.py").write_text(HEAD + body)
        return say(*SEARCH, "--study", "s", "--strategy", f"command:{sys.executable} mine.py", *more)

    return command


def trials(folder: Path, study: str = "s") -> list[tuple[object, ...]]:
    with Store(f"sqlite:///{folder}/nas.db") as store:
        return [(run.proposal, run.verdict, run.reuses) for run in store.trials(store.study(study))]


def asked(folder: Path) -> list[int]:
    return [int(number) for number in (folder / "asked").read_text().split()]


def test_the_example_is_random_search_trial_for_trial(search: Said, say: Said, folder: Path) -> None:
    assert len(EXAMPLE.read_text().split('"""')[2].split("\n\n", 2)[2].strip().splitlines()) <= 20
    program = shlex.join([sys.executable, str(EXAMPLE), "toy.py:space"])
    for study, strategy in (("drawn", "random"), ("proposed", f"command:{program}")):
        code, _, err = say(*SEARCH, "--study", study, "--strategy", strategy)
        assert code == 0, err
    assert trials(folder, "drawn") == trials(folder, "proposed")
    assert say("verify", "proposed")[0] == 0


def test_it_keeps_the_contract_of_strategies(folder: Path) -> None:
    (folder / "mine.py").write_text(HEAD + PLAIN)
    kind = running(f"{sys.executable} mine.py")

    def make(setting: Setting) -> Strategy:
        return kind(setting, validate(kind.Config, {}, "strategy"))

    assert list(check(make, TRAIT_SPACES["fixed-graph"](), 12, 2, [SCENARIOS[0], SCENARIOS[3]])) == []


@pytest.mark.parametrize("verb", ["propose_all", "finish"])
@pytest.mark.parametrize("after", [False, True])
def test_killed_at_six_moments_it_is_the_same_search(
    search: Said, say: Said, folder: Path, monkeypatch: pytest.MonkeyPatch, verb: str, after: bool
) -> None:
    """In this process: what dies with it is all but the database. `tests/crash/test_kill.py` kills processes."""
    assert search(PLAIN, "--trials", "12")[0] == 0
    whole = contents(folder / "nas.db", durations=True)
    (folder / "nas.db").unlink()
    real, calls = getattr(Store, verb), 0

    class Killed(BaseException):
        pass

    def disturbed(self: Store, *arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls % 2 == 0 and not after:
            raise Killed
        done = real(self, *arguments, **named)
        if calls % 2 == 0:
            raise Killed
        return done

    killed = 0
    with monkeypatch.context() as patch:
        patch.setattr(Store, verb, disturbed)
        while killed < 6:
            try:
                code = search(PLAIN, "--trials", "12")[0]
            except Killed:
                killed += 1
            else:
                assert code == 0
                break
    assert killed >= 4
    assert say("resume", "s")[0] == 0
    assert contents(folder / "nas.db", durations=True) == whole
    assert say("verify", "s")[0] == 0


def test_what_is_stored_is_never_asked_again(search: Said, say: Said, folder: Path) -> None:
    """A program that answers differently every time, and dies in the middle of a search."""
    chance = "        say(architecture=draw(None)) if number != 5 else sys.exit(3)\n"
    code, _, err = search(chance)
    assert code == 1
    assert "has ended with code 3 without an answer" in err
    before = trials(folder)
    assert len(before) == 5
    (folder / "mine.py").write_text(
        HEAD + "        say(architecture=draw(None)) if number < 9 else say(exhausted='')\n"
    )
    assert say("resume", "s")[0] == 0
    assert [one[0] for one in trials(folder)[:5]] == [one[0] for one in before]
    assert len(trials(folder)) == 9
    assert asked(folder)[:11] == [0, 1, 2, 3, 4, 5, 5, 6, 7, 8, 9]


WRONG = {
    "nonsense": ("        print('hello', flush=True)\n", "answers 'hello' for trial 0, which is no JSON object"),
    "number": ("        print(17, flush=True)\n", "answers '17' for trial 0, which is no JSON object"),
    "infinite": ("        print('{\"budget\": Infinity}', flush=True)\n", "which is no JSON object"),
    "nothing": ("        sys.exit()\n", "has ended with code 0 without an answer"),
    "killed": ("        import os; os.kill(os.getpid(), 9)\n", "was ended by signal SIGKILL without an answer"),
    "raises": ("        1 / 0\n", "has ended with code 1 without an answer\nIts last line on standard error: ZeroDiv"),
    "late": ("        import time; time.sleep(60)\n", "has not answered within 0.2 s"),
    "twice": ("        print('{}\\n{}', flush=True)\n", "has written '{}' after its answer"),
    "unknown option": (
        "        say(architecture={**arch, 'act': 'gelu'})\n",
        "'gelu' is not an option of choice 'act'",
    ),
    "unknown choice": ("        say(architecture={**arch, 'widht': 8})\n", "'widht' is no choice of space 'toy'; did"),
    "missing choice": ("        say(architecture={'depth': 1})\n", "choice 'act' is active but missing"),
    "key": ("        say(arch=arch)\n", "unknown key 'arch'; did you mean 'architecture'?"),
    "budget": ("        say(architecture=arch, budget=3)\n", "the budget 3: there is one budget only"),
    "waits": ("        say(wait=True)\n", "no trial is pending: there is nothing to wait for"),
    "long note": ("        say(architecture=arch, note={'a': 'a' * 10_000})\n", "a note has at most 10,000 characters"),
    "deep note": ("        say(architecture=arch, note={'a': [1]})\n", "a note holds texts, numbers and truth values"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_answer_is_a_line_and_nothing_is_lost(search: Said, say: Said, folder: Path, name: str) -> None:
    body, said = WRONG[name]
    limit = ["-s", "strategy.timeout=0.2"] if name == "late" else ["-s", "strategy.tries=1"]
    (folder / "asked").touch()
    code, _, err = search(body, *limit, "--trials", "3")
    message = err[err.index("nas: program") :]
    assert code == 1
    assert said in message
    assert len(message.splitlines()) <= 2
    (folder / "mine.py").write_text(HEAD + PLAIN)
    if name == "late":  # the limit is a setting of the study
        return
    assert say("resume", "s")[0] == 0
    assert len(trials(folder)) >= 3


def test_what_is_refused_is_answered_anew_and_the_reason_told(search: Said, folder: Path) -> None:
    body = """
        tries = 0
        say(architecture={**arch, "depth": 9})
    elif "refused" in message:
        tries += 1
        print(message["refused"]["reason"], file=sys.stderr, flush=True)
        say(architecture=arch if tries > 2 else {**arch, "depth": tries * 10})
"""
    code, _, err = search(body, "--trials", "2")
    assert code == 0
    for value in (9, 10, 20):
        assert f"{value} is not an option of choice 'depth' (1, 2, 3, 4)" in err


def test_a_refusal_that_is_not_answered(search: Said, folder: Path) -> None:
    code, _, err = search("        say(architecture={})\n", "-s", "strategy.timeout=0.3")
    assert code == 1
    assert "has not answered within 0.3 s\nIts answer before was refused: choice 'depth' is active but missing" in err


def test_numbers_of_another_type_waiting_notes_and_exhaustion(search: Said, folder: Path) -> None:
    body = """
        arch["depth"] = float(arch["depth"])
        if number == 4:
            say(exhausted="enough")
        elif number == 2 and pending:
            say(wait=True)
        else:
            say(architecture=arch, note={"why": f"{len(pending)} pending", "seen": number, "sure": 0.5})
"""
    code, _, err = search(body)
    assert code == 0, err
    notes = [dict(proposal.note) for proposal, *_ in trials(folder)]  # type: ignore[attr-defined]
    assert [note["seen"] for note in notes] == [0, 1, 2, 3]
    assert [note["why"] for note in notes] == ["0 pending", "1 pending", "0 pending", "1 pending"]
    assert all(type(proposal.arch.values["depth"]) is int for proposal, *_ in trials(folder))  # type: ignore[attr-defined]


def test_what_the_program_is_told(search: Said, folder: Path) -> None:
    body = PLAIN + "    print(line.strip(), file=open('heard', 'a'), flush=True)\n"
    assert search(body, "--trials", "3", "--constraint", "val_accuracy>=0.5")[0] == 0
    study, *rest = map(json.loads, (folder / "heard").read_text().splitlines())
    study = study["study"]
    assert study["space"] == "toy"
    assert study["choices"][0] == {"name": "depth", "options": [1, 2, 3, 4]}
    assert study["objectives"] == [{"metric": "val_accuracy", "goal": "max"}]
    assert study["constraints"] == [{"metric": "val_accuracy", "relation": ">=", "bound": 0.5}]
    assert (study["fidelity"], study["seed"]) == (None, 3)
    kinds = [next(iter(message)) for message in rest]
    assert kinds == ["ask", "ask", "outcome", "ask"]
    first = rest[2]["outcome"]
    assert (first["number"], first["state"]) == (0, "complete")
    assert first["values"] == [first["metrics"]["val_accuracy"]]
    assert [one["number"] for one in rest[3]["ask"]["pending"]] == [1]


@pytest.mark.parametrize(
    ("reference", "code", "said"),
    [
        ("command:", 2, "strategy 'command:' names no program; write command:PROGRAM"),
        ("command:python 'mine.py", 2, "not a command line: no closing quotation"),
        ("command:no-such-program mine.py; rm -rf x", 3, "there is no program 'no-such-program'"),
    ],
)
def test_a_command_line_that_is_none(
    search: Said, say: Said, folder: Path, reference: str, code: int, said: str
) -> None:
    search(PLAIN, "--print-config")
    found, _, err = say(*SEARCH, "--strategy", reference)
    assert found == code
    assert said in err
    assert not (folder / "nas.db").exists()


def test_no_shell_reads_the_command_line(search: Said, say: Said, folder: Path) -> None:
    (folder / "mine.py").write_text(HEAD + "        sys.exit(' '.join(sys.argv[1:]))\n")
    code, _, err = say(*SEARCH, "--strategy", f"command:{sys.executable} mine.py '$HOME' `id` > out")
    assert code == 1
    assert "Its last line on standard error: $HOME `id` > out" in err
    assert not (folder / "out").exists()


def test_a_process_that_failed_is_replaced_and_no_question_is_asked_twice(folder: Path) -> None:
    body = "        say(architecture=draw(None)) if len(open('asked').readlines()) != 2 else sys.exit(1)\n"
    (folder / "mine.py").write_text(HEAD + body)
    kind = running(f"{sys.executable} mine.py")
    space = TRAIT_SPACES["fixed-graph"]()
    strategy = kind(Setting(space, 1, (Objective("quality", "max"),)), kind.Config(timeout=20))
    first = strategy.ask(0, ())
    with pytest.raises(NasError, match="ended with code 1"):
        strategy.ask(1, ())
    assert strategy.ask(0, ()) == first
    assert strategy.ask(1, ()) is not None
