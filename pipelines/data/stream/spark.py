"""The engine that carries out steps on Spark: a task a chunk, or a block.

Steps write files, and every machine must reach the same ones; what they say of them comes back.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipelines.data.stream.engine import Outcome, Step
from pipelines.spark.jobs import attend, raise_first
from towers.errors import RecallError

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

WAVE = 4
"""Tasks for each of Spark's cores that are given to it at a time, so that progress can be told."""

COLUMNS = "number long, outcome string, kind string, message string"
SCHEMA = pa.schema(
    {
        "number": pa.int64(),
        "outcome": pa.string(),
        "kind": pa.string(),
        "message": pa.string(),
    }
)
"""What a task says: its number, and an outcome as JSON or the class and the message of an error."""


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
        wave = WAVE * self._session.sparkContext.defaultParallelism
        for start in range(0, count, wave):
            collect = partial(self._collect, step, start, min(start + wave, count))
            rows = attend(self._session, collect, meanwhile=lambda: None)
            raise_first(rows)
            for row in sorted(rows, key=lambda row: row["number"]):
                yield row["number"], json.loads(row["outcome"])

    def _collect(self, step: Step, start: int, stop: int) -> list[Row]:
        """Carry out a step on some numbers, each in a task of its own."""

        def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            for batch in batches:
                for number in batch.column("id").to_pylist():
                    yield carry_out(step, number)

        numbers = self._session.range(start, stop, 1, numPartitions=stop - start)
        rows: list[Row] = numbers.mapInArrow(work, COLUMNS).collect()
        return rows


def carry_out(step: Step, number: int) -> pa.RecordBatch:
    """Carry out a step on a worker, and say what came of it (`SCHEMA`).

    Errors that would come again are said. Others, such as a full disk, are raised, so that Spark
    tries again.
    """
    said: dict[str, Any] = {"number": number}
    try:
        said["outcome"] = json.dumps(step(number))
    except RecallError as error:
        said |= {"kind": type(error).__name__, "message": str(error)}
    return pa.RecordBatch.from_pylist([said], schema=SCHEMA)
