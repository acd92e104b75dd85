"""The engine that carries out steps on Spark: a task a chunk, or a block."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from pipelines.data.steps.step import Outcome, Step
from pipelines.spark.tasks import run_tasks

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


class SparkEngine:
    """Carries out steps on the workers of a Spark session."""

    def __init__(self, session: SparkSession) -> None:
        """Use a session that is open."""
        self._session = session

    def run(self, step: Step, *, count: int) -> Iterator[tuple[int, Outcome]]:
        """Carry out a step on numbers 0 to `count` - 1; give each outcome when it is there.

        Raises:
            EngineError: Spark gave up.
            RecallError: what a step raised, of the lowest number.
        """
        return run_tasks(self._session, step, range(count))
