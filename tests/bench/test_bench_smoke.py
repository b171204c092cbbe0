"""The benchmarks run, say what they measured, and compare like with like. No figure is judged here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import trio

import meerkat_trio

from .__main__ import SETTINGS, main
from ._measure import TINY, Contestant, Goal, Row, Setting, take_turns
from ._ours import made_comms, register_all
from ._trees import trees

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._measure import Scale


def _report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    main([*arguments, "--json"])
    report: dict[str, Any] = json.loads(capsys.readouterr().out)
    return report


def test_a_quick_run_of_one_topic_tells_ours_the_floor_the_ratio_and_the_goal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = _report(capsys, "--quick", "--only", "apply")
    assert [row["name"] for row in report["rows"]] == ["apply-started", "apply-rebind"]
    assert report["rounds"] == 1
    assert report["without_ours"] == []
    for row in report["rows"]:
        assert row["unit"] == "us"
        assert row["floor"]["value"] > 0
        assert row["ratio"] == pytest.approx(row["ours"]["value"] / row["floor"]["value"])
        assert row["goal"] == {"limit": 2.5, "aim": 1.6, "times_floor": True}
        assert row["met"] == (row["ratio"] <= row["goal"]["limit"])
        assert row["times_goal"] == pytest.approx(row["ratio"] / 2.5)
        assert (row["name"] in report["missed"]) == (not row["met"])


def test_a_run_for_people_names_every_row_and_the_goals_that_are_missed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["--quick", "--only", "apply"])
    told = capsys.readouterr().out
    assert "apply-started" in told
    assert "goals missed:" in told


def test_a_name_that_no_row_has_is_refused_with_the_names_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(["--only", "nothing"])
    assert refused.value.code == 2
    assert "apply-started" in capsys.readouterr().err


@pytest.mark.parametrize(
    "setting", [setting for setting in SETTINGS if not setting.deep], ids=lambda setting: setting.rows[0].name
)
def test_ours_and_the_floor_have_a_figure_for_every_row_of_their_setting(setting: Setting) -> None:
    figures = take_turns(setting, 1, TINY)
    assert figures.failed == {}
    for row in setting.rows:
        assert figures.ratio(setting.ours.label, setting.floor.label, row.name) is not None


def test_one_that_fails_half_way_is_named_with_its_innermost_error_and_has_no_figure() -> None:
    turns = 0

    def fail_at_last(_scale: Scale) -> Mapping[str, float]:
        nonlocal turns
        turns += 1
        if turns == 3:
            raise ExceptionGroup("outer", [ValueError("inner")])
        return {"row": 1.0}

    setting = Setting(
        rows=(Row(name="row", what="a row", unit="us", goal=Goal(limit=1.0)),),
        floor=Contestant(label="floor", turn=lambda _: {"row": 2.0}),
        ours=Contestant(label="ours", turn=lambda _: {"row": 3.0}),
        peers=(
            Contestant(label="failing", turn=fail_at_last),
            Contestant(label="absent", turn=fail_at_last, needs="a_module_that_nobody_has"),
        ),
    )
    figures = take_turns(setting, 2, TINY)
    assert figures.failed == {"failing": "ValueError: inner"}
    assert figures.median("failing", "row") is None
    assert figures.ratio("ours", "floor", "row") == 1.5


async def test_the_floor_tree_has_as_many_tasks_per_session_as_an_idle_session_of_ours() -> None:
    def living() -> int:
        return trio.lowlevel.current_statistics().tasks_living

    alone = living()
    async with trees(1)(10):
        floor = living() - alone
    async with meerkat_trio.open_machine() as machine:
        opened = living()
        await register_all(machine, made_comms(meerkat_trio.MemoryNetwork(), 10))
        assert floor == living() - opened
