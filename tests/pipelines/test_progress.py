from __future__ import annotations

import io
import json
import time

import pytest
from rich.console import Console

from pipelines.progress import Reporter, json_log


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=60)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_stage_is_printed_and_remembered_with_its_time(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    reporter = Reporter(console)
    with reporter.stage("round 0: fit"):
        assert printed(console) == ""
        now[0] = 2.5
    with reporter.stage("evaluate"):
        pass
    assert reporter.timings == [
        {"stage": "round 0: fit", "seconds": 2.5},
        {"stage": "evaluate", "seconds": 0.0},
    ]
    assert printed(console).splitlines() == ["round 0: fit 2.5 s", "evaluate 0.0 s"]


def test_a_stage_that_fails_is_not_reported_as_done(console: Console) -> None:
    reporter = Reporter(console)
    with pytest.raises(KeyboardInterrupt), reporter.stage("fit"):
        raise KeyboardInterrupt
    assert reporter.timings == []
    assert printed(console) == ""


def test_a_line_is_printed_as_it_is(console: Console) -> None:
    line = "  rejected rows are in /data [b]old[/b] [/x]/quarantine.csv " + "x" * 60
    Reporter(console).say(line)
    assert printed(console) == line + "\n"


def test_a_bar_counts_steps_where_a_person_watches() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    with Reporter(console).bar("mine", 40) as advance:
        advance(30)
        advance(10)
    assert "mine" in printed(console)
    assert "40/40" in printed(console)


def test_a_bar_leaves_nothing_in_a_log(console: Console) -> None:
    reporter = Reporter(console)
    with reporter.bar("mine", 3) as advance:
        advance(3)
        reporter.say("halfway")
    assert printed(console) == "halfway\n"


def test_without_a_console_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = Reporter()
    reporter.say("hello")
    with reporter.stage("fit"), reporter.bar("epoch 1", 2) as advance:
        advance(2)
    assert reporter.timings[0]["stage"] == "fit"
    assert capsys.readouterr() == ("", "")


def test_a_long_bar_says_its_rate_where_nobody_watches(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Reporter(console).bar("candidates", 9000, unit="users") as advance:
        for _ in range(4):
            now[0] += 10
            advance(1000)
    assert printed(console) == "candidates: 3,000 of 9,000 users, 100/s, 0:01:00 left\n"


def test_the_time_left_does_not_count_the_first_step_which_is_slow(
    console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Reporter(console).bar("export and index", 18) as advance:
        for seconds in (31, 61, 121):
            now[0] = seconds
            advance(1)
    assert printed(console).splitlines() == [
        "export and index: 1 of 18",
        "export and index: 2 of 18, 0:08:00 left",
        "export and index: 3 of 18, 0:11:15 left",
    ]


def test_a_stage_moves_while_it_runs_and_its_bars_below_it() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    reporter = Reporter(console)
    with reporter.stage("round 0: fit"):
        assert "round 0: fit" in printed(console)
        with reporter.bar("epoch 1 of 8", 100) as advance:
            advance(50)
            for _ in range(400):  # it is drawn ten times a second
                if "50/100" in printed(console):
                    break
                time.sleep(0.05)
            assert "50/100" in printed(console)
    assert "left" in printed(console)
    with reporter.stage("evaluate"):  # the display starts again
        pass
    assert printed(console).count("\x1b[?25l") == printed(console).count("\x1b[?25h") == 2


def test_a_log_has_an_object_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    stream = io.StringIO()
    reporter = Reporter(log=json_log(stream))
    with reporter.stage("evaluate"), reporter.bar("users", 40, unit="users") as advance:
        reporter.say("  halfway: 1 of 2")
        advance(5)
        now[0] = 30
        advance(5)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["message"]) for line in lines] == [
        ("stage begins", "evaluate"),
        ("message", "halfway: 1 of 2"),
        ("progress", "users"),
        ("stage ends", "evaluate"),
    ]
    assert {name: lines[2][name] for name in ("done", "total", "seconds_left")} == {
        "done": 10,
        "total": 40,
        "seconds_left": 180,
    }
    assert lines[3]["seconds"] == reporter.timings[0]["seconds"]
    assert all(line["time"] and line["level"] == "INFO" for line in lines)


def test_a_bar_says_its_rate_to_who_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with Reporter(console).bar("candidates", 2000, unit="users") as advance:
        for _ in range(2):
            time.sleep(0.01)
            advance(1000)
    assert "users/s" in printed(console)
