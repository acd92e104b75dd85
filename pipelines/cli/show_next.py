"""Print where a command has put its outcome, and what to type next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.cli.draw_table import new_table, print_table
from pipelines.tuning.trials import TRIALS, Searched


def show_candidates(
    console: Console, totals: Mapping[str, Mapping[str, Any]], *, out: Path
) -> None:
    """Print how many rows each table of a candidates job has, by channel, and where they are."""
    table = new_table()
    for name in ("table", "asked for", "rejected", "rows", "by channel"):
        table.add_column(name, justify="left" if name in {"table", "by channel"} else "right")
    for name, total in totals.items():
        counts = (f"{total[key]:,}" for key in ("sources", "rejected", "rows"))
        channels = (f"{channel} {n:,}" for channel, n in total.get("channels", {}).items())
        table.add_row(name, *counts, ", ".join(channels))
    print_table(console, str(out), table)
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
