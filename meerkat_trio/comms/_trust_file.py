"""The file in which somebody writes down whom to trust by hand: one JSON object a line.

Reads and writes a small file synchronously: use it before the Trio run, or in a thread.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from ..authority import PeerEndpoint, PeerId
from ._exceptions import TrustFileRefused
from ._file_replacement import alone_in, replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["TRUST_FILE_BYTES", "TrustFile"]

TRUST_FILE_BYTES: Final = 4 * 1024 * 1024
"""The longest trust file that is read or written; some 15,000 peers."""
_MODE: Final = 0o644
_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH
_FIELDS: Final = frozenset({"peer_id", "name", "address", "signing_key"})


@final
class TrustFile:
    """A trust file: the peers whom somebody trusts by hand.

    Each change replaces the whole file atomically, and only a file of which every line is sound is ever
    changed. Changes by several processes at once come one after the other.
    """

    __slots__ = ("path",)

    path: Path
    """Where it is; a symbolic link stays, and what it points to is replaced."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"<TrustFile {self.path}>"

    def endpoints(self) -> tuple[PeerEndpoint, ...]:
        """Read the peers, in the order of the lines.

        Raises:
            TrustFileRefused: there is no such file, others may write it, or a line is broken.
        """
        return tuple(self._read().values())

    def add(self, endpoint: PeerEndpoint) -> bool:
        """Add a peer, or replace what is said of it; makes the file if need be. Say whether anything was changed.

        Raises:
            TrustFileRefused: the file is broken or cannot be written; nothing was changed.
        """
        with _reported(self.path), alone_in(self._real.parent):
            peers = self._read() if self._real.exists() else {}
            if peers.get(endpoint.peer_id) == endpoint:
                return False
            peers[endpoint.peer_id] = endpoint
            self._write(peers.values())
            return True

    def remove(self, peer_id: PeerId) -> bool:
        """Remove a peer; say whether it was there.

        Raises:
            TrustFileRefused: as for `add`, or there is no such file.
        """
        with _reported(self.path), alone_in(self._real.parent):
            peers = self._read()
            if peers.pop(peer_id, None) is None:
                return False
            self._write(peers.values())
            return True

    @property
    def _real(self) -> Path:
        return Path(os.path.realpath(self.path))

    def _read(self) -> dict[PeerId, PeerEndpoint]:
        peers: dict[PeerId, PeerEndpoint] = {}
        for number, line in enumerate(self._content().split(b"\n"), 1):
            if not line.strip():
                continue
            try:
                endpoint = _parse(line)
            except ValueError as error:
                raise TrustFileRefused(self.path, str(error), number) from None
            if endpoint.peer_id in peers:
                raise TrustFileRefused(self.path, f"peer {endpoint.peer_id} has a line already", number)
            peers[endpoint.peer_id] = endpoint
        return peers

    def _content(self) -> bytes:
        with _reported(self.path):
            # Without waiting: opening a pipe would sleep until somebody writes.
            handle = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(handle, "rb") as file:  # noqa: PTH123 - a descriptor, so that what was opened is what is asked
                found = os.fstat(handle)
                if not stat.S_ISREG(found.st_mode):
                    raise TrustFileRefused(self.path, "not a regular file")
                if found.st_mode & _WRITABLE:
                    mode = stat.S_IMODE(found.st_mode)
                    raise TrustFileRefused(self.path, f"others may write it (mode {mode:04o}); chmod go-w it")
                content = file.read(TRUST_FILE_BYTES + 1)
        if len(content) > TRUST_FILE_BYTES:
            raise TrustFileRefused(self.path, f"longer than {TRUST_FILE_BYTES} bytes")
        return content

    def _write(self, peers: Iterable[PeerEndpoint]) -> None:
        content = b"".join(_line(endpoint) for endpoint in peers)
        if len(content) > TRUST_FILE_BYTES:
            raise TrustFileRefused(self.path, f"it would be longer than {TRUST_FILE_BYTES} bytes")
        real = self._real
        mode = stat.S_IMODE(real.stat().st_mode) if real.exists() else _MODE
        replace_file(real, content, mode)


class _reported:  # noqa: N801 - used as a statement is
    """Say of which file an error of the system is."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError):
            raise TrustFileRefused(self._path, f"cannot be used: {error.strerror}") from None


def _line(endpoint: PeerEndpoint) -> bytes:
    entry = {
        "peer_id": endpoint.peer_id,
        "name": endpoint.name,
        "address": endpoint.address,
        "signing_key": endpoint.signing_key.hex(),
    }
    return json.dumps(entry, ensure_ascii=True).encode() + b"\n"


def _parse(line: bytes) -> PeerEndpoint:
    try:
        entry = json.loads(line, object_pairs_hook=_once)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON: {error.msg} (column {error.colno})") from None
    if not isinstance(entry, dict) or entry.keys() != _FIELDS:
        raise ValueError(f"an object with just {', '.join(sorted(_FIELDS))} is needed")
    for name in sorted(_FIELDS):
        if not isinstance(entry[name], str):
            raise ValueError(f"{name}: a text is needed")  # noqa: TRY004 - one kind of error for all
    try:
        key = bytes.fromhex(entry["signing_key"])
    except ValueError:
        raise ValueError("signing_key: 64 hexadecimal digits are needed") from None
    return PeerEndpoint(name=entry["name"], peer_id=entry["peer_id"], address=entry["address"], signing_key=key)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entry = dict(pairs)
    if len(entry) != len(pairs):
        raise ValueError("a field is given twice")
    return entry
