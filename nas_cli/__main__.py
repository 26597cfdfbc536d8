"""`python -m nas_cli`: the same as `nas`."""

from __future__ import annotations

import sys

from nas_cli import packages

if __name__ == "__main__":
    # Before anything of ours is imported: an intruder would end as an ImportError.
    problem = packages.intruder()
    if problem:
        print(f"nas: {problem}", file=sys.stderr)
        sys.exit(5)
    from nas_cli.app import main

    main()
