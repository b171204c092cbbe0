"""Trust files: atomic, validated, and refused with the line."""

from __future__ import annotations

import contextlib
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meerkat_trio.authority import PeerEndpoint, PeerId
from meerkat_trio.comms import TrustFile, TrustFileRefused
from meerkat_trio.comms._trust_file import TRUST_FILE_BYTES, _parse

from ..directories import names_in


def peer(number: int, name: str = "bob", address: str = "tcp://localhost:1") -> PeerEndpoint:
    key = number.to_bytes(32)
    return PeerEndpoint(name=name, peer_id=PeerId.of_key(key), address=address, signing_key=key)


def entry(**changed: object) -> dict[str, object]:
    bob = peer(1)
    return {
        "peer_id": bob.peer_id,
        "name": "bob",
        "address": "tcp://localhost:1",
        "signing_key": bob.signing_key.hex(),
        **changed,
    }


@pytest.fixture
def file(tmp_path: Path) -> TrustFile:
    return TrustFile(tmp_path / "trust.jsonl")


def test_peers_are_kept_in_their_order(file: TrustFile) -> None:
    assert [file.add(peer(n, f"näme {n}")) for n in (3, 1, 2)] == [True, True, True]
    assert file.endpoints() == (peer(3, "näme 3"), peer(1, "näme 1"), peer(2, "näme 2"))
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o644
    assert names_in(file.path.parent) == ["trust.jsonl"]


def test_it_says_which_file_it_is(file: TrustFile) -> None:
    assert repr(file) == f"<TrustFile {file.path}>"


def test_adding_again_replaces_what_is_said_of_the_peer(file: TrustFile) -> None:
    file.add(peer(1))
    file.add(peer(2))
    assert not file.add(peer(1))
    assert file.add(peer(1, "robert"))
    assert file.endpoints() == (peer(1, "robert"), peer(2))


def test_removing_says_whether_the_peer_was_there(file: TrustFile) -> None:
    file.add(peer(1))
    file.add(peer(2))
    assert file.remove(peer(1).peer_id)
    assert not file.remove(peer(1).peer_id)
    assert file.endpoints() == (peer(2),)


