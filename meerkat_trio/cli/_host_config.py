"""The configuration of `meerkat-trio host`: a TOML file, checked to the last key before anything is opened."""

from __future__ import annotations

import inspect
import math
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click
from attrs import frozen

from ..comms import Identity, KeyFileRefused, TrustFileRefused
from ..testing._lanes import shown
from ._keygen import SECRET_KEY
from ._scenario import load
from ._trust import trusted_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .._session import Handler
    from ..authority import PeerEndpoint
    from ..journals._sqlite_file import Durability

__all__ = ["HostConfig", "SessionConfig", "read_config"]

_SHORTEST_LEASE: Final = 0.1
_LONGEST_LEASE: Final = 86400
"""Those of `RedisJournal`, which is an extra."""
_HOST_KEYS: Final = {"status", "grace", "journal", "durability", "redis", "namespace", "lease", "name"}
_DURABILITIES: Final[tuple[Durability, ...]] = ("full", "normal")
_COUNTS: Final = ("work_queue", "max_attempts", "abandoned_limit", "outbox", "work_lane", "control_lane")
_SESSION_KEYS: Final = {"name", "key", "listen", "advertise", "handler", *_COUNTS}
_NEEDED: Final = ("name", "key")
_OF_SOCKETS: Final = ("listen", "advertise")
_OF_COMMS: Final = ("work_lane", "control_lane")


@frozen(kw_only=True)
class SessionConfig:
    """One session and its transport."""

    name: str
    """The session's id, and the logical id of its transport."""
    identity: Identity
    """Who it is."""
    trusted: tuple[PeerEndpoint, ...]
    """Whom it trusts by hand."""
    listen: str
    """Where it listens; empty if it is reached through Redis."""
    advertise: str | None
    """What peers are told instead."""
    handler: Handler | None
    """Its handler; None prints."""
    options: Mapping[str, int]
    """Of `MeerkatMachine.register`."""
    lanes: Mapping[str, int]
    """Of `SocketNetwork.open`."""


@frozen(kw_only=True)
class HostConfig:
    """A whole host."""

    status: str | None
    """Where `watch` looks."""
    grace: float
    """Seconds for what is queued when it shuts down."""
    journal: Path | None
    """The file in which sessions remember; None: in memory."""
    durability: Durability
    """Of the journal."""
    redis: str | None
    """The server through which sessions are shared with other hosts, and reached; None: this host has them alone."""
    namespace: str
    """What the server's keys begin with."""
    lease: float
    """Seconds for which sessions stay with a host that is not heard of."""
    name: str
    """What this host is called, for people."""
    sessions: tuple[SessionConfig, ...]
    """At least one."""


def read_config(path: Path) -> HostConfig:
    """Read and check a file.

    Raises:
        click.UsageError: it cannot be read, or something in it is of no use; says what and where.
    """
    try:
        content = tomllib.loads(path.read_text())
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise click.UsageError(f"{path}: no TOML: {error}") from None
    table = _Table(f"{path}", content, {"host", "session"})
    host = _Table(f"{path}: [host]", table.get("host", dict, {}), _HOST_KEYS)
    sessions = table.get("session", list, [])
    if not sessions:
        table.refuse("session", "at least one [[session]] is needed")
    redis = host.get("redis", str, None)
    if redis is not None and "journal" in host.content:
        host.refuse("journal", "with redis, sessions are remembered there")
    configs = [_session(path, number, each, shared=redis is not None) for number, each in enumerate(sessions, start=1)]
    names = [each.name for each in configs]
    for name in names:
        if names.count(name) > 1:
            table.refuse("session", f"two are called {name!r}")
    grace = host.get("grace", float, 10.0)
    if not 0 <= grace < math.inf:
        host.refuse("grace", "seconds from 0 up are needed")
    status = host.get("status", str, None)
    if status is not None and not _is_private(status):
        host.refuse("status", "uds:///path, or tcp:// on a loopback address, is needed")
    journal = host.get("journal", str, None)
    if journal is not None and "\0" in journal:
        host.refuse("journal", "a path is needed")
    durability = host.get("durability", str, "full")
    if durability not in _DURABILITIES:
        host.refuse("durability", "full or normal is needed")
    lease = host.get("lease", float, 10.0)
    if not _SHORTEST_LEASE <= lease <= _LONGEST_LEASE:
        host.refuse("lease", f"seconds from {_SHORTEST_LEASE} to {_LONGEST_LEASE} are needed")
    return HostConfig(
        redis=redis,
        namespace=host.get("namespace", str, "meerkat"),
        lease=lease,
        name=host.get("name", str, "host"),
        status=status,
        grace=grace,
        journal=None if journal is None else path.parent / journal,
        durability=durability,
        sessions=tuple(configs),
    )


