"""A Unix socket's path: it is made for its owner, and nothing is replaced or removed that somebody uses."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from meerkat_trio.comms import SocketNetwork

from .attacker import FRIEND, QUIET, STRANGER, connect
from .rig import SOON, opened

if TYPE_CHECKING:
    from pathlib import Path


async def test_the_path_is_its_owners_alone_and_goes_with_the_listener(tmp_path: Path) -> None:
    path = tmp_path / "here"
    async with SocketNetwork(SOON) as network:
        await opened(network, "victim", f"uds://{path}")
        assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    assert not path.exists()


async def test_a_socket_on_which_nobody_listens_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "here"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    async with SocketNetwork(SOON) as network:
        victim = await opened(network, "victim", f"uds://{path}")
        attacker = await connect(victim, FRIEND)
        await attacker.stream.aclose()


async def test_a_socket_on_which_somebody_listens_is_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "here"
    async with SocketNetwork(SOON) as network:
        with socket.socket(socket.AF_UNIX) as live:
            live.bind(str(path))
            live.listen()
            made = path.lstat()
            with pytest.raises(OSError, match="in use"):
                await opened(network, "victim", f"uds://{path}")
            assert path.lstat().st_ino == made.st_ino
        victim = await opened(network, "victim", f"uds://{path}")
        # Nor may another identity of the same process take its place.
        with pytest.raises(OSError, match="in use"):
            await opened(network, "other", f"uds://{path}")
        attacker = await connect(victim, FRIEND)
        await attacker.stream.aclose()


@pytest.mark.parametrize("kind", ["file", "directory", "link", "dangling"])
async def test_what_is_no_socket_is_in_the_way(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "here"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        (tmp_path / "target").write_text("precious")
        path.symlink_to(tmp_path / "target")
    else:
        path.symlink_to(tmp_path / "nowhere")
    before = path.lstat()
    async with SocketNetwork(SOON) as network:
        with pytest.raises(OSError, match="in use"):
            await opened(network, "victim", f"uds://{path}")
    assert path.lstat() == before
    assert not (tmp_path / "nowhere").exists()


async def test_only_what_is_ours_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "here"
    async with SocketNetwork(SOON) as network:
        await opened(network, "victim", f"uds://{path}")
        path.unlink()
        path.write_text("somebody else's")
    assert path.read_text() == "somebody else's"


async def test_a_path_is_free_as_soon_as_its_listener_stops(tmp_path: Path) -> None:
    address = f"uds://{tmp_path}/here"
    async with SocketNetwork(SOON) as network:
        victim = await opened(network, "victim", address)
        for _ in range(3):
            victim.stop_listening(address)
            assert list(tmp_path.iterdir()) == []
            await victim.listen(address)
        attacker = await connect(victim, STRANGER)
        await attacker.stream.aclose()


async def test_who_holds_the_lock_of_a_directory_holds_up_those_who_listen_there_alone(tmp_path: Path) -> None:
    handle = os.open(tmp_path, os.O_RDONLY)
    async with SocketNetwork(SOON) as network, trio.open_nursery() as nursery:
        fcntl.flock(handle, fcntl.LOCK_EX)
        nursery.start_soon(opened, network, "victim", f"uds://{tmp_path}/here")
        for _ in range(10):
            await trio.lowlevel.checkpoint()
        assert not (tmp_path / "here").exists()
        with trio.CancelScope() as scope:
            scope.cancel()
            await opened(network, "other", f"uds://{tmp_path}/there")
        os.close(handle)
        while not (tmp_path / "here").exists():  # noqa: ASYNC110
            await trio.sleep(0.01)
        await wait_all_tasks_blocked(QUIET)
