"""One connection: a handshake, then a task that reads and a task that writes, until one side says goodbye.

It carries what correspondents have for each other and remembers nothing: whatever it had not carried, or was not
answered, the next one carries. How long somebody may keep it waiting is asked from outside, once a second, by
`is_overdue`: a deadline for each frame would cost more than the frame.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Protocol, final

import trio

from .._messages import ReceiptStatus
from ..authority import BRIDGE_INTENT, DropReason, EnvelopeKind
from ._bundle import MAX_BUNDLE, Bundle, seal
from ._envelope import MAX_ENVELOPE
from ._exceptions import WireRefused
from ._frames import Answer, Bye, ByeCode, FrameDecoder, Receipts, encode_bye
from ._handshake import Handshake
from ._prefix import MAX_FRAME

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..authority import PeerId
    from ._arrivals import Arrival
    from ._bundle import Judge, Opened
    from ._correspondent import Correspondent
    from ._envelope import Header
    from ._handshake import Link
    from ._identity import Identity
    from ._limits import SocketLimits

__all__ = ["Connection", "Side"]

_logger = logging.getLogger("meerkat_trio.comms.socket")

_READ: Final = 64 * 1024
_STRANGERS_BODY: Final = 4096
"""The most bytes of a command's body, from somebody who is not trusted (SPEC 3)."""
_BUNDLE_BYTES: Final = MAX_ENVELOPE - 5 * MAX_BUNDLE
_FIRST_BUNDLE_BYTES: Final = 6 * 1024
"""What is sent before the first answer: the other side may not trust us, and then takes no more."""
_FOR_STRANGERS: Final = {DropReason.UNTRUSTED_SENDER, DropReason.RATE_LIMITED, DropReason.OVERSIZE}
"""Answers that do not say that the other side trusts us."""
_LATE: Final = DropReason.CLOSED
"""What is found of an envelope that comes once this side goes away; nothing is said of it."""
_OF_TWINS: Final = {None, DropReason.DUPLICATE, DropReason.EXPIRED}
"""What is found of an envelope that came before."""
_DRAINED: Final = 16
"""So many pieces at most are read after a goodbye."""
_MOST_ANSWERS: Final = 4096
"""Who lets so many answers wait is not read until it reads them: nobody has as many envelopes on the way (SPEC 9)."""
_QUIET_ROUNDS: Final = 2
"""For so many rounds of the scheduler with nothing new the writer waits for more to write."""
_SIGN_OF_LIFE: Final = 3
"""A side that owes answers says something this often within the time in which it has to."""


class Side(Protocol):
    """Who has this connection."""

    identity: Identity
    limits: SocketLimits

    @property
    def is_leaving(self) -> bool:
        """Whether it takes nothing in any more."""

    def now(self) -> int:
        """Return the time, in milliseconds since 1970, UTC."""

    async def wait_for_former(self) -> None:
        """Wait until those that were this side before owe no answers: what comes again may have to come first.

        **Cancellation:** nothing is lost.
        """

    def welcome(self, connection: Connection, peer_id: PeerId) -> Correspondent | None:
        """Take in a connection whose other side has proved who it is; None if there are too many."""

    def farewell(self, connection: Connection) -> None:
        """Note that a connection is over."""

    def is_trusted(self, peer_id: PeerId) -> bool:
        """Say whether a peer has a trust edge, of whatever source."""

    def may_command(self, peer_id: PeerId) -> bool:
        """Say whether one that is not trusted may send one more command, and count it."""

    def find(self, peer_id: PeerId, message_id: str) -> Arrival | None:
        """Return the arrival of which an envelope would be a twin."""

    def arrive(self, connection: Connection, opened: Opened, size: int) -> None:
        """Take an envelope that was not refused; ``size`` is in bytes, as it came."""


