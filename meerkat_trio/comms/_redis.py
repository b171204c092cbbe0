"""The transport for sessions spread over hosts, over one Redis or Valkey server: what one process has of it.

A network has the tasks, one that reads and one that writes, and what outlives comms runtimes. So a session that is
bound to another instance, or cancelled, leaves the server's streams as they are.
"""

from __future__ import annotations

import logging
import math
import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self, final

import trio

from ..authority import DropReason, Lane, PeerAddress, PeerEndpoint, PeerId
from ._arrivals import Arrivals
from ._bundle import peer_id_of
from ._envelope import CLOCK_SKEW
from ._exceptions import WireRefused
from ._identity import Identity
from ._inbox import Inbox
from ._inbox_comms import require_runtime_id
from ._redis_comms import RedisComms
from ._redis_entries import SignedAnswers
from ._redis_limits import RedisLimits, RedisStatistics
from ._redis_link import Link, Server, Troubles
from ._redis_mailbox import Mailbox
from ._redis_outgoing import Post
from ._redis_reader import Reader
from ._redis_scripts import Keys
from ._redis_updates import Updates
from ._redis_writer import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from ..authority import CommsRuntimeId, MessageId
    from ._redis_limits import Fence
    from ._redis_outgoing import Route, Way

__all__ = ["RedisNetwork"]

_logger = logging.getLogger("meerkat_trio.comms.redis")

_CLOSED: Final = DropReason.CLOSED
_DEAD_LETTERS_TOLD: Final = 10.0
"""Seconds between two warnings of dead letters."""
_LANES: Final = (Lane.CONTROL, Lane.WORK)


