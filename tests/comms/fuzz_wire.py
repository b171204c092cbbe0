"""`python -m tests.comms.fuzz_wire [libFuzzer's options] [corpus]`: coverage-guided bytes against the decoder.

It needs atheris, which is in no extra: `pip install atheris`.
"""

from __future__ import annotations

import contextlib
import sys

import atheris

with atheris.instrument_imports(include=["meerkat_trio.comms"]):
    from meerkat_trio.comms._bundle import Bundle, SignedEnvelope
    from meerkat_trio.comms._cbor import decode_body
    from meerkat_trio.comms._envelope import parse_headers
    from meerkat_trio.comms._exceptions import WireRefused
    from meerkat_trio.comms._frames import FrameDecoder, Receipts, parse_answers
    from meerkat_trio.comms._prefix import MAX_FRAME

from .wire import BOB, NOW


def main() -> None:
    """Run until a bound of libFuzzer's or a finding ends it."""
    atheris.Setup(sys.argv, _one)
    atheris.Fuzz()


def _one(data: bytes) -> None:
    size = 1 + data[0] if data else 1
    decoder = FrameDecoder(MAX_FRAME)
    try:
        for start in range(1, len(data), size):
            decoder.feed(data[start : start + size])
            for frame in decoder:
                _take_apart(frame)
        decoder.finish()
    except WireRefused:
        pass
    # Behind a signature nobody can forge, and so nothing that is changed at random gets there.
    for parse in (decode_body, _parse_header, SignedEnvelope.from_bytes, parse_answers):
        with contextlib.suppress(WireRefused):
            parse(data[1:])


def _parse_header(data: bytes) -> None:
    parse_headers([data])


def _take_apart(frame: object) -> None:
    try:
        if isinstance(frame, Bundle):
            list(frame.open(recipient=BOB.public_key, now=NOW))
            for header in frame.headers():
                header.envelope(BOB.peer_id, BOB.peer_id)
        elif isinstance(frame, Receipts):
            parse_answers(frame.payload)
    except WireRefused:
        pass


if __name__ == "__main__":
    main()
