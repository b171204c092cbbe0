"""Sockets keep every promise of the contract, over TCP and over Unix sockets."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest

from meerkat_trio.testing import COMMS_RULES, check_comms_runtime

from .rig import bench

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.trio

QUIET = 0.02
"""Longer than a round trip inside this machine, in seconds."""


@pytest.mark.parametrize("rule", COMMS_RULES)
async def test_tcp_keeps_the_rule(rule: str) -> None:
    await check_comms_runtime(bench(lambda: "tcp://127.0.0.1:0"), rules=[rule], quiet=QUIET)


@pytest.mark.parametrize("rule", COMMS_RULES)
async def test_unix_sockets_keep_the_rule(rule: str, tmp_path: Path) -> None:
    numbers = itertools.count()
    await check_comms_runtime(bench(lambda: f"uds://{tmp_path}/{next(numbers)}"), rules=[rule], quiet=QUIET)
