"""The one file that touches private names of Trio: control over the order in which its tasks run."""

from __future__ import annotations

import random
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import trio

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["UnsupportedTrioError", "controlled_schedule"]


class UnsupportedTrioError(RuntimeError):
    """This version of Trio lacks the names through which its schedule is controlled."""


@contextmanager
def controlled_schedule(order: random.Random | Any) -> Iterator[None]:
    """Let ``order`` decide in which order the runnable tasks of a tick run: its ``shuffle`` gets them oldest first.

    Trio takes them from the end. What was there before is put back at the end of the block.

    Raises:
        UnsupportedTrioError: this version of Trio does not have what is needed.
    """
    core: Any = trio._core._run  # type: ignore[attr-defined]
    if not hasattr(core, "_ALLOW_DETERMINISTIC_SCHEDULING") or not hasattr(core, "_r"):
        raise UnsupportedTrioError(f"Trio {trio.__version__} does not let its schedule be controlled")
    before = core._ALLOW_DETERMINISTIC_SCHEDULING, core._r
    core._ALLOW_DETERMINISTIC_SCHEDULING, core._r = True, order
    try:
        yield
    finally:
        core._ALLOW_DETERMINISTIC_SCHEDULING, core._r = before
