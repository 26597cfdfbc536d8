"""Makes the pictures of the README: `python docs/pictures.py [--trials 40] [--epochs 5] [--out docs/pictures]`.

Searches on scikit-learn's digits in a folder that is gone afterwards, draws a figure, serves the database by
`nas dashboard`, and takes pictures of its pages by a headless Chromium (`tests/browser.py`). Minutes on two cores.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from tests.browser import Browser, started  # noqa: E402

LARGEST = 200_000  # bytes of a picture
SHORT = ["--data", "digits", "-s", "split.limit=500", "--threads", "1"]
SMALL = ["--size", "channels=4,cells=1"]  # networks of nasbench201
EVOLUTION, RANDOM, FRONT = "evolution", "random", "accuracy-and-cost"
SEARCHES = {
    EVOLUTION: [*SMALL, "--strategy", "regularized-evolution", "-s", "strategy.population=10"],
    RANDOM: [*SMALL, "--strategy", "random", "--seed", "1"],
    FRONT: ["--space", "regnet", "--strategy", "nsga2", "-s", "strategy.population=10",
            "--objective", "val_accuracy", "--objective", "macs:min"],
}  # fmt: skip
BARE = "document.head.insertAdjacentHTML('beforeend', '<style>.modebar{display:none}</style>')"  # no buttons of Plotly
DRAWN = "[...document.querySelectorAll('.plot')].every(p => p.inView === false || p.dataset.state)"


@dataclass(frozen=True)
class Shot:
    """A picture of a page: from the heading of the section `at` on, in so many pixels."""

    name: str
    url: str
    height: int
    dark: bool = False
    at: str | None = None


def nas(folder: Path, *words: str) -> str:
    """What a command prints. Raises CalledProcessError where it fails."""
    command = [sys.executable, "-m", "nas_cli", *words]
    return subprocess.run(command, check=True, cwd=folder, stdout=subprocess.PIPE, text=True).stdout


@contextlib.contextmanager
def dashboard(folder: Path) -> Iterator[str]:
    """Its address until the end of `with`."""
    command = [sys.executable, "-m", "nas_cli", "dashboard", "--port", "0"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip().rstrip("/")
        finally:
            process.terminate()


def take(browser: Browser, shot: Shot, width: int = 1100) -> bytes:
    """A PNG of 256 colours."""
    from PIL import Image

    page = browser.page()
    page.look(width, shot.height, dark=shot.dark)
    page.go(shot.url)
    if shot.at is not None:
        page.evaluate(f"document.getElementById('{shot.at}').scrollIntoView({{behavior: 'instant'}})")
    page.evaluate(BARE)
    page.until("document.querySelectorAll('.plot').length > 0")
    page.until("[...document.querySelectorAll('.plot')].some(p => p.dataset.state === 'drawn')")
    page.until(DRAWN)
    if page.errors:
        raise SystemExit(f"{shot.url}: {page.errors}")
    taken = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(256)
    page.go("about:blank")  # which ends its connection
    content = io.BytesIO()
    taken.save(content, "PNG", optimize=True)
    return content.getvalue()


def make(out: Path, trials: int, epochs: int) -> list[Path]:
    """Write the pictures: their files. Raises SystemExit for one that is too large, or whose page complains."""
    out.mkdir(parents=True, exist_ok=True)
    files: list[Path] = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for study, words in SEARCHES.items():
            nas(folder, "search", "--study", study, *SHORT, *words, "--trials", str(trials), "--epochs", str(epochs))
        nas(folder, "plot", FRONT, "--kind", "front", "--out", str(out.resolve() / "front.svg"))
        files.append(out / "front.svg")
        best = str(json.loads(nas(folder, "best", EVOLUTION, "--json"))["number"])
        with dashboard(folder) as url, started() as browser:
            for shot in shots(url, best):
                files.append(out / f"{shot.name}.png")
                files[-1].write_bytes(take(browser, shot))
    large = [str(file) for file in files if file.stat().st_size > LARGEST]
    if large:
        raise SystemExit(f"larger than {LARGEST:,} bytes: {', '.join(large)}")
    return files


def shots(url: str, best: str) -> Sequence[Shot]:
    compared = urlencode([("name", EVOLUTION), ("name", RANDOM)])
    return (
        Shot("study", f"{url}/study?{urlencode({'name': EVOLUTION})}", 960),
        Shot("compare-dark", f"{url}/compare?{compared}", 830, dark=True),
        Shot("trial", f"{url}/run?{urlencode({'study': EVOLUTION, 'run': best})}", 860, at="figures"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=40, help="of each of the three searches")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "pictures")
    asked = parser.parse_args()
    for file in make(asked.out, asked.trials, asked.epochs):
        print(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
