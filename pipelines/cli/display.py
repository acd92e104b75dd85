"""What a command prints at its end: figures by round, hits, versions, and what to do next."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.ranking.rank_results import RankResults
from pipelines.results import Results, baselines
from pipelines.tuning.trials import TRIALS, Searched, shown
from pipelines.versions.compare_versions import ComparedVersions
from pipelines.versions.measure_version import Measured
from serving.retrieval.explanation.explain import Explanation
from serving.retrieval.explanation.feature_names import FeatureName
from serving.retrieval.explanation.importance import FieldImportance
from serving.retrieval.ranking import RankExplanation
from serving.version.store import Store
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

ENDS = {"u": "user", "i": "item"}
"""The side that each letter of a direction stands for."""

OF_RANKER = ("recall_score", "recall_rank")
"""The columns of hits that a ranker has ordered, which others do not have."""

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
    _print(console, f"Test figures at {k}", _evaluations_table(found, k=k))


def show_measured(console: Console, found: Measured) -> None:
    """Print the figures of a version on a table or, of two, the differences too."""
    k = found.metric.partition("@")[2]
    evaluations = {name: each.to_dict() for name, each in found.evaluations.items()}
    counts = ", ".join(f"{name} {count:,}" for name, count in found.counts.items())
    console.print(counts, markup=False, highlight=False, soft_wrap=True)
    _print(console, f"Figures at {k}", _evaluations_table(evaluations, k=k))
    if found.against is None:
        return
    table = _table()
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
    _print(console, f"Version {found.version} minus version {found.against}", table)


def show_compared(console: Console, found: ComparedVersions) -> None:
    """Print what differs between two versions, side by side."""
    names = [f"version {version}" for version in found.versions]
    if found.versions[0] == found.versions[1] or not found.settings:
        console.print("No setting differs.")
    groups = {
        "Settings that differ": found.settings,
        "Data": found.counts,
        "Figures, each on what was held out from it": found.figures,
        "Lengths of vectors": found.lengths,
        "Indexes": found.index,
    }
    for title, pairs in groups.items():
        if not pairs:
            continue
        table = _table()
        table.add_column("", overflow="fold")
        for name in names:
            table.add_column(name, justify="right", overflow="fold")
        for name, pair in pairs.items():
            table.add_row(_plain(name), *(_plain(_value(value)) for value in pair))
        _print(console, title, table)
    if (overlap := found.overlap) is None:
        console.print("No user is in both versions, so their lists are not compared.")
        return
    console.print(
        f"Of {overlap.n_users:,} users' best {overlap.k} items, {overlap.shared:.1%} are in both "
        f"lists; {overlap.first:.1%} of the users have the same first item, and "
        f"{overlap.equal:.1%} the same items.",
        highlight=False,
        soft_wrap=True,
    )


def _evaluations_table(found: Mapping[str, Mapping[str, Any]], *, k: str) -> Table:
    """The figures at k of evaluations by name, as `Evaluation.to_dict` has them, by segment."""
    table = _table()
    table.add_column("segment (users)")
    for name in FIGURES:
        table.add_column(name, justify="right", no_wrap=True)
    for segment, first in next(iter(found.values()))["segments"].items():
        if not first["n_users"]:
            continue
        table.add_row(f"[bold]{segment.replace('_', ' ')}[/bold] [dim]({first['n_users']:,})")
        for name, evaluation in found.items():
            figures = evaluation["segments"][segment]["figures"]
            cells = [_figure(figures.get(f"{metric}@{k}")) for metric in FIGURES.values()]
            table.add_row(f"  {name}", *cells)
    return table


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


def show_ranking(console: Console, results: RankResults) -> None:
    """Print the figures of a ranker beside those of recall's own order."""
    table = _table()
    for name in ("", "queries", "NDCG of recall", "NDCG ranked", "AUC", "log loss", "calibration"):
        table.add_column(name, justify="right" if name else "left")
    for part, figures in results.figures.items():
        ranker, (metric,) = figures["ranker"], figures["recall"]
        table.add_row(
            f"{part} ({metric})",
            f"{figures['queries']:,}",
            _figure(figures["recall"][metric]),
            _figure(ranker[metric]),
            _figure(ranker["auc"]),
            _figure(ranker["log_loss"]),
            _figure(ranker["calibration"]["error"]),
        )
    _print(console, f"ranker, version {results.version}", table)


