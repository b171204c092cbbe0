"""What is remembered of arrivals, and whose goes when it is too much."""

from __future__ import annotations

from meerkat_trio import Receipt
from meerkat_trio.authority import PeerId
from meerkat_trio.comms._arrivals import Arrival, Arrivals

ANN, BOB = (PeerId.of_key(name.ljust(32, b".")) for name in (b"ann", b"bob"))
NOW = 1_700_000_000_000
FORGOTTEN = NOW + 360_000 + 1


class Home:
    def has_answered(self, _: Arrival) -> bool:
        return True


class Teller:
    def tell(self, _: Arrival) -> None:
        pass


def added(arrivals: Arrivals, sender: PeerId, *ids: str, answered: bool = True, now: int = NOW) -> list[Arrival]:
    made = [Arrival(Home(), sender, message_id, now, Teller()) for message_id in ids]
    for each in made:
        arrivals.add(each, now)
        if answered:
            each.settle(Receipt.admitted())
    return made


def known(arrivals: Arrivals, sender: PeerId, *ids: str) -> list[str]:
    return [each for each in ids if arrivals.get(sender, each) is not None]


def test_who_sends_much_pushes_out_his_own() -> None:
    arrivals = Arrivals(4)
    added(arrivals, ANN, "1", "2")
    added(arrivals, BOB, *map(str, range(100)))
    assert known(arrivals, ANN, "1", "2") == ["1", "2"]
    assert known(arrivals, BOB, *map(str, range(100))) == ["98", "99"]
    assert len(arrivals) == 4


def test_a_newcomer_has_room_at_the_cost_of_who_has_most() -> None:
    arrivals = Arrivals(4)
    added(arrivals, BOB, "1", "2", "3", "4")
    added(arrivals, ANN, "1", "2")
    assert known(arrivals, BOB, "1", "2", "3", "4") == ["3", "4"]
    assert known(arrivals, ANN, "1", "2") == ["1", "2"]


def test_what_is_owed_an_answer_is_never_forgotten() -> None:
    arrivals = Arrivals(2)
    owed = added(arrivals, BOB, "1", "2", "3", answered=False)
    added(arrivals, BOB, "4", now=FORGOTTEN)
    arrivals.expire(FORGOTTEN)
    assert known(arrivals, BOB, "1", "2", "3") == ["1", "2", "3"]
    for each in owed:
        each.settle(Receipt.admitted())
    arrivals.expire(FORGOTTEN + 360_001)
    assert len(arrivals) == 0


def test_what_is_over_goes_also_if_its_sender_says_nothing_more() -> None:
    arrivals = Arrivals(10)
    added(arrivals, ANN, "1", "2")
    arrivals.expire(FORGOTTEN - 1)
    assert len(arrivals) == 2
    arrivals.expire(FORGOTTEN)
    assert (len(arrivals), arrivals._by_sender) == (0, {})


def test_what_is_forgotten_may_come_again() -> None:
    arrivals = Arrivals(10)
    first, other = added(arrivals, ANN, "1", "2")
    arrivals.forget(first)
    arrivals.forget(first)
    assert known(arrivals, ANN, "1", "2") == ["2"]
    (again,) = added(arrivals, ANN, "1")
    arrivals.forget(first)  # it is another that is remembered now
    assert arrivals.get(ANN, "1") is again
    arrivals.forget(Arrival(Home(), BOB, "1", NOW, Teller()))
    assert arrivals.get(ANN, "2") is other
    assert len(arrivals) == 2
