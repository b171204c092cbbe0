"""The command line, `meerkat-trio`. The only room that may print.

Bad input is one clear line and exit status 2; what a command promises did not hold: exit status 1.
"""

from __future__ import annotations

import os
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line."""
    try:
        from ._commands import commands  # noqa: PLC0415 - click is an extra
    except ImportError as error:
        print(f"meerkat-trio needs {error.name}: pip install 'meerkat-trio[cli]'", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except KeyboardInterrupt:
        # Later it is the commands' own business.
        print("interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    try:
        commands()
    except OSError as error:
        # The output's own: what commands read and write they answer for themselves.
        print(f"meerkat-trio: the output cannot be written: {error.strerror}", file=sys.stderr)  # noqa: T201
        # What is left in the buffer cannot be written either, and must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
