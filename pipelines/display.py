"""What a person reads at the end of a command: metrics by round, hits, versions, what next."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.results import Results
from pipelines.trials import TRIALS, Searched, shown
from serving.store import Store
from towers.errors import BundleError, QueryError

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
"""How many of a search's trials are shown: with their settings, they fit a narrow terminal."""


def show_results(console: Console, results: Results) -> None:
    """Print the test figures of every round beside the popularity baseline."""
    if not results["baseline"]["segments"]["all"]["n_users"]:
        console.print("No test interactions were held out, so there are no test figures.")
        return
    k = results["metric"].partition("@")[2]
    table = _table()
    table.add_column("segment (users)", no_wrap=True)
    for name in FIGURES:
        table.add_column(name, justify="right")
    found = {"popularity": results["baseline"]}
    found |= {f"round {r['round']} (v{r['version']})": r["evaluation"] for r in results["rounds"]}
    for segment, baseline in results["baseline"]["segments"].items():
        if not baseline["n_users"]:
            continue
        title = f"[bold]{segment.replace('_', ' ')}[/bold] [dim]({baseline['n_users']:,})"
        table.add_row(title)
        for name, evaluation in found.items():
            figures = evaluation["segments"][segment]["figures"]
            cells = [_figure(figures.get(f"{metric}@{k}")) for metric in FIGURES.values()]
            table.add_row(f"  {name}", *cells)
    _print(console, f"Test figures at {k}", table)


def show_search(console: Console, found: Searched) -> None:
    """Print the best trials and the first, with the settings and their importance."""
    first, best = found.trials[0], found.ranked[:SHOWN_TRIALS]
    trials = best if first in best else [*best, first]
    names = [f"trial {trial.number}" for trial in trials]
    table = _table()
    table.add_column("setting", overflow="fold")
    for name in (["importance"] if found.importance else []) + names:
        table.add_column(name, justify="right", no_wrap=True)
    rows = {found.metric: [_figure(trial.value) for trial in trials]}
    rows |= {name: [shown(trial.settings[name]) for trial in trials] for name in first.settings}
    for name, cells in rows.items():
        share = found.importance.get(name)
        extra = ["" if share is None else f"{share:.0%}"] if found.importance else []
        table.add_row(name, *extra, *cells)
    title = f"The best of {len(found.trials)} trials on the validation split; trial 1 as it stands"
    _print(console, title, table)


def show_hits(
    console: Console, hits: pd.DataFrame, *, title: str, show: Sequence[str] | None
) -> None:
    """Print hits by rank, with the columns `show` of the target's table; None shows all."""
    frame = _chosen(hits, show=show)
    table = _table()
    for name in frame.columns:
        table.add_column(str(name), justify="right" if name in {"rank", "score"} else "left")
    for row in frame.itertuples(index=False):
        table.add_row(*(Text(_cell(value)) for value in row))
    _print(console, title, table)


def hits_as_json(hits: pd.DataFrame, *, show: Sequence[str]) -> str:
    """Write hits as a JSON array of objects, one a hit."""
    text: str = _chosen(hits, show=show).to_json(orient="records", force_ascii=False)
    return text


def _chosen(hits: pd.DataFrame, *, show: Sequence[str] | None) -> pd.DataFrame:
    """Number hits by rank, and keep the id, the score and the columns `show`.

    Raises:
        QueryError: there is no such column.
    """
    rest = list(hits.columns[2:])
    missing = [name for name in show or () if name not in rest]
    if missing:
        raise QueryError(f"--show: expected some of {rest}, received {missing}")
    frame = hits[[*hits.columns[:2], *(rest if show is None else show)]].copy()
    frame.insert(0, "rank", range(1, len(frame) + 1))
    return frame


def show_versions(console: Console, store: Store) -> None:
    """Print the published versions of a models directory.

    Raises:
        BundleError: there is none.
    """
    if not store.versions():
        raise BundleError(f"{store.root}: no version is published there; check the path")
    table = _table()
    for name in ("version", "", "created", "mined with", "recall@20", "ndcg@20", "index"):
        table.add_column(name, justify="right" if "@" in name else "left", no_wrap=True)
    current = store.current()
    for version in store.versions():
        manifest = store.open(version, verify=False).manifest
        figures: dict[str, Any] = manifest.metrics["segments"]["all"]["figures"]
        mined = manifest.mined or {}
        table.add_row(
            str(version),
            "current" if version == current else "",
            manifest.created[:16].replace("T", " "),
            str(mined.get("version", "-")),
            _figure(figures.get("recall@20")),
            _figure(figures.get("ndcg@20")),
            str(manifest.index["kind"]),
        )
    _print(console, str(store.root), table)


def show_next_of_search(console: Console, found: Searched, *, program: str = "fm-recall") -> None:
    """Print where the best settings are, and what to type next."""
    lines = [
        f"The best settings: {found.path}; every trial: {found.path.with_name(TRIALS)}",
        "Next:",
        f"  {program} run {shlex.quote(str(found.path))}",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def show_next(console: Console, models: Path, *, program: str = "fm-recall") -> None:
    """Print where the outcome is, and what to type next; `program` is how to call this one."""
    folder, logs = shlex.quote(str(models)), shlex.quote(str(models / "logs"))
    example = "'{\"history\": [1, 2]}'"
    lines = [
        f"Published below {models}; the report: {models / 'current' / 'report.html'}",
        "Next:",
        f"  {program} query u2i -m {folder} --id ID --exclude-seen",
        f"  {program} query u2i -m {folder} --features {example}",
        f"  {program} versions -m {folder}",
        f"  {program} rollback {folder}",
        f"  {program.replace('fm-recall', 'tensorboard')} --logdir {logs}",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table() -> Table:
    """An empty table, in the one style."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False)


def _print(console: Console, title: str, table: Table) -> None:
    """Print a table below its title."""
    console.print(Text(f"\n{title}", style="bold"))
    console.print(table)


def _figure(value: float | None) -> str:
    """Write a figure with as many digits as it deserves."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 1 else f"{value:,.1f}"


def _cell(value: Any) -> str:
    """Write one value of a table's row."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.4f}"
    if hasattr(value, "tolist"):
        value = value.tolist()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
