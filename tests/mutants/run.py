"""Shows that tests can fail: applies each patch to a copy of the code and expects the tests it names to go red.

A patch beside this file puts one known defect into the package. Its preamble names the tests, one per line:
``Test: tests/…::name``. `python -m tests.mutants.run [NAME ...]` runs all or some, two at a time. Where there is no
redis-server, those whose test needs one are skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TRIES = 6
LIMIT = 120.0
"""Seconds after which a test counts as hanging, which is a way to be red."""
PATIENCE = "4"
"""Seconds that tests over Redis wait for what a defect may keep from ever happening."""
CAUGHT = "caught"
SKIPPED = "skipped: redis-server is missing"


def named_tests(patch: Path) -> list[str]:
    tests = re.findall(r"^Test: (\S+)$", patch.read_text(), flags=re.MULTILINE)
    if not tests:
        raise SystemExit(f"{patch}: names no test")
    return tests


def run_tests(where: Path, tests: list[str], **variables: str) -> tuple[int | None, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-rs", "-p", "no:cacheprovider", *tests]
    # Compiling everything anew takes longer than most tests.
    env = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", **variables}
    try:
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=LIMIT, check=False, env=env)
    except subprocess.TimeoutExpired:
        return None, "hangs"
    return done.returncode, done.stdout[-2000:] + done.stderr[-2000:]


def copy_of_the_code(folder: str) -> Path:
    where = Path(folder)
    for name in ("meerkat_trio", "tests", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            # With what is compiled: only what the patch touches is compiled again.
            shutil.copytree(source, where / name, ignore=shutil.ignore_patterns(".*_cache", "*.pyc.*"))
        else:
            shutil.copy(source, where / name)
    return where


def timed(patch: Path) -> tuple[str, float]:
    """Return what became of a mutant, and the seconds that took."""
    start = time.monotonic()
    return try_mutant(patch), time.monotonic() - start


def try_mutant(patch: Path) -> str:
    """Return what became of the mutant: CAUGHT, SKIPPED, or what is wrong."""
    skipped = False
    with tempfile.TemporaryDirectory() as folder:
        where = copy_of_the_code(folder)
        applied = subprocess.run(
            ["patch", "-p1", "--forward", "--fuzz=0", "-i", str(patch)],
            cwd=where,
            capture_output=True,
            text=True,
            check=False,
        )
        if applied.returncode != 0:
            return f"the patch does not apply any more:\n{applied.stdout}{applied.stderr}"
        for test in named_tests(patch):
            # In which order tasks run is Trio's to decide, and some defects need one of two orders.
            for _ in range(TRIES):
                code, output = run_tests(where, [test], TEST_PATIENCE=PATIENCE)
                lacks_server = re.search(r"^SKIPPED .*: redis-server is not installed", output, re.MULTILINE)
                if code != 0 or lacks_server:
                    break
            if code == 0 and lacks_server:
                skipped = True
                continue
            if code not in {1, None}:
                return f"{test} did not go red (pytest ended with {code}):\n{output}"
    return SKIPPED if skipped else CAUGHT


def main(names: list[str]) -> int:
    patches = sorted(HERE.glob("*.patch"))
    if names:
        patches = [patch for patch in patches if patch.stem in names]
    if not patches:
        print(f"no patch here of {names or 'any name'}")
        return 2
    wanted = sorted({test for patch in patches for test in named_tests(patch)})
    code, output = run_tests(ROOT, wanted)
    if code != 0:
        print(f"the tests are red without any patch:\n{output}")
        return 1
    found: Counter[str] = Counter()
    with ThreadPoolExecutor(2) as pool:
        for patch, (outcome, seconds) in zip(patches, pool.map(timed, patches), strict=True):
            print(f"{patch.stem:40} {seconds:5.1f} s  {outcome}", flush=True)
            found[outcome] += 1
    print(
        f"{found[CAUGHT]} of {len(patches)} mutants caught"
        + (f", {found[SKIPPED]} {SKIPPED}" if found[SKIPPED] else "")
    )
    return 1 if found.keys() - {CAUGHT, SKIPPED} else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
