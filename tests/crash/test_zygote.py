"""What a failed test leaves running does not keep the tests after it from starting anything."""

from __future__ import annotations

import time
from pathlib import Path

from tests.zygote import Call, Zygote


def test_a_child_that_nobody_waits_for_is_killed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / "sleep.py").write_text(
        "import pathlib, time\npathlib.Path('begun').touch()\ntime.sleep(20)\npathlib.Path('slept').touch()\n"
    )
    (tmp_path / "end.py").write_text("import sys\nsys.exit(7)\n")
    with Zygote([], {}) as zygote:
        calls = (
            Call("__main__:program", [f"{name}.py"], str(tmp_path), str(tmp_path / "said")) for name in ("sleep", "end")
        )
        left = zygote.start(next(calls))
        while not (tmp_path / "begun").exists():
            time.sleep(0.005)
        assert zygote.wait(zygote.start(next(calls))) == 7
        assert not Path(f"/proc/{left}").exists()
        assert not (tmp_path / "slept").exists()
