"""The commands of the README and the documents work as they are written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.zygote import Call, Zygote

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`([\w-]+\.yaml)`:\s*\Z")
MAKES = re.compile(r"nas search .*--study (\w+)|nas train (\w+)")  # a study, or more of it
# Options that make a command cheaper in which a text occurs: later ones win. The commands in full are slow tests.
CHEAPER = {
    "nas search": "-s split.limit=120",
    # Results that differ, or nothing is learned from them; and a denoiser that learns as long as it must to draw.
    "--study generated": "-s split.limit=300 -s strategy.generator.steps=200 -s strategy.generator.samples=1000",
    "--study guarded": "-s split.limit=60",
    "strategy.inner_config.epochs": "-s strategy.inner_config.epochs=2",
    "--study laptop": "--workers 1",  # workers of two are started by the page on searching
    "strategy.epochs": "-s strategy.epochs=2",
    "nas export": "--no-verify",
}
# Sections that take longer than a test of the gate may, with tests elsewhere of what they do.
DEAR = ("A network from elsewhere",)  # tests/cli/test_compress_models.py, tests/cli/test_quantize.py


def blocks(document: Path) -> list[tuple[str, str, str]]:
    """(language, content, the text before) of every code block."""
    text = document.read_text(encoding="utf-8")
    return [(match[1], match[2], text[: match.start()]) for match in BLOCK.finditer(text)]


def commands(content: str) -> list[str]:
    """The commands of a block: one per line, without prompts, comments and output."""
    return [line for line in content.splitlines() if line.startswith("nas ")]


def sections(document: Path) -> dict[str, list[str]]:
    """The commands under each heading that has any."""
    found: dict[str, list[str]] = {}
    for language, content, before in blocks(document):
        if language == "sh" and commands(content):
            heading = re.findall(r"^#+ (.*)", re.sub(BLOCK, "", before), re.MULTILINE)[-1]
            found.setdefault(heading, []).extend(commands(content))
    return found


def with_earlier(document: Path, heading: str) -> list[str]:
    """The commands of a section, after those of earlier ones that make the studies which it names."""
    every = [(name, command) for name, listed in sections(document).items() for command in listed]
    taken: list[str] = []
    words: set[str] = set()
    for name, command in reversed(every):
        makes = MAKES.search(command)
        if name == heading or (taken and makes and (makes[1] or makes[2]) in words):
            taken.insert(0, command)
            words |= set(re.findall(r"\w+", command))
    return taken


def prepare(document: Path, folder: Path) -> Path:
    """A folder with the files that a document shows."""
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    for language, content, before in blocks(document):
        named = FILE.search(before) if language == "yaml" else None
        module = re.match(r"# (\w+\.py)\n", content) if language == "python" else None
        for found in filter(None, (named, module)):
            (folder / found[1]).write_text(content)
    return folder


def settings(document: Path) -> dict[str, str]:
    """The environment of commands: our own without settings; with those of a short search for the README."""
    small = {"NAS_TRIALS": "3", "NAS_EPOCHS": "1", "NAS_THREADS": "1"} if document.name == "README.md" else {}
    plain = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")} | small
    return {**plain, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{plain['PATH']}"}


def small(command: str) -> str:
    """A command with options after its own that make it cheaper."""
    added = " ".join(option for start, option in CHEAPER.items() if start in command)
    return f"{command} {added}"


@pytest.mark.parametrize(
    ("document", "heading"),
    [
        pytest.param(
            *(document, heading), id=f"{document.name}-{heading}", marks=[pytest.mark.slow] if heading in DEAR else []
        )
        for document in DOCUMENTS
        for heading in sections(document)
    ],
)
def test_commands(document: Path, heading: str, tmp_path: Path, zygote: Zygote) -> None:
    """Runs the commands of a section, in the order of the document, with less data, in forks of one process."""
    folder, said = prepare(document, tmp_path / "folder"), tmp_path / "said"
    for command in map(small, with_earlier(document, heading)):
        said.write_text("")
        arguments = shlex.split(command)[1:]
        call = Call("nas_cli.app:run", arguments, str(folder), str(said), str(said), environment=settings(document))
        code = zygote.wait(zygote.start(call))
        assert code == 0, f"{command}\n{said.read_text()}"


@pytest.mark.slow
@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_as_they_are_written(document: Path, tmp_path: Path) -> None:
    """All in one folder, each in an interpreter of its own."""
    folder = prepare(document, tmp_path / "folder")
    for command in (command for listed in sections(document).values() for command in listed):
        done = subprocess.run(shlex.split(command), cwd=folder, env=settings(document), capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


def test_every_command_is_in_a_section() -> None:
    for document in DOCUMENTS:
        written = [line for language, content, _ in blocks(document) if language == "sh" for line in commands(content)]
        assert [command for listed in sections(document).values() for command in listed] == written


def test_the_gate_runs_the_readme_s_test_command() -> None:
    gate = (ROOT / ".ci" / "run").read_text()
    readme = (ROOT / "README.md").read_text()
    assert "<!-- test command -->" in gate
    (content,) = re.findall(r"<!-- test command -->\s*```sh\n(.*?)\n```", readme, re.DOTALL)
    assert "pytest" in content
    assert "\n" not in content


def test_links_between_documents() -> None:
    for document in [*DOCUMENTS, ROOT / "CONTRIBUTING.md"]:
        prose = re.sub(r"```.*?```", "", document.read_text(encoding="utf-8"), flags=re.DOTALL)  # no code
        for target in re.findall(r"\]\(([^)#:]+)(?:#[\w-]+)?\)", prose):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_every_command_is_documented() -> None:
    from nas_cli.app import app

    named = {command.name or command.callback.__name__ for command in app.registered_commands}
    named |= {group.name for group in app.registered_groups}
    text = "\n".join(document.read_text(encoding="utf-8") for document in DOCUMENTS)
    assert [name for name in sorted(named) if f"nas {name}" not in text] == []


def test_the_documented_script_is_the_one_that_cards_print() -> None:
    from training.data import load
    from training.export.script import script

    text = (ROOT / "docs" / "exporting.md").read_text(encoding="utf-8")
    (printed,) = re.findall(r"<!-- script -->\s*```python\n(.*?)```", text, re.DOTALL)
    assert printed == script(load("digits").inputs, "digits-2.onnx")
