"""`docs/python.md` as a notebook: every block is a cell, run in one kernel, in an empty folder."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "python.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the last line of each cell came to."""
    cells = BLOCK.findall(DOCUMENT.read_text(encoding="utf-8"))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    folder, kernels = tmp_path_factory.mktemp("notebook"), tmp_path_factory.mktemp("jupyter")
    (kernels / "kernels" / "this").mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": command, "display_name": "this interpreter", "language": "python"}
    (kernels / "kernels" / "this" / "kernel.json").write_text(json.dumps(kernel))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JUPYTER_PATH", str(kernels))
        resources = {"metadata": {"path": str(folder)}}
        nbclient.NotebookClient(notebook, timeout=300, kernel_name="this", resources=resources).execute()
    found = []
    for cell in notebook.cells:
        results = [output for output in cell.outputs if output.output_type == "execute_result"]
        found.append(results[-1]["data"]["text/plain"] if results else "")
    return found


def test_a_notebook_searches_resumes_trains_and_exports(outputs: list[str]) -> None:
    best, states, table, tested, shape, names, told = outputs
    assert re.fullmatch(r"\(0\.\d+,\s+'\|.*\|'\)", best)
    assert states.count("complete") + states.count("reused") >= 6 or states.count("'complete'") == 6
    assert "val_accuracy" in table.splitlines()[0]
    assert len(table.splitlines()) == 4
    assert len(tested.split(",")) == 2
    assert shape == "torch.Size([2, 10])"
    assert names == "['digits']"
    assert told.count("complete") + told.count("reused") >= 4
