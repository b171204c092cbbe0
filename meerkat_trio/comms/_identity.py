"""Who a peer is: its key, the id that follows from it, and the file in which the key is kept.

Reads and writes small files synchronously: load an identity before the Trio run, or in a thread.
"""

from __future__ import annotations

import os
import secrets
import stat
from typing import TYPE_CHECKING, Final, NoReturn, final

from ..authority import PeerEndpoint, PeerId
from ._exceptions import KeyFileRefused
from ._file_replacement import create_file
from ._signing import KEY_BYTES, key_pair, sign, verify

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Identity", "load_public_key", "parse_public_key"]

_DIGITS: Final = 2 * KEY_BYTES
_FILE_BYTES: Final = (_DIGITS, _DIGITS + 1)
"""What a key file holds: the digits, and perhaps the end of the line."""
_SECRET_MODE: Final = 0o600
_PUBLIC_MODE: Final = 0o644
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@final
class Identity:
    """A key pair, and who it makes its holder.

    The secret never shows: not in a ``repr``, not in an error, and it cannot be pickled.
    """

    __slots__ = ("_pair", "peer_id", "public_key")

    public_key: bytes
    """What others know this identity by, 32 bytes."""
    peer_id: PeerId
    """The id that belongs to the public key."""

    def __init__(self, secret_key: bytes) -> None:
        """Take a secret key (an Ed25519 seed).

        Raises:
            ValueError: it is not 32 bytes long, or all of them are zero.
        """
        if not isinstance(secret_key, bytes) or len(secret_key) != KEY_BYTES:
            raise ValueError(f"secret_key: {KEY_BYTES} bytes are needed")
        if not any(secret_key):
            raise ValueError("secret_key: a key of zero bytes is never valid")
        self.public_key, self._pair = key_pair(secret_key)
        self.peer_id = PeerId.of_key(self.public_key)

    @classmethod
    def generate(cls) -> Identity:
        """Make a new identity from the system's randomness."""
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def load(cls, path: Path) -> Identity:
        """Read the secret key that `save` has written.

        Raises:
            KeyFileRefused: there is no such file, others may read or write it, or it holds no valid key.
        """
        content = _read(path, secret=True)
        try:
            return cls(_parse(content))
        except ValueError as error:
            raise KeyFileRefused(path, f"no secret key: {error}") from None

    def save(self, path: Path) -> None:
        """Write the secret key to a new file that nobody else can read at any moment.

        Raises:
            KeyFileRefused: there is something of that name already, or it cannot be written; nothing was changed.
        """
        _create(path, self._pair[:KEY_BYTES], _SECRET_MODE)

    def save_public_key(self, path: Path) -> None:
        """Write the public key to a new file, to be handed to those who shall trust this identity.

        Raises:
            KeyFileRefused: as for `save`.
        """
        _create(path, self.public_key, _PUBLIC_MODE)

    def sign(self, data: bytes) -> bytes:
        """Sign ``data`` with Ed25519; returns the 64 bytes of the signature."""
        return sign(data, self._pair)

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Say whether ``signature`` is this identity's over ``data``."""
        return verify(self.public_key, data, signature)

    def endpoint(self, name: str, address: str) -> PeerEndpoint:
        """Describe this identity to others: whom to trust, and where it is reached.

        Raises:
            ValueError: the name or the address is malformed.
        """
        return PeerEndpoint(name=name, peer_id=self.peer_id, address=address, signing_key=self.public_key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Identity) and self.public_key == other.public_key

    def __hash__(self) -> int:
        return hash(self.public_key)

    def __reduce__(self) -> NoReturn:
        raise TypeError("an identity cannot be pickled: it holds a secret key")

    def __repr__(self) -> str:
        return f"<Identity {self.peer_id}>"


def parse_public_key(text: str) -> bytes:
    """Read a public key from its 64 hexadecimal digits.

    Raises:
        ValueError: it is something else, or all zero.
    """
    key = _parse(text.encode())
    PeerId.of_key(key)  # refuses zero
    return key


def load_public_key(path: Path) -> bytes:
    """Read the public key that `Identity.save_public_key` has written.

    Raises:
        KeyFileRefused: there is no such file, or it holds no valid key.
    """
    content = _read(path, secret=False)
    try:
        return parse_public_key(content.decode("ascii", "replace"))
    except ValueError as error:
        raise KeyFileRefused(path, f"no public key: {error}") from None


def _parse(text: bytes) -> bytes:
    digits = text.removesuffix(b"\n")
    # fromhex would skip blanks.
    if len(digits) != _DIGITS or not digits.isalnum():
        raise ValueError(f"{_DIGITS} hexadecimal digits are needed")
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        raise ValueError(f"{_DIGITS} hexadecimal digits are needed") from None


def _create(path: Path, key: bytes, mode: int) -> None:
    try:
        create_file(path, f"{key.hex()}\n".encode(), mode)
    except FileExistsError:
        raise KeyFileRefused(path, "it exists already, and a key is never overwritten") from None
    except OSError as error:
        raise KeyFileRefused(path, f"cannot be written: {error.strerror}") from None


def _read(path: Path, *, secret: bool) -> bytes:
    try:
        # Without waiting: opening a pipe would sleep until somebody writes.
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        raise KeyFileRefused(path, f"cannot be read: {error.strerror}") from None
    try:
        # What was opened is asked, not what has that name by now.
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise KeyFileRefused(path, "not a regular file")
        if secret:
            _require_private(path, found)
        if found.st_size not in _FILE_BYTES:
            raise KeyFileRefused(path, f"no key: {_FILE_BYTES[1]} bytes are needed, not {found.st_size}")
        return os.read(handle, _FILE_BYTES[1])
    except OSError as error:
        raise KeyFileRefused(path, f"cannot be read: {error.strerror}") from None
    finally:
        os.close(handle)


def _require_private(path: Path, found: os.stat_result) -> None:
    if found.st_mode & _OTHERS:
        mode = stat.S_IMODE(found.st_mode)
        raise KeyFileRefused(path, f"others may use this secret key (mode {mode:04o}); chmod 600 it, or make a new one")
    # Root may read everybody's files anyway, and volumes of containers often are somebody else's.
    if found.st_uid not in (os.geteuid(), 0) and os.geteuid() != 0:
        raise KeyFileRefused(path, f"it belongs to another user (uid {found.st_uid})")
