"""One identity as it receives over Redis: its instances, and what was read for it and is not answered.

Knows no connection. Whoever has one reads into `Mailbox.arrive`, and writes what `Mailbox.take_updates` gives.

What holds at every moment:

1. An entry stays in its stream, pending for this process, until each of its envelopes is answered. What of it has been
   answered is written with the answers, in one step of the server.
2. What is read and has no room in the inbox waits here, in order; no more is read of that lane until it has gone.
3. The first instance is the route, as for sockets. Without one nothing is read, and what is left is not answered but
   given back, for whoever is next.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import TYPE_CHECKING, Final, Protocol, final

import trio

from .._messages import Receipt, ReceiptStatus
from .._rate import RateLimit
from ..authority import BRIDGE_INTENT, DropReason, EnvelopeKind
from ._arrivals import Arrival
from ._bundle import peer_id_of
from ._envelope import CLOCK_SKEW
from ._exceptions import WireRefused
from ._frames import Answer
from ._redis_entries import parse_message, sign_answers
from ._redis_intake import LANES, Change, Entry, Intake, Part

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..authority import Lane, MessageId, PeerEndpoint, PeerId
    from ._arrivals import Arrivals
    from ._bundle import Bundle, Judge, Opened
    from ._envelope import Header
    from ._identity import Identity
    from ._inbox import Inbox
    from ._outgoing import Letter
    from ._redis_entries import SignedAnswers
    from ._redis_limits import Fence, RedisLimits

__all__ = ["Instance", "Mailbox", "Update"]

_COMMANDS: Final = 64
_COMMANDS_PER_SECOND: Final = 16.0
_ALL_COMMANDS: Final = 256
_ALL_COMMANDS_PER_SECOND: Final = 64.0
"""What is verified for those who are not trusted; the session that is commanded has bounds of its own (SPEC 3)."""
_STRANGERS_BODY: Final = 4096
"""The most bytes of a command's body, from somebody who is not trusted (SPEC 3)."""
_OF_TWINS: Final = {DropReason.DUPLICATE, DropReason.EXPIRED}
"""What is found of an envelope that came before."""
_UNANSWERED: Final = {DropReason.RATE_LIMITED, DropReason.BAD_SIGNATURE, DropReason.WRONG_RECIPIENT}
"""What is refused without an answer: it is not known whose it is, or looking would cost too much."""


class Instance(Protocol):
    """A comms runtime, as its mailbox knows it."""

    inbox: Inbox

    def endpoint_of(self, peer_id: PeerId) -> PeerEndpoint | None:
        """Return where a peer is reached, if it is trusted."""

    def be_fenced(self) -> None:
        """Close: the lease is lost."""


class Network(Protocol):
    """What the mailboxes of one process share."""

    limits: RedisLimits

    @property
    def answers(self) -> str:
        """The stream in which this process gets its own answers."""

    def now(self) -> int:
        """Return the time, in milliseconds since 1970, UTC."""

    def has_changes(self, mailbox: Mailbox) -> None:
        """Note that a mailbox has something to write."""

    def wants_more(self) -> None:
        """Note that a lane that was not read may be read."""

    def tell_sender(self, sender: PeerId, recipient: PeerId, message_id: MessageId) -> None:
        """Tell a sender of this process that nobody is here for its envelope."""

    def count_dead(self, mailbox: Mailbox, reason: DropReason) -> None:
        """Count an entry that was refused."""


@final
class Update:
    """Changes and answers that are written in one step."""

    __slots__ = ("answers", "changes", "mailbox")

    def __init__(self, mailbox: Mailbox, changes: list[Change], answers: list[tuple[str, SignedAnswers]]) -> None:
        self.mailbox: Mailbox = mailbox
        self.changes: list[Change] = changes
        self.answers: list[tuple[str, SignedAnswers]] = answers


