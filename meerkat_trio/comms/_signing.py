"""Ed25519 and X25519, as PyNaCl has them: raw bytes in, raw bytes out.

The one file that knows the library. It is an extra, so only what signs or verifies may import this.
"""

from __future__ import annotations

from typing import Final

try:
    from nacl import bindings, exceptions
except ImportError as error:
    raise ImportError(
        f"keys and signatures need {error.name}: pip install 'meerkat-trio[socket]'", name=error.name
    ) from error

__all__ = ["KEY_BYTES", "SIGNATURE_BYTES", "exchange_key", "key_pair", "shared_secret", "sign", "verify"]

KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64


def key_pair(seed: bytes) -> tuple[bytes, bytes]:
    """Return the public key of a seed, and what `sign` signs with."""
    return bindings.crypto_sign_seed_keypair(seed)


def sign(data: bytes, signing_pair: bytes) -> bytes:
    """Sign ``data``: the 64 bytes of the signature alone."""
    return bindings.crypto_sign(data, signing_pair)[:SIGNATURE_BYTES]


def verify(public_key: bytes, data: bytes, signature: bytes) -> bool:
    """Say whether ``signature`` is the key's over ``data``; False for whatever is no key or no signature."""
    # Short ones would let bytes of the data be taken for the rest of the signature.
    if len(signature) != SIGNATURE_BYTES or len(public_key) != KEY_BYTES or not any(public_key):
        return False
    try:
        bindings.crypto_sign_open(signature + data, public_key)
    except exceptions.CryptoError:
        return False
    return True


def exchange_key(secret: bytes) -> bytes:
    """Return the public half of an X25519 secret."""
    return bindings.crypto_scalarmult_base(secret)


def shared_secret(secret: bytes, other: bytes) -> bytes | None:
    """Agree with the other side's public half; None if that is a point with which everybody gets zero."""
    try:
        return bindings.crypto_scalarmult(secret, other)
    except exceptions.CryptoError:
        return None
