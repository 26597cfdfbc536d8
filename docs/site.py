"""Builds the site of the documentation: `python docs/site.py FOLDER` writes FOLDER/site, which opens without a network.

Beside the pages of this folder it has those that are files elsewhere, as the README, its first one; the examples; and
the reference, whose text are the docstrings. A link that leads nowhere ends it. Needs the extra `docs`.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
WHOLE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
REFERENCE = {
    "python": ("nas",),
    "spaces": ("nas_core.choice", "nas_core.architecture", "nas_core.space", "nas_core.graph", "nas_core.parts"),
    "strategies": ("nas_core.strategy", "nas_core.proposal", "nas_core.one_shot", "nas_core.relax"),
    "training": ("nas_core.task", "nas_core.batch", "nas_core.evaluation", "nas_core.traits", "nas_core.job"),
    "models": ("nas_core.model", "nas_core.records", "nas_core.errors"),
}
"""What users build on, by page: modules, all of whose public names are shown."""

CODE = re.compile(r"^```.*?^```$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s]+)\)")


def pages() -> Iterator[tuple[str, str]]:
    """Path and Markdown of every page."""
    for page in sorted(HERE.glob("*.md")):
        yield page.name, linked(page.read_text(encoding="utf-8"))
    for name, path in WHOLE.items():
        yield path, linked((ROOT / name).read_text(encoding="utf-8"))
    for example in sorted((ROOT / "examples").glob("*.py")):
        yield (
            f"examples/{example.stem}.md",
            f"# {example.name}\n\n```python\n{example.read_text(encoding='utf-8')}```\n",
        )
    for name, modules in REFERENCE.items():
        yield f"reference/{name}.md", "\n\n".join([f"# {name.capitalize()}", *(f"::: {one}" for one in modules)]) + "\n"


def linked(markdown: str) -> str:
    """With links to files of the repository made links to their pages; code stays as it is."""
    found, end = [], 0
    for code in CODE.finditer(markdown):
        found += [LINK.sub(_moved, markdown[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*found, LINK.sub(_moved, markdown[end:])])


def _moved(link: re.Match[str]) -> str:
    path, hash_, anchor = link[1].partition("#")
    path = path.removeprefix("../").removeprefix("docs/")
    if path.startswith("examples/") and path.endswith(".py"):
        path = path.removesuffix(".py") + ".md"
    return f"]({WHOLE.get(path, path)}{hash_}{anchor})"


def build(folder: Path) -> Path:
    """Write the pages and their site into a folder; where the site is. Raises CalledProcessError where a link or a name
    of the reference leads nowhere."""
    for path, content in pages():
        page = folder / "docs" / path
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(content, encoding="utf-8")
    shutil.copytree(HERE / "pictures", folder / "docs" / "pictures", dirs_exist_ok=True)
    settings = (HERE / "zensical.toml").read_text(encoding="utf-8")
    (folder / "zensical.toml").write_text(settings.replace('paths = ["."]', f'paths = ["{ROOT.as_posix()}"]'))
    shutil.rmtree(folder / "site", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "zensical", "build", "--strict", "--clean"], cwd=folder, check=True)
    return folder / "site"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    print(build(target.resolve()))
