"""A connection to the server that is made again and again: the one file that knows the library.

Each connection belongs to one task, which sends what it has, waits for the replies, and cuts the connection if they do
not come. So there is no pool whose slots a cancellation could leak, nobody else's command dies with ours, and nothing
is sent twice behind our back.
"""

from __future__ import annotations

import logging
import random
from typing import TYPE_CHECKING, Any, Final, final

import trio

from ._redis_scripts import SCRIPTS, digest

try:
    import anyio
    from coredis.connection import BaseConnection, TCPLocation, UnixDomainSocketLocation
    from coredis.exceptions import RedisError
    from coredis.pool import ConnectionPool
except ImportError as error:
    _missing = (error.name or "coredis").partition(".")[0]
    raise ImportError(
        f"the Redis transport needs {_missing}: pip install 'meerkat-trio[redis]'", name=_missing
    ) from error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from anyio.abc import ByteStream
    from coredis.connection import Location

    from ._redis_limits import RedisLimits

__all__ = ["Link", "Server", "Troubles"]

_logger = logging.getLogger("meerkat_trio.comms.redis")

_SCHEMES: Final = ("redis://", "rediss://", "unix://")
_LOST: Final = (RedisError, OSError, trio.TooSlowError, anyio.ClosedResourceError, anyio.BrokenResourceError)
"""How a connection ends that has not been cancelled."""


@final
class Server:
    """Where the server is, and how one introduces oneself to it."""

    def __init__(self, url: str) -> None:
        """Parse a URL.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(url, str) or not url.startswith(_SCHEMES):
            raise ValueError("url: redis://, rediss:// or unix:// is needed")
        pool = ConnectionPool.from_url(url)
        if not isinstance(pool.location, (TCPLocation, UnixDomainSocketLocation)):
            raise ValueError("url: it names no server")  # noqa: TRY004 - it is the text that is wrong
        self.location: TCPLocation | UnixDomainSocketLocation = pool.location
        self._options: dict[str, Any] = {
            name: value
            for name, value in pool.connection_kwargs.items()
            if name in {"username", "password", "db", "ssl_context", "client_name"}
        }

    async def connect(self) -> BaseConnection:
        """Connect, and say nothing yet.

        **Cancellation:** nothing is open.
        """
        # Connected before the library's connection is made: one that is made in vain leaves its channels unclosed.
        stream: ByteStream
        if isinstance(self.location, UnixDomainSocketLocation):
            stream = await anyio.connect_unix(self.location.path)
        elif (context := self._options.get("ssl_context")) is not None:
            stream = await anyio.connect_tcp(
                self.location.host, self.location.port, ssl_context=context, tls_standard_compatible=False
            )
        else:
            stream = await anyio.connect_tcp(self.location.host, self.location.port)
        return _Connection(stream, self.location, self._options)


class _Connection(BaseConnection):
    """The library's connection, over a stream that stands already."""

    def __init__(self, stream: ByteStream, location: Location, options: dict[str, Any]) -> None:
        super().__init__(location, **options)
        self._connected = stream

    async def _connect(self) -> ByteStream:  # noqa: ASYNC910 - the library's to call
        return self._connected

    def describe(self) -> str:
        return f"<connection to {self.location!r}>"


@final
class Troubles:
    """What is wrong with the server: one warning when something begins to be, one word when nothing is any more."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}

    def begin(self, what: str, why: str) -> None:
        """Note that something is wrong."""
        if not self._known:
            _logger.warning("Redis: %s; what is to be sent waits, and it is tried again", why)
        self._known[what] = why

    def end(self, what: str) -> None:
        """Note that it is not wrong any more."""
        if self._known.pop(what, None) is not None and not self._known:
            _logger.info("Redis: all is well again")

    def __contains__(self, what: str) -> bool:
        return what in self._known


@final
class Link:
    """One task's connection to the server; each time it stands, ``serve`` runs with it."""

    def __init__(
        self,
        name: str,
        server: Server,
        limits: RedisLimits,
        troubles: Troubles,
        scripts: Sequence[str] = SCRIPTS,
    ) -> None:
        self._name = name
        self._digests = {script: digest(script) for script in scripts}
        self._server = server
        self._limits = limits
        self._troubles = troubles
        self._connection: BaseConnection | None = None
        self._pause = limits.first_backoff
        self.connects: int = 0
        """How many connections there have been."""

    @property
    def is_up(self) -> bool:
        """Whether the connection stands, as far as is known."""
        return self._connection is not None and self._connection.usable

    def require(self) -> None:
        """Go on if the connection stands: what has not been sent is then known not to have been.

        Raises:
            OSError: it does not.
        """
        if not self.is_up:
            raise OSError("the connection is lost")

    @property
    def client_id(self) -> int | None:
        """What the server knows the connection by."""
        return None if self._connection is None else self._connection.client_id

    async def run(self, serve: Callable[[], Awaitable[None]]) -> None:
        """Connect, serve, and again, for ever.

        **Cancellation:** this is how it ends; what was sent may have been done or not.
        """
        while True:
            error = await self._run_once(serve)
            self._troubles.begin(self._name, f"{type(error).__name__}: {error}")
            await trio.sleep(self._pause * (0.5 + random.random()))  # noqa: S311 - it only keeps peers apart
            self._pause = min(2 * self._pause, self._limits.max_backoff)

    async def _run_once(self, serve: Callable[[], Awaitable[None]]) -> Exception | None:
        lost: Exception | None = None
        async with trio.open_nursery() as nursery:
            try:
                with trio.fail_after(self._limits.connect_timeout):
                    connection = await self._server.connect()
                    await nursery.start(connection.run)
                    self._connection = connection
                    await self._load_scripts()
                self.connects += 1
                await serve()
            except _LOST as error:
                lost = error
            finally:
                self._connection = None
            nursery.cancel_scope.cancel()
        return lost

    async def _load_scripts(self) -> None:
        requests = [self._request(b"SCRIPT LOAD", script) for script in self._digests]
        for request in requests:
            await request

    def is_well(self) -> None:
        """Note that what was asked was answered."""
        self._pause = self._limits.first_backoff
        self._troubles.end(self._name)

    def _request(self, *command: Any) -> Awaitable[Any]:
        if self._connection is None:
            raise OSError("the connection is lost")
        return self._connection.create_request(*command)

    def send(self, *commands: Sequence[Any]) -> list[Awaitable[Any]]:
        """Send commands at once: each the command's name, or a script with what follows it in EVALSHA.

        Raises:
            RedisError, OSError: the connection is to be given up.
        """
        return [
            self._request(b"EVALSHA", self._digests[command[0]], *command[1:])
            if command[0] in self._digests
            else self._request(*command)
            for command in commands
        ]

    async def receive(self, requests: Sequence[Awaitable[Any]], *, wait: float = 0.0) -> list[Any]:
        """Return what the server says to what was sent.

        Args:
            requests: what `send` returned.
            wait: for how many seconds the server may take its time, beyond what is usual.

        Raises:
            RedisError, OSError, trio.TooSlowError: the connection is to be given up.

        **Cancellation:** they may have been done or not; the connection is to be given up.
        """
        if not requests:
            return []
        with trio.fail_after(self._limits.command_timeout + wait):
            replies = [await request for request in requests]
        self.is_well()
        return replies

    async def ask(self, *commands: Sequence[Any]) -> list[Any]:
        """Send commands at once, and return what the server says to each.

        Raises:
            RedisError, OSError, trio.TooSlowError: the connection is to be given up.

        **Cancellation:** they may have been done or not; the connection is to be given up.
        """
        return await self.receive(self.send(*commands))
