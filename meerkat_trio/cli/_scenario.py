"""Finds the scenario that a command line names: `package.module:name` or `path/to/file.py:name`."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import click

__all__ = ["load"]

_NAMES_SHOWN: Final = 8


def load(target: str) -> Any:
    """Import a module, the current directory being importable, and return what its name stands for.

    Raises:
        click.UsageError: it cannot be imported, or has no such name; the message says why.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise click.UsageError(f"{target}: package.module:scenario or path/to/file.py:scenario is needed")
    module = _imported(place)
    found: Any = module
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            raise click.UsageError(f"{place} has no {name!r}; {_offers(module)}")
    return found


def _offers(module: ModuleType) -> str:
    """Say which async functions a module defines itself."""
    names = [
        name
        for name, value in vars(module).items()
        if inspect.iscoroutinefunction(value) and value.__module__ == module.__name__
    ]
    if not names:
        return "it has no async function"
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return f"its async functions are {', '.join(names[:_NAMES_SHOWN])}{more}"


def _imported(place: str) -> ModuleType:
    # As under `python -m`: what is in the current directory comes first.
    _importable(Path.cwd())
    # What a module prints while it is imported must not get into the output.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            if place.endswith(".py") or os.sep in place:
                return _from_file(place)
            return importlib.import_module(place)
        except click.UsageError:
            raise
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a module may raise anything
            raise click.UsageError(f"{place} cannot be imported: {_why(error)}") from None


def _from_file(place: str) -> ModuleType:
    path = Path(place)
    if not path.is_file():
        raise click.UsageError(f"{place}: {'a directory' if path.is_dir() else 'no such file'}")
    path = path.resolve()
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file() and folder != folder.parent:
        parts.insert(0, folder.name)
        folder = folder.parent
    if parts[-1] == "__init__":
        parts.pop()
    _importable(folder)
    name = ".".join(parts)
    known = sys.modules.get(name)
    if known is None and len(parts) > 1:
        return importlib.import_module(name)
    if known is not None and known.__file__ is not None and Path(known.__file__).resolve() == path:
        return known
    # By its file, not by its name: that may be the name of an installed module too.
    return _executed(name if known is None else f"{name}_by_path", path)


def _executed(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise click.UsageError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _importable(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _why(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it exits with {error.code!r}"
    if isinstance(error, SyntaxError):
        return f"SyntaxError: {error}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    place = "" if last.filename.startswith("<frozen") else f" ({last.filename}:{last.lineno})"
    return f"{type(error).__name__}: {error}{place}"