def _session(path: Path, number: int, content: object, *, shared: bool) -> SessionConfig:
    table = _Table(f"{path}: [[session]] {number}", content, _SESSION_KEYS)
    for key in _NEEDED if shared else (*_NEEDED, "listen"):
        if not table.get(key, str, ""):
            table.refuse(key, "is needed")
    for key in _OF_SOCKETS if shared else ():
        if key in table.content:
            table.refuse(key, "with redis, sessions are reached through it")
    name = table.get("name", str, "")
    if not name.strip() or not name.isprintable():
        table.refuse("name", "a printable text is needed")
    directory = path.parent / table.get("key", str, "")
    try:
        identity, trusted = Identity.load(directory / SECRET_KEY), trusted_by(directory)
    except (KeyFileRefused, TrustFileRefused) as refused:
        table.refuse("key", str(refused))
    counts = {key: table.get(key, int, 1) for key in _COUNTS if key in table.content}
    for key, count in counts.items():
        if count < 1:
            table.refuse(key, "1 or more is needed")
    return SessionConfig(
        name=name,
        identity=identity,
        trusted=trusted,
        listen=table.get("listen", str, ""),
        advertise=table.get("advertise", str, None),
        handler=_handler(table),
        options={key: count for key, count in counts.items() if key not in _OF_COMMS},
        lanes={key: count for key, count in counts.items() if key in _OF_COMMS},
    )


def _handler(table: _Table) -> Handler | None:
    target = table.get("handler", str, None)
    if target is None:
        return None
    try:
        handler: Handler = load(target)
    except click.UsageError as error:
        table.refuse("handler", error.message)
    if not inspect.iscoroutinefunction(handler):
        table.refuse("handler", f"{target} is no async function")
    return handler


def _is_private(address: str) -> bool:
    """Whether nobody on another host can look."""
    scheme, _, location = address.partition("://")
    host = location.rpartition(":")[0]
    return scheme == "uds" or (scheme == "tcp" and host in {"localhost", "127.0.0.1", "[::1]"})


class _Table:
    """A table of the file, and how what is wrong with it is told."""

    def __init__(self, where: str, content: object, keys: set[str]) -> None:
        self._where = where
        if not isinstance(content, dict):
            raise click.UsageError(f"{where}: a table is needed")
        self.content: dict[str, Any] = content
        for key in content:
            if key not in keys:
                self.refuse(key, f"there is no such key; there are {', '.join(sorted(keys))}")

    def get(self, key: str, kind: type, default: Any) -> Any:
        """Return a value of the kind that is needed."""
        value = self.content.get(key, default)
        if value is default:
            return default
        if kind is float and type(value) is int:
            return float(value)
        if type(value) is not kind:
            self.refuse(key, f"{_KINDS[kind]} is needed, not {value!r}")
        return value

    def refuse(self, key: str, why: str) -> NoReturn:
        raise click.UsageError(shown(f"{self._where}: {key}: {why}"))


_KINDS: Final = {str: "a text", int: "a whole number", float: "a number", list: "a list of tables", dict: "a table"}
