"""A failure's run as Chrome trace events."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from meerkat_trio.testing import Report
from meerkat_trio.testing._trace import Moment
from tests.checker.drawn import failure_of, found, long_trace, report_of


def written(report: Report, folder: Path) -> Any:
    path = folder / "trace.json"
    report.to_perfetto(path)
    return json.loads(path.read_text(encoding="utf-8"))


def of(events: Sequence[dict[str, Any]], phase: str) -> list[dict[str, Any]]:
    return [event for event in events if event["ph"] == phase]


@pytest.fixture(scope="module")
def report() -> Report:
    return found()


def test_each_task_is_a_thread_with_its_steps(report: Report, tmp_path: Path) -> None:
    events = written(report, tmp_path)["traceEvents"]
    names = {event["args"]["name"]: event["tid"] for event in of(events, "M") if event["name"] == "thread_name"}
    assert list(names) == ["the explorer", "main", "other"]
    assert len(set(names.values())) == 3
    trace = report.failures[0].trace
    assert len(of(events, "X")) == sum(moment.what == "step" for moment in trace) + 1
    others = [event for event in of(events, "X") if event["tid"] == names["other"]]
    assert len(others) == sum((moment.what, moment.task) == ("step", "other") for moment in trace)


def test_the_file_says_what_failed_and_how_time_is_shown(report: Report, tmp_path: Path) -> None:
    data, failure = written(report, tmp_path), report.failures[0]
    other = data["otherData"]
    assert (other["kind"], other["message"]) == (failure.kind, failure.message)
    assert other["replay"] == failure.replay
    assert f"{other['microseconds_per_step']:g} microseconds" in other["time"]
    assert {event["dur"] for event in of(data["traceEvents"], "X")} == {other["microseconds_per_step"]}


def test_cancellations_logs_and_the_finding_are_instants(report: Report, tmp_path: Path) -> None:
    instants = of(written(report, tmp_path)["traceEvents"], "i")
    by_kind = defaultdict(list)
    for event in instants:
        by_kind[event["cat"]].append(event)
    assert by_kind["CANCELS"][0]["name"] == "CANCELS holder"
    assert by_kind["CANCELS"][0]["s"] == "g"
    assert by_kind["log"][0]["name"] == "log other wants it"
    assert by_kind["finding"][0]["name"].startswith("finding deadlock")
    assert by_kind["raises"]


def test_a_waking_is_an_arrow_from_one_step_into_another(report: Report, tmp_path: Path) -> None:
    events = written(report, tmp_path)["traceEvents"]
    begins, ends = of(events, "s"), of(events, "f")
    assert len(begins) == len(ends) > 0
    for begin, end in zip(begins, ends, strict=True):
        assert begin["id"] == end["id"]
        assert begin["tid"] != end["tid"]
        assert begin["ts"] < end["ts"]
        for arrow in (begin, end):
            assert any(
                step["tid"] == arrow["tid"] and step["ts"] <= arrow["ts"] <= step["ts"] + step["dur"]
                for step in of(events, "X")
            )


@pytest.mark.parametrize(
    "trace",
    [
        long_trace(30),
        long_trace(900, tasks=("a", "b", "c")),
        # More steps than fit between two instants that are a nanosecond apart.
        [Moment(time, n, what, "t") for n, time in enumerate([0.0] * 50 + [1e-9] * 50) for what in ("step", "parks")],
    ],
    ids=["short", "long", "crowded"],
)
def test_steps_never_overlap_and_stay_in_order(tmp_path: Path, trace: list[Moment]) -> None:
    steps = of(written(report_of(failure_of(trace)), tmp_path)["traceEvents"], "X")
    assert len(steps) == sum(moment.what == "step" for moment in trace)
    for before, after in pairwise(steps):
        assert after["ts"] >= before["ts"] + before["dur"] - 1e-6


def test_a_step_stands_at_its_virtual_time_in_microseconds(tmp_path: Path) -> None:
    steps = of(written(report_of(failure_of(long_trace(9))), tmp_path)["traceEvents"], "X")
    assert [step["ts"] for step in steps[::3]] == [0.0, 250_000.0, 500_000.0]
    assert [step["args"]["virtual_seconds"] for step in steps[::3]] == [0.0, 0.25, 0.5]
    assert steps[1]["ts"] > steps[0]["ts"]


def test_without_a_failure_there_is_nothing_to_write(tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    with pytest.raises(ValueError, match="scenario: nothing was found"):
        report_of().to_perfetto(path)
    assert not path.exists()


def test_any_text_of_a_scenario_makes_valid_json(tmp_path: Path) -> None:
    name = 'a"\\\x00'
    trace = [Moment(0.0, 0, "step", name, name), Moment(0.0, None, "ends", name)]
    data = written(report_of(failure_of(trace, message=f"{name}\ud800")), tmp_path)
    assert data["otherData"]["message"] == f"{name}\ud800"
    assert of(data["traceEvents"], "X")[0]["name"] == name
