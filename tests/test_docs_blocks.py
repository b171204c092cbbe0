"""Every Python block of the README and the docs runs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", flags=re.MULTILINE | re.DOTALL)

FENCED = re.compile(r"^```.*?^```$", flags=re.MULTILINE | re.DOTALL)

BLOCKS = [
    pytest.param(block.group(1), id=f"{page.relative_to(ROOT)}:{page.read_text()[: block.start()].count(chr(10)) + 1}")
    for page in PAGES
    for block in BLOCK.finditer(page.read_text())
]


@pytest.mark.parametrize("block", BLOCKS)
def test_a_python_block_of_the_docs_runs(block: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", block], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr


def test_every_link_of_the_docs_leads_somewhere() -> None:
    dead = [
        f"{page.name}: {target}"
        for page in PAGES
        for target in re.findall(r"\]\(([^)#:]+)\)", FENCED.sub("", page.read_text()))
        if not (page.parent / target).exists()
    ]
    assert dead == []