def show_search(console: Console, found: Searched) -> None:
    """Print the best trials and the first, with the hyperparameters and their importance."""
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
    frame = _ranked(hits, show=show)
    table = _table()
    for name in frame.columns:
        table.add_column(
            str(name), justify="right" if name in {"rank", "score", *OF_RANKER} else "left"
        )
    for row in frame.itertuples(index=False):
        table.add_row(*(Text(_cell(value)) for value in row))
    _print(console, title, table)


def hits_as_json(hits: pd.DataFrame, *, show: Sequence[str]) -> str:
    """Write hits as a JSON array of objects, one a hit; the columns `show` are in `columns`."""
    frame = _ranked(hits, show=show).map(lambda x: x.isoformat() if isinstance(x, date) else x)
    records = json.loads(frame.to_json(orient="records"))
    n_own = 1 + _n_own(hits)
    own = [str(name) for name in frame.columns[:n_own]]
    of_table = [str(name) for name in frame.columns[n_own:]]
    found = [
        {name: record[name] for name in own}
        | {"columns": {name.partition(".")[2]: record[name] for name in of_table}}
        for record in records
    ]
    return json.dumps(found, ensure_ascii=False)


def show_explanation(
    console: Console, found: Explanation, *, limit: int, titles: Mapping[FeatureName, str]
) -> None:
    """Print the largest parts of a score, with `titles` beside their features, and by field."""
    table = _table()
    for name in ("part", *found.direction.split("2"), "and"):
        table.add_column(ENDS.get(name, name), overflow="fold")
    table.add_column("value", justify="right", no_wrap=True)
    for part in found.parts(limit):
        names = (part.source, part.target, part.other)
        cells = (_feature(name, titles) for name in names)
        table.add_row(part.kind, *cells, f"{part.value:+.4f}")
    if len(found) > limit:
        table.add_row(f"{len(found) - limit} more", "", "", "", f"{found.rest(limit):+.4f}")
    title = (
        f"{found.direction}, version {found.version}: the score, {found.score:.4f}, is the sum of"
    )
    _print(console, title, table)
    columns = ["kind", "source", "target", "other"]
    rows = [[*(getattr(part, n) for n in columns), f"{part.value:+.4f}"] for part in found.fields]
    _print(console, "By field", _fields_table(rows, figures=["value"]))


def show_rank_explanation(console: Console, found: RankExplanation, *, limit: int) -> None:
    """Print the largest parts of a ranker's score, and the sum of the others."""
    table = _table()
    for name in ("part", "value", "attention"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for part in found.parts[:limit]:
        name = " x ".join(part.fields) or part.kind
        table.add_row(Text(name), _figure(part.value), _figure(part.attention))
    rest = found.parts[limit:]
    if rest:
        table.add_row(f"{len(rest)} others", _figure(sum(part.value for part in rest)), "")
    title = f"ranker's score {found.score:.4f}, recall's {found.recall_score:.4f}"
    _print(console, title, table)


def show_fields(console: Console, found: FieldImportance) -> None:
    """Print how much each field contributes to the scores of a sample."""
    shares = found.fields["share"].map("{:.1%}".format)
    figures = [found.fields[name].map("{:+.4f}".format) for name in ("mean", "p10", "p90")]
    keys = [found.fields[name] for name in ("kind", "source", "target", "other")]
    rows = [list(row) for row in zip(*keys, shares, *figures, strict=True)]
    title = f"u2i, version {found.version}: what carries {len(found.samples):,} scores, of "
    title += f"{found.n_users:,} users with the items that they would be shown"
    _print(console, title, _fields_table(rows, figures=["share", "mean", "p10", "p90"]))


def _fields_table(rows: Sequence[Sequence[str | None]], *, figures: Sequence[str]) -> Table:
    """A table of kinds with their fields, and figures of each."""
    table = _table()
    for name in ("part", "source", "target", "and"):
        table.add_column(name, overflow="fold")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(_plain(cell or "") for cell in row))
    return table


