"""`python -m tests.golden` says what `golden.json` would say now; `--write` writes it, for a change that is meant."""

from __future__ import annotations

import json
import sys

from tests.golden.record import GOLDEN, everything

text = json.dumps(everything(), indent=1) + "\n"
if "--write" in sys.argv[1:]:
    GOLDEN.write_text(text)
else:
    print(text, end="")
