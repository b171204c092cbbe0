"""A server for the tests that leave it as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from .rig import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .rig import Server


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(tmp_path_factory.mktemp("redis")) as server:
        yield server
