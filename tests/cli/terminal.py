"""Runs the command line on a terminal of a given width."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios

_STYLES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(columns: int, *args: str, stdin: bytes = b"") -> list[str]:
    """Return the lines that are on the terminal, without styles; standard error is no part of it."""
    reading, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "NO_COLOR"}}
    with subprocess.Popen(
        [sys.executable, "-m", "meerkat_trio.cli", *args],
        stdin=subprocess.PIPE,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
        env=environment | {"TERM": "xterm"},
    ) as running:
        os.close(terminal)
        assert running.stdin is not None
        running.stdin.write(stdin)
        running.stdin.close()
        shown = b""
        try:
            while part := os.read(reading, 65536):
                shown += part
        except OSError:
            pass  # how Linux says that nobody holds the terminal any more
        finally:
            os.close(reading)
    return [line.rstrip() for line in _STYLES.sub("", shown.decode()).replace("\r", "").splitlines()]
