"""Report: what became of the rows of every table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipelines.behaviours import CHOSEN, DISLIKED, LIKED, Behaviours, with_role
from pipelines.data.faults.rejects import Faults, Reason, explain_rejects
from towers.errors import DataError


@dataclass(frozen=True, kw_only=True)
class CheckedRows:
    """The outcome of the check of each row of a table by itself."""

    reasons: tuple[Reason, ...]
    """The reasons for which rows may be rejected, in the order of the checks."""
    behaviours: Mapping[str, int]
    """How many good rows there are of each behaviour."""
    n_others: int
    """How many rows have another name."""
    others: Mapping[str, int]
    """Some of these names, with how often they come."""


@dataclass(frozen=True, kw_only=True)
class PositiveCounts:
    """What became of the interactions of a table that are without a fault."""

    kept: int = 0
    not_positive: int = 0
    """How many have a rating below `positive_rating`."""
    merged: int = 0
    """How many later positives of a user with the same item were left out."""
    in_training: int = 0
    """How many test positives were left out because they are among the training interactions."""

    def __add__(self, other: PositiveCounts) -> PositiveCounts:
        """Count two sets of interactions as one."""
        return PositiveCounts(
            kept=self.kept + other.kept,
            not_positive=self.not_positive + other.not_positive,
            merged=self.merged + other.merged,
            in_training=self.in_training + other.in_training,
        )

    def check_any(self, *, where: str, faults: Sequence[Faults]) -> None:
        """Refuse a table of interactions of which nothing is left; `faults` are the rejected rows.

        Raises:
            DataError: with the reasons.
        """
        if self.kept == 0:
            problem = (
                f"{where}: expected at least one positive interaction, received none; of the rows "
                f"without a fault, {self.not_positive:,} have a rating below positive_rating, or "
                f"another behaviour than a target, and {self.in_training:,} repeat a training "
                "interaction; check the table, positive_rating and data.behaviours"
            )
            rejected = explain_rejects(faults)
            raise DataError("\n".join([problem, *(["rejected:", *rejected] if rejected else [])]))


NO_POSITIVES = PositiveCounts()


@dataclass(frozen=True, kw_only=True)
class TableReport:
    """What became of the rows of one table."""

    table: str
    rows: int
    """Rows read, those at fault included; empty CSV lines are none."""
    kept: int
    empty_lines: int
    rejected: Mapping[str, int]
    """Rows at fault, by reason."""
    quarantine: Path | None
    """Where the rows at fault were written."""
    notes: tuple[str, ...] = ()
    """How it was read."""
    positives: PositiveCounts = NO_POSITIVES
    """Of a table of interactions."""

    def lines(self) -> list[str]:
        """Say it, one fact a line."""
        facts = [
            (self.empty_lines, "empty lines"),
            (
                self.positives.not_positive,
                "not positive, but kept: rating below positive_rating, or another behaviour",
            ),
            (self.positives.merged, "repeats of a user and an item, merged into the earliest"),
            (
                self.positives.in_training,
                "left out of the test: the user has the item in training",
            ),
            *((count, f"rejected: {reason}") for reason, count in self.rejected.items()),
        ]
        lines = [f"{self.table}: {self.rows:,} rows read, {self.kept:,} kept"]
        lines += [f"  {note}" for note in self.notes]
        lines += [f"  {count:,} {fact}" for count, fact in facts if count]
        return lines + ([f"  rejected rows are in {self.quarantine}"] if self.quarantine else [])


@dataclass(frozen=True, kw_only=True)
class Rejected:
    """Rows of a table that are at fault for one reason."""

    table: str
    rows: int
    """Of the table, those at fault included."""
    count: int
    reason: str


def read_rejected(lines: Sequence[str]) -> list[Rejected]:
    """Read from reports, as `TableReport.lines` writes them, which rows are at fault."""
    found = []
    table, rows = "", 0
    for line in lines:
        if begin := re.fullmatch(r"(\S+): ([0-9,]+) rows read, [0-9,]+ kept", line):
            table, rows = begin[1], int(begin[2].replace(",", ""))
        elif fault := re.fullmatch(r"  ([0-9,]+) rejected: (.*)", line):
            count = int(fault[1].replace(",", ""))
            found.append(Rejected(table=table, rows=rows, count=count, reason=fault[2]))
    return found


def describe_behaviours(behaviours: Behaviours, checked: CheckedRows) -> list[str]:
    """Say how many rows have which behaviour, where that is more than a rating says."""
    if set(behaviours) <= {CHOSEN, LIKED, DISLIKED} and not with_role(behaviours, "negative").any():
        return []
    roles = {
        name: "" if one.role == "other" else f" ({one.role})" for name, one in behaviours.items()
    }
    counts = [f"{name} {n:,}{roles[name]}" for name, n in checked.behaviours.items() if n]
    lines = [f"behaviours: {', '.join(counts)}"]
    if checked.n_others:
        names = ", ".join(f"{name!r} ({count:,})" for name, count in checked.others.items())
        lines.append(f"{checked.n_others:,} left out, which data.behaviours does not name: {names}")
    return lines


def report_table(
    faults: Faults,
    *,
    kept: int,
    files: Mapping[str, Path],
    positives: PositiveCounts = NO_POSITIVES,
    notes: Sequence[str] = (),
) -> TableReport:
    """Account for the rows of a table; `files` are those of the quarantine, by table."""
    source = faults.source
    return TableReport(
        table=source.name,
        rows=source.n_rows + len(source.malformed),
        kept=kept,
        empty_lines=source.empty_lines,
        rejected=faults.counts(),
        quarantine=files.get(source.name),
        notes=(*source.notes, *notes),
        positives=positives,
    )