@final
class RedisNetwork:
    """What the `RedisComms` of one process share: two tasks, two connections, bounds. Use it with ``async with``.

    It connects when it is entered, in the background, and again whenever a connection is lost: what is sent meanwhile
    waits. Leaving writes what there is to be written, for at most ``linger`` seconds; leaving by an exception or
    cancelled, everything is cut at once, and what the server has not heard of is as if it had not happened.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "meerkat",
        limits: RedisLimits | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Make a network; it does nothing before it is entered.

        Args:
            url: ``redis://[user:password@]host[:port][/database]``, ``rediss://…`` with TLS, or ``unix:///path``.
            namespace: what all keys begin with; peers that are to reach each other have the same.
            limits: the bounds.
            wall_clock: seconds since 1970, UTC. A peer's clock may be up to 60 s ahead of ours.

        Raises:
            ValueError: the URL or the namespace is none.
        """
        if not namespace or not namespace.isprintable():
            raise ValueError(f"namespace: a printable text is needed, not {namespace!r}")
        self.limits: RedisLimits = RedisLimits() if limits is None else limits
        self._server = Server(url)
        self._wall_clock = wall_clock
        self.keys: Keys = Keys(namespace, secrets.token_hex(8))
        self._troubles = Troubles()
        self._reading = Link("reading", self._server, self.limits, self._troubles)
        self._writing = Link("writing", self._server, self.limits, self._troubles)
        self.updates: Updates = Updates(self)
        self.reader: Reader = Reader(self, self._reading)
        self._writer = Writer(self, self._writing)
        self._opening: AbstractAsyncContextManager[trio.Nursery]
        self._nursery: trio.Nursery
        self._is_entered = False
        self._is_writing = True
        self._mailboxes: dict[PeerId, Mailbox] = {}
        # Closed, and not given back yet; with the round of the reader that may still read for it.
        self._closing: dict[Mailbox, int] = {}
        self._posts: dict[PeerId, Post] = {}
        self._arrivals: dict[PeerId, Arrivals] = {}
        self._closed_here: set[PeerId] = set()
        self._open: set[RedisComms] = set()
        self._progress = trio.Event()
        self._dead_letters = 0
        self._quiet_until = -math.inf
        self._numbers = 0

    async def __aenter__(self) -> Self:
        """Start; it does not wait for the server.

        **Cancellation:** nothing is open.
        """
        self._opening = trio.open_nursery()
        self._nursery = await self._opening.__aenter__()
        self._nursery.start_soon(self._reading.run, self.reader.serve)
        self._nursery.start_soon(self._write)
        self._is_entered = True
        return self

    async def _write(self) -> None:
        try:
            await self._writing.run(self._writer.serve)
        finally:
            # Nobody has to wait for what will not be written.
            self._is_writing = False
            self.has_progressed()

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
        /,
    ) -> None:
        """Close what is open, and write what there is to be written.

        **Cancellation:** everything is cut at once.
        """
        try:
            for comms in list(self._open):
                comms.shut()
            if exc is None:
                with trio.move_on_after(self.limits.linger):
                    # Cancelled meanwhile, everything is cut.
                    await self._wait_until(lambda: self._writer.is_idle and not self._closing)  # noqa: ASYNC102
                    self._writer.leave()
                    await self._wait_until(lambda: self._writer.has_left)  # noqa: ASYNC102
        finally:
            self._is_entered = False
            self._nursery.cancel_scope.cancel()
            for comms in list(self._open):
                comms.shut()
            for post in self._posts.values():
                for route in post.routes.values():
                    route.drop(_CLOSED)
            # Without the body's exception: it leaves as it is, in no group.
            await self._opening.__aexit__(None, None, None)  # noqa: ASYNC102 - all in it is cancelled

    async def _wait_until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self._progress.wait()

    async def open(
        self,
        identity: Identity,
        *,
        runtime_id: CommsRuntimeId,
        trusted: Iterable[PeerEndpoint] = (),
        advertise: str | None = None,
        work_lane: int = 64,
        control_lane: int = 64,
        fence: Fence | None = None,
        kind: type[RedisComms] | None = None,
    ) -> RedisComms:
        """Make a comms runtime. Peers send to its peer id, wherever it is; its streams are made when they are needed.

        Several with one identity are the same peer, as a rebuilt transport has to be: the first is the one to which
        envelopes go, another stands by until it takes that one over, or until that one closes.

        Args:
            identity: who it is.
            runtime_id: the logical id, the same for every rebuilt instance.
            trusted: who is trusted by hand.
            advertise: the address that peers are told, by default ``inproc://`` and the logical id.
            work_lane: how many envelopes the work lane holds, from 1 up.
            control_lane: how many envelopes the control lane holds, from 1 up.
            fence: the lease under which this identity is served here, if there is one; it counts for all instances.
            kind: the class to make, for those who derive from `RedisComms`.

        Raises:
            ValueError: an argument is out of range.
            RuntimeError: the network is not entered.

        **Cancellation:** cancelled, nothing was opened.
        """
        require_runtime_id(runtime_id)
        if not isinstance(identity, Identity):
            raise TypeError(f"identity: an Identity is needed, not {identity!r}")
        inbox = Inbox(work_lane=work_lane, control_lane=control_lane, dedupe_window=1)
        address = PeerAddress(f"inproc://{runtime_id}" if advertise is None else advertise)
        endpoints = list(trusted)
        for each in endpoints:
            if not isinstance(each, PeerEndpoint):
                raise TypeError(f"trusted: a PeerEndpoint is needed, not {each!r}")
        await trio.lowlevel.checkpoint()
        if not self._is_entered:
            raise RuntimeError("open: enter the network first, with `async with`")
        mailbox, post = self._mailbox(identity), self._post(identity)
        comms = (kind or RedisComms)(self, mailbox, post, runtime_id, address, inbox)
        for endpoint in endpoints:
            comms.trust(endpoint)
        self._closed_here.discard(identity.peer_id)
        mailbox.join(comms, fence)
        post.fence = mailbox.fence
        self._closing.pop(mailbox, None)
        self._open.add(comms)
        return comms

    def _mailbox(self, identity: Identity) -> Mailbox:
        mailbox = self._mailboxes.get(identity.peer_id)
        if mailbox is None or mailbox.is_fenced:
            arrivals = self._arrivals.setdefault(identity.peer_id, Arrivals(self.limits.remembered))
            streams = {lane: self.keys.stream(identity.peer_id, lane) for lane in _LANES}
            mailbox = self._mailboxes[identity.peer_id] = Mailbox(self, identity, arrivals, streams)
        return mailbox

    def _post(self, identity: Identity) -> Post:
        post = self._posts.get(identity.peer_id)
        if post is None:
            post = self._posts[identity.peer_id] = Post(self, identity)
        return post

    def statistics(self) -> RedisStatistics:
        """Return a frozen snapshot."""
        return RedisStatistics(
            connected=self._reading.is_up and self._writing.is_up,
            parked_senders=sum(post.parked_senders for post in self._posts.values()),
            unanswered=sum(route.unanswered for post in self._posts.values() for route in post.routes.values()),
            dead_letters=self._dead_letters,
            reconnects=max(0, self._reading.connects - 1) + max(0, self._writing.connects - 1),
        )

    # -- what mailboxes and posts ask

    @property
    def answers(self) -> str:
        """The stream in which this process gets its own answers."""
        return self.keys.answers

    def now(self) -> int:
        """Return the time, in milliseconds since 1970, UTC."""
        return int(self._wall_clock() * 1000)

    def next_number(self) -> int:
        """Return a number that no bundle or message of this process has had."""
        self._numbers += 1
        return self._numbers

    def next_message_id(self) -> MessageId:
        """Mint an id that no other message has, of this or another process."""
        return f"{self.keys.token}-{self.next_number()}"

    def has_letters(self, way: Way) -> None:
        """Note that a lane has something to send."""
        self._writer.add(way)

    def has_changes(self, mailbox: Mailbox) -> None:
        """Note that a mailbox has something to write."""
        self.updates.add(mailbox)
        if self.reader.is_blocked or not self.reader.is_up or mailbox in self._closing:
            self._writer.ring()

    def wants_more(self) -> None:
        """Note that a lane that was not read may be read."""
        self._writer.call_reader()

    def tell_sender(self, sender: PeerId, recipient: PeerId, message_id: MessageId) -> None:
        """Tell a sender of this process that nobody is here for its envelope."""
        post = self._posts.get(sender)
        route = None if post is None else post.routes.get(recipient)
        if route is not None:
            any(way.answered(message_id, _CLOSED) for way in route.ways.values())

    def count_dead(self, mailbox: Mailbox, reason: DropReason) -> None:
        """Count an entry that was refused."""
        self._dead_letters += 1
        # Whoever may write to the server may write much of this.
        if trio.current_time() >= self._quiet_until:
            self._quiet_until = trio.current_time() + _DEAD_LETTERS_TOLD
            _logger.warning("%s: dead letter number %d: %s", mailbox, self._dead_letters, reason.value)

    def take_answers(self, entries: Sequence[Sequence[Any]]) -> None:
        """Settle what answers are for; what is not signed by whose answer it would be is passed over."""
        for _, flat in entries:
            signed = SignedAnswers.of_entry(flat or ())
            route = self._route_of(signed)
            if route is None:
                continue
            try:
                answers = signed.open()
            except WireRefused as refused:
                _logger.warning("answers are passed over: %s", refused)
                continue
            for answer in answers:
                route.answered(answer)

    def _route_of(self, signed: SignedAnswers) -> Route | None:
        try:
            post = self._posts.get(PeerId(signed.to))
            return None if post is None else post.routes.get(peer_id_of(signed.by))
        except ValueError:
            return None

    # -- what reader and writer ask

    def open_mailboxes(self) -> list[Mailbox]:
        """Return those that have an instance."""
        return [mailbox for mailbox in self._mailboxes.values() if mailbox.instances]

    def mailbox_of(self, peer_id: PeerId) -> Mailbox | None:
        """Return the mailbox of an identity of this process."""
        return self._mailboxes.get(peer_id)

    def is_closed_here(self, peer_id: PeerId) -> bool:
        """Say whether a peer was here and is not any more."""
        return peer_id in self._closed_here

    def is_fenced(self, mailbox: Mailbox) -> None:
        """Note that the lease of a mailbox is lost."""
        if not mailbox.is_fenced:
            _logger.warning("%s has lost its lease: it is closed, and answers nothing more", mailbox)
            mailbox.be_fenced()

    def lacks_memory(self, what: str, *, lacks: bool) -> None:
        """Note whether the server had memory for what was to be written."""
        if lacks:
            self._troubles.begin(f"memory for {what}", "the server has no memory left")
        else:
            self._troubles.end(f"memory for {what}")

    def released(self) -> list[Mailbox]:
        """Return the mailboxes of which nothing is here any more: what is left of them is given back."""
        reader = self.reader
        return [
            mailbox
            for mailbox, last_round in self._closing.items()
            if mailbox.is_released and (reader.rounds > last_round or not reader.is_up)
        ]

    def has_released(self, mailbox: Mailbox) -> None:
        """Forget a mailbox; if its identity is open again, what was given back is taken back."""
        self._closing.pop(mailbox, None)
        present = self._mailboxes.get(mailbox.identity.peer_id)
        if present is not None and present.instances:
            for intake in present.intakes.values():
                intake.begin_again()
            self.wants_more()
        elif present is mailbox:
            del self._mailboxes[mailbox.identity.peer_id]

    def keep_house(self) -> None:
        """Let go of what has expired."""
        earliest = self.now() - int((self.limits.acceptance_window + CLOCK_SKEW) * 1000)
        for peer_id, post in list(self._posts.items()):
            post.keep_house(earliest)
            if not post.routes and peer_id not in self._mailboxes:
                del self._posts[peer_id]
        for peer_id, arrivals in list(self._arrivals.items()):
            arrivals.expire(self.now())
            if not arrivals and peer_id not in self._mailboxes:
                del self._arrivals[peer_id]

    def has_progressed(self) -> None:
        """Wake who waits for something to be written, or for a reading to end."""
        if self._closing:
            self._writer.ring()
        self._progress.set()
        self._progress = trio.Event()

    # -- what instances ask

    def leave(self, comms: RedisComms, mailbox: Mailbox) -> None:
        """Forget an instance; after the last one its mailbox is closed, once its inbox is."""
        self._open.discard(comms)
        if not mailbox.instances:
            return
        mailbox.leave(comms)
        if not mailbox.instances:
            self._closing[mailbox] = self.reader.rounds
            self._closed_here.add(mailbox.identity.peer_id)
            self._writer.call_reader()

    def forget(self, comms: RedisComms) -> None:
        """Forget an instance that was taken over."""
        self._open.discard(comms)

    def drop_senders_to(self, mailbox: Mailbox) -> None:
        """Tell the senders of this process that nobody is here for what has not come here yet."""
        peer_id = mailbox.identity.peer_id
        for sender, post in self._posts.items():
            route = post.routes.get(peer_id)
            if route is not None:
                route.drop(_CLOSED, partial(mailbox.holds, sender))

    async def wait_closed(self, mailbox: Mailbox) -> None:
        """Wait until the answers that are known are written, and the rest is given back, for a while.

        **Cancellation:** that is done in the background, while the network lives.
        """
        if self._is_entered and self._is_writing and not mailbox.instances:
            with trio.move_on_after(self.limits.linger):
                # Open claims decide when they will; whoever closes is not made to wait for them.
                await self._wait_until(
                    lambda: (
                        not self._is_writing
                        or mailbox not in self._closing
                        or (mailbox.is_flushed and not mailbox.is_released)
                    )
                )
        await trio.lowlevel.checkpoint()

    def __repr__(self) -> str:
        return f"<RedisNetwork of {len(self._mailboxes)} identities>"
