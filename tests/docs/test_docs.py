"""The commands of the README and the documents work as they are written."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`([\w-]+\.yaml)`:\s*\Z")


def blocks(document: Path) -> list[tuple[str, str, str]]:
    """(language, content, the text before) of every code block."""
    text = document.read_text(encoding="utf-8")
    return [(match[1], match[2], text[: match.start()]) for match in BLOCK.finditer(text)]


def commands(content: str) -> list[str]:
    """The commands of a block: one per line, without prompts, comments and output."""
    return [line for line in content.splitlines() if line.startswith("nas ")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands(document: Path, tmp_path: Path) -> None:
    """Runs every `sh` block in one folder, in the order of the document, small enough to be quick."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    small = {"NAS_TRIALS": "3", "NAS_EPOCHS": "1", "NAS_THREADS": "1"} if document.name == "README.md" else {}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("NAS_")} | small
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    for language, content, before in blocks(document):
        named = FILE.search(before)
        if language == "yaml" and named:
            (tmp_path / named[1]).write_text(content)
        module = re.match(r"# (\w+\.py)\n", content)
        if language == "python" and module:
            (tmp_path / module[1]).write_text(content)
        if language != "sh":
            continue
        for command in commands(content):
            done = subprocess.run(shlex.split(command), cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"


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
