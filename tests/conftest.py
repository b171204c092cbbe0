"""What all tests share: Hypothesis examples that do not depend on the machine's speed."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("default", deadline=None, derandomize=True)
settings.load_profile("default")
