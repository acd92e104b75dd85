"""Print the figures of runs, versions, rankers and searches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from pipelines.cli.draw_table import figure, new_table, print_table
from pipelines.ranking.rank_results import RankResults
from pipelines.results import Results, baselines
from pipelines.tuning.trials import Searched, shown
from pipelines.versions.measure_version import Measured

FIGURES = {
    "recall": "recall",
    "ndcg": "ndcg",
    "hit": "hit_rate",
    "mrr": "mrr",
    "coverage": "coverage",
    "mean pop.": "popularity",
}
"""The columns of the table of figures, and their metrics, each at the deciding metric's K."""

SHOWN_TRIALS = 3
"""How many trials of a search are shown, so that they fit a narrow terminal."""


def show_results(console: Console, results: Results) -> None:
    """Print the test figures of every round beside the baselines."""
    if not results["baseline"]["segments"]["all"]["n_users"]:
        console.print("No test interactions were held out, so there are no test figures.")
        return
    found = baselines(results)
    found |= {f"round {r['round']} (v{r['version']})": r["evaluation"] for r in results["rounds"]}
    k = results["metric"].partition("@")[2]
    print_table(console, f"Test figures at {k}", _evaluations_table(found, k=k))


def summary(results: Results) -> dict[str, Any]:
    """What a program asks of a finished run: its versions with their figures, and the current."""
    metric = results["metric"]
    versions = {}
    for each in results["rounds"]:
        figures = each["evaluation"]["segments"]["all"]["figures"]
        versions[each["version"]] = figures.get(metric)
    return {
        "current_version": results["current_version"],
        "metric": metric,
        "versions": versions,
        "promotion": results.get("promotion"),
    }


def show_measured(console: Console, found: Measured) -> None:
    """Print the figures of a version on a table or, of two, the differences too."""
    k = found.metric.partition("@")[2]
    evaluations = {name: each.to_dict() for name, each in found.evaluations.items()}
    counts = ", ".join(f"{name} {count:,}" for name, count in found.counts.items())
    console.print(counts, markup=False, highlight=False, soft_wrap=True)
    print_table(console, f"Figures at {k}", _evaluations_table(evaluations, k=k))
    if found.against is None:
        return
    table = new_table()
    for name in ("segment (users)", "metric", "difference", "95% interval", ""):
        table.add_column(name, justify="left" if name in {"segment (users)", ""} else "right")
    for each in found.differences:
        name, _, cutoff = each.metric.partition("@")
        if cutoff != k or name not in {"recall", "ndcg"}:
            continue
        table.add_row(
            f"{each.segment.replace('_', ' ')} ({each.n_users:,})",
            each.metric,
            f"{each.value:+.4f}",
            f"{each.low:+.4f} to {each.high:+.4f}",
            "" if each.low <= 0 <= each.high else ("better" if each.value > 0 else "worse"),
        )
    print_table(console, f"Version {found.version} minus version {found.against}", table)


def _evaluations_table(found: Mapping[str, Mapping[str, Any]], *, k: str) -> Table:
    """The figures at k of evaluations by name, as `Evaluation.to_dict` has them, by segment."""
    table = new_table()
    table.add_column("segment (users)")
    for name in FIGURES:
        table.add_column(name, justify="right", no_wrap=True)
    for segment, first in next(iter(found.values()))["segments"].items():
        if not first["n_users"]:
            continue
        table.add_row(f"[bold]{segment.replace('_', ' ')}[/bold] [dim]({first['n_users']:,})")
        for name, evaluation in found.items():
            figures = evaluation["segments"][segment]["figures"]
            cells = [figure(figures.get(f"{metric}@{k}")) for metric in FIGURES.values()]
            table.add_row(f"  {name}", *cells)
    return table


def show_ranking(console: Console, results: RankResults) -> None:
    """Print the figures of a ranker beside those of recall's own order."""
    table = new_table()
    for name in ("", "queries", "NDCG of recall", "NDCG ranked", "AUC", "log loss", "calibration"):
        table.add_column(name, justify="right" if name else "left")
    for part, figures in results.figures.items():
        ranker, (metric,) = figures["ranker"], figures["recall"]
        table.add_row(
            f"{part} ({metric})",
            f"{figures['queries']:,}",
            figure(figures["recall"][metric]),
            figure(ranker[metric]),
            figure(ranker["auc"]),
            figure(ranker["log_loss"]),
            figure(ranker["calibration"]["error"]),
        )
    print_table(console, f"ranker, version {results.version}", table)


def show_search(console: Console, found: Searched) -> None:
    """Print the best trials and the first, with the hyperparameters and their importance."""
    first, best = found.trials[0], found.ranked[:SHOWN_TRIALS]
    trials = best if first in best else [*best, first]
    names = [f"trial {trial.number}" for trial in trials]
    table = new_table()
    table.add_column("setting", overflow="fold")
    for name in (["importance"] if found.importance else []) + names:
        table.add_column(name, justify="right", no_wrap=True)
    rows = {found.metric: [figure(trial.value) for trial in trials]}
    rows |= {name: [shown(trial.settings[name]) for trial in trials] for name in first.settings}
    for name, cells in rows.items():
        share = found.importance.get(name)
        extra = ["" if share is None else f"{share:.0%}"] if found.importance else []
        table.add_row(name, *extra, *cells)
    title = f"The best of {len(found.trials)} trials on the validation split; trial 1 as it stands"
    print_table(console, title, table)
