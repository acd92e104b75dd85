"""Run numbered tasks on Spark: each outcome as soon as its task has ended, errors as our own.

A task reads files and writes files, which every machine must reach by the same paths; only a small
outcome comes back. A task may run more than once, so doing it again must do no harm.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pyarrow as pa

from pipelines.spark.session import first_lines
from towers.errors import EngineError, RecallError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

POLL_S = 0.5
"""How often, in seconds, the driver looks for tasks that have ended."""

Outcome = dict[str, Any]
"""What a task reports: values that JSON can hold."""

Task = Callable[[int], Outcome]
"""The work of each number; such as a frozen dataclass with `__call__`, sent to the workers."""


class _Joined:
    """Adds up lists, as the accumulator of Spark that brings reports to the driver."""

    def zero(self, value: list[str]) -> list[str]:
        return []

    def addInPlace(self, reports: list[str], more: list[str]) -> list[str]:  # noqa: N802 - Spark's
        reports += more
        return reports


def run_tasks(
    session: SparkSession, task: Task, numbers: Sequence[int]
) -> Iterator[tuple[int, Outcome]]:
    """Run a task for each number, and give its outcome when it has ended, in any order.

    A worker that is lost, or an error that may pass, such as a full disk, makes Spark run a task
    again. An error of ours would come again: the other tasks still run, and then the error of the
    lowest number is raised. The job is cancelled where the caller stops early.

    Raises:
        EngineError: Spark gave up.
        RecallError: what a task raised.
    """
    joined: Any = _Joined()
    ended: Any = session.sparkContext.accumulator([], joined)

    def work(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for place in batch.column("id").to_pylist():
                report = report_on(task, numbers[place])
                ended.add([report])
                yield pa.RecordBatch.from_pydict({"report": [report]})

    places = session.range(0, len(numbers), 1, numPartitions=max(len(numbers), 1))
    job = places.mapInArrow(work, "report string")
    failed: dict[int, RecallError] = {}
    seen: set[int] = set()

    def collect() -> list[str]:
        return [row["report"] for row in job.collect()]

    for report in attend(session, collect, ended=lambda: ended.value):
        said = json.loads(report)
        number = said["number"]
        if number in seen:
            continue
        seen.add(number)
        if "error" in said:
            failed[number] = _error(said["error"], said["message"])
        else:
            yield number, said["outcome"]
    if failed:
        raise failed[min(failed)]


def report_on(task: Task, number: int) -> str:
    """Run the task of a number on a worker; a JSON object with its `outcome`, or its `error`.

    Only errors that would come again are reported. All others are raised, so that Spark tries
    again.
    """
    said: dict[str, Any]
    try:
        said = {"outcome": task(number)}
    except RecallError as error:
        where = f"on {socket.gethostname()}: {error}"
        said = {"error": type(error).__name__, "message": where}
    return json.dumps({"number": number} | said)


def attend(
    session: SparkSession, collect: Callable[[], list[str]], *, ended: Callable[[], list[str]]
) -> Iterator[str]:
    """Run a Spark job in a thread, and give the reports of its tasks while it runs.

    Args:
        session: where the job runs.
        collect: runs the job, and answers the reports of all its tasks.
        ended: the reports of the tasks that have ended so far, in the order in which they ended.

    Raises:
        EngineError: Spark gave up.
    """
    from py4j.protocol import Py4JError  # noqa: PLC0415 - an extra
    from pyspark.errors import PySparkException  # noqa: PLC0415

    tag = f"fm-recall-{uuid4().hex}"

    def tagged() -> list[str]:
        session.addTag(tag)
        return collect()

    n_given = 0
    with ThreadPoolExecutor(1) as pool:
        job = pool.submit(tagged)
        try:
            is_over = False
            while not is_over:
                is_over = bool(wait([job], timeout=POLL_S).done)
                for report in ended()[n_given:]:
                    n_given += 1
                    yield report
            yield from job.result()
        except (Py4JError, PySparkException) as error:
            raise EngineError(
                f"Spark: the job failed: {first_lines(error)}\nSee Spark's log, correct what "
                "failed, and repeat the command"
            ) from None
        finally:
            if not job.done():
                session.interruptTag(tag)


def _error(kind: str, message: str) -> RecallError:
    """The error that a worker reported, of its own class."""
    kinds = {found.__name__: found for found in RecallError.__subclasses__()}
    return kinds.get(kind, EngineError)(message)
