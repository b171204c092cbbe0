"""`meerkat-trio journal`, and `host` with a journal: files in every state, what is printed, and the exit status."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
import trio
from click.testing import CliRunner

from meerkat_trio.abc import Entry
from meerkat_trio.cli._commands import commands
from meerkat_trio.journals import SqliteJournal

from .test_hosting import COMMAND, configure, furnished, hosted, invoke, send

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result

STAYING = 'handler = "tests.cli.handlers:stay"'


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory with a host that keeps a journal, whose handler does not come to an end."""
    furnished(tmp_path)
    configure(tmp_path, 'journal = "journal"\ngrace = 0', STAYING)
    return tmp_path


@pytest.fixture
def killed(home: Path) -> Path:
    """The journal of a host that was killed with three messages, one of which was running."""
    with hosted(home) as process:
        assert send(home, {"body": "one", "id": "1"}, {"body": {"n": 2}}, {"body": "three"}).exit_code == 0
        process.kill()
    return home / "journal"


def journal(command: str, file: Path, *options: str) -> Result:
    """Run the command; whatever is wrong, it is told and not raised."""
    result = CliRunner().invoke(commands, ["journal", command, str(file), *options])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
    return result


def shown(file: Path, *options: str) -> dict[str, Any]:
    result = journal("show", file, "--json", *options)
    assert result.exit_code == 0, result.output
    (line,) = result.output.splitlines()
    found = json.loads(line)
    assert isinstance(found, dict)
    return found


# --- sound files -------------------------------------------------------------------------------------


def test_the_journal_of_a_live_host_is_shown_and_checked_and_not_compacted(home: Path) -> None:
    file = home / "journal"
    with hosted(home):
        assert send(home, {"body": "one"}, {"body": "two"}).exit_code == 0
        assert shown(file)["unfinished"] == 2
        assert journal("check", file).output == f"{file}: sound\n"
        refused = journal("compact", file)
        assert refused.exit_code == 2
        assert f"{file}: in use" in refused.output
        assert len(refused.output.splitlines()) == 1


def test_the_journal_of_a_killed_host_has_what_was_admitted_and_not_handled(killed: Path) -> None:
    assert shown(killed) == {
        "session": "bob",
        "state": "live",
        "unfinished": 3,
        "abandoned": 0,
        "replies": 0,
        "known": 3,
        "peers": 0,
        "supervisor": None,
        "epoch_floor": 0,
        "owed": 0,
    }
    messages = shown(killed, "--messages")["messages"]
    assert [(each["body"], each["kind"], each["attempts"]) for each in messages] == [
        ("one", "message", 0),
        ({"n": 2}, "message", 0),
        ("three", "message", 0),
    ]
    lines = journal("show", killed, "--messages").output.splitlines()
    assert lines[0] == "bob  live  3 unfinished  0 abandoned  0 replies  0 peers  no supervisor  floor 0"
    assert [line.rsplit("  ", 1)[-1] for line in lines[1:]] == ['"one"', '{"n": 2}', '"three"']
    assert journal("check", killed).exit_code == 0


def test_a_killed_hosts_journal_is_compacted_and_nothing_in_it_changes(killed: Path) -> None:
    before = shown(killed, "--messages")
    result = journal("compact", killed)
    assert result.exit_code == 0
    assert result.output == f"{killed}: {result.output.split()[1]} bytes before, {killed.stat().st_size} now\n"
    assert shown(killed, "--messages") == before
    assert journal("check", killed).output == f"{killed}: sound\n"


def test_the_journal_of_a_host_that_has_gone_is_shown(home: Path) -> None:
    with hosted(home) as process:
        assert send(home, {"body": "one"}).exit_code == 0
        process.send_signal(signal.SIGTERM)
        process.communicate()
        assert process.returncode == 0
    found = shown(home / "journal")
    assert (found["unfinished"], found["abandoned"]) == (1, 0)
    assert sorted(path.name for path in home.iterdir() if path.name.startswith("journal")) == ["journal"]
    assert journal("check", home / "journal").exit_code == 0