def _feature(name: FeatureName | None, titles: Mapping[FeatureName, str]) -> Text:
    """Write a feature with its token, and its title if it has one."""
    if name is None:
        return Text("")
    return Text(_plain(f"{name} {titles[name]}" if name in titles else str(name)))


def _ranked(hits: pd.DataFrame, *, show: Sequence[str] | None) -> pd.DataFrame:
    """Number hits by rank, and keep the id, the score and the columns `show` of their table.

    Raises:
        QueryError: there is no such column.
    """
    n_own = _n_own(hits)
    of_table = {str(name).partition(".")[2]: name for name in hits.columns[n_own:]}
    missing = [name for name in show or () if name not in of_table]
    if missing:
        raise QueryError(f"--show: expected some of {list(of_table)}, received {missing}")
    chosen = of_table.values() if show is None else [of_table[name] for name in dict.fromkeys(show)]
    frame = hits[[*hits.columns[:n_own], *chosen]].copy()
    frame.insert(0, "rank", range(1, len(frame) + 1))
    return frame


def _n_own(hits: pd.DataFrame) -> int:
    """How many columns of hits are not of the table: the id, the score, and a ranker's."""
    return 2 + sum(name in hits.columns for name in OF_RANKER)


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
    current, faults = store.current(), list[str]()
    for version in store.versions():
        try:
            manifest = store.open(version, verify=False).manifest
        except BundleError as error:
            table.add_row(str(version), "current" if version == current else "", "cannot be read")
            faults.append(str(error).partition("\n")[0])
            continue
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
    for fault in faults:
        console.print(fault, markup=False, highlight=False, soft_wrap=True)


def show_candidates(
    console: Console, totals: Mapping[str, Mapping[str, Any]], *, out: Path
) -> None:
    """Print how many rows each table of a candidates job has, by channel, and where they are."""
    table = _table()
    for name in ("table", "asked for", "rejected", "rows", "by channel"):
        table.add_column(name, justify="left" if name in {"table", "by channel"} else "right")
    for name, total in totals.items():
        counts = (f"{total[key]:,}" for key in ("sources", "rejected", "rows"))
        channels = (f"{channel} {n:,}" for channel, n in total.get("channels", {}).items())
        table.add_row(name, *counts, ", ".join(channels))
    _print(console, str(out), table)
    lines = [f"The job and its shards: {out / 'manifest.json'}"]
    if any(total["rejected"] for total in totals.values()):
        lines.append(f"Rows without an answer, with the reason: {out / 'rejected'}")
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


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
        "To explore it in a browser, type this and open http://127.0.0.1:8501/ :",
        f"  {program} serve {folder}",
    ]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table() -> Table:
    """An empty table in the style of all tables here."""
    return Table(box=box.SIMPLE_HEAD, pad_edge=False)


def _print(console: Console, title: str, table: Table) -> None:
    """Print a table below its title."""
    console.print(Text(f"\n{title}", style="bold"))
    console.print(table)


def _figure(value: float | None) -> str:
    """A figure as text, with digits that suit its size."""
    if value is None:
        return "-"
    return f"{value:.4f}" if value < 1 else f"{value:,.1f}"


def _value(value: Any) -> str:
    """A setting or a figure as text; nothing where there is none."""
    match value:
        case None:
            return "-"
        case str():
            return value
        case float():
            return f"{value:.4g}"
        case int() if not isinstance(value, bool):
            return f"{value:,}"
        case _:
            return json.dumps(value, ensure_ascii=False)


def _cell(value: Any) -> str:
    """Write one value of a table's row."""
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.4f}"
    if hasattr(value, "tolist"):
        value = value.tolist()
    return _plain(", ".join(map(str, value)) if isinstance(value, list) else str(value))


def _plain(text: str) -> str:
    """Write out what a terminal would take for a command to it, such as the escape character."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