@final
class Mailbox:
    """One identity on a Redis network, as others reach it."""

    __slots__ = (
        "_answers",
        "_arrivals",
        "_changed",
        "_commands",
        "_is_feeding",
        "_network",
        "_unwritten",
        "fence",
        "identity",
        "in_writing",
        "instances",
        "intakes",
        "is_fenced",
        "keys",
        "known",
    )

    fence: Fence | None
    is_fenced: bool
    """Whether the lease was found lost."""
    in_writing: int
    """How many updates are on their way."""
    known: OrderedDict[PeerId, bytes]
    """The keys of those who have sent something."""

    def __init__(self, network: Network, identity: Identity, arrivals: Arrivals, streams: dict[Lane, str]) -> None:
        self._network = network
        self.identity: Identity = identity
        self.instances: list[Instance] = []
        self.intakes: dict[Lane, Intake] = {lane: Intake(lane, streams[lane]) for lane in LANES}
        self._arrivals = arrivals
        self.fence = None
        self.is_fenced = False
        self.in_writing = 0
        self.known = OrderedDict()
        self._changed: dict[Entry, None] = {}
        self._answers: dict[tuple[str, PeerId], list[Answer]] = {}
        self._unwritten: list[tuple[list[Change], list[tuple[str, SignedAnswers]]]] = []
        self._is_feeding = False
        self._commands = RateLimit(
            burst=_COMMANDS,
            rate=_COMMANDS_PER_SECOND,
            burst_of_all=_ALL_COMMANDS,
            rate_of_all=_ALL_COMMANDS_PER_SECOND,
            now=trio.current_time(),
        )

    # -- instances

    @property
    def inbox(self) -> Inbox | None:
        """Where envelopes go at this moment."""
        return self.instances[0].inbox if self.instances else None

    def join(self, instance: Instance, fence: Fence | None) -> None:
        """Let an instance be the route, or stand by."""
        if not self.instances:
            for intake in self.intakes.values():
                intake.begin_again()
            self.fence = fence
        elif fence is not None:
            self.fence = fence
        self.instances.append(instance)
        self._network.wants_more()

    def replace(self, previous: Instance, successor: Instance) -> None:
        """Leave one of two instances, in the better place."""
        place = min(self.instances.index(previous), self.instances.index(successor))
        self.instances.remove(previous)
        self.instances.remove(successor)
        self.instances.insert(place, successor)
        self._feed_all()

    def leave(self, instance: Instance) -> None:
        """Forget an instance; after the last one nothing is read, and what waits here is let go of."""
        if instance not in self.instances:
            return
        self.instances.remove(instance)
        if self.instances:
            return
        for intake in self.intakes.values():
            held, intake.held = intake.held, deque()
            for _, arrival in held:
                arrival.settle(Receipt.dropped(DropReason.CLOSED))

    def be_fenced(self) -> None:
        """Close every instance: the lease is lost, and nothing more is answered."""
        if self.is_fenced:
            return
        self.is_fenced = True
        self._changed.clear()
        self._answers.clear()
        self._unwritten.clear()
        for instance in list(self.instances):
            instance.be_fenced()

    @property
    def is_released(self) -> bool:
        """Whether nothing of what was read is still to be admitted or written here."""
        return not self.instances and self.is_flushed and not any(each.entries for each in self.intakes.values())

    @property
    def is_flushed(self) -> bool:
        """Whether every answer that is known is written."""
        return not (self._changed or self._answers or self._unwritten or self.in_writing)

    def holds(self, sender: PeerId, letter: Letter) -> bool:
        """Say whether an envelope was here and is answered, or will be."""
        return self._arrivals.get(sender, letter.envelope.id) is not None

    def endpoint_of(self, peer_id: PeerId) -> PeerEndpoint | None:
        """Return where a peer is reached, if an instance trusts it; the route is asked first."""
        return next((found for each in self.instances if (found := each.endpoint_of(peer_id))), None)

    def keep_house(self) -> None:
        """Let go of what has expired."""
        self._arrivals.expire(self._network.now())

    # -- what is read

    def may_read(self, intake: Intake) -> bool:
        """Say whether there is room for more of a lane."""
        inbox = self.inbox
        return inbox is not None and not intake.held and inbox.has_room(intake.lane)

    def arrive(self, intake: Intake, entry_id: bytes, flat: Sequence[bytes] | None, answered: int = 0) -> None:
        """Take an entry; with no instance left it is as if it had not come.

        Args:
            intake: of which lane.
            entry_id: which one.
            flat: its fields and values; None if it was deleted.
            answered: what of it has been answered before, by a bit for each envelope.
        """
        if entry_id in intake.entries or not self.instances:
            return
        entry = intake.entries[entry_id] = Entry(intake, entry_id, answered)
        try:
            if flat is not None:
                bundle, entry.answers = parse_message(flat)
                entry.origin = peer_id_of(bundle.sender)
                self._take(entry, bundle, entry.origin)
        except WireRefused as refused:
            self._refuse(entry, refused.reason)
        entry.left -= 1
        self._note_change(entry)
        self._feed(intake)

    def _take(self, entry: Entry, bundle: Bundle, sender: PeerId) -> None:
        judge = self._known(sender) if self.endpoint_of(sender) is not None else self._stranger(sender)
        now, limits = self._network.now(), self._network.limits
        late: list[tuple[int, Opened]] = []
        is_verified = False
        opened_all = bundle.open(
            recipient=self.identity.public_key, now=now, judge=judge, window=limits.acceptance_window
        )
        for index, opened in enumerate(opened_all):
            if entry.answered >> index & 1:
                continue
            if opened.envelope is None:
                late.append((index, opened))
                continue
            is_verified = True
            self._accept(entry, index, opened, now)
        if late and not is_verified and not all(opened.reason in _UNANSWERED for _, opened in late):
            # They were refused for less, and whoever is answered has signed what is answered.
            is_verified = bundle.is_signed()
        if is_verified:
            self.known[sender] = bundle.sender
            self.known.move_to_end(sender)
            if len(self.known) > limits.known_peers:
                self.known.popitem(last=False)
        for index, opened in late:
            self._take_late(entry, index, opened, is_verified=is_verified)

    def _accept(self, entry: Entry, index: int, opened: Opened, now: int) -> None:
        envelope = opened.envelope
        if envelope is None:
            return
        twin = self._arrivals.get(envelope.sender, envelope.id)
        if twin is not None:  # of the same bundle
            self._take_twin(entry, index, twin)
            return
        if envelope.lane is not entry.intake.lane:
            self._refuse(entry, DropReason.MALFORMED)
            return
        remembered_for = int((self._network.limits.acceptance_window + CLOCK_SKEW) * 1000)
        part = Part(self, entry, index)
        arrival = Arrival(self, envelope.sender, envelope.id, opened.issued_at, part, remembered_for)
        self._arrivals.add(arrival, now)
        entry.left += 1
        entry.intake.held.append((envelope, arrival))

    def _take_late(self, entry: Entry, index: int, opened: Opened, *, is_verified: bool) -> None:
        """Take one that was refused, or is a twin of what came before."""
        reason = opened.reason or DropReason.MALFORMED
        twin = None if entry.origin is None else self._arrivals.get(entry.origin, opened.id)
        if twin is not None and reason in _OF_TWINS and is_verified:
            self._take_twin(entry, index, twin)
            return
        if not is_verified and reason not in _UNANSWERED:
            reason = DropReason.BAD_SIGNATURE
        self._refuse(entry, reason)
        if reason not in _UNANSWERED:
            self._answer(entry, index, Answer(opened.id, ReceiptStatus.DROPPED, reason))

    def _take_twin(self, entry: Entry, index: int, twin: Arrival) -> None:
        entry.left += 1
        part = Part(self, entry, index)
        if twin.is_answered:
            part.tell(twin)
        else:
            twin.tellers = (*twin.tellers, part)

    def _refuse(self, entry: Entry, reason: DropReason) -> None:
        if entry.refused is None:
            entry.refused = reason
            self._network.count_dead(self, reason)

    def _known(self, sender: PeerId) -> Judge:
        def judge(header: Header) -> DropReason | None:
            """Refuse twins: they are not verified again, one by one."""
            return None if self._arrivals.get(sender, header.id) is None else DropReason.DUPLICATE

        return judge

    def _stranger(self, sender: PeerId) -> Judge:
        def judge(header: Header) -> DropReason | None:
            """Refuse what somebody may not send who is not trusted: all but small commands, and not many (SPEC 3)."""
            if not self._commands.admits(sender, trio.current_time()):
                return DropReason.RATE_LIMITED
            if self._arrivals.get(sender, header.id) is not None:
                return DropReason.DUPLICATE
            if header.kind is not EnvelopeKind.REQUEST or header.intent != BRIDGE_INTENT:
                return DropReason.UNTRUSTED_SENDER
            return DropReason.OVERSIZE if len(header.body) > _STRANGERS_BODY else None

        return judge

    def _feed_all(self) -> None:
        for intake in self.intakes.values():
            self._feed(intake)

    def _feed(self, intake: Intake) -> None:
        """Put what waits here into the inbox, as far as there is room."""
        if self._is_feeding:
            return  # an envelope was taken as it came; the loop below goes on
        self._is_feeding = True
        try:
            while intake.held and (inbox := self.inbox) is not None:
                envelope, arrival = intake.held[0]
                try:
                    receipt = inbox.put_nowait(envelope)
                except trio.WouldBlock:
                    break
                intake.held.popleft()
                receipt.tell(arrival.settle)
        finally:
            self._is_feeding = False
        if intake.is_left_out and self.may_read(intake):
            self._network.wants_more()

    # -- what is answered

    def has_answered(self, _arrival: Arrival) -> bool:
        """Let every part of it be told."""
        return True

    def settled(self, entry: Entry, index: int, arrival: Arrival) -> None:
        """Note what became of an envelope.

        Of what was dropped because nobody is here nothing is said: whoever is here next may admit it. But a sender of
        this process is told, and its envelope does not wait for anybody.
        """
        entry.left -= 1
        if arrival.reason is DropReason.CLOSED and not self.instances:
            self._arrivals.forget(arrival)
            if entry.answers == self._network.answers and not self.is_fenced:
                self._network.tell_sender(arrival.sender, self.identity.peer_id, arrival.id)
                entry.answered |= 1 << index
            else:
                entry.is_given_back = True
        else:
            if arrival.reason is DropReason.NOT_RECORDED:
                self._arrivals.forget(arrival)
            status = ReceiptStatus.ADMITTED if arrival.reason is None else ReceiptStatus.DROPPED
            self._answer(entry, index, Answer(arrival.id, status, arrival.reason))
        self._note_change(entry)
        self._feed(entry.intake)

    def _answer(self, entry: Entry, index: int, answer: Answer) -> None:
        entry.answered |= 1 << index
        if not self.is_fenced and entry.origin is not None:
            self._answers.setdefault((entry.answers, entry.origin), []).append(answer)

    def _note_change(self, entry: Entry) -> None:
        if not entry.left:
            entry.intake.entries.pop(entry.id, None)
        if not self.is_fenced and (entry.answered or not (entry.left or entry.is_given_back)):
            self._changed[entry] = None
            self._network.has_changes(self)
        elif not self.instances:
            self._network.has_changes(self)  # it may be the last thing that was waited for

    def take_updates(self) -> list[Update]:
        """Take what is to be written; say `put_back` or `written` of each."""
        taken, self._unwritten = self._unwritten, []
        if self._changed or self._answers:
            changed, self._changed = self._changed, {}
            told, self._answers = self._answers, {}
            answers = [
                (stream, signed)
                for (stream, sender), several in told.items()
                for signed in sign_answers(self.identity, sender, several)
            ]
            taken.append((list(map(Change, changed)), answers))
        self.in_writing += len(taken)
        return [Update(self, changes, answers) for changes, answers in taken]

    def put_back(self, update: Update) -> None:
        """Let an update be written again: it is not known whether it was. What is written twice is so to no effect."""
        self.in_writing -= 1
        self._keep(update.changes, update.answers)

    def written(self, update: Update, unwritten: int) -> None:
        """Note that an update was written, but for its last answers."""
        self.in_writing -= 1
        if unwritten:
            self._keep([], update.answers[-unwritten:])
        elif not self.is_flushed:
            self._network.has_changes(self)

    def _keep(self, changes: list[Change], answers: list[tuple[str, SignedAnswers]]) -> None:
        if not self.is_fenced:
            self._unwritten.append((changes, answers))
            self._network.has_changes(self)

    def __repr__(self) -> str:
        return f"<mailbox of {self.identity.peer_id}>"
