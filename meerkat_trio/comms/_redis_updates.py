"""What the mailboxes of a network have to write: it rides with the next reading, or goes out on its own.

Whoever has a connection takes what there is, and says how it ended; what was not written is there again.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, final

import trio

from ._redis_scripts import FENCED, GROUP, UPDATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._redis_limits import RedisLimits
    from ._redis_mailbox import Mailbox, Update
    from ._redis_scripts import Keys

__all__ = ["Batch", "Updates"]


class Network(Protocol):
    """Whose updates these are."""

    limits: RedisLimits
    keys: Keys

    def is_fenced(self, mailbox: Mailbox) -> None:
        """Note that the lease of a mailbox is lost."""

    def lacks_memory(self, what: str, *, lacks: bool) -> None:
        """Note whether the server had memory for what was to be written."""


@final
class Batch:
    """Updates that are being written."""

    def __init__(self, owner: Updates, network: Network, updates: list[Update]) -> None:
        self._owner = owner
        self._network = network
        self._updates = updates
        self.is_known: bool = False
        """Whether it is known what became of them."""

    def __bool__(self) -> bool:
        return bool(self._updates)

    def commands(self) -> list[tuple[Any, ...]]:
        """Return what to ask the server, a command for each."""
        return [self._command(update) for update in self._updates]

    def _command(self, update: Update) -> tuple[Any, ...]:
        keys, limits, mailbox = self._network.keys, self._network.limits, update.mailbox
        peer_id, fence = mailbox.identity.peer_id, mailbox.fence
        streams = (intake.stream for intake in mailbox.intakes.values())
        key, token = ("", "") if fence is None else (fence.key, fence.token)
        return (
            *(UPDATE, 5, *streams, keys.parts(peer_id), keys.dead(peer_id), key),
            *(token, GROUP, limits.dead_letters, limits.answers_limit, len(update.changes)),
            *(argument for change in update.changes for argument in change.arguments()),
            *(argument for stream, signed in update.answers for argument in (stream, *signed.arguments())),
        )

    def have(self, replies: Sequence[Any]) -> None:
        """Take what the server said."""
        self.is_known = True
        lacks = False
        for update, reply in zip(self._updates, replies, strict=True):
            if reply == FENCED:
                update.mailbox.written(update, 0)
                self._network.is_fenced(update.mailbox)
                continue
            lacks |= bool(reply)
            update.mailbox.written(update, reply)
        if lacks:
            self._owner.rests_until = trio.current_time() + self._network.limits.full_pause
        if self._updates:
            self._network.lacks_memory("answers", lacks=lacks)

    def put_back(self) -> None:
        """Let them be written again."""
        for update in self._updates:
            update.mailbox.put_back(update)


@final
class Updates:
    """What is to be written."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._waiting: dict[Mailbox, None] = {}
        self.rests_until: float = -math.inf
        """The server had no memory: when to try again."""

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def is_due(self) -> bool:
        """Whether there is something that may be written now."""
        return bool(self._waiting) and trio.current_time() >= self.rests_until

    def add(self, mailbox: Mailbox) -> None:
        """Note that a mailbox has something to write."""
        self._waiting[mailbox] = None

    @contextmanager
    def taken(self, *, wanted: bool = True) -> Iterator[Batch]:
        """Take what there is, if it is wanted; unless its end is known when this is left, it is there again."""
        free: list[Mailbox] = []
        if wanted and self.is_due:
            # One at a time for each: two on two connections might be written in the wrong order.
            free = [mailbox for mailbox in self._waiting if not mailbox.in_writing]
            self._waiting = {mailbox: None for mailbox in self._waiting if mailbox.in_writing}
        batch = Batch(self, self._network, [update for each in free for update in each.take_updates()])
        try:
            yield batch
        finally:
            if not batch.is_known:
                batch.put_back()
