"""What is in a directory."""

from __future__ import annotations

from pathlib import Path

__all__ = ["names_in"]


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())
