"""A run of its own, with the plugins of this folder and their settings, for tests of what they do."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def inner(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeini(
        "[pytest]\n"
        "addopts = -p tests.plugins.cpu -p tests.plugins.lottery -m 'not slow and not matrix'\n"
        "markers =\n  slow\n  matrix\n"
        "cpu_limit = 0.5\n"
    )
    return pytester
