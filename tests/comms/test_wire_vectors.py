"""The examples of the wire format hold, for the code and for what the page says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.vectors import check, make


@pytest.mark.parametrize("holds", check.CHECKS, ids=lambda holds: holds.__name__)
def test_the_vectors_hold(holds: Callable[[dict[str, Any]], None]) -> None:
    holds(json.loads(make.FILE.read_text(encoding="utf-8")))


def test_what_does_not_hold_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    changed = json.loads(make.FILE.read_text(encoding="utf-8"))
    changed["bundle"]["frame"] = changed["bundle"]["frame"][:-2] + "00"
    (tmp_path / "wire.json").write_text(json.dumps(changed), encoding="utf-8")
    monkeypatch.setattr(make, "FILE", tmp_path / "wire.json")
    assert [failure.partition(":")[0] for failure in check.check()] == [
        "the_code_makes_the_same_bytes",
        "the_code_opens_the_bundle",
        "the_bundle_is_as_the_page_says",
    ]
