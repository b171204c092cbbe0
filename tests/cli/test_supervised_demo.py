"""`meerkat-trio demo --supervised`."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from click.testing import CliRunner, Result

from meerkat_trio import DeliverMemberInput, Envelope
from meerkat_trio._reconcile import Edge
from meerkat_trio._supervision import Supervision
from meerkat_trio._trust_task import desired_edges
from meerkat_trio.authority import PeerEndpoint, SessionState
from meerkat_trio.cli._commands import commands
from meerkat_trio.cli._ledger import Account, Entry
from meerkat_trio.cli._mob_outcome import MemberOutcome, MobOutcome, doubly_accounted
from meerkat_trio.cli._mob_plan import CAUSES, FAULTS, REPAIRS, SOMETIMES, draw_mob_plan, mobs_of

from .terminal import on_a_terminal

SMALL = ("--sessions", "5", "--messages", "24", "--virtual")


def demo(*args: str) -> Result:
    return CliRunner().invoke(commands, ["demo", "--supervised", *args])


def as_json(*args: str, status: int = 0) -> Any:
    result = demo("--json", *args)
    assert result.exit_code == status, result.output
    return json.loads(result.output)


def test_nothing_is_lost_and_every_rejection_repair_and_fault_happens() -> None:
    data = as_json("--sessions", "5", "--messages", "24")
    total = data["total"]
    assert [total[name] for name in ("duplicated", "lost", "reordered")] == [0, 0, 0]
    assert total["sent"] == total["handled"] + total["handed_back"]
    assert set(total["rejected"]) == set(CAUSES)
    assert set(total["repaired"]) == set(REPAIRS)
    assert all(total["rejected"].values())
    assert all(total["repaired"].values())
    assert all(total["faults"][kind] for kind in FAULTS if kind not in SOMETIMES)
    assert {"oversize", "rate_limited"} <= set(total["dropped"])
    assert (data["failures"], data["missing"], data["surprises"], data["disagreeing"]) == ([], {}, [], [])
    assert [name for name, each in data["sessions"].items() if each["destroyed"]] == ["member-4"]
    assert data["sessions"]["member-0"]["handled"] <= 24
    assert data["sessions"]["member-4"]["handed_back"] > 0


def test_without_faults_nothing_is_rejected_and_nothing_has_to_happen() -> None:
    data = as_json("--sessions", "7", "--messages", "10", "--no-faults")
    total = data["total"]
    assert not any([*total["rejected"].values(), *total["repaired"].values(), *total["faults"].values()])
    assert total["lost"] == 0
    assert total["accepted"]["destroy_member"] == 2
    assert total["accepted"]["bind_member"] == 7


def test_a_virtual_run_of_the_same_seed_is_the_same_to_the_byte() -> None:
    outputs = set()
    for hash_seed in ("1", "2"):
        command = [sys.executable, "-m", "meerkat_trio.cli", "demo", "--supervised", "--json", "--seed", "3", *SMALL]
        env = {**os.environ, "PYTHONHASHSEED": hash_seed}
        outputs.add(subprocess.run(command, capture_output=True, check=True, env=env).stdout)
    assert len(outputs) == 1


def test_another_seed_is_another_run() -> None:
    assert as_json("--seed", "3", *SMALL)["total"] != as_json("--seed", "4", *SMALL)["total"]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("sessions", "messages"), [(2, 1), (2, 2), (3, 5)])
def test_everything_happens_however_little_is_sent(sessions: int, messages: int, seed: int) -> None:
    sizes = ("--sessions", str(sessions), "--messages", str(messages), "--virtual", "--seed", str(seed))
    assert as_json(*sizes)["missing"] == {}


def test_the_totals_are_those_of_the_ledgers_file(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    data = as_json(*SMALL, "--ledger", str(ledger))
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert len(entries) == data["total"]["handled"]
    for name, each in data["sessions"].items():
        assert sum(entry["session"] == name for entry in entries) == each["handled"]
    assert {entry["sender"] for entry in entries if entry["session"] == "member-1"} == {
        "supervisor-a",
        "supervisor-b",
        "member-0",
    }


@pytest.mark.parametrize("columns", [80, 40])
def test_the_tables_fit_and_end_with_the_verdict(columns: int) -> None:
    lines = on_a_terminal(columns, "demo", "--supervised", *SMALL)
    assert max(len(line) for line in lines) <= columns
    shown = " ".join(" ".join(lines).split())
    assert shown.endswith("nothing was lost, doubled or reordered; authority and trust stores agree")
    for part in ("commands that were rejected", "repairs", "faults that happened", "supervisor edge restored"):
        assert part in shown


# --- a library that is broken ----------------------------------------------------------------------


def test_an_input_that_is_accepted_and_lost_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    deliver = Supervision._deliver

    def forgetful(self: Supervision, message: Envelope, command: DeliverMemberInput) -> dict[str, Any]:
        # The last but one, so that none is missing behind it only.
        return {"result": "accepted"} if command.input_id == "input-10" else deliver(self, message, command)

    monkeypatch.setattr(Supervision, "_deliver", forgetful)
    data = as_json(*SMALL, "--no-faults", status=1)
    assert data["total"]["lost"] == 5
    assert data["failures"] == ["the ledger does not balance: 5 lost"]


def test_an_input_that_is_handled_twice_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meerkat_trio._supervision.INPUTS_REMEMBERED", 0)
    data = as_json(*SMALL, status=1)
    assert data["total"]["duplicated"] > 0
    assert "doubled" in data["failures"][0]
    assert data["missing"]["repairs"] == ["deliver_deduplicated"]


def test_an_edge_that_is_never_stored_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def supervisors_alone(state: SessionState) -> dict[Edge, PeerEndpoint]:
        return {edge: endpoint for edge, endpoint in desired_edges(state).items() if edge[1].value == "supervisor"}

    monkeypatch.setattr("meerkat_trio._trust_task.desired_edges", supervisors_alone)
    data = as_json(*SMALL, "--no-faults", status=1)
    assert data["disagreeing"] == [f"member-{number}" for number in range(4)]
    assert data["failures"] == ["trust store and authority disagree: member-0, member-1, member-2, member-3"]


def test_an_answer_before_the_edge_stands_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meerkat_trio._supervision.Supervision._make_sight", lambda _: lambda _: True)
    data = as_json(*SMALL, status=1)
    assert any("edge" in surprise for surprise in data["surprises"])


def test_a_token_that_is_not_checked_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meerkat_trio._bridge.is_token", lambda *_: True)
    data = as_json(*SMALL, status=1)
    assert "invalid_bootstrap_token" in data["missing"]["rejections"]
    assert "bind_member: invalid_bootstrap_token was to come" in data["surprises"][0]


def test_what_does_not_happen_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr("meerkat_trio.cli._mob_moves.MobChaos._babble", nothing)
    result = demo(*SMALL)
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == (
        "FAILED: rejections that did not happen: invalid_supervisor_spec, invalid_peer_spec, "
        "unsupported_protocol_version, unsupported, internal; faults that did not happen: malformed_commands"
    )


def test_a_run_in_which_nothing_happens_any_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("meerkat_trio.cli._mob_moves.MobChaos._rebind", never)
    data = as_json(*SMALL, status=1)
    assert data["stuck"]
    assert data["failures"][-1] == "given up, for nothing happened for 30 s"


# --- options ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--input", "-"), "--input: with --supervised the senders are supervisors and other sessions"),
        (("--senders", "3"), "--senders: with --supervised the senders are supervisors and other sessions"),
        (("--input", "x", "--senders", "3"), "--input, --senders: with --supervised"),
        (("--sessions", "1"), "--sessions: with --supervised 2 or more are needed, not 1"),
        (("--sessions", "1000", "--messages", "5001"), "1000 x 5001 is more than 5000000 messages"),
        (("--ledger", "/nonexistent/ledger"), "--ledger /nonexistent/ledger: No such file or directory"),
    ],
)
def test_bad_usage_is_one_error_and_status_2(args: tuple[str, ...], message: str) -> None:
    result = demo(*args)
    assert (result.exit_code, len(result.output.splitlines())) == (2, 1)
    assert message in result.output


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: path.write_text("hello\n"), "holds a line that this run did not write: b'hello\\n'"),
    ],
    ids=["deleted", "foreign"],
)
def test_a_ledger_that_cannot_be_read_back_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object], message: str
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    monkeypatch.setattr("meerkat_trio.cli._scribe.Scribe.require_written", lambda _: spoil(ledger))
    result = demo(*SMALL, "--no-faults", "--ledger", str(ledger))
    assert (result.exit_code, result.output) == (1, f"Error: --ledger {ledger}: {message}\n")


# --- parts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sessions", "sizes"), [(2, [2]), (5, [5]), (6, [3, 3]), (7, [3, 4]), (11, [3, 4, 4]), (20, [5, 5, 5, 5])]
)
def test_no_mob_has_more_than_five_members_or_only_one(sessions: int, sizes: list[int]) -> None:
    mobs = mobs_of(sessions)
    assert [len(mob) for mob in mobs] == sizes
    assert [number for mob in mobs for number in mob] == list(range(sessions))


def test_the_plan_depends_on_the_seed_alone() -> None:
    streams = {"supervisors": 20, "peer": 20}
    plans = [draw_mob_plan(random.Random(seed), streams) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_what_is_handled_behind_what_was_handed_back_is_noticed() -> None:
    entries = [Entry("m", "p", number, 0.0) for number in (0, 1, 3)]
    assert doubly_accounted(entries, {("m", "p"): {2}, ("m", "q"): set(), ("n", "p"): {0}}) == 1
    assert doubly_accounted(entries, {("m", "p"): {1}}) == 2
    assert doubly_accounted(entries, {("m", "p"): {4}}) == 0


def member(*, planned: int, destroyed: bool = False, **counts: int) -> MemberOutcome:
    return MemberOutcome(account=Account(**counts), planned=planned, destroyed=destroyed, rebinds=0, longest_stall=0.0)


def outcome(**members: MemberOutcome) -> MobOutcome:
    return MobOutcome(
        members=members,
        doubly_accounted=0,
        accepted={},
        rejected=dict.fromkeys(CAUSES, 1),
        dropped={},
        repaired=dict.fromkeys(REPAIRS, 1),
        faults=dict.fromkeys(FAULTS, 1),
        demanded=True,
        disagreeing=(),
        surprises=(),
        stuck=False,
    )


def test_what_a_destroyed_member_hands_back_is_no_failure_and_what_a_living_one_gives_up_is() -> None:
    assert outcome(m=member(planned=3, destroyed=True, sent=2, handled=1, abandoned=1)).succeeded
    assert outcome(m=member(planned=2, sent=2, handled=1, abandoned=1)).failures == ("1 abandoned",)


def test_every_reason_of_a_failure_is_named() -> None:
    fine = outcome(m=member(planned=10, sent=9, handled=8, duplicated=2, lost=1, reordered=3, abandoned=4))
    broken = attrs.evolve(
        fine,
        doubly_accounted=5,
        rejected={**fine.rejected, "internal": 0},
        repaired={**fine.repaired, "bind_already": 0},
        faults={**fine.faults, "rebinds": 0, "interrupts": 0},
        disagreeing=("m",),
        surprises=("m: this", "m: that"),
        stuck=True,
    )
    assert broken.failures == (
        "the ledger does not balance: 1 lost, 2 doubled, 3 reordered",
        "5 handled and handed back",
        "4 abandoned",
        "rejections that did not happen: internal",
        "repairs that did not happen: bind_already",
        "faults that did not happen: rebinds",
        "trust store and authority disagree: m",
        "2 answers that had to be others, the first: m: this",
        "1 planned but never sent",
        "given up, for nothing happened for 30 s",
    )
    assert attrs.evolve(broken, demanded=False).missing == {}
