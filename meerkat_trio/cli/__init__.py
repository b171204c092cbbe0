"""The command line, `meerkat-trio`. The only room that may print.

Bad input is one clear line and exit status 2; what a command promises did not hold: exit status 1.
"""

from __future__ import annotations

import io
import os
import sys
from typing import Final, NoReturn

__all__ = ["main"]


INTERRUPTED: Final = 130
"""The exit status of a process that Ctrl-C ended."""


def main() -> None:
    """Run the command line."""
    try:
        if sys.stdout is None:
            _fail("standard output is closed", 1)
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # What the encoding does not have is shown as its code.
                stream.reconfigure(errors="backslashreplace")
        _run()
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # noqa: T201
        sys.exit(INTERRUPTED)


def _run() -> None:
    try:
        from ._commands import commands  # noqa: PLC0415 - click is an extra, and loading it takes time
    except ImportError as error:
        _fail(f"the command line needs {error.name}: pip install 'meerkat-trio[cli]'", 2)
    try:
        commands()
    except OSError as error:
        # The output's own: what commands read and write they answer for themselves.
        # What is left in the buffer cannot be written either, and must not be tried again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _fail(f"the output cannot be written: {error.strerror}", 1)


def _fail(why: str, status: int) -> NoReturn:
    print(f"meerkat-trio: {why}", file=sys.stderr)  # noqa: T201
    sys.exit(status)
