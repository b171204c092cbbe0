"""A few licences shared by many jobs: each job borrows one for as long as it runs, and reports at its end.

The shape is that of https://github.com/agronholm/anyio/issues/947, a CapacityLimiter that runs out of tokens
although nobody holds one any more.
Right here: the clean-up gives the token back before it awaits anything.
"""

from __future__ import annotations

from typing import Any

import trio

KIND: str = "leaked permit (CapacityLimiter)"
ORACLE: str | None = "leaked limiter"
MODE: str = "fair"


class LicencedJobs:
    def __init__(self, licences: int) -> None:
        self._licences = trio.CapacityLimiter(licences)
        self._reports, self.report_reader = trio.open_memory_channel[str](10)

    async def run(self, name: str, seconds: float) -> None:
        # The licence belongs to the job, not to the task: a job may be carried on by another task.
        job = object()
        await self._licences.acquire_on_behalf_of(job)
        try:
            await trio.sleep(seconds)
        finally:
            self._licences.release_on_behalf_of(job)
            await self._reports.send(f"{name} is over")


async def scenario(x: Any) -> None:
    jobs = LicencedJobs(licences=1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(jobs.run, "render", 1)
        nursery.start_soon(jobs.run, "encode", 2)
    x.check(jobs.report_reader.statistics().current_buffer_used == 2, "a report is missing")
