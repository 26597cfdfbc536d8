"""`nas` and `python -m nas_cli`: checks that our packages are ours, then hands over to the commands."""

from __future__ import annotations

import sys

from nas_cli import packages


def main() -> None:
    """The console script."""
    # Before anything of ours is imported: an intruder would end as an ImportError.
    problem = packages.intruder()
    if problem:
        print(f"nas: {problem}", file=sys.stderr)
        sys.exit(5)
    from nas_cli.app import run
    from nas_cli.output import standard_streams

    with standard_streams():
        code = run(sys.argv[1:])
    sys.exit(code)


if __name__ == "__main__":
    main()
