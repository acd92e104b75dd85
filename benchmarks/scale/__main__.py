"""What a run on more interactions than fit in memory takes, on generated tables.

Run: .venv/bin/python -m benchmarks.scale --interactions 50000000 200000000

For each number of interactions, tables are made below build/scale unless they are there, and
`fm-recall run` trains one epoch on them in a process of its own, whose memory is looked at five
times a second. Then a table of the runs is printed, and their memory over time is drawn in
build/scale/memory.png. Results are kept: `--table` shows them again, without a run. What follows
`--` is passed on to `fm-recall run`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from benchmarks.peers.processes import ROOT
from benchmarks.scale.figures import Outcome, figures_table, ratio_lines
from benchmarks.scale.generate import Summary, generate
from benchmarks.scale.measure import ScaleError, run_sampled
from benchmarks.scale.plot import plot_memory
from benchmarks.scale.population import Size
from pipelines.progress import Reporter
from towers.errors import RecallError

CONFIG = Path(__file__).with_name("scale.toml")
PROGRAM = (sys.executable, "-c", "from pipelines.cli.main import main; main()")
MIB_A_GB = 1e9 / 2**20
FAILED = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line, or `arguments`, says; the exit code."""
    given = _parser().parse_args(arguments)
    reporter = Reporter(Console(highlight=False, soft_wrap=True))
    try:
        outcomes = [_outcome(given, n, reporter) for n in given.interactions]
    except RecallError as error:
        reporter.say(f"Error: {error}")
        return FAILED
    if not given.generate:
        _show(given, [outcome for outcome in outcomes if outcome], reporter)
    return 0


def _outcome(given: argparse.Namespace, interactions: int, reporter: Reporter) -> Outcome | None:
    """Generate and run, or take what an earlier run has kept; None where nothing is to be run.

    Raises:
        ScaleError: the run fails, or there is nothing to take.
    """
    size = Size(interactions=interactions, users=given.users, items=given.items, seed=given.seed)
    kept = given.out / f"result-{size.name}-{given.engine}.json"
    if given.table:
        if not kept.exists():
            raise ScaleError(f"--table: expected {kept}, found no such file; run it without first")
        return Outcome.load(kept)
    data = given.out / f"data-{size.name}"
    summary = _generate(size, data, reporter)
    if given.generate:
        return None
    outcome = _run(given, data, summary=summary, reporter=reporter)
    outcome.save(kept)
    return outcome


def _generate(size: Size, data: Path, reporter: Reporter) -> Summary:
    """Make the tables unless they are there."""
    reporter.say(f"Tables of {size.interactions:,} interactions: {data}")
    with (
        reporter.stage("generate"),
        reporter.bar("generate", size.interactions, unit="interactions") as advance,
    ):
        return generate(size, data, advance=advance)


def _run(given: argparse.Namespace, data: Path, *, summary: Summary, reporter: Reporter) -> Outcome:
    """Run the program on the tables, from nothing, and read what it says.

    Raises:
        ScaleError: it fails.
    """
    config = data / "run.toml"
    shutil.copyfile(given.config, config)
    models = given.out / f"models-{data.name.removeprefix('data-')}-{given.engine}"
    shutil.rmtree(models, ignore_errors=True)
    command = [*PROGRAM, "run", str(config.resolve()), "--out", str(models.resolve())]
    command += ["--engine", given.engine, *given.extra]
    course = run_sampled(command, folder=ROOT, variables=_environment(), echo=reporter.say)
    metrics = models / "current" / "metrics.json"
    return Outcome(
        engine=given.engine,
        summary=summary,
        input_bytes=sum(file.stat().st_size for file in data.rglob("*.parquet")),
        course=course,
        results=json.loads(metrics.read_text(encoding="utf-8")),
    )


def _environment() -> dict[str, str]:
    """This process' environment, with the same modules, and lines that are neither held nor cut."""
    path = os.pathsep.join([str(ROOT), *filter(None, sys.path)])
    return {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "COLUMNS": "200"}


def _show(given: argparse.Namespace, outcomes: Sequence[Outcome], reporter: Reporter) -> None:
    """Print the table, and draw the memory."""
    limit_mib = given.memory_gb * MIB_A_GB
    reporter.console.print(figures_table(outcomes, limit_mib=limit_mib))
    for line in ratio_lines(outcomes):
        reporter.say(line)
    path = given.out / "memory.png"
    plot_memory(outcomes, path, limit_mib=limit_mib)
    reporter.say(f"Memory over time: {path}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    numbers = [50_000_000, 200_000_000]
    parser.add_argument("--interactions", type=int, nargs="+", default=numbers, metavar="N")
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("build/scale"))
    parser.add_argument("--config", type=Path, default=CONFIG, help="the run's TOML file")
    parser.add_argument("--engine", default="disk", help="disk, or memory to compare with")
    parser.add_argument(
        "--memory-gb", type=float, default=8.0, help="what the runs are to stay within, in 10^9"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--generate", action="store_true", help="make the tables, and run nothing")
    only.add_argument("--table", action="store_true", help="print the results that are kept")
    parser.add_argument("extra", nargs="*", help="after --: passed on to fm-recall run")
    return parser


if __name__ == "__main__":
    sys.exit(main())
