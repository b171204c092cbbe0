"""Coverage-guided bytes against the decoder, for as long as it takes; with atheris, where that installs."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .test_wire_frames import GOOD
from .wire import part


@pytest.mark.deep
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed here")
def test_no_bytes_raise_anything_but_a_refusal_nor_take_much_memory(tmp_path: Path) -> None:
    seconds = int(os.environ.get("FUZZ_SECONDS", "120"))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate([*GOOD, b"".join(GOOD), part(), part(body={"a": [1, 2.5, b"x", None]})]):
        (corpus / str(number)).write_bytes(b"\xff" + seed)
    options = [f"-max_total_time={seconds}", "-rss_limit_mb=512", "-timeout=5", "-max_len=8192"]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.comms.fuzz_wire", *options, f"-artifact_prefix={tmp_path}/", str(corpus)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    print(ran.stderr.splitlines()[-1])
