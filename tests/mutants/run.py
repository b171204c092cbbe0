"""Shows that tests can fail: applies each patch to a copy of the code and expects the tests it names to go red.

A patch beside this file puts one known defect into the package. Its preamble names the tests, one per line:
``Test: tests/…::name``. `python -m tests.mutants.run [NAME ...]` runs all or some, two at a time.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
TRIES = 6
LIMIT = 120.0
"""Seconds after which a test counts as hanging, which is a way to be red."""


def named_tests(patch: Path) -> list[str]:
    tests = re.findall(r"^Test: (\S+)$", patch.read_text(), flags=re.MULTILINE)
    if not tests:
        raise SystemExit(f"{patch}: names no test")
    return tests


def run_tests(where: Path, tests: list[str]) -> tuple[int | None, str]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return None, "hangs"
    return done.returncode, done.stdout[-2000:] + done.stderr[-2000:]


def copy_of_the_code(folder: str) -> Path:
    where = Path(folder)
    for name in ("meerkat_trio", "tests", "pyproject.toml"):
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, where / name, ignore=shutil.ignore_patterns("__pycache__", ".*_cache"))
        else:
            shutil.copy(source, where / name)
    return where


def try_mutant(patch: Path) -> str | None:
    """Return what is wrong, None if the mutant is caught."""
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
                code, output = run_tests(where, [test])
                if code != 0:
                    break
            if code not in {1, None}:
                return f"{test} did not go red (pytest ended with {code}):\n{output}"
    return None


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
    survivors = 0
    with ThreadPoolExecutor(2) as pool:
        for patch, wrong in zip(patches, pool.map(try_mutant, patches), strict=True):
            print(f"{patch.stem:24} {'caught' if wrong is None else wrong}", flush=True)
            survivors += wrong is not None
    print(f"{len(patches) - survivors} of {len(patches)} mutants caught")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
