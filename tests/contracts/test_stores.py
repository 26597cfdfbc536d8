"""Every kind of database passes the contract suite of stores."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nas_core.testing.store import check
from studies.store.store import Store


@pytest.mark.parametrize("durable", [False, True])
def test_sqlite(tmp_path: Path, durable: bool) -> None:
    assert list(check(lambda: Store(f"sqlite:///{tmp_path}/nas.db", durable=durable))) == []


def test_postgresql() -> None:
    url = os.environ.get("NAS_TEST_POSTGRESQL")
    if not url:
        pytest.skip("needs an empty PostgreSQL database; name its URL in NAS_TEST_POSTGRESQL")
    assert list(check(lambda: Store(url))) == []


def test_a_store_that_forgets_is_noticed(tmp_path: Path) -> None:
    class Forgetful(Store):
        def tell(self, run_id: int, position: int) -> None:
            pass

    findings = list(check(lambda: Forgetful(f"sqlite:///{tmp_path}/nas.db")))
    assert findings == ["tell: the position is not stored"]
