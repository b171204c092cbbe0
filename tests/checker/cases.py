"""The corpus: every bug beside its repair, loaded from its file."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

__all__ = ["CORPUS", "NAMES", "load"]

CORPUS: Final = Path(__file__).parent / "corpus"
NAMES: Final = tuple(sorted(path.stem for path in (CORPUS / "bugs").glob("*.py")))


@cache
def load(kind: str, name: str) -> ModuleType:
    """Import a case from ``bugs`` or ``fixes``."""
    path = CORPUS / kind / f"{name}.py"
    spec = importlib.util.spec_from_file_location(f"corpus_{kind}_{name}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"no module in {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
