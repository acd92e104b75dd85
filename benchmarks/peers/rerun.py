"""Bring results up to date, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.environments import ensure_environment
from benchmarks.peers.peer import run_peer
from benchmarks.peers.product import product_settings, run_product
from benchmarks.peers.results import Result, describe_machine, load_result
from benchmarks.peers.rows import PEERS, POPULARITY, PRODUCT
from benchmarks.peers.splits import DataSet
from pipelines.evaluation.evaluate import popularity_scorer
from pipelines.progress import Reporter


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Runs rows; everything it makes is below one folder."""

    build: Path
    reporter: Reporter

    @property
    def results(self) -> Path:
        """The folder of all results."""
        return self.build / "results"

    def current(self, data: DataSet, row: str) -> Result | None:
        """The result of a row, unless there is none or the row's settings have changed since."""
        found = load_result(self.results, data.name, row=row)
        return found if found and found.settings == _settings(data, row) else None

    def all_current(self, data_sets: Sequence[DataSet], rows: Sequence[str]) -> list[Result]:
        """Every result that there is; says which are missing."""
        found = []
        for data in data_sets:
            for row in rows:
                result = self.current(data, row)
                if result is None:
                    self.reporter.say(f"{data.name} {row}: no result yet, so not in the table")
                else:
                    found.append(result)
        return found

    def run(self, data: DataSet, row: str) -> Result:
        """Run a row and keep its result.

        Raises:
            RecallError: the data cannot be read, or the row cannot be run.
        """
        with self.reporter.stage(f"{data.name} {row}"):
            result = self._run(data, row)
        result.save(self.results)
        figures = [result.figure(metric, "warm_users") for metric in ("recall@20", "ndcg@20")]
        shown = " / ".join("-" if figure is None else f"{figure:.4f}" for figure in figures)
        took = f", trained in {result.cost.training_s:.1f} s" if result.cost else ""
        self.reporter.say(f"  recall@20 / NDCG@20 {shown}{took}")
        return result

    def _run(self, data: DataSet, row: str) -> Result:
        if row == POPULARITY:
            return _run_popularity(data)
        if row == PRODUCT:
            folder = folder_of(self.build, data, row)
            self.reporter.say(f"{data.name} {row}: running; its log is {folder / 'log.txt'}")
            return run_product(data, folder=folder)
        peer = PEERS[row]
        python = ensure_environment(
            peer.environment, folder=self.build / peer.environment, reporter=self.reporter
        )
        folder = folder_of(self.build, data, row)
        self.reporter.say(f"{data.name} {row}: training; its log is {folder / 'log.txt'}")
        return run_peer(peer, data, row=row, python=python, folder=folder)


def folder_of(build: Path, data: DataSet, row: str) -> Path:
    """Where a row leaves what it has learned."""
    return build / PRODUCT / data.name if row == PRODUCT else build / "work" / data.name / row


def _run_popularity(data: DataSet) -> Result:
    split = data.split
    return Result(
        data=data.name,
        row=POPULARITY,
        settings={},
        evaluation=split.evaluate(
            popularity_scorer(split.dataset.interactions.item_counts)
        ).to_dict(),
        ranks_cold_users=True,
        cost=None,
        versions={},
        machine=describe_machine(),
    )


def _settings(data: DataSet, row: str) -> dict[str, Any]:
    """The settings of a row as they are now."""
    if row == POPULARITY:
        return {}
    return product_settings(data) if row == PRODUCT else PEERS[row].settings_for(data.name)
