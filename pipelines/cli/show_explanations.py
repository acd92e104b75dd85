"""Print what a score is the sum of, and which fields carry scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.cli.draw_table import figure, new_table, plain, print_table
from serving.retrieval.explanation.explain import Explanation
from serving.retrieval.explanation.feature_names import FeatureName
from serving.retrieval.explanation.importance import FieldImportance
from serving.retrieval.ranking import RankExplanation

ENDS = {"u": "user", "i": "item"}
"""The side that each letter of a direction stands for."""


def show_explanation(
    console: Console, found: Explanation, *, limit: int, titles: Mapping[FeatureName, str]
) -> None:
    """Print the largest parts of a score, with `titles` beside their features, and by field."""
    table = new_table()
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
    print_table(console, title, table)
    columns = ["kind", "source", "target", "other"]
    rows = [[*(getattr(part, n) for n in columns), f"{part.value:+.4f}"] for part in found.fields]
    print_table(console, "By field", _fields_table(rows, figures=["value"]))


def show_rank_explanation(console: Console, found: RankExplanation, *, limit: int) -> None:
    """Print the largest parts of a ranker's score, and the sum of the others."""
    table = new_table()
    for name in ("part", "value", "attention"):
        table.add_column(name, justify="left" if name == "part" else "right")
    for part in found.parts[:limit]:
        name = " x ".join(part.fields) or part.kind
        table.add_row(Text(name), figure(part.value), figure(part.attention))
    rest = found.parts[limit:]
    if rest:
        table.add_row(f"{len(rest)} others", figure(sum(part.value for part in rest)), "")
    title = f"ranker's score {found.score:.4f}, recall's {found.recall_score:.4f}"
    print_table(console, title, table)


def show_fields(console: Console, found: FieldImportance) -> None:
    """Print how much each field contributes to the scores of a sample."""
    shares = found.fields["share"].map("{:.1%}".format)
    figures = [found.fields[name].map("{:+.4f}".format) for name in ("mean", "p10", "p90")]
    keys = [found.fields[name] for name in ("kind", "source", "target", "other")]
    rows = [list(row) for row in zip(*keys, shares, *figures, strict=True)]
    title = f"u2i, version {found.version}: what carries {len(found.samples):,} scores, of "
    title += f"{found.n_users:,} users with the items that they would be shown"
    print_table(console, title, _fields_table(rows, figures=["share", "mean", "p10", "p90"]))


def _fields_table(rows: Sequence[Sequence[str | None]], *, figures: Sequence[str]) -> Table:
    """A table of kinds with their fields, and figures of each."""
    table = new_table()
    for name in ("part", "source", "target", "and"):
        table.add_column(name, overflow="fold")
    for name in figures:
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*(plain(cell or "") for cell in row))
    return table


def _feature(name: FeatureName | None, titles: Mapping[FeatureName, str]) -> Text:
    """Write a feature with its token, and its title if it has one."""
    if name is None:
        return Text("")
    return Text(plain(f"{name} {titles[name]}" if name in titles else str(name)))
