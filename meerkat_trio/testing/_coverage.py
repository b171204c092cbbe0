"""Cancellation coverage: at which of the await lines a cancellation was really delivered. Knows no run."""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from attrs import frozen

from ._parked import short

__all__ = ["CancellationCoverage", "measure", "source_files"]

_AWAITING: Final = (ast.Await, ast.AsyncWith, ast.AsyncFor)


@frozen(kw_only=True)
class CancellationCoverage:
    """Await lines, as ``file:line``: an ``await``, ``async with`` or ``async for`` each."""

    lines: frozenset[str]
    """All that stand in the source, reached or not."""
    reached: frozenset[str]
    """Those at which a task was parked."""
    struck: frozenset[str]
    """Those through which a Cancelled came."""

    @property
    def percent(self) -> float:
        """The share of the reached lines that were struck, 0 to 100; 100 if none was reached."""
        return 100.0 * len(self.struck) / len(self.reached) if self.reached else 100.0

    @property
    def percent_of_all(self) -> float:
        """The share of all lines of the source that were struck, reached or not, 0 to 100."""
        return 100.0 * len(self.struck) / len(self.lines) if self.lines else 100.0

    @property
    def never_struck(self) -> tuple[str, ...]:
        """Reached lines at which no cancellation was delivered."""
        return tuple(sorted(self.reached - self.struck, key=_by_line))

    @property
    def never_reached(self) -> tuple[str, ...]:
        """Lines at which no task was ever parked."""
        return tuple(sorted(self.lines - self.reached, key=_by_line))

    def __or__(self, other: CancellationCoverage) -> CancellationCoverage:
        """Return what both have seen together."""
        return CancellationCoverage(
            lines=self.lines | other.lines,
            reached=self.reached | other.reached,
            struck=self.struck | other.struck,
        )


def _by_line(place: str) -> tuple[str, int]:
    file, _, line = place.rpartition(":")
    return file, int(line)


def source_files(source: Sequence[str]) -> tuple[str, ...]:
    """Return the Python files that are meant by package names, module names, folders or files.

    Raises:
        ValueError: naming what is neither.
    """
    files: list[Path] = []
    for name in source:
        path = Path(name)
        if not path.exists():
            try:
                spec = importlib.util.find_spec(name)
            except (ImportError, ValueError):
                spec = None
            if spec is None or spec.origin is None:
                raise ValueError(f"source: neither a package nor a file: {name!r}")
            path = Path(spec.origin)
            path = path.parent if path.name == "__init__.py" else path
        files += sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return tuple(str(file.resolve()) for file in files)


def measure(
    files: Iterable[str], reached: Iterable[tuple[str, int]], struck: Iterable[tuple[str, int]]
) -> CancellationCoverage:
    """Bring what was seen down to the await expressions of some files."""
    wanted = set(files)
    awaits = {file: _awaits(file) for file in wanted}
    struck_lines = _at_awaits(struck, awaits)
    return CancellationCoverage(
        lines=frozenset(f"{short(file)}:{start}" for file, ranges in awaits.items() for start, _ in ranges),
        reached=_at_awaits(reached, awaits) | struck_lines,
        struck=struck_lines,
    )


def _at_awaits(seen: Iterable[tuple[str, int]], awaits: dict[str, tuple[tuple[int, int], ...]]) -> frozenset[str]:
    found = set()
    for file, line in seen:
        around = [(start, end) for start, end in awaits.get(file, ()) if start <= line <= end]
        if around:
            start, _ = max(around, key=lambda span: (span[0], -span[1]))
            found.add(f"{short(file)}:{start}")
    return frozenset(found)


def _is_shielded(node: ast.AST) -> bool:
    """Whether no cancellation can ever arrive there."""
    call = node.value if isinstance(node, ast.Await) else None
    function = call.func if isinstance(call, ast.Call) else None
    return isinstance(function, ast.Attribute | ast.Name) and "cancel_shielded_checkpoint" in ast.dump(function)


@functools.cache
def _awaits(file: str) -> tuple[tuple[int, int], ...]:
    """Return the first and last line of each await of a file; of a block, only its head counts."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return ()
    spans = set()
    for node in ast.walk(tree):
        if isinstance(node, _AWAITING) and not _is_shielded(node):
            end = node.end_lineno or node.lineno
            if isinstance(node, ast.AsyncWith | ast.AsyncFor):
                end = max(node.lineno, node.body[0].lineno - 1)
            spans.add((node.lineno, end))
        elif isinstance(node, ast.comprehension) and node.is_async:
            spans.add((node.target.lineno, node.iter.end_lineno or node.target.lineno))
    return tuple(sorted(spans))
