"""`python -m tests.vectors`: checks `wire.json` against the code; with ``--write``, makes it anew from the code."""

from __future__ import annotations

import sys

from . import check, make


def main() -> None:
    """Check, or write; the exit status is 0 only if everything holds."""
    if sys.argv[1:] == ["--write"]:
        make.write()
    elif sys.argv[1:]:
        sys.exit(f"usage: python -m {__package__} [--write]")
    failures = check.check()
    for failure in failures:
        print(failure)
    print(f"{make.FILE}: {f'{len(failures)} failed' if failures else 'all hold'}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
