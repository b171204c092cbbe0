"""`meerkat-trio demo`."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from click.testing import CliRunner, Result

from meerkat_trio.cli._commands import commands
from meerkat_trio.cli._demo_input import InputError, InputLine, read_input
from meerkat_trio.cli._demo_plan import KINDS, HandlerFault, Plan, draw_plan
from meerkat_trio.cli._demo_report import print_tables
from meerkat_trio.cli._ledger import Account, Entry, Ledger, LedgerError, audit, stalls
from meerkat_trio.cli._performance import Outcome, SessionOutcome, Show, Traffic, _Stage

from .terminal import on_a_terminal

SMALL = ("--sessions", "5", "--messages", "60", "--senders", "3")


def demo(*args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(commands, ["demo", *args], input=stdin)


def as_json(*args: str, stdin: str | None = None) -> Any:
    result = demo("--json", *args, stdin=stdin)
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_nothing_is_lost_and_every_kind_of_fault_happens() -> None:
    data = as_json(*SMALL)
    assert {kind: count > 0 for kind, count in data["faults"].items()} == dict.fromkeys(KINDS, True)
    total = data["total"]
    assert [total[name] for name in ("sent", "handled", "duplicated", "lost", "reordered")] == [300, 300, 0, 0, 0]
    assert total["faults"] == data["faults"]
    assert total["rebinds"] >= 5
    assert total["restarts"] >= total["faults"]["respawns"] > 0
    assert len(data["sessions"]) == 5


def test_without_faults_none_happens() -> None:
    data = as_json(*SMALL, "--no-faults")
    assert set(data["faults"].values()) == {0}
    assert data["total"]["handled"] == 300


@pytest.mark.parametrize("transport", ["tcp", "uds"])
def test_sockets_lose_nothing_either(transport: str) -> None:
    data = as_json(*SMALL, "--transport", transport)
    total = data["total"]
    assert [total[name] for name in ("sent", "handled", "duplicated", "lost", "reordered")] == [300, 300, 0, 0, 0]
    assert data["missing_faults"] == []
    assert data["settings"]["transport"] == transport


@pytest.mark.parametrize("option", ["--virtual", "--supervised"])
def test_sockets_know_no_virtual_time_and_no_mobs(option: str) -> None:
    result = demo("--transport", "tcp", option)
    assert result.exit_code == 2
    assert f"--transport tcp: sockets do not go together with {option}" in result.output


def test_the_table_shows_sessions_faults_and_the_verdict() -> None:
    result = demo("--sessions", "25", "--messages", "12")
    assert result.exit_code == 0, result.output
    assert "session-0" in result.output
    assert "and 5 more" in result.output
    assert "faults that happened:" in result.output
    assert "nothing was lost, doubled or reordered" in result.output


def test_a_virtual_run_of_the_same_seed_is_the_same_to_the_byte() -> None:
    outputs = set()
    for hash_seed in ("1", "2"):
        ran = subprocess.run(
            [sys.executable, "-m", "meerkat_trio.cli", "demo", "--virtual", "--json", "--seed", "3", *SMALL],
            capture_output=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        outputs.add(ran.stdout)
    assert len(outputs) == 1


def test_another_seed_is_another_run() -> None:
    assert (
        as_json("--virtual", "--seed", "3", *SMALL)["sessions"]
        != as_json("--virtual", "--seed", "4", *SMALL)["sessions"]
    )


def test_each_line_of_the_input_is_handled_once_and_written_to_the_ledger(tmp_path: Path) -> None:
    lines = [{"session": f"s{n % 3}", "sender": f"p{n % 2}", "body": {"n": n}} for n in range(200)]
    source, ledger = tmp_path / "in.jsonl", tmp_path / "ledger.jsonl"
    source.write_text("\n".join(json.dumps(line) for line in lines) + "\n\n")
    total = as_json("--input", str(source), "--ledger", str(ledger))["total"]
    assert (total["sent"], total["handled"], total["lost"], total["duplicated"]) == (200, 200, 0, 0)
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    for session in ("s0", "s1", "s2"):
        for sender in ("p0", "p1"):
            wanted = [line["body"] for line in lines if (line["session"], line["sender"]) == (session, sender)]
            assert [
                line["body"] for line in entries if (line["session"], line["sender"]) == (session, sender)
            ] == wanted


def test_standard_input_is_drained_too() -> None:
    line = json.dumps({"session": "s", "sender": "p", "body": None})
    assert as_json("--input", "-", stdin=f"{line}\n{line}\n")["total"]["handled"] == 2


def test_a_deep_line_that_is_read_is_also_written(tmp_path: Path) -> None:
    source, ledger = tmp_path / "in.jsonl", tmp_path / "ledger.jsonl"
    deep = "[" * 190 + "]" * 190
    source.write_text(f'{{"session": "s", "sender": "p", "body": {deep}}}\n')
    assert as_json("--input", str(source), "--ledger", str(ledger))["total"]["handled"] == 1
    assert json.loads(ledger.read_text())["body"] == json.loads(deep)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_cannot_be_written_is_one_line() -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "meerkat_trio.cli", "demo", "--json", "--input", "-"],
            input="",
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert ran.returncode == 1
    assert ran.stderr == "meerkat-trio: the output cannot be written: No space left on device\n"


def test_an_empty_input_is_nothing_to_do() -> None:
    assert as_json("--input", "-", stdin="")["total"]["sent"] == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "in.jsonl:2: not JSON: Expecting property name enclosed in double quotes (column 2)"),
        ('{"session": "s", "session": "t", "sender": "p", "body": 1}', "in.jsonl:2: not JSON: the key 'session' is "),
        (
            '{"session": "s", "sender": "p", "body": {"a": 1, "a": 1}}',
            "in.jsonl:2: not JSON: the key 'a' is ",
        ),
        ("[]", "in.jsonl:2: an object with session, sender and body is needed"),
        ('{"session": "s", "sender": "p"}', "in.jsonl:2: an object with session, sender and body is needed"),
        ('{"session": " ", "sender": "p", "body": 1}', "in.jsonl:2: session must be a printable text"),
        ('{"session": "s", "sender": 7, "body": 1}', "in.jsonl:2: sender must be a printable text"),
        ('{"session": "s", "sender": "p", "body": NaN}', "in.jsonl:2: not JSON: NaN is no JSON number"),
        ('{"session": "s", "sender": "p", "body": ' + "[" * 100_000, "in.jsonl:2: nested too deeply"),
        ('{"session": "s", "sender": "p", "body": ' + "[" * 300 + "]" * 300 + "}", "in.jsonl:2: nested too deeply"),
        ('{"session": "s", "sender": "p", "body": 1e999}', "in.jsonl:2: not JSON: 1e999 is too large a number"),
    ],
)
def test_a_malformed_line_is_named_and_nothing_is_handled(tmp_path: Path, line: str, message: str) -> None:
    source, ledger = tmp_path / "in.jsonl", tmp_path / "ledger.jsonl"
    source.write_text('{"session": "s", "sender": "p", "body": 1}\n' + line + "\n")
    result = demo("--input", str(source), "--ledger", str(ledger))
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.splitlines()) == 1
    assert not ledger.exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--sessions", "0"), "0 is not in the range"),
        (("--messages", "-1"), "-1 is not in the range"),
        (("--senders", "x"), "'x' is not a valid integer range"),
        (("--input", "/nonexistent/in.jsonl"), "/nonexistent/in.jsonl: No such file or directory"),
        (("--ledger", "/nonexistent/ledger", "--messages", "1"), "/nonexistent/ledger: No such file or directory"),
        (("--ledger", "/dev/null", "--messages", "1"), "--ledger /dev/null: not a regular file"),
        (("--ledger", "/"), "File '/' is a directory"),
        (("--input", "/"), "/: Is a directory"),
        (("--input", ""), "Error: --input: the name of a file is needed, or - for standard input"),
        (("--sessions", "1000", "--messages", "5001"), "1000 x 5001 is more than 5000000 messages"),
        (("--input", "-", "--messages", "3"), "--messages: with --input the file says what is sent"),
        (("--nonsense",), "No such option"),
    ],
)
def test_bad_usage_is_one_error_and_status_2(args: tuple[str, ...], message: str) -> None:
    result = demo(*args)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.splitlines()) == 1


def test_input_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'{"session": "s", "sender": "p", "body": 1}\n\xff\n')
    result = demo("--input", str(source))
    assert result.exit_code == 2
    assert result.output == f"Error: {source}:2: not UTF-8: invalid start byte\n"


def handled(*numbers: int) -> list[Entry]:
    return [Entry("s", "p", number, 0.5) for number in numbers]


@pytest.mark.parametrize(
    ("numbers", "abandoned", "expected"),
    [
        ((0, 1, 2), set(), Account(sent=3, handled=3)),
        ((0, 1), set(), Account(sent=3, handled=2, lost=1)),
        ((0, 1), {2}, Account(sent=3, handled=2, abandoned=1)),
        ((0, 1), {1}, Account(sent=3, handled=2, abandoned=1, lost=1)),
        ((0, 1, 1, 2), set(), Account(sent=3, handled=4, duplicated=1)),
        ((0, 2, 1), set(), Account(sent=3, handled=3, reordered=1)),
    ],
)
def test_the_audit_counts_what_the_file_says(numbers: tuple[int, ...], abandoned: set[int], expected: Account) -> None:
    assert audit(handled(*numbers), {("s", "p"): 3}, {("s", "p"): abandoned}) == {"s": expected}
    assert expected.balances == (expected in {Account(sent=3, handled=3), Account(sent=3, handled=2, abandoned=1)})


def test_blank_lines_of_the_input_are_passed_over() -> None:
    assert read_input("f", [b"\n", b'{"session": "s", "sender": "p", "body": 1}\n']) == [InputLine("s", "p", 1)]
    with pytest.raises(InputError, match="f:2"):
        read_input("f", [b"\n", b"nonsense\n"])


def test_a_ledger_that_does_not_balance_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "meerkat_trio.cli._performance.audit", lambda *_: {"session-0": Account(sent=1, handled=0, lost=1)}
    )
    result = demo("--sessions", "1", "--messages", "1", "--no-faults")
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "FAILED: the ledger does not balance: 1 lost"


def test_an_interruption_is_one_line_and_status_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("meerkat_trio.cli._demo.perform", interrupted)
    result = demo("--messages", "1")
    assert result.exit_code == 130
    assert result.output == "interrupted\n"


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("messages", ["1", "2", "10"])
def test_every_kind_of_fault_happens_however_little_is_sent(messages: str, seed: int) -> None:
    sizes = ("--sessions", "1", "--messages", messages, "--senders", "2")
    assert as_json(*sizes, "--virtual", "--seed", str(seed))["missing_faults"] == []


def test_the_plan_depends_on_the_seed_alone() -> None:
    streams = {"p": 40, "q": 40}
    plans = [draw_plan(random.Random(seed), streams) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_the_faults_of_a_plan_are_what_happens() -> None:
    runs = [as_json(*SMALL, "--seed", "5")["faults"] for _ in range(2)]
    planned = ("handler_failures", "handler_delays", "promotions", "cancelled_attaches", "cancelled_stops", "crashes")
    assert [runs[0][kind] for kind in planned] == [runs[1][kind] for kind in planned]


def test_a_fault_that_does_not_happen_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(*_: object) -> None:
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr("meerkat_trio.cli._faults.Chaos._promote", nothing)
    result = demo(*SMALL)
    assert result.exit_code == 1
    assert result.output.splitlines()[-1] == "FAILED: faults that did not happen: promotions"


def test_a_run_in_which_nothing_happens_any_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("meerkat_trio.cli._faults.Chaos._rebind", never)
    result = demo(*SMALL, "--virtual", "--json")
    assert result.exit_code == 1
    data = json.loads(result.output)
    assert data["stuck"]
    assert data["total"]["sent"] < 300
    assert data["never_sent"] == 300 - data["total"]["sent"]
    assert data["failures"][-2:] == [
        "given up, for nothing happened for 30 s",
        f"{data['never_sent']} planned but never sent",
    ]


async def test_a_run_in_which_nothing_happens_is_given_up_after_30_seconds(
    autojump_clock: trio.testing.MockClock, tmp_path: Path
) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    stage = _Stage(Show(traffic=Traffic(bodies={}), seed=0, faults=False, virtual=True, ledger=ledger))
    before = trio.current_time()
    await stage._give_up_if_stuck()
    ledger.close()
    assert 30 <= trio.current_time() - before <= 31


def test_all_plans_are_drawn_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def draw(*args: Any) -> Plan:
        with pytest.raises(RuntimeError):
            trio.lowlevel.current_task()
        drawn.append(args)
        return draw_plan(*args)

    monkeypatch.setattr("meerkat_trio.cli._performance.draw_plan", draw)
    assert as_json(*SMALL)["total"]["handled"] == 300
    assert len(drawn) == 5


def test_a_message_that_no_handler_takes_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    refused = Plan(handler={("sender-0", 1): HandlerFault(failures=1000)}, sends={})
    monkeypatch.setattr(Plan, "of_nothing", lambda: refused)
    result = demo("--sessions", "1", "--messages", "3", "--senders", "1", "--no-faults", "--json")
    assert result.exit_code == 1
    data = json.loads(result.output)
    total = data["total"]
    assert (total["sent"], total["handled"], total["lost"], total["abandoned"]) == (3, 2, 0, 1)
    assert data["failures"] == ["1 abandoned"]


def test_a_ledger_keeps_what_it_held_and_the_audit_passes_over_it(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    ledger.write_text("precious, and without a newline")
    sizes = ("--sessions", "2", "--messages", "3", "--no-faults")
    for _ in range(2):
        assert as_json(*sizes, "--ledger", str(ledger))["total"]["handled"] == 6
    lines = ledger.read_text().splitlines()
    assert lines[0] == "precious, and without a newline"
    assert len(lines) == 13


def test_the_input_is_never_taken_for_the_ledger(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"session": "s", "sender": "p", "body": 1}\n')
    result = demo("--input", str(source), "--ledger", str(source))
    assert (result.exit_code, result.output) == (2, f"Error: --ledger {source}: this is the input\n")
    assert source.read_text() == '{"session": "s", "sender": "p", "body": 1}\n'


@pytest.mark.parametrize(
    ("session", "sender"),
    [
        ("from-p", "p"),
        ("session", "session"),
        ("sender-0", "x"),
        (" a ", " b "),
        ("s" * 500, "p" * 500),
        ("[/b]", "[b]"),
    ],
)
def test_any_printable_name_will_do(session: str, sender: str) -> None:
    line = json.dumps({"session": session, "sender": sender, "body": 1})
    result = demo("--input", "-", stdin=line + "\n")
    assert result.exit_code == 0, result.output
    assert session.strip()[:4] in result.output


def test_entries_of_what_was_never_sent_count_as_doubled() -> None:
    entries = handled(0, 1, 7)
    assert audit(entries, {("s", "p"): 2}, {}) == {"s": Account(sent=2, handled=3, duplicated=1)}
    assert audit(entries, {}, {}) == {"s": Account(handled=3, duplicated=3)}


def test_the_longest_stall_is_in_the_file(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for at in (0.5, 0.75, 2.0):
        ledger.append("s", "p", 0, body=None, at=at)
    assert stalls(ledger.entries()) == {"s": 1.25}
    ledger.close()


@contextmanager
def running(*args: str) -> Iterator[subprocess.Popen[str]]:
    """Run the demo in a process that Ctrl-C reaches, even if this one ignores it, and that ends with the block."""
    # A handler of ours becomes the default one in the child; SIG_IGN would be inherited.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        child = subprocess.Popen(
            [sys.executable, "-m", "meerkat_trio.cli", "demo", *args],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with child:
        try:
            yield child
        finally:
            child.kill()


def wait_until_written(ledger: Path, child: subprocess.Popen[str]) -> None:
    while not (ledger.exists() and ledger.stat().st_size):
        assert child.poll() is None


ENDLESS = ("--messages", "1000000", "--sessions", "1", "--no-faults")


def test_ctrl_c_is_one_line_and_status_130_with_a_ledger_of_whole_lines(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as under nohup
    try:
        with running(*ENDLESS, "--ledger", str(ledger)) as child:
            wait_until_written(ledger, child)
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=60)
    finally:
        signal.signal(signal.SIGINT, before)
    assert (child.returncode, out, err) == (130, "", "interrupted\n")
    assert all(json.loads(line)["session"] == "session-0" for line in ledger.read_text().splitlines())


def test_a_second_run_on_one_ledger_is_refused(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    with running(*ENDLESS, "--ledger", str(ledger)) as child:
        wait_until_written(ledger, child)
        second = demo("--messages", "1", "--ledger", str(ledger))
    assert (second.exit_code, second.output) == (2, f"Error: --ledger {ledger}: another run is writing to it\n")
    assert as_json("--messages", "1", "--sessions", "1", "--ledger", str(ledger))["total"]["handled"] == 1


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    command = [sys.executable, "-m", "meerkat_trio.cli", "demo", "--json", "--messages", "1", "--no-faults"]
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, "")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: (path.unlink(), path.touch()), "another file has taken its place"),
        (lambda path: path.write_text("hello\n"), "holds a line that this run did not write: b'hello\\n'"),
        (lambda path: path.write_text("{}\n"), "holds a line that this run did not write: b'{}\\n'"),
    ],
    ids=["deleted", "replaced", "foreign", "foreign JSON"],
)
def test_a_ledger_that_cannot_be_read_back_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Any, message: str
) -> None:
    ledger = tmp_path / "ledger.jsonl"
    append = Ledger.append

    def append_and_spoil(self: Ledger, *args: Any, **kwargs: Any) -> None:
        append(self, *args, **kwargs)
        spoil(ledger)

    monkeypatch.setattr(Ledger, "append", append_and_spoil)
    result = demo("--sessions", "1", "--messages", "1", "--no-faults", "--ledger", str(ledger))
    assert (result.exit_code, result.output) == (1, f"Error: --ledger {ledger}: {message}\n")


def test_a_ledger_that_cannot_be_written_any_more_ends_the_run_and_is_named(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    limited = 'ulimit -f 8; exec "$@"'
    command = [sys.executable, "-m", "meerkat_trio.cli", "demo", *ENDLESS, "--ledger", str(ledger)]
    command = ["bash", "-c", limited, "bash", *command]
    # Where coverage is measured it would be written to a file as well.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_PROCESS")}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=env)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"Error: --ledger {ledger}: File too large\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_nothing_is_written_behind_an_entry_that_could_not_be(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    good = ledger._file
    with Path("/dev/full").open("ab", buffering=0) as full:
        ledger._file = full
        with pytest.raises(LedgerError, match="No space left on device"):
            ledger.append("s", "p", 0, body=None, at=0.0)
    ledger._file = good
    with pytest.raises(LedgerError, match="No space left on device"):
        ledger.append("s", "p", 1, body=None, at=0.0)
    assert ledger.path.read_text() == ""
    ledger.close()


def test_standard_input_is_never_taken_for_the_ledger(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_text('{"session": "s", "sender": "p", "body": 1}\n')
    command = [sys.executable, "-m", "meerkat_trio.cli", "demo", "--input", "-", "--ledger", str(source)]
    with source.open() as stdin:
        ran = subprocess.run(command, stdin=stdin, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (2, f"Error: --ledger {source}: this is the input\n")
    assert source.read_text() == '{"session": "s", "sender": "p", "body": 1}\n'


def test_an_input_of_a_byte_order_mark_is_nothing_to_do() -> None:
    assert read_input("f", [b"\xef\xbb\xbf"]) == []
    assert read_input("f", [b"\xef\xbb\xbf\r\n", b" \n"]) == []


@pytest.mark.parametrize(
    "environment",
    [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}],
    ids=["ascii", "C locale"],
)
def test_what_the_encoding_does_not_have_is_shown_as_its_code(environment: dict[str, str]) -> None:
    def ran(*args: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "meerkat_trio.cli", *args]
        env = {**os.environ, **environment}
        return subprocess.run(command, input=stdin, capture_output=True, encoding="utf-8", check=False, env=env)

    name = json.dumps({"session": "gr\u00fc\u00dfe", "sender": "p", "body": 1})
    table = ran("demo", "--input", "-", stdin=name + "\n")
    assert (table.returncode, table.stderr) == (0, "")
    assert table.stdout.isascii()
    assert "gr\\xfc\\xdfe" in table.stdout
    wrong = ran("demo", "--input", "/nonexistent/\u00fc")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert ran("machine").returncode == 0


def outcome_of(*accounts: Account) -> Outcome:
    sessions = {
        f"session-{number}": SessionOutcome(account=account, rebinds=0, restarts=0, longest_stall=0.123456)
        for number, account in enumerate(accounts)
    }
    planned = sum(account.sent for account in accounts)
    return Outcome(sessions=sessions, planned=planned, faults=dict.fromkeys(KINDS, 0), demanded=(), stuck=False)


def test_sessions_with_which_something_is_wrong_come_first_and_are_all_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    fine, lost = Account(sent=1, handled=1), Account(sent=1, lost=1)
    abandoned = Account(sent=1, abandoned=1)
    print_tables(outcome_of(*[fine] * 30, lost, abandoned))
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.startswith("session-")]
    assert names == ["session-30", "session-31", *(f"session-{number}" for number in range(18))]
    print_tables(outcome_of(fine, *[lost] * 30))
    output = capsys.readouterr().out
    assert sum(line.startswith("session-") for line in output.splitlines()) == 30
    assert "and 1 more" in output


def test_every_reason_of_a_failure_is_named() -> None:
    account = Account(sent=9, handled=8, duplicated=2, lost=1, reordered=3, abandoned=4)
    outcome = Outcome(
        sessions={"s": SessionOutcome(account=account, rebinds=0, restarts=0, longest_stall=0.0)},
        planned=10,
        faults={"aborts": 0, "crashes": 1},
        demanded=("aborts", "crashes"),
        stuck=True,
    )
    assert outcome.failures == (
        "the ledger does not balance: 1 lost, 2 doubled, 3 reordered",
        "4 abandoned",
        "faults that did not happen: aborts",
        "given up, for nothing happened for 30 s",
        "1 planned but never sent",
    )
    assert not outcome.succeeded


@pytest.mark.parametrize("columns", [80, 72, 40])
def test_a_narrow_terminal_cuts_neither_names_nor_numbers(columns: int) -> None:
    lines = on_a_terminal(columns, "demo", "--sessions", "12", "--messages", "12", "--seed", "3", "--virtual")
    shown = "\n".join(lines)
    assert max(len(line) for line in lines) <= columns
    assert "…" not in shown
    assert re.findall(r"session-\d+", shown) == [f"session-{number}" for number in range(12)]
    assert len(re.findall(r"\b0\.\d{3}\b", shown)) == 13
    if columns >= 72:
        (total,) = [line for line in lines if line.startswith("total")]
        assert total.split()[:3] == ["total", "144", "144"]
        assert len(total.split()) == 10


def test_a_pipe_shows_long_names_whole() -> None:
    name = "n" * 500
    result = demo("--input", "-", stdin=json.dumps({"session": name, "sender": "p", "body": 1}) + "\n")
    assert f"{name} " in result.output


def test_rebinds_and_starts_seen_from_outside_are_what_the_machine_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[_Stage] = []
    outcome = _Stage.outcome

    def noted(self: _Stage) -> Outcome:
        stages.append(self)
        return outcome(self)

    monkeypatch.setattr(_Stage, "outcome", noted)
    for seed in range(6):
        data = as_json("--sessions", "3", "--messages", "200", "--virtual", "--seed", str(seed))
        for name, actors in stages[-1]._actors.items():
            counted, seen = actors.session.statistics(), data["sessions"][name]
            assert seen["rebinds"] == counted.rebinds
            assert seen["restarts"] == actors.session.drain.generation - counted.rebinds - 1
        assert data["faults"]["respawns"] == sum(
            actors.session.statistics().respawns for actors in stages[-1]._actors.values()
        )
