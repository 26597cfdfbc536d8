"""Every kind of database passes the contract suite of stores."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from studies.store.store import Store
from studies.store.testing import check


@pytest.mark.parametrize("durable", [False, True])
def test_sqlite(tmp_path: Path, durable: bool) -> None:
    assert list(check(lambda: Store(f"sqlite:///{tmp_path}/nas.db", durable=durable))) == []


def test_postgresql(tmp_path: Path, postgresql: Callable[[], str]) -> None:
    url = postgresql()
    assert list(check(lambda: Store(url, tmp_path))) == []


def test_a_store_that_forgets_is_noticed(tmp_path: Path) -> None:
    class Forgetful(Store):
        def tell(self, run_id: int, position: int) -> None:
            pass

    findings = list(check(lambda: Forgetful(f"sqlite:///{tmp_path}/nas.db")))
    assert findings == ["tell: the position is not stored"]