def test_a_file_that_is_missing_is_no_empty_file(file: TrustFile) -> None:
    with pytest.raises(TrustFileRefused, match="No such file"):
        file.endpoints()
    with pytest.raises(TrustFileRefused, match="No such file"):
        file.remove(peer(1).peer_id)
    assert names_in(file.path.parent) == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"nonsense", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff", "not UTF-8"),
        (b"[" * 100_000, "deep"),
        (b"[]", "an object with just"),
        (b'"text"', "an object with just"),
        (json.dumps(entry(more=1)).encode(), "an object with just"),
        (json.dumps({"name": "bob"}).encode(), "an object with just"),
        (json.dumps(entry(name=1)).encode(), "name: a text"),
        (json.dumps(entry(peer_id=None)).encode(), "peer_id: a text"),
        (json.dumps(entry(name="")).encode(), "name: must not be blank"),
        (json.dumps(entry(name="a\nb")).encode(), "name: control"),
        (json.dumps(entry(address="localhost")).encode(), "address: "),
        (json.dumps(entry(peer_id="bob")).encode(), "peer_id: not a UUID"),
        (json.dumps(entry(peer_id=peer(2).peer_id)).encode(), "peer_id: "),
        (json.dumps(entry(signing_key="xx")).encode(), "signing_key: "),
        (json.dumps(entry(signing_key="00" * 32)).encode(), "signing_key: "),
        (json.dumps(entry())[:-1].encode() + b', "name": "eve"}', "twice"),
        (json.dumps(entry()).encode(), "has a line already"),
    ],
)
def test_a_broken_line_is_refused_with_its_number_and_nothing_is_changed(
    file: TrustFile, line: bytes, why: str
) -> None:
    content = json.dumps(entry()).encode() + b"\n\n" + line + b"\n"
    file.path.write_bytes(content)
    for call in (file.endpoints, lambda: file.add(peer(9)), lambda: file.remove(peer(1).peer_id)):
        with pytest.raises(TrustFileRefused, match=why) as refused:
            call()
        assert refused.value.line == 3
        assert str(refused.value).startswith(f"{file.path}, line 3: ")
    assert file.path.read_bytes() == content


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode()))
def test_whatever_a_line_holds_it_is_a_peer_or_a_value_error(line: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(_parse(line), PeerEndpoint)


def test_an_id_is_compared_as_it_was_parsed(file: TrustFile) -> None:
    file.path.write_text(json.dumps(entry(peer_id=peer(1).peer_id.upper())))
    assert file.endpoints() == (peer(1),)
    assert file.remove(PeerId(peer(1).peer_id.upper()))


def test_a_file_that_others_may_write_is_refused(file: TrustFile) -> None:
    file.add(peer(1))
    file.path.chmod(0o664)
    with pytest.raises(TrustFileRefused, match=r"others may write it \(mode 0664\)"):
        file.endpoints()


def test_the_mode_and_a_link_stay(file: TrustFile, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real = tmp_path / "real" / "peers"
    TrustFile(real).add(peer(1))
    real.chmod(0o600)
    file.path.symlink_to(real)
    file.add(peer(2))
    assert file.path.is_symlink()
    assert len(TrustFile(real).endpoints()) == 2
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


@pytest.mark.parametrize("call", ["write", "fsync", "fchmod", "replace"])
def test_a_change_that_cannot_be_written_changes_nothing(
    file: TrustFile, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    file.add(peer(1))
    content = file.path.read_bytes()

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path if call == "replace" else os, call, fail)
    with pytest.raises(TrustFileRefused, match="No space left"):
        file.add(peer(2))
    assert file.path.read_bytes() == content
    assert names_in(file.path.parent) == ["trust.jsonl"]


def test_the_file_is_on_the_disk_before_it_has_its_name(file: TrustFile, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fsync, replace = os.fsync, Path.replace

    def watched_fsync(handle: int) -> None:
        calls.append("fsync")
        fsync(handle)

    def watched_replace(self: Path, to: Path) -> Path:
        calls.append("replace")
        return replace(self, to)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "replace", watched_replace)
    file.add(peer(1))
    assert calls == ["fsync", "replace", "fsync"]


def test_a_file_that_is_too_long_is_refused(file: TrustFile) -> None:
    file.path.write_bytes(b"\n" * (TRUST_FILE_BYTES + 1))
    with pytest.raises(TrustFileRefused, match="longer than"):
        file.endpoints()
    file.path.write_bytes(b"\n" * TRUST_FILE_BYTES)
    assert file.endpoints() == ()


def test_a_file_does_not_grow_too_long(file: TrustFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meerkat_trio.comms._trust_file.TRUST_FILE_BYTES", 300)
    file.add(peer(1))
    with pytest.raises(TrustFileRefused, match="would be longer"):
        file.add(peer(2))
    assert file.endpoints() == (peer(1),)


def test_what_is_no_file_is_refused_without_waiting(file: TrustFile, tmp_path: Path) -> None:
    os.mkfifo(file.path, 0o600)
    with pytest.raises(TrustFileRefused, match="not a regular file"):
        file.endpoints()
    with pytest.raises(TrustFileRefused, match="No such file"):
        TrustFile(tmp_path / "missing" / "trust").add(peer(1))


def test_processes_that_change_it_at_once_lose_no_change(file: TrustFile) -> None:
    code = """
import sys
from pathlib import Path
from meerkat_trio.authority import PeerEndpoint, PeerId
from meerkat_trio.comms import TrustFile
for n in range(int(sys.argv[2]), int(sys.argv[2]) + 10):
    key = n.to_bytes(32)
    TrustFile(Path(sys.argv[1])).add(
        PeerEndpoint(name="x", peer_id=PeerId.of_key(key), address="uds:///x", signing_key=key))
"""
    running = [subprocess.Popen([sys.executable, "-c", code, file.path, str(start)]) for start in (1, 101, 201)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert len(file.endpoints()) == 30
