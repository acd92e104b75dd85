"""The tables of the ablation, in Markdown: mean, spread over seeds and difference to the base."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.ablation_cells import METRICS, SEGMENTS, Cell
from benchmarks.ablation_variants import BASE, SETUPS, VARIANTS, K
from serving.atomic import write_text_atomic
from towers.errors import DataError

BySeed = Mapping[int, float]
"""One figure of a variant, by seed."""

COMPARED = (f"recall@{K}", f"ndcg@{K}")
"""The metrics that are shown with their difference to the base."""

SHAPES = dict(zip(METRICS, (".4f", ".4f", ".3f", ".0f"), strict=True))
TITLES = dict(zip(SEGMENTS, ("all users", "warm users", "cold users"), strict=True))
LEGEND = (
    "Mean ± standard deviation over the seeds. Δ: mean difference to `base` with the same seed ± "
    "its standard error; with three seeds, chance alone goes beyond 4.3 standard errors once in "
    "twenty. Both are about the draws of training, not about the choice of test users. "
    "Popularity: mean training interactions of what is recommended. Seconds: of the last round's "
    "fit, and of the rounds and the mining before it. Mined: their share of the negatives that "
    "the loss counted."
)


def table(cells: Sequence[Cell]) -> str:
    """Render the cells as Markdown, a section a data set and a table a segment of its users.

    Raises:
        DataError: cells of one data set differ in more than their negatives.
    """
    parts = ["## Where the negatives come from", LEGEND]
    for data in dict.fromkeys(cell.data for cell in cells):
        chosen = [cell for cell in cells if cell.data == data]
        _check_comparable(chosen)
        parts += [f"### Negatives on {SETUPS[data].title}", *_spread(chosen), *_tables(chosen)]
    return "\n\n".join(parts)


def replace_section(path: Path, name: str, text: str) -> None:
    """Put `text` between the markers `<!-- name:begin -->` and `<!-- name:end -->` of a page.

    The markers are added at the end where the page has none.

    Raises:
        DataError: only one marker is there, or they are in the wrong order.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    page = path.read_text(encoding="utf-8") if path.exists() else ""
    if begin not in page and end not in page:
        page = f"{page.rstrip()}\n\n{begin}\n{end}\n".lstrip()
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not (found_begin and found_end):
        raise DataError(
            f"{path}: expected {begin} and then {end}, found one of them; add the other"
        )
    write_text_atomic(path, f"{before}{begin}\n\n{text}\n\n{end}{after}")


def mean_and_deviation(values: Collection[float]) -> tuple[float, float]:
    """The mean, NaN of nothing, and the sample standard deviation, NaN of fewer than two."""
    mean = float(np.mean(list(values))) if values else math.nan
    return mean, float(np.std(list(values), ddof=1)) if len(values) > 1 else math.nan


def paired_difference(values: BySeed, base: BySeed) -> tuple[float, float]:
    """The mean difference over the seeds of both, and its standard error; NaN as above."""
    differences = [value - base[seed] for seed, value in values.items() if seed in base]
    mean, deviation = mean_and_deviation(differences)
    return mean, deviation / math.sqrt(max(len(differences), 1))


def _check_comparable(cells: Sequence[Cell]) -> None:
    """Refuse cells that were not fitted alike but for what a variant changes and the seed."""
    for cell in cells:
        if _common(cell) != _common(cells[0]):
            raise DataError(
                f"{cell.data}: expected cells that differ in negatives and seed only, but "
                f"{cell.variant}-{cell.seed} and {cells[0].variant}-{cells[0].seed} differ in "
                "more; measure them again"
            )


def _common(cell: Cell) -> dict[str, Any]:
    """The settings that all cells of a data set share."""
    changed = {"negatives", "positive_suppression"}
    training = {k: v for k, v in cell.settings["training"].items() if k not in changed}
    return cell.settings | {"training": training, "seed": None}


def _spread(cells: Sequence[Cell]) -> list[str]:
    """Say how far the seeds of the base lie apart; nothing where the base is not there."""
    bases = [cell for cell in cells if cell.variant == BASE.name]
    seeds = ", ".join(str(seed) for seed in sorted(cell.seed for cell in bases))
    lines = []
    for segment in _segments(bases):
        parts = []
        for metric in COMPARED:
            values = list(_by_seed(bases, segment, metric).values())
            low, high = f"{min(values):.4f}", f"{max(values):.4f}"
            parts.append(f"{metric} {np.mean(values):.4f} ({low} to {high})")
        lines.append(f"- `base`, {TITLES[segment]}, seeds {seeds}: {'; '.join(parts)}")
    return ["\n".join(lines)] if lines else []


def _segments(cells: Sequence[Cell]) -> list[str]:
    """The segments with users; the warm ones only where there are cold ones, too."""
    found = dict.fromkeys(name for cell in cells for name in cell.figures)
    return [name for name in SEGMENTS if name in found and (name == "all" or "cold_users" in found)]


def _tables(cells: Sequence[Cell]) -> list[str]:
    """One table a segment, the variants in the order of the grid."""
    variants: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        variants[cell.variant].append(cell)
    rows = {name: variants[name] for name in VARIANTS if name in variants}
    parts = []
    for segment in _segments(cells):
        users = max(cell.users.get(segment, 0) for cell in cells)
        parts += [f"{TITLES[segment].capitalize()} ({users:,}):", _segment_table(rows, segment)]
    return parts


def _segment_table(rows: Mapping[str, Sequence[Cell]], segment: str) -> str:
    """Render one row a variant."""
    header = ["group", "variant", "negatives", "seeds"]
    for metric in METRICS:
        header += [metric, "Δ"] if metric in COMPARED else [metric]
    header += ["seconds", "before", "mined"] if segment == "all" else []
    lines = [header, ["---"] * 3 + ["---:"] * (len(header) - 3)]
    base = rows.get(BASE.name, [])
    for name, cells in rows.items():
        variant = VARIANTS[name]
        line = [variant.group, f"`{name}`", variant.change, str(len(cells))]
        for metric in METRICS:
            values = _by_seed(cells, segment, metric)
            line.append(_with_error(*mean_and_deviation(values.values()), shape=SHAPES[metric]))
            if metric in COMPARED:
                difference = paired_difference(values, _by_seed(base, segment, metric))
                line.append("" if name == BASE.name else _with_error(*difference, shape="+.4f"))
        if segment == "all":
            line += _costs(cells)
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _by_seed(cells: Sequence[Cell], segment: str, metric: str) -> BySeed:
    return {cell.seed: cell.figures[segment][metric] for cell in cells}


def _costs(cells: Sequence[Cell]) -> list[str]:
    """What a variant takes, and how many of its negatives are mined; means over the seeds."""
    seconds = np.mean([cell.seconds for cell in cells])
    before = np.mean([cell.seconds_before for cell in cells])
    share = np.mean([cell.mined_share for cell in cells])
    return [f"{seconds:.0f}", f"{before:.0f}", f"{share:.0%}"]


def _with_error(value: float, error: float, *, shape: str) -> str:
    """Write a figure and what it is uncertain by; empty for NaN."""
    if math.isnan(value):
        return ""
    return f"{value:{shape}}" + ("" if math.isnan(error) else f" ± {error:{shape.lstrip('+')}}")
