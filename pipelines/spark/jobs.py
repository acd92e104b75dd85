"""What every job on Spark needs: to run it beside other work, and to say what its workers found."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING
from uuid import uuid4

from pipelines.spark.session import first_lines
from towers.errors import EngineError, RecallError

if TYPE_CHECKING:
    from pyspark.sql import Row, SparkSession

POLL_S = 0.5
"""How often the driver looks at what is finished."""


def attend(
    session: SparkSession, collect: Callable[[], list[Row]], *, meanwhile: Callable[[], None]
) -> list[Row]:
    """Run a Spark job and, again and again until it ends, something else; cancel it on an error.

    Raises:
        EngineError: Spark gave up.
    """
    from py4j.protocol import Py4JError  # noqa: PLC0415 - an extra
    from pyspark.errors import PySparkException  # noqa: PLC0415

    tag = f"fm-recall-{uuid4().hex}"

    def tagged() -> list[Row]:
        session.addTag(tag)
        return collect()

    with ThreadPoolExecutor(1) as pool:
        rows = pool.submit(tagged)
        try:
            while not rows.done():
                wait([rows], timeout=POLL_S)
                meanwhile()
            meanwhile()
            return rows.result()
        except (Py4JError, PySparkException) as error:
            raise EngineError(
                f"Spark: the job failed: {first_lines(error)}\nSee Spark's log, mend what failed, "
                "and repeat the command"
            ) from None
        finally:
            if not rows.done():
                session.interruptTag(tag)


def raise_first(rows: list[Row]) -> None:
    """Raise the first error that workers said."""
    kinds = {kind.__name__: kind for kind in RecallError.__subclasses__()}
    for row in sorted(rows, key=lambda row: row["number"]):
        if row["kind"] is not None:
            raise kinds.get(row["kind"], EngineError)(row["message"])