@final
class Connection:
    """One connection of one side to one peer."""

    __slots__ = (
        "_answers",
        "_asleep",
        "_decoder",
        "_goodbye",
        "_has_answered",
        "_heard",
        "_is_over",
        "_is_trusted",
        "_left",
        "_link",
        "_owed",
        "_side",
        "_spoke",
        "_stream",
        "_waits_since",
        "_write_began",
        "_writer",
        "_written",
        "bye",
        "correspondent",
        "is_made",
        "peer_id",
        "scope",
        "source",
        "was_of_use",
    )

    bye: Bye | None
    """The other side's goodbye."""
    correspondent: Correspondent
    """The other side, once it has proved who it is; not before."""
    is_made: bool
    """Whether it has, and this connection has a place among those of its side."""
    peer_id: PeerId | None
    """Who is at the other end, once that is proved."""
    was_of_use: bool
    """Whether anything came by it."""

    def __init__(self, side: Side, stream: trio.SocketStream) -> None:
        self._side = side
        self._stream = stream
        self.source: str = _source(stream)
        self._decoder = FrameDecoder()
        self._link: Link
        self.is_made = False
        self._goodbye: tuple[int, str] | None = None
        self._left = 0.0
        self._writer: trio.lowlevel.Task | None = None
        self._asleep = False
        self._written: trio.Event | None = None
        self._heard = self._spoke = trio.current_time()
        self._waits_since: float | None = None
        self._write_began: float | None = None
        self._answers: list[Answer] = []
        self._owed: dict[str, Arrival] = {}
        self._has_answered = False
        self._is_trusted = False  # by the other side: what it has answered says so
        self._is_over = False
        self.bye = None
        self.was_of_use = False
        self.peer_id = None
        self.scope: trio.CancelScope = trio.CancelScope()

    async def run(self, *, connects: bool, expected: bytes | None = None) -> None:
        """Shake hands, carry envelopes both ways, say goodbye; whatever goes wrong ends the connection alone.

        **Cancellation:** passes through; the connection is closed at once, and what it had not carried is not lost.
        """
        try:
            with self.scope:
                await self._run(connects, expected)
        finally:
            self._is_over = True
            self._side.farewell(self)
            with trio.CancelScope() as closing:
                closing.cancel()
                await self._stream.aclose()

    async def _run(self, connects: bool, expected: bytes | None) -> None:  # noqa: FBT001 - private
        try:
            await self._shake_hands(connects, expected)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                await self._read()
        except* (trio.BrokenResourceError, trio.ClosedResourceError) as broken:
            _logger.debug("%s is cut: %s", self, broken.exceptions[0])
        except* trio.TooSlowError:
            _logger.info("%s: the handshake took too long", self)
            await self._say_goodbye(ByeCode.TIMEOUT, "the handshake took too long", drains=True)
        except* WireRefused as refused:
            # Not the exception itself: it would keep this frame, which would keep it, until they are collected.
            why = _first(refused).detail
            # Of a stranger it is no news, and there may be many of them.
            is_known = self.peer_id is not None and self._side.is_trusted(self.peer_id)
            _logger.log(logging.WARNING if is_known else logging.INFO, "%s is refused: %s", self, why)
            await self._say_goodbye(ByeCode.REFUSED, why, drains=True)

    async def _shake_hands(self, connects: bool, expected: bytes | None) -> None:  # noqa: FBT001 - private
        limits, side = self._side.limits, self._side
        handshake = Handshake(side.identity, connects=connects, expected=expected)
        with trio.fail_after(limits.handshake_timeout):
            if first := handshake.start():
                await self._stream.send_all(first)
            with trio.CancelScope(relative_deadline=limits.first_frame_timeout) as first_frame:
                await self._advance(handshake)
            if first_frame.cancelled_caught:
                raise trio.TooSlowError
            while handshake.link is None:
                await self._advance(handshake)
        self._link = handshake.link
        self.peer_id = self._link.peer_id
        correspondent = side.welcome(self, self.peer_id)
        if correspondent is None:
            await self._say_goodbye(ByeCode.BUSY, "too many connections", drains=True)
            raise trio.ClosedResourceError("there are too many connections")
        self.correspondent = correspondent
        self.is_made = True

    async def _advance(self, handshake: Handshake) -> None:
        """Take the next frame of the handshake."""
        frame = next(self._decoder, None)
        while frame is None:
            data = await self._stream.receive_some(_READ)
            if not data:
                raise trio.BrokenResourceError("it ended within the handshake")
            self._decoder.feed(data)
            frame = next(self._decoder, None)
        if isinstance(frame, Bye):
            self.bye = frame
            raise trio.BrokenResourceError(f"the other side said goodbye: {frame.detail}")
        if reply := handshake.receive(frame):
            await self._stream.send_all(reply)

    # -- reading

    async def _read(self) -> None:
        peer_id, side, limits = self._link.peer_id, self._side, self._side.limits
        trusted = False
        await side.wait_for_former()
        while self.bye is None:
            if not side.is_leaving:  # else nobody is left who trusts anybody
                trusted = side.is_trusted(peer_id)
            self._decoder.limit = MAX_FRAME if trusted else limits.stranger_frame
            self._take_frames()
            if self.bye is not None:
                break
            await self.correspondent.wait_for_room()
            await self._wait_written()
            if not trusted:
                await trio.sleep(limits.stranger_pause)
            data = await self._stream.receive_some(_READ if trusted else limits.stranger_frame)
            self._heard = trio.current_time()
            if not data:
                self._end()
                break
            self._decoder.feed(data)
        self.leave(ByeCode.DONE)

    def _end(self) -> None:
        try:
            self._decoder.finish()
        except WireRefused as refused:
            # Networks do that; what was not whole comes again.
            raise trio.BrokenResourceError(refused.detail) from None

    async def _wait_written(self) -> None:
        """Wait while too many answers do, unless they are written no more."""
        while len(self._answers) >= _MOST_ANSWERS and self._goodbye is None:
            self._written = trio.Event()
            await self._written.wait()

    def _take_frames(self) -> None:
        for frame in self._decoder:
            self.was_of_use |= isinstance(frame, Bundle | Receipts)
            if isinstance(frame, Bundle):
                self._link.require_sender(frame)
                self._take_bundle(frame)
            elif isinstance(frame, Receipts):
                for answer in self._link.open(frame):
                    self.correspondent.answered(answer)
                    self._is_trusted |= answer.reason not in _FOR_STRANGERS
                self._waits_since = self._heard if self.correspondent.waits_for_answers else None
                self.wake()
            elif isinstance(frame, Bye):
                self.bye = frame
                return
            else:
                raise WireRefused(DropReason.MALFORMED, f"a {type(frame).__name__.lower()} has no place here")

    def _take_bundle(self, bundle: Bundle) -> None:
        correspondent, side = self.correspondent, self._side
        if self._goodbye is not None:
            return  # not answered here, so it is sent again elsewhere
        judge: Judge = self._judge_late
        if not side.is_leaving:
            judge = self._known if side.is_trusted(correspondent.peer_id) else self._judge_stranger
        sizes = iter(map(len, bundle.parts))
        for opened in bundle.open(recipient=side.identity.public_key, now=side.now(), judge=judge):
            size = next(sizes)
            # A twin is answered as the first was, also when its time is over.
            twin = side.find(correspondent.peer_id, opened.id)
            if twin is not None and opened.reason in _OF_TWINS:
                self._take_twin(twin)
            elif opened.reason is _LATE:
                continue  # not answered, so it is sent again to whoever is next
            elif opened.reason is not None:
                self._answers.append(Answer(opened.id, ReceiptStatus.DROPPED, opened.reason))
            else:
                side.arrive(self, opened, size)
        if not self._has_answered:
            # The first answer says that we take large frames from it.
            self._has_answered = True
            self._answers += [Answer(each, ReceiptStatus.QUEUED) for each in self._owed]
        self.wake()

    def _take_twin(self, twin: Arrival) -> None:
        if twin.is_answered:
            self.tell(twin)
        elif self not in twin.tellers:
            twin.tellers = (*twin.tellers, self)
            self.owe(twin)

    def owe(self, arrival: Arrival) -> None:
        """Note that this connection is to carry an answer."""
        self._owed[arrival.id] = arrival

    def tell(self, arrival: Arrival) -> None:
        """Carry an answer; once this connection is over a twin will ask for it."""
        self._owed.pop(arrival.id, None)
        if not self._is_over:
            status = ReceiptStatus.ADMITTED if arrival.reason is None else ReceiptStatus.DROPPED
            self._answers.append(Answer(arrival.id, status, arrival.reason))
            self.wake()

    def _known(self, header: Header) -> DropReason | None:
        """Refuse twins: they are not verified again."""
        return None if self._side.find(self.correspondent.peer_id, header.id) is None else DropReason.DUPLICATE

    def _judge_late(self, header: Header) -> DropReason:
        """Refuse what comes once this side goes away."""
        return self._known(header) or _LATE

    def _judge_stranger(self, header: Header) -> DropReason | None:
        """Refuse what somebody may not send who is not trusted: all but small commands, and not many (SPEC 3)."""
        if self._known(header):
            return DropReason.DUPLICATE
        if header.kind is not EnvelopeKind.REQUEST or header.intent != BRIDGE_INTENT:
            return DropReason.UNTRUSTED_SENDER
        if len(header.body) > _STRANGERS_BODY:
            return DropReason.OVERSIZE
        return None if self._side.may_command(self.correspondent.peer_id) else DropReason.RATE_LIMITED

    # -- writing

    def wake(self) -> None:
        """There is something to write, or it is time to go."""
        if self._asleep and self._writer is not None:
            self._asleep = False
            trio.lowlevel.reschedule(self._writer)

    async def _write(self) -> None:
        self._writer = trio.lowlevel.current_task()
        while True:
            await self._gather()
            if data := b"".join(self._next_frames()):
                self._write_began = trio.current_time()
                await self._stream.send_all(data)
                self._write_began = None
                self._spoke = trio.current_time()
            elif self._goodbye is not None:
                break
            else:
                self._asleep = True
                await trio.lowlevel.wait_task_rescheduled(self._abort_sleep)
        await self._say_goodbye(*self._goodbye)

    async def _gather(self) -> None:
        """Let those who send and who admit get on with it while they do: a signature, or a tag, is for all of it."""
        most = quiet = 0
        while (waiting := self.correspondent.unsent_count() + len(self._answers)) < MAX_BUNDLE:
            quiet = 0 if waiting > most else quiet + 1
            if quiet > _QUIET_ROUNDS:
                break
            most = max(most, waiting)
            await trio.lowlevel.checkpoint()

    def _has_written(self) -> None:
        if self._written is not None:
            self._written.set()
            self._written = None

    def _abort_sleep(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._asleep = False
        return trio.lowlevel.Abort.SUCCEEDED

    def _next_frames(self) -> Iterable[bytes]:
        correspondent, link = self.correspondent, self._link
        if self._answers:
            answers, self._answers = self._answers, []
            self._has_written()
            yield from link.seal(answers)
        if correspondent.carrier is not self or self._goodbye is not None:
            return
        if not self._is_trusted and self._waits_since is not None:
            return
        size = _BUNDLE_BYTES if self._is_trusted else _FIRST_BUNDLE_BYTES
        if parts := tuple(correspondent.take_unsent(MAX_BUNDLE, size)):
            if self._waits_since is None:
                self._waits_since = trio.current_time()
            yield seal(self._side.identity, link.key, parts)

    # -- the end

    def leave(self, code: int, detail: str = "") -> None:
        """Say goodbye once the answers are written; what comes after that is not answered here."""
        if self._goodbye is None:
            self._goodbye = code, detail
            self._left = trio.current_time()
            self._has_written()
            self.wake()

    async def _say_goodbye(self, code: int, detail: str, *, drains: bool = False) -> None:
        """Write a goodbye.

        Args:
            code: why.
            detail: the same for a log.
            drains: read what comes, so that closing does not take back what was written last. Not while another task
                reads: there may be one reader alone.
        """
        with trio.move_on_after(self._side.limits.linger):
            try:
                await self._stream.send_all(encode_bye(code, detail))
                await self._stream.send_eof()
                for _ in range(_DRAINED if drains else 0):
                    if not await self._stream.receive_some(_READ):
                        break
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                pass

    def is_overdue(self, now: float) -> str | None:
        """Say why the other side is not waited for any longer, if so; called once in a while.

        Also sees to it that the other side has a sign of life from us, and leaves where there is nothing to do.
        """
        limits = self._side.limits
        if not self.is_made:
            return None
        if self._write_began is not None and now - self._write_began > limits.write_timeout:
            return "it does not read"
        if self._waits_since is not None and now - max(self._waits_since, self._heard) > limits.receipt_timeout:
            return "it gives no answer"
        if self._goodbye is not None:
            # Whatever it says but that: who talks on could keep this side from ever closing.
            return "it does not say goodbye" if now - max(self._left, self._spoke) > limits.linger else None
        if self._owed:
            if now - self._spoke > limits.receipt_timeout / _SIGN_OF_LIFE:
                self._answers.append(Answer(next(iter(self._owed)), ReceiptStatus.QUEUED))
                self.wake()
        elif self._waits_since is None and now - max(self._heard, self._spoke) > limits.idle_timeout:
            self.leave(ByeCode.DONE, "nothing to do")
        return None

    def __repr__(self) -> str:
        who = "somebody" if self.peer_id is None else str(self.peer_id)
        return f"<Connection of {self._side.identity.peer_id} to {who}>"


def _source(stream: trio.SocketStream) -> str:
    """Say from which host a connection comes; those over Unix sockets come from this one."""
    try:
        name = stream.socket.getpeername()
    except OSError:
        return ""  # it is cut already
    return str(name[0]) if isinstance(name, tuple) else ""


def _first(group: BaseExceptionGroup[WireRefused]) -> WireRefused:
    first = group.exceptions[0]
    return first if isinstance(first, WireRefused) else _first(first)
