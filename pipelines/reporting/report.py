"""Write a run's results as one HTML page that needs no other file, no network and no script."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, cast

from jinja2 import Environment, StrictUndefined

from pipelines.reporting import plots, tables
from pipelines.results import Results
from serving.atomic import write_text_atomic


def write_report(path: Path, report: Mapping[str, Any]) -> None:
    """Write the page to `path`, whole or not at all; `report` has the shape of `Results`."""
    write_text_atomic(path, render(cast("Results", report)))


def render(results: Results) -> str:
    """The page as text; the same results give the same text."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files("pipelines.reporting").joinpath("report.html.j2")
    source = template.read_text(encoding="utf-8")
    rounds = results["rounds"]
    return environment.from_string(source).render(
        results=results,
        highlights=tables.highlights(results),
        split_plot=plots.split_plot(results),
        changes=_changes(results),
        sampled=next((found for found in reversed(rounds) if found.get("samples")), None),
        costs=tables.cost_table(rounds),
        summary=tables.summary(results),
        sections=tables.sections(results),
        training_plots=plots.training_plots(results),
        quality_plots=plots.quality_plots(results),
        ann_plot=plots.ann_plot(results),
        ann=tables.ann_table(rounds),
        lengths=tables.length_table(rounds),
        sampling=tables.sampling_table(rounds),
        counts=tables.pair_table(results["data"]["counts"], columns=("Rows", "Count")),
        timings=tables.timing_table(results),
        config=tables.pair_table(results["config"], columns=("Setting", "Value")),
    )


def _changes(results: Results) -> dict[str, Any] | None:
    """What changed against the version that was current when the last round was published."""
    found = results["rounds"][-1].get("changes") if results["rounds"] else None
    return found and found | {"tables": tables.change_tables(found)}
