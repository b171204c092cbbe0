"""A message over TCP on the loopback, signed: encoded, sent, received, verified, decoded.

The floor is what somebody writes who trusts what comes: a length before each CBOR item, and a signature before each
message, or before 64 of them. It bounds nothing, knows no recipient, time or lane, and its messages are the decoded
items themselves. Messages stand ready on both sides; receipts are not in the picture.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from time import perf_counter
from typing import Any, Final, TypeAlias

import cbor2
import nacl.bindings
import trio

import meerkat_trio
from meerkat_trio.comms import Identity
from meerkat_trio.comms._bundle import Bundle, seal
from meerkat_trio.comms._envelope import encode_envelope
from meerkat_trio.comms._frames import FrameDecoder
from meerkat_trio.comms._prefix import MAX_FRAME

from ._measure import Contestant, Goal, Row, Scale, Setting, start_clock

__all__ = ["SETTINGS"]

_NOW: Final = 1_700_000_000_000
_PIECE: Final = 65_536
_BUNDLE: Final = 64
_SEED: Final = b"a" * 32
_OTHER: Final = b"b" * 32
_BODY: Final = {
    "text": "the quick brown fox jumps over the lazy dog and then sits down for a while, because it is only a fox " * 2,
    "numbers": [1, 22, 333, 4444, 55555],
    "who": "alice",
    "nested": {"a": 1, "b": True, "c": None},
}
"""Some 300 bytes."""

Sign: TypeAlias = Callable[[bytes], bytes]
Verify: TypeAlias = Callable[[bytes, bytes], object]


async def _over_tcp(count: int, send: Any, receive: Any) -> float:
    """Let ``send`` speak to ``receive`` until that has had so many messages; return microseconds for each."""
    listener = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    async with listener:
        client = await trio.open_tcp_stream(*listener.socket.getsockname()[:2])
        server = await listener.accept()
    async with client, server, trio.open_nursery() as nursery:
        start = start_clock()
        nursery.start_soon(send, client)
        await receive(server)
        taken = perf_counter() - start
    return taken / count * 1e6


# --- floor -------------------------------------------------------------------------------------------


def _plain(count: int, size: int, sign: Sign, verify: Verify) -> float:
    message = ["m-00000000", _BODY]

    async def send(stream: trio.SocketStream) -> None:
        for _ in range(count // size):
            items: list[bytes] = []
            for _ in range(size):
                item = cbor2.dumps(message)
                items += (len(item).to_bytes(4), item)
            block = b"".join(items)
            await stream.send_all(len(block).to_bytes(4) + sign(block) + block)

    async def receive(stream: trio.SocketStream) -> None:
        buffer = bytearray()
        left = count
        while left:
            buffer += await stream.receive_some(_PIECE)
            while len(buffer) >= 4:
                end = 68 + int.from_bytes(buffer[:4])
                if len(buffer) < end:
                    break
                signature, block = bytes(buffer[4:68]), bytes(buffer[68:end])
                del buffer[:end]
                verify(signature, block)
                at = 0
                while at < len(block):
                    length = int.from_bytes(block[at : at + 4])
                    cbor2.loads(block[at + 4 : at + 4 + length])
                    at += 4 + length
                    left -= 1

    return trio.run(_over_tcp, count, send, receive)


def _pynacl() -> tuple[Sign, Verify]:
    public, pair = nacl.bindings.crypto_sign_seed_keypair(_SEED)
    return (
        lambda data: nacl.bindings.crypto_sign(data, pair)[:64],
        lambda signature, data: nacl.bindings.crypto_sign_open(signature + data, public),
    )


def _cryptography() -> tuple[Sign, Verify]:
    module: Any = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    secret = module.Ed25519PrivateKey.from_private_bytes(_SEED)
    return secret.sign, secret.public_key().verify


# --- ours --------------------------------------------------------------------------------------------


def _ours(count: int, size: int) -> float:
    sender, recipient = Identity(_SEED), Identity(_OTHER)
    key = recipient.public_key
    envelope = meerkat_trio.Envelope(id="m-00000000", sender=sender.peer_id, recipient=recipient.peer_id, body=_BODY)

    async def send(stream: trio.SocketStream) -> None:
        for _ in range(count // size):
            await stream.send_all(seal(sender, key, [encode_envelope(envelope, _NOW) for _ in range(size)]))

    async def receive(stream: trio.SocketStream) -> None:
        decoder = FrameDecoder(MAX_FRAME)
        left = count
        while left:
            decoder.feed(await stream.receive_some(_PIECE))
            for frame in decoder:
                assert isinstance(frame, Bundle)
                for opened in frame.open(recipient=key, now=_NOW):
                    assert opened.envelope is not None
                    left -= 1

    return trio.run(_over_tcp, count, send, receive)


# --- rows --------------------------------------------------------------------------------------------

_ONE: Final = "frame-one"
_BUNDLED: Final = "frame-bundled"


def _plainly(signatures: Callable[[], tuple[Sign, Verify]]) -> Callable[[Scale], dict[str, float]]:
    def turn(scale: Scale) -> dict[str, float]:
        return {
            _ONE: _plain(scale.messages, 1, *signatures()),
            _BUNDLED: _plain(scale.messages, _BUNDLE, *signatures()),
        }

    return turn


SETTINGS: Final = (
    Setting(
        rows=(
            Row(name=_ONE, what="signed frame over TCP, one by one", unit="us", goal=Goal(limit=1.2)),
            Row(name=_BUNDLED, what="signed frame over TCP, 64 under a signature", unit="us", goal=Goal(limit=2.0)),
        ),
        floor=Contestant(label="lengths, cbor2 and PyNaCl", turn=_plainly(_pynacl)),
        ours=Contestant(
            label="codec",
            turn=lambda scale: {_ONE: _ours(scale.messages, 1), _BUNDLED: _ours(scale.messages, _BUNDLE)},
        ),
        peers=(
            Contestant(label="lengths, cbor2 and cryptography", turn=_plainly(_cryptography), needs="cryptography"),
        ),
    ),
)
