"""The tables of the report, with their cells as text."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.results import Results, Round, baselines, flatten

SEGMENTS = {
    "all": ("All", "every user with test items"),
    "warm_users": ("Warm users", "users with train interactions"),
    "cold_users": ("Cold users", "users without a train interaction"),
    "warm_items": ("Warm items", "test items that training saw often enough"),
    "cold_items": ("Cold items", "test items that training saw rarely or never"),
    "cold_items_alone": ("Cold items alone", "the same, ranked among themselves only"),
    "new_items": ("New items", "test items that training never saw"),
    "new_items_alone": ("New items alone", "the same, ranked among themselves only"),
    "users_with_1_to_4": ("Users with 1 to 4", "users with so many train interactions"),
    "users_with_5_to_19": ("Users with 5 to 19", "users with so many train interactions"),
    "users_with_20_or_more": ("Users with 20 or more", "users with so many train interactions"),
}
"""Title and explanation of each segment of an evaluation, in the order of the report."""

LARGE = 1e4
"""From this value on, numbers are shown without decimals."""

NONE = "-"
"""The cell of a figure that was not measured."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table."""

    name: str
    cells: Sequence[str]
    best: int | None = None
    """The position of the cell to highlight."""


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under column headings; the first heading is for the names of the rows."""

    columns: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Section:
    """The figures of one segment."""

    title: str
    about: str
    segment: Mapping[str, Any]
    table: Table


def sections(results: Results) -> list[Section]:
    """Every metric of every segment: popularity first, then each round."""
    evaluations = _evaluations(results)
    return [
        Section(
            title=title,
            about=about,
            segment=results["baseline"]["segments"][name],
            table=Table(
                columns=("Metric", *evaluations),
                rows=_metric_rows([e["segments"][name]["figures"] for e in evaluations.values()]),
            ),
        )
        for name, (title, about) in SEGMENTS.items()
    ]


def summary(results: Results) -> Table:
    """The deciding metric of every segment: popularity first, then each round."""
    evaluations = _evaluations(results)
    metric = results["metric"]
    rows = []
    for name, (title, _) in SEGMENTS.items():
        segments = [evaluation["segments"][name] for evaluation in evaluations.values()]
        row = _metric_row(title, metric, [segment["figures"] for segment in segments])
        users = f"{segments[0]['n_users']:,}"
        best = None if row.best is None else row.best + 1
        rows.append(Row(name=title, cells=(users, *row.cells), best=best))
    return Table(columns=("Segment", "Test users", *evaluations), rows=rows)


def ann_table(rounds: Sequence[Round]) -> Table:
    """Every setting tried for the approximate index."""
    rows = [
        Row(
            name=f"round {found['round']}",
            cells=(
                f"{setting['leaves_to_search']:,} of {setting['leaves']:,}",
                f"{setting['reorder']:,}",
                f"{setting['recall']:.4f}",
                f"{setting['cost_us']:,.1f}",
                "yes" if setting["chosen"] else "",
            ),
            best=4 if setting["chosen"] else None,
        )
        for found in rounds
        for setting in found["ann"]
    ]
    columns = (
        "Round",
        "Leaves searched",
        "Reordered",
        "Recall",
        "Estimated cost (µs)",
        "Chosen",
    )
    return Table(columns=columns, rows=rows)


def cost_table(rounds: Sequence[Round]) -> Table:
    """What the index of each direction costs."""
    rows = [
        Row(
            name=f"round {found['round']}, {direction}",
            cells=(
                cost["kind"],
                f"{cost['recall']:.4f}",
                f"{cost['MiB of trees']:,.1f}",
                f"{cost['MiB of SavedModel']:,.1f}",
                _estimate(found) if direction == "u2i" else NONE,
            ),
        )
        for found in rounds
        for direction, cost in found.get("index_costs", {}).items()
    ]
    columns = ("Index", "Kind", "Recall", "Trees (MiB)", "SavedModel (MiB)", "Query (µs)")
    return Table(columns=columns, rows=rows)


def _estimate(found: Round) -> str:
    """The estimated microseconds of a query, where there is a tree."""
    chosen = [setting["cost_us"] for setting in found["ann"] if setting["chosen"]]
    return f"{chosen[0]:,.1f}" if chosen else NONE


def change_tables(changes: Mapping[str, Any]) -> list[tuple[str, Table]]:
    """What differs between two versions, by title; see `ComparedVersions`."""
    titles = {
        "settings": "Settings that differ",
        "counts": "Data",
        "figures": "Figures, each on what was held out from it",
        "lengths": "Lengths of vectors",
    }
    columns = ("", *(f"Version {version}" for version in changes["versions"]))
    found = []
    for name, title in titles.items():
        rows = [
            Row(name=key, cells=[_number(value) for value in pair])
            for key, pair in changes[name].items()
        ]
        if rows:
            found.append((title, Table(columns=columns, rows=rows)))
    return found


def highlights(results: Results) -> list[str]:
    """What a reader in a hurry is to know, in sentences."""
    promotion = results.get("promotion")
    lines = [*_trained_on(results), *_found(results)]
    if promotion is not None:
        verdict = "became current" if promotion["promoted"] else "did not become current"
        lines.append(f"Version {promotion['version']} {verdict}: {promotion['why']}.")
    return lines


def _trained_on(results: Results) -> list[str]:
    """How much was read, and what a user and an item are."""
    counts, config = results["data"]["counts"], results["config"]
    lines = []
    if "train" in counts:
        total = sum(counts[part] for part in ("train", "validation", "test"))
        lines.append(
            f"{total:,} positive interactions of {counts['users']:,} users with "
            f"{counts['items']:,} items; {counts['test']:,} of them are held out to measure by."
        )
    for side in ("user", "item"):
        features = config.get(f"{side}.features") or ()
        names = [one.get("name") or one.get("column") or one["kind"] for one in features]
        if names:
            lines.append(f"What is known of {side}s: {', '.join(names)}.")
    return lines


def _found(results: Results) -> list[str]:
    """What the version that the run left finds, beside the baselines."""
    metric, rounds = results["metric"], results["rounds"]
    served = [found for found in rounds if found["version"] == results["current_version"]]
    lines = []
    for found in (served or rounds)[-1:]:
        for segment in ("all", "warm_users", "cold_users"):
            figures = found["evaluation"]["segments"][segment]["figures"]
            if metric in figures:
                others = [
                    f"{name} {other['segments'][segment]['figures'][metric]:.4f}"
                    for name, other in baselines(results).items()
                ]
                title = "All users" if segment == "all" else SEGMENTS[segment][0]
                lines.append(f"{title}: {metric} {figures[metric]:.4f}; {', '.join(others)}.")
    return lines


def length_table(rounds: Sequence[Round]) -> Table:
    """How long the vectors are."""
    rows = [
        Row(name=f"round {found['round']}, {side}s", cells=[_number(x) for x in spread.values()])
        for found in rounds
        for side, spread in found["lengths"].items()
    ]
    names = rounds[0]["lengths"]["item"] if rounds else ()
    return Table(columns=("Vectors", *names), rows=rows)


def sampling_table(rounds: Sequence[Round]) -> Table:
    """Figures of the sampled positives and negatives, one column for each round."""
    flat = [flatten(found["sampling"]) for found in rounds]
    names = list(dict.fromkeys(name for figures in flat for name in figures))
    rows = [
        Row(name=name, cells=[_number(figures.get(name)) for figures in flat]) for name in names
    ]
    return Table(columns=("Figure", *(_title(found) for found in rounds)), rows=rows)


def timing_table(results: Results) -> Table:
    """The seconds of each stage, and their sum."""
    spent = [(timing["stage"], timing["seconds"]) for timing in results["timings"]]
    spent.append(("all", sum(seconds for _, seconds in spent)))
    rows = [Row(name=stage, cells=(f"{seconds:,.1f}",)) for stage, seconds in spent]
    return Table(columns=("Stage", "Seconds"), rows=rows)


def pair_table(values: Mapping[str, Any], *, columns: tuple[str, str]) -> Table:
    """A row for each key with its value."""
    rows = [Row(name=key, cells=(_number(value),)) for key, value in values.items()]
    return Table(columns=columns, rows=rows)


def _evaluations(results: Results) -> dict[str, Mapping[str, Any]]:
    """The evaluations by column heading: the baselines, then the rounds."""
    rounds = {_title(found): found["evaluation"] for found in results["rounds"]}
    known = {name[0].upper() + name[1:]: found for name, found in baselines(results).items()}
    return {**known, **rounds}


def _title(found: Round) -> str:
    return f"Round {found['round']} (version {found['version']})"


def _metric_rows(figures: Sequence[Mapping[str, float]]) -> list[Row]:
    """A row for each metric that any of the evaluations has."""
    names = dict.fromkeys(name for column in figures for name in column)
    return [_metric_row(name, name, figures) for name in names]


def _metric_row(title: str, metric: str, figures: Sequence[Mapping[str, float]]) -> Row:
    """A metric of each evaluation; the highest is highlighted, except for mean popularity."""
    values = [column.get(metric) for column in figures]
    if metric.startswith("popularity"):
        cells = [NONE if value is None else f"{value:,.1f}" for value in values]
        return Row(name=title, cells=cells)
    cells = [NONE if value is None else f"{value:.4f}" for value in values]
    known = [value for value in values if value is not None]
    tops = [place for place, value in enumerate(values) if known and value == max(known)]
    return Row(name=title, cells=cells, best=tops[0] if len(tops) == 1 < len(known) else None)


def _number(value: object) -> str:
    """A value as text: a float with four significant digits, an integer with all of them."""
    match value:
        case None:
            return NONE
        case str():
            return value
        case float():
            return f"{value:,.0f}" if abs(value) >= LARGE else f"{value:.4g}"
        case int() if not isinstance(value, bool):
            return f"{value:,}"
        case _:
            return json.dumps(value)
