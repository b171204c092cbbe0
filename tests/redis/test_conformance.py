"""Redis keeps every promise of the contract."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meerkat_trio.testing import COMMS_RULES, check_comms_runtime

from .rig import bench

if TYPE_CHECKING:
    from .rig import Server

QUIET = 0.05
"""Longer than a round trip to the server and back, and shorter than a reading, in seconds."""


@pytest.mark.parametrize("rule", COMMS_RULES)
async def test_redis_keeps_the_rule(rule: str, shared_server: Server) -> None:
    await check_comms_runtime(bench(shared_server), rules=[rule], quiet=QUIET)
