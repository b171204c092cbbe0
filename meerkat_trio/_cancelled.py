"""Whose a Cancelled is: the calling task's own, or carried over from another task, which makes it a failure."""

from __future__ import annotations

import math

import trio

__all__ = ["is_being_cancelled", "is_own_cancellation", "split_cancelled"]


def is_being_cancelled() -> bool:
    """Whether the calling task is being cancelled, so that a Cancelled it meets is its own."""
    return trio.current_effective_deadline() == -math.inf


def is_own_cancellation(error: BaseException) -> bool:
    """Whether a Cancelled belongs to the calling task; one that was carried over from another task is a failure."""
    return isinstance(error, trio.Cancelled) and is_being_cancelled()


def split_cancelled(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split an error into what of it is Cancelled and the rest, each None if there is none."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(trio.Cancelled)
    return (error, None) if isinstance(error, trio.Cancelled) else (None, error)
