from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from benchmarks.scale import __main__ as command
from benchmarks.scale.figures import Outcome, Stage, figures_table, ratio_lines
from benchmarks.scale.generate import Summary
from benchmarks.scale.measure import Course, Line, Sample, ScaleError, run_sampled
from benchmarks.scale.plot import plot_memory

PNG = b"\x89PNG\r\n\x1a\n"

GROWS = """
import time
print("begun")
time.sleep(0.1)
held = b"x" * (64 << 20)
time.sleep(0.2)
del held
print("read and check 0.3 s")
time.sleep(0.1)
"""

PROGRAM = """
import json, sys
from pathlib import Path
given = sys.argv[1:]
assert given[0] == "run" and "--engine" in given and Path(given[1]).name == "run.toml", given
out = Path(given[given.index("--out") + 1])
(out / "current").mkdir(parents=True)
figures = {"segments": {"all": {"figures": {"recall@20": 0.25}}}}
results = {
    "rounds": [{"epochs": [{"seconds": 2.0}], "evaluation": figures}],
    "baseline": figures,
    "data": {"counts": {"train": 5000}},
}
(out / "current" / "metrics.json").write_text(json.dumps(results))
print("read and check 0.1 s")
print("round 0: fit 0.2 s")
print(*given[given.index("--engine") + 2:])
"""


def outcome(*, interactions: int, peak: float = 3000.0) -> Outcome:
    """A run of a hundred seconds, whose memory is at its highest after training."""
    summary = Summary(
        interactions=interactions,
        users=1000,
        items=500,
        seed=0,
        top_share=0.25,
        items_chosen=480,
        median_a_user=2.0,
        mean_a_user=5.0,
        most_a_user=77,
    )
    lines = [
        (10.0, "read and check 8.0 s"),
        (10.1, "  interactions: 5 rows read 1.0 s"),
        (14.0, "find the cut 2.0 s"),
        (17.0, "find the cut 2.5 s"),
        (30.0, "split 20.0 s"),
        (34.0, "measure popularity 3.0 s"),
        (50.0, "initial vectors 5.0 s"),
        (80.0, "round 0: fit 45.5 s"),
    ]
    samples = [(5.0, 500.0, 500.0), (79.0, 1800.0, 2000.0), (95.0, peak, peak)]
    model: Any = {"segments": {"all": {"figures": {"recall@20": 0.125}}}}
    popularity: Any = {"segments": {"all": {"figures": {"recall@20": 0.0625}}}}
    results: Any = {
        "rounds": [{"epochs": [{"seconds": 40.0}], "evaluation": model}],
        "baseline": popularity,
        "data": {"counts": {"train": 4000}},
    }
    return Outcome(
        engine="disk",
        summary=summary,
        input_bytes=3 << 20,
        course=Course(
            seconds=100.0,
            samples=tuple(
                Sample(seconds=s, rss=rss, anonymous=rss - 100, file=100.0, peak=most)
                for s, rss, most in samples
            ),
            lines=tuple(Line(seconds=s, text=text) for s, text in lines),
        ),
        results=results,
    )


def test_memory_and_lines_are_noted_as_time_goes_on(tmp_path: Path) -> None:
    heard: list[str] = []
    course = run_sampled(
        [sys.executable, "-u", "-c", GROWS],
        folder=tmp_path,
        variables=dict(os.environ),
        echo=heard.append,
        every_s=0.02,
    )
    assert [line.text for line in course.lines] == heard == ["begun", "read and check 0.3 s"]
    begun, read = (line.seconds for line in course.lines)
    assert 0 < begun < begun + 0.2 < read < course.seconds
    highest = max(course.samples, key=lambda sample: sample.anonymous)
    assert begun < highest.seconds < read
    last = course.samples[-1]
    assert highest.anonymous - last.anonymous > 60
    assert last.peak - last.rss > 60
    assert all(s.anonymous + s.file <= s.rss + 1 and s.rss <= s.peak + 1 for s in course.samples)
    assert Course.from_dict(course.to_dict()) == course


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('no table'); raise SystemExit(2)", r"received 2; the last .*\n  no table"),
        ("import os; os.kill(os.getpid(), 9)", r"received -9; it was killed, maybe for want of"),
    ],
)
def test_a_command_that_fails_says_so(code: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ScaleError, match=message):
        run_sampled(
            [sys.executable, "-c", code],
            folder=tmp_path,
            variables=dict(os.environ),
            echo=lambda line: None,
            every_s=0.02,
        )


