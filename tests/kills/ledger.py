"""The ledger: what a host has done, a line each, written with O_APPEND at once; and what a test reads out of it.

A line that was written outlives the process. Each host begins with ``start``, so the file falls into one part for each.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, final

from attrs import field, frozen

__all__ = ["Ledger", "Told", "Written"]


@final
class Ledger:
    """Writes lines."""

    def __init__(self, path: Path) -> None:
        self._file: Final = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *words: object) -> None:
        """Write a line."""
        os.write(self._file, f"{' '.join(map(str, words))}\n".encode())


@frozen(kw_only=True)
class Told:
    """One line about a message."""

    host: int
    """Which of the hosts wrote it, from 1 up."""
    session: str
    """Whose message."""
    message: str
    """Its id."""


@frozen(kw_only=True)
class Written:
    """A whole ledger."""

    hosts: int
    """How many have begun."""
    open: bool
    """Whether the last of them serves its sessions."""
    begun: tuple[Told, ...]
    """When handlers have begun."""
    ended: tuple[Told, ...]
    """When handlers have ended."""
    killed: tuple[str, ...]
    """The stages at which hosts have killed themselves."""
    epochs: dict[str, int] = field(factory=dict)
    """By session, the last epoch that was in force and durable."""
    lines: int
    """How many lines it has."""

    @classmethod
    def read(cls, path: Path) -> Written:
        """Read what is there."""
        hosts, is_open = 0, False
        told: dict[str, list[Told]] = {"begin": [], "end": []}
        killed: list[str] = []
        epochs: dict[str, int] = {}
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            match line.split():
                case ["start"]:
                    hosts, is_open = hosts + 1, False
                case ["open"]:
                    is_open = True
                case ["killed", stage]:
                    killed.append(stage)
                case ["epoch", session, epoch]:
                    epochs[session] = int(epoch)
                case [("begin" | "end") as what, session, message]:
                    told[what].append(Told(host=hosts, session=session, message=message))
                case _:
                    raise ValueError(f"{path}: {line!r}")
        return cls(
            hosts=hosts,
            open=is_open,
            begun=tuple(told["begin"]),
            ended=tuple(told["end"]),
            killed=tuple(killed),
            epochs=epochs,
            lines=len(lines),
        )
