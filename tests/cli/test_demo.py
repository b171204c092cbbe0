"""`meerkat-trio demo`."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from meerkat_trio.cli._commands import commands
from meerkat_trio.cli._demo_plan import KINDS, draw_plan
from meerkat_trio.cli._ledger import Account, InputError, InputLine, Ledger, audit, read_input, stalls

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


def test_the_table_shows_sessions_faults_and_the_verdict() -> None:
    result = demo("--sessions", "25", "--messages", "12")
    assert result.exit_code == 0, result.output
    assert "session-0" in result.output
    assert "… 5 more" in result.output
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
    handled = [json.loads(line) for line in ledger.read_text().splitlines()]
    for session in ("s0", "s1", "s2"):
        for sender in ("p0", "p1"):
            wanted = [line["body"] for line in lines if (line["session"], line["sender"]) == (session, sender)]
            assert [
                line["body"] for line in handled if (line["session"], line["sender"]) == (session, sender)
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
        ("{", "in.jsonl:2: not JSON"),
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


def write(path: Path, *numbers: int) -> Path:
    entries = [{"session": "s", "sender": "p", "n": number, "body": None} for number in numbers]
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


@pytest.mark.parametrize(
    ("numbers", "abandoned", "expected"),
    [
        ((0, 1, 2), 0, Account(sent=3, handled=3)),
        ((0, 1), 0, Account(sent=3, handled=2, lost=1)),
        ((0, 1), 1, Account(sent=3, handled=2, abandoned=1)),
        ((0, 1, 1, 2), 0, Account(sent=3, handled=4, duplicated=1)),
        ((0, 2, 1), 0, Account(sent=3, handled=3, reordered=1)),
    ],
)
def test_the_audit_counts_what_the_file_says(
    tmp_path: Path, numbers: tuple[int, ...], abandoned: int, expected: Account
) -> None:
    ledger = write(tmp_path / "ledger.jsonl", *numbers)
    assert audit(ledger, {("s", "p"): 3}, {"s": abandoned}) == {"s": expected}
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
    assert "THE LEDGER DOES NOT BALANCE" in result.output


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
    assert "faults that did not happen: promotions" in result.output


def test_a_run_in_which_nothing_happens_any_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr("meerkat_trio.cli._faults.Chaos._rebind", never)
    result = demo(*SMALL, "--virtual", "--json")
    assert result.exit_code == 1
    data = json.loads(result.output)
    assert data["stuck"]
    assert data["total"]["sent"] < 300


def test_a_message_that_no_handler_takes_is_exit_status_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(Ledger, "append", refuse)
    result = demo("--sessions", "1", "--messages", "3", "--no-faults", "--json")
    assert result.exit_code == 1
    total = json.loads(result.output)["total"]
    assert (total["sent"], total["handled"], total["lost"], total["abandoned"]) == (3, 0, 0, 3)


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


def test_entries_of_what_was_never_sent_count_as_doubled(tmp_path: Path) -> None:
    ledger = write(tmp_path / "ledger.jsonl", 0, 1, 7)
    assert audit(ledger, {("s", "p"): 2}, {}) == {"s": Account(sent=2, handled=3, duplicated=1)}
    assert audit(ledger, {}, {}) == {"s": Account(handled=3, duplicated=3)}


def test_the_longest_stall_is_in_the_file(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.jsonl")
    for at in (0.5, 0.75, 2.0):
        ledger.append("s", "p", 0, body=None, at=at)
    ledger.close()
    assert stalls(ledger.path) == {"s": 1.25}


def test_ctrl_c_is_one_line_and_status_130_with_a_ledger_of_whole_lines(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.jsonl"
    command = [sys.executable, "-m", "meerkat_trio.cli", "demo", "--messages", "1000000", "--sessions", "1"]
    with subprocess.Popen(
        [*command, "--no-faults", "--ledger", str(ledger)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        while not (ledger.exists() and ledger.stat().st_size):
            assert running.poll() is None
        running.send_signal(signal.SIGINT)
        out, err = running.communicate(timeout=60)
    assert (running.returncode, out, err) == (130, "", "interrupted\n")
    assert all(json.loads(line)["session"] == "session-0" for line in ledger.read_text().splitlines())


def test_a_reader_that_leaves_early_gets_no_traceback() -> None:
    command = [sys.executable, "-m", "meerkat_trio.cli", "demo", "--json", "--messages", "1", "--no-faults"]
    reading, writing = os.pipe()
    os.close(reading)
    ran = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert (ran.returncode, ran.stderr) == (1, "")