def test_an_empty_journal_shows_nothing_and_is_sound(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    _make(file)
    assert (journal("show", file).exit_code, journal("show", file).output) == (0, "")
    assert journal("check", file).output == f"{file}: sound\n"


# --- others ------------------------------------------------------------------------------------------


def _make(file: Path, *entries: Entry) -> None:
    async def make() -> None:
        async with SqliteJournal(file) as opened:
            if entries:
                await opened.append({"bob": entries})

    trio.run(make)


def _sql(file: Path, script: str) -> None:
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.executescript(script)


def _text(file: Path) -> None:
    file.write_text("not a database\n" * 100)


def _empty(file: Path) -> None:
    file.touch()


def _foreign(file: Path) -> None:
    _sql(file, "PRAGMA application_id=7; CREATE TABLE t(a)")


def _newer(file: Path) -> None:
    _make(file)
    _sql(file, "PRAGMA user_version=1000")


def _short(file: Path) -> None:
    _make(file, Entry(kind="k", key="", position=0, value=b"v" * 100_000))
    file.write_bytes(file.read_bytes()[:50_000])


def _overwritten(file: Path) -> None:
    _make(file, *(Entry(kind="k", key=str(number), position=0, value=b"v" * 500) for number in range(200)))
    content = bytearray(file.read_bytes())
    content[8192:20480] = b"\xff" * 12288
    file.write_bytes(content)


BAD = pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (_text, "not a journal: no SQLite file"),
        (_empty, ""),
        (_foreign, "not a journal: an SQLite file of another program"),
        (_newer, "of a newer version"),
        (_short, "damaged: it has 50000 of its"),
        (_overwritten, "damaged: "),
    ],
)


@BAD
@pytest.mark.parametrize("command", ["show", "compact"])
def test_what_is_no_sound_journal_is_refused_in_one_line_and_left_as_it_is(
    tmp_path: Path, spoil: Any, why: str, command: str
) -> None:
    file = tmp_path / "journal"
    spoil(file)
    before = file.read_bytes()
    result = journal(command, file)
    assert result.exit_code == 2
    assert f"{file}: " in result.output
    assert why in result.output
    assert len(result.output.splitlines()) == 1
    assert file.read_bytes() == before


@BAD
def test_checking_says_what_is_wrong_with_exit_status_1(tmp_path: Path, spoil: Any, why: str) -> None:
    file = tmp_path / "journal"
    spoil(file)
    result = journal("check", file)
    assert result.exit_code == 1
    assert all(line.startswith(f"{file}: ") for line in result.output.splitlines())
    assert why in result.output