def test_stages_are_the_lines_that_end_with_their_seconds() -> None:
    stages = outcome(interactions=5000).stages
    assert stages[0] == Stage(name="read and check", start=2.0, end=10.0)
    assert [stage.name for stage in stages] == [
        "read and check",
        "find the cut",
        "find the cut",
        "split",
        "measure popularity",
        "initial vectors",
        "round 0: fit",
    ]


def test_figures_are_taken_from_the_stages_and_the_samples(tmp_path: Path) -> None:
    found = outcome(interactions=5600)
    assert found.preparation_s == 28.0
    assert found.training_peak == 2000.0
    assert (found.peak, found.peak_anonymous) == (3000.0, 2900.0)
    console = Console(width=200, record=True, file=(tmp_path / "out").open("w"))
    console.print(figures_table([found], limit_mib=2500.0))
    console.file.close()
    lines = (line.strip().rsplit("  ", 1) for line in console.export_text().splitlines())
    table = {line[0].strip(): line[1].strip() for line in lines if len(line) == 2}
    expected = {
        "interactions, engine": "5,600, disk",
        "tables on disk, MiB": "3",
        "find the cut, s": "4.5",
        "split, s": "20.0",
        "prepared, interactions/s": "200",
        "epoch, interactions/s": "100",
        "peak to the end of training, MiB": "2,000",
        "peak, MiB": "3,000",
        "within 2,500 MiB": "no",
        "recall@20 of the model": "0.1250",
        "recall@20 of popularity": "0.0625",
    }
    assert {name: table[name] for name in expected} == expected


def test_peaks_are_compared_to_the_first_of_the_same_engine() -> None:
    found = [outcome(interactions=5000), outcome(interactions=20_000, peak=3300.0)]
    assert ratio_lines(found) == [
        "peak memory of 20,000, disk over that of 5,000, disk: 1.100; up to the end of training "
        "1.000"
    ]


def test_an_outcome_is_kept_whole(tmp_path: Path) -> None:
    found = outcome(interactions=5000)
    found.save(tmp_path / "result.json")
    assert Outcome.load(tmp_path / "result.json") == found


def test_the_memory_of_every_run_is_drawn(tmp_path: Path) -> None:
    sizes = []
    for n in (1, 2):
        path = tmp_path / f"{n}.png"
        plot_memory([outcome(interactions=5000)] * n, path, limit_mib=8000.0)
        assert path.read_bytes().startswith(PNG)
        sizes.append(int.from_bytes(path.read_bytes()[20:24], "big"))
    assert sizes[1] == 2 * sizes[0]


def test_the_command_generates_runs_and_shows_and_shows_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "PROGRAM", (sys.executable, "-c", PROGRAM))
    options = ["--interactions", "3000", "6000", "--users", "300", "--items", "200"]
    options += ["--out", str(tmp_path)]
    assert command.main([*options, "--table"]) == command.FAILED
    assert "run it without first" in capsys.readouterr().out
    assert command.main([*options, "--engine", "other", "--", "--from", "current"]) == 0
    printed = capsys.readouterr().out
    assert "\n--from current\n" in printed
    table = printed[printed.index("interactions, engine") :]
    assert "peak memory of 6,000, other over that of 3,000, other: " in table
    assert (tmp_path / "memory.png").read_bytes().startswith(PNG)
    assert command.main([*options, "--engine", "other", "--table"]) == 0
    assert table in capsys.readouterr().out


def test_generating_alone_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "PROGRAM", ("there-is-no-such-program",))
    options = ["--interactions", "3000", "--users", "300", "--items", "200", "--generate"]
    assert command.main([*options, "--out", str(tmp_path)]) == 0
    assert "Tables of 3,000 interactions" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["data-3000-300-200-0"]
