"""The command line, `meerkat-trio`. The only room that may print.

Bad input is one clear line and exit status 2; what a command promises did not hold: exit status 1.
"""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    try:
        from ._commands import commands  # noqa: PLC0415 - click is an extra
    except ImportError as error:
        print(f"meerkat-trio needs {error.name}: pip install 'meerkat-trio[cli]'", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    commands()