@pytest.mark.parametrize("command", ["show", "check", "compact"])
def test_a_file_that_is_not_there_is_told_and_not_made(tmp_path: Path, command: str) -> None:
    result = journal(command, tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "does not exist" in result.output
    assert len(result.output.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["show", "check", "compact"])
def test_what_cannot_be_read_is_one_line(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "journal"
    _make(file)

    def refuse(path: object, *_: object) -> int:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("meerkat_trio.journals._sqlite_lock._open", refuse)
    result = journal(command, file)
    assert result.exit_code == 2
    assert f"{file}: " in result.output
    assert "Permission denied" in result.output
    assert len(result.output.splitlines()) == 1


def test_an_entry_that_says_nothing_is_told_by_show_and_by_check(tmp_path: Path) -> None:
    file = tmp_path / "journal"
    _make(file, Entry(kind="message", key="k", position=0, value=b"rubbish"))
    result = journal("show", file)
    assert result.exit_code == 1
    assert result.output.startswith("bob: entry 'message' 'k': ")
    assert len(result.output.splitlines()) == 1
    result = journal("check", file)
    assert result.exit_code == 1
    assert result.output.startswith(f"{file}: session 'bob': entry 'message' 'k': ")
    assert len(result.output.splitlines()) == 1


# --- a host with a journal ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ("journal = 1", "[host]: journal: a text is needed"),
        ('journal = "nowhere/journal"', "[host]: journal: "),
        ('journal = "alice"', "[host]: journal: "),
        ('journal = "host.toml"', "not a journal: no SQLite file"),
        ('journal = ""', "[host]: journal: "),
        ('journal = "a\\u0000b"', "[host]: journal: "),
        ('journal = "journal"\ndurability = "some"', "[host]: durability: full or normal is needed"),
        ('journal = "journal"\ndurability = 1', "[host]: durability: a text is needed"),
    ],
)
def test_a_journal_of_no_use_is_one_line_and_nothing_is_opened(tmp_path: Path, keys: str, why: str) -> None:
    furnished(tmp_path)
    configure(tmp_path, keys)
    before = sorted(path.name for path in tmp_path.iterdir())
    result = invoke("host", "--config", str(tmp_path / "host.toml"))
    assert result.exit_code == 2, result.exc_info
    assert why in result.output
    assert len(result.output.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_a_journal_in_use_is_refused_and_its_host_goes_on(home: Path) -> None:
    with hosted(home):
        second = [*COMMAND, "host", "--config", str(home / "host.toml")]
        ran = subprocess.run(second, capture_output=True, text=True, check=False)
        assert ran.returncode == 2
        assert f"[host]: journal: {home / 'journal'}: in use" in ran.stderr
        assert len(ran.stderr.splitlines()) == 1
        assert send(home, {"body": "one"}).exit_code == 0


def test_a_damaged_entry_is_refused_by_a_host(home: Path) -> None:
    _make(home / "journal", Entry(kind="message", key="k", position=0, value=b"rubbish"))
    result = invoke("host", "--config", str(home / "host.toml"))
    assert result.exit_code == 2
    assert "session 'bob': entry 'message' 'k': " in result.output
    assert len(result.output.splitlines()) == 1


@pytest.mark.parametrize("durability", ["full", "normal"])
def test_a_host_that_was_killed_goes_on_with_what_it_had_admitted(home: Path, durability: str) -> None:
    keys = f'journal = "journal"\ndurability = "{durability}"'
    configure(home, keys, STAYING)
    with hosted(home) as process:
        assert send(home, {"body": "one", "id": "1"}, {"body": "two", "id": "2"}).exit_code == 0
        process.kill()
    configure(home, keys)
    command = [*COMMAND, "host", "--config", str(home / "host.toml")]
    # What it remembers is handled, and printed, before it says that it listens.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        # Who sends it again is told that it was admitted.
        again = send(home, {"body": "one", "id": "1"}, {"body": "three", "id": "3"}, options=("--json",))
        assert json.loads(again.output)["admitted"] == 2
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate()
        assert process.returncode == 0
    handled = [line.split("  ")[-1] for line in out.splitlines() if not line.endswith(".sock")]
    assert handled == ['"one"', '"two"', '"three"']
    assert shown(home / "journal")["unfinished"] == 0
    assert shown(home / "journal")["state"] == "live"


def test_a_host_that_has_gone_is_followed_by_one_that_takes_work(home: Path) -> None:
    for number in range(3):
        configure(home, 'journal = "journal"')
        with hosted(home) as process:
            assert send(home, {"body": number}).output == "1 of 1 admitted\n"
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate()
            assert process.returncode == 0
        assert out.splitlines()[-1].endswith(f"  {number}")


def test_what_does_not_end_in_time_is_left_to_the_next_host(home: Path) -> None:
    configure(home, 'journal = "journal"\ngrace = 0.1', STAYING)
    with hosted(home) as process:
        assert send(home, {"body": "one"}, {"body": "two"}).exit_code == 0
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate()
        assert process.returncode == 0
    assert "2 messages were not handled within the grace time" in told
    assert [each["body"] for each in shown(home / "journal", "--messages")["messages"]] == ["one", "two"]


def test_a_session_that_is_not_in_the_configuration_any_more_waits_in_the_journal(killed: Path) -> None:
    home = killed.parent
    config = (home / "host.toml").read_text()
    (home / "host.toml").write_text(config.replace('name = "bob"', 'name = "robert"'))
    command = [*COMMAND, "host", "--config", str(home / "host.toml")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("robert  ")
        process.send_signal(signal.SIGTERM)
        _, told = process.communicate()
    assert process.returncode == 0
    assert "session bob is in the journal and not in" in told
    found = {each["session"]: each for each in map(json.loads, journal("show", killed, "--json").output.splitlines())}
    assert (found["bob"]["state"], found["bob"]["unfinished"]) == ("live", 3)
