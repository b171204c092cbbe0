"""Keys, ids and key files."""

from __future__ import annotations

import os
import pickle
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from meerkat_trio import comms
from meerkat_trio.authority import PeerId
from meerkat_trio.comms import Identity, KeyFileRefused
from meerkat_trio.comms._identity import load_public_key, parse_public_key
from meerkat_trio.comms._signing import verify

from ..directories import names_in

SEED = bytes(range(32))


def test_the_key_pair_is_that_of_rfc_8032() -> None:
    # Test 2 of its section 7.1.
    identity = Identity(bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"))
    assert identity.public_key.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert identity.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_the_peer_id_belongs_to_the_public_key() -> None:
    identity = Identity.generate()
    assert identity.peer_id == PeerId.of_key(identity.public_key)
    assert identity.endpoint("bob", "tcp://localhost:1").peer_id == identity.peer_id


def test_two_generated_identities_differ() -> None:
    assert Identity.generate() != Identity.generate()
    assert {Identity(SEED), Identity(SEED)} == {Identity(SEED)}


@pytest.mark.parametrize("secret", [b"", b"x" * 31, b"x" * 33, bytes(32), "x" * 32])
def test_what_is_no_secret_key_is_refused(secret: bytes) -> None:
    with pytest.raises(ValueError, match="secret_key"):
        Identity(secret)


def test_only_the_very_data_and_signature_verify() -> None:
    identity = Identity(SEED)
    signature = identity.sign(b"data")
    assert identity.verify(b"data", signature)
    assert not identity.verify(b"Data", signature)
    assert not Identity.generate().verify(b"data", signature)
    for bad in (b"", signature[:-1], signature + b"x", bytes(64), signature[:32] + bytes(32)):
        assert not identity.verify(b"data", bad)
    # The last bytes of a short signature must not be taken from the data.
    assert not identity.verify(signature[-1:] + b"data", signature[:-1])


@pytest.mark.parametrize("key", [b"", bytes(32), b"\x01" + bytes(31), b"x" * 31, b"\xff" * 32])
def test_under_a_key_that_is_none_nothing_verifies(key: bytes) -> None:
    assert not verify(key, b"data", Identity(SEED).sign(b"data"))
    assert not verify(key, b"data", bytes(64))


def test_the_secret_does_not_show() -> None:
    identity = Identity(SEED)
    assert SEED.hex() not in repr(identity)
    with pytest.raises(TypeError, match="secret"):
        pickle.dumps(identity)


# --- key files ----------------------------------------------------------------------------------------------


def test_a_saved_identity_is_loaded_again(tmp_path: Path) -> None:
    identity = Identity.generate()
    identity.save(tmp_path / "key")
    identity.save_public_key(tmp_path / "public")
    assert Identity.load(tmp_path / "key") == identity
    assert load_public_key(tmp_path / "public") == identity.public_key
    assert names_in(tmp_path) == ["key", "public"]


@pytest.mark.parametrize("umask", [0, 0o777])
def test_a_key_file_is_the_owners_alone_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        Identity.generate().save(tmp_path / "key")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600


def test_a_key_file_is_private_from_its_first_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = []
    write = os.write

    def watched(handle: int, data: bytes) -> int:
        modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
        return write(handle, data[:5])  # also a write that takes a part alone

    monkeypatch.setattr(os, "write", watched)
    identity = Identity.generate()
    identity.save(tmp_path / "key")
    assert set(modes) == {0o600}
    assert len(modes) == 13
    assert Identity.load(tmp_path / "key") == identity


@pytest.mark.parametrize("call", ["write", "fsync", "link", "fchmod"])
def test_a_key_file_that_cannot_be_finished_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(KeyFileRefused, match="No space left"):
        Identity.generate().save(tmp_path / "key")
    assert names_in(tmp_path) == []


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    first = Identity.generate()
    first.save(tmp_path / "key")
    with pytest.raises(KeyFileRefused, match="exists already"):
        Identity.generate().save(tmp_path / "key")
    assert Identity.load(tmp_path / "key") == first
    assert names_in(tmp_path) == ["key"]


def test_a_key_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileRefused, match="exists already"):
        Identity.generate().save(tmp_path / "key")
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644, 0o666])
def test_a_secret_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key"
    Identity.generate().save(path)
    path.chmod(mode)
    with pytest.raises(KeyFileRefused, match=f"{path}: others may use this secret key .mode {mode:04o}"):
        Identity.load(path)


def test_a_secret_key_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key"
    Identity.generate().save(path)
    if os.geteuid() == 0:
        os.chown(path, 12345, -1)
        assert Identity.load(path)  # root may read it anyway
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
    else:
        user = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
    with pytest.raises(KeyFileRefused, match="another user"):
        Identity.load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"00" * 32,
        b"11" * 31,
        b"11" * 33,
        b"11" * 32 + b"\n\n",
        b"11" * 32 + b" ",
        b"1 " * 32,
        b"g1" * 32,
        b"\xff" * 64,
        b"\x11" * 32,
        b"1" * 5000,
    ],
)
def test_a_key_file_with_something_else_in_it_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileRefused) as refused:
        Identity.load(path)
    assert str(refused.value).startswith(f"{path}: ")
    assert refused.value.path == path
    assert refused.value.why in str(refused.value)
    if content != b"11" * 32 + b"\n\n":
        with pytest.raises(KeyFileRefused):
            load_public_key(path)


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, why in (("pipe", "not a regular file"), ("missing", "No such file"), (".", "not a regular file")):
        with pytest.raises(KeyFileRefused, match=why):
            Identity.load(tmp_path / name)


@pytest.mark.parametrize("text", ["", "00" * 32, "zz" * 32, "11" * 31, " " + "11" * 32, "11" * 32 + "é"])
def test_what_is_no_public_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"digits|zero"):
        parse_public_key(text)


# --- the extra ----------------------------------------------------------------------------------------------


def test_without_the_extra_everything_else_is_imported_and_keys_say_what_is_missing() -> None:
    code = """
import sys
sys.modules["nacl"] = sys.modules["cbor2"] = None
import meerkat_trio, meerkat_trio.comms, meerkat_trio.testing
from meerkat_trio.comms import MemoryComms, TrustFile
for module in ("_identity", "_frames", "_cbor"):
    try:
        __import__(f"meerkat_trio.comms.{module}")
    except ImportError as error:
        assert "pip install 'meerkat-trio[socket]'" in str(error), error
    else:
        raise AssertionError(module)
try:
    meerkat_trio.comms.Identity
except ImportError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "keys and signatures need nacl: pip install 'meerkat-trio[socket]'\n"


@pytest.mark.parametrize("name", ["RedisNetwork", "RedisComms"])
def test_without_its_extra_redis_says_what_is_missing(name: str) -> None:
    code = f"""
import sys
sys.modules["coredis"] = None
import meerkat_trio.comms
from meerkat_trio.comms import Fence, RedisLimits, SocketNetwork
try:
    meerkat_trio.comms.{name}
except ImportError as error:
    print(error)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == "the Redis transport needs coredis: pip install 'meerkat-trio[redis]'\n"


def test_importing_the_transports_does_not_load_the_extra() -> None:
    code = "import sys, meerkat_trio.comms; print(sorted({'nacl', 'cbor2', 'coredis'} & {*sys.modules}))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_a_name_that_is_none_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="nonsense"):
        comms.nonsense  # noqa: B018
